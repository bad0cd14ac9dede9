//! An IVF index in memory. The embeddings of each partition are contiguous, so a search compares them in place, without a query
//! plan.

use std::collections::{BinaryHeap, HashMap};

use arrow::array::{AsArray, FixedSizeListArray, Float32Array};
use arrow::datatypes::Float32Type;
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::centroids::{self, Centroids, Probes};
use super::inverted_lists;
use super::record_batch::fixed_size_list;
use super::table::Table;
use crate::database::Metric;
use crate::database::block_search::{IsExcluded, Neighbour};
use crate::error::{Result, WrapErr};

/// The row ids and embeddings of an IVF index.
pub(super) struct InMemoryIndex {
    metric: Metric,
    centroids: Centroids,
    partitions: Vec<Partition>,
    /// The partition of each row, and its position in the partition.
    positions: HashMap<u64, (u32, u32)>,
}

struct Partition {
    rows: Vec<u64>,
    items: FixedSizeListArray,
}

impl InMemoryIndex {
    /// Reads an index of one segment, and the embeddings of its rows in the indexed fragments. `None` if it has several
    /// segments.
    pub(super) fn read(
        table: &Table,
        name: &str,
        metric: Metric,
        dim: usize,
        unindexed_fragments: &[u64],
    ) -> Result<Option<Self>> {
        let Some((centroids, lists)) = inverted_lists::read(table, name, metric)? else { return Ok(None) };
        let mut positions = HashMap::new();
        for (partition, rows) in (0..).zip(&lists) {
            positions.extend(rows.iter().copied().zip((0..).map(|position| (partition, position))));
        }
        // A row that was deleted, or moved to an unindexed fragment by an update, is in a list but not in the scan. Its
        // embedding stays NaN, which is never among the nearest.
        let mut items: Vec<Vec<f32>> = lists.iter().map(|rows| vec![f32::NAN; rows.len() * dim]).collect();
        let fragments = table.dataset.fragments().iter().map(|fragment| fragment.id);
        let indexed: Vec<u64> = fragments.filter(|fragment| !unindexed_fragments.contains(fragment)).collect();
        table.scan(None, Some(&indexed), &mut |scanned, embeddings| {
            for (row, embedding) in scanned.iter().zip(embeddings.rows()) {
                if let (Some((partition, position)), Some(embedding)) = (positions.get(row), embedding.as_slice()) {
                    let start = *position as usize * dim;
                    items[*partition as usize][start..start + dim].copy_from_slice(embedding);
                }
            }
            Ok(())
        })?;
        let partitions = lists.into_iter().zip(items).map(|(rows, items)| {
            let items = Array2::from_shape_vec((rows.len(), dim), items).wrap_err("reading the index")?;
            Ok(Partition { items: fixed_size_list(items.view()), rows })
        });
        Ok(Some(InMemoryIndex { metric, centroids, partitions: partitions.collect::<Result<_>>()?, positions }))
    }

    /// The `k` nearest rows of each query in the partitions that it searches, nearest first.
    ///
    /// # Errors
    /// Queries of another dimension.
    pub(super) fn nearest(
        &self,
        queries: ArrayView2<'_, f32>,
        probes: Probes,
        k: usize,
        is_excluded: &IsExcluded<'_>,
    ) -> Result<Vec<Vec<Neighbour>>> {
        let search = |queries: ArrayView2<'_, f32>| {
            // The nearest partition of every query comes first, because it bounds the distances in the others.
            let mut queries_of = [vec![Vec::new(); self.partitions.len()], vec![Vec::new(); self.partitions.len()]];
            let mut vectors = Vec::with_capacity(queries.nrows());
            for (position, query) in queries.rows().into_iter().enumerate() {
                for (rank, partition) in self.centroids.nearest_partitions(query, probes)?.into_iter().enumerate() {
                    queries_of[rank.min(1)][partition].push(position);
                }
                vectors.push(Float32Array::from(query.to_vec()));
            }
            let mut nearest =
                vec![BinaryHeap::with_capacity(k.saturating_add(1).min(self.positions.len())); vectors.len()];
            for (Partition { rows, items }, queries) in
                queries_of.iter().flat_map(|queries_of| self.partitions.iter().zip(queries_of))
            {
                for query in queries {
                    keep_nearest(
                        centroids::distances(self.metric, &vectors[*query], items)?.values(),
                        rows,
                        k,
                        is_excluded,
                        &mut nearest[*query],
                    );
                }
            }
            Ok(nearest.into_iter().map(BinaryHeap::into_sorted_vec).collect::<Vec<_>>())
        };
        // Each thread searches a partition with all of its queries while the partition is in the CPU cache.
        let per_thread = queries.nrows().div_ceil(rayon::current_num_threads()).max(1);
        let chunks: Vec<ArrayView2<'_, f32>> = queries.axis_chunks_iter(Axis(0), per_thread).collect();
        let found: Result<Vec<_>> = chunks.into_par_iter().map(search).collect();
        Ok(found?.into_iter().flatten().collect())
    }

    /// The embeddings of rows, in the given order. `None` if a row is not in the index.
    pub(super) fn embeddings(&self, rows: &[u64]) -> Option<Array2<f32>> {
        let dim = self.centroids.dim();
        let mut embeddings = Vec::with_capacity(rows.len() * dim);
        for row in rows {
            let (partition, position) = self.positions.get(row)?;
            let values = self.partitions[*partition as usize].items.values().as_primitive::<Float32Type>().values();
            let start = *position as usize * dim;
            let embedding = &values[start..start + dim];
            (!embedding[0].is_nan()).then(|| embeddings.extend_from_slice(embedding))?;
        }
        Array2::from_shape_vec((rows.len(), dim), embeddings).ok()
    }
}

/// Adds the rows of a partition to the `k` nearest. The loop is indexed, because unoptimised builds do not inline iterators.
fn keep_nearest(
    distances: &[f32],
    rows: &[u64],
    k: usize,
    is_excluded: &IsExcluded<'_>,
    nearest: &mut BinaryHeap<Neighbour>,
) {
    let worst = |nearest: &BinaryHeap<Neighbour>| match nearest.peek() {
        Some(worst) if nearest.len() >= k => worst.distance,
        _ => f32::MAX,
    };
    let (mut bound, mut at) = (worst(nearest), 0);
    while at < distances.len() {
        // NaN fails the comparison.
        if distances[at] <= bound && !is_excluded(rows[at]) {
            nearest.push(Neighbour { distance: distances[at], db_idx: rows[at] });
            if nearest.len() > k {
                nearest.pop();
            }
            bound = worst(nearest);
        }
        at += 1;
    }
}
