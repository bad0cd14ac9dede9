//! How query vectors move: the `QueryUpdate` rules, in f64. Each rule has a room of its own.

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

pub use self::gradient::ScoreGradient;
pub use self::policy_gradient::Norm;
pub use self::prune::{Group, Prune, Pruned, TopKPrune, Worth};
pub use self::restart::Restarting;
pub use self::rl::RlUpdate;
pub use self::top_k::{TopKDiscreteUpdate, TopKUpdate};
use crate::database::VectorDatabase;
use crate::error::{Doing, Result};
use crate::frame::convert;
use crate::frame::schema::{self, QUERY_IDX};
use crate::select::Select;
use crate::step::Step;

/// What a rule is told before a search.
#[non_exhaustive]
pub struct Start<'a> {
    /// The library.
    pub database: &'a dyn VectorDatabase,
    /// Columns that the score or the filter reads: what is read of them is known already, or would give the score away.
    pub read: &'a [String],
    /// Items of which the score was paid for before (`score.reuse`) and costs nothing, the best first.
    pub known: &'a [u64],
    /// The budget that the run was started with, if it had one: items that may be paid for.
    pub planned: Option<u64>,
}

/// Gives the queries of the next iteration. Closures are rules:
/// `|step: &Step| Ok(step.queries.clone())`.
///
/// A rule that has a model of the scores may also choose which of the candidates are worth paying for
/// ([`QueryUpdate::selector`]).
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
/// // Every query goes to the best item that any of them met.
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
    /// The rule that this one adds to, if it does: `k`, `revisits`, `selector` and `check` are that rule's where this
    /// one does not say otherwise, as are `candidates` and `learned`. What begins and is observed, and the update, are this
    /// one's to hand on.
    fn inner(&self) -> Option<&dyn QueryUpdate> {
        None
    }

    /// How many neighbours each of so many queries should meet; as many as the database gives by itself where `None`.
    fn k(&self, queries: usize) -> Option<usize> {
        self.inner().and_then(|rule| rule.k(queries))
    }

    /// Whether queries may meet items that are booked (default): those that this run has scored, and those that were
    /// rejected or failed. Where not, each query meets its `k` nearest among the others.
    fn revisits(&self) -> bool {
        self.inner().is_none_or(|rule| rule.revisits())
    }

    /// How this rule chooses what is scored; all candidates are where `None` (default).
    fn selector(&self) -> Option<&dyn Select> {
        self.inner().and_then(|rule| rule.selector())
    }

    /// Called once before a search, so that settings that cannot be show early.
    ///
    /// # Errors
    /// Such settings.
    fn check(&self) -> Result<()> {
        self.inner().map_or(Ok(()), |rule| rule.check())
    }

    /// Forgets what it observed: another run begins, or one is resumed.
    ///
    /// # Errors
    /// Settings that do not fit the library.
    fn begin(&mut self, _start: &Start<'_>) -> Result<()> {
        Ok(())
    }

    /// Items that are candidates in the next iteration beside what the queries meet, by id; none by default.
    fn candidates(&self) -> &[u64] {
        self.inner().map_or(&[], |rule| rule.candidates())
    }

    /// What it has learned of how much each column says about the score: shares that sum to 1, the largest first. Nothing
    /// by default.
    fn learned(&self) -> Vec<(String, f32)> {
        self.inner().map_or_else(Vec::new, |rule| rule.learned())
    }

    /// How many iterations may be out when the next is chosen: chosen, and their scores not known yet (default 0). It may
    /// grow as more is observed, and never shrinks. Where it is not 0, [`QueryUpdate::update`] is called before its step is
    /// scored, with [`Step::out`], and what is out is observed later, in order. (Nothing is chosen ahead where scores come by hand.)
    fn behind(&self) -> usize {
        0
    }

    /// Learns from a committed iteration. Called for each, in order; replayed on resume.
    ///
    /// # Errors
    /// Whatever should stop the run.
    fn observe(&mut self, _step: &Step<'_>) -> Result<()> {
        Ok(())
    }

    /// Whether [`QueryUpdate::observe`] reads the embeddings of what was met (default). Where it does not, a run that goes on
    /// replays its iterations without the column `embedding`, which spares it fetching them again.
    fn observes_embeddings(&self) -> bool {
        true
    }

    /// The next queries frame: the same columns, vectors moved.
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
    fn begin(&mut self, start: &Start<'_>) -> Result<()> {
        (**self).begin(start)
    }
    fn behind(&self) -> usize {
        (**self).behind()
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

/// The same queries with other vectors; each is its own parent.
pub fn next_queries(queries: &DataFrame, vectors: ArrayView2<'_, f64>) -> Result<DataFrame> {
    let mut next = queries.clone();
    let parents = queries.column(QUERY_IDX).doing("queries")?.clone().with_name(schema::PARENT_IDX.into());
    next.with_column(parents).doing("queries")?;
    next.with_column(convert::embedding_column(vectors)?).doing("queries")?;
    Ok(next)
}
