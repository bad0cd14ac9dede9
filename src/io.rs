//! Reading and writing files: atomic writes, safe Parquet reading, exact JSON, format detection.

pub(crate) mod atomic;
pub(crate) mod exact_json;
#[cfg(debug_assertions)]
mod fault_injection;
pub(crate) mod format;
pub(crate) mod parquet;
pub(crate) mod parquet_writer;
