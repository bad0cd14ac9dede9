//! Where the score falls at each next query, for a database that asks along it.

use ndarray::Array2;
use polars::prelude::DataFrame;

use super::neighbours::Meetings;
use super::policy_gradient::{Clip, Norm, Slope};
use super::{QueryUpdate, Start};
use crate::database::with_gradients;
use crate::error::Result;
use crate::frame::convert;
use crate::frame::schema::{self, EMBEDDING, PARENT_IDX};
use crate::step::Step;

/// A rule whose queries carry the gradient of the score, for a [`GradientQuery`](crate::GradientQuery) by
/// [`GradientColumn`](crate::GradientColumn).
///
/// The gradient at a next query `q'` is that of [`RlUpdate`](super::RlUpdate), of what its parent met:
///
/// ```text
/// g = mean_i(2 (a_i + penalty) (q' - e_i))     shortened to max_norm, if there is one
/// ```
///
/// `q' - scale * g` goes up the score. The gradient is zero where the parent met nothing.
///
/// Source: emb_opt 1.0.2, `UpdatePluginGradientWrapper`, which keeps `-g`.
pub struct ScoreGradient {
    rule: Box<dyn QueryUpdate>,
    distance_penalty: f64,
    clip: Clip,
}

impl ScoreGradient {
    /// Of the queries that a rule gives.
    pub fn new(rule: impl QueryUpdate + 'static) -> Self {
        ScoreGradient { rule: Box::new(rule), distance_penalty: 0.0, clip: Clip::default() }
    }

    /// How strongly the mean of what the parent met pulls (default 0).
    pub fn distance_penalty(mut self, penalty: f64) -> Self {
        self.distance_penalty = penalty;
        self
    }

    /// The longest gradient (default: any).
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

impl QueryUpdate for ScoreGradient {
    fn inner(&self) -> Option<&dyn QueryUpdate> {
        Some(&*self.rule)
    }

    fn check(&self) -> Result<()> {
        self.clip.check("gradient")?;
        self.rule.check()
    }

    fn begin(&mut self, start: &Start<'_>) -> Result<()> {
        self.rule.begin(start)
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
        let meetings = Meetings::of(step)?;
        let vectors = convert::matrix::<f64>(&next, EMBEDDING)?;
        let mut gradients = Array2::zeros(vectors.view().dim());
        for (row, parent) in schema::nullable_u32s(&next, PARENT_IDX)?.into_iter().enumerate() {
            if let Some(met) = parent.and_then(|parent| meetings.by(parent)) {
                let slope = Slope::at(vectors.view().row(row), &met);
                gradients.row_mut(row).assign(&slope.step(1.0, self.distance_penalty, self.clip));
            }
        }
        with_gradients(&next, gradients.view())
    }
}
