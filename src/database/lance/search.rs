//! Which rows may be near each query: through the index, or by looking at all of them.
//!
//! Both give candidates as row ids; their distances are measured by the caller.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, UInt64Type};
use lance::dataset::scanner::Scanner;
use ndarray::{ArrayView2, Axis};

use super::batch::{ROW_ID, column, fixed_size_list};
use super::centroids::{Centroids, Probes};
use super::held::Held;
use super::identity::IndexInfo;
use super::partitions::Partitions;
use super::recall::{Effort, RecallTable};
use super::table::Table;
use crate::database::exact::{LeftOut, Neighbour, Search};
use crate::database::runtime::on_runtime;
use crate::database::{Metric, Visit};
use crate::error::{Doing, Error, Result};

/// Queries in one call of Lance: bounds the size of its plan and of its result.
const QUERIES_PER_CALL: usize = 1024;

/// Candidates taken from an index of codes for each neighbour asked for, where nothing was measured. Codes order them
/// only roughly; all of them are then measured from their embeddings.
const OVERFETCH: usize = 4;

/// How many times as much is asked for where too much of it was left out.
const MORE: usize = 4;

/// Candidates of each query, as row ids.
pub(crate) type Candidates = Vec<Vec<u64>>;

/// Looks at every row that matches the prefilter.
pub(super) struct ExactSearch<'a> {
    pub(super) table: &'a Table,
    /// Where embeddings are held, if they are to be.
    pub(super) held: Option<&'a Held>,
    pub(super) metric: Metric,
    pub(super) prefilter: Option<&'a str>,
}

impl ExactSearch<'_> {
    /// The `k` nearest rows of each query, those to leave out left out, of some fragments or of all.
    pub(super) fn nearest(
        &self,
        queries: ArrayView2<'_, f32>,
        k: usize,
        left_out: &LeftOut<'_>,
        fragments: Option<&[u64]>,
    ) -> Result<Candidates> {
        let found = self.neighbours(queries, k, left_out, fragments)?;
        Ok(found.into_iter().map(|nearest| nearest.into_iter().map(|neighbour| neighbour.db_idx).collect()).collect())
    }

    /// As [`ExactSearch::nearest`], with distances.
    pub(super) fn neighbours(
        &self,
        queries: ArrayView2<'_, f32>,
        k: usize,
        left_out: &LeftOut<'_>,
        fragments: Option<&[u64]>,
    ) -> Result<Vec<Vec<Neighbour>>> {
        let mut search = Search::new(queries, self.metric, k, left_out);
        let mut look = |rows: &[u64], items: ArrayView2<'_, f32>| {
            search.block(rows, items);
            Ok(())
        };
        match fragments {
            None => self.scan(&mut look)?,
            some => self.table.scan(self.prefilter, some, &mut look)?,
        }
        Ok(search.finish())
    }

    /// Shows every row that matches.
    pub(super) fn scan(&self, visit: &mut Visit<'_>) -> Result<()> {
        let read = |visit: &mut Visit<'_>| self.table.scan(self.prefilter, None, visit);
        match self.held {
            Some(held) => held.scan(visit, read),
            None => read(visit),
        }
    }
}

/// Asks the index, and looks at the rows that it does not cover.
pub(super) struct IndexSearch<'a> {
    pub(super) exact: ExactSearch<'a>,
    pub(super) index: &'a IndexInfo,
    /// The index in memory, where it is to be.
    pub(super) held: Option<Arc<Partitions>>,
    /// Its centroids, where it is Lance that is asked.
    pub(super) centroids: Option<&'a Centroids>,
    /// Fragments that the index does not cover.
    pub(super) uncovered: &'a [u64],
    /// Rows of the library.
    pub(super) all: usize,
    /// Those that match the prefilter.
    pub(super) rows: usize,
    pub(super) nprobes: Option<usize>,
    /// What is aimed at where `nprobes` is not set.
    pub(super) recall: f64,
    pub(super) measured: Option<&'a RecallTable>,
}

