//! The cache of a small library: its in-memory index, and the attribute columns that searches fetch repeatedly.

use std::sync::{Arc, OnceLock};

use polars::prelude::{Column, DataFrame};

use super::OpenOptions;
use super::attribute_cache::AttributeCache;
use super::identity::{DatasetIdentity, IndexInfo};
use super::in_memory_index::InMemoryIndex;
use super::table::Table;
use crate::error::{Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::DB_IDX;

/// The number of components from which a search by codes is faster than a search by embeddings in memory. With 96 components it
/// takes 1.6 times as long, with 384 half as long (`benches/compare --only equal`).
const CODES_FASTER_FROM: usize = 192;

/// The in-memory index and attribute columns of a library, filled on demand.
pub(super) struct LibraryCache {
    /// Whether searches compare embeddings, not index entries. This does not depend on the size of the index cache, so the cache
    /// does not affect results.
    is_small: bool,
    /// Whether the index stays in memory between searches.
    is_persistent: bool,
    /// The index, read on first use. `None` if it has several segments.
    index: OnceLock<Option<Arc<InMemoryIndex>>>,
    attributes: AttributeCache,
}

impl LibraryCache {
    /// Embeddings are cached if they fit into the index cache, which is otherwise unused then. Attributes are cached up to a
    /// sixteenth of its size. Reading more takes longer than the fetches of a run of some tens of iterations.
    pub(super) fn new(identity: &DatasetIdentity, options: &OpenOptions) -> Self {
        let (bytes, embeddings) = (options.index_cache_bytes, identity.embedding_bytes());
        let has_long_codes =
            identity.index.as_ref().is_some_and(|index| index.has_codes() && identity.dim >= CODES_FASTER_FROM);
        let is_small = embeddings < options.index_from_bytes && !has_long_codes;
        let attributes = AttributeCache::new(bytes / 16, identity.rows as usize);
        LibraryCache { is_small, is_persistent: embeddings <= bytes, index: OnceLock::new(), attributes }
    }

    /// The in-memory index of a small library, read if it is not cached. `None` if the library is not small, or a search by
    /// codes is faster.
    ///
    /// # Errors
    /// A dataset that cannot be read.
    pub(super) fn index(
        &self,
        table: &Table,
        identity: &DatasetIdentity,
        index: &IndexInfo,
        unindexed_fragments: &[u64],
    ) -> Result<Option<Arc<InMemoryIndex>>> {
        if !self.is_small {
            return Ok(None);
        }
        if let Some(cached) = self.index.get() {
            return Ok(cached.clone());
        }
        let read =
            InMemoryIndex::read(table, &index.name, identity.metric, identity.dim, unindexed_fragments)?.map(Arc::new);
        Ok(if self.is_persistent { self.index.get_or_init(|| read).clone() } else { read })
    }

    /// The items of distinct row ids, in the given order: `db_idx`, `embedding`, attributes. `None` if their embeddings are not
    /// in memory.
    ///
    /// # Errors
    /// A dataset that cannot be read.
    pub(super) fn items(&self, table: &Table, rows: &[u64], columns: &[String]) -> Result<Option<DataFrame>> {
        let index = self.index.get().and_then(Option::as_deref);
        let Some(embeddings) = index.and_then(|index| index.embeddings(rows)) else { return Ok(None) };
        let ids = table.ids.ids_of(rows)?;
        let attributes = self.attributes.get(table, rows, &ids, columns)?;
        let mut items = vec![Column::new(DB_IDX.into(), ids), convert::embedding_column(embeddings.view())?];
        items.extend(attributes);
        DataFrame::new(rows.len(), items).wrap_err("fetching items").map(Some)
    }
}
