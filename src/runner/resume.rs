//! Resumes a run: checks that the search is the same, retries failed items, and replays the committed iterations.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;

use polars::prelude::DataFrame;

use super::Runner;
use super::search::absolute_uri;
use crate::error::{Error, Result};
use crate::log::SearchLog;

impl Runner {
    /// Resumes a run up to a total number of iterations. Replays the committed iterations, and then continues as an
    /// uninterrupted run would. `queries` are the starting queries, for a run that stopped before it wrote them.
    ///
    /// # Errors
    /// As [`Runner::step`]; no run folder, a run folder in use, or a dataset that has changed.
    pub fn resume(&mut self, path: impl AsRef<Path>, queries: &DataFrame, iterations: u32) -> Result<SearchLog> {
        let mut log = SearchLog::resume(path)?;
        self.check_compatible(&log)?;
        self.check_scorer_files(&log)?;
        self.tag_version(&log);
        self.prepare(queries, log.manifest().planned_budget, log.manifest().planned_hit)?;
        self.begin(&log)?;
        self.record_dataset_path(&mut log)?;
        log.record_scorer_files(&self.scorer_files.hashes)?;
        self.ledger.retries_before = log.manifest().ended.as_ref().map_or(0, |ended| ended.retries);
        if self.retry_failed {
            self.retry_failed_items(&mut log)?;
        }
        let mut progress = self.progress(iterations);
        let mut in_flight = VecDeque::new();
        let replay = self.replay(&mut log, &mut progress, &mut in_flight)?;
        // The last iteration first: at any time, each iteration must have all columns of the earlier ones.
        for iteration in replay.incomplete.into_iter().rev() {
            let scored = self.ledger.with_current_answers(iteration, &log.results(iteration)?)?;
            log.amend(iteration, &scored)?;
        }
        self.run(log, replay.next.unwrap_or_else(|| queries.clone()), progress, in_flight)
    }

    /// Fails if the run has another seed or library.
    pub(super) fn check_compatible(&self, log: &SearchLog) -> Result<()> {
        let (recorded, seed) = (log.manifest().seed, self.seed);
        if recorded != seed {
            let what = if log.is_writable() { "resume" } else { "explain" };
            let reason = format!(
                "cannot {what} with seed {seed}: the run was started with seed {recorded}; set that seed, or start a new run"
            );
            return Err(Error::input(log.path(), reason));
        }
        log.check_dataset(self.database.identity())
    }

    /// Records the current path of the dataset. `check_compatible` has checked that it is the same library.
    fn record_dataset_path(&self, log: &mut SearchLog) -> Result<()> {
        let opened = self.database.identity().map(|identity| absolute_uri(&identity.uri));
        match self.config["database"]["path"].as_str().or(opened.as_deref()) {
            Some(path) => log.record_dataset_path(path),
            None => Ok(()),
        }
    }

    /// Retries all failed items. The replay that follows puts the new answers into the iterations in which the items failed.
    fn retry_failed_items(&mut self, log: &mut SearchLog) -> Result<()> {
        let mut failed = BTreeSet::new();
        for &iteration in log.iterations() {
            self.ledger.collect_failed(&log.results(iteration)?, &mut failed)?;
        }
        if failed.is_empty() {
            return Ok(());
        }
        log.record_config(&self.config)?;
        let failed: Vec<u64> = failed.into_iter().collect();
        let items = self.database.take(&failed)?;
        let retried = self.ledger.retry(&self.score, &items);
        if let (Err(error), Some(costs)) = (&retried, log.manifest().ended.clone()) {
            self.record_error(log, error, costs);
        }
        retried
    }
}
