//! What was asked and what came of it: what the models of the surrogate learn from.

use std::collections::HashMap;

use ndarray::{Array1, Array2, ArrayView1};

/// Items, from the first asked, whose median the scores are cut at from below.
const EARLY: usize = 32;
/// Variance of the noise, where that of the scores is 1.
const NOISE: f64 = 0.1;
/// The same for scores above their median.
pub(super) const NOISE_ABOVE: f64 = 0.03;

/// The first items, which say what an item is worth that was not chosen for its worth, and above what part of their scores
/// that is: half of them. Items that were known before are no random ones but mostly what an earlier search had chosen: then
/// it is an eighth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Early {
    items: usize,
    part: usize,
}

/// The items asked, in their order. One without a score, rejected or failed, has minus infinity: the lowest there is.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    db_idx: Vec<u64>,
    scores: Vec<f64>,
    /// Row-major, `(items, width)`.
    vectors: Vec<f32>,
    row_of: HashMap<u64, usize>,
    /// How many of them were known before.
    known: usize,
}

impl Seen {
    /// Adds an item, whose score may have been known before the search; of one that was asked before, the score alone is new.
    pub fn add(&mut self, item: u64, score: Option<f64>, vector: ArrayView1<'_, f32>, was_known: bool) {
        let score = score.unwrap_or(f64::NEG_INFINITY);
        match self.row_of.get(&item) {
            Some(row) => self.scores[*row] = score,
            None => {
                self.row_of.insert(item, self.db_idx.len());
                self.db_idx.push(item);
                self.scores.push(score);
                self.vectors.extend(vector);
                self.known += usize::from(was_known);
            }
        }
    }

    /// The items that the others are compared with. What was known before comes first.
    pub fn early(&self) -> Early {
        Early { items: EARLY.max(self.known), part: if self.known > 0 { 8 } else { 2 } }
    }

    /// What the models are to see of the scores, in the order asked.
    pub fn targets(&self) -> Array1<f64> {
        targets(&self.scores, self.early())
    }

    /// What scores have less noise above.
    pub fn threshold(&self) -> f64 {
        threshold(&self.scores, self.early())
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
        self.ids(&self.best_items(most))
    }

    /// The items to fit, in the order asked: all, or the best half, the latest quarter and some of the rest, drawn by `seed`.
    /// Items without a score are none of the best: however many there are, they do not crowd out the others.
    ///
    /// A choice stands while an eighth of `most` is asked, which is added to it, so that what is known of the chosen serves
    /// for some batches. Whether an item of the rest is drawn depends on the item first, so that few come and go.
    pub fn chosen(&self, most: usize, seed: u64) -> Vec<usize> {
        let n = self.asked();
        if n <= most {
            return (0..n).collect();
        }
        let step = (most / 8).max(1);
        let since = (n - most) % step;
        let mut chosen = self.chosen_of(n - since, most - (step - 1), seed);
        chosen.extend(n - since..n);
        chosen
    }

    /// Of the first `n`, so many.
    fn chosen_of(&self, n: usize, most: usize, seed: u64) -> Vec<usize> {
        let mut keep = vec![false; n];
        let best = descending(&self.scores[..n]).into_iter();
        let best = best.take(most / 2).filter(|item| self.scores[*item].is_finite());
        best.chain(n - most / 4..n).for_each(|item| keep[item] = true);
        let mut rest: Vec<usize> = (0..n).filter(|item| !keep[*item]).collect();
        let missing = (most - (n - rest.len())).min(rest.len());
        rest.sort_by_key(|item| (mixed(seed ^ mixed(self.db_idx[*item])), *item));
        rest.into_iter().take(missing).for_each(|item| keep[item] = true);
        (0..n).filter(|item| keep[*item]).collect()
    }

    /// Ids of items.
    pub fn ids(&self, items: &[usize]) -> Vec<u64> {
        items.iter().map(|item| self.db_idx[*item]).collect()
    }

    /// Whether an item was asked.
    pub fn has(&self, id: u64) -> bool {
        self.row_of.contains_key(&id)
    }

    /// The best items above the middle of the first, at most so many, the best first.
    pub fn best_items(&self, most: usize) -> Vec<usize> {
        let middle = middle(&self.scores, self.early());
        descending(&self.scores).into_iter().take(most).filter(|item| self.scores[*item] > middle).collect()
    }

    /// Scores of items.
    pub fn scores_of(&self, items: &[usize]) -> Vec<f64> {
        items.iter().map(|item| self.scores[*item]).collect()
    }

    /// All scores there are, the best first.
    pub fn best_scores(&self) -> Vec<f64> {
        let mut scores: Vec<f64> = self.scores.iter().copied().filter(|score| score.is_finite()).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        scores
    }

    /// The id of the best item, if one has a score.
    pub fn top(&self) -> Vec<u64> {
        let top = descending(&self.scores).into_iter().take(1).filter(|item| self.scores[*item].is_finite());
        top.map(|item| self.db_idx[item]).collect()
    }

    /// Vectors of items, `(items, width)`.
    pub fn vectors(&self, items: &[usize], width: usize) -> Array2<f32> {
        let mut values = Vec::with_capacity(items.len() * width);
        items.iter().for_each(|item| values.extend_from_slice(&self.vectors[item * width..(item + 1) * width]));
        Array2::from_shape_vec((items.len(), width), values).unwrap_or_default()
    }
}

/// Scores, in the order asked, as the models are to see them: mean 0 and variance 1, without the differences that do not
/// matter. Zeros while nothing is scored.
pub(super) fn targets(scores: &[f64], early: Early) -> Array1<f64> {
    let floor = floor(scores, early);
    let mut targets: Array1<f64> = scores.iter().map(|score| score.max(floor)).collect();
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

/// The median of scores; where the floor of their targets is higher, that.
pub(super) fn threshold(scores: &[f64], early: Early) -> f64 {
    median(scores).max(floor(scores, early))
}

/// The variance of the noise of each target of some scores: less for those above a threshold, whose differences matter.
pub(super) fn noise(scores: &[f64], threshold: f64) -> Array1<f64> {
    scores.iter().map(|score| if *score > threshold { NOISE_ABOVE } else { NOISE }).collect()
}

/// The score that is as good as any below it, and as none at all.
fn floor(scores: &[f64], early: Early) -> f64 {
    let middle = middle(scores, early);
    if middle.is_finite() {
        return middle;
    }
    let lowest = scores.iter().copied().filter(|score| score.is_finite()).min_by(f64::total_cmp);
    lowest.unwrap_or(0.0)
}

/// What the first are worth: minus infinity if that is an item without a score.
fn middle(scores: &[f64], early: Early) -> f64 {
    above(&scores[..scores.len().min(early.items)], early.part)
}

/// Positions of values, the largest first; the first of equals first.
pub(super) fn descending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    order
}

/// The upper of the two in the middle; 0 of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    above(values, 2)
}

/// The lowest of values that one in so many is below; 0 of nothing.
fn above(values: &[f64], part: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / part).copied().unwrap_or(0.0)
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

/// A number that looks random, of one number (splitmix64).
fn mixed(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
