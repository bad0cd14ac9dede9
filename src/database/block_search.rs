//! `BlockSearch`: exact nearest neighbours by blocked matrix multiplication.
//!
//! Each block of the library is multiplied with all queries. The products determine the distances up to rounding errors, so they
//! serve as a filter: an item is skipped if its approximate distance, minus a bound on its error, is above the k-th best distance
//! so far. The distances of all other items are computed directly, in f64. So the result is the same as if all distances were
//! computed: ordered by (distance, db_idx), with correct duplicates and near-zero distances, for any block size and number of
//! threads.

use std::collections::BinaryHeap;

use ndarray::{ArrayView2, s};
use rayon::prelude::*;

use super::Metric;

/// The number of queries that one thread multiplies with a block in one call.
const QUERY_BLOCK: usize = 64;

/// The number of items that are filtered in one step.
const LANES: usize = 32;

/// A neighbour of a query. Ordered by distance, then by id, like results.
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

/// A predicate that excludes items from the result.
pub(super) type IsExcluded<'a> = dyn Fn(u64) -> bool + Sync + 'a;

/// The nearest `k` items of each query, over all blocks given to [`BlockSearch::add_block`].
pub(super) struct BlockSearch<'a> {
    queries: ArrayView2<'a, f32>,
    norms: Vec<f32>,
    metric: Metric,
    k: usize,
    is_excluded: &'a IsExcluded<'a>,
    nearest: Vec<BinaryHeap<Neighbour>>,
}

impl<'a> BlockSearch<'a> {
    pub(super) fn new(queries: ArrayView2<'a, f32>, metric: Metric, k: usize, is_excluded: &'a IsExcluded<'a>) -> Self {
        let norms = squared_norms(queries);
        let nearest = vec![BinaryHeap::new(); queries.nrows()];
        BlockSearch { queries, norms, metric, k, is_excluded, nearest }
    }

    /// Searches a block of the library. Items with NaN or infinite components, and zero
    /// vectors under cosine, have no distance and are skipped.
    pub(super) fn add_block(&mut self, db_idx: &[u64], items: ArrayView2<'_, f32>) {
        let mut sizes = squared_norms(items);
        if self.metric == Metric::Cosine {
            sizes.iter_mut().for_each(|size| *size = size.sqrt());
        }
        let rounding = (items.ncols() as f64 + 8.0) * f64::from(f32::EPSILON);
        let (metric, k, is_excluded) = (self.metric, self.k, self.is_excluded);
        let (all_queries, all_norms) = (self.queries, &self.norms);
        self.nearest.par_chunks_mut(QUERY_BLOCK).enumerate().for_each(|(block, nearest)| {
            let range = block * QUERY_BLOCK..block * QUERY_BLOCK + nearest.len();
            let (queries, norms) = (all_queries.slice(s![range.clone(), ..]), &all_norms[range]);
            let products = queries.dot(&items.t());
            // For vectors of one component the product is in column-major order.
            let products = products.as_standard_layout();
            for (((query, products), &norm), nearest) in
                queries.rows().into_iter().zip(products.rows()).zip(norms).zip(nearest)
            {
                let (Some(query), Some(products)) = (query.as_slice(), products.as_slice()) else { continue };
                let mut bound = ProductBound::new(metric, norm, rounding, nearest, k);
                for start in (0..products.len()).step_by(LANES) {
                    let rows = start..(start + LANES).min(products.len());
                    let lanes = (products[rows.clone()].try_into(), sizes[rows.clone()].try_into());
                    if let (Ok(products), Ok(sizes)) = lanes
                        && !bound.any_passes(products, sizes)
                    {
                        continue;
                    }
                    for row in rows {
                        if !bound.passes(products[row], sizes[row]) || is_excluded(db_idx[row]) {
                            continue;
                        }
                        let item = items.row(row);
                        let Some(item) = item.as_slice() else { continue };
                        let candidate = Neighbour { distance: metric.distance(query, item), db_idx: db_idx[row] };
                        if !candidate.distance.is_finite() {
                            continue;
                        }
                        if nearest.len() < k {
                            nearest.push(candidate);
                        } else if let Some(mut worst) = nearest.peek_mut()
                            && candidate < *worst
                        {
                            *worst = candidate;
                        }
                        bound = ProductBound::new(metric, norm, rounding, nearest, k);
                    }
                }
            }
        });
    }

    /// The nearest items of each query, nearest first.
    pub(super) fn finish(self) -> Vec<Vec<Neighbour>> {
        self.nearest.into_iter().map(BinaryHeap::into_sorted_vec).collect()
    }
}

/// A lower bound on the product of an item and a query, below which the item cannot be among the nearest.
///
/// `distance - error > worst` is, under each metric, `product < base + slope * size`. The
/// size of an item is its squared norm; under cosine it is its norm.
///
/// - l2: `norm + size - 2 product - 2 rounding (norm + size) > worst`
/// - cosine: `1 - product / (sqrt(norm) size) - 2 rounding > worst`
/// - dot: `1 - product - rounding (1 + norm + size) > worst`
struct ProductBound {
    base: f32,
    slope: f32,
}

impl ProductBound {
    /// `norm` is the query's squared norm, `rounding` the relative error of a product.
    fn new(metric: Metric, norm: f32, rounding: f64, nearest: &BinaryHeap<Neighbour>, k: usize) -> Self {
        let Some(worst) = nearest.peek().filter(|_| nearest.len() >= k) else {
            return ProductBound { base: f32::NEG_INFINITY, slope: 0.0 };
        };
        let (norm, worst) = (f64::from(norm), f64::from(worst.distance));
        let (base, slope) = match metric {
            Metric::L2 => {
                let slope = 0.5 - rounding;
                (slope * norm - 0.5 * worst, slope)
            }
            Metric::Cosine => (0.0, (1.0 - worst - 2.0 * rounding) * norm.sqrt()),
            Metric::Dot => (1.0 - worst - rounding * (1.0 + norm), -rounding),
        };
        ProductBound { base: base as f32, slope: slope as f32 }
    }

    /// An item without a product (NaN) passes, so that its distance is computed.
    #[inline]
    fn passes(&self, product: f32, size: f32) -> bool {
        let fails = product < self.base + self.slope * size;
        !fails
    }

    /// Whether any of these items passes. The loop has no branch, so that it is vectorised, and
    /// is indexed, because unoptimised builds do not inline iterators.
    fn any_passes(&self, products: &[f32; LANES], sizes: &[f32; LANES]) -> bool {
        let (mut any, mut lane) = (false, 0);
        while lane < LANES {
            any |= self.passes(products[lane], sizes[lane]);
            lane += 1;
        }
        any
    }
}

fn squared_norms(vectors: ArrayView2<'_, f32>) -> Vec<f32> {
    vectors.rows().into_iter().map(|vector| vector.dot(&vector)).collect()
}
