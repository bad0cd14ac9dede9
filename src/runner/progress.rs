//! The progress of a search: the counters that stop conditions read.

use std::time::Instant;

use polars::prelude::BooleanChunked;

use super::{Batch, BatchState, Runner, StopConditions};
use crate::error::{Result, WrapErr};
use crate::forecast::{BatchForecast, Forecast, Forecaster};
use crate::hits::{HitCounter, Hits};
use crate::log::StopReason;

/// The progress of a search.
pub(super) struct Progress {
    /// The next iteration to submit.
    pub(super) iteration: u32,
    /// The total number of iterations.
    pub(super) iterations: u32,
    start: Instant,
    /// Iterations in a row without a new item.
    pub(super) stale_iterations: u32,
    /// Whether the filter dropped all candidates of the last completed iteration.
    all_filtered: bool,
    /// Whether this process has completed an iteration.
    pub(super) has_completed: bool,
    /// The number of candidates of all iterations.
    pub(super) candidates: usize,
    /// The number of those candidates that passed the filter.
    pub(super) passed: usize,
    /// The best score so far.
    pub(super) best: Option<f64>,
    /// The hits of the completed iterations. `None` without `stop.hit`.
    hit_counter: Option<HitCounter>,
    /// Forecasts of the next scores, from the completed iterations.
    pub(super) forecaster: Forecaster,
    /// The forecast for the latest selected batch.
    pub(super) forecast: Option<BatchForecast>,
    /// The forecast that ended the search, because entries are expected to cost too much.
    pub(super) over_limit: Option<Forecast>,
}

impl Runner {
    /// The progress at the start of a search, before a resumed run replays its iterations.
    pub(super) fn progress(&self, iterations: u32) -> Progress {
        let hit_counter = self.stop.hit.map(|threshold| HitCounter::new(threshold, self.ledger.minimize));
        let top = self.stop.top.unwrap_or(StopConditions::DEFAULT_TOP);
        Progress { hit_counter, ..Progress::new(iterations, top) }
    }
}

impl Progress {
    /// The start of a search.
    fn new(iterations: u32, top: usize) -> Self {
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
            hit_counter: None,
            forecaster: Forecaster::new(top),
            forecast: None,
            over_limit: None,
        }
    }

    /// Adds a completed iteration, and completes its summary.
    pub(super) fn add(&mut self, batch: &mut Batch) -> Result<()> {
        if let BatchState::Observed(scored) = &batch.state {
            batch.summary.entries = self.forecaster.observe(scored)?.map(|entries| entries.observed);
            self.hit_counter.iter_mut().try_for_each(|counter| counter.observe(scored))?;
            batch.summary.hits = self.hits();
        }
        let summary = &batch.summary;
        self.stale_iterations = if summary.new_items == 0 { self.stale_iterations + 1 } else { 0 };
        self.all_filtered = summary.candidates > 0 && summary.passed == 0;
        self.candidates += summary.candidates;
        self.passed += summary.passed;
        self.best = [self.best, summary.best].into_iter().flatten().max_by(f64::total_cmp);
        Ok(())
    }

    /// Forecasts the entries of a selected batch, of which `within_budget` rows are within the budget.
    pub(super) fn forecast_batch(&mut self, batch: &mut Batch, within_budget: &[bool]) -> Result<()> {
        batch.summary.rows = within_budget.iter().filter(|is_within| **is_within).count();
        self.forecast = match &batch.predictions {
            Some(predictions) if batch.summary.rows < within_budget.len() => {
                let within_budget: BooleanChunked = within_budget.iter().map(|is_within| Some(*is_within)).collect();
                self.forecaster.forecast(&predictions.filter(&within_budget).wrap_err("predictions")?)?
            }
            Some(predictions) => self.forecaster.forecast(predictions)?,
            None => None,
        };
        batch.summary.forecast = self.forecast.as_ref().map(|forecast| forecast.batch);
        batch.summary.next_hundred = self.forecast.as_ref().map(|forecast| forecast.next_hundred);
        Ok(())
    }

    /// The hits of the completed iterations. `None` without `stop.hit`.
    pub(super) fn hits(&self) -> Option<Hits> {
        self.hit_counter.as_ref().map(HitCounter::hits)
    }

    /// The number of scores since the last hit.
    pub(super) fn scores_since_hit(&self) -> Option<u64> {
        self.hits().map(|hits| hits.scores_since_hit)
    }

    /// The forecast to record when the search ends: the one that ended it, or else that for the next hundred scores.
    pub(super) fn final_forecast(&self) -> Option<Forecast> {
        self.over_limit.or_else(|| self.forecaster.next_hundred())
    }

    pub(super) fn elapsed_seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// The reason to stop after iterations without new items.
    pub(super) fn stale_reason(&self) -> StopReason {
        if self.all_filtered { StopReason::NothingPasses } else { StopReason::NothingNew }
    }

    /// The reason to record for a search that ended for `reason`. If nothing was scored in the whole run, the cause is recorded
    /// instead: there were no candidates, or none passed the filter. `previous` is the reason that an earlier process recorded.
    /// It is needed because the log does not contain candidates that the filter dropped.
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
