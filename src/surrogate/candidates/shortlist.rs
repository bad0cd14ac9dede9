//! A shortlist of candidates by their features, in a library that is too large to be ranked as a whole.

use std::collections::HashMap;

use ndarray::{Array1, Array2, ArrayView2, s};
use rayon::prelude::*;

use crate::error::Result;
use crate::random::RandomStream;
use crate::surrogate::distance::ScaledDistance;
use crate::surrogate::observations::TrainingSet;
use crate::surrogate::ridge::BayesianRidge;
use crate::surrogate::vectorizer::Vectorizer;

/// The number of best items whose neighbours are candidates, and the number of neighbours of each.
const BEST: (usize, usize) = (20, 100);
/// The number of directions of a linear model along which the farthest items are candidates, and the number of items along
/// each.
const DIRECTIONS: (usize, usize) = (4, 100);
/// Rows that one thread compares at a time.
const BLOCK: usize = 4096;

/// A cache of what stays the same from batch to batch, until the distance changes.
#[derive(Clone, Debug, Default)]
pub(in crate::surrogate) struct Shortlist {
    /// `|x f|^2` of each row x of the features, with the factors f of the distance.
    squares: Array1<f32>,
    /// The nearest rows of each item, by its row in the observations.
    nearest: HashMap<usize, Vec<usize>>,
}

impl Shortlist {
    /// The ids of items that are near to the best ones in their features, or far along the directions in which a linear model
    /// of the features sees the score grow (its posterior mean and three samples), in ascending order. It takes one pass over
    /// all features. Empty if only the embedding is relevant.
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
        let best = observations.best_rows(BEST.0);
        let new: Vec<usize> = best.iter().copied().filter(|row| !self.nearest.contains_key(row)).collect();
        // |x f - b|^2 is least where 2 x . (f b) - |x f|^2 is largest, with the factors f.
        // Decided items take part: the cached neighbours of an item must not depend on when they are computed.
        let vectors = scaled(observations.vectors(&new, width)) * &factors * 2.0;
        let nearest = largest(all, vectors.view(), Some(&self.squares), &vec![true; all.nrows()], BEST.1);
        self.nearest.extend(new.into_iter().zip(nearest));

        let ridge = BayesianRidge::fit(scaled(training.vectors(width)).mapv(f64::from).view(), &training.targets())?;
        let mut far = Array2::zeros((DIRECTIONS.0, factors.len()));
        for (number, mut row) in far.rows_mut().into_iter().enumerate() {
            let direction = if number == 0 { ridge.weights() } else { ridge.sample(rng) };
            row.assign(&(direction.mapv(|value| value as f32) * &factors));
        }
        let is_open: Vec<bool> = (0..all.nrows()).map(|row| !observations.contains(features.id(row))).collect();
        let farthest = largest(all, far.view(), None, &is_open, DIRECTIONS.1);

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
        let (weights, mut sum, mut at) = (&weights[..row.len()], 0.0, 0);
        while at < row.len() {
            sum += weights[at] * row[at] * row[at];
            at += 1;
        }
        sum
    };
    let rows = all.as_slice().unwrap_or_default().par_chunks(factors.len().max(1));
    rows.map(square).collect::<Vec<f32>>().into()
}

/// For each of some vectors `(vectors, components)`, the open rows with the largest product with it, minus their square if
/// `squares` are given. At most `most` rows. Of equal rows the first.
fn largest(
    all: ArrayView2<'_, f32>,
    vectors: ArrayView2<'_, f32>,
    squares: Option<&Array1<f32>>,
    is_open: &[bool],
    most: usize,
) -> Vec<Vec<usize>> {
    if vectors.is_empty() {
        return Vec::new();
    }
    let squares = squares.and_then(|squares| squares.as_slice());
    let blocks: Vec<Vec<Vec<(f32, usize)>>> = (0..all.nrows().div_ceil(BLOCK))
        .into_par_iter()
        .map(|block| {
            let first = block * BLOCK;
            let rows = all.slice(s![first..(first + BLOCK).min(all.nrows()), ..]);
            // A row for each vector.
            let products = vectors.dot(&rows.t());
            let products = products.as_standard_layout();
            let squares = squares.map(|squares| &squares[first..first + rows.nrows()]);
            let is_open = &is_open[first..first + rows.nrows()];
            products
                .rows()
                .into_iter()
                .map(|products| largest_in_block(products.to_slice(), squares, is_open, first, most))
                .collect()
        })
        .collect();
    let of_vector = |vector: usize| {
        let mut rows: Vec<(f32, usize)> = blocks.iter().flat_map(|block| block[vector].iter().copied()).collect();
        truncate(&mut rows, most);
        rows.into_iter().map(|(_, row)| row).collect()
    };
    (0..vectors.nrows()).map(of_vector).collect()
}

/// The open rows of a block with the largest products, from the row `first` of all.
fn largest_in_block(
    products: Option<&[f32]>,
    squares: Option<&[f32]>,
    is_open: &[bool],
    first: usize,
    most: usize,
) -> Vec<(f32, usize)> {
    let (products, mut least, mut row) = (products.unwrap_or_default(), f32::NEG_INFINITY, 0);
    let mut kept: Vec<(f32, usize)> = Vec::with_capacity(4 * most);
    while row < products.len() {
        let value = match squares {
            Some(squares) => products[row] - squares[row],
            None => products[row],
        };
        if value > least && is_open[row] {
            kept.push((value, first + row));
            if kept.len() == 4 * most {
                truncate(&mut kept, most);
                least = kept.iter().fold(f32::INFINITY, |least, (value, _)| least.min(*value));
            }
        }
        row += 1;
    }
    truncate(&mut kept, most);
    kept
}

/// Keeps the largest values. Of equal ones the first.
fn truncate(rows: &mut Vec<(f32, usize)>, most: usize) {
    if rows.len() > most {
        rows.select_nth_unstable_by(most, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        rows.truncate(most);
    }
}
