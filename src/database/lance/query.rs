//! The queries of a `LanceDatabase`: finds candidates exactly or through the index, fetches their items, and ranks them by
//! distance.

use ndarray::ArrayView2;
use polars::prelude::{Column, DataFrame};

use super::LanceDatabase;
use super::centroids::Centroids;
use super::exact_search::ExactSearch;
use super::index_search::{Candidates, IndexSearch};
use crate::database::QueryOptions;
use crate::database::block_search::Neighbour;
use crate::error::{Error, Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX, DISTANCE, EMBEDDING, QUERY_IDX};

/// If at most this number of items match a prefilter, they are cached and searched exactly. An index search would have to be
/// repeated with more and more partitions to find them.
const MAX_EXACT_MATCHES: usize = 20_000;

impl LanceDatabase {
    /// The exact search of all items, or of those that match the prefilter.
    pub(super) fn exact_search(&self) -> ExactSearch<'_> {
        // If there is an index, exact searches are rare: do not cache embeddings for them.
        let is_exact = self.exact || self.recall >= 1.0 || self.identity.index.is_none();
        let cache = (is_exact && self.fits_cache).then_some(&*self.cached_embeddings);
        let prefilter = self.prefilter.as_ref().map(|prefilter| prefilter.sql.as_str());
        ExactSearch { table: &self.table, cache, metric: self.identity.metric, prefilter }
    }

    /// The search through the index. `None` if there is no index, or the options require an exact search.
    pub(super) fn index_search(&self) -> Option<IndexSearch<'_>> {
        let index =
            self.identity.index.as_ref().filter(|_| !self.exact && (self.recall < 1.0 || self.nprobes.is_some()))?;
        let library_rows = self.identity.rows as usize;
        Some(IndexSearch {
            exact: self.exact_search(),
            index,
            in_memory: None,
            centroids: None,
            unindexed_fragments: &self.unindexed_fragments,
            library_rows,
            matching_rows: self.matching.get().map_or(library_rows, Vec::len),
            nprobes: self.nprobes,
            recall: self.recall,
            recall_table: self.recall_table.as_ref().as_ref(),
        })
    }

    /// The centroids of the index, read on first use.
    pub(super) fn centroids(&self) -> Result<Option<&Centroids>> {
        let Some(index) = &self.identity.index else { return Ok(None) };
        if self.centroids.get().is_none() {
            let read = Centroids::read(&self.table, &index.name, self.identity.metric)?;
            self.centroids.get_or_init(|| read);
        }
        Ok(self.centroids.get().and_then(Option::as_ref))
    }

    /// The nearest items of each query: the results frame.
    pub(super) fn nearest(&self, queries: &DataFrame, options: QueryOptions<'_>) -> Result<DataFrame> {
        let k = options.k.unwrap_or(self.k);
        if self.k == 0 {
            return Err(Error::Config("database.k: expected at least 1, found 0".into()));
        }
        schema::check_queries(queries, self.identity.dim)?;
        self.table.check_prefilter_columns(self.prefilter.as_ref())?;
        let query_idx = schema::u32s(queries, QUERY_IDX)?;
        let vectors = convert::matrix::<f64>(queries, EMBEDDING)?.view().mapv(|component| component as f32);
        let exclude = options.exclude.filter(|ids| !ids.is_empty());
        let is_excluded = |row: u64| exclude.is_some_and(|ids| self.table.ids.is_in(row, ids));
        let has_few_matches =
            self.prefilter.is_some() && self.uses_index() && self.matching()?.len() <= MAX_EXACT_MATCHES;
        let candidates = match self.index_search() {
            _ if query_idx.is_empty() || k == 0 => {
                self.table.check_prefilter(self.prefilter.as_ref())?;
                Vec::new()
            }
            Some(_) if has_few_matches => {
                let exact = ExactSearch { cache: Some(&self.cached_embeddings), ..self.exact_search() };
                exact.nearest(vectors.view(), k, &is_excluded, None)?
            }
            Some(index) => {
                let in_memory = match self.prefilter {
                    None => {
                        self.library_cache.index(&self.table, &self.identity, index.index, &self.unindexed_fragments)?
                    }
                    Some(_) => None,
                };
                let is_in_memory = in_memory.is_some();
                if !is_in_memory {
                    self.prewarm.load_once(&self.table, &index.index.name)?;
                }
                let centroids = if is_in_memory { None } else { self.centroids()? };
                let index = IndexSearch { in_memory, centroids, ..index };
                let requested = if exclude.is_some() && !is_in_memory { k.saturating_mul(2) } else { k };
                index.nearest(vectors.view(), k, requested, &is_excluded)?
            }
            None => self.exact_search().nearest(vectors.view(), k, &is_excluded, None)?,
        };
        if self.prefilter.is_some() && !candidates.is_empty() && candidates.iter().all(Vec::is_empty) {
            // Warns if no item matches.
            self.matching()?;
        }
        self.rank(&query_idx, vectors.view(), &candidates, k, &self.result_columns(options.columns))
    }

    /// The attribute columns of results that are also in `columns`, in their order.
    pub(super) fn result_columns(&self, columns: Option<&[String]>) -> Vec<String> {
        let is_requested = |column: &&String| columns.is_none_or(|columns| columns.contains(column));
        self.columns.iter().filter(is_requested).cloned().collect()
    }

    /// The items of distinct row ids, from the library cache if they are in it.
    fn fetch(&self, rows: &[u64], columns: &[String]) -> Result<DataFrame> {
        match self.library_cache.items(&self.table, rows, columns)? {
            Some(items) => Ok(items),
            None => self.table.take(rows, columns),
        }
    }

    /// The items with these ids, in the given order.
    pub(super) fn items(&self, db_idx: &[u64], columns: &[String]) -> Result<DataFrame> {
        let rows = db_idx.iter().map(|id| self.table.ids.row_of(*id)).collect::<Option<Vec<u64>>>();
        let rows = rows.ok_or_else(|| Error::input(&self.identity.uri, "a requested item does not exist"))?;
        // Lance requires distinct ids: fetch each once, then restore the given order.
        let distinct = sorted_distinct(rows.clone());
        let items = self.fetch(&distinct, columns)?;
        let order: Vec<u32> =
            rows.iter().filter_map(|row| distinct.binary_search(row).ok()).map(|at| at as u32).collect();
        convert::gather(&items, &order)
    }

    /// Computes the distances of each query's candidates and keeps the `k` nearest: the results frame.
    fn rank(
        &self,
        query_idx: &[u32],
        vectors: ArrayView2<'_, f32>,
        candidates: &Candidates,
        k: usize,
        columns: &[String],
    ) -> Result<DataFrame> {
        let distinct = sorted_distinct(candidates.iter().flatten().copied().collect());
        let items = self.last_neighbours.get_or_fetch(&distinct, columns, |rows| self.fetch(rows, columns))?;
        let embeddings = convert::matrix::<f32>(&items, EMBEDDING)?;
        let embeddings = embeddings.view();
        let ids = schema::u64s(&items, DB_IDX)?;

        let (mut rows, mut queries_of, mut distances) = (Vec::new(), Vec::new(), Vec::new());
        for ((query_idx, vector), candidates) in query_idx.iter().zip(vectors.rows()).zip(candidates) {
            let distance = |item: usize| match (vector.as_slice(), embeddings.row(item).as_slice()) {
                (Some(a), Some(b)) => self.identity.metric.distance(a, b),
                _ => f32::NAN,
            };
            let mut neighbours: Vec<(Neighbour, u32)> = candidates
                .iter()
                .filter_map(|row| distinct.binary_search(row).ok())
                .map(|item| (Neighbour { distance: distance(item), db_idx: ids[item] }, item as u32))
                .filter(|(neighbour, _)| self.max_distance.is_none_or(|limit| neighbour.distance <= limit))
                .collect();
            neighbours.sort_unstable();
            for (neighbour, item) in neighbours.into_iter().take(k) {
                queries_of.push(*query_idx);
                distances.push(neighbour.distance);
                rows.push(item);
            }
        }
        let mut columns = convert::gather(&items, &rows)?.into_columns();
        columns.insert(0, Column::new(QUERY_IDX.into(), queries_of));
        columns.insert(2, Column::new(DISTANCE.into(), distances));
        DataFrame::new(rows.len(), columns).wrap_err("building the results frame")
    }
}

/// Sorts row ids and removes duplicates.
fn sorted_distinct(mut rows: Vec<u64>) -> Vec<u64> {
    rows.sort_unstable();
    rows.dedup();
    rows
}
