//! The `QueryUpdate` trait and the rules that move query vectors, in f64.

mod gradient;
mod lineage;
mod neighbours;
mod policy_gradient;
mod prune;
mod restart;
mod rl;
mod top_k;

use ndarray::ArrayView2;
use polars::prelude::DataFrame;

pub use self::gradient::GradientUpdate;
pub use self::policy_gradient::Norm;
pub use self::prune::{Aggregation, Prune, PruneUpdate, QueryGroup, TopKPrune};
pub use self::restart::RestartUpdate;
pub use self::rl::RlUpdate;
pub use self::top_k::{TopKDiscreteUpdate, TopKUpdate};
use crate::database::VectorDatabase;
use crate::error::{Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::{self, QUERY_IDX};
use crate::select::Select;
use crate::step::Step;

/// The search that a rule is about to take part in.
#[non_exhaustive]
pub struct SearchContext<'a> {
    /// The library.
    pub database: &'a dyn VectorDatabase,
    /// Columns that the score or the filter reads. A model should not read them: they add nothing, or leak the score.
    pub columns_read: &'a [String],
    /// Items whose scores are reused from earlier runs (`score.reuse`) at no cost, the best first.
    pub reused: &'a [u64],
    /// The budget that the run was started with, in evaluations, if it had one.
    pub planned_budget: Option<u64>,
}

/// A rule that gives the queries of the next iteration. Closures are rules:
/// `|step: &Step| Ok(step.queries.clone())`.
///
/// A rule that has a model of the scores may also select which candidates are evaluated ([`QueryUpdate::selector`]).
///
/// # Example
///
/// ```
/// use uphill::{IndexOptions, LanceDatabase, Runner, SqlScore, Step, polars::prelude::*};
/// # fn main() -> uphill::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("molecules.lance");
/// # uphill::index("data/molecules.parquet", &path, &IndexOptions::default())?;
/// let library = LanceDatabase::open(path.to_string_lossy())?;
/// let start = uphill::queries_at(&library, &[17, 400])?;
/// // Every query moves to the best item so far of this iteration.
/// let to_the_best = |step: &Step<'_>| {
///     let best_first = SortMultipleOptions::default().with_order_descending(true).with_nulls_last(true);
///     let best = step.results.sort(["score"], best_first)?.head(Some(1));
///     let embedding = uphill::matrix::<f32>(&best, "embedding")?.view().mapv(f64::from);
///     uphill::next_queries(step.queries, embedding.broadcast((step.queries.height(), embedding.ncols())).unwrap())
/// };
/// let log = Runner::new(library, SqlScore::new("qed"), to_the_best).search(&start, 3)?;
/// let last = log.queries(2)?;
/// let vectors = uphill::matrix::<f64>(&last, "embedding")?;
/// assert_eq!(vectors.view().row(0), vectors.view().row(1));
/// # Ok(())
/// # }
/// ```
pub trait QueryUpdate: Send {
    /// The rule that this one wraps, if there is one. `k`, `revisits`, `selector`, `check`, `candidates` and `relevance`
    /// default to those of the inner rule. A wrapper has to forward `begin`, `observe`, `observes_embeddings` and `update`
    /// itself.
    fn inner(&self) -> Option<&dyn QueryUpdate> {
        None
    }

    /// How many neighbours to find for each of so many queries. `None` is the default of the database.
    fn k(&self, queries: usize) -> Option<usize> {
        self.inner().and_then(|rule| rule.k(queries))
    }

    /// Whether queries may find items that are decided (default): scored by this run, rejected or failed. If not, each
    /// query finds its `k` nearest neighbours among the other items.
    fn revisits(&self) -> bool {
        self.inner().is_none_or(|rule| rule.revisits())
    }

    /// The selector that chooses which candidates are evaluated. With `None` (default) all of them are.
    fn selector(&self) -> Option<&dyn Select> {
        self.inner().and_then(|rule| rule.selector())
    }

    /// Checks the settings. Called once before a search, so that mistakes show early.
    ///
    /// # Errors
    /// Settings that are not valid.
    fn check(&self) -> Result<()> {
        self.inner().map_or(Ok(()), |rule| rule.check())
    }

    /// Forgets all observations. Called when a run starts or resumes.
    ///
    /// # Errors
    /// Settings that do not fit the library.
    fn begin(&mut self, _context: &SearchContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Ids of items that are candidates in the next iteration, in addition to the neighbours of the queries. Empty by default.
    fn candidates(&self) -> &[u64] {
        self.inner().map_or(&[], |rule| rule.candidates())
    }

    /// The learned relevance of each column for the score: weights that sum to 1, the largest first. Empty by default.
    fn relevance(&self) -> Vec<(String, f32)> {
        self.inner().map_or_else(Vec::new, |rule| rule.relevance())
    }

    /// The number of batches that may be in flight when the next batch is chosen (default 0): iterations whose items were
    /// chosen, but whose scores are pending. It may grow as more is observed, and never shrinks.
    ///
    /// If it is not 0, batches are asynchronous. [`QueryUpdate::update`] is called before its step is scored and receives the
    /// pending evaluations in [`Step::pending`]. They are observed later, in order. Batches are never asynchronous if scores are
    /// entered by hand.
    fn batches_in_flight(&self) -> usize {
        0
    }

    /// Learns from a committed iteration. Called once for each iteration, in order, and replayed on resume.
    ///
    /// # Errors
    /// Whatever should stop the run.
    fn observe(&mut self, _step: &Step<'_>) -> Result<()> {
        Ok(())
    }

    /// Whether [`QueryUpdate::observe`] reads the embeddings of the results (default). If not, a resumed run replays its
    /// iterations without the column `embedding` and does not fetch the embeddings again.
    fn observes_embeddings(&self) -> bool {
        true
    }

    /// The next queries frame: the same columns, with moved vectors.
    ///
    /// # Errors
    /// Whatever should stop the run.
    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame>;
}

impl<F> QueryUpdate for F
where
    F: Fn(&Step<'_>) -> Result<DataFrame> + Send,
{
    fn observes_embeddings(&self) -> bool {
        false
    }
    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        self(step)
    }
}

impl QueryUpdate for Box<dyn QueryUpdate> {
    fn inner(&self) -> Option<&dyn QueryUpdate> {
        Some(&**self)
    }
    fn begin(&mut self, context: &SearchContext<'_>) -> Result<()> {
        (**self).begin(context)
    }
    fn batches_in_flight(&self) -> usize {
        (**self).batches_in_flight()
    }
    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        (**self).observe(step)
    }
    fn observes_embeddings(&self) -> bool {
        (**self).observes_embeddings()
    }
    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        (**self).update(step)
    }
}

/// Replaces the vectors of queries. Each query is its own parent.
pub fn next_queries(queries: &DataFrame, vectors: ArrayView2<'_, f64>) -> Result<DataFrame> {
    let mut next = queries.clone();
    let parents = queries.column(QUERY_IDX).wrap_err("queries")?.clone().with_name(schema::PARENT_IDX.into());
    next.with_column(parents).wrap_err("queries")?;
    next.with_column(convert::embedding_column(vectors)?).wrap_err("queries")?;
    Ok(next)
}
