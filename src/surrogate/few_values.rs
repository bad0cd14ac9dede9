//! Scores of few values: yes or no, or grades of which the lowest is frequent.
//!
//! Such scores leave nothing to explore among equals. What matters is which items are like those of the higher values. So the
//! model differs from that of other scores in four respects:
//!
//! - *Targets*: the lowest value is 0 and the highest 1. They are not centred, so the prior mean of the model is the lowest value:
//!   an item that is far from all observations is expected to have it.
//! - *Noise*: in proportion to how often a value occurs, so that each value weighs the same.
//! - *Length*: half of the kernel's length, for two values.
//! - *Choice*: the items of the highest posterior mean, without sampling and niching.

use ndarray::Array1;

use super::targets::{Baseline, Prediction};

/// The largest number of distinct values.
const MAX_VALUES: usize = 11;
/// At most one in this many scores may have a value of its own.
const UNIQUE_ONE_IN: usize = 8;
/// The minimum number of scores for a verdict on at most two values.
const MIN_SCORED_TWO: usize = 8;
/// The minimum number of scores for a verdict on more values.
const MIN_SCORED: usize = 16;
/// The minimum number of scores for a verdict if the user announced few values.
pub(super) const MIN_SCORED_ANNOUNCED: usize = 4;
/// The mean noise variance of the targets.
const NOISE: f64 = 0.3;
/// The factor of the kernel's length for two values.
const LENGTH_TWO: f64 = 0.5;

