//! The `Selector` trait: chooses which candidates are scored.

use polars::prelude::DataFrame;

use crate::error::Result;
use crate::step::Step;

/// Chooses which candidates are scored. Candidates are the items that passed the filter. A closure implements `Selector`:
/// `|step: &Step| Ok(step.results.head(Some(8)))`.
///
/// A rule with a model of the scores has its own selector ([`UpdateRule::selector`](crate::UpdateRule::selector)). Without a
/// selector, all candidates are scored.
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
/// // Score the three heaviest of the twenty neighbours of two queries.
/// let heaviest = |step: &Step<'_>| {
///     Ok(step.results.sort(["mw"], SortMultipleOptions::default().with_order_descending(true))?.head(Some(3)))
/// };
/// let mut runner = Runner::new(library, SqlScore::new("qed"), RlUpdate::new(0.5)).select(heaviest);
/// let log = runner.search(&queries, 1)?;
/// assert_eq!(uphill::collect(log.compile_results()?)?.height(), 3);
/// # Ok(())
/// # }
/// ```
pub trait Selector: Send {
    /// Returns the rows of `step.results` to score, unchanged, in the order of scoring.
    ///
    /// A selector with a model may add a prediction to each row, as three nullable columns: `predicted` f64 (the expected
    /// score), `deviation` f64 (its standard deviation) and `chosen_by` string. They are logged with the scores, and forecasts
    /// are computed from them.
    ///
    /// # Errors
    /// Any error stops the run.
    fn select(&self, step: &Step<'_>) -> Result<DataFrame>;

    /// The attributes that the selector reads. The frame may lack all others. `None` (default) means all attributes.
    fn columns_read(&self) -> Option<Vec<String>> {
        None
    }
}

impl Selector for Box<dyn Selector> {
    fn select(&self, step: &Step<'_>) -> Result<DataFrame> {
        (**self).select(step)
    }
    fn columns_read(&self) -> Option<Vec<String>> {
        (**self).columns_read()
    }
}

impl<F> Selector for F
where
    F: Fn(&Step<'_>) -> Result<DataFrame> + Send,
{
    fn select(&self, step: &Step<'_>) -> Result<DataFrame> {
        self(step)
    }
}
