//! Reading and writing files: atomic writes, safe Parquet reading, format detection.

pub(crate) mod atomic;
#[cfg(debug_assertions)]
mod fault_injection;
pub(crate) mod format;
pub(crate) mod parquet;
pub(crate) mod parquet_writer;
