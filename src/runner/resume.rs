//! Going on with a run: replays what is committed, as if it had never stopped.

use std::path::Path;

use polars::prelude::DataFrame;

use super::Runner;
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
        self.ledger.clear();
        self.update.reset();
        self.check_same(&log)?;
        self.check(queries)?;
        let queries = self.replay(&log)?.unwrap_or_else(|| queries.clone());
        let next = log.iterations().last().map_or(0, |last| last + 1);
        self.ledger.retries_before = log.manifest().ended.as_ref().map_or(0, |ended| ended.retries);
        log.update_manifest(|manifest| manifest.ended = None)?;
        self.run(log, queries, next, iterations)
    }

    /// Shows the rule and the ledger every committed iteration; gives the queries of the next,
    /// `None` if there is nothing to tell them from.
    fn replay(&mut self, log: &SearchLog) -> Result<Option<DataFrame>> {
        let mut next = None;
        for &iteration in log.iterations() {
            let queries = log.queries(iteration)?;
            let mut results = log.results(iteration)?;
            let damaged = |error: Error| Error::input(log.path(), format!("results of iteration {iteration}: {error}"));
            self.ledger.replay(&results).map_err(damaged)?;
            let damaged = |error: polars::error::PolarsError| Error::input(log.path(), error.to_string());
            let items = self.database.take(&schema::u64s(&results, DB_IDX)?)?;
            results.insert_column(3, items.column(EMBEDDING).map_err(damaged)?.clone()).map_err(damaged)?;
            let database = &*self.database;
            let step = Step { iteration, queries: &queries, results: &results, database, seed: self.seed };
            self.update.observe(&step)?;
            let written = log.has_queries(iteration + 1);
            if Some(&iteration) == log.iterations().last() && !written {
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