/// The distinct values of the scores so far, if there are few.
///
/// The values `v_1 < .. < v_m` occur `c_1, .., c_m` times among n items. Items without a score count as `v_1`. The target and
/// the noise variance of the value `v_k` are
///
/// ```text
/// z_k = (c_1 + .. + c_(k-1)) / (c_1 + .. + c_(m-1))         N_k = 0.3 m c_k / n
/// ```
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FewValues {
    /// In ascending order.
    values: Vec<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Value {
    score: f64,
    target: f64,
    noise: f64,
}

impl FewValues {
    /// Detects few values from all scores in the order of observation. The score of an item without one is minus infinity.
    ///
    /// Scores have few values if there are at most two. Up to eleven values are few if hardly any of them occurs only once, and if
    /// the lowest is so frequent that it is the score of the baseline. `is_announced`: the user said that scores have few values,
    /// so that fewer scores are sufficient for the verdict.
    pub fn detect(scores: &[f64], baseline: Baseline, is_announced: bool) -> Option<Self> {
        let scored: Vec<f64> = scores.iter().copied().filter(|score| score.is_finite()).collect();
        let mut counts = count_values(&scored)?;
        let min_scored = match counts.len() {
            _ if is_announced => MIN_SCORED_ANNOUNCED,
            ..=2 => MIN_SCORED_TWO,
            _ => MIN_SCORED,
        };
        let unique = counts.iter().filter(|(_, count)| *count == 1).count();
        let is_lowest_frequent = || baseline.score(&scored) == counts[0].0;
        let are_few = counts.len() <= 2 || UNIQUE_ONE_IN * unique <= scored.len() && is_lowest_frequent();
        if scored.len() < min_scored || !are_few {
            return None;
        }
        counts[0].1 += scores.len() - scored.len();
        let below_highest = scores.len() - counts[counts.len() - 1].1;
        let mut below = 0;
        let values = counts.iter().map(|(score, count)| {
            let target = below as f64 / below_highest.max(1) as f64;
            below += count;
            Value { score: *score, target, noise: NOISE * (counts.len() * count) as f64 / scores.len() as f64 }
        });
        Some(FewValues { values: values.collect() })
    }

    /// The number of distinct values.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// The lowest value.
    pub fn lowest(&self) -> f64 {
        self.values[0].score
    }

    /// The targets of scores.
    pub fn targets(&self, scores: &[f64]) -> Array1<f64> {
        scores.iter().map(|score| self.nearest(|value| value.score, *score).target).collect()
    }

    /// The noise variances of the targets of scores.
    pub fn noise(&self, scores: &[f64]) -> Array1<f64> {
        scores.iter().map(|score| self.nearest(|value| value.score, *score).noise).collect()
    }

    /// The factor of the kernel's length.
    pub fn length(&self) -> f64 {
        if self.count() <= 2 { LENGTH_TWO } else { 1.0 }
    }

    /// Predicts the score of an item whose target has this posterior mean and variance. `amplitude` is the factor of the
    /// variances.
    ///
    /// The expected score is interpolated between the values. With two values, the deviation is that of a random choice between
    /// them with this mean. The mean may leave the range of the values a little, like the mean of the target.
    pub fn predict(&self, mean: f64, variance: f64, amplitude: f64) -> Option<Prediction> {
        let pairs = || self.values.iter().zip(&self.values[1..]);
        let (low, high) = pairs().find(|(_, high)| mean <= high.target).or_else(|| pairs().next_back())?;
        let slope = (high.score - low.score) / (high.target - low.target);
        let variance = match self.count() {
            2 => {
                let share = mean.clamp(MIN_SHARE, 1.0 - MIN_SHARE);
                share * (1.0 - share)
            }
            _ => amplitude * (variance.max(0.0) + self.nearest(|value| value.target, mean).noise),
        };
        let prediction =
            Prediction { mean: low.score + (mean - low.target) * slope, deviation: variance.sqrt() * slope };
        (prediction.mean.is_finite() && prediction.deviation.is_finite()).then_some(prediction)
    }

    /// The value that is nearest to a number. The lowest for minus infinity.
    fn nearest(&self, number_of: impl Fn(&Value) -> f64, number: f64) -> &Value {
        let distance = |value: &&Value| (number_of(value) - number).abs();
        let nearest = self.values.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
        nearest.unwrap_or(&self.values[0])
    }
}

/// The smallest probability of either of two values. Predictions are not certain.
const MIN_SHARE: f64 = 0.01;

/// Whether there is no score, or at least four that are all equal. If many items have no score, fewer may be equal by chance.
pub(super) fn are_equal(scores: &[f64]) -> bool {
    let mut scored = scores.iter().filter(|score| score.is_finite());
    let Some(first) = scored.next() else { return true };
    scored.clone().count() + 1 >= MIN_SCORED_ANNOUNCED && scored.all(|score| score == first)
}

/// The distinct scores in ascending order, and how often each occurs. `None` if there are none, or too many.
fn count_values(scores: &[f64]) -> Option<Vec<(f64, usize)>> {
    let mut counts: Vec<(f64, usize)> = Vec::new();
    for score in scores {
        match counts.iter().position(|(value, _)| value == score) {
            Some(position) => counts[position].1 += 1,
            None if counts.len() == MAX_VALUES => return None,
            None => counts.push((*score, 1)),
        }
    }
    counts.sort_by(|a, b| a.0.total_cmp(&b.0));
    (!counts.is_empty()).then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(scores: &[f64]) -> Option<FewValues> {
        FewValues::detect(scores, Baseline::new(0), false)
    }

    #[test]
    fn yes_and_no_are_zero_and_one_and_each_weighs_the_same() {
        let scores = [3.0, 3.0, 5.0, 3.0, f64::NEG_INFINITY, 3.0, 3.0, 3.0, 3.0, 5.0];
        let few = detect(&scores).expect("two values");
        assert_eq!(few.targets(&scores).to_vec(), [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        let expected = [(0, 0.6 * 0.8), (2, 0.6 * 0.2), (4, 0.6 * 0.8)];
        assert!(expected.iter().all(|(item, noise)| (few.noise(&scores)[*item] - noise).abs() < 1e-12));
        let prediction = few.predict(0.25, 0.1, 1.0).expect("a prediction");
        assert_eq!((prediction.mean, prediction.deviation), (3.5, 0.1875f64.sqrt() * 2.0));
    }

    #[test]
    fn the_target_of_a_grade_is_the_share_of_lower_scores() {
        let scores: Vec<f64> = (0..20).map(|item| [0.0, 0.0, 0.0, 1.0, 2.0][item % 5]).collect();
        let few = detect(&scores).expect("three values");
        assert_eq!(few.targets(&[0.0, 1.0, 2.0]).to_vec(), [0.0, 0.75, 1.0]);
        for (target, score) in [(0.0, 0.0), (0.375, 0.5), (0.75, 1.0), (1.0, 2.0), (1.25, 3.0)] {
            assert!((few.predict(target, 0.1, 1.0).expect("a prediction").mean - score).abs() < 1e-12, "{target}");
        }
    }

    #[test]
    fn ordinary_scores_with_ties_and_grades_that_are_spread_do_not_have_few_values() {
        let steps: Vec<f64> = (0..40).map(|item| f64::from(item * 7 % 23) / 10.0).collect();
        assert_eq!(detect(&steps), None);
        let grades: Vec<f64> = (0..40).map(|item| f64::from(item * 7 % 10)).collect();
        assert_eq!(detect(&grades), None);
        assert_eq!(detect(&[1.0; 7]), None);
        assert_eq!(detect(&[1.0; 8]).map(|few| few.count()), Some(1));
        assert_eq!(FewValues::detect(&[0.0, 1.0, 0.0, 0.0], Baseline::new(0), true).map(|few| few.count()), Some(2));
    }
}
