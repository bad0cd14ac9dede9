//! The conditions that end a search before its last iteration.

use super::progress::Progress;
use crate::error::{Error, Result};
use crate::forecast::Forecast;
use crate::ledger::Ledger;
use crate::log::StopReason;

/// The conditions that end a search before its last iteration. The first one that holds ends it. `None` means no limit.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct StopConditions {
    /// The evaluation budget. Each item counts once. The last iteration omits the items that exceed the budget.
    pub evaluations: Option<u64>,
    /// The number of iterations in a row without a new item.
    pub nothing_new: Option<u32>,
    /// The wall time of this process in seconds, checked between iterations.
    pub seconds: Option<f64>,
    /// The target score, in the scorer's own direction, checked between iterations.
    pub score: Option<f64>,
    /// The threshold of a hit, in the scorer's own direction: a score of at least this, or of at most this if smaller scores
    /// are better. The run counts its [`Hits`](crate::Hits).
    pub hit: Option<f64>,
    /// The number of scores in a row without a hit, in the order of the evaluations, checked between iterations. Reused scores
    /// and items without a score do not count. Requires `hit`.
    pub no_hit: Option<u64>,
    /// The number k of best scores in forecasts: an entry is a new score that is better than the k-th best. `None`: 100.
    pub top: Option<usize>,
    /// The limit on the expected number of scores per entry into the best `top`
    /// ([`Forecast::scores_per_entry`](crate::Forecast::scores_per_entry)). Before each batch is submitted, the forecasts of
    /// this batch and the latest ones are added, until they cover at least this number of scores and at least `top`. The search
    /// ends if their scores per entry exceed the limit. Only rules with a model make forecasts.
    pub scores_per_entry: Option<f64>,
    /// The largest share of evaluated items that may fail, from 0 to 1. A larger share ends the run with an error. Checked
    /// after 100 evaluations, and when the run ends.
    pub failed_share: Option<f64>,
}

impl StopConditions {
    /// The default of `top`.
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

    /// Sets the threshold of a hit, in the scorer's own direction.
    pub fn hit(mut self, threshold: f64) -> Self {
        self.hit = Some(threshold);
        self
    }

    /// Sets the number of scores in a row without a hit.
    pub fn no_hit(mut self, scores: u64) -> Self {
        self.no_hit = Some(scores);
        self
    }

    /// Sets the number of best scores in forecasts.
    pub fn top(mut self, top: usize) -> Self {
        self.top = Some(top);
        self
    }

    /// Sets the limit on the expected number of scores per entry.
    pub fn scores_per_entry(mut self, scores: f64) -> Self {
        self.scores_per_entry = Some(scores);
        self
    }

    /// Sets the largest share of evaluated items that may fail.
    pub fn failed_share(mut self, failed_share: f64) -> Self {
        self.failed_share = Some(failed_share);
        self
    }

    /// Checks the conditions on hits.
    ///
    /// # Errors
    /// `hit` is not finite; `no_hit` is 0, or set without `hit`.
    pub(super) fn check_hits(&self) -> Result<()> {
        let reason = match (self.hit, self.no_hit) {
            (Some(hit), _) if !hit.is_finite() => format!("stop.hit: expected a finite number, found {hit}"),
            (_, Some(0)) => "stop.no_hit: expected at least 1, found 0".into(),
            (None, Some(scores)) => format!(
                "stop.no_hit = {scores} needs the threshold of a hit; set stop.hit to the score from which on an item is a hit"
            ),
            _ => return Ok(()),
        };
        Err(Error::Config(reason))
    }

    /// The first condition that holds before the next iteration.
    pub(super) fn reason(&self, progress: &Progress, ledger: &Ledger) -> Option<StopReason> {
        let target = self.score.map(|target| if ledger.minimize { -target } else { target });
        let reasons = [
            // First, because this reason also means that the last iteration may lack items that exceeded the budget.
            (self.evaluations.is_some_and(|budget| ledger.evaluations() >= budget), StopReason::Evaluations),
            (progress.iteration >= progress.iterations, StopReason::Iterations),
            (self.nothing_new.is_some_and(|limit| progress.stale_iterations >= limit), progress.stale_reason()),
            (self.seconds.is_some_and(|limit| progress.elapsed_seconds() >= limit), StopReason::Seconds),
            (target.is_some_and(|target| progress.best.is_some_and(|best| best >= target)), StopReason::Score),
            (self.no_hit.is_some_and(|limit| progress.scores_since_hit() >= Some(limit)), StopReason::NoHit),
        ];
        reasons.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason)
    }

    /// The forecast whose expected number of scores per entry exceeds the limit.
    pub(super) fn forecast_over_limit(&self, progress: &Progress) -> Option<Forecast> {
        progress.forecaster.forecast_over_limit(self.scores_per_entry?, progress.forecast.as_ref()?)
    }

    /// Whether the budget exceeds the `spent` budget of a run, whose last iteration may lack items that exceeded it.
    pub(super) fn exceeds(&self, spent: Option<u64>) -> bool {
        spent.is_some_and(|spent| self.evaluations.is_none_or(|budget| budget > spent))
    }

    /// Fails if too large a share of the evaluations failed: the scorer is probably broken, and further evaluations would be
    /// wasted. Until the run `has_ended`, checks only runs with at least 100 evaluations.
    pub(super) fn check_failures(&self, ledger: &Ledger, has_ended: bool) -> Result<()> {
        const MIN_EVALUATIONS: u64 = 100;
        let (mut evaluations, failed, Some(limit)) = (ledger.evaluations(), ledger.failed(), self.failed_share) else {
            return Ok(());
        };
        // If most scores are reused, the evaluated items may be mainly those that failed in the earlier run, too.
        if has_ended {
            evaluations += ledger.reused();
        }
        if (evaluations < MIN_EVALUATIONS && !has_ended) || failed as f64 <= limit * evaluations as f64 {
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
