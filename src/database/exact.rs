//! Exact nearest neighbours by blocked matrix multiply.
//!
//! One block of the library at a time is multiplied with all queries. The products
//! give each distance only up to rounding, so they are used as a sieve: an item whose
//! approximate distance, less a bound on its error, is above the k-th best so far
//! cannot enter. What passes is measured directly, in f64. The result is therefore the
//! same as that of measuring everything: ordered by (distance, db_idx), with
//! duplicates and near-zero distances right, whatever the block size or thread count.

use std::collections::{BinaryHeap, HashSet};

use ndarray::{ArrayView2, s};
use rayon::prelude::*;

use super::Metric;

/// Queries that one thread multiplies with a block at a time.
const QUERY_BLOCK: usize = 64;

/// A neighbour, ordered as results are: by distance, then by id.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Neighbour {
    pub distance: f32,
    pub db_idx: u64,
}

impl Eq for Neighbour {}

impl Ord for Neighbour {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.distance.total_cmp(&other.distance).then(self.db_idx.cmp(&other.db_idx))
    }
}

impl PartialOrd for Neighbour {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The nearest `k` items of each query, over all blocks shown to [`Search::block`].
pub(super) struct Search<'a> {
    queries: ArrayView2<'a, f32>,
    norms: Vec<f32>,
    metric: Metric,
    k: usize,
    exclude: Option<&'a HashSet<u64>>,
    nearest: Vec<BinaryHeap<Neighbour>>,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        queries: ArrayView2<'a, f32>,
        metric: Metric,
        k: usize,
        exclude: Option<&'a HashSet<u64>>,
    ) -> Self {
        let norms = squared_norms(queries);
        let nearest = vec![BinaryHeap::new(); queries.nrows()];
        Search { queries, norms, metric, k, exclude, nearest }
    }

    /// Shows a block of the library. Items with NaN or infinite components, and zero
    /// vectors under cosine, have no distance and are passed over.
    pub(super) fn block(&mut self, db_idx: &[u64], items: ArrayView2<'_, f32>) {
        let item_norms = squared_norms(items);
        let rounding = (items.ncols() as f32 + 8.0) * f32::EPSILON;
        let (metric, k, exclude) = (self.metric, self.k, self.exclude);
        let (all_queries, all_norms) = (self.queries, &self.norms);
        self.nearest.par_chunks_mut(QUERY_BLOCK).enumerate().for_each(|(block, nearest)| {
            let range = block * QUERY_BLOCK..block * QUERY_BLOCK + nearest.len();
            let (queries, norms) = (all_queries.slice(s![range.clone(), ..]), &all_norms[range]);
            let products = queries.dot(&items.t());
            for (((query, products), &norm), nearest) in
                queries.rows().into_iter().zip(products.rows()).zip(norms).zip(nearest)
            {
                for (row, &product) in products.iter().enumerate() {
                    let item_norm = item_norms[row];
                    let (distance, error) = match metric {
                        Metric::L2 => (norm + item_norm - 2.0 * product, 2.0 * rounding * (norm + item_norm)),
                        Metric::Cosine => (1.0 - product / (norm * item_norm).sqrt(), 2.0 * rounding),
                        Metric::Dot => (1.0 - product, rounding * (1.0 + norm + item_norm)),
                    };
                    let full = nearest.len() == k;
                    if full && nearest.peek().is_some_and(|worst| distance - error > worst.distance) {
                        continue;
                    }
                    if exclude.is_some_and(|exclude| exclude.contains(&db_idx[row])) {
                        continue;
                    }
                    let item = items.row(row);
                    let (Some(query), Some(item)) = (query.as_slice(), item.as_slice()) else { continue };
                    let candidate = Neighbour { distance: metric.distance(query, item), db_idx: db_idx[row] };
                    if !candidate.distance.is_finite() {
                        continue;
                    }
                    if !full {
                        nearest.push(candidate);
                    } else if let Some(mut worst) = nearest.peek_mut()
                        && candidate < *worst
                    {
                        *worst = candidate;
                    }
                }
            }
        });
    }

    /// The ids of the nearest items of each query, nearest first.
    pub(super) fn finish(self) -> Vec<Vec<u64>> {
        self.nearest
            .into_iter()
            .map(|heap| heap.into_sorted_vec().into_iter().map(|neighbour| neighbour.db_idx).collect())
            .collect()
    }
}

fn squared_norms(vectors: ArrayView2<'_, f32>) -> Vec<f32> {
    vectors.rows().into_iter().map(|vector| vector.dot(&vector)).collect()
}
