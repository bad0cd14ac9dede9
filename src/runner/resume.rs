//! Going on with a run: replays what is committed, as if it had never stopped.

use std::collections::BTreeSet;
use std::path::Path;

use polars::prelude::DataFrame;
use rayon::prelude::*;

use super::Runner;
use super::stop::{Progress, Summary};
use crate::database::VectorDatabase;
use crate::error::{Doing, Error, Result};
use crate::log::SearchLog;
use crate::schema::{self, DB_IDX, EMBEDDING};
use crate::step::Step;

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
        self.ledger.retries_before = log.manifest().ended.as_ref().map_or(0, |ended| ended.retries);
        if self.retry_failed {
            self.ask_failed_again(&log)?;
        }
        let mut progress = Progress::new(iterations);
        let queries = self.replay(&mut log, &mut progress)?.unwrap_or_else(|| queries.clone());
        self.run(log, queries, progress)
    }

    /// Asks once more for the items that failed, whatever the rule. Their answers are durable then, and the replay finds
    /// them: it puts them into the iterations in which the items failed.
    fn ask_failed_again(&mut self, log: &SearchLog) -> Result<()> {
        let mut failed = BTreeSet::new();
        for &iteration in log.iterations() {
            self.ledger.note_failed(&log.results(iteration)?, &mut failed)?;
        }
        let failed: Vec<u64> = failed.into_iter().collect();
        let items = self.database.take(&failed)?;
        self.ledger.ask_again(&*self.score, &items)
    }

    /// Shows the rule and the ledger every committed iteration; gives the queries of the next,
    /// `None` if there is nothing to tell them from.
    fn replay(&mut self, log: &mut SearchLog, progress: &mut Progress) -> Result<Option<DataFrame>> {
        // With what the rule knows now it would choose other items than those that were paid for.
        if self.stop.goes_beyond(log.manifest().cut) && !log.manifest().amended {
            log.reopen();
        }
        let iterations = log.iterations().to_vec();
        let Some((last, before)) = iterations.split_last() else {
            return log.has_queries(0).then(|| log.queries(0)).transpose();
        };
        let observes = self.update.observes_embeddings();
        let mut unseen = Vec::new();
        for some in before.chunks(READ_AT_ONCE) {
            unseen.extend(self.book(log, progress, some)?);
            if unseen.iter().map(Committed::weight).sum::<usize>() >= FETCHED_AT_ONCE {
                self.observe_all(std::mem::take(&mut unseen), observes)?;
            }
        }
        self.observe_all(unseen, observes)?;
        let unseen = self.book(log, progress, &[*last])?;
        let known = log.has_queries(last + 1).then(|| log.queries(last + 1)).transpose()?;
        if known.is_some() && !observes {
            self.observe_all(unseen, false)?;
            return Ok(known);
        }
        // A rule that learns prepares for what comes next, also where its queries are known.
        let seen = self.observe_all(unseen, true)?;
        let next = seen.first().map(|last| self.update.update(&last.step(&*self.database, self.seed))).transpose()?;
        Ok(known.or(next))
    }

    /// Takes the items of committed iterations into the ledger, and counts them.
    fn book(&mut self, log: &mut SearchLog, progress: &mut Progress, iterations: &[u32]) -> Result<Vec<Committed>> {
        let shared = &*log;
        let read = iterations.par_iter().map(|iteration| {
            let (queries, results) = (shared.queries(*iteration)?, shared.results(*iteration)?);
            Ok(Committed { iteration: *iteration, queries, results })
        });
        let mut committed = read.collect::<Result<Vec<_>>>()?;
        for Committed { iteration, results, .. } in &mut committed {
            let damaged = |error: Error| Error::input(log.path(), format!("results of iteration {iteration}: {error}"));
            let (now, new, amended) = self.ledger.replay(std::mem::take(results)).map_err(damaged)?;
            if amended {
                log.amend(*iteration, &now)?;
            }
            progress.add(&Summary::of(*iteration, &now, new, self.ledger.evaluations())?);
            *results = now;
        }
        Ok(committed)
    }

    /// Shows the rule iterations, with the embeddings of what was met or without.
    fn observe_all(&mut self, mut iterations: Vec<Committed>, with_embeddings: bool) -> Result<Vec<Committed>> {
        if with_embeddings && !iterations.is_empty() {
            self.add_embeddings(&mut iterations)?;
        }
        for iteration in &iterations {
            self.update.observe(&iteration.step(&*self.database, self.seed))?;
        }
        Ok(iterations)
    }

    /// Fetches the embeddings of all that was met in some iterations, at once: the log does not have them.
    fn add_embeddings(&self, iterations: &mut [Committed]) -> Result<()> {
        let ids = |iteration: &Committed| schema::u64s(&iteration.results, DB_IDX);
        let items = iterations.iter().map(ids).collect::<Result<Vec<_>>>()?.concat();
        let items = self.database.take_columns(&items, &[])?;
        let mut from = 0;
        for iteration in iterations {
            let rows = iteration.results.height();
            let embeddings = items.column(EMBEDDING).doing("replaying")?.slice(from as i64, rows);
            iteration.results.insert_column(3, embeddings).doing("replaying")?;
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

/// A committed iteration, as it is in the log.
struct Committed {
    iteration: u32,
    queries: DataFrame,
    results: DataFrame,
}

impl Committed {
    /// What it takes to hold it, in rows.
    fn weight(&self) -> usize {
        self.results.height() + 16
    }

    fn step<'a>(&'a self, database: &'a dyn VectorDatabase, seed: u64) -> Step<'a> {
        Step { iteration: self.iteration, queries: &self.queries, results: &self.results, database, seed }
    }
}
