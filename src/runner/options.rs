//! The constructors and the options of a runner.

#[cfg(feature = "cli")]
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::{IterationSummary, Runner, ScorerFiles, StopConditions};
use crate::database::VectorDatabase;
use crate::error::Result;
use crate::filter::{Filter, PassThroughFilter};
use crate::ledger::Ledger;
use crate::score::{OnError, ReuseOptions, ReusedScores, Score};
use crate::select::Selector;
use crate::update::UpdateRule;

impl Runner {
    /// Searches a library by a score and an update rule, without a filter.
    pub fn new(
        database: impl VectorDatabase + 'static,
        score: impl Score + 'static,
        rule: impl UpdateRule + 'static,
    ) -> Self {
        Self::from_parts(Box::new(database), Box::new(score), Box::new(rule))
    }

    /// As [`Runner::new`], with stages whose types are chosen at run time.
    pub fn from_parts(database: Box<dyn VectorDatabase>, score: Box<dyn Score>, rule: Box<dyn UpdateRule>) -> Self {
        Runner {
            database,
            filter: Box::new(PassThroughFilter),
            selector: None,
            score: score.into(),
            rule,
            ledger: Ledger::default(),
            seed: 0,
            stop: StopConditions::default(),
            config: serde_json::Value::Null,
            scorer_files: ScorerFiles::default(),
            retry_failed: false,
            submit_callback: None,
            callback: None,
            interrupt: None,
        }
    }
}

/// Options.
impl Runner {
    /// Drops the candidates that must not be scored.
    pub fn filter(mut self, filter: impl Filter + 'static) -> Self {
        self.filter = Box::new(filter);
        self
    }

    /// Selects which candidates are scored, in place of the rule's selector.
    pub fn select(mut self, selector: impl Selector + 'static) -> Self {
        self.selector = Some(Box::new(selector));
        self
    }

    /// The seed of all random numbers (default 0).
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the conditions that stop the search before its last iteration.
    pub fn stop(mut self, stop: StopConditions) -> Self {
        self.stop = stop;
        self
    }

    /// Treats smaller scores as better: `score` is the negative of the scorer's score, which is kept as `raw_score`.
    pub fn minimize(mut self, minimize: bool) -> Self {
        self.ledger.minimize = minimize;
        self
    }

    /// Sets whether a failed item stops the run (default: its score is null, and the run continues).
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.ledger.on_error = on_error;
        self
    }

    /// Calls a function with each batch after it is selected, and before its scores are requested. The summary contains the
    /// iteration, the candidates, the rows and the forecast.
    pub fn on_submit(mut self, callback: impl FnMut(&IterationSummary) + Send + 'static) -> Self {
        self.submit_callback = Some(Box::new(callback));
        self
    }

    /// Retries all failed items when a run is resumed. Each of them still counts as one evaluation. The new scores replace the
    /// failures in the logged iterations.
    pub fn retry_failed(mut self, retry: bool) -> Self {
        self.retry_failed = retry;
        self
    }

    /// Reuses scores of earlier runs and files at no cost: items with a reused score have no `evaluation` and do not count
    /// towards the budget. `version_of` returns the version of the score from the configuration in a run.json. Warns about a
    /// source without items of this library.
    ///
    /// # Errors
    /// A source that cannot be read, or that belongs to another library or score.
    pub fn reuse(
        mut self,
        reuse: &ReuseOptions,
        version_of: impl Fn(&serde_json::Value) -> Option<String>,
    ) -> Result<Self> {
        let library = self.database.identity().and_then(|identity| identity.library_id.clone());
        self.ledger.reused_scores = ReusedScores::read(reuse, library.as_deref(), &version_of)?;
        self.ledger.reused_scores.warn_unmatched_sources(&*self.database)?;
        Ok(self)
    }

    /// Reads examples from a file: items that are known to be good or bad before the run starts. They are reused scores
    /// ([`Runner::reuse`]) of any version: the run has them from its first iteration, and does not pay for them.
    ///
    /// The file has a column `score`, as the scorer returns it, and a column that identifies the items: `db_idx`, or else
    /// exactly one attribute of the library. Call this after `reuse`. Examples take precedence over reused scores.
    ///
    /// # Errors
    /// A file that cannot be read, or without such columns.
    pub fn examples(mut self, file: impl AsRef<Path>) -> Result<Self> {
        self.ledger.reused_scores.add_examples(file.as_ref(), &*self.database)?;
        self.ledger.reused_scores.warn_unmatched_sources(&*self.database)?;
        Ok(self)
    }

    /// Sets the configuration to record in run.json. A resumed run replaces the recorded one.
    pub fn config(mut self, config: serde_json::Value) -> Self {
        self.config = config;
        self
    }

    /// Sets the files of the scorer, to record in run.json.
    pub(crate) fn scorer_files(mut self, files: ScorerFiles) -> Self {
        self.scorer_files = files;
        self
    }

    /// The content hashes of the scorer's files.
    #[cfg(feature = "cli")]
    pub(crate) fn recorded_scorer_files(&self) -> &BTreeMap<String, String> {
        &self.scorer_files.hashes
    }

    /// Calls a function after each committed iteration.
    pub fn on_iteration(mut self, callback: impl FnMut(&IterationSummary) + Send + 'static) -> Self {
        self.callback = Some(Box::new(callback));
        self
    }

    /// Sets a counter that the search updates with the number of pending evaluations.
    pub fn pending_counter(mut self, items: Arc<AtomicUsize>) -> Self {
        self.ledger.pending = items;
        self
    }

    /// Stops the search when the flag is set. The run can be resumed.
    pub fn interrupt(mut self, flag: Arc<AtomicBool>) -> Self {
        self.interrupt = Some(flag);
        self
    }
}
