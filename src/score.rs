//! What an item is worth: the `Score` that costs money, and the free ones.

mod answers;
mod command;
mod framing;
mod http;
mod json;
mod process;
mod retry;
mod reuse;
mod sum;

use std::path::Path;
use std::sync::Mutex;

use polars::prelude::*;
use serde::{Deserialize, Serialize};

pub use self::command::{CommandMode, CommandScore};
pub use self::framing::CommandFormat;
pub use self::http::HttpScore;
pub(crate) use self::reuse::Reusable;
pub use self::reuse::Reuse;
pub use self::sum::SumScore;
use crate::error::{Doing, Error, Result};
use crate::filter::evaluate;
use crate::schema::{DB_IDX, SCORE};

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

/// Scores that come from outside, in their own time: by hand, from a lab, from a queue. See
/// [`Runner::ask`](crate::Runner::ask) and [`Runner::tell`](crate::Runner::tell).
#[derive(Debug, Default)]
pub struct ByHand {
    told: Mutex<Option<DataFrame>>,
}

impl ByHand {
    /// Nothing told yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Score for ByHand {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let told = self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        Ok(told.unwrap_or_else(|| batch.head(Some(0)).select([DB_IDX]).unwrap_or_default()))
    }

    fn waits(&self) -> bool {
        true
    }

    fn tell(&self, scores: &DataFrame) -> bool {
        *self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(scores.clone());
        true
    }
}

/// A Polars SQL expression over the items' columns, or just a column's name.
#[derive(Clone, Debug)]
pub struct SqlScore {
    sql: String,
}

impl SqlScore {
    /// An expression such as `qed` or `0.5 * qed - abs(logp - 2.5)`.
    pub fn new(sql: impl Into<String>) -> Self {
        SqlScore { sql: sql.into() }
    }
}

impl Score for SqlScore {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let items = batch.clone().lazy();
        evaluate("score.sql", &self.sql, |expression| {
            // Beside a column of the batch, so that a constant is repeated for each item.
            items.with_columns([expression.alias(SCORE)]).select([col(SCORE)]).collect()
        })
    }

    fn check(&self, items: &DataFrame) -> Result<()> {
        let scored = self.score(items)?;
        let dtype = scored.column(SCORE).doing("score.sql")?.dtype();
        if dtype.is_primitive_numeric() || *dtype == DataType::Boolean || dtype.is_decimal() {
            return Ok(());
        }
        Err(Error::Config(format!("score.sql: expected a number of `{}`, found {dtype}", self.sql)))
    }

    fn is_paid(&self) -> bool {
        false
    }
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
