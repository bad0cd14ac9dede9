//! Candidates by what is read of the items beside their embeddings, in a library too large to be ranked as a whole.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::measure::Measure;
use super::ridge::Ridge;
use super::seen::{Seen, targets};
use super::views::Views;
use crate::error::Result;

/// Best items whose neighbours are candidates, and how many of each.
const BEST: (usize, usize) = (20, 50);
/// Directions of a linear model along which the farthest items are candidates, and how many along each.
const DIRECTIONS: (usize, usize) = (4, 100);
/// Rows that one thread looks at in one go.
const BLOCK: usize = 4096;

/// Ids of items that are near to the best ones in the views that count, or far along the directions in which a linear model
/// of them sees the score grow (its posterior mean and three draws): one pass over all features. None if only the
/// embedding counts.
///
/// # Errors
/// Features that are not finite.
pub(super) fn shortlist(
    views: &Views,
    measure: &Measure,
    seen: &Seen,
    chosen: &[usize],
    rng: &mut ChaCha8Rng,
) -> Result<Vec<u64>> {
    let features = views.features();
    let factors = measure.factors(views.dim()..views.width());
    if factors.iter().all(|factor| *factor == 0.0) {
        return Ok(Vec::new());
    }
    let own = |items: &[usize]| seen.vectors(items, views.width()).slice_move(s![.., views.dim()..]) * &factors;
    let ridge = Ridge::new(own(chosen).mapv(f64::from).view(), &targets(seen.scores()).select(Axis(0), chosen))?;
    let best = own(&seen.best_items(BEST.0));

    // |x f - b|^2 is least where 2 x . (f b) - |x f|^2 is largest, with the factors f.
    let mut wanted = Array2::zeros((features.width(), best.nrows() + DIRECTIONS.0));
    for (best, mut column) in best.rows().into_iter().zip(wanted.columns_mut()) {
        column.assign(&(&best * &factors * 2.0));
    }
    for number in 0..DIRECTIONS.0 {
        let direction = if number == 0 { ridge.weights() } else { ridge.sample(rng) };
        wanted.column_mut(best.nrows() + number).assign(&(direction.mapv(|value| value as f32) * &factors));
    }
    let squares = factors.mapv(|factor| factor * factor);
    let most = |column: usize| if column < best.nrows() { BEST.1 } else { DIRECTIONS.1 };
    let all = features.values();
    let blocks: Vec<Vec<Vec<(f32, usize)>>> = (0..all.nrows().div_ceil(BLOCK))
        .into_par_iter()
        .map(|block| {
            let first = block * BLOCK;
            let rows = all.slice(s![first..(first + BLOCK).min(all.nrows()), ..]);
            let open: Vec<bool> = (first..first + rows.nrows()).map(|row| !seen.has(features.id(row))).collect();
            let sizes = rows.mapv(|value| value * value).dot(&squares);
            farthest(rows, wanted.view(), &sizes, best.nrows(), &open, first, &most)
        })
        .collect();
    let mut ids = Vec::new();
    for column in 0..wanted.ncols() {
        let mut rows: Vec<(f32, usize)> = blocks.iter().flat_map(|block| block[column].iter().copied()).collect();
        keep(&mut rows, most(column));
        ids.extend(rows.into_iter().map(|(_, row)| features.id(row)));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Of the open rows, those with the largest product with each column; with the first `nearest` columns less their size.
fn farthest(
    rows: ArrayView2<'_, f32>,
    columns: ArrayView2<'_, f32>,
    sizes: &Array1<f32>,
    nearest: usize,
    open: &[bool],
    first: usize,
    most: &dyn Fn(usize) -> usize,
) -> Vec<Vec<(f32, usize)>> {
    let products = rows.dot(&columns);
    let of_column = |column: usize| {
        let (most, mut least) = (most(column), f32::NEG_INFINITY);
        let mut kept: Vec<(f32, usize)> = Vec::with_capacity(4 * most);
        let mut row = 0;
        while row < open.len() {
            let value = products[[row, column]] - if column < nearest { sizes[row] } else { 0.0 };
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
    };
    (0..columns.ncols()).map(of_column).collect()
}

/// Keeps the largest; of equal ones the first.
fn keep(rows: &mut Vec<(f32, usize)>, most: usize) {
    if rows.len() > most {
        rows.select_nth_unstable_by(most, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        rows.truncate(most);
    }
}
