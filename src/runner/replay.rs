//! Replays committed iterations, which restores the state of the ledger and of the update rule when a run is resumed.

use std::collections::VecDeque;

use polars::prelude::DataFrame;
use rayon::prelude::*;

use super::progress::Progress;
use super::summary::IterationSummary;
use super::{Batch, BatchState, Runner};
use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::{self, DB_IDX, EMBEDDING};
use crate::log::SearchLog;

/// The number of iterations whose files are read at once.
const READ_AT_ONCE: usize = 16;

/// The number of rows whose embeddings are fetched together. Each fetch takes some milliseconds, even for few rows.
const ROWS_PER_FETCH: usize = 8192;

/// The result of a replay.
#[derive(Default)]
pub(super) struct Replay {
    /// The queries of the next iteration. `None` if no iteration is committed and no queries are logged.
    pub(super) next: Option<DataFrame>,
    /// Iterations whose logged frame lacks score parts of newer answers.
    pub(super) incomplete: Vec<u32>,
}

impl Runner {
    /// Adds every committed iteration to the ledger, and passes iterations to the rule as an uninterrupted run would have done
    /// by now. The later iterations go to `in_flight`.
    pub(super) fn replay(
        &mut self,
        log: &mut SearchLog,
        progress: &mut Progress,
        in_flight: &mut VecDeque<Batch>,
    ) -> Result<Replay> {
        // If the budget limited the last iteration and is larger now, complete that iteration. But if failed items were retried,
        // the rule would select other items by their new scores than those that were evaluated.
        if self.stop.exceeds(log.manifest().spent_budget) && !log.manifest().has_retried_items {
            log.reopen_last();
        }
        let iterations = log.iterations().to_vec();
        self.replay_iterations(&iterations, log, progress, in_flight)
    }

    /// Replays these of the committed iterations, which follow those that were replayed before.
    pub(super) fn replay_iterations(
        &mut self,
        iterations: &[u32],
        log: &mut SearchLog,
        progress: &mut Progress,
        in_flight: &mut VecDeque<Batch>,
    ) -> Result<Replay> {
        let mut replay = Replay::default();
        let Some((last, earlier)) = iterations.split_last() else {
            replay.next = log.has_queries(0).then(|| log.queries(0)).transpose()?;
            return Ok(replay);
        };
        let needs_embeddings = self.rule.observes_embeddings();
        for chunk in earlier.chunks(READ_AT_ONCE) {
            in_flight.extend(self.load_batches(log, chunk, &mut replay.incomplete)?);
            // An iteration without rows takes memory, too: count it as 16 rows.
            if in_flight.iter().map(|batch| batch.height() + 16).sum::<usize>() >= ROWS_PER_FETCH {
                self.observe_batches(in_flight, needs_embeddings, progress)?;
            }
        }
        self.observe_batches(in_flight, needs_embeddings, progress)?;
        in_flight.extend(self.load_batches(log, &[*last], &mut replay.incomplete)?);
        progress.iteration = last + 1;
        let logged = log.has_queries(last + 1).then(|| log.queries(last + 1)).transpose()?;
        if logged.is_some() && !needs_embeddings {
            self.observe_batches(in_flight, false, progress)?;
            // The rule reads the batches in flight when it computes the next queries.
            self.load_embeddings(in_flight)?;
            replay.next = logged;
            return Ok(replay);
        }
        // A rule with a model prepares its next selection in `update`, so `update` runs even if the next queries are logged.
        let mut observed = self.observe_batches(in_flight, true, progress)?;
        let pending = in_flight.iter().map(Batch::visible_results).collect::<Result<Vec<_>>>()?;
        let next = match in_flight.back_mut().or(observed.as_mut()) {
            Some(newest) => Some(self.next_queries(newest, &pending, None)?),
            None => None,
        };
        replay.next = logged.or(next);
        Ok(replay)
    }

    /// Reads committed iterations, and adds their items to the ledger.
    fn load_batches(
        &mut self,
        log: &mut SearchLog,
        iterations: &[u32],
        incomplete: &mut Vec<u32>,
    ) -> Result<Vec<Batch>> {
        let shared = &*log;
        let read =
            iterations.par_iter().map(|iteration| Ok((shared.queries(*iteration)?, shared.results(*iteration)?)));
        let read = read.collect::<Result<Vec<_>>>()?;
        let mut batches = Vec::with_capacity(read.len());
        for (iteration, (queries, results)) in iterations.iter().copied().zip(read) {
            let damaged = |error: Error| Error::input(log.path(), format!("results of iteration {iteration}: {error}"));
            let replayed = self.ledger.replay(iteration, results).map_err(damaged)?;
            let (scored, new_items) = (replayed.scored, replayed.new_items);
            if replayed.has_new_columns {
                incomplete.push(iteration);
            } else if replayed.is_amended && log.is_writable() {
                log.amend(iteration, &scored)?;
            }
            let (rows, evaluations) = (scored.height(), self.ledger.evaluations());
            let summary =
                IterationSummary { iteration, candidates: rows, passed: rows, evaluations, ..Default::default() };
            let summary = summary.with_scores(&scored, new_items)?;
            batches.push(Batch {
                iteration,
                queries,
                state: BatchState::Logged(scored),
                predictions: None,
                summary,
                is_replay: true,
            });
        }
        Ok(batches)
    }

    /// Passes the oldest batches to the rule, until as many are left as may be in flight. Returns the last batch that was
    /// observed.
    fn observe_batches(
        &mut self,
        in_flight: &mut VecDeque<Batch>,
        with_embeddings: bool,
        progress: &mut Progress,
    ) -> Result<Option<Batch>> {
        if with_embeddings {
            self.load_embeddings(in_flight)?;
        }
        let mut last = None;
        while in_flight.len() > self.batches_in_flight() {
            last = self.complete_oldest(in_flight, None)?;
            last.iter_mut().try_for_each(|batch| progress.add(batch))?;
        }
        Ok(last)
    }

    /// Fetches the embeddings of all batches at once, because the log does not store them.
    fn load_embeddings(&self, batches: &mut VecDeque<Batch>) -> Result<()> {
        let without_embeddings = batches.iter_mut().filter_map(|batch| match &mut batch.state {
            BatchState::Logged(scored) if scored.column(EMBEDDING).is_err() => Some(scored),
            _ => None,
        });
        let mut frames: Vec<&mut DataFrame> = without_embeddings.collect();
        if frames.is_empty() {
            return Ok(());
        }
        let items = frames.iter().map(|scored| schema::u64s(scored, DB_IDX)).collect::<Result<Vec<_>>>()?.concat();
        let items = self.database.take_columns(&items, &[])?;
        let mut start = 0;
        for scored in &mut frames {
            let rows = scored.height();
            let embeddings = items.column(EMBEDDING).wrap_err("replaying")?.slice(start as i64, rows);
            scored.insert_column(3, embeddings).wrap_err("replaying")?;
            start += rows;
        }
        Ok(())
    }
}
