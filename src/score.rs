//! What an item is worth: the `Score` that costs money, and the free ones.

mod answers;
mod by_hand;
#[cfg(feature = "http")]
mod certificates;
mod command;
#[cfg(feature = "http")]
mod connect;
mod contract;
mod external;
mod framing;
#[cfg(feature = "http")]
mod http;
mod json;
mod partial;
mod patience;
mod process;
#[cfg(feature = "http")]
mod proxy;
mod reuse;
#[cfg(feature = "http")]
mod route;
#[cfg(feature = "http")]
mod secrets;
mod sql;
mod stray;
mod sum;
mod trouble;
mod wait;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use polars::prelude::*;
use serde::{Deserialize, Serialize};

pub use self::by_hand::ByHand;
pub use self::command::{CommandMode, CommandScore};
pub(crate) use self::contract::{ask, is_part, items_told, number, without_failures};
pub(crate) use self::external::Ask;
pub use self::external::ExternalScore;
pub use self::framing::CommandFormat;
#[cfg(feature = "http")]
pub use self::http::HttpScore;
pub(crate) use self::partial::PartialSums;
pub(crate) use self::reuse::Reusable;
pub use self::reuse::Reuse;
pub use self::sql::SqlScore;
pub use self::sum::SumScore;
use crate::error::Result;
use crate::frame::schema::SCORE;

/// Scores items; higher is better (see `Runner::minimize`). Closures are scores:
/// they take the items and give one number for each, in order.
///
/// The runner asks for each item once per run. What it hands over are distinct items,
/// with the columns `db_idx`, `embedding` and the attributes.
///
/// # Example
///
/// ```
/// use uphill::{IndexOptions, LanceDatabase, Score, SqlScore, VectorDatabase, polars::prelude::*};
/// # fn main() -> uphill::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("molecules.lance");
/// # uphill::index("data/molecules.parquet", &path, &IndexOptions::default())?;
/// let library = LanceDatabase::open(path.to_string_lossy())?;
/// let items = library.take(&[3, 5])?;
///
/// // A function of the frame, and the same in SQL.
/// let density = |items: &DataFrame| -> uphill::Result<Vec<f64>> {
///     let (weights, qed) = (items.column("mw")?.f64()?.clone(), items.column("qed")?.f64()?.clone());
///     Ok(qed.into_no_null_iter().zip(weights.into_no_null_iter()).map(|(qed, weight)| qed / weight).collect())
/// };
/// let ours = density.score(&items)?;
/// let sql = SqlScore::new("qed / mw").score(&items)?;
/// assert!(ours.column("score")?.f64()?.equal_missing(sql.column("score")?.f64()?).all());
/// # Ok(())
/// # }
/// ```
pub trait Score: Send + Sync {
    /// The scores of a batch: a frame with `score` (a number, nullable) and, if rows are not in
    /// the order asked, `db_idx`; optionally `outcome` (string: `rejected` for an item that is not worth a score),
    /// `reason` (string: why a score is null) and numeric columns of other names, which are kept in the log as
    /// parts of the score. Null, NaN and infinite scores are failures: data, not errors. Columns whose names are taken
    /// are left out, with a warning.
    ///
    /// # Errors
    /// Whatever should stop the run; [`Error::Away`](crate::Error::Away) if nobody looked at the items.
    fn score(&self, batch: &DataFrame) -> Result<DataFrame>;

    /// As [`Score::score`], handing over answers as they come, each item once: what was handed over is kept, whatever comes
    /// after it. An item that was not handed over by the end has failed; if the end is an error, it was not asked.
    ///
    /// # Errors
    /// As [`Score::score`], and those of `keep`.
    fn score_into(&self, batch: &DataFrame, keep: &mut Keep<'_>) -> Result<()> {
        keep(self.score(batch)?)
    }

    /// The sum that this is, if it is one: its parts are then asked for one by one, each as it says of itself.
    fn sum(&self) -> Option<&SumScore> {
        None
    }

    /// The columns that it is computed from, as far as it can say.
    fn reads(&self) -> Vec<String> {
        Vec::new()
    }

    /// Called once before a search, with a frame of no rows, so that mistakes show early.
    ///
    /// # Errors
    /// A score that cannot work on such frames.
    fn check(&self, _items: &DataFrame) -> Result<()> {
        Ok(())
    }

    /// The most items in one call of [`Score::score`]. Where there are fewer than would fill a batch for each of
    /// [`Score::workers`], they are spread over as many calls as there are workers.
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

    /// How many times an item was tried again in this run, as its answer did not come.
    fn retried(&self) -> u64 {
        0
    }

    /// Takes scores from outside; `false` if this score has no use for them.
    fn tell(&self, _scores: &DataFrame) -> bool {
        false
    }

    /// Told of a run before it asks for anything.
    fn begin(&mut self, _session: &Session) {}
}

/// Items in batches of the score's size; where there are fewer such batches than workers, all workers get as much.
pub(crate) fn batches(items: &DataFrame, score: &dyn Score) -> Vec<DataFrame> {
    let (rows, size, count) = (items.height(), score.batch_size().max(1), batch_count(items.height(), score));
    let is_full = count == rows.div_ceil(size);
    let first = |batch: usize| if is_full { batch.saturating_mul(size).min(rows) } else { batch * rows / count };
    (0..count).map(|batch| items.slice(first(batch) as i64, first(batch + 1) - first(batch))).collect()
}

/// How many batches so many items make.
pub(crate) fn batch_count(rows: usize, score: &dyn Score) -> usize {
    rows.div_ceil(score.batch_size().max(1)).max(score.workers().min(rows))
}

/// Takes answers as [`Score::score`] gives them, of some of the items.
pub type Keep<'a> = dyn FnMut(DataFrame) -> Result<()> + Send + 'a;

/// A run, as the score sees it that it is going to ask.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Session {
    /// Names the run, also when it goes on after a stop; another name where failed items are asked again.
    pub id: String,
    /// The folder for what scorers write to standard error.
    pub stderr: PathBuf,
    /// Set to interrupt the run. A score that may wait for long looks at it while it waits, and gives up with
    /// [`Error::Interrupted`](crate::Error::Interrupted).
    pub interrupt: Option<Arc<AtomicBool>>,
    /// Whether items of this run were answered before it was stopped.
    pub answered: bool,
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

impl Score for Box<dyn Score> {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        (**self).score(batch)
    }
    fn score_into(&self, batch: &DataFrame, keep: &mut Keep<'_>) -> Result<()> {
        (**self).score_into(batch, keep)
    }
    fn sum(&self) -> Option<&SumScore> {
        (**self).sum()
    }
    fn reads(&self) -> Vec<String> {
        (**self).reads()
    }
    fn check(&self, items: &DataFrame) -> Result<()> {
        (**self).check(items)
    }
    fn batch_size(&self) -> usize {
        (**self).batch_size()
    }
    fn workers(&self) -> usize {
        (**self).workers()
    }
    fn is_paid(&self) -> bool {
        (**self).is_paid()
    }
    fn waits(&self) -> bool {
        (**self).waits()
    }
    fn retried(&self) -> u64 {
        (**self).retried()
    }
    fn tell(&self, scores: &DataFrame) -> bool {
        (**self).tell(scores)
    }
    fn begin(&mut self, session: &Session) {
        (**self).begin(session);
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
