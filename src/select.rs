//! Which of the candidates are worth paying for.

use polars::prelude::DataFrame;

use crate::error::Result;
use crate::step::Step;

/// Chooses what is scored of the candidates: what the queries met and the filter let pass. Closures are selects:
/// `|step: &Step| Ok(step.results.head(Some(8)))`.
///
/// A rule that has a model of the scores brings its own ([`QueryUpdate::selector`](crate::QueryUpdate::selector));
/// without one, all candidates are scored.
pub trait Select: Send {
    /// The rows of `step.results` worth paying for, unchanged, in the order to be asked.
    ///
    /// # Errors
    /// Whatever should stop the run.
    fn select(&self, step: &Step<'_>) -> Result<DataFrame>;

    /// The attributes that it chooses by: it may be given no others. `None` (default) if it cannot say: it is given all.
    fn reads(&self) -> Option<Vec<String>> {
        None
    }
}

impl Select for Box<dyn Select> {
    fn select(&self, step: &Step<'_>) -> Result<DataFrame> {
        (**self).select(step)
    }
    fn reads(&self) -> Option<Vec<String>> {
        (**self).reads()
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
