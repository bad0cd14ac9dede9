//! Going on with a run: replays what is committed, as if it had never stopped.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;

use polars::prelude::DataFrame;
use rayon::prelude::*;

use super::search::place;
use super::stop::{Progress, Summary};
use super::{Batch, Runner, Scores};
use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::{self, DB_IDX, EMBEDDING};
use crate::log::SearchLog;

impl Runner {
    /// Goes on with a run, to so many iterations in all: replays what is committed, then
    /// searches as if it had never stopped. `queries` are the starting ones, for a
    /// run that stopped before it wrote them.
    ///
    /// # Errors
    /// As [`Runner::step`]; no run folder there, one in use, or a dataset that changed.
    pub fn resume(&mut self, path: impl AsRef<Path>, queries: &DataFrame, iterations: u32) -> Result<SearchLog> {
        let mut log = SearchLog::resume(path)?;
        self.check_same(&log)?;
        self.keep_version(&log);
        self.check(queries, log.manifest().planned)?;
        self.begin(&log)?;
        self.note_library(&mut log)?;
        self.ledger.retries_before = log.manifest().ended.as_ref().map_or(0, |ended| ended.retries);
        if self.retry_failed {
            self.ask_failed_again(&mut log)?;
        }
        let mut progress = Progress::new(iterations);
        let mut out = VecDeque::new();
        let mut widened = Vec::new();
        let next = self.replay(&mut log, &mut progress, &mut out, &mut widened)?;
        // From the last on, so that at any instant each iteration has the columns of those before it.
        for iteration in widened.into_iter().rev() {
            let scored = self.ledger.with_current_answers(iteration, &log.results(iteration)?)?;
            log.amend(iteration, &scored)?;
        }
        self.run(log, next.unwrap_or_else(|| queries.clone()), progress, out)
    }

    /// Notes where the library is now. What it is does not change: `check_same`.
    fn note_library(&self, log: &mut SearchLog) -> Result<()> {
        let opened = self.database.identity().map(|identity| place(&identity.uri));
        match self.config["database"]["path"].as_str().or(opened.as_deref()) {
            Some(library) => log.library_is_at(library),
            None => Ok(()),
        }
    }

    /// Asks once more for the items that failed, whatever the rule. Their answers are durable then, and the replay finds
    /// them: it puts them into the iterations in which the items failed.
    fn ask_failed_again(&mut self, log: &mut SearchLog) -> Result<()> {
        let mut failed = BTreeSet::new();
        for &iteration in log.iterations() {
            self.ledger.collect_failed(&log.results(iteration)?, &mut failed)?;
        }
        if failed.is_empty() {
            return Ok(());
        }
        log.goes_on_with(&self.config)?;
        let failed: Vec<u64> = failed.into_iter().collect();
        let items = self.database.take(&failed)?;
        let asked = self.ledger.retry(&self.score, &items);
        if let (Err(error), Some(costs)) = (&asked, log.manifest().ended.clone()) {
            self.note_error(log, error, costs);
        }
        asked
    }

    /// Shows the ledger every committed iteration, and the rule those that it would know of if the run had never stopped:
    /// the others go to `out`. Gives the queries of the next, `None` if there is nothing to tell them from. The log lacks
    /// columns of those that are `widened`.
    fn replay(
        &mut self,
        log: &mut SearchLog,
        progress: &mut Progress,
        out: &mut VecDeque<Batch>,
        widened: &mut Vec<u32>,
    ) -> Result<Option<DataFrame>> {
        // With what the rule knows now it would choose other items than those that were paid for.
        if self.stop.goes_beyond(log.manifest().cut) && !log.manifest().amended {
            log.reopen();
        }
        let iterations = log.iterations().to_vec();
        let Some((last, before)) = iterations.split_last() else {
            return log.has_queries(0).then(|| log.queries(0)).transpose();
        };
        let observes = self.update.observes_embeddings();
        for some in before.chunks(READ_AT_ONCE) {
            out.extend(self.book(log, some, widened)?);
            if out.iter().map(weight).sum::<usize>() >= FETCHED_AT_ONCE {
                self.show(out, observes, progress)?;
            }
        }
        self.show(out, observes, progress)?;
        out.extend(self.book(log, &[*last], widened)?);
        progress.iteration = last + 1;
        let known = log.has_queries(last + 1).then(|| log.queries(last + 1)).transpose()?;
        if known.is_some() && !observes {
            self.show(out, false, progress)?;
            // What is out is shown to the rule when it chooses.
            self.add_embeddings(out)?;
            return Ok(known);
        }
        // A rule that learns prepares for what comes next, also where its queries are known.
        let mut shown = self.show(out, true, progress)?;
        let frames = out.iter().map(Batch::frame).collect::<Result<Vec<_>>>()?;
        let next = match out.back_mut().or(shown.as_mut()) {
            Some(last) => Some(self.follow(last, &frames, None)?),
            None => None,
        };
        Ok(known.or(next))
    }

