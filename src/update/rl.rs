//! The policy-gradient rule `RlUpdate`: queries move towards their neighbours with above-average scores.

use ndarray::{Array2, Axis};
use polars::prelude::DataFrame;

use super::lineage::Lineage;
use super::policy_gradient::{Clip, Norm, PolicyGradient};
use super::{SearchContext, UpdateRule};
use crate::error::{Error, Result};
use crate::step::Step;

/// Moves each query towards higher scores by policy gradient: items are actions, their standardised scores are the advantages,
/// and the squared distance to the query is the negative log-probability.
///
/// With the scores `s_i` and embeddings `e_i` of the n scored neighbours of query `q`:
///
/// ```text
/// a_i  = (s_i - mean(s)) / sqrt(var(s) + 1e-8)               var over n, not n - 1
/// g    = mean_i(a_i * 2 (q - e_i)) + p * 2 (q - mean(e))     p = penalty / lr, or penalty
/// q'   = q - lr * g                                          g clipped to max_norm, if set
/// ```
///
/// With several learning rates, a query branches: one child for each rate, in their order. Combine these with a
/// [`PruneUpdate`](super::PruneUpdate), because the number of queries grows with each iteration otherwise.
///
/// A query without scored neighbours stays. If there is one neighbour, or all scores are equal, the advantages are 0 and
/// only the distance penalty moves the query. The gradient is always that of the squared L2 distance, whatever the metric.
///
/// Source: `RLUpdate` of emb_opt 0.0.2, with several rates and clipping from 1.0.2. The distance penalty of 1.0.2 corresponds to
/// `scale_distance_penalty(false)`.
#[derive(Clone, Debug)]
pub struct RlUpdate {
    learning_rates: Vec<f64>,
    distance_penalty: f64,
    scale_distance_penalty: bool,
    clip: Clip,
    lineage: Lineage,
}

impl RlUpdate {
    /// Moves each query with the learning rate `lr` (the step length).
    pub fn new(lr: f64) -> Self {
        Self::branching([lr])
    }

    /// Branches each query into several, one for each learning rate.
    pub fn branching(learning_rates: impl Into<Vec<f64>>) -> Self {
        RlUpdate {
            learning_rates: learning_rates.into(),
            distance_penalty: 0.0,
            scale_distance_penalty: true,
            clip: Clip::default(),
            lineage: Lineage::default(),
        }
    }

    /// The weight of the pull to the mean of the neighbours (default 0).
    pub fn distance_penalty(mut self, penalty: f64) -> Self {
        self.distance_penalty = penalty;
        self
    }

    /// Whether the pull per step is the same for every `lr` (default), or grows with `lr`.
    pub fn scale_distance_penalty(mut self, scale: bool) -> Self {
        self.scale_distance_penalty = scale;
        self
    }

    /// Clips longer gradients to this length, before they are multiplied by `lr` (default: no clipping).
    pub fn max_norm(mut self, max_norm: f64) -> Self {
        self.clip.max_norm = Some(max_norm);
        self
    }

    /// The norm of the gradient that `max_norm` limits (default: [`Norm::L2`]).
    pub fn norm(mut self, norm: Norm) -> Self {
        self.clip.norm = norm;
        self
    }
}

impl UpdateRule for RlUpdate {
    fn check(&self) -> Result<()> {
        if self.learning_rates.is_empty() {
            return Err(Error::Config("update.lr: expected at least one learning rate, found none".into()));
        }
        self.clip.check("update")
    }

    fn begin(&mut self, _context: &SearchContext<'_>) -> Result<()> {
        self.lineage = Lineage::default();
        Ok(())
    }

    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        self.lineage.observe(step)
    }

    fn observes_embeddings(&self) -> bool {
        false
    }

    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        self.check()?;
        self.lineage.next_queries(step, |query, neighbours| {
            let gradient = PolicyGradient::at(query, neighbours);
            let mut children = Array2::zeros((self.learning_rates.len(), query.len()));
            for (mut child, lr) in children.axis_iter_mut(Axis(0)).zip(&self.learning_rates) {
                let scale = if self.scale_distance_penalty { 1.0 } else { *lr };
                child.assign(&(&query - &gradient.step(*lr, self.distance_penalty * scale, self.clip)));
            }
            children
        })
    }
}
