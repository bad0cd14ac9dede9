//! Target leakage: detects columns that nearly determine the score, because they may be computed from it.

use ndarray::{ArrayView1, ArrayView2};

use super::ranks::ranks;
use super::vectorizer::Vectorizer;

/// The minimum number of scored items. A column can rank fewer items almost like the score by chance.
const MIN_SCORED: usize = 20;
/// A column leaks the score if the absolute rank correlation of both is at least this.
const MIN_CORRELATION: f64 = 0.995;

/// Warns about columns that leak the score, once per column and run.
#[derive(Clone, Debug, Default)]
pub(super) struct LeakageCheck {
    /// The columns for which there was a warning.
    warned_columns: Vec<String>,
}

impl LeakageCheck {
    /// Checks the columns of vectors `(items, width)` against the scores. Does not warn in a replayed iteration, because the run
    /// warned before.
    pub fn check(&mut self, vectorizer: &Vectorizer, vectors: ArrayView2<'_, f32>, scores: &[f64], is_replay: bool) {
        for (name, group) in vectorizer.names().into_iter().zip(vectorizer.groups()).skip(1) {
            let correlation = leakage(vectors.column(group.start), scores);
            if let Some(correlation) = correlation.filter(|_| !self.warned_columns.contains(&name)) {
                if !is_replay {
                    log::warn!(
                        "the column `{name}` nearly determines the score (rank correlation {correlation:.4} over {} items): \
                         if it is computed from the score, exclude it with update.features",
                        scores.len()
                    );
                }
                self.warned_columns.push(name);
            }
        }
    }
}

/// The rank correlation (Spearman's) of a column with the scores, if the column leaks the score. Items without a score are
/// ignored.
fn leakage(values: ArrayView1<'_, f32>, scores: &[f64]) -> Option<f64> {
    let scored = values.iter().zip(scores).filter(|(_, score)| score.is_finite());
    let (values, scores): (Vec<f64>, Vec<f64>) = scored.map(|(value, score)| (f64::from(*value), *score)).unzip();
    if scores.len() < MIN_SCORED {
        return None;
    }
    let (a, b) = (ranks(&values), ranks(&scores));
    let mean = (scores.len() as f64 - 1.0) / 2.0;
    let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    let correlation = sum(&a, &b) / (sum(&a, &a) * sum(&b, &b)).sqrt();
    Some(correlation).filter(|correlation| correlation.abs() >= MIN_CORRELATION)
}
