//! The `Score` trait and its implementations: SQL, external commands, HTTP services, manual scores and weighted sums.

mod answer;
mod answers;
#[cfg(feature = "http")]
mod certificates;
mod command;
#[cfg(feature = "http")]
mod connect;
mod deadline;
#[cfg(feature = "http")]
mod endpoint;
mod external;
mod fault;
mod framing;
#[cfg(feature = "http")]
mod http;
mod json;
mod manual;
mod outage;
mod partial_sums;
mod process;
#[cfg(feature = "http")]
mod proxy;
mod reuse;
mod score_version;
#[cfg(feature = "http")]
mod secrets;
mod sql;
mod sum;
mod unexpected_output;
mod validation;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use polars::prelude::*;
use serde::{Deserialize, Serialize};

pub use self::command::{CommandMode, CommandScore};
pub use self::external::ExternalScore;
pub(crate) use self::external::ScorerClient;
pub use self::framing::CommandFormat;
#[cfg(feature = "http")]
pub use self::http::HttpScore;
pub use self::manual::ManualScore;
pub(crate) use self::partial_sums::PartialSums;
pub use self::reuse::ReuseOptions;
pub(crate) use self::reuse::ReusedScores;
pub use self::sql::SqlScore;
pub use self::sum::SumScore;
pub(crate) use self::validation::{given_items, is_part, numbers, score_request, split_failures, without_unavailable};
use crate::error::Result;
use crate::frame::schema::SCORE;

/// Scores items. A higher score is better (see `Runner::minimize`). A closure implements `Score`: it takes the items and
/// returns one number for each, in order.
///
/// The runner scores each item once per run. One call of the score is a request for some distinct items, with the columns
/// `db_idx`, `embedding` and the attributes.
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
/// let by_closure = density.score(&items)?;
/// let by_sql = SqlScore::new("qed / mw").score(&items)?;
/// assert!(by_closure.column("score")?.f64()?.equal_missing(by_sql.column("score")?.f64()?).all());
/// # Ok(())
/// # }
/// ```
pub trait Score: Send + Sync {
    /// Scores the items of a request. Returns a frame with these columns:
    ///
    /// - `score`: a number, nullable. Null, NaN and infinite scores are failures, which are data and not errors.
    /// - `db_idx`: required if the rows are not in the order of the items.
    /// - `outcome` (string, optional): `rejected` for an item that is not worth a score, `unavailable` for an item that the score
    ///   did not look at. Such an item is not evaluated: the run ends with
    ///   [`Error::Unavailable`](crate::Error::Unavailable) and keeps the other answers.
    /// - `reason` (string, optional): why a score is null.
    /// - columns of numbers or texts of other names: parts of the score, which the log stores. Columns whose names are already
    ///   used are ignored with a warning.
    ///
    /// # Errors
    /// Any error stops the run. [`Error::Unavailable`](crate::Error::Unavailable) means that the scorer was unavailable and
    /// did not process the items.
    fn score(&self, items: &DataFrame) -> Result<DataFrame>;

    /// Like [`Score::score`], but passes the answers to `sink`, each item once, possibly in several calls. The default
    /// implementation makes one call. [`ExternalScore`] calls `sink` before each retry and at the end. RequestAnswers that were
    /// passed to `sink` are kept even if an error follows. On success, items without an answer have failed. On an error,
    /// they count as not evaluated.
    ///
    /// # Errors
    /// As [`Score::score`], and any error from `sink`.
    fn score_into(&self, items: &DataFrame, sink: &mut AnswerSink<'_>) -> Result<()> {
        sink(self.score(items)?)
    }

    /// Returns the weighted sum, if this score is one. The runner then scores each part separately, with the part's own
    /// `batch_size` and `workers`.
    fn as_sum(&self) -> Option<&SumScore> {
        None
    }

    /// The columns that the score reads, if known.
    fn columns_read(&self) -> Vec<String> {
        Vec::new()
    }

    /// Validates the score before a search, with an empty frame, so that mistakes show early.
    ///
    /// # Errors
    /// The score cannot work on frames with these columns.
    fn check(&self, _items: &DataFrame) -> Result<()> {
        Ok(())
    }

