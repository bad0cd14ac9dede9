//! `GradientUpdate`: adds the gradient of the score to the queries, for a database that also searches along the gradient.

use ndarray::Array2;
use polars::prelude::DataFrame;

use super::neighbours::NeighboursByQuery;
use super::policy_gradient::{Clip, Norm, PolicyGradient};
use super::{SearchContext, UpdateRule};
use crate::database::with_gradients;
use crate::error::Result;
use crate::frame::convert;
use crate::frame::schema::{self, EMBEDDING, PARENT_IDX};
use crate::step::Step;

/// A rule that adds the gradient of the score to its queries. A [`GradientDatabase`](crate::GradientDatabase) with
/// [`GradientColumn`](crate::GradientColumn) searches along it.
///
/// The gradient at a next query `q'` is the policy gradient of [`RlUpdate`](super::RlUpdate), estimated from the neighbours
/// `e_i` of its parent, with the advantages `a_i`:
///
/// ```text
/// g = mean_i(2 (a_i + penalty) (q' - e_i))     clipped to max_norm, if set
/// ```
///
/// The score grows towards `q' - scale * g`. The gradient is zero if the parent has no scored neighbours.
///
/// Source: `UpdatePluginGradientWrapper` of emb_opt 1.0.2, which stores `-g`.
pub struct GradientUpdate {
    rule: Box<dyn UpdateRule>,
    distance_penalty: f64,
    clip: Clip,
}

impl GradientUpdate {
    /// Adds gradients to the queries of a rule.
    pub fn new(rule: impl UpdateRule + 'static) -> Self {
        GradientUpdate { rule: Box::new(rule), distance_penalty: 0.0, clip: Clip::default() }
    }

    /// The weight of the pull to the mean of the parent's neighbours (default 0).
    pub fn distance_penalty(mut self, penalty: f64) -> Self {
        self.distance_penalty = penalty;
        self
    }

    /// Clips longer gradients to this length (default: no clipping).
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

impl UpdateRule for GradientUpdate {
    fn inner(&self) -> Option<&dyn UpdateRule> {
        Some(&*self.rule)
    }

    fn check(&self) -> Result<()> {
        self.clip.check("gradient")?;
        self.rule.check()
    }

    fn begin(&mut self, context: &SearchContext<'_>) -> Result<()> {
        self.rule.begin(context)
    }

    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        self.rule.observe(step)
    }

    fn observes_embeddings(&self) -> bool {
        self.rule.observes_embeddings()
    }

    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        self.check()?;
        let next = self.rule.update(step)?;
        let neighbours = NeighboursByQuery::from_step(step)?;
        let vectors = convert::matrix::<f64>(&next, EMBEDDING)?;
        let mut gradients = Array2::zeros(vectors.view().dim());
        for (row, parent) in schema::nullable_u32s(&next, PARENT_IDX)?.into_iter().enumerate() {
            if let Some(neighbours) = parent.and_then(|parent| neighbours.get(parent)) {
                let gradient = PolicyGradient::at(vectors.view().row(row), &neighbours);
                gradients.row_mut(row).assign(&gradient.step(1.0, self.distance_penalty, self.clip));
            }
        }
        with_gradients(&next, gradients.view())
    }
}
