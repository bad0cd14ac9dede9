//! How scores correspond to the targets of the model: continuous scores, or scores of few values.

use ndarray::Array1;

use super::few_values::FewValues;
use super::target_transform::TargetTransform;
use super::targets::{Prediction, noise, noise_of};

/// The relation between scores and targets, and what depends on it: the noise, the kernel's length, how much samples deviate from
/// the posterior mean, and predictions.
#[derive(Clone, Debug)]
pub(super) enum TargetScale {
    /// Scores above the `noise_threshold` have less noise.
    Continuous { transform: TargetTransform, noise_threshold: f64 },
    /// Yes or no, or grades.
    FewValues(FewValues),
}

impl TargetScale {
    /// The noise variances of the targets of scores.
    pub fn noise(&self, scores: &[f64]) -> Array1<f64> {
        match self {
            TargetScale::Continuous { noise_threshold, .. } => noise(scores, *noise_threshold),
            TargetScale::FewValues(few) => few.noise(scores),
        }
    }

    /// Targets with a mean square of 1, the prior variance of the model.
    pub fn unit_targets(&self, targets: Array1<f64>) -> Array1<f64> {
        match self {
            TargetScale::Continuous { .. } => targets,
            TargetScale::FewValues(_) => {
                let mean_square = targets.dot(&targets) / targets.len().max(1) as f64;
                if mean_square > 0.0 { targets / mean_square.sqrt() } else { targets }
            }
        }
    }

    /// The factor of the kernel's length.
    pub fn length(&self) -> f64 {
        match self {
            TargetScale::Continuous { .. } => 1.0,
            TargetScale::FewValues(few) => few.length(),
        }
    }

    /// Whether the model reads long texts as documents.
    pub fn reads_documents(&self) -> bool {
        matches!(self, TargetScale::FewValues(_))
    }

    /// The factor of the deviations of samples from the posterior mean. With 0, the highest means are chosen.
    pub fn sample_scale(&self, scored_count: usize) -> f64 {
        match self {
            // Samples have half of the posterior deviation up to 64 scores, and less with more scores.
            TargetScale::Continuous { .. } => 0.5 * (64.0 / scored_count.max(1) as f64).sqrt().min(1.0),
            TargetScale::FewValues(_) => 0.0,
        }
    }

    /// Predicts the score of an item whose target has this posterior mean and variance. `amplitude` is the factor of the variances.
    /// The deviation includes the noise of a single score. `None` if the target does not determine the score.
    pub fn predict(&self, mean: f64, variance: f64, amplitude: f64) -> Option<Prediction> {
        match self {
            TargetScale::Continuous { transform, noise_threshold } => {
                let (score, slope) = transform.to_score(mean, 1.0)?;
                let noise = noise_of(score, *noise_threshold);
                let variance = amplitude * (variance.max(0.0) + noise);
                Some(Prediction { mean: score, deviation: variance.sqrt() * slope })
            }
            TargetScale::FewValues(few) => few.predict(mean, variance, amplitude),
        }
    }
}
