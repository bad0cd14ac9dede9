//! Going on with a run: replays what is committed, as if it had never stopped.

use std::collections::BTreeSet;
use std::path::Path;

use polars::prelude::DataFrame;

use super::Runner;
use super::stop::{Progress, Summary};
use crate::error::{Error, Result};
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
        self.check(queries)?;
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
        let mut next = None;
        let goes_beyond = self.stop.goes_beyond(log.manifest().cut);
        // With what the rule knows now it would choose other items than those that were paid for.
        if goes_beyond && !log.manifest().amended {
            log.reopen();
        }
        let iterations = log.iterations().to_vec();
        for &iteration in &iterations {
            let queries = log.queries(iteration)?;
            let damaged = |error: Error| Error::input(log.path(), format!("results of iteration {iteration}: {error}"));
            let (mut results, new, amended) = self.ledger.replay(log.results(iteration)?).map_err(damaged)?;
            if amended {
                log.amend(iteration, &results)?;
            }
            progress.add(&Summary::of(iteration, &results, new, self.ledger.evaluations())?);
            let damaged = |error: polars::error::PolarsError| Error::input(log.path(), error.to_string());
            let items = self.database.take(&schema::u64s(&results, DB_IDX)?)?;
            results.insert_column(3, items.column(EMBEDDING).map_err(damaged)?.clone()).map_err(damaged)?;
            let database = &*self.database;
            let step = Step { iteration, queries: &queries, results: &results, database, seed: self.seed };
            self.update.observe(&step)?;
            // The rule prepares for what comes next, also where its queries are known already.
            if iterations.last() == Some(&iteration) {
                next = Some(self.update.update(&step)?);
            }
        }
        let first = log.iterations().last().map_or(0, |last| last + 1);
        match log.has_queries(first) {
            true => log.queries(first).map(Some),
            false => Ok(next),
        }
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
