//! The ask-and-tell interface, for manual scores: from a lab, from people, from a queue.

use std::path::Path;

use polars::prelude::{Column, DataFrame};

use super::Runner;
use crate::database::local_path;
use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::DB_IDX;
use crate::log::{SearchLog, StopReason};
use crate::score::without_unavailable;

/// The state of a search with manual scores.
pub enum SearchState {
    /// The search needs the scores of these items: `db_idx`, `embedding`, attributes.
    Pending(DataFrame),
    /// The search has ended. No item is pending.
    Ended(Box<SearchLog>),
}

impl Runner {
    /// Starts or resumes a run with manual scores, and runs it until it needs scores. Returns the same items until
    /// [`Runner::tell`] receives their scores.
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

    /// Stores the scores of all or some pending items durably, and continues the search. `scores` contains `db_idx` and `score`
    /// (null if the item failed), optionally `reason` and parts of the score. Items that have a score already are skipped. Items
    /// with the outcome `unavailable` stay pending.
    ///
    /// # Errors
    /// As [`Runner::resume`]; an item that is not pending, also if the run has ended; a score other than
    /// [`ManualScore`](crate::ManualScore).
    pub fn tell(
        &mut self,
        path: impl AsRef<Path>,
        queries: &DataFrame,
        iterations: u32,
        scores: &DataFrame,
    ) -> Result<SearchState> {
        if !self.score.tell(&without_unavailable(scores)?) {
            return Err(Error::Config(
                "tell: this run has a scorer, so it takes no manual scores; set score.by_hand = true in a new run"
                    .into(),
            ));
        }
        let state = self.ask(path, queries, iterations)?;
        if let SearchState::Ended(log) = &state {
            self.reject_unused_scores(log)?;
        }
        Ok(state)
    }

    /// Fails if the run has ended and some of the given scores belong to items that it never selected.
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
