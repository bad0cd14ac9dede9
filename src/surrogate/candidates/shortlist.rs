//! Candidates by what is read of the items beside their embeddings, in a library too large to be ranked as a whole.

use std::collections::HashMap;

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use crate::error::Result;
use crate::random::RandomStream;
use crate::surrogate::kernel::Measure;
use crate::surrogate::observations::Seen;
use crate::surrogate::ridge::Ridge;
use crate::surrogate::space::Views;

/// Best items whose neighbours are candidates, and how many of each.
const BEST: (usize, usize) = (20, 100);
/// Directions of a linear model along which the farthest items are candidates, and how many along each.
const DIRECTIONS: (usize, usize) = (4, 100);
/// Rows that one thread looks at in one go.
const BLOCK: usize = 4096;

/// What stays the same from batch to batch, while the measure does.
#[derive(Clone, Debug, Default)]
pub(in crate::surrogate) struct Shortlist {
    /// `|x|^2` of each row of the features.
    sizes: Array1<f32>,
    /// The rows nearest to items, by the position at which they were asked.
    nearest: HashMap<usize, Vec<usize>>,
}

impl Shortlist {
    /// Ids of items that are near to the best ones in the views that count, or far along the directions in which a linear
    /// model of them sees the score grow (its posterior mean and three draws): one pass over all features. None if only the
    /// embedding counts.
    ///
    /// # Errors
    /// Features that are not finite.
    pub fn ids(
        &mut self,
        views: &Views,
        measure: &Measure,
        seen: &Seen,
        chosen: &[usize],
        rng: &mut RandomStream,
    ) -> Result<Vec<u64>> {
        let features = views.features();
        let factors = measure.factors(views.dim()..views.width());
        if factors.iter().all(|factor| *factor == 0.0) {
            return Ok(Vec::new());
        }
        let own = |items: &[usize]| seen.vectors(items, views.width()).slice_move(s![.., views.dim()..]) * &factors;
        let all = features.values();
        if self.sizes.is_empty() {
            self.sizes = sizes(all, &factors);
        }
        let best = seen.best_items(BEST.0);
        let new: Vec<usize> = best.iter().copied().filter(|item| !self.nearest.contains_key(item)).collect();
        // |x f - b|^2 is least where 2 x . (f b) - |x f|^2 is largest, with the factors f.
        // Booked or not: what is told of an item must not depend on when it is.
        let nearest =
            largest(all, (own(&new) * &factors * 2.0).view(), Some(&self.sizes), &vec![true; all.nrows()], BEST.1);
        self.nearest.extend(new.into_iter().zip(nearest));

        let ridge = Ridge::new(own(chosen).mapv(f64::from).view(), &seen.targets().select(Axis(0), chosen))?;
        let mut far = Array2::zeros((DIRECTIONS.0, factors.len()));
        for (number, mut row) in far.rows_mut().into_iter().enumerate() {
            let direction = if number == 0 { ridge.weights() } else { ridge.sample(rng) };
            row.assign(&(direction.mapv(|value| value as f32) * &factors));
        }
        let open: Vec<bool> = (0..all.nrows()).map(|row| !seen.has(features.id(row))).collect();
        let farthest = largest(all, far.view(), None, &open, DIRECTIONS.1);

        let near = best.iter().flat_map(|item| &self.nearest[item]);
        let rows = near.chain(farthest.iter().flatten()).copied().filter(|row| open[*row]);
        let mut ids: Vec<u64> = rows.map(|row| features.id(row)).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

/// `|x f|^2` of each row x.
fn sizes(all: ArrayView2<'_, f32>, factors: &Array1<f32>) -> Array1<f32> {
    let (all, squares) = (all.as_standard_layout(), factors.mapv(|factor| factor * factor).to_vec());
    let size = |row: &[f32]| {
        let (squares, mut sum, mut at) = (&squares[..row.len()], 0.0, 0);
        while at < row.len() {
            sum += squares[at] * row[at] * row[at];
            at += 1;
        }
        sum
    };
    let rows = all.as_slice().unwrap_or_default().par_chunks(factors.len().max(1));
    rows.map(size).collect::<Vec<f32>>().into()
}

/// For each of some vectors `(vectors, components)` the open rows with the largest product with it, less their size if
/// there are sizes; at most so many. Of equal ones the first.
fn largest(
    all: ArrayView2<'_, f32>,
    vectors: ArrayView2<'_, f32>,
    sizes: Option<&Array1<f32>>,
    open: &[bool],
    most: usize,
) -> Vec<Vec<usize>> {
    if vectors.is_empty() {
        return Vec::new();
    }
    let sizes = sizes.and_then(|sizes| sizes.as_slice());
    let blocks: Vec<Vec<Vec<(f32, usize)>>> = (0..all.nrows().div_ceil(BLOCK))
        .into_par_iter()
        .map(|block| {
            let first = block * BLOCK;
            let rows = all.slice(s![first..(first + BLOCK).min(all.nrows()), ..]);
            // A row for each vector.
            let products = vectors.dot(&rows.t());
            let products = products.as_standard_layout();
            let sizes = sizes.map(|sizes| &sizes[first..first + rows.nrows()]);
            let open = &open[first..first + rows.nrows()];
            products
                .rows()
                .into_iter()
                .map(|products| of_block(products.to_slice(), sizes, open, first, most))
                .collect()
        })
        .collect();
    let of_vector = |vector: usize| {
        let mut rows: Vec<(f32, usize)> = blocks.iter().flat_map(|block| block[vector].iter().copied()).collect();
        keep(&mut rows, most);
        rows.into_iter().map(|(_, row)| row).collect()
    };
    (0..vectors.nrows()).map(of_vector).collect()
}

fn of_block(
    products: Option<&[f32]>,
    sizes: Option<&[f32]>,
    open: &[bool],
    first: usize,
    most: usize,
) -> Vec<(f32, usize)> {
    let (products, mut least, mut row) = (products.unwrap_or_default(), f32::NEG_INFINITY, 0);
    let mut kept: Vec<(f32, usize)> = Vec::with_capacity(4 * most);
    while row < products.len() {
        let value = match sizes {
            Some(sizes) => products[row] - sizes[row],
            None => products[row],
        };
        if value > least && open[row] {
            kept.push((value, first + row));
            if kept.len() == 4 * most {
                keep(&mut kept, most);
                least = kept.iter().fold(f32::INFINITY, |least, (value, _)| least.min(*value));
            }
        }
        row += 1;
    }
    keep(&mut kept, most);
    kept
}

/// Keeps the largest; of equal ones the first.
fn keep(rows: &mut Vec<(f32, usize)>, most: usize) {
    if rows.len() > most {
        rows.select_nth_unstable_by(most, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        rows.truncate(most);
    }
}
