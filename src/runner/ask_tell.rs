//! The ask-and-tell interface, for scores that come from outside: a lab, people, a queue.

use std::path::Path;

use polars::prelude::{Column, DataFrame};

use super::Runner;
use crate::database::local_path;
use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::DB_IDX;
use crate::log::{SearchLog, StopReason};

/// The state of a search whose scores come by hand.
pub enum SearchState {
    /// The search needs the scores of these items: `db_idx`, `embedding`, attributes.
    Pending(DataFrame),
    /// The search has ended. No item is pending.
    Ended(Box<SearchLog>),
}

impl Runner {
    /// Starts or resumes a run whose scores come by hand, and runs until it needs scores. Returns the same items until
    /// [`Runner::tell`] takes their scores.
    ///
    /// # Errors
    /// As [`Runner::search_into`] and [`Runner::resume`].
    pub fn ask(&mut self, path: impl AsRef<Path>, queries: &DataFrame, iterations: u32) -> Result<SearchState> {
        let path = &local_path(path)?;
        let ended = match path.join("run.json").exists() {
            true => self.resume(path, queries, iterations),
            false => self.search_into(path, queries, iterations),
        };
        match ended {
            Ok(log) => Ok(SearchState::Ended(Box::new(log))),
            Err(Error::Pending { .. }) => Ok(SearchState::Pending(self.ledger.manual_items.take().unwrap_or_default())),
            Err(error) => Err(error),
        }
    }

    /// Takes scores of all or some pending items, makes them durable and continues the search. `scores` has `db_idx`,
    /// `score` (null if the item failed), optionally `reason` and parts of the score. Scores that the run already has are
    /// skipped.
    ///
    /// # Errors
    /// As [`Runner::resume`]; an item that is not pending, also if the run has ended; a score that does not come by hand
    /// ([`ManualScore`](crate::ManualScore)).
    pub fn tell(
        &mut self,
        path: impl AsRef<Path>,
        queries: &DataFrame,
        iterations: u32,
        scores: &DataFrame,
    ) -> Result<SearchState> {
        if !self.score.tell(scores) {
            return Err(Error::Config(
                "tell: the scores of this run do not come by hand; set score.by_hand = true".into(),
            ));
        }
        let state = self.ask(path, queries, iterations)?;
        if let SearchState::Ended(log) = &state {
            self.reject_unused_scores(log)?;
        }
        Ok(state)
    }

    /// Fails if some of the scores given by `tell` are of items that a run which has ended never selected.
    fn reject_unused_scores(&self, log: &SearchLog) -> Result<()> {
        let no_items = DataFrame::new(0, vec![Column::new(DB_IDX.into(), Vec::<u64>::new())]).wrap_err("tell")?;
        let given = self.score.score(&no_items)?;
        let unused = self.ledger.unrequested_items(&given)?;
        let (Some(item), Some(ended)) = (unused.first(), &log.manifest().ended) else { return Ok(()) };
        if ended.reason == StopReason::Interrupted {
            return Err(Error::Interrupted);
        }
        let reason = format!(
            "the run has ended ({ended}) and took no scores: {} of the {} given items are not pending, for example {item}; to \
             continue the run, raise the stop condition that ended it (stop.evaluations, …) and tell the scores again",
            unused.len(),
            given.height(),
        );
        Err(Error::input(log.path(), reason))
    }
}