    /// Takes the items of committed iterations into the ledger.
    fn book(&mut self, log: &mut SearchLog, iterations: &[u32], widened: &mut Vec<u32>) -> Result<Vec<Batch>> {
        let shared = &*log;
        let read =
            iterations.par_iter().map(|iteration| Ok((shared.queries(*iteration)?, shared.results(*iteration)?)));
        let read = read.collect::<Result<Vec<_>>>()?;
        let mut batches = Vec::with_capacity(read.len());
        for (iteration, (queries, results)) in iterations.iter().copied().zip(read) {
            let damaged = |error: Error| Error::input(log.path(), format!("results of iteration {iteration}: {error}"));
            let replayed = self.ledger.replay(iteration, results).map_err(damaged)?;
            let (scored, new) = (replayed.scored, replayed.new_items);
            if replayed.has_new_columns {
                widened.push(iteration);
            } else if replayed.is_amended {
                log.amend(iteration, &scored)?;
            }
            let (rows, evaluations) = (scored.height(), self.ledger.evaluations());
            let summary = Summary { iteration, met: rows, passed: rows, evaluations, ..Summary::default() };
            let summary = summary.of(&scored, new)?;
            batches.push(Batch { iteration, queries, scores: Scores::Logged(scored), summary, is_of_earlier: true });
        }
        Ok(batches)
    }

    /// Shows the rule iterations, with the embeddings of what was met or without, but for those that it would not know of
    /// yet. Gives the last that it was shown.
    fn show(
        &mut self,
        out: &mut VecDeque<Batch>,
        with_embeddings: bool,
        progress: &mut Progress,
    ) -> Result<Option<Batch>> {
        if with_embeddings {
            self.add_embeddings(out)?;
        }
        let mut last = None;
        while out.len() > self.behind() {
            last = self.conclude_first(out, None)?;
            last.iter().for_each(|batch: &Batch| progress.add(&batch.summary));
        }
        Ok(last)
    }

    /// Fetches the embeddings of all that was met in some iterations, at once: the log does not have them.
    fn add_embeddings(&self, batches: &mut VecDeque<Batch>) -> Result<()> {
        let without = batches.iter_mut().filter_map(|batch| match &mut batch.scores {
            Scores::Logged(scored) if scored.column(EMBEDDING).is_err() => Some(scored),
            _ => None,
        });
        let mut without: Vec<&mut DataFrame> = without.collect();
        if without.is_empty() {
            return Ok(());
        }
        let items = without.iter().map(|scored| schema::u64s(scored, DB_IDX)).collect::<Result<Vec<_>>>()?.concat();
        let items = self.database.take_columns(&items, &[])?;
        let mut from = 0;
        for scored in &mut without {
            let rows = scored.height();
            let embeddings = items.column(EMBEDDING).wrap_err("replaying")?.slice(from as i64, rows);
            scored.insert_column(3, embeddings).wrap_err("replaying")?;
            from += rows;
        }
        Ok(())
    }

    /// Refuses to go on with a run of another library.
    fn check_same(&self, log: &SearchLog) -> Result<()> {
        let was = log.manifest();
        if was.seed != self.seed {
            return Err(Error::input(log.path(), format!("was started with seed {}, not {}", was.seed, self.seed)));
        }
        log.check_dataset(self.database.identity())
    }
}

/// Iterations whose files are read at once.
const READ_AT_ONCE: usize = 16;

/// Rows from which on embeddings are fetched: each fetch costs some milliseconds, however few they are.
const FETCHED_AT_ONCE: usize = 8192;

/// What it takes to hold an iteration, in rows.
fn weight(batch: &Batch) -> usize {
    match &batch.scores {
        Scores::Logged(scored) | Scores::Seen(scored) => scored.height() + 16,
        Scores::Out(order) => order.results.height() + 16,
    }
}
