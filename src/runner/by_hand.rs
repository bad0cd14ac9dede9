//! The loop when scores come from outside, in their own time: ask, tell, and again.

use std::path::Path;

use polars::prelude::{Column, DataFrame};

use super::Runner;
use crate::database::local_path;
use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::DB_IDX;
use crate::log::{SearchLog, StopReason};

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
        let path = &local_path(path)?;
        let ended = match path.join("run.json").exists() {
            true => self.resume(path, queries, iterations),
            false => self.search_into(path, queries, iterations),
        };
        match ended {
            Ok(log) => Ok(Asked::Ended(Box::new(log))),
            Err(Error::Pending { .. }) => Ok(Asked::Items(self.ledger.manual_items.take().unwrap_or_default())),
            Err(error) => Err(error),
        }
    }

    /// Takes scores of items that were asked, all or a part, makes them durable and goes on: `db_idx`,
    /// `score` (null if it failed), optionally `reason` and parts. What was told before is passed over.
    ///
    /// # Errors
    /// As [`Runner::resume`]; an item that does not wait, also where the run has ended; a score that does not come by hand
    /// ([`ManualScore`](crate::ManualScore)).
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
        let asked = self.ask(path, queries, iterations)?;
        if let Asked::Ended(log) = &asked {
            self.refuse_what_is_left(log)?;
        }
        Ok(asked)
    }

    /// Refuses scores that a run which has ended took none of. What was told before stands.
    fn refuse_what_is_left(&self, log: &SearchLog) -> Result<()> {
        let nothing = DataFrame::new(0, vec![Column::new(DB_IDX.into(), Vec::<u64>::new())]).wrap_err("tell")?;
        let told = self.score.score(&nothing)?;
        let left = self.ledger.unrequested_items(&told)?;
        let (Some(item), Some(ended)) = (left.first(), &log.manifest().ended) else { return Ok(()) };
        if ended.reason == StopReason::Interrupted {
            return Err(Error::Interrupted);
        }
        let reason = format!(
            "has ended ({ended}); nothing was taken: of the {} items told, {} do not wait, such as {item}; if the run is to go \
             further, raise what it stops at (stop.evaluations, …) and tell them again",
            told.height(),
            left.len()
        );
        Err(Error::input(log.path(), reason))
    }
}
