//! Exact nearest neighbours by blocked matrix multiply.
//!
//! One block of the library at a time is multiplied with all queries. The products
//! give each distance only up to rounding, so they are used as a sieve: an item whose
//! approximate distance, less a bound on its error, is above the k-th best so far
//! cannot enter. What passes is measured directly, in f64. The result is therefore the
//! same as that of measuring everything: ordered by (distance, db_idx), with
//! duplicates and near-zero distances right, whatever the block size or thread count.

use std::collections::BinaryHeap;

use ndarray::{ArrayView2, s};
use rayon::prelude::*;

use super::Metric;

/// Queries that one thread multiplies with a block at a time.
const QUERY_BLOCK: usize = 64;

/// Items that are sieved at a time.
const LANES: usize = 32;

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

/// Whether an item may not be among the nearest.
pub(super) type LeftOut<'a> = dyn Fn(u64) -> bool + Sync + 'a;

/// The nearest `k` items of each query, over all blocks shown to [`Search::block`].
pub(super) struct Search<'a> {
    queries: ArrayView2<'a, f32>,
    norms: Vec<f32>,
    metric: Metric,
    k: usize,
    left_out: &'a LeftOut<'a>,
    nearest: Vec<BinaryHeap<Neighbour>>,
}

impl<'a> Search<'a> {
    pub(super) fn new(queries: ArrayView2<'a, f32>, metric: Metric, k: usize, left_out: &'a LeftOut<'a>) -> Self {
        let norms = squared_norms(queries);
        let nearest = vec![BinaryHeap::new(); queries.nrows()];
        Search { queries, norms, metric, k, left_out, nearest }
    }

    /// Shows a block of the library. Items with NaN or infinite components, and zero
    /// vectors under cosine, have no distance and are passed over.
    pub(super) fn block(&mut self, db_idx: &[u64], items: ArrayView2<'_, f32>) {
        let mut sizes = squared_norms(items);
        if self.metric == Metric::Cosine {
            sizes.iter_mut().for_each(|size| *size = size.sqrt());
        }
        let rounding = (items.ncols() as f64 + 8.0) * f64::from(f32::EPSILON);
        let (metric, k, left_out) = (self.metric, self.k, self.left_out);
        let (all_queries, all_norms) = (self.queries, &self.norms);
        self.nearest.par_chunks_mut(QUERY_BLOCK).enumerate().for_each(|(block, nearest)| {
            let range = block * QUERY_BLOCK..block * QUERY_BLOCK + nearest.len();
            let (queries, norms) = (all_queries.slice(s![range.clone(), ..]), &all_norms[range]);
            let products = queries.dot(&items.t());
            // Of vectors of one component it comes in columns.
            let products = products.as_standard_layout();
            for (((query, products), &norm), nearest) in
                queries.rows().into_iter().zip(products.rows()).zip(norms).zip(nearest)
            {
                let (Some(query), Some(products)) = (query.as_slice(), products.as_slice()) else { continue };
                let mut sieve = Sieve::new(metric, norm, rounding, nearest, k);
                for start in (0..products.len()).step_by(LANES) {
                    let rows = start..(start + LANES).min(products.len());
                    let lanes = (products[rows.clone()].try_into(), sizes[rows.clone()].try_into());
                    if let (Ok(products), Ok(sizes)) = lanes
                        && !sieve.any_passes(products, sizes)
                    {
                        continue;
                    }
                    for row in rows {
                        if !sieve.passes(products[row], sizes[row]) || left_out(db_idx[row]) {
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
                        sieve = Sieve::new(metric, norm, rounding, nearest, k);
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

/// Which products an item must reach to be among the nearest of a query.
///
/// `distance - error > worst` is, under each metric, `product < base + slope * size`, where the
/// size of an item is its squared norm, and under cosine its norm:
///
/// - l2: `norm + size - 2 product - 2 rounding (norm + size) > worst`
/// - cosine: `1 - product / (sqrt(norm) size) - 2 rounding > worst`
/// - dot: `1 - product - rounding (1 + norm + size) > worst`
struct Sieve {
    base: f32,
    slope: f32,
}

impl Sieve {
    /// `norm` is the query's squared norm, `rounding` the relative error of a product.
    fn new(metric: Metric, norm: f32, rounding: f64, nearest: &BinaryHeap<Neighbour>, k: usize) -> Self {
        let Some(worst) = nearest.peek().filter(|_| nearest.len() >= k) else {
            return Sieve { base: f32::NEG_INFINITY, slope: 0.0 };
        };
        let (norm, worst) = (f64::from(norm), f64::from(worst.distance));
        let (base, slope) = match metric {
            Metric::L2 => {
                let kept = 0.5 - rounding;
                (kept * norm - 0.5 * worst, kept)
            }
            Metric::Cosine => (0.0, (1.0 - worst - 2.0 * rounding) * norm.sqrt()),
            Metric::Dot => (1.0 - worst - rounding * (1.0 + norm), -rounding),
        };
        Sieve { base: base as f32, slope: slope as f32 }
    }

    /// Written so that an item without a product (NaN) passes, and is measured.
    #[inline]
    fn passes(&self, product: f32, size: f32) -> bool {
        let fails = product < self.base + self.slope * size;
        !fails
    }

    /// Whether any of a few items passes: without a branch, so that it can be vectorised, and
    /// counted by hand, because iterators are calls where little is optimised.
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
