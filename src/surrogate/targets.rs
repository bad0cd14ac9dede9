//! The regression targets of scores, and the variance of their noise.

use ndarray::Array1;

use super::target_transform::TargetTransform;

/// The number of first observations that form the baseline.
const BASELINE_SIZE: usize = 32;
/// The noise variance of targets up to the noise threshold, for targets of variance 1.
const NOISE: f64 = 0.1;
/// The noise variance of targets above the noise threshold.
pub(super) const NOISE_ABOVE: f64 = 0.03;

/// The predicted distribution of a score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Prediction {
    /// The expected score.
    pub mean: f64,
    /// The standard deviation of the score.
    pub deviation: f64,
}

/// The first observations, whose items no model has chosen. Their median is the baseline score. Differences between scores below
/// it do not matter.
///
/// Items with reused scores are not random, because an earlier search chose most of them. If there are any, the baseline score is
/// their lower eighth (the 12.5 % quantile).
#[derive(Clone, Copy, Debug)]
pub(super) struct Baseline {
    size: usize,
    /// One in `one_in` scores of the baseline is below the baseline score.
    one_in: usize,
}

impl Baseline {
    /// The baseline of a run with `reused_count` items with reused scores, which are observed first.
    pub fn new(reused_count: usize) -> Self {
        Baseline { size: BASELINE_SIZE.max(reused_count), one_in: if reused_count > 0 { 8 } else { 2 } }
    }

    /// The baseline score. Minus infinity if too many items of the baseline have no score.
    pub fn score(self, scores: &[f64]) -> f64 {
        quantile(&scores[..scores.len().min(self.size)], self.one_in)
    }

    /// The floor of the targets. Scores below it, and items without a score, count as equal to it.
    fn floor(self, scores: &[f64]) -> f64 {
        let baseline = self.score(scores);
        if baseline.is_finite() {
            return baseline;
        }
        let lowest = scores.iter().copied().filter(|score| score.is_finite()).min_by(f64::total_cmp);
        lowest.unwrap_or(0.0)
    }
}

/// Transforms scores, in the order of observation, to targets with mean 0 and variance 1 ([`TargetTransform`]). Returns zeros if
/// no item has a score.
pub(super) fn targets(scores: &[f64], baseline: Baseline) -> (Array1<f64>, TargetTransform) {
    TargetTransform::fit(scores, baseline.floor(scores))
}

/// The noise threshold: the median score, or the floor of the targets if it is higher. Scores above it have less noise.
pub(super) fn noise_threshold(scores: &[f64], baseline: Baseline) -> f64 {
    quantile(scores, 2).max(baseline.floor(scores))
}

/// The noise variance of each target.
pub(super) fn noise(scores: &[f64], threshold: f64) -> Array1<f64> {
    scores.iter().map(|score| noise_of(*score, threshold)).collect()
}

/// The noise variance of the target of a score. Scores above the threshold have less noise, because their differences matter.
pub(super) fn noise_of(score: f64, threshold: f64) -> f64 {
    if score > threshold { NOISE_ABOVE } else { NOISE }
}

/// The quantile `1 / one_in`: the value at the position `n / one_in`, rounded down, of the n sorted values. For `one_in` = 2 this
/// is the median, and the upper of the two middle values if n is even. 0 if there are no values.
fn quantile(values: &[f64], one_in: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / one_in).copied().unwrap_or(0.0)
}
