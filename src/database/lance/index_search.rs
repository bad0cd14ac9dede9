//! Search through the ANN index: finds the candidates of each query as row ids. The caller computes their distances.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, UInt64Type};
use lance::dataset::scanner::Scanner;
use ndarray::{ArrayView2, Axis};

use super::centroids::{Centroids, Probes};
use super::exact_search::ExactSearch;
use super::identity::IndexInfo;
use super::in_memory_index::InMemoryIndex;
use super::recall_table::{RecallTable, SearchParams};
use super::record_batch::{ROW_ID, column, fixed_size_list};
use crate::database::block_search::IsExcluded;
use crate::database::runtime::block_on;
use crate::error::{Error, Result, WrapErr};

/// The number of queries in one call of Lance. It bounds the size of Lance's plan and result.
const QUERIES_PER_CALL: usize = 1024;

/// The refine factor of an index that stores codes, if no recall was measured. Distances by codes are approximate, so more
/// candidates are fetched, and their distances are recomputed from their embeddings.
const DEFAULT_REFINE_FACTOR: usize = 4;

/// The factor by which a search is enlarged if too many of its candidates are excluded.
const RETRY_FACTOR: usize = 4;

/// The candidates of each query, as row ids.
pub(crate) type Candidates = Vec<Vec<u64>>;

/// A search through the index, and an exact search of the rows that are not indexed.
pub(super) struct IndexSearch<'a> {
    pub(super) exact: ExactSearch<'a>,
    pub(super) index: &'a IndexInfo,
    /// The in-memory index. Without it, Lance searches the index.
    pub(super) in_memory: Option<Arc<InMemoryIndex>>,
    /// The centroids of the index that Lance searches.
    pub(super) centroids: Option<&'a Centroids>,
    /// The fragments that are not indexed.
    pub(super) unindexed_fragments: &'a [u64],
    /// The number of rows of the library.
    pub(super) library_rows: usize,
    /// The number of rows that match the prefilter.
    pub(super) matching_rows: usize,
    pub(super) nprobes: Option<usize>,
    /// The target recall if `nprobes` is not set.
    pub(super) recall: f64,
    pub(super) recall_table: Option<&'a RecallTable>,
}

