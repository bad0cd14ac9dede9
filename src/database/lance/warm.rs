//! The index of a library on an object store: read whole before the first search, where its cache holds it.

use std::sync::OnceLock;

use lance::index::DatasetIndexExt;

use super::table::Table;
use crate::database::runtime::on_runtime;
use crate::database::store::is_remote;
use crate::error::{Doing, Result};

/// What Lance does at the same time, from the environment. Read when Lance starts, when it is too late to set it.
const THREADS: &str = "LANCE_CPU_THREADS";

/// What is known of an index that may be far.
#[derive(Default)]
pub(super) struct Warm {
    is_read: OnceLock<()>,
    /// Bytes of its files, if the dataset says.
    bytes: Option<u64>,
    cache_bytes: usize,
}

impl Warm {
    pub(super) fn new(bytes: Option<u64>, cache_bytes: usize) -> Self {
        Warm { is_read: OnceLock::new(), bytes, cache_bytes }
    }

    /// Reads the index of a table, the first time.
    ///
    /// # Errors
    /// A store that does not answer.
    pub(super) fn up(&self, table: &Table, index: &str) -> Result<()> {
        if self.is_read.get().is_some() || !is_remote(&table.uri) {
            return Ok(());
        }
        // In memory it takes a tenth more.
        let fits = self.bytes.is_none_or(|bytes| bytes + bytes / 10 <= self.cache_bytes as u64);
        if fits {
            let (dataset, name) = (table.dataset.clone(), index.to_string());
            on_runtime(async move { dataset.prewarm_index(&name).await })?.doing("reading the index")?;
        } else {
            let (megabytes, cache) = (self.bytes.unwrap_or_default() >> 20, self.cache_bytes >> 20);
            let cure =
                format!("set database.index_cache_mb to {} to have it read once", megabytes + megabytes / 10 + 1);
            let or = if std::env::var_os(THREADS).is_none() {
                format!(", or {THREADS}=32 to have parts read side by side")
            } else {
                String::new()
            };
            log::warn!(
                "{}: its index of {megabytes} MB does not fit database.index_cache_mb = {cache}, and is read again in every iteration; {cure}{or}",
                table.uri
            );
        }
        self.is_read.get_or_init(|| ());
        Ok(())
    }
}
