//! The mean of the best: queries move among the items that scored highest.

use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::Array1;
use polars::prelude::DataFrame;

use super::met::move_queries;
use super::{QueryUpdate, Step};
use crate::error::{Error, Result};

/// Moves each query to the mean of the best `k` items it met.
///
/// The best are those of the highest score; ties go to the nearer item, then to the lower
/// `db_idx`. With score weighting the weights are the scores. Where one of them is negative, or
/// their sum is zero, the weights are the scores less the lowest among the k (or equal, if all
/// are the same): the mean stays inside the hull of the items. A warning says so once.
///
/// A query that met nothing, or only failed items, stays.
///
/// Source: emb_opt 0.0.2, `TopKUpdate`.
#[derive(Debug)]
pub struct TopKUpdate {
    k: usize,
    score_weighting: bool,
    warned: AtomicBool,
}

impl TopKUpdate {
    /// `k` items, weighted by score.
    pub fn new(k: usize) -> Self {
        TopKUpdate { k, score_weighting: true, warned: AtomicBool::new(false) }
    }

    /// Whether better items weigh more (default), or all the same.
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
        if !self.warned.swap(true, Ordering::Relaxed) {
            log::warn!(
                "top-k: some scores are negative (such as {lowest}); their lowest is subtracted to weigh by them"
            );
        }
        scores.iter().map(|score| score - lowest).collect()
    }
}

impl QueryUpdate for TopKUpdate {
    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        if self.k == 0 {
            return Err(Error::Config("update.k: expected at least 1, found 0".into()));
        }
        move_queries(step, |_, met| {
            let mut order: Vec<usize> = (0..met.scores.len()).collect();
            order.sort_by(|&a, &b| met.better(a, b));
            order.truncate(self.k);
            let scores: Vec<f64> = order.iter().map(|row| met.scores[*row]).collect();
            let weights = self.weights(&scores);
            let total: f64 = weights.iter().sum();
            let mut mean = Array1::zeros(met.embeddings.ncols());
            for (row, weight) in order.iter().zip(&weights) {
                mean.scaled_add(weight / total, &met.embeddings.row(*row));
            }
            mean
        })
    }
}
