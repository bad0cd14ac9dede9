//! A shortlist of candidates, selected by their features, in a library that is too large to be ranked as a whole.

use std::collections::HashMap;

use ndarray::{Array1, Array2, ArrayView2, s};
use rayon::prelude::*;

use crate::error::Result;
use crate::random::RandomStream;
use crate::surrogate::distance::ScaledDistance;
use crate::surrogate::observations::TrainingSet;
use crate::surrogate::ridge::BayesianRidge;
use crate::surrogate::vectorizer::Vectorizer;

/// The number of best items whose neighbours are candidates.
const BEST: usize = 20;
/// The number of neighbours of each best item.
const NEIGHBOURS: usize = 100;
/// The number of directions of a linear model in which the farthest items are candidates.
const DIRECTIONS: usize = 4;
/// The number of farthest items in each direction.
const FARTHEST: usize = 100;
/// The number of rows that one thread compares at a time.
const BLOCK: usize = 4096;

/// A cache of values that do not change from batch to batch, until the distance changes.
#[derive(Clone, Debug, Default)]
pub(in crate::surrogate) struct Shortlist {
    /// `|x f|^2` of each row x of the features, with the factors f of the distance.
    squares: Array1<f32>,
    /// The nearest rows of each item, by its row in the observations.
    nearest: HashMap<usize, Vec<usize>>,
}

impl Shortlist {
    /// The ids of the shortlist in ascending order: the nearest items of the best ones by their features, and the farthest items
    /// in directions in which the score grows according to a linear model of the features (its posterior mean and three
    /// samples). Reads all features once. Empty if only the embedding is relevant.
    ///
    /// # Errors
    /// Features that are not finite.
    pub fn ids(
        &mut self,
        vectorizer: &Vectorizer,
        distance: &ScaledDistance,
        training: &TrainingSet<'_>,
        rng: &mut RandomStream,
    ) -> Result<Vec<u64>> {
        let (features, observations) = (vectorizer.features(), training.observations);
        let (dim, width) = (vectorizer.dim(), vectorizer.width());
        let factors = distance.factors(dim..width);
        if factors.iter().all(|factor| *factor == 0.0) {
            return Ok(Vec::new());
        }
        let scaled = |vectors: Array2<f32>| vectors.slice_move(s![.., dim..]) * &factors;
        let all = features.values();
        if self.squares.is_empty() {
            self.squares = squares(all, &factors);
        }
        let best = observations.best_rows(BEST);
        let new: Vec<usize> = best.iter().copied().filter(|row| !self.nearest.contains_key(row)).collect();
        // |x f - b|^2 is smallest where 2 x . (f b) - |x f|^2 is largest, for the factors f.
        // Evaluated items are included, because the cached neighbours must not depend on the batch that computes them.
        let vectors = scaled(observations.vectors(&new, width)) * &factors * 2.0;
        let nearest = largest(all, vectors.view(), Some(&self.squares), &vec![true; all.nrows()], NEIGHBOURS);
        self.nearest.extend(new.into_iter().zip(nearest));

        let ridge = BayesianRidge::fit(scaled(training.vectors(width)).mapv(f64::from).view(), &training.targets())?;
        let mut far = Array2::zeros((DIRECTIONS, factors.len()));
        for (number, mut row) in far.rows_mut().into_iter().enumerate() {
            let direction = if number == 0 { ridge.weights() } else { ridge.sample(rng) };
            row.assign(&(direction.mapv(|value| value as f32) * &factors));
        }
        let is_open: Vec<bool> = (0..all.nrows()).map(|row| !observations.contains(features.id(row))).collect();
        let farthest = largest(all, far.view(), None, &is_open, FARTHEST);

        let near = best.iter().flat_map(|row| &self.nearest[row]);
        let rows = near.chain(farthest.iter().flatten()).copied().filter(|row| is_open[*row]);
        let mut ids: Vec<u64> = rows.map(|row| features.id(row)).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

/// `|x f|^2` of each row x.
fn squares(all: ArrayView2<'_, f32>, factors: &Array1<f32>) -> Array1<f32> {
    let (all, weights) = (all.as_standard_layout(), factors.mapv(|factor| factor * factor).to_vec());
    let square = |row: &[f32]| {
        let (weights, mut sum, mut component) = (&weights[..row.len()], 0.0, 0);
        while component < row.len() {
            sum += weights[component] * row[component] * row[component];
            component += 1;
        }
        sum
    };
    let rows = all.as_slice().unwrap_or_default().par_chunks(factors.len().max(1));
    rows.map(square).collect::<Vec<f32>>().into()
}

/// For each of the `vectors` `(vectors, components)`, the `count` rows with the largest dot product, of those that `is_open`
/// allows. If `squares` are given, they are subtracted from the products. Of rows with equal values, the first ones are taken.
fn largest(
    all: ArrayView2<'_, f32>,
    vectors: ArrayView2<'_, f32>,
    squares: Option<&Array1<f32>>,
    is_open: &[bool],
    count: usize,
) -> Vec<Vec<usize>> {
    if vectors.is_empty() {
        return Vec::new();
    }
    let squares = squares.and_then(|squares| squares.as_slice());
    let blocks: Vec<Vec<Vec<(f32, usize)>>> = (0..all.nrows().div_ceil(BLOCK))
        .into_par_iter()
        .map(|block| {
            let first_row = block * BLOCK;
            let rows = all.slice(s![first_row..(first_row + BLOCK).min(all.nrows()), ..]);
            // A row for each vector.
            let products = vectors.dot(&rows.t());
            let products = products.as_standard_layout();
            let squares = squares.map(|squares| &squares[first_row..first_row + rows.nrows()]);
            let is_open = &is_open[first_row..first_row + rows.nrows()];
            products
                .rows()
                .into_iter()
                .map(|products| largest_in_block(products.to_slice(), squares, is_open, first_row, count))
                .collect()
        })
        .collect();
    let of_vector = |vector: usize| {
        let mut rows: Vec<(f32, usize)> = blocks.iter().flat_map(|block| block[vector].iter().copied()).collect();
        truncate(&mut rows, count);
        rows.into_iter().map(|(_, row)| row).collect()
    };
    (0..vectors.nrows()).map(of_vector).collect()
}

/// The allowed rows of a block with the largest values, as pairs of value and row. The block starts at the row `first_row`.
fn largest_in_block(
    products: Option<&[f32]>,
    squares: Option<&[f32]>,
    is_open: &[bool],
    first_row: usize,
    count: usize,
) -> Vec<(f32, usize)> {
    let (products, mut lowest, mut row) = (products.unwrap_or_default(), f32::NEG_INFINITY, 0);
    let mut largest: Vec<(f32, usize)> = Vec::with_capacity(4 * count);
    while row < products.len() {
        let value = match squares {
            Some(squares) => products[row] - squares[row],
            None => products[row],
        };
        if value > lowest && is_open[row] {
            largest.push((value, first_row + row));
            if largest.len() == 4 * count {
                truncate(&mut largest, count);
                lowest = largest.iter().fold(f32::INFINITY, |lowest, (value, _)| lowest.min(*value));
            }
        }
        row += 1;
    }
    truncate(&mut largest, count);
    largest
}

/// Keeps the `count` largest values. Of equal values, the first ones are kept.
fn truncate(rows: &mut Vec<(f32, usize)>, count: usize) {
    if rows.len() > count {
        rows.select_nth_unstable_by(count, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        rows.truncate(count);
    }
}
