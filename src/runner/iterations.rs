//! The loop over iterations, with synchronous or asynchronous batches.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use polars::prelude::DataFrame;

use super::progress::Progress;
use super::{Batch, IterationSummary, Runner};
use crate::error::Result;
use crate::log::{SearchLog, StopReason};

impl Runner {
    /// Runs iterations until a stop condition holds. Waits for the oldest batches before it submits the next one, so that at
    /// most [`Runner::batches_in_flight`] others are in flight.
    pub(super) fn iterate(
        &mut self,
        log: &mut SearchLog,
        mut queries: DataFrame,
        progress: &mut Progress,
        in_flight: &mut VecDeque<Batch>,
    ) -> Result<StopReason> {
        loop {
            if let Some(reason) = self.stop_reason(progress) {
                return self.drain(log, progress, in_flight, reason);
            }
            log.record_running(&self.config)?;
            let iteration = progress.iteration;
            let is_async = self.batches_in_flight() > 0;
            let selected = self.select_batch(iteration, &queries, Some(&mut *log));
            let mut batch = selected.map_err(|error| error.in_iteration(iteration))?;
            let within_budget = self.rows_within_budget(&batch)?;
            progress.forecast_batch(&mut batch, &within_budget)?;
            progress.over_limit = self.stop.forecast_over_limit(progress);
            if progress.over_limit.is_some() {
                return self.drain(log, progress, in_flight, StopReason::ScoresPerEntry);
            }
            if let Some(callback) = &mut self.submit_callback {
                callback(&IterationSummary { best_so_far: progress.best, ..batch.summary });
            }
            self.submit_batch(&mut batch, is_async).map_err(|error| error.in_iteration(iteration))?;
            in_flight.push_back(batch);
            progress.iteration += 1;

            let mut completed = Vec::new();
            while in_flight.len() > self.batches_in_flight() {
                completed.extend(self.complete_oldest(in_flight, Some(&mut *log))?);
            }
            let pending = in_flight.iter().map(Batch::visible_results).collect::<Result<Vec<_>>>()?;
            if let Some(newest) = in_flight.back_mut().or(completed.last_mut()) {
                let next = self.next_queries(newest, &pending, Some(&mut *log));
                queries = next.map_err(|error| error.in_iteration(iteration))?;
            }
            for batch in &mut completed {
                self.report(batch, log, progress)?;
            }
        }
    }

    /// The reason to stop before the next iteration.
    fn stop_reason(&self, progress: &Progress) -> Option<StopReason> {
        let is_set = || self.interrupt.as_ref().is_some_and(|interrupt| interrupt.load(Ordering::Relaxed));
        self.stop.reason(progress, &self.ledger).or_else(|| is_set().then_some(StopReason::Interrupted))
    }

    /// Completes all batches in flight, because their items count as evaluations already.
    fn drain(
        &mut self,
        log: &mut SearchLog,
        progress: &mut Progress,
        in_flight: &mut VecDeque<Batch>,
        reason: StopReason,
    ) -> Result<StopReason> {
        while let Some(mut batch) = self.complete_oldest(in_flight, Some(&mut *log))? {
            self.report(&mut batch, log, progress)?;
        }
        if reason != StopReason::Interrupted {
            let last = progress.iteration.saturating_sub(1);
            self.stop.check_failures(&self.ledger, true).map_err(|error| error.in_iteration(last))?;
        }
        Ok(reason)
    }

    /// Completes the batch that was submitted first. If that fails, the batch stays in the queue.
    pub(super) fn complete_oldest(
        &mut self,
        in_flight: &mut VecDeque<Batch>,
        log: Option<&mut SearchLog>,
    ) -> Result<Option<Batch>> {
        let Some(batch) = in_flight.front_mut() else { return Ok(None) };
        let iteration = batch.iteration;
        self.complete_batch(batch, log).map_err(|error| error.in_iteration(iteration))?;
        Ok(in_flight.pop_front())
    }

    /// Adds a completed batch to the progress, and calls the callback with its summary.
    fn report(&mut self, batch: &mut Batch, log: &SearchLog, progress: &mut Progress) -> Result<()> {
        progress.add(batch)?;
        if batch.is_replay {
            return Ok(());
        }
        progress.has_completed = true;
        log.append_times(batch.iteration, &batch.summary.times);
        self.stop.check_failures(&self.ledger, false).map_err(|error| error.in_iteration(batch.iteration))?;
        if let Some(callback) = &mut self.callback {
            callback(&IterationSummary { best_so_far: progress.best, ..batch.summary });
        }
        Ok(())
    }

    /// How many batches may be in flight when the next one is submitted.
    pub(super) fn batches_in_flight(&self) -> usize {
        // With manual scores, the search waits for the scores of every batch.
        if self.score.is_manual() { 0 } else { self.rule.batches_in_flight() }
    }
}
