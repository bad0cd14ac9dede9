//! The `[stop]` section: the conditions that end the search.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::runner::StopConditions;

/// The default of `stop.iterations` (without other conditions) and of `stop.nothing_new`.
const DEFAULT_ITERATIONS: u32 = 20;

/// The `[stop]` section: the conditions that end the search. The first one that holds ends it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct StopConfig {
    /// The number of iterations (default: 20, or no limit if another condition is set).
    pub iterations: Option<u32>,
    /// The evaluation budget. Each item counts once. Never exceeded.
    pub evaluations: Option<u64>,
    /// The number of iterations in a row without a new item (default: 20 if `iterations` is not set).
    pub nothing_new: Option<u32>,
    /// Wall time in seconds, checked between iterations.
    pub seconds: Option<f64>,
    /// The target score, in the scorer's own direction.
    pub score: Option<f64>,
    /// The threshold of a hit, in the scorer's own direction: at least this, or at most this if smaller scores are better.
    pub hit: Option<f64>,
    /// The number of scores in a row without a hit. See [`StopConditions`].
    pub no_hit: Option<u64>,
    /// The number k of best scores in forecasts: an entry is a new score that is better than the k-th best (default: 100).
    pub top: Option<usize>,
    /// The limit on the expected number of scores per entry into the best `top`. See [`StopConditions`].
    pub scores_per_entry: Option<f64>,
    /// The largest share of evaluated items that may fail, from 0 to 1. A larger share ends the run with an error. Checked
    /// after 100 evaluations, and when the run ends.
    #[serde(default = "default_failed_share")]
    pub failed_share: f64,
}

impl StopConfig {
    /// The largest number of iterations. Without `iterations`: 20, or no limit if another condition is set.
    pub fn max_iterations(&self) -> u32 {
        let has_other = self.evaluations.is_some()
            || self.nothing_new.is_some()
            || self.seconds.is_some()
            || self.score.is_some()
            || self.no_hit.is_some()
            || self.scores_per_entry.is_some();
        self.iterations.unwrap_or(if has_other { u32::MAX } else { DEFAULT_ITERATIONS })
    }

    /// The stop conditions of this section.
    pub(super) fn conditions(&self) -> Result<StopConditions> {
        let share = self.failed_share;
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::Config(format!("stop.failed_share: expected a share from 0 to 1, found {share}")));
        }
        if let Some(seconds) = self.seconds.filter(|seconds| *seconds < 0.0) {
            return Err(Error::Config(format!("stop.seconds: expected 0 or more, found {seconds}")));
        }
        if self.top == Some(0) {
            return Err(Error::Config("stop.top: expected at least 1, found 0".into()));
        }
        if let Some(scores) = self.scores_per_entry.filter(|scores| scores.is_nan() || *scores < 1.0) {
            return Err(Error::Config(format!("stop.scores_per_entry: expected at least 1, found {scores}")));
        }
        Ok(StopConditions {
            evaluations: self.evaluations,
            nothing_new: self.nothing_new.or(self.iterations.is_none().then_some(DEFAULT_ITERATIONS)),
            seconds: self.seconds,
            score: self.score,
            hit: self.hit,
            no_hit: self.no_hit,
            top: self.top,
            scores_per_entry: self.scores_per_entry,
            failed_share: Some(share),
        })
    }
}

impl Default for StopConfig {
    fn default() -> Self {
        StopConfig {
            iterations: None,
            evaluations: None,
            nothing_new: None,
            seconds: None,
            score: None,
            hit: None,
            no_hit: None,
            top: None,
            scores_per_entry: None,
            failed_share: default_failed_share(),
        }
    }
}

fn default_failed_share() -> f64 {
    0.5
}
