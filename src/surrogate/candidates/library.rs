//! A library that is small enough to be ranked as a whole, by posterior mean.

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
use crate::surrogate::acquisition::{FRONT, FRONT_OUTSIDE, RANDOM};
use crate::surrogate::distance::ScaledDistance;
use crate::surrogate::embeddings::finite_rows;
use crate::surrogate::kernel::correlation_f32;
use crate::surrogate::posterior::{FittedProcess, Posterior};
use crate::surrogate::vectorizer::Vectorizer;

/// The memory limit in bytes, for the vectors and points of all items, and the kernels of all training points with all items.
const MAX_BYTES: usize = 400 << 20;

/// All items, and the kernel of each training point with each of them. The kernels are cached, so that a batch computes only
/// those of its new points.
#[derive(Clone, Debug)]
pub(in crate::surrogate) struct Library {
    /// In ascending order.
    ids: Vec<u64>,
    row_of_id: HashMap<u64, usize>,
    /// `(items, width)`
    vectors: Array2<f32>,
    /// `(items, components)`
    points: Array2<f32>,
    /// The squared length of each point.
    squares: Vec<f32>,
    /// By the row of a training point, its kernel with each item.
    kernels: HashMap<usize, Vec<f32>>,
}

impl Library {
    /// Whether so many items of so many components, and a process of so many points, fit into memory.
    pub fn fits(items: u64, width: usize, points: usize) -> bool {
        (items as usize).saturating_mul(4 * (2 * width + points)) <= MAX_BYTES
    }

    /// Reads all items of a database. Also returns the vectorizer of the library.
    ///
    /// # Errors
    /// A library that cannot be read.
    pub fn read(database: &dyn VectorDatabase, features: ItemFeatures) -> Result<(Self, Vectorizer)> {
        let (mut ids, mut embeddings): (Vec<u64>, Vec<f32>) = Default::default();
        database.scan(&mut |rows, items| {
            // Items that are not finite are nobody's neighbours: a search skips them too.
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
        let library = Library {
            ids,
            row_of_id,
            vectors,
            points: Array2::default((0, 0)),
            squares: Vec::new(),
            kernels: HashMap::new(),
        };
        Ok((library, vectorizer))
    }

    /// Uses another distance from now on.
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

    /// The front of the posterior: open items of the highest mean, of the highest mean outside of the peak, and random ones,
    /// in ascending order of their ids. `factor` is how many times as many as at first.
    pub fn front(
        &mut self,
        posterior: &Posterior,
        factor: usize,
        is_open: impl Fn(u64) -> bool,
        rng: &mut RandomStream,
    ) -> Vec<u64> {
        self.evict_kernels(&posterior.all.ids);
        let mut open: Vec<usize> = (0..self.ids.len()).filter(|row| is_open(self.ids[*row])).collect();
        // The order decides between items of equal mean: it is random.
        open.shuffle(rng);
        let mut rows: Vec<usize> = open.iter().take(RANDOM.saturating_mul(factor)).copied().collect();
        let is_outside = posterior.is_outside(self.points());
        rows.extend(self.best_of(open.clone(), &posterior.all, FRONT.saturating_mul(factor)));
        if let (Some(process), Some(is_outside)) = (&posterior.outside, is_outside) {
            let outside = open.into_iter().filter(|row| is_outside[*row]).collect();
            rows.extend(self.best_of(outside, process, FRONT_OUTSIDE.saturating_mul(factor)));
        }
        let mut front: Vec<u64> = rows.into_iter().map(|row| self.ids[row]).collect();
        front.sort_unstable();
        front.dedup();
        front
    }

    /// The rows of the highest posterior mean, at most so many, in no particular order.
    fn best_of(&mut self, mut rows: Vec<usize>, process: &FittedProcess, most: usize) -> Vec<usize> {
        let (ids, weights) = process.weights();
        let means = self.means(ids, weights);
        if most < rows.len() {
            rows.select_nth_unstable_by(most, |a, b| means[*b].total_cmp(&means[*a]));
            rows.truncate(most);
        }
        rows
    }

    /// Evicts the kernels of items that have none of these ids from the cache, if there are many of them.
    fn evict_kernels(&mut self, ids: &[u64]) {
        if self.kernels.len() > ids.len() + ids.len() / 4 {
            let needed: HashSet<usize> = ids.iter().filter_map(|id| self.row_of_id.get(id).copied()).collect();
            self.kernels.retain(|row, _| needed.contains(row));
        }
    }

    /// The posterior mean of each item: the sum of its kernels with the training points of these ids, each times its weight.
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
                let (values, squares, own, mut at) = (&mut kernel[..], &squares[..], squares[*row], 0);
                while at < values.len() {
                    let squared = (own + squares[at] - 2.0 * values[at]).max(0.0);
                    values[at] = correlation_f32((-0.5 * squared).exp());
                    at += 1;
                }
                (*row, kernel)
            });
            self.kernels.extend(kernels.collect::<Vec<(usize, Vec<f32>)>>());
        }
        // In blocks of items that fit into the processor's cache.
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
