//! Which of the candidates are worth paying for.

use polars::prelude::DataFrame;

use crate::error::Result;
use crate::step::Step;

/// Chooses what is scored of the candidates: what the queries met and the filter let pass. Closures are selects:
/// `|step: &Step| Ok(step.results.head(Some(8)))`.
///
/// A rule that has a model of the scores brings its own ([`QueryUpdate::selector`](crate::QueryUpdate::selector));
/// without one, all candidates are scored.
///
/// # Example
///
/// ```
/// use uphill::{IndexOptions, LanceDatabase, RlUpdate, Runner, SqlScore, Step, polars::prelude::*};
/// # fn main() -> uphill::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("molecules.lance");
/// # uphill::index("data/molecules.parquet", &path, &IndexOptions::default())?;
/// let library = LanceDatabase::open(path.to_string_lossy())?;
/// let queries = uphill::queries_at(&library, &[17, 400])?;
/// // Of the twenty that two queries meet, the three heaviest are scored.
/// let heaviest = |step: &Step<'_>| {
///     Ok(step.results.sort(["mw"], SortMultipleOptions::default().with_order_descending(true))?.head(Some(3)))
/// };
/// let mut runner = Runner::new(library, SqlScore::new("qed"), RlUpdate::new(0.5)).select(heaviest);
/// let log = runner.search(&queries, 1)?;
/// assert_eq!(uphill::collect(log.compile_results()?)?.height(), 3);
/// # Ok(())
/// # }
/// ```
pub trait Select: Send {
    /// The rows of `step.results` worth paying for, unchanged, in the order to be asked.
    ///
    /// # Errors
    /// Whatever should stop the run.
    fn select(&self, step: &Step<'_>) -> Result<DataFrame>;

    /// The attributes that it chooses by: it may be given no others. `None` (default) if it cannot say: it is given all.
    fn columns_read(&self) -> Option<Vec<String>> {
        None
    }
}

impl Select for Box<dyn Select> {
    fn select(&self, step: &Step<'_>) -> Result<DataFrame> {
        (**self).select(step)
    }
    fn columns_read(&self) -> Option<Vec<String>> {
        (**self).columns_read()
    }
}

impl<F> Select for F
where
    F: Fn(&Step<'_>) -> Result<DataFrame> + Send,
{
    fn select(&self, step: &Step<'_>) -> Result<DataFrame> {
        self(step)
    }
}
