//! Reading and writing files: atomic writes, safe Parquet reading, tables in the formats that users have.

pub(crate) mod atomic;
#[cfg(debug_assertions)]
mod fault;
pub(crate) mod format;
pub(crate) mod parquet;
pub(crate) mod parquet_writer;
pub(crate) mod table;
