//! What measuring an index asks of a library: true neighbours, candidates, and the margins that queries need.

use std::collections::{HashMap, HashSet};

use ndarray::ArrayView2;

use super::search::{Candidates, IndexSearch};
use super::{LanceDatabase, Probes, partitions};
use crate::database::exact::Neighbour;
use crate::error::Result;

/// How far apart queries and partitions are, as the margins of `centroids.rs` tell.
pub(crate) struct Margins {
    /// Of all partitions of the index, for each query, ascending.
    pub(crate) partitions: Vec<Vec<f32>>,
    /// Of the partition that holds each row, for each query.
    pub(crate) rows: Vec<Vec<f32>>,
}

impl LanceDatabase {
    /// The `k` nearest rows of each query, and how far they are, by a look at every row.
    pub(crate) fn nearest_of_all(&self, queries: ArrayView2<'_, f32>, k: usize) -> Result<Vec<Vec<(u64, f32)>>> {
        let found = self.guarded(|| self.exact_search().neighbours(queries, k, &|_| false, None))?;
        let pair = |neighbour: Neighbour| (neighbour.db_idx, neighbour.distance);
        Ok(found.into_iter().map(|neighbours| neighbours.into_iter().map(pair).collect()).collect())
    }

    /// The rows that the index holds in the partitions which each query searches, nearest first; none without one.
    pub(crate) fn ask_index(&self, queries: ArrayView2<'_, f32>, probes: Probes, fetch: usize) -> Result<Candidates> {
        let Some(search) = self.index_search() else { return Ok(vec![Vec::new(); queries.nrows()]) };
        self.guarded(|| {
            let search = IndexSearch { centroids: self.centroids()?, ..search };
            search.ask(queries, probes, fetch, &|_| false)
        })
    }

    /// The margins that queries need to find rows, by query. `None` where the index has several segments.
    pub(crate) fn margins_of(&self, queries: ArrayView2<'_, f32>, rows: &[Vec<u64>]) -> Result<Option<Margins>> {
        let Some(index) = &self.identity.index else { return Ok(None) };
        self.guarded(|| {
            let Some((centroids, lists)) = partitions::lists(&self.table, &index.name, self.identity.metric)? else {
                return Ok(None);
            };
            let wanted: HashSet<u64> = rows.iter().flatten().copied().collect();
            let mut partition_of = HashMap::with_capacity(wanted.len());
            for (partition, list) in lists.iter().enumerate() {
                partition_of.extend(list.iter().filter(|row| wanted.contains(row)).map(|row| (*row, partition)));
            }
            let mut margins = Margins { partitions: Vec::new(), rows: Vec::new() };
            for (query, rows) in queries.rows().into_iter().zip(rows) {
                let mut of = centroids.margins(query)?;
                // A row that the index does not cover is found whatever the margin.
                margins.rows.push(rows.iter().map(|row| partition_of.get(row).map_or(0.0, |at| of[*at])).collect());
                of.sort_unstable_by(f32::total_cmp);
                margins.partitions.push(of);
            }
            Ok(Some(margins))
        })
    }
}
