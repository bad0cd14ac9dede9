//! The measurements of index calibration: exact neighbours, index candidates, and the relative distances that queries require.

use std::collections::{HashMap, HashSet};

use ndarray::ArrayView2;

use super::index_search::{Candidates, IndexSearch};
use super::{LanceDatabase, Probes, inverted_lists};
use crate::database::block_search::Neighbour;
use crate::error::Result;

/// The relative distances between queries and partitions (`centroids.rs`).
pub(crate) struct RelativeDistances {
    /// For each query, the relative distances of all partitions in ascending order.
    pub(crate) partitions: Vec<Vec<f32>>,
    /// For each query, the relative distance of the partition that contains each row.
    pub(crate) rows: Vec<Vec<f32>>,
}

impl LanceDatabase {
    /// The `k` nearest rows of each query and their distances, by exact search.
    pub(crate) fn exact_neighbours(&self, queries: ArrayView2<'_, f32>, k: usize) -> Result<Vec<Vec<(u64, f32)>>> {
        let found = self.catch_errors(|| self.exact_search().neighbours(queries, k, &|_| false, None))?;
        let pair = |neighbour: Neighbour| (neighbour.db_idx, neighbour.distance);
        Ok(found.into_iter().map(|neighbours| neighbours.into_iter().map(pair).collect()).collect())
    }

    /// The rows that each query finds in the partitions it searches, nearest first. Empty if there is no index.
    pub(crate) fn index_candidates(
        &self,
        queries: ArrayView2<'_, f32>,
        probes: Probes,
        fetch: usize,
    ) -> Result<Candidates> {
        let Some(search) = self.index_search() else { return Ok(vec![Vec::new(); queries.nrows()]) };
        self.catch_errors(|| {
            let search = IndexSearch { centroids: self.centroids()?, ..search };
            search.candidates(queries, probes, fetch, &|_| false)
        })
    }

    /// For each query, the relative distances of the partitions that contain its `rows`. `None` if the index has several segments.
    pub(crate) fn relative_distances(
        &self,
        queries: ArrayView2<'_, f32>,
        rows: &[Vec<u64>],
    ) -> Result<Option<RelativeDistances>> {
        let Some(index) = &self.identity.index else { return Ok(None) };
        self.catch_errors(|| {
            let Some((centroids, lists)) = inverted_lists::read(&self.table, &index.name, self.identity.metric)? else {
                return Ok(None);
            };
            let all_rows: HashSet<u64> = rows.iter().flatten().copied().collect();
            let mut partition_of = HashMap::with_capacity(all_rows.len());
            for (partition, list) in lists.iter().enumerate() {
                partition_of.extend(list.iter().filter(|row| all_rows.contains(row)).map(|row| (*row, partition)));
            }
            let mut relative_distances = RelativeDistances { partitions: Vec::new(), rows: Vec::new() };
            for (query, rows) in queries.rows().into_iter().zip(rows) {
                let mut all = centroids.relative_distances(query)?;
                // A row outside the index is found at any relative distance.
                relative_distances.rows.push(
                    rows.iter().map(|row| partition_of.get(row).map_or(0.0, |partition| all[*partition])).collect(),
                );
                all.sort_unstable_by(f32::total_cmp);
                relative_distances.partitions.push(all);
            }
            Ok(Some(relative_distances))
        })
    }
}
