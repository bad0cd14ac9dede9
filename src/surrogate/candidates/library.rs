//! A library that is small enough to be ranked as a whole.

use std::collections::{HashMap, HashSet};

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use super::query_points::finite_rows;
use crate::database::VectorDatabase;
use crate::error::Result;
use crate::features::ItemFeatures;
use crate::linalg::{add_scaled, dot};
use crate::surrogate::gp::correlation_f32;
use crate::surrogate::kernel::Measure;
use crate::surrogate::space::Views;

/// Bytes that the items, as vectors and as points, and the kernels of all points with all of them may take.
const MOST: usize = 400 << 20;

/// All items, and the kernel of each point of the model with each of them: kept, so that a batch costs only its own.
#[derive(Clone, Debug)]
pub(in crate::surrogate) struct Library {
    ids: Vec<u64>,
    row_of: HashMap<u64, usize>,
    vectors: Array2<f32>,
    points: Array2<f32>,
    squares: Vec<f32>,
    kernels: HashMap<usize, Vec<f32>>,
}

impl Library {
    /// Whether so many items of so many components, and a model of so many points, fit.
    pub fn fits(items: u64, width: usize, points: usize) -> bool {
        (items as usize).saturating_mul(4 * (2 * width + points)) <= MOST
    }

    /// All items of a database, in ascending order of their ids, and how they are seen.
    ///
    /// # Errors
    /// A library that cannot be read.
    pub fn read(database: &dyn VectorDatabase, features: ItemFeatures) -> Result<(Self, Views)> {
        let (mut ids, mut embeddings): (Vec<u64>, Vec<f32>) = Default::default();
        database.scan(&mut |rows, items| {
            // Others are no neighbours of anything: searches pass over them too.
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
        let views = Views::new(features, sorted.view());
        let vectors = views.vectors(&ids, sorted.view());
        let row_of = ids.iter().copied().zip(0..).collect();
        let library = Library {
            ids,
            row_of,
            vectors,
            points: Array2::default((0, 0)),
            squares: Vec::new(),
            kernels: HashMap::new(),
        };
        Ok((library, views))
    }

    /// Items in a measure from now on.
    pub fn measure(&mut self, measure: &Measure) {
        self.points = measure.of(self.vectors.view());
        let squared = |point: ArrayView1<'_, f32>| point.to_slice().map_or(0.0, |point| dot(point, point));
        self.squares = self.points.rows().into_iter().map(squared).collect();
        self.kernels.clear();
    }

    /// The ids of all items, in the order of what is told of them.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// All items in the measure, `(items, components)`.
    pub fn points(&self) -> ArrayView2<'_, f32> {
        self.points.view()
    }

    /// Forgets the kernels of points that are not among these, if there are many such.
    pub fn keep(&mut self, ids: &[u64]) {
        if self.kernels.len() > ids.len() + ids.len() / 4 {
            let needed: HashSet<usize> = ids.iter().filter_map(|id| self.row_of.get(id).copied()).collect();
            self.kernels.retain(|row, _| needed.contains(row));
        }
    }

    /// For each item the sum of its kernels with the items of those ids, each times its weight: the mean of a Gaussian
    /// process.
    pub fn means(&mut self, ids: &[u64], weights: ArrayView1<'_, f64>) -> Vec<f32> {
        let rows: Vec<Option<usize>> = ids.iter().map(|id| self.row_of.get(id).copied()).collect();
        let missing: Vec<usize> =
            rows.iter().flatten().copied().filter(|row| !self.kernels.contains_key(row)).collect();
        for some in missing.chunks(64) {
            let mut products = Array2::<f32>::zeros((some.len(), self.ids.len()));
            general_mat_mul(1.0, &self.points.select(Axis(0), some), &self.points.t(), 0.0, &mut products);
            let (products, squares) = (products.into_raw_vec_and_offset().0, &self.squares);
            let made = products.par_chunks(self.ids.len().max(1)).zip(some).map(|(products, row)| {
                let mut kernel = products.to_vec();
                let (values, squares, own, mut at) = (&mut kernel[..], &squares[..], squares[*row], 0);
                while at < values.len() {
                    let squared = (own + squares[at] - 2.0 * values[at]).max(0.0);
                    values[at] = correlation_f32((-0.5 * squared).exp());
                    at += 1;
                }
                (*row, kernel)
            });
            self.kernels.extend(made.collect::<Vec<(usize, Vec<f32>)>>());
        }
        // In blocks of items that stay in the cache.
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
