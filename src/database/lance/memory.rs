//! A small library in memory: its index with the embeddings, and the attributes that are asked for again and again.

use std::sync::{Arc, OnceLock};

use polars::prelude::{Column, DataFrame};

use super::OpenOptions;
use super::attributes::Attributes;
use super::identity::{Identity, IndexInfo};
use super::partitions::Partitions;
use super::table::Table;
use crate::error::{Doing, Result};
use crate::frame::convert;
use crate::frame::schema::DB_IDX;

/// From so many components on a search by codes costs less than one by vectors in memory: at 96 components it takes 1.6 times
/// as long, at 384 half (`benches/compare --only equal`).
const CODES_PAY_FROM: usize = 192;

/// What of a library is in memory: nothing, until a search wants it and it fits.
pub(super) struct Memory {
    /// Whether a search is by embeddings: of a small library. What is found follows from the library alone, never from the
    /// memory that a run is given.
    is_small: bool,
    /// Whether they stay in memory between searches.
    keeps: bool,
    /// The index, once it was wanted; none where that cannot be.
    index: OnceLock<Option<Arc<Partitions>>>,
    attributes: Attributes,
}

impl Memory {
    /// Embeddings are kept where they fit into the index cache, which nothing else needs then; attributes where they take a
    /// sixteenth of it: more takes longer to read than a run of some tens of iterations fetches.
    pub(super) fn new(identity: &Identity, options: &OpenOptions) -> Self {
        let (bytes, embeddings) = (options.index_cache_bytes, identity.embedding_bytes());
        let has_long_codes =
            identity.index.as_ref().is_some_and(|index| index.has_codes() && identity.dim >= CODES_PAY_FROM);
        // Codes of long vectors cost less than the vectors themselves, wherever these lie.
        let is_small = embeddings < options.index_from_bytes && !has_long_codes;
        let attributes = Attributes::new(bytes / 16, identity.rows as usize);
        Memory { is_small, keeps: embeddings <= bytes, index: OnceLock::new(), attributes }
    }

    /// The index of a small library, read now if it is not in memory; none where the library is not small, or its codes are
    /// the better index.
    ///
    /// # Errors
    /// A dataset that cannot be read.
    pub(super) fn index(
        &self,
        table: &Table,
        identity: &Identity,
        index: &IndexInfo,
        uncovered: &[u64],
    ) -> Result<Option<Arc<Partitions>>> {
        if !self.is_small {
            return Ok(None);
        }
        if let Some(kept) = self.index.get() {
            return Ok(kept.clone());
        }
        let read = Partitions::read(table, &index.name, identity.metric, identity.dim, uncovered)?.map(Arc::new);
        Ok(if self.keeps { self.index.get_or_init(|| read).clone() } else { read })
    }

    /// Items by row id, distinct and in the order asked: `db_idx`, `embedding`, attributes; `None` if their embeddings are not in
    /// memory.
    ///
    /// # Errors
    /// A dataset that cannot be read.
    pub(super) fn items(&self, table: &Table, rows: &[u64], columns: &[String]) -> Result<Option<DataFrame>> {
        let index = self.index.get().and_then(Option::as_deref);
        let Some(embeddings) = index.and_then(|index| index.embeddings(rows)) else { return Ok(None) };
        let ids = table.ids.of_rows(rows)?;
        let attributes = self.attributes.of(table, rows, &ids, columns)?;
        let mut items = vec![Column::new(DB_IDX.into(), ids), convert::embedding_column(embeddings.view())?];
        items.extend(attributes);
        DataFrame::new(rows.len(), items).doing("fetching items").map(Some)
    }
}