impl IndexSearch<'_> {
    /// Candidates for the `k` nearest rows of each query, without excluded rows. First searches for `requested` neighbours, then
    /// for more, until each query has at least `k` candidates. If the search would return all rows, it is exact instead.
    pub(super) fn nearest(
        &self,
        queries: ArrayView2<'_, f32>,
        k: usize,
        mut requested: usize,
        is_excluded: &IsExcluded<'_>,
    ) -> Result<Candidates> {
        let mut found: Candidates = vec![Vec::new(); queries.nrows()];
        let mut pending: Vec<usize> = (0..queries.nrows()).collect();
        while !pending.is_empty() {
            let vectors = queries.select(Axis(0), &pending);
            let (probes, fetch) = self.search_params(requested);
            if fetch >= self.matching_rows {
                let nearest = self.exact.nearest(vectors.view(), k, is_excluded, None)?;
                pending.drain(..).zip(nearest).for_each(|(query, nearest)| found[query] = nearest);
                break;
            }
            let mut candidates = self.candidates(vectors.view(), probes, fetch, is_excluded)?;
            if !self.unindexed_fragments.is_empty() {
                let extra = self.exact.nearest(vectors.view(), k, is_excluded, Some(self.unindexed_fragments))?;
                candidates.iter_mut().zip(extra).for_each(|(rows, extra)| rows.extend(extra));
            }
            let mut incomplete = Vec::new();
            for (query, mut candidates) in pending.into_iter().zip(candidates) {
                candidates.retain(|row| !is_excluded(*row));
                if !self.unindexed_fragments.is_empty() {
                    // An updated row may be both in the index and in an unindexed fragment.
                    let mut distinct = HashSet::with_capacity(candidates.len());
                    candidates.retain(|row| distinct.insert(*row));
                }
                // The searched partitions may contain too few rows even if none is excluded.
                if candidates.len() < k {
                    incomplete.push(query);
                }
                found[query] = candidates;
            }
            (pending, requested) = (incomplete, requested.saturating_mul(RETRY_FACTOR));
        }
        Ok(found)
    }

    /// The nearest rows in the partitions that each query searches, nearest first. Excluded rows may be among them.
    pub(super) fn candidates(
        &self,
        queries: ArrayView2<'_, f32>,
        probes: Probes,
        fetch: usize,
        is_excluded: &IsExcluded<'_>,
    ) -> Result<Candidates> {
        self.check_metric()?;
        if let Some(index) = &self.in_memory {
            let found = index.nearest(queries, probes, fetch, is_excluded)?.into_iter();
            return Ok(found.map(|nearest| nearest.into_iter().map(|neighbour| neighbour.db_idx).collect()).collect());
        }
        let mut found: Candidates = vec![Vec::new(); queries.nrows()];
        for (nprobes, group) in self.group_by_nprobes(queries, probes)? {
            for chunk in group.chunks(QUERIES_PER_CALL) {
                let scanner = self.scanner(queries.select(Axis(0), chunk).view(), nprobes, fetch)?;
                let batch = block_on(async move { scanner.try_into_batch().await })?.wrap_err("searching the index")?;
                let query_index = column(&batch, "query_index")?.as_primitive::<Int32Type>();
                let row_id = column(&batch, ROW_ID)?.as_primitive::<UInt64Type>();
                for (query, row) in query_index.values().iter().zip(row_id.values()) {
                    found[chunk[*query as usize]].push(*row);
                }
            }
        }
        Ok(found)
    }

    /// Groups queries by their approximate number of partitions, because Lance takes one number for all queries of a call.
    fn group_by_nprobes(&self, queries: ArrayView2<'_, f32>, probes: Probes) -> Result<BTreeMap<usize, Vec<usize>>> {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (position, query) in queries.rows().into_iter().enumerate() {
            let nprobes = match self.centroids.filter(|_| probes.max_relative_distance.is_some()) {
                Some(centroids) => round_up(centroids.partition_count(query, probes)?),
                None => probes.min_partitions,
            };
            groups.entry(nprobes.clamp(1, self.index.partitions.max(1))).or_default().push(position);
        }
        Ok(groups)
    }

    /// The partitions that a query for `k` neighbours searches, and the number of candidates that it fetches. The number of
    /// partitions depends on the target recall or is `nprobes`. It is large enough that the partitions contain about twice the
    /// candidates.
    fn search_params(&self, k: usize) -> (Probes, usize) {
        let partitions = self.index.partitions.max(1);
        // The k nearest rows that match a prefilter are as far away as a larger number of nearest rows of the whole library.
        let unfiltered_k = k.saturating_mul(self.library_rows) / self.matching_rows.max(1);
        let measured = self.recall_table.filter(|_| self.nprobes.is_none());
        let measured = measured.and_then(|table| {
            let SearchParams { probes, .. } = table.search_params(self.recall, unfiltered_k)?;
            Some(SearchParams { probes, ..table.search_params(self.recall, k)? })
        });
        let params = measured.unwrap_or_else(|| SearchParams {
            probes: Probes {
                min_partitions: self.nprobes.unwrap_or_else(|| (partitions / 16).max(16)),
                max_relative_distance: None,
            },
            refine_factor: if self.index.has_codes() { DEFAULT_REFINE_FACTOR } else { 1 },
        });
        // The in-memory index compares embeddings, not codes, so its order is exact.
        let fetch = if self.in_memory.is_some() { k } else { k.saturating_mul(params.refine_factor) };
        let enough = fetch.saturating_mul(2 * partitions) / self.matching_rows.max(1);
        let min_partitions = params.probes.min_partitions.max(enough).clamp(1, partitions);
        (Probes { min_partitions, ..params.probes }, fetch)
    }

    /// Lance's query plan.
    pub(super) fn explain(&self, queries: ArrayView2<'_, f32>, k: usize) -> Result<String> {
        let (probes, fetch) = self.search_params(k);
        let nprobes = self.group_by_nprobes(queries, probes)?.into_keys().next_back().unwrap_or(1);
        let scanner = self.scanner(queries, nprobes, fetch)?;
        block_on(async move { scanner.explain_plan(true).await })?.wrap_err("explaining a query")
    }

    fn check_metric(&self) -> Result<()> {
        let (index, metric) = (self.index, self.exact.metric);
        if index.metric != metric {
            return Err(Error::Config(format!(
                "database.metric is {metric} but the index `{}` was built for {}; set that metric, or set exact = true",
                index.name, index.metric
            )));
        }
        Ok(())
    }

    fn scanner(&self, queries: ArrayView2<'_, f32>, nprobes: usize, fetch: usize) -> Result<Scanner> {
        let (index, table) = (self.index, self.exact.table);
        self.check_metric()?;
        let mut scanner = table.dataset.scan();
        scanner
            .nearest(&table.embedding_column, &fixed_size_list(queries), fetch)
            .wrap_err("planning a search of the index")?;
        scanner.nprobes(nprobes.clamp(1, index.partitions.max(1)));
        // `ExactSearch` searches the unindexed rows. If Lance searched them, it would not batch the queries.
        scanner.fast_search();
        if let Some(sql) = self.exact.prefilter {
            scanner.filter(sql).wrap_err("database.prefilter")?;
            scanner.prefilter(true);
        }
        scanner.project::<&str>(&[]).wrap_err("projecting")?;
        scanner.with_row_id();
        scanner.disable_scoring_autoprojection();
        Ok(scanner)
    }
}

/// Rounds up to one of 1, 2, 3, 4, 6, 8, 12, 16, ... This limits the number of groups, and increases the number of partitions by at
/// most a half.
fn round_up(count: usize) -> usize {
    let below = 1usize << count.max(1).ilog2();
    [below, below + below / 2, 2 * below].into_iter().find(|step| *step >= count).unwrap_or(count)
}
