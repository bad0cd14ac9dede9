//! `Select`: chooses which candidates are scored.

use polars::prelude::DataFrame;

use crate::error::Result;
use crate::step::Step;

/// Chooses which candidates are scored. Candidates are the neighbours of the queries that passed the filter. Closures are
/// selects: `|step: &Step| Ok(step.results.head(Some(8)))`.
///
/// A rule with a model of the scores has its own ([`QueryUpdate::selector`](crate::QueryUpdate::selector)). Without a select,
/// all candidates are scored.
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
pub trait Select: Send {
    /// Returns the rows of `step.results` to score, unchanged, in the order of scoring.
    ///
    /// A selector with a model may add what it predicts of each row, as three columns: `predicted` f64 (the expected score,
    /// nullable), `deviation` f64 (its standard deviation, nullable) and `chosen_by` string (nullable). They are logged beside
    /// the scores, and forecasts are made of them.
    ///
    /// # Errors
    /// Any error stops the run.
    fn select(&self, step: &Step<'_>) -> Result<DataFrame>;

    /// The attributes that the select reads. The frame may have no others. `None` (default) means all attributes.
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
