//! What an item is worth: the `Score` that costs money, and the free ones.

mod answers;
mod by_hand;
mod command;
mod contract;
mod external;
mod framing;
mod http;
mod json;
mod process;
mod reuse;
mod sql;
mod sum;
mod trouble;
mod wait;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use polars::prelude::*;
use serde::{Deserialize, Serialize};

pub use self::by_hand::ByHand;
pub use self::command::{CommandMode, CommandScore};
pub(crate) use self::contract::{check_answers, without_failures};
pub(crate) use self::external::Ask;
pub use self::external::ExternalScore;
pub use self::framing::CommandFormat;
pub use self::http::HttpScore;
pub(crate) use self::reuse::Reusable;
pub use self::reuse::Reuse;
pub use self::sql::SqlScore;
pub use self::sum::SumScore;
use crate::error::Result;
use crate::schema::SCORE;

/// Scores items; higher is better (see `Runner::minimize`). Closures are scores:
/// they take the items and give one number for each, in order.
///
/// The runner asks for each item once per run. What it hands over are distinct items,
/// with the columns `db_idx`, `embedding` and the attributes.
pub trait Score: Send + Sync {
    /// The scores of a batch: a frame with `score` (a number, nullable) and, if rows are not in
    /// the order asked, `db_idx`; optionally `reason` (string: why a score is null) and numeric
    /// columns of other names, which are kept in the log as parts of the score.
    /// Null, NaN and infinite scores are failures: data, not errors.
    ///
    /// # Errors
    /// Whatever should stop the run.
    fn score(&self, batch: &DataFrame) -> Result<DataFrame>;

    /// Called once before a search, with a frame of no rows, so that mistakes show early.
    ///
    /// # Errors
    /// A score that cannot work on such frames.
    fn check(&self, _items: &DataFrame) -> Result<()> {
        Ok(())
    }

    /// The most items in one call of [`Score::score`].
    fn batch_size(&self) -> usize {
        usize::MAX
    }

    /// How many calls may run at a time.
    fn workers(&self) -> usize {
        1
    }

    /// Whether a score is worth keeping beyond a crash: if so, each finished batch is
    /// made durable in the run folder's ledger before the next is asked.
    fn is_paid(&self) -> bool {
        true
    }

    /// Whether an item that does not come back stays asked, instead of failing: scores by hand.
    fn waits(&self) -> bool {
        false
    }

    /// How many times an item was asked again, as its first answer did not come.
    fn asked_again(&self) -> u64 {
        0
    }

    /// Takes scores from outside; `false` if this score has no use for them.
    fn tell(&self, _scores: &DataFrame) -> bool {
        false
    }

    /// Told where a run keeps what scorers write to standard error, before it asks for anything.
    fn stderr_in(&self, _folder: &Path) {}

    /// Given the flag that interrupts the run, before it asks for anything. A score that may wait for long looks at it
    /// while it waits, and gives up with [`Error::Interrupted`](crate::Error::Interrupted): the batch then counts as not asked.
    fn interrupt(&mut self, _flag: Arc<AtomicBool>) {}
}

/// What a failed item does to a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// Its score is null, and the run goes on.
    #[default]
    Null,
    /// The run stops, with what was scored kept; the item is asked again when the run goes on.
    Stop,
}

/// What a scoring closure may return: a frame, a series, or plain numbers in order.
pub trait IntoScores {
    /// As the frame that [`Score::score`] gives.
    ///
    /// # Errors
    /// Values that make no frame.
    fn into_scores(self) -> Result<DataFrame>;
}

impl IntoScores for DataFrame {
    fn into_scores(self) -> Result<DataFrame> {
        Ok(self)
    }
}

impl IntoScores for Series {
    fn into_scores(self) -> Result<DataFrame> {
        Ok(self.with_name(SCORE.into()).into_frame())
    }
}

impl IntoScores for Column {
    fn into_scores(self) -> Result<DataFrame> {
        self.take_materialized_series().into_scores()
    }
}

impl IntoScores for Vec<f64> {
    fn into_scores(self) -> Result<DataFrame> {
        Series::new(SCORE.into(), self).into_scores()
    }
}

impl IntoScores for Vec<Option<f64>> {
    fn into_scores(self) -> Result<DataFrame> {
        Series::new(SCORE.into(), self).into_scores()
    }
}

impl<F, R> Score for F
where
    F: Fn(&DataFrame) -> Result<R> + Send + Sync,
    R: IntoScores,
{
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        self(batch)?.into_scores()
    }
}
