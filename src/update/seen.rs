//! What was asked and what came of it: what the models of the surrogate learn from.

use std::collections::HashMap;

use ndarray::{Array1, Array2, ArrayView1};
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

/// Items, from the first asked, whose median the scores are cut at from below.
const EARLY: usize = 32;

/// The items asked, in their order. One without a score, rejected or failed, has minus infinity: the lowest there is.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    db_idx: Vec<u64>,
    scores: Vec<f64>,
    /// Row-major, `(items, dim)`.
    embeddings: Vec<f32>,
    row_of: HashMap<u64, usize>,
}

impl Seen {
    /// Adds an item; of one that was asked before, the score alone is new.
    pub fn add(&mut self, item: u64, score: Option<f64>, embedding: ArrayView1<'_, f32>) {
        let score = score.unwrap_or(f64::NEG_INFINITY);
        match self.row_of.get(&item) {
            Some(row) => self.scores[*row] = score,
            None => {
                self.row_of.insert(item, self.db_idx.len());
                self.db_idx.push(item);
                self.scores.push(score);
                self.embeddings.extend(embedding);
            }
        }
    }

    /// Items asked, with a score or without.
    pub fn asked(&self) -> usize {
        self.db_idx.len()
    }

    /// Those of them that have a score.
    pub fn scored(&self) -> usize {
        self.scores.iter().filter(|score| score.is_finite()).count()
    }

    /// The ids of the best items above the middle of the first, at most so many.
    pub fn best(&self, most: usize) -> Vec<u64> {
        let middle = self.middle();
        let best = descending(&self.scores).into_iter().take(most).filter(|item| self.scores[*item] > middle);
        best.map(|item| self.db_idx[item]).collect()
    }

    /// The scores as the models are to see them: mean 0 and variance 1, without the differences that do not matter.
    /// Zeros while nothing is scored.
    pub fn targets(&self) -> Array1<f64> {
        let floor = self.floor();
        let mut targets: Array1<f64> = self.scores.iter().map(|score| score.max(floor)).collect();
        standardise(&mut targets);
        // Each pass lets the standard deviation shrink to that of the bulk.
        for _ in 0..3 {
            if targets.iter().all(|z| *z <= 3.0) {
                break;
            }
            targets.mapv_inplace(|z| if z > 3.0 { 3.0 + (z - 2.0).ln() } else { z });
            standardise(&mut targets);
        }
        targets
    }

    /// The items to fit, in the order asked: all, or the best half, the latest quarter and some of the rest.
    /// Items without a score are none of the best: however many there are, they do not crowd out the others.
    pub fn chosen(&self, most: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let n = self.asked();
        if n <= most {
            return (0..n).collect();
        }
        let mut keep = vec![false; n];
        let best = descending(&self.scores).into_iter().take(most / 2).filter(|item| self.scores[*item].is_finite());
        best.chain(n - most / 4..n).for_each(|item| keep[item] = true);
        let rest: Vec<usize> = (0..n).filter(|item| !keep[*item]).collect();
        let missing = (most - (n - rest.len())).min(rest.len());
        index::sample(rng, rest.len(), missing).into_iter().for_each(|item| keep[rest[item]] = true);
        (0..n).filter(|item| keep[*item]).collect()
    }

    /// Embeddings of items, `(items, dim)`.
    pub fn points(&self, items: &[usize], dim: usize) -> Array2<f64> {
        Array2::from_shape_fn((items.len(), dim), |(row, component)| {
            f64::from(self.embeddings[items[row] * dim + component])
        })
    }

    /// The score that is as good as any below it, and as none at all.
    fn floor(&self) -> f64 {
        let middle = self.middle();
        if middle.is_finite() {
            return middle;
        }
        let lowest = self.scores.iter().copied().filter(|score| score.is_finite()).min_by(f64::total_cmp);
        lowest.unwrap_or(0.0)
    }

    /// The median of the first: minus infinity if that is an item without a score.
    fn middle(&self) -> f64 {
        median(&self.scores[..self.asked().min(EARLY)])
    }
}

/// Positions of values, the largest first; the first of equals first.
pub(super) fn descending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    order
}

/// The upper of the two in the middle; 0 of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// To mean 0 and variance 1; to zeros where all are equal.
fn standardise(values: &mut Array1<f64>) {
    // Scores near the largest f64 are brought down first, or their squares would overflow.
    let largest = values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    if largest > 1e100 {
        *values /= largest;
    }
    let n = values.len().max(1) as f64;
    let mean = values.sum() / n;
    *values -= mean;
    let deviation = (values.dot(values) / n).sqrt();
    // Below rounding, differences are noise.
    let scale = if deviation > 1e-12 * mean.abs() { 1.0 / deviation } else { 0.0 };
    values.mapv_inplace(|value| if scale > 0.0 { value * scale } else { 0.0 });
}
