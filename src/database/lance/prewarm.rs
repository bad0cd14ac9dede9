//! Prewarming: reads the whole index of a library on an object store before the first search, if it fits the index cache.

use std::sync::OnceLock;

use lance::index::DatasetIndexExt;

use super::table::Table;
use crate::database::remote::is_remote;
use crate::database::runtime::block_on;
use crate::error::{Result, WrapErr};

/// The environment variable with the number of Lance's threads. Lance reads it at start, so it cannot be set later.
const THREADS: &str = "LANCE_CPU_THREADS";

/// The state of prewarming an index.
#[derive(Default)]
pub(super) struct Prewarm {
    is_done: OnceLock<()>,
    /// The size of the index files in bytes, if the dataset records it.
    bytes: Option<u64>,
    cache_bytes: usize,
}

impl Prewarm {
    pub(super) fn new(bytes: Option<u64>, cache_bytes: usize) -> Self {
        Prewarm { is_done: OnceLock::new(), bytes, cache_bytes }
    }

    /// Reads the index of a table on an object store, on the first call. Warns if it does not fit the cache.
    ///
    /// # Errors
    /// A store that does not answer.
    pub(super) fn load_once(&self, table: &Table, index: &str) -> Result<()> {
        if self.is_done.get().is_some() || !is_remote(&table.uri) {
            return Ok(());
        }
        // An index takes a tenth more in memory than on disk.
        let fits = self.bytes.is_none_or(|bytes| bytes + bytes / 10 <= self.cache_bytes as u64);
        if fits {
            let (dataset, name) = (table.dataset.clone(), index.to_string());
            block_on(async move { dataset.prewarm_index(&name).await })?.wrap_err("reading the index")?;
        } else {
            let (megabytes, cache) = (self.bytes.unwrap_or_default() >> 20, self.cache_bytes >> 20);
            let advice = format!("set database.index_cache_mb to {} to read it once", megabytes + megabytes / 10 + 1);
            let alternative = if std::env::var_os(THREADS).is_none() {
                format!(", or {THREADS}=32 to read its parts in parallel")
            } else {
                String::new()
            };
            log::warn!(
                "{}: the index of {megabytes} MB does not fit database.index_cache_mb = {cache} and is read again in every iteration; {advice}{alternative}",
                table.uri
            );
        }
        self.is_done.get_or_init(|| ());
        Ok(())
    }
}
