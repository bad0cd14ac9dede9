//! Stop conditions: when a search ends before its last iteration.

use super::progress::Progress;
use crate::error::{Error, Result};
use crate::forecast::Forecast;
use crate::ledger::Ledger;
use crate::log::StopReason;

/// When a search ends before its last iteration: at the first condition that holds. `None` means no limit.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct StopConditions {
    /// The evaluation budget: items paid for, each counted once. Never exceeded: the last iteration is cut.
    pub evaluations: Option<u64>,
    /// The number of iterations in a row without a new item.
    pub nothing_new: Option<u32>,
    /// Wall time of this process, checked between iterations.
    pub seconds: Option<f64>,
    /// The target score, in the scorer's own direction, checked between iterations.
    pub score: Option<f64>,
    /// How many best scores a forecast counts: an entry is a score better than the last of them. `None`: 100.
    pub top: Option<usize>,
    /// The largest number of scores that an entry into the best `top` may be expected to cost: see
    /// [`Forecast::scores_per_entry`](crate::Forecast::scores_per_entry). Checked before each batch is submitted, over at
    /// least so many scores. Only rules with a model forecast.
    pub scores_per_entry: Option<f64>,
    /// The largest share of evaluated items that may fail, from 0 to 1. A larger share ends the run with an error. Checked
    /// after 100 evaluations, and when the run ends.
    pub failed_share: Option<f64>,
}

impl StopConditions {
    /// How many best scores a forecast counts, unless `top` is set.
    pub(crate) const DEFAULT_TOP: usize = 100;

    /// No conditions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the evaluation budget.
    pub fn evaluations(mut self, evaluations: u64) -> Self {
        self.evaluations = Some(evaluations);
        self
    }

    /// Sets the number of iterations in a row without a new item.
    pub fn nothing_new(mut self, nothing_new: u32) -> Self {
        self.nothing_new = Some(nothing_new);
        self
    }

    /// Sets the wall time.
    pub fn seconds(mut self, seconds: f64) -> Self {
        self.seconds = Some(seconds);
        self
    }

    /// Sets the target score, in the scorer's own direction.
    pub fn score(mut self, score: f64) -> Self {
        self.score = Some(score);
        self
    }

    /// Sets how many best scores a forecast counts.
    pub fn top(mut self, top: usize) -> Self {
        self.top = Some(top);
        self
    }

    /// Sets the largest number of scores that an entry may be expected to cost.
    pub fn scores_per_entry(mut self, scores: f64) -> Self {
        self.scores_per_entry = Some(scores);
        self
    }

    /// Sets the largest share of evaluated items that may fail.
    pub fn failed_share(mut self, failed_share: f64) -> Self {
        self.failed_share = Some(failed_share);
        self
    }

    /// The first condition that holds before the next iteration.
    pub(super) fn reason(&self, progress: &Progress, ledger: &Ledger) -> Option<StopReason> {
        let target = self.score.map(|target| if ledger.minimize { -target } else { target });
        let reasons = [
            // First: this reason tells that the last iteration may have been cut.
            (self.evaluations.is_some_and(|budget| ledger.evaluations() >= budget), StopReason::Evaluations),
            (progress.iteration >= progress.iterations, StopReason::Iterations),
            (self.nothing_new.is_some_and(|limit| progress.stale_iterations >= limit), progress.stale_reason()),
            (self.seconds.is_some_and(|limit| progress.elapsed_seconds() >= limit), StopReason::Seconds),
            (target.is_some_and(|target| progress.best.is_some_and(|best| best >= target)), StopReason::Score),
        ];
        reasons.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason)
    }

    /// The forecast by which the next entry costs too many scores.
    pub(super) fn too_expensive(&self, progress: &Progress) -> Option<Forecast> {
        let (limit, next) = (self.scores_per_entry?, progress.forecast?);
        let forecast = progress.forecaster.over_at_least(limit, next)?;
        (forecast.scores_per_entry() > limit).then_some(forecast)
    }

    /// Whether the budget is larger than the one that a run spent. The last iteration of that run may have been cut.
    pub(super) fn exceeds(&self, spent: Option<u64>) -> bool {
        spent.is_some_and(|spent| self.evaluations.is_none_or(|budget| budget > spent))
    }

    /// Fails if too many evaluations failed: the scorer is probably broken, and more evaluations would be wasted. Needs
    /// enough evaluations to judge, unless the run `has_ended`.
    pub(super) fn check_failures(&self, ledger: &Ledger, has_ended: bool) -> Result<()> {
        const ENOUGH: u64 = 100;
        let (mut evaluations, failed, Some(limit)) = (ledger.evaluations(), ledger.failed(), self.failed_share) else {
            return Ok(());
        };
        // If most scores were reused, the rest may be the items that failed in the earlier run, too.
        if has_ended {
            evaluations += ledger.reused();
        }
        if (evaluations < ENOUGH && !has_ended) || failed as f64 <= limit * evaluations as f64 {
            return Ok(());
        }
        let reason = format!(
            "{failed} of {evaluations} items failed, more than the {} % allowed (for example: {}); fix the scorer and continue \
             with --resume --retry-failed, or raise stop.failed_share",
            limit * 100.0,
            ledger.failure_reason().unwrap_or("no reason given".into())
        );
        Err(Error::Score { iteration: None, reason })
    }
}
