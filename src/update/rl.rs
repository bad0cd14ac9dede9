//! Policy gradient: queries move towards what scored better than the rest.

use ndarray::{Array2, Axis};
use polars::prelude::DataFrame;

use super::lineage::Lineage;
use super::policy_gradient::{Clip, Norm, Slope};
use super::{QueryUpdate, Start};
use crate::error::{Error, Result};
use crate::step::Step;

/// Moves each query up the score by policy gradient: items are actions, their whitened
/// scores the advantages, and the squared distance to the query the (negative) log-probability.
///
/// With the scores `s_i` and embeddings `e_i` of the n items that query `q` met:
///
/// ```text
/// a_i  = (s_i - mean(s)) / sqrt(var(s) + 1e-8)               var over n, not n - 1
/// g    = mean_i(a_i * 2 (q - e_i)) + p * 2 (q - mean(e))     p = penalty / lr, or penalty
/// q'   = q - lr * g                                          g shortened to max_norm, if there is one
/// ```
///
/// With several learning rates a query branches: one child for each, in their order. Prune
/// ([`Pruned`](super::Pruned)) what branches, or the queries multiply.
///
/// A query that met nothing, or only items without a score, stays. One item, or equal scores, have no
/// advantage: only the distance penalty moves the query. Under every metric the gradient is
/// that of the squared distance.
///
/// Source: emb_opt 0.0.2 and, for several rates and clipping, 1.0.2, `RLUpdate`. The latter's distance
/// penalty is the one that is not scaled.
#[derive(Clone, Debug)]
pub struct RlUpdate {
    lrs: Vec<f64>,
    distance_penalty: f64,
    scale_distance_penalty: bool,
    clip: Clip,
    lineage: Lineage,
}

impl RlUpdate {
    /// `lr` is the step length.
    pub fn new(lr: f64) -> Self {
        Self::branching([lr])
    }

    /// Each query goes on as several, one for each step length.
    pub fn branching(lrs: impl Into<Vec<f64>>) -> Self {
        RlUpdate {
            lrs: lrs.into(),
            distance_penalty: 0.0,
            scale_distance_penalty: true,
            clip: Clip::default(),
            lineage: Lineage::default(),
        }
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

    /// The longest gradient that is followed, before it is multiplied with `lr` (default: any).
    pub fn max_norm(mut self, max_norm: f64) -> Self {
        self.clip.max_norm = Some(max_norm);
        self
    }

    /// How the length of a gradient is measured (default: [`Norm::L2`]).
    pub fn norm(mut self, norm: Norm) -> Self {
        self.clip.norm = norm;
        self
    }
}

impl QueryUpdate for RlUpdate {
    fn check(&self) -> Result<()> {
        if self.lrs.is_empty() {
            return Err(Error::Config("update.lr: expected at least one learning rate, found none".into()));
        }
        self.clip.check("update")
    }

    fn begin(&mut self, _start: &Start<'_>) -> Result<()> {
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
        self.lineage.descend(step, |query, met| {
            let slope = Slope::at(query, met);
            let mut children = Array2::zeros((self.lrs.len(), query.len()));
            for (mut child, lr) in children.axis_iter_mut(Axis(0)).zip(&self.lrs) {
                let scale = if self.scale_distance_penalty { 1.0 } else { *lr };
                child.assign(&(&query - &slope.step(*lr, self.distance_penalty * scale, self.clip)));
            }
            children
        })
    }
}
