//! A library in memory, small enough that all of its items are ranked by posterior mean.

use std::collections::{HashMap, HashSet};

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::database::VectorDatabase;
use crate::error::Result;
use crate::features::ItemFeatures;
use crate::linalg::{add_scaled, dot};
use crate::random::RandomStream;
use crate::surrogate::acquisition::{RANDOM_CANDIDATES, TOP_CANDIDATES, TOP_OUTSIDE};
use crate::surrogate::distance::ScaledDistance;
use crate::surrogate::embeddings::finite_rows;
use crate::surrogate::kernel::correlation_f32;
use crate::surrogate::posterior::{FittedGp, Posterior};
use crate::surrogate::vectorizer::Vectorizer;

/// The memory limit in bytes for the vectors and points of all items, and for the kernels of the training points with all items.
const MAX_BYTES: usize = 400 << 20;

/// All items of a library, and a cache of the kernels of training points with all items. With the cache, a batch computes only
/// the kernels of its new training points.
#[derive(Clone, Debug)]
pub(in crate::surrogate) struct RankedLibrary {
    /// The ids of the items, in ascending order.
    ids: Vec<u64>,
    row_of_id: HashMap<u64, usize>,
    /// `(items, width)`
    vectors: Array2<f32>,
    /// `(items, components)`
    points: Array2<f32>,
    /// The squared length of each point.
    squares: Vec<f32>,
    /// The kernels of a training point with all items, by the row of the point.
    kernels: HashMap<usize, Vec<f32>>,
}

impl RankedLibrary {
    /// Whether a library of `items` items with `width` components, and a GP of `points` points, fit into the memory limit.
    pub fn fits(items: u64, width: usize, points: usize) -> bool {
        (items as usize).saturating_mul(4 * (2 * width + points)) <= MAX_BYTES
    }

    /// Reads all items of a database. Returns the library and its vectorizer.
    ///
    /// # Errors
    /// A library that cannot be read.
    pub fn read(database: &dyn VectorDatabase, features: ItemFeatures) -> Result<(Self, Vectorizer)> {
        let (mut ids, mut embeddings): (Vec<u64>, Vec<f32>) = Default::default();
        database.scan(&mut |rows, items| {
            // A nearest-neighbour search skips embeddings that are not finite too.
            for row in finite_rows(items) {
                ids.push(rows[row]);
                embeddings.extend(items.row(row));
            }
            Ok(())
        })?;
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_unstable_by_key(|row| ids[*row]);
        let dim = database.dim();
        let sorted =
            Array2::from_shape_fn((ids.len(), dim), |(row, component)| embeddings[order[row] * dim + component]);
        let ids: Vec<u64> = order.iter().map(|row| ids[*row]).collect();
        drop(embeddings);
        let vectorizer = Vectorizer::new(features, sorted.view());
        let vectors = vectorizer.vectors(&ids, sorted.view());
        let row_of_id = ids.iter().copied().zip(0..).collect();
        let library = RankedLibrary {
            ids,
            row_of_id,
            vectors,
            points: Array2::default((0, 0)),
            squares: Vec::new(),
            kernels: HashMap::new(),
        };
        Ok((library, vectorizer))
    }

    /// Replaces the distance: computes the points again, and clears the cached kernels.
    pub fn set_distance(&mut self, distance: &ScaledDistance) {
        self.points = distance.points(self.vectors.view());
        let squared = |point: ArrayView1<'_, f32>| point.to_slice().map_or(0.0, |point| dot(point, point));
        self.squares = self.points.rows().into_iter().map(squared).collect();
        self.kernels.clear();
    }

