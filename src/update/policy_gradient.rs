//! The policy gradient of the score at a vector, estimated from its scored neighbours.

use ndarray::{Array1, ArrayView1, Zip};
use serde::{Deserialize, Serialize};

use super::neighbours::Neighbours;
use crate::error::{Error, Result};

/// The norm that measures the length of a gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// The sum of absolute components.
    L1,
    /// The Euclidean length.
    #[default]
    L2,
    /// The largest absolute component.
    Max,
}

impl Norm {
    fn length(self, vector: &Array1<f64>) -> f64 {
        match self {
            Norm::L1 => vector.iter().map(|value| value.abs()).sum(),
            Norm::L2 => vector.dot(vector).sqrt(),
            Norm::Max => vector.iter().fold(0.0, |largest, value| largest.max(value.abs())),
        }
    }
}

/// Gradient clipping: a longer gradient is shortened to `max_norm`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clip {
    pub max_norm: Option<f64>,
    pub norm: Norm,
}

impl Clip {
    /// Checks the settings.
    ///
    /// # Errors
    /// A `max_norm` of 0, below 0 or NaN.
    pub fn check(&self, section: &str) -> Result<()> {
        match self.max_norm {
            Some(max_norm) if max_norm.is_nan() || max_norm <= 0.0 => {
                Err(Error::Config(format!("{section}.max_norm: expected a number above 0, found {max_norm}")))
            }
            _ => Ok(()),
        }
    }
}

/// The two terms of the gradient at a vector `q`, each of shape `(dim,)`. The n neighbours of `q` have the embeddings `e_i` and
/// the scores `s_i`:
///
/// ```text
/// reward  = mean_i(2 a_i (q - e_i))      a_i = (s_i - mean(s)) / sqrt(var(s) + 1e-8)    var over n, not n - 1
/// penalty = mean_i(2 (q - e_i))
/// ```
pub(super) struct PolicyGradient {
    reward: Array1<f64>,
    penalty: Array1<f64>,
}

impl PolicyGradient {
    /// Estimates the gradient at a vector from its scored neighbours.
    pub fn at(vector: ArrayView1<'_, f64>, neighbours: &Neighbours) -> Self {
        let advantages = standardise(&neighbours.scores);
        let mut reward = Array1::<f64>::zeros(vector.len());
        let mut penalty = Array1::<f64>::zeros(vector.len());
        for (embedding, advantage) in neighbours.embeddings.rows().into_iter().zip(&advantages) {
            let components = Zip::from(&mut reward).and(&mut penalty).and(&vector).and(&embedding);
            components.for_each(|reward, penalty, from, to| {
                *reward += 2.0 * advantage * (from - to);
                *penalty += 2.0 * (from - to);
            });
        }
        let n = advantages.len() as f64;
        PolicyGradient { reward: reward / n, penalty: penalty / n }
    }

    /// The step `lr * reward + weight * penalty`, clipped to the length `lr * max_norm`. `weight` is `lr` times the distance
    /// penalty `p`.
    pub fn step(&self, lr: f64, weight: f64, clip: Clip) -> Array1<f64> {
        let mut step = &self.reward * lr;
        step.scaled_add(weight, &self.penalty);
        if let Some(max_norm) = clip.max_norm {
            // The small number avoids a division by zero, as in emb_opt and PyTorch.
            step *= (lr.abs() * max_norm / (clip.norm.length(&step) + lr.abs() * 1e-6)).min(1.0);
        }
        step
    }
}

/// Standardises scores to mean 0 and (population) variance 1. Zeros if all scores are equal.
fn standardise(scores: &[f64]) -> Vec<f64> {
    let n = scores.len() as f64;
    // Scale scores near the largest f64 down first, because their squares would overflow.
    let largest = scores.iter().fold(0.0f64, |largest, score| largest.max(score.abs()));
    let scale = if largest > 1e100 { largest } else { 1.0 };
    let scaled: Vec<f64> = scores.iter().map(|score| score / scale).collect();
    let mean = scaled.iter().sum::<f64>() / n;
    let variance = scaled.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / n;
    let deviation = (variance + 1e-8).sqrt();
    scaled.iter().map(|score| (score - mean) / deviation).collect()
}