impl IndexSearch<'_> {
    /// Candidates for the `k` rows nearest to each query, those to leave out left out: asks as for `wanted`, then for
    /// more until each query has enough, which ends at the latest with a look at every row.
    pub(super) fn nearest(
        &self,
        queries: ArrayView2<'_, f32>,
        k: usize,
        mut wanted: usize,
        left_out: &LeftOut<'_>,
    ) -> Result<Candidates> {
        let mut found: Candidates = vec![Vec::new(); queries.nrows()];
        let mut open: Vec<usize> = (0..queries.nrows()).collect();
        while !open.is_empty() {
            let of_open = queries.select(Axis(0), &open);
            let (probes, fetch) = self.effort(wanted);
            if fetch >= self.rows {
                let nearest = self.exact.nearest(of_open.view(), k, left_out, None)?;
                open.drain(..).zip(nearest).for_each(|(query, nearest)| found[query] = nearest);
                break;
            }
            let mut candidates = self.ask(of_open.view(), probes, fetch, left_out)?;
            if !self.uncovered.is_empty() {
                let extra = self.exact.nearest(of_open.view(), k, left_out, Some(self.uncovered))?;
                candidates.iter_mut().zip(extra).for_each(|(rows, extra)| rows.extend(extra));
            }
            let mut still = Vec::new();
            for (query, mut candidates) in open.into_iter().zip(candidates) {
                candidates.retain(|row| !left_out(*row));
                if !self.uncovered.is_empty() {
                    // A row that was written anew may stand in the index and in a fragment that it does not cover.
                    let mut distinct = HashSet::with_capacity(candidates.len());
                    candidates.retain(|row| distinct.insert(*row));
                }
                // Even where nothing is left out the partitions looked into may hold too few.
                if candidates.len() < k {
                    still.push(query);
                }
                found[query] = candidates;
            }
            (open, wanted) = (still, wanted.saturating_mul(MORE));
        }
        Ok(found)
    }

    /// The rows that the partitions which each query searches hold, nearest first. Those to leave out may be among them.
    pub(super) fn ask(
        &self,
        queries: ArrayView2<'_, f32>,
        probes: Probes,
        fetch: usize,
        left_out: &LeftOut<'_>,
    ) -> Result<Candidates> {
        self.check_metric()?;
        if let Some(held) = &self.held {
            let found = held.nearest(queries, probes, fetch, left_out)?.into_iter();
            return Ok(found.map(|nearest| nearest.into_iter().map(|neighbour| neighbour.db_idx).collect()).collect());
        }
        let mut found: Candidates = vec![Vec::new(); queries.nrows()];
        for (nprobes, group) in self.groups(queries, probes)? {
            for chunk in group.chunks(QUERIES_PER_CALL) {
                let scanner = self.scanner(queries.select(Axis(0), chunk).view(), nprobes, fetch)?;
                let batch = on_runtime(async move { scanner.try_into_batch().await })?.doing("asking the index")?;
                let query_index = column(&batch, "query_index")?.as_primitive::<Int32Type>();
                let row_id = column(&batch, ROW_ID)?.as_primitive::<UInt64Type>();
                for (query, row) in query_index.values().iter().zip(row_id.values()) {
                    found[chunk[*query as usize]].push(*row);
                }
            }
        }
        Ok(found)
    }

    /// Queries that search about as many partitions, by that number: Lance takes one for all queries of a call.
    fn groups(&self, queries: ArrayView2<'_, f32>, probes: Probes) -> Result<BTreeMap<usize, Vec<usize>>> {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, query) in queries.rows().into_iter().enumerate() {
            let nprobes = match self.centroids.filter(|_| probes.margin.is_some()) {
                Some(centroids) => rounded_up(centroids.count(query, probes)?),
                None => probes.at_least,
            };
            groups.entry(nprobes.clamp(1, self.index.partitions.max(1))).or_default().push(at);
        }
        Ok(groups)
    }

    /// The partitions that a query for `k` searches, and the candidates it asks for: as many partitions as it takes for the
    /// recall, or as were asked for; and enough to hold about twice what is fetched.
    fn effort(&self, k: usize) -> (Probes, usize) {
        let partitions = self.index.partitions.max(1);
        // The k nearest that match a prefilter are as far as more are of all.
        let of_all = k.saturating_mul(self.all) / self.rows.max(1);
        let measured = self.measured.filter(|_| self.nprobes.is_none());
        let measured = measured.and_then(|table| {
            let Effort { probes, .. } = table.effort(self.recall, of_all)?;
            Some(Effort { probes, ..table.effort(self.recall, k)? })
        });
        let effort = measured.unwrap_or_else(|| Effort {
            probes: Probes { at_least: self.nprobes.unwrap_or_else(|| (partitions / 16).max(16)), margin: None },
            overfetch: if self.index.has_codes() { OVERFETCH } else { 1 },
        });
        // What is held is measured, not guessed from codes.
        let fetch = if self.held.is_some() { k } else { k.saturating_mul(effort.overfetch) };
        let enough = fetch.saturating_mul(2 * partitions) / self.rows.max(1);
        let at_least = effort.probes.at_least.max(enough).clamp(1, partitions);
        (Probes { at_least, ..effort.probes }, fetch)
    }

    /// Lance's plan for a query.
    pub(super) fn explain(&self, queries: ArrayView2<'_, f32>, k: usize) -> Result<String> {
        let (probes, fetch) = self.effort(k);
        let nprobes = self.groups(queries, probes)?.into_keys().next_back().unwrap_or(1);
        let scanner = self.scanner(queries, nprobes, fetch)?;
        on_runtime(async move { scanner.explain_plan(true).await })?.doing("explaining a query")
    }

    fn check_metric(&self) -> Result<()> {
        let (index, metric) = (self.index, self.exact.metric);
        if index.metric != metric {
            return Err(Error::Config(format!(
                "database.metric is {metric} but the index `{}` was built for {}; ask for that metric, or set exact = true",
                index.name, index.metric
            )));
        }
        Ok(())
    }

    fn scanner(&self, queries: ArrayView2<'_, f32>, nprobes: usize, fetch: usize) -> Result<Scanner> {
        let (index, table) = (self.index, self.exact.table);
        self.check_metric()?;
        let mut scanner = table.dataset.scan();
        scanner.nearest(&table.embedding_column, &fixed_size_list(queries), fetch).doing("asking for neighbours")?;
        scanner.nprobes(nprobes.clamp(1, index.partitions.max(1)));
        // Rows that the index does not cover are ours to search: Lance would leave its
        // shared path for them.
        scanner.fast_search();
        if let Some(sql) = self.exact.prefilter {
            scanner.filter(sql).doing("database.prefilter")?;
            scanner.prefilter(true);
        }
        scanner.project::<&str>(&[]).doing("projecting")?;
        scanner.with_row_id();
        scanner.disable_scoring_autoprojection();
        Ok(scanner)
    }
}

/// One of 1, 2, 3, 4, 6, 8, 12, 16, ... that is no less: few calls, each with at most half as many partitions again.
fn rounded_up(count: usize) -> usize {
    let below = 1usize << count.max(1).ilog2();
    [below, below + below / 2, 2 * below].into_iter().find(|step| *step >= count).unwrap_or(count)
}
