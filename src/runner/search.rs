//! Starts a run: creates the run folder and run.json, and the session of the scorer.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use polars::prelude::DataFrame;

use super::Runner;
use crate::database::DatasetIdentity;
use crate::error::{Error, Result};
use crate::log::{FORMAT_VERSION, Manifest, SearchLog, TAG_PREFIX, now};
use crate::score::Session;

impl Runner {
    /// Searches for a number of iterations and logs to a temporary folder, which is removed with the log.
    ///
    /// # Errors
    /// As [`Runner::step`].
    pub fn search(&mut self, queries: &DataFrame, iterations: u32) -> Result<SearchLog> {
        self.prepare(queries, self.stop.evaluations, self.stop.hit)?;
        let log = SearchLog::temporary(self.manifest())?;
        self.begin(&log)?;
        self.run(log, queries.clone(), self.progress(iterations), VecDeque::new())
    }

    /// Searches for a number of iterations and logs to a new folder.
    ///
    /// # Errors
    /// As [`Runner::step`]; a folder that is not empty.
    pub fn search_into(&mut self, path: impl AsRef<Path>, queries: &DataFrame, iterations: u32) -> Result<SearchLog> {
        self.prepare(queries, self.stop.evaluations, self.stop.hit)?;
        let manifest = Manifest { version_tag: self.database.identity().map(|_| new_tag()), ..self.manifest() };
        let log = SearchLog::create(path, manifest)?;
        self.tag_version(&log);
        self.begin(&log)?;
        self.run(log, queries.clone(), self.progress(iterations), VecDeque::new())
    }

    /// Resets the ledger and the score for a run. `prepare` has reset the rule.
    pub(super) fn begin(&mut self, log: &SearchLog) -> Result<()> {
        self.ledger.clear();
        self.ledger.interrupt = self.interrupt.clone();
        let has_answers = self.ledger.open_folder(&log.ledger_folder(), &log.tmp())?;
        let stderr = log.path().join("stderr");
        // A retry has another session id, so that a scorer does not answer it from a cache of the first request.
        let retry = if self.retry_failed { format!(" again {}", now()) } else { String::new() };
        let id = log.manifest().run_id.clone() + &retry;
        let session = Session { id, stderr, interrupt: self.interrupt.clone(), has_answers };
        // Workers of completed runs have dropped their references.
        let in_use = || Error::Config("score: another run still uses this scorer; wait until it has ended".into());
        Arc::get_mut(&mut self.score).ok_or_else(in_use)?.begin(&session);
        Ok(())
    }

    /// Tags the dataset version that a run reads, so that clean-ups keep it. run.json records the tag before it is set. If the
    /// process is killed in between, the resumed run sets the tag, so that no tag exists without a run.
    pub(super) fn tag_version(&self, log: &SearchLog) {
        let Some(tag) = &log.manifest().version_tag else { return };
        if let Err(error) = self.database.tag_version(tag) {
            log::warn!(
                "{error}; the search continues, but it cannot be resumed after a clean-up of this dataset version"
            );
        }
    }

    fn manifest(&self) -> Manifest {
        Manifest {
            format_version: FORMAT_VERSION,
            uphill_version: env!("CARGO_PKG_VERSION").into(),
            seed: self.seed,
            dataset: self
                .database
                .identity()
                .map(|identity| DatasetIdentity { uri: absolute_uri(&identity.uri), ..identity.clone() }),
            version_tag: None,
            run_id: String::new(),
            config: self.config.clone(),
            scorer_files: self.scorer_files.hashes.clone(),
            has_retried_items: false,
            planned_budget: self.stop.evaluations,
            planned_hit: self.stop.hit,
            spent_budget: None,
            started: now(),
            audit: None,
            ended: None,
        }
    }
}

/// The address of a dataset that is valid from any working directory.
pub(super) fn absolute_uri(uri: &str) -> String {
    let path = Path::new(uri);
    let absolute = if path.exists() { std::path::absolute(path).ok() } else { None };
    absolute.map_or_else(|| uri.into(), |path| path.to_string_lossy().into_owned())
}

/// A unique tag for a run.
fn new_tag() -> String {
    format!("{TAG_PREFIX}{:016x}", rand::random::<u64>())
}
