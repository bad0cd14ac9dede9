//! What a search may be told beside its stages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::{Runner, Stop, Summary};
use crate::error::Result;
use crate::filter::Filter;
use crate::score::{OnError, ReuseOptions, ReusedScores};
use crate::select::Select;

/// Options.
impl Runner {
    /// Takes rows away before they are scored.
    pub fn filter(mut self, filter: impl Filter + 'static) -> Self {
        self.filter = Box::new(filter);
        self
    }

    /// Chooses which candidates are scored, instead of the rule.
    pub fn select(mut self, select: impl Select + 'static) -> Self {
        self.select = Some(Box::new(select));
        self
    }

    /// Of everything random (default 0).
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// When to stop before the iterations are over.
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// Takes smaller scores as better: `score` is the negative of the scorer's, which is kept as `raw_score`.
    pub fn minimize(mut self, minimize: bool) -> Self {
        self.ledger.minimize = minimize;
        self
    }

    /// What a failed item does to the run (default: its score is null).
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.ledger.on_error = on_error;
        self
    }

    /// Asks once more for all items that failed, when a run is resumed; each was counted once. Their answers take the
    /// place of the failures in the iterations they were met in.
    pub fn retry_failed(mut self, retry: bool) -> Self {
        self.retry_failed = retry;
        self
    }

    /// Takes scores that were paid for before, at no cost: such items have no `evaluation` and do not
    /// count against the budget. `version_of` tells the score's version from the configuration in a run.json.
    ///
    /// # Errors
    /// A source that cannot be read, or is of another library or score. (One whose scores are of no item is a warning.)
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

    /// Stores the configuration in run.json, and, when a run goes on, what it goes on with.
    pub fn describe(mut self, config: serde_json::Value) -> Self {
        self.config = config;
        self
    }

    /// Is told of each committed iteration.
    pub fn observe(mut self, observer: impl FnMut(&Summary) + Send + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Keeps there how many items were asked and have no answer yet, for whoever looks while the search goes on.
    pub fn waiting(mut self, items: Arc<AtomicUsize>) -> Self {
        self.ledger.pending = items;
        self
    }

    /// Stops the search, resumably, when set.
    pub fn interrupt(mut self, flag: Arc<AtomicBool>) -> Self {
        self.interrupt = Some(flag);
        self
    }
}
