//! When a search ends by itself, and the numbers that decide it.

use std::time::Instant;

use polars::prelude::DataFrame;

use crate::error::{Error, Result};
use crate::frame::outcome::Outcome;
use crate::frame::schema::{self, OUTCOME, SCORE};
use crate::ledger::Ledger;
use crate::log::{StopReason, Times};

/// When a search ends by itself. What is `None` does not count.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Stop {
    /// Items paid for, each counted once. Never exceeded: the last iteration is cut.
    pub evaluations: Option<u64>,
    /// So many iterations in a row in which no new item was booked.
    pub nothing_new: Option<u32>,
    /// Wall time of this process, looked at between iterations.
    pub seconds: Option<f64>,
    /// A score that is good enough, in the scorer's own terms, looked at between iterations.
    pub score: Option<f64>,
    /// The share of items that may fail, once a hundred were asked and when the run ends; beyond it the run stops with an error.
    pub failed_share: Option<f64>,
}

impl Stop {
    /// By nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// After so many items paid for.
    pub fn evaluations(mut self, evaluations: u64) -> Self {
        self.evaluations = Some(evaluations);
        self
    }

    /// After so many iterations in a row in which no new item was booked.
    pub fn nothing_new(mut self, nothing_new: u32) -> Self {
        self.nothing_new = Some(nothing_new);
        self
    }

    /// After so much wall time.
    pub fn seconds(mut self, seconds: f64) -> Self {
        self.seconds = Some(seconds);
        self
    }

    /// At a score that is good enough, in the scorer's own terms.
    pub fn score(mut self, score: f64) -> Self {
        self.score = Some(score);
        self
    }

    /// With an error, beyond that share of items that failed.
    pub fn failed_share(mut self, failed_share: f64) -> Self {
        self.failed_share = Some(failed_share);
        self
    }

    /// The first reason to stop before the next iteration, if there is one.
    pub(super) fn reason(&self, progress: &Progress, ledger: &Ledger) -> Option<StopReason> {
        let target = self.score.map(|target| if ledger.minimize { -target } else { target });
        let reasons = [
            // First: it says that the last iteration may have been cut.
            (self.evaluations.is_some_and(|budget| ledger.evaluations() >= budget), StopReason::Evaluations),
            (progress.iteration >= progress.iterations, StopReason::Iterations),
            (self.nothing_new.is_some_and(|limit| progress.quiet >= limit), progress.why_quiet()),
            (self.seconds.is_some_and(|limit| progress.started.elapsed().as_secs_f64() >= limit), StopReason::Seconds),
            (target.is_some_and(|target| progress.best.is_some_and(|best| best >= target)), StopReason::Score),
        ];
        reasons.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason)
    }

    /// Whether a run whose budget was spent goes on with a larger one: its last iteration may have been cut.
    pub(super) fn goes_beyond(&self, budget: Option<u64>) -> bool {
        budget.is_some_and(|spent| self.evaluations.is_none_or(|budget| budget > spent))
    }

    /// Ends a run whose scorer is broken, before more is paid: once enough items were asked, or all that will be.
    pub(super) fn refuse_many_failures(&self, ledger: &Ledger, at_the_end: bool) -> Result<()> {
        const ENOUGH: u64 = 100;
        let (mut asked, failed, Some(limit)) = (ledger.evaluations(), ledger.failed(), self.failed_share) else {
            return Ok(());
        };
        // Where most was known before, what is left to ask may be what failed then, too.
        if at_the_end {
            asked += ledger.reused();
        }
        if (asked < ENOUGH && !at_the_end) || failed as f64 <= limit * asked as f64 {
            return Ok(());
        }
        let reason = format!(
            "{failed} of {asked} items failed, more than the {} % allowed (for example: {}); mend the scorer, then --resume --retry-failed, or allow more: stop.failed_share",
            limit * 100.0,
            ledger.failure_reason().unwrap_or("no reason given".into())
        );
        Err(Error::Score { iteration: None, reason })
    }
}

