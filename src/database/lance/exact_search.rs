//! Exact search of a dataset: scans all rows, and compares each query with their embeddings.

use ndarray::ArrayView2;

use super::cached_embeddings::CachedEmbeddings;
use super::table::Table;
use crate::database::block_search::{BlockSearch, IsExcluded, Neighbour};
use crate::database::{BlockVisitor, Metric};
use crate::error::Result;

/// An exact search of all rows that match the prefilter.
pub(super) struct ExactSearch<'a> {
    pub(super) table: &'a Table,
    /// The cache of embeddings, if they are to be cached.
    pub(super) cache: Option<&'a CachedEmbeddings>,
    pub(super) metric: Metric,
    pub(super) prefilter: Option<&'a str>,
}

impl ExactSearch<'_> {
    /// The `k` nearest rows of each query that are not excluded, from some fragments or from all.
    pub(super) fn nearest(
        &self,
        queries: ArrayView2<'_, f32>,
        k: usize,
        is_excluded: &IsExcluded<'_>,
        fragments: Option<&[u64]>,
    ) -> Result<Vec<Vec<u64>>> {
        let found = self.neighbours(queries, k, is_excluded, fragments)?;
        Ok(found.into_iter().map(|nearest| nearest.into_iter().map(|neighbour| neighbour.db_idx).collect()).collect())
    }

    /// As [`ExactSearch::nearest`], with distances.
    pub(super) fn neighbours(
        &self,
        queries: ArrayView2<'_, f32>,
        k: usize,
        is_excluded: &IsExcluded<'_>,
        fragments: Option<&[u64]>,
    ) -> Result<Vec<Vec<Neighbour>>> {
        let mut search = BlockSearch::new(queries, self.metric, k, is_excluded);
        let mut visit = |rows: &[u64], items: ArrayView2<'_, f32>| {
            search.add_block(rows, items);
            Ok(())
        };
        match fragments {
            None => self.scan(&mut visit)?,
            some => self.table.scan(self.prefilter, some, &mut visit)?,
        }
        Ok(search.finish())
    }

    /// Calls `visit` with the row ids and embeddings of all matching rows, in blocks.
    pub(super) fn scan(&self, visit: &mut BlockVisitor<'_>) -> Result<()> {
        let read = |visit: &mut BlockVisitor<'_>| self.table.scan(self.prefilter, None, visit);
        match self.cache {
            Some(cache) => cache.scan(visit, read),
            None => read(visit),
        }
    }
}