    /// The maximum number of items in one request. If there are too few items for a full request to each of
    /// [`Score::workers`], they are spread evenly over all workers.
    fn batch_size(&self) -> usize {
        usize::MAX
    }

    /// The maximum number of concurrent requests.
    fn workers(&self) -> usize {
        1
    }

    /// Whether computing a score costs money or time (default: yes). If so, each answer is written to the run folder's ledger when
    /// it arrives, so that a crash loses none.
    fn is_paid(&self) -> bool {
        true
    }

    /// Whether scores are given manually: an item without a score stays pending instead of failing.
    fn is_manual(&self) -> bool {
        false
    }

    /// The number of items that were retried in this run because their answers did not arrive.
    fn retry_count(&self) -> u64 {
        0
    }

    /// Takes scores that the user gives. Returns `false` if this score does not accept any.
    fn tell(&self, _scores: &DataFrame) -> bool {
        false
    }

    /// Prepares for a run. Called before the run scores anything.
    fn begin(&mut self, _session: &Session) {}
}

/// Splits items into requests of at most the score's `batch_size`. If there are fewer full requests than workers, the items are
/// spread evenly over all workers.
pub(crate) fn split_requests(items: &DataFrame, score: &dyn Score) -> Vec<DataFrame> {
    let (rows, size, count) = (items.height(), score.batch_size().max(1), request_count(items.height(), score));
    let is_full = count == rows.div_ceil(size);
    let first_row =
        |request: usize| if is_full { request.saturating_mul(size).min(rows) } else { request * rows / count };
    (0..count)
        .map(|request| items.slice(first_row(request) as i64, first_row(request + 1) - first_row(request)))
        .collect()
}

/// The number of requests for this many items.
pub(crate) fn request_count(rows: usize, score: &dyn Score) -> usize {
    rows.div_ceil(score.batch_size().max(1)).max(score.workers().min(rows))
}

/// Receives answers for some of the items of a request, in the form that [`Score::score`] returns.
pub type AnswerSink<'a> = dyn FnMut(DataFrame) -> Result<()> + Send + 'a;

/// The run that a score works for.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Session {
    /// The identifier of the run. It survives a resume, and changes when failed items are retried.
    pub id: String,
    /// The folder in which the standard error of scorers is saved.
    pub stderr: PathBuf,
    /// Set to interrupt the run. A score that waits should poll it, and return
    /// [`Error::Interrupted`](crate::Error::Interrupted) when it is set.
    pub interrupt: Option<Arc<AtomicBool>>,
    /// Whether items of this run had answers before it was resumed.
    pub has_answers: bool,
}

/// How a run handles a failed item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The item's score is null and the run continues.
    #[default]
    Null,
    /// The run stops and keeps all other scores. The item is scored again when the run is resumed.
    Stop,
}

impl Score for Box<dyn Score> {
    fn score(&self, items: &DataFrame) -> Result<DataFrame> {
        (**self).score(items)
    }
    fn score_into(&self, items: &DataFrame, sink: &mut AnswerSink<'_>) -> Result<()> {
        (**self).score_into(items, sink)
    }
    fn as_sum(&self) -> Option<&SumScore> {
        (**self).as_sum()
    }
    fn columns_read(&self) -> Vec<String> {
        (**self).columns_read()
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
    fn is_manual(&self) -> bool {
        (**self).is_manual()
    }
    fn retry_count(&self) -> u64 {
        (**self).retry_count()
    }
    fn tell(&self, scores: &DataFrame) -> bool {
        (**self).tell(scores)
    }
    fn begin(&mut self, session: &Session) {
        (**self).begin(session);
    }
}

/// A value that a scoring closure may return: a frame, a series, a column, or numbers in order.
pub trait IntoScores {
    /// Converts to the frame that [`Score::score`] returns.
    ///
    /// # Errors
    /// The values do not form a frame.
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
    fn score(&self, items: &DataFrame) -> Result<DataFrame> {
        self(items)?.into_scores()
    }
}
