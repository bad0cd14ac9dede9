//! The progress of a search: counters that decide when it stops.

use std::time::Instant;

use super::{Batch, BatchState, Runner, StopConditions};
use crate::error::Result;
use crate::forecast::{Forecast, Forecaster};
use crate::log::StopReason;

/// The progress of a search.
pub(super) struct Progress {
    /// The next iteration to submit.
    pub(super) iteration: u32,
    /// The number of iterations in all.
    pub(super) iterations: u32,
    start: Instant,
    /// Iterations in a row without a new item.
    pub(super) stale_iterations: u32,
    /// Whether the filter dropped all candidates of the last iteration.
    all_filtered: bool,
    /// Whether this process has completed an iteration.
    pub(super) has_completed: bool,
    /// Candidates in all, and those of them that passed the filter.
    pub(super) candidates: usize,
    pub(super) passed: usize,
    /// The best score so far.
    pub(super) best: Option<f64>,
    /// What the completed iterations say of the next scores.
    pub(super) forecaster: Forecaster,
    /// The forecast for the batch that was selected last.
    pub(super) forecast: Option<Forecast>,
}

impl Runner {
    /// The progress of a search that begins or is resumed.
    pub(super) fn progress(&self, iterations: u32) -> Progress {
        Progress::new(iterations, self.stop.top.unwrap_or(StopConditions::DEFAULT_TOP))
    }
}

impl Progress {
    /// The start of a search.
    pub(super) fn new(iterations: u32, top: usize) -> Self {
        Progress {
            iteration: 0,
            iterations,
            start: Instant::now(),
            stale_iterations: 0,
            all_filtered: false,
            has_completed: false,
            candidates: 0,
            passed: 0,
            best: None,
            forecaster: Forecaster::new(top),
            forecast: None,
        }
    }

    /// Adds a completed iteration, and completes its summary.
    pub(super) fn add(&mut self, batch: &mut Batch) -> Result<()> {
        if let BatchState::Observed(scored) = &batch.state {
            batch.summary.entries = self.forecaster.observe(scored)?;
        }
        let summary = &batch.summary;
        self.stale_iterations = if summary.new == 0 { self.stale_iterations + 1 } else { 0 };
        self.all_filtered = summary.candidates > 0 && summary.passed == 0;
        self.candidates += summary.candidates;
        self.passed += summary.passed;
        self.best = [self.best, summary.best].into_iter().flatten().max_by(f64::total_cmp);
        Ok(())
    }

    /// Forecasts what a selected batch will bring.
    pub(super) fn forecast_batch(&mut self, batch: &mut Batch) -> Result<()> {
        batch.summary.rows = batch.height();
        batch.summary.forecast = match &batch.predictions {
            Some(predictions) => self.forecaster.forecast(predictions)?,
            None => None,
        };
        self.forecast = batch.summary.forecast;
        Ok(())
    }

    pub(super) fn elapsed_seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// The reason to stop when iterations bring no new items.
    pub(super) fn stale_reason(&self) -> StopReason {
        if self.all_filtered { StopReason::NothingPasses } else { StopReason::NothingNew }
    }

    /// The reason to record for a search that ended for `reason`. If no candidate passed the filter in the whole run, it is
    /// why there were none. `previous` is the recorded reason of an earlier process, because the log has no candidates that
    /// did not pass.
    pub(super) fn final_reason(&self, reason: StopReason, previous: Option<StopReason>) -> StopReason {
        let empty_reason = match previous {
            _ if self.has_completed && self.candidates == 0 => StopReason::NoCandidates,
            _ if self.has_completed => StopReason::NothingPasses,
            Some(previous @ (StopReason::NoCandidates | StopReason::NothingPasses)) => previous,
            _ => reason,
        };
        if self.passed > 0 || reason == StopReason::Interrupted { reason } else { empty_reason }
    }
}
