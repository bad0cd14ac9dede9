//! Regression targets: scores as the models see them, and the variance of their noise.

use ndarray::Array1;

use super::target_scale::TargetScale;

/// The number of first observations that form the baseline.
const BASELINE: usize = 32;
/// The variance of the noise, if that of the targets is 1.
const NOISE: f64 = 0.1;
/// The variance of the noise of scores above the noise threshold.
pub(super) const NOISE_ABOVE: f64 = 0.03;

/// The first observations. Their scores are those of items that were not chosen for their score, and give the baseline score
/// below which differences do not matter: their median.
///
/// Items with reused scores are not random, because most of them were chosen by an earlier search. With them the baseline score
/// is the lowest eighth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Baseline {
    size: usize,
    /// One in so many baseline scores is below the baseline score.
    part: usize,
}

impl Baseline {
    /// The baseline after so many items with reused scores, which come first.
    pub fn new(reused_count: usize) -> Self {
        Baseline { size: BASELINE.max(reused_count), part: if reused_count > 0 { 8 } else { 2 } }
    }

    /// The baseline score: minus infinity if that is an item without a score.
    pub fn score(self, scores: &[f64]) -> f64 {
        quantile(&scores[..scores.len().min(self.size)], self.part)
    }

    /// The floor of the targets: scores below it, and items without a score, count as equal to it.
    fn floor(self, scores: &[f64]) -> f64 {
        let baseline = self.score(scores);
        if baseline.is_finite() {
            return baseline;
        }
        let lowest = scores.iter().copied().filter(|score| score.is_finite()).min_by(f64::total_cmp);
        lowest.unwrap_or(0.0)
    }
}

/// Converts scores, in the order of observation, to targets with mean 0 and variance 1, without the differences that do not
/// matter ([`TargetScale`]). Zeros while nothing is scored.
pub(super) fn targets(scores: &[f64], baseline: Baseline) -> (Array1<f64>, TargetScale) {
    TargetScale::fit(scores, baseline.floor(scores))
}

/// The score above which scores have less noise: the median, or the floor of the targets if that is higher.
pub(super) fn noise_threshold(scores: &[f64], baseline: Baseline) -> f64 {
    quantile(scores, 2).max(baseline.floor(scores))
}

/// The variance of the noise of each target.
pub(super) fn noise(scores: &[f64], threshold: f64) -> Array1<f64> {
    scores.iter().map(|score| noise_of(*score, threshold)).collect()
}

/// The variance of the noise of one target. Scores above the threshold have less noise, because their differences matter.
pub(super) fn noise_of(score: f64, threshold: f64) -> f64 {
    if score > threshold { NOISE_ABOVE } else { NOISE }
}

/// The lowest value that one in `part` of the values is below. Of two in the middle the upper one. 0 if there are no values.
fn quantile(values: &[f64], part: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / part).copied().unwrap_or(0.0)
}