/// How far a search is.
pub(super) struct Progress {
    /// The next iteration to choose.
    pub(super) iteration: u32,
    /// As many as asked, in all.
    pub(super) iterations: u32,
    started: Instant,
    /// Iterations in a row without a new item.
    quiet: u32,
    /// Whether the filter left nothing of what the last one met.
    barren: bool,
    /// Whether this process has seen an iteration through.
    pub(super) is_new: bool,
    /// Rows that the queries met in all, and those of them that passed the filter.
    pub(super) met: usize,
    pub(super) passed: usize,
    /// The best score so far.
    pub(super) best: Option<f64>,
}

impl Progress {
    /// At the beginning of a search.
    pub(super) fn new(iterations: u32) -> Self {
        Progress {
            iteration: 0,
            iterations,
            started: Instant::now(),
            quiet: 0,
            barren: false,
            is_new: false,
            met: 0,
            passed: 0,
            best: None,
        }
    }

    fn why_quiet(&self) -> StopReason {
        if self.barren { StopReason::NothingPasses } else { StopReason::NothingNew }
    }

    /// After an iteration whose scores are known.
    pub(super) fn add(&mut self, summary: &Summary) {
        self.quiet = if summary.new == 0 { self.quiet + 1 } else { 0 };
        self.barren = summary.met > 0 && summary.passed == 0;
        self.met += summary.met;
        self.passed += summary.passed;
        self.best = better(self.best, summary.best);
    }

    /// Why nothing came to be scored, where that is so; else the reason that ended the search. `before` is the reason that
    /// ended it in an earlier process: the log does not have what was met and did not pass.
    pub(super) fn why_nothing(&self, reason: StopReason, before: Option<StopReason>) -> StopReason {
        let nothing = match before {
            _ if self.is_new && self.met == 0 => StopReason::NothingMet,
            _ if self.is_new => StopReason::NothingPasses,
            Some(before @ (StopReason::NothingMet | StopReason::NothingPasses)) => before,
            _ => reason,
        };
        if self.passed > 0 || reason == StopReason::Interrupted { reason } else { nothing }
    }
}

fn better(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    [a, b].into_iter().flatten().max_by(f64::total_cmp)
}

/// One iteration in numbers.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// Counts from 0.
    pub iteration: u32,
    /// Rows of the scored frame.
    pub rows: usize,
    /// Items booked for the first time.
    pub new: u64,
    /// Rows that the queries met, before the filter.
    pub met: usize,
    /// Rows that passed the filter.
    pub passed: usize,
    /// Rows whose item was rejected.
    pub rejected: usize,
    /// Rows whose item failed.
    pub failed: usize,
    /// Items paid for so far.
    pub evaluations: u64,
    /// The best score of the iteration.
    pub best: Option<f64>,
    /// The best score of the run so far, that of iterations before it was resumed included; known to observers.
    pub best_so_far: Option<f64>,
    /// The mean score of the iteration's rows.
    pub mean: Option<f64>,
    /// How long its stages took.
    pub times: Times,
}

impl Summary {
    /// The same, with what a scored frame says, of which so many items are new.
    pub(super) fn of(self, scored: &DataFrame, new: u64) -> Result<Self> {
        let scores = schema::nullable_f64s(scored, SCORE)?;
        let known: Vec<f64> = scores.iter().copied().flatten().collect();
        let rejected = match scored.column(OUTCOME).and_then(|outcomes| outcomes.str()) {
            Ok(outcomes) => outcomes.iter().filter(|outcome| *outcome == Some(Outcome::Rejected.name())).count(),
            Err(_) => 0,
        };
        Ok(Summary {
            rows: scores.len(),
            new,
            rejected,
            failed: scores.len() - known.len() - rejected,
            best: known.iter().copied().max_by(f64::total_cmp),
            best_so_far: None,
            mean: (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64),
            ..self
        })
    }
}
