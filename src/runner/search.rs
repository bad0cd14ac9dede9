//! Iterations until there is a reason to stop.

use std::path::Path;
use std::sync::atomic::Ordering;

use polars::prelude::DataFrame;

use super::Runner;
use super::stop::Progress;
use crate::database::Request;
use crate::error::{Error, Result};
use crate::log::{Ended, FORMAT_VERSION, Manifest, SearchLog, StopReason, now};
use crate::schema;

impl Runner {
    /// Searches for so many iterations, logging to a temporary folder that the log owns.
    ///
    /// # Errors
    /// As [`Runner::step`].
    pub fn search(&mut self, queries: &DataFrame, iterations: u32) -> Result<SearchLog> {
        self.check(queries)?;
        self.ledger.clear();
        self.update.reset();
        let log = SearchLog::temporary(self.manifest())?;
        self.run(log, queries.clone(), 0, iterations)
    }

    /// Searches for so many iterations, logging to a folder that does not exist yet.
    ///
    /// # Errors
    /// As [`Runner::step`]; a folder that is not empty.
    pub fn search_into(&mut self, path: impl AsRef<Path>, queries: &DataFrame, iterations: u32) -> Result<SearchLog> {
        self.check(queries)?;
        self.ledger.clear();
        self.update.reset();
        let log = SearchLog::create(path, self.manifest())?;
        self.run(log, queries.clone(), 0, iterations)
    }

    /// Iterates from `from` until there is a reason to stop.
    pub(super) fn run(
        &mut self,
        mut log: SearchLog,
        mut queries: DataFrame,
        from: u32,
        iterations: u32,
    ) -> Result<SearchLog> {
        self.ledger.keep_in(&log.ledger_folder(), &log.tmp())?;
        if self.retry_failed {
            self.ledger.retry_failed();
        }
        self.score.stderr_in(&log.path().join("stderr"));
        if let Some(flag) = &self.interrupt {
            self.score.interrupt(flag.clone());
        }
        self.ledger.interrupt = self.interrupt.clone();
        log.append_queries(from, &queries)?;
        let mut progress = Progress::at(from, iterations, &self.stop, &log)?;
        let reason = loop {
            if self.interrupt.as_ref().is_some_and(|interrupt| interrupt.load(Ordering::Relaxed)) {
                break StopReason::Interrupted;
            }
            if let Some(reason) = self.stop.reason(&progress, &self.ledger) {
                break reason;
            }
            let iteration = progress.iteration;
            match self.iterate(iteration, &queries, Some(&mut log)) {
                Ok((summary, next)) => {
                    queries = next;
                    progress.add(&summary);
                    self.stop.refuse_many_failures(&self.ledger).map_err(|error| error.at(iteration))?;
                    if let Some(observer) = &mut self.observer {
                        observer(&summary);
                    }
                }
                Err(Error::Interrupted) => break StopReason::Interrupted,
                Err(error) => return Err(error.at(iteration)),
            }
        };
        let ended = Ended {
            reason,
            iterations: progress.iteration,
            evaluations: self.ledger.evaluations(),
            reused: self.ledger.reused(),
            failed: self.ledger.failed(),
            asked_again: self.ledger.asked_again,
            retries: self.ledger.retries_before + self.score.asked_again(),
            at: now(),
        };
        log.update_manifest(|manifest| manifest.ended = Some(ended))?;
        Ok(log)
    }

    /// Shows the stages an empty frame, so that mistakes cost nothing.
    pub(super) fn check(&self, queries: &DataFrame) -> Result<()> {
        schema::check_queries(queries, self.database.dim())?;
        self.update.check()?;
        let nothing = self.database.query(&queries.head(Some(0)), Request::default())?;
        self.filter.check(&nothing)?;
        self.score.check(&nothing.drop_many([schema::QUERY_IDX, schema::DISTANCE]))
    }

    fn manifest(&self) -> Manifest {
        Manifest {
            format_version: FORMAT_VERSION,
            uphill_version: env!("CARGO_PKG_VERSION").into(),
            seed: self.seed,
            dataset: self.database.identity().cloned(),
            config: self.config.clone(),
            started: now(),
            ended: None,
        }
    }
}
