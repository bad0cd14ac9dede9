//! Transforms scores to targets of the model, and predictions of the model back to scores.

use ndarray::Array1;

/// The number of standard deviations from which targets grow with the logarithm of the score.
const LOGARITHMIC_FROM: f64 = 3.0;

/// The transformation from scores to targets. Scores are clipped from below at a floor and standardised to mean 0 and variance 1.
/// While a target is above 3, and at most three times, all targets are compressed and standardised again:
///
/// ```text
/// z <- 3 + ln(z - 2)  where z > 3
/// ```
///
/// Neither the differences between bad items nor single huge scores influence the model much.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TargetTransform {
    floor: f64,
    passes: Vec<Standardisation>,
}

/// `z = (value / divisor - mean) * scale`
#[derive(Clone, Copy, Debug, PartialEq)]
struct Standardisation {
    divisor: f64,
    mean: f64,
    scale: f64,
}

impl TargetTransform {
    /// Fits the transformation to scores. Returns the targets in the order of the scores, and the transformation. Scores below
    /// the `floor`, and the minus infinity of items without a score, count as equal to it.
    pub fn fit(scores: &[f64], floor: f64) -> (Array1<f64>, Self) {
        let mut targets: Array1<f64> = scores.iter().map(|score| score.max(floor)).collect();
        let mut passes = vec![Standardisation::apply(&mut targets)];
        // Each pass brings the standard deviation closer to that of the bulk of the scores.
        for _ in 0..3 {
            if targets.iter().all(|z| *z <= LOGARITHMIC_FROM) {
                break;
            }
            targets.mapv_inplace(compress_tail);
            passes.push(Standardisation::apply(&mut targets));
        }
        (targets, TargetTransform { floor, passes })
    }

    /// Converts the mean and standard deviation of a target to those of the score: inverts the transformation, and multiplies
    /// the deviation by the slope of the inverse at the mean (the delta method).
    ///
    /// `None` if the target does not determine the score: at or below the floor, which stands for all lower scores, or if all
    /// scores are equal.
    pub fn to_score(&self, mean: f64, deviation: f64) -> Option<(f64, f64)> {
        let (mut value, mut slope) = (mean, 1.0);
        for (pass, standardisation) in self.passes.iter().enumerate().rev() {
            value = standardisation.inverse(value)?;
            slope *= standardisation.divisor / standardisation.scale;
            if pass > 0 && value > LOGARITHMIC_FROM {
                slope *= (value - LOGARITHMIC_FROM).exp();
                value = 2.0 + (value - LOGARITHMIC_FROM).exp();
            }
        }
        (value > self.floor && value.is_finite() && slope.is_finite()).then_some((value, deviation * slope))
    }
}

impl Standardisation {
    /// Scales values to mean 0 and variance 1. Zeros if all values are equal.
    fn apply(values: &mut Array1<f64>) -> Self {
        // Scores near the largest f64 are divided first, because their squares would overflow.
        let largest = values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        let divisor = if largest > 1e100 { largest } else { 1.0 };
        if divisor != 1.0 {
            *values /= divisor;
        }
        let n = values.len().max(1) as f64;
        let mean = values.sum() / n;
        *values -= mean;
        let deviation = (values.dot(values) / n).sqrt();
        // Differences below rounding are noise.
        let scale = if deviation > 1e-12 * mean.abs() { 1.0 / deviation } else { 0.0 };
        values.mapv_inplace(|value| if scale > 0.0 { value * scale } else { 0.0 });
        Standardisation { divisor, mean, scale }
    }

    fn inverse(&self, z: f64) -> Option<f64> {
        (self.scale > 0.0).then(|| (z / self.scale + self.mean) * self.divisor)
    }
}

/// Compresses the upper tail: above three standard deviations, a target grows with the logarithm.
fn compress_tail(z: f64) -> f64 {
    if z > LOGARITHMIC_FROM { LOGARITHMIC_FROM + (z - 2.0).ln() } else { z }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_convert_back_to_their_scores() {
        let heavy: Vec<f64> = (0..60).map(|item| f64::from(item).powi(4) / 1e3).chain([1e7, 3e8]).collect();
        for scores in [vec![0.1, 0.4, 0.2, 0.9, 0.8], heavy, vec![1e300, 3e300, -1e300, 2e299]] {
            let lowest = scores.iter().copied().fold(f64::INFINITY, f64::min);
            let floor = lowest - 1.0 - lowest.abs();
            let (targets, transform) = TargetTransform::fit(&scores, floor);
            for (target, score) in targets.iter().zip(&scores) {
                let (back, _) = transform.to_score(*target, 1.0).expect("a score above the floor");
                assert!((back - score).abs() <= 1e-9 * score.abs().max(1.0), "{score} came back as {back}");
            }
        }
    }

    #[test]
    fn a_deviation_is_multiplied_by_the_slope_of_the_inverse() {
        let scores: Vec<f64> = (0..50).map(|item| (f64::from(item) / 8.0).exp()).collect();
        let (_, transform) = TargetTransform::fit(&scores, 2.0);
        for target in [-0.3, 0.5, 2.0, 3.5] {
            let score_at = |target| transform.to_score(target, 1.0).expect("a score above the floor").0;
            let slope = (score_at(target + 1e-6) - score_at(target - 1e-6)) / 2e-6;
            let (_, deviation) = transform.to_score(target, 0.5).expect("a score above the floor");
            assert!((deviation / (0.5 * slope) - 1.0).abs() < 1e-4, "{deviation} and {slope} at {target}");
        }
    }

    #[test]
    fn a_target_at_the_floor_or_of_equal_scores_has_no_score() {
        let (targets, transform) = TargetTransform::fit(&[1.0, 5.0, 2.0, 8.0], 4.0);
        assert_eq!(transform.to_score(targets[0], 0.1), None);
        assert_eq!(transform.to_score(targets[0] - 1.0, 0.1), None);
        assert!(transform.to_score(targets[1], 0.1).is_some());
        assert_eq!(TargetTransform::fit(&[3.0, 3.0], 1.0).1.to_score(0.0, 0.1), None);
        assert_eq!(TargetTransform::fit(&[], 0.0).1.to_score(0.0, 0.1), None);
    }
}
