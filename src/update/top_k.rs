//! The top-k rules: queries move to the mean of their best neighbours, or branch to each of them.

use std::collections::HashMap;

use ndarray::{Array2, Axis};
use polars::prelude::DataFrame;

use super::lineage::Lineage;
use super::{SearchContext, UpdateRule};
use crate::error::{Error, Result};
use crate::frame::schema::{self, QUERY_IDX, SCORE};
use crate::step::Step;

/// Moves each query to the mean of its best `k` neighbours.
///
/// The best neighbours have the highest scores. Ties go to the nearer item, then to the lower `db_idx`. With score weighting,
/// the weights are the scores. If one of the k scores is negative, the lowest of them is subtracted from all weights, so that
/// the mean stays inside the convex hull of the items, and a warning is logged once. If all k scores are equal, the weights
/// are equal.
///
/// A query without scored neighbours stays.
///
/// Source: `TopKUpdate` of emb_opt 0.0.2. Without score weighting: `TopKContinuousUpdate` of 1.0.2.
#[derive(Debug)]
pub struct TopKUpdate {
    k: usize,
    score_weighting: bool,
    has_warned: bool,
}

impl TopKUpdate {
    /// Moves each query to the mean of `k` items, weighted by score.
    pub fn new(k: usize) -> Self {
        TopKUpdate { k, score_weighting: true, has_warned: false }
    }

    /// Whether items with higher scores weigh more (default), or all weigh the same.
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

    /// The lowest score, if it is negative, among the best neighbours of a query whose scores differ.
    fn negative_score(&self, step: &Step<'_>) -> Result<Option<f64>> {
        let mut scores_of_query: HashMap<u32, Vec<f64>> = HashMap::new();
        for (query, score) in
            schema::u32s(step.results, QUERY_IDX)?.into_iter().zip(schema::nullable_f64s(step.results, SCORE)?)
        {
            scores_of_query.entry(query).or_default().extend(score);
        }
        let lowest = scores_of_query.into_values().filter_map(|mut scores| {
            scores.sort_by(|a, b| b.total_cmp(a));
            scores.truncate(self.k);
            scores.last().copied().filter(|lowest| *lowest < 0.0 && scores[0] > *lowest)
        });
        Ok(lowest.min_by(f64::total_cmp))
    }
}

impl UpdateRule for TopKUpdate {
    fn check(&self) -> Result<()> {
        check_k(self.k)
    }

    fn begin(&mut self, _context: &SearchContext<'_>) -> Result<()> {
        self.has_warned = false;
        Ok(())
    }

    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        if !self.score_weighting || self.has_warned {
            return Ok(());
        }
        if let Some(lowest) = self.negative_score(step)? {
            if !step.is_replay {
                log::warn!(
                    "top-k: some scores are negative (such as {lowest}); the lowest score is subtracted to make weights of them"
                );
            }
            self.has_warned = true;
        }
        Ok(())
    }

    fn observes_embeddings(&self) -> bool {
        false
    }

    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        self.check()?;
        // Queries move but do not branch, so no lineage is kept between iterations.
        Lineage::default().next_queries(step, |_, neighbours| {
            let best = neighbours.best(self.k);
            let scores: Vec<f64> = best.iter().map(|row| neighbours.scores[*row]).collect();
            let weights = self.weights(&scores);
            let total: f64 = weights.iter().sum();
            let mut mean = Array2::zeros((1, neighbours.embeddings.ncols()));
            for (row, weight) in best.iter().zip(&weights) {
                mean.row_mut(0).scaled_add(weight / total, &neighbours.embeddings.row(*row));
            }
            mean
        })
    }
}

/// Branches each query to its best `k` neighbours: each of these becomes a query.
///
/// The best neighbours have the highest scores, best first. Ties go to the nearer item, then to the lower
/// `db_idx`. Two queries with the same neighbour may both branch to it, as in emb_opt. Combine the rule with a
/// [`PruneUpdate`](super::PruneUpdate), because the number of queries is multiplied by `k` in each iteration otherwise.
///
/// A query without scored neighbours stays.
///
/// Source: `TopKDiscreteUpdate` of emb_opt 1.0.2.
#[derive(Clone, Debug)]
pub struct TopKDiscreteUpdate {
    k: usize,
    lineage: Lineage,
}

impl TopKDiscreteUpdate {
    /// Branches each query to `k` items.
    pub fn new(k: usize) -> Self {
        TopKDiscreteUpdate { k, lineage: Lineage::default() }
    }
}

impl UpdateRule for TopKDiscreteUpdate {
    fn check(&self) -> Result<()> {
        check_k(self.k)
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
        self.lineage.next_queries(step, |_, neighbours| neighbours.embeddings.select(Axis(0), &neighbours.best(self.k)))
    }
}

fn check_k(k: usize) -> Result<()> {
    match k {
        0 => Err(Error::Config("update.k: expected at least 1, found 0".into())),
        _ => Ok(()),
    }
}
