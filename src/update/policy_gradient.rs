//! The slope of the score at a vector, as scored items around it show.

use ndarray::{Array1, ArrayView1, Zip};
use serde::{Deserialize, Serialize};

use super::neighbours::Met;
use crate::error::{Error, Result};

/// How the length of a gradient is measured.
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
    fn of(self, vector: &Array1<f64>) -> f64 {
        match self {
            Norm::L1 => vector.iter().map(|value| value.abs()).sum(),
            Norm::L2 => vector.dot(vector).sqrt(),
            Norm::Max => vector.iter().fold(0.0, |largest, value| largest.max(value.abs())),
        }
    }
}

/// The longest gradient that is followed; a longer one is shortened to it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clip {
    pub max_norm: Option<f64>,
    pub norm: Norm,
}

impl Clip {
    /// # Errors
    /// A length that is not above 0.
    pub fn check(&self, section: &str) -> Result<()> {
        match self.max_norm {
            Some(max_norm) if max_norm.is_nan() || max_norm <= 0.0 => {
                Err(Error::Config(format!("{section}.max_norm: expected a number above 0, found {max_norm}")))
            }
            _ => Ok(()),
        }
    }
}

/// The two terms of the gradient at a vector `q`, each `(dim,)`, of n items of embeddings `e_i`:
///
/// ```text
/// climb = mean_i(2 a_i (q - e_i))      a_i = (s_i - mean(s)) / sqrt(var(s) + 1e-8)    var over n, not n - 1
/// pull  = mean_i(2 (q - e_i))
/// ```
pub(super) struct Slope {
    climb: Array1<f64>,
    pull: Array1<f64>,
}

impl Slope {
    pub fn at(vector: ArrayView1<'_, f64>, met: &Met) -> Self {
        let advantages = whiten(&met.scores);
        let mut climb = Array1::<f64>::zeros(vector.len());
        let mut pull = Array1::<f64>::zeros(vector.len());
        for (embedding, advantage) in met.embeddings.rows().into_iter().zip(&advantages) {
            let each = Zip::from(&mut climb).and(&mut pull).and(&vector).and(&embedding);
            each.for_each(|climb, pull, from, to| {
                *climb += 2.0 * advantage * (from - to);
                *pull += 2.0 * (from - to);
            });
        }
        let n = advantages.len() as f64;
        Slope { climb: climb / n, pull: pull / n }
    }

    /// `lr * climb + weight * pull`, where `lr` times the clipped gradient is asked for and `weight` is `lr` times
    /// the distance penalty.
    pub fn step(&self, lr: f64, weight: f64, clip: Clip) -> Array1<f64> {
        let mut step = &self.climb * lr;
        step.scaled_add(weight, &self.pull);
        if let Some(max_norm) = clip.max_norm {
            // As the original, and PyTorch: the small number keeps a gradient of length 0 from being divided by it.
            step *= (lr.abs() * max_norm / (clip.norm.of(&step) + lr.abs() * 1e-6)).min(1.0);
        }
        step
    }
}

/// Scores with mean 0 and (population) variance 1; zeros where all are equal.
fn whiten(scores: &[f64]) -> Vec<f64> {
    let n = scores.len() as f64;
    // Scores near the largest f64 are brought down first, or their squares would overflow.
    let largest = scores.iter().fold(0.0f64, |largest, score| largest.max(score.abs()));
    let scale = if largest > 1e100 { largest } else { 1.0 };
    let scaled: Vec<f64> = scores.iter().map(|score| score / scale).collect();
    let mean = scaled.iter().sum::<f64>() / n;
    let variance = scaled.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / n;
    let deviation = (variance + 1e-8).sqrt();
    scaled.iter().map(|score| (score - mean) / deviation).collect()
}
