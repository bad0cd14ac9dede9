//! The best items: queries move to their mean, or on to each of them.

use std::collections::HashMap;

use ndarray::{Array2, Axis};
use polars::prelude::DataFrame;

use super::lineage::Lineage;
use super::{QueryUpdate, Start};
use crate::error::{Error, Result};
use crate::frame::schema::{self, QUERY_IDX, SCORE};
use crate::step::Step;

/// Moves each query to the mean of the best `k` items it met.
///
/// The best are those of the highest score; ties go to the nearer item, then to the lower
/// `db_idx`. With score weighting the weights are the scores. Where one of them is negative, or
/// their sum is zero, the weights are the scores less the lowest among the k (or equal, if all
/// are the same): the mean stays inside the hull of the items. A warning says so once.
///
/// A query that met nothing, or only items without a score, stays.
///
/// Source: emb_opt 0.0.2, `TopKUpdate`; without score weighting it is 1.0.2's `TopKContinuousUpdate`.
#[derive(Debug)]
pub struct TopKUpdate {
    k: usize,
    score_weighting: bool,
    warned: bool,
}

impl TopKUpdate {
    /// `k` items, weighted by score.
    pub fn new(k: usize) -> Self {
        TopKUpdate { k, score_weighting: true, warned: false }
    }

    /// Whether better items weigh more (default), or all the same.
    #[doc(alias = "TopKContinuousUpdate")]
    pub fn score_weighting(mut self, weighting: bool) -> Self {
        self.score_weighting = weighting;
        self
    }

    fn weights(&self, scores: &[f64]) -> Vec<f64> {
        let lowest = scores.iter().copied().fold(f64::INFINITY, f64::min);
        if !self.score_weighting || scores.iter().all(|score| *score == lowest) {
            return vec![1.0; scores.len()];
        }
        if lowest >= 0.0 {
            return scores.to_vec();
        }
        scores.iter().map(|score| score - lowest).collect()
    }

    /// A negative score among different ones of the best that a query met.
    fn negative(&self, step: &Step<'_>) -> Result<Option<f64>> {
        let mut met: HashMap<u32, Vec<f64>> = HashMap::new();
        for (query, score) in
            schema::u32s(step.results, QUERY_IDX)?.into_iter().zip(schema::scores(step.results, SCORE)?)
        {
            met.entry(query).or_default().extend(score);
        }
        let lowest = met.into_values().filter_map(|mut scores| {
            scores.sort_by(|a, b| b.total_cmp(a));
            scores.truncate(self.k);
            scores.last().copied().filter(|lowest| *lowest < 0.0 && scores[0] > *lowest)
        });
        Ok(lowest.min_by(f64::total_cmp))
    }
}

impl QueryUpdate for TopKUpdate {
    fn check(&self) -> Result<()> {
        refuse_none(self.k)
    }

    fn begin(&mut self, _start: &Start<'_>) -> Result<()> {
        self.warned = false;
        Ok(())
    }

    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        if !self.score_weighting || self.warned {
            return Ok(());
        }
        if let Some(lowest) = self.negative(step)? {
            if !step.replayed {
                log::warn!(
                    "top-k: some scores are negative (such as {lowest}); their lowest is subtracted to weigh by them"
                );
            }
            self.warned = true;
        }
        Ok(())
    }

    fn observes_embeddings(&self) -> bool {
        false
    }

    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        self.check()?;
        // Queries move, none is new: there is nothing to note between iterations.
        Lineage::default().descend(step, |_, met| {
            let best = met.best(self.k);
            let scores: Vec<f64> = best.iter().map(|row| met.scores[*row]).collect();
            let weights = self.weights(&scores);
            let total: f64 = weights.iter().sum();
            let mut mean = Array2::zeros((1, met.embeddings.ncols()));
            for (row, weight) in best.iter().zip(&weights) {
                mean.row_mut(0).scaled_add(weight / total, &met.embeddings.row(*row));
            }
            mean
        })
    }
}

/// Moves on to the items themselves: each of the best `k` that a query met is a query of its own.
///
/// The best are those of the highest score, best first; ties go to the nearer item, then to the lower
/// `db_idx`. Two queries that met the same item both go on from it, as in the original; prune
/// ([`Pruned`](super::Pruned)) what branches, or the queries multiply by `k` an iteration.
///
/// A query that met nothing, or only items without a score, stays.
///
/// Source: emb_opt 1.0.2, `TopKDiscreteUpdate`.
#[derive(Clone, Debug)]
pub struct TopKDiscreteUpdate {
    k: usize,
    lineage: Lineage,
}

impl TopKDiscreteUpdate {
    /// `k` items a query.
    pub fn new(k: usize) -> Self {
        TopKDiscreteUpdate { k, lineage: Lineage::default() }
    }
}

impl QueryUpdate for TopKDiscreteUpdate {
    fn check(&self) -> Result<()> {
        refuse_none(self.k)
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
        self.lineage.descend(step, |_, met| met.embeddings.select(Axis(0), &met.best(self.k)))
    }
}

fn refuse_none(k: usize) -> Result<()> {
    match k {
        0 => Err(Error::Config("update.k: expected at least 1, found 0".into())),
        _ => Ok(()),
    }
}
