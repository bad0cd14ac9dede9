//! The loop when scores come from outside, in their own time: ask, tell, and again.

use std::path::Path;

use polars::prelude::DataFrame;

use super::Runner;
use crate::database::on_disk;
use crate::error::{Error, Result};
use crate::log::SearchLog;

/// Where a run by hand stands.
pub enum Asked {
    /// Items that wait for their scores: `db_idx`, `embedding`, attributes.
    Items(DataFrame),
    /// Nothing waits: the run has ended.
    Ended(Box<SearchLog>),
}

impl Runner {
    /// Starts a run whose scores come by hand, or goes on with it, as far as it goes without them.
    /// Asked again before it is told, it gives the same items.
    ///
    /// # Errors
    /// As [`Runner::search_into`] and [`Runner::resume`].
    pub fn ask(&mut self, path: impl AsRef<Path>, queries: &DataFrame, iterations: u32) -> Result<Asked> {
        let path = &on_disk(path)?;
        let ended = match path.join("run.json").exists() {
            true => self.resume(path, queries, iterations),
            false => self.search_into(path, queries, iterations),
        };
        match ended {
            Ok(log) => Ok(Asked::Ended(Box::new(log))),
            Err(Error::Waiting { .. }) => Ok(Asked::Items(self.ledger.waiting.take().unwrap_or_default())),
            Err(error) => Err(error),
        }
    }

    /// Takes scores of items that were asked, all or a part, makes them durable and goes on: `db_idx`,
    /// `score` (null if it failed), optionally `reason` and parts. What was told before is passed over.
    ///
    /// # Errors
    /// As [`Runner::resume`]; an item that does not wait; a score that does not come by hand ([`ByHand`](crate::ByHand)).
    pub fn tell(
        &mut self,
        path: impl AsRef<Path>,
        queries: &DataFrame,
        iterations: u32,
        scores: &DataFrame,
    ) -> Result<Asked> {
        if !self.score.tell(scores) {
            return Err(Error::Config("tell: this run's scores do not come by hand (score.by_hand = true)".into()));
        }
        self.ask(path, queries, iterations)
    }
}
