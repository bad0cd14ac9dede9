//! Update rules: the `UpdateRule` trait, and the rules that move query vectors (computed in f64).

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
pub use self::prune::{Aggregation, PruneUpdate, Pruner, QueryGroup, TopKPrune};
pub use self::restart::RestartUpdate;
pub use self::rl::RlUpdate;
pub use self::top_k::{TopKDiscreteUpdate, TopKUpdate};
use crate::database::VectorDatabase;
use crate::error::{Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::{self, QUERY_IDX};
use crate::select::Selector;
use crate::step::Step;

/// The search that a rule prepares for in [`UpdateRule::begin`].
#[non_exhaustive]
pub struct SearchContext<'a> {
    /// The library.
    pub database: &'a dyn VectorDatabase,
    /// Columns that the score or the filter reads. A model of the scores should ignore them: they add no information, or leak
    /// the score.
    pub columns_read: &'a [String],
    /// Ids of items with a score that is reused from an earlier run or file (`score.reuse`), the best first.
    pub reused: &'a [u64],
    /// The evaluation budget that the run was started with. `None`: no budget.
    pub planned_budget: Option<u64>,
    /// The threshold of a hit that the run was started with ([`StopConditions::hit`](crate::StopConditions::hit)), in the scorer's
    /// own direction.
    pub planned_hit: Option<f64>,
}

/// An update rule: learns from the scores and computes the queries of the next iteration. A closure implements `UpdateRule`:
/// `|step: &Step| Ok(step.queries.clone())`.
///
/// A rule with a model of the scores may also propose candidates ([`UpdateRule::candidates`]), and select which candidates are
/// scored ([`UpdateRule::selector`]).
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
/// // Every query moves to the best item of this iteration.
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
pub trait UpdateRule: Send {
    /// The rule that this one wraps, if there is one. `k`, `revisits`, `selector`, `check`, `candidates`, `relevance`,
    /// `explain` and `posterior_means` default to those of the inner rule. A wrapper must forward `begin`, `observe`,
    /// `observes_embeddings` and `update` itself.
    fn inner(&self) -> Option<&dyn UpdateRule> {
        None
    }

    /// The number of neighbours to find for each query, if there are `queries` queries. `None`: the default of the database.
    fn k(&self, queries: usize) -> Option<usize> {
        self.inner().and_then(|rule| rule.k(queries))
    }

    /// Whether queries find requested items again (default): items that this run scored, that were rejected, that failed or
    /// that are pending. If not, each query finds its `k` nearest neighbours among the other items.
    fn revisits(&self) -> bool {
        self.inner().is_none_or(|rule| rule.revisits())
    }

    /// The selector that chooses which candidates are scored. With `None` (default), all of them are scored.
    fn selector(&self) -> Option<&dyn Selector> {
        self.inner().and_then(|rule| rule.selector())
    }

    /// Checks the settings. Called once before a search.
    ///
    /// # Errors
    /// Invalid settings.
    fn check(&self) -> Result<()> {
        self.inner().map_or(Ok(()), |rule| rule.check())
    }

    /// Prepares for a run and deletes all observations. Called when a run starts or resumes.
    ///
    /// # Errors
    /// Settings that do not match the library.
    fn begin(&mut self, _context: &SearchContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Ids of candidates for the next iteration, in addition to the neighbours of the queries. Empty by default.
    fn candidates(&self) -> &[u64] {
        self.inner().map_or(&[], |rule| rule.candidates())
    }

    /// The learned relevance weight of each column. The weights sum to 1, the largest first. Empty by default.
    fn relevance(&self) -> Vec<(String, f32)> {
        self.inner().map_or_else(Vec::new, |rule| rule.relevance())
    }

    /// Explains what the rule's model predicts of items, in its present state. `items` has `db_idx`, `embedding` and
    /// `chosen_by`, which is null for items that were not chosen. `None` (default): the rule has no model.
    ///
    /// The result has at least one row for each item. [`Runner::explain`](crate::Runner::explain) lists the columns: all but
    /// those that come from the log.
    ///
    /// # Errors
    /// Items that the model cannot read.
    fn explain(&self, items: &DataFrame) -> Result<Option<DataFrame>> {
        self.inner().map_or(Ok(None), |rule| rule.explain(items))
    }

    /// The posterior mean of items by the rule's model, in its present state: `embeddings` is `(items, dim)`. The means order the
    /// items, but their unit is that of the model. `None` (default): the rule has no model, or none yet.
    ///
    /// # Errors
    /// Items that the model cannot read.
    fn posterior_means(&self, items: &[u64], embeddings: ArrayView2<'_, f32>) -> Result<Option<Vec<f64>>> {
        self.inner().map_or(Ok(None), |rule| rule.posterior_means(items, embeddings))
    }

    /// The number of batches that may be in flight when the next batch is selected (default 0). A batch is in flight while its
    /// evaluations are pending. The number may grow during a run, but must not shrink.
    ///
    /// With a number above 0, batches are asynchronous: [`UpdateRule::update`] is called before the scores of its step arrive,
    /// and receives the pending evaluations in [`Step::pending`]. The rule observes them later, in order. With manual scores,
    /// batches are always synchronous.
    fn batches_in_flight(&self) -> usize {
        0
    }

    /// Learns from a committed iteration. Called once for each iteration, in order. A resumed run replays these calls.
    ///
    /// # Errors
    /// Any error stops the run.
    fn observe(&mut self, _step: &Step<'_>) -> Result<()> {
        Ok(())
    }

    /// Whether [`UpdateRule::observe`] reads the embeddings of the results (default). If not, a resumed run replays its
    /// iterations without the column `embedding` and does not fetch the embeddings again.
    fn observes_embeddings(&self) -> bool {
        true
    }

    /// Computes the next queries frame, with the same columns.
    ///
    /// # Errors
    /// Any error stops the run.
    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame>;
}

impl<F> UpdateRule for F
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

impl UpdateRule for Box<dyn UpdateRule> {
    fn inner(&self) -> Option<&dyn UpdateRule> {
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
