//! Policy gradient: queries move towards what scored better than the rest.

use ndarray::Array1;
use polars::prelude::DataFrame;

use super::met::move_queries;
use super::{QueryUpdate, Step};
use crate::error::Result;

/// Moves each query up the score by policy gradient: items are actions, their whitened
/// scores the advantages, and the squared distance to the query the (negative) log-probability.
///
/// With the scores `s_i` and embeddings `e_i` of the n items that query `q` met:
///
/// ```text
/// a_i  = (s_i - mean(s)) / sqrt(var(s) + 1e-8)               var over n, not n - 1
/// g    = mean_i(a_i * 2 (q - e_i)) + p * 2 (q - mean(e))     p = penalty / lr, or penalty
/// q'   = q - lr * g
/// ```
///
/// A query that met nothing, or only failed items, stays. One item, or equal scores, have no
/// advantage: only the distance penalty moves the query. Under every metric the gradient is
/// that of the squared distance.
///
/// Source: emb_opt 0.0.2, `RLUpdate`.
#[derive(Clone, Debug)]
pub struct RlUpdate {
    lr: f64,
    distance_penalty: f64,
    scale_distance_penalty: bool,
}

impl RlUpdate {
    /// `lr` is the step length.
    pub fn new(lr: f64) -> Self {
        RlUpdate { lr, distance_penalty: 0.0, scale_distance_penalty: true }
    }

    /// How strongly a query is pulled to the mean of what it met (default 0).
    pub fn distance_penalty(mut self, penalty: f64) -> Self {
        self.distance_penalty = penalty;
        self
    }

    /// Whether the pull per step is the same for every `lr` (default), or grows with it.
    pub fn scale_distance_penalty(mut self, scale: bool) -> Self {
        self.scale_distance_penalty = scale;
        self
    }
}

impl QueryUpdate for RlUpdate {
    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        let pull = if self.scale_distance_penalty { self.distance_penalty } else { self.distance_penalty * self.lr };
        move_queries(step, |query, met| {
            let advantages = whiten(&met.scores);
            let mut moved = query.to_owned();
            // q - e_i, and from it both terms of the gradient.
            let mut gradient = Array1::zeros(query.len());
            let mut away = Array1::zeros(query.len());
            for (embedding, advantage) in met.embeddings.rows().into_iter().zip(&advantages) {
                let difference = &query - &embedding;
                gradient.scaled_add(2.0 * advantage, &difference);
                away += &difference;
            }
            let n = advantages.len() as f64;
            moved.scaled_add(-self.lr / n, &gradient);
            moved.scaled_add(-2.0 * pull / n, &away);
            moved
        })
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
