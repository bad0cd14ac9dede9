//! Runs the iterations to their end, and records the reason, the costs and any error in run.json.

use std::collections::VecDeque;

use polars::prelude::DataFrame;

use super::progress::Progress;
use super::{Batch, BatchState, Runner};
use crate::error::{Error, Result};
use crate::log::{RunSummary, SearchLog, StopReason, now};

impl Runner {
    /// Runs iterations until there is a reason to stop, and records the end of the run. `in_flight` holds batches that are
    /// logged, but that the rule has not observed yet.
    pub(super) fn run(
        &mut self,
        mut log: SearchLog,
        queries: DataFrame,
        mut progress: Progress,
        mut in_flight: VecDeque<Batch>,
    ) -> Result<SearchLog> {
        let started = log.append_queries(progress.iteration, &queries);
        let ended = started.and_then(|()| self.iterate(&mut log, queries, &mut progress, &mut in_flight));
        // Stop the workers before the lock of the folder is released.
        self.ledger.close();
        for batch in &in_flight {
            if let BatchState::InFlight(request) = &batch.state {
                self.ledger.cancel(request);
            }
        }
        let reason = match ended {
            Ok(reason) => progress.final_reason(reason, log.manifest().ended.as_ref().map(|ended| ended.reason)),
            Err(Error::Interrupted) => StopReason::Interrupted,
            Err(error) => {
                let costs = self.run_summary(&log, &progress, StopReason::Error);
                self.record_error(&mut log, &error, costs);
                return Err(error);
            }
        };
        if reason == StopReason::NothingPasses && progress.has_completed && progress.passed == 0 {
            log::warn!("filter: none of the {} candidates passes; no item was scored", progress.candidates);
        }
        if let (StopReason::NoCandidates, Some(limit)) = (reason, self.database.max_distance()) {
            log::warn!(
                "database.max_distance: no item is within {limit} of a query; no item was scored; raise or remove the limit"
            );
        }
        let summary = self.run_summary(&log, &progress, reason);
        self.record_end(&mut log, summary)?;
        Ok(log)
    }

    /// The summary of a run that ends now.
    fn run_summary(&self, log: &SearchLog, progress: &Progress, reason: StopReason) -> RunSummary {
        let ended_before = log.manifest().ended.as_ref().and_then(|ended| ended.forecast);
        RunSummary {
            reason,
            error: None,
            iterations: log.iterations().last().map_or(0, |last| last + 1),
            evaluations: self.ledger.evaluations(),
            scored: Some(self.ledger.scored()),
            reused: self.ledger.reused(),
            rejected: self.ledger.rejected(),
            failed: self.ledger.failed(),
            scored_again: self.ledger.scored_again,
            retries: self.ledger.retries_before + self.score.retry_count(),
            relevance: self.rule.relevance(),
            // Keep the recorded forecast if the log has no predictions.
            forecast: progress.final_forecast().or(ended_before),
            hits: progress.hits(),
            at: now(),
        }
    }

    /// Records the error that ended a run, and the costs, if run.json can still be written. A run that is interrupted or waits
    /// for manual scores has not ended.
    pub(super) fn record_error(&self, log: &mut SearchLog, error: &Error, costs: RunSummary) {
        const MAX_CHARS: usize = 1000;
        let reason = match error {
            Error::Pending { .. } | Error::Interrupted => return,
            Error::Unavailable { .. } => StopReason::Outage,
            _ => StopReason::Error,
        };
        let message = error.to_string();
        let line: String = message.lines().next().unwrap_or_default().chars().take(MAX_CHARS).collect();
        // A failure to write is ignored, because the caller returns the error itself.
        let _ = self.record_end(log, RunSummary { reason, error: Some(line), at: now(), ..costs });
    }

    fn record_end(&self, log: &mut SearchLog, summary: RunSummary) -> Result<()> {
        let is_spent = self.stop.evaluations.is_some_and(|budget| summary.evaluations >= budget);
        log.record_end(summary, &self.config, is_spent)
    }
}