    /// The points of all items, `(items, components)`.
    pub fn points(&self) -> ArrayView2<'_, f32> {
        self.points.view()
    }

    /// The candidates of the next batch, by id in ascending order: of the items that are neither evaluated nor pending, those of
    /// the highest posterior mean, those of the highest posterior mean outside of the peak, and random ones. `factor` multiplies
    /// the three numbers of candidates.
    pub fn top_candidates(
        &mut self,
        posterior: &Posterior,
        factor: usize,
        is_open: impl Fn(u64) -> bool,
        rng: &mut RandomStream,
    ) -> Vec<u64> {
        self.evict_kernels(&posterior.all.ids);
        let mut open: Vec<usize> = (0..self.ids.len()).filter(|row| is_open(self.ids[*row])).collect();
        // The order decides between items of equal mean, so it must be random.
        open.shuffle(rng);
        let mut rows: Vec<usize> = open.iter().take(RANDOM_CANDIDATES.saturating_mul(factor)).copied().collect();
        let is_outside = posterior.is_outside(self.points());
        rows.extend(self.highest_means(open.clone(), &posterior.all, TOP_CANDIDATES.saturating_mul(factor)));
        if let (Some(fitted), Some(is_outside)) = (&posterior.outside, is_outside) {
            let outside = open.into_iter().filter(|row| is_outside[*row]).collect();
            rows.extend(self.highest_means(outside, fitted, TOP_OUTSIDE.saturating_mul(factor)));
        }
        let mut candidates: Vec<u64> = rows.into_iter().map(|row| self.ids[row]).collect();
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }

    /// The `count` rows of the highest posterior mean, or all if there are fewer, in no particular order.
    fn highest_means(&mut self, mut rows: Vec<usize>, fitted: &FittedGp, count: usize) -> Vec<usize> {
        let (ids, weights) = fitted.weights();
        let means = self.means(ids, weights);
        if count < rows.len() {
            rows.select_nth_unstable_by(count, |a, b| means[*b].total_cmp(&means[*a]));
            rows.truncate(count);
        }
        rows
    }

    /// Evicts the kernels of all training points but these from the cache, if there are many others.
    fn evict_kernels(&mut self, ids: &[u64]) {
        if self.kernels.len() > ids.len() + ids.len() / 4 {
            let needed: HashSet<usize> = ids.iter().filter_map(|id| self.row_of_id.get(id).copied()).collect();
            self.kernels.retain(|row, _| needed.contains(row));
        }
    }

    /// The posterior mean of each item: the weighted sum of its kernels with the training points, given by id.
    fn means(&mut self, ids: &[u64], weights: ArrayView1<'_, f64>) -> Vec<f32> {
        let rows: Vec<Option<usize>> = ids.iter().map(|id| self.row_of_id.get(id).copied()).collect();
        let missing: Vec<usize> =
            rows.iter().flatten().copied().filter(|row| !self.kernels.contains_key(row)).collect();
        for missing in missing.chunks(64) {
            let mut products = Array2::<f32>::zeros((missing.len(), self.ids.len()));
            general_mat_mul(1.0, &self.points.select(Axis(0), missing), &self.points.t(), 0.0, &mut products);
            let (products, squares) = (products.into_raw_vec_and_offset().0, &self.squares);
            let kernels = products.par_chunks(self.ids.len().max(1)).zip(missing).map(|(products, row)| {
                let mut kernel = products.to_vec();
                let (values, squares, own_square, mut item) = (&mut kernel[..], &squares[..], squares[*row], 0);
                while item < values.len() {
                    let squared = (own_square + squares[item] - 2.0 * values[item]).max(0.0);
                    values[item] = correlation_f32((-0.5 * squared).exp());
                    item += 1;
                }
                (*row, kernel)
            });
            self.kernels.extend(kernels.collect::<Vec<(usize, Vec<f32>)>>());
        }
        // Blocks of items fit into the CPU cache.
        let terms: Vec<(&[f32], f32)> = rows
            .iter()
            .zip(weights)
            .filter_map(|(row, weight)| Some((&*self.kernels[&(*row)?], *weight as f32)))
            .collect();
        let mut means = vec![0f32; self.ids.len()];
        means.par_chunks_mut(2048).enumerate().for_each(|(block, means)| {
            for (kernel, weight) in &terms {
                add_scaled(means, *weight, &kernel[block * 2048..]);
            }
        });
        means
    }
}
