//! The summary of one iteration, for callbacks and progress lines.

use polars::prelude::DataFrame;

use crate::error::Result;
use crate::forecast::Forecast;
use crate::frame::outcome::Outcome;
use crate::frame::schema::{self, OUTCOME, SCORE};
use crate::hits::Hits;
use crate::log::StageTimes;

/// The figures of one iteration.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct IterationSummary {
    /// The iteration, from 0.
    pub iteration: u32,
    /// The number of rows of the scored frame.
    pub rows: usize,
    /// The number of items that no earlier iteration scored, rejected or failed to score.
    pub new_items: u64,
    /// The number of candidates before the filter.
    pub candidates: usize,
    /// The number of candidates that passed the filter.
    pub passed: usize,
    /// The number of rows with a rejected item.
    pub rejected: usize,
    /// The number of rows with a failed item.
    pub failed: usize,
    /// The number of evaluations of the run so far.
    pub evaluations: u64,
    /// The best score of the iteration.
    pub best: Option<f64>,
    /// The best score of the run so far, including iterations before it was resumed. `None` outside of callbacks.
    pub best_so_far: Option<f64>,
    /// The mean score of the iteration's rows.
    pub mean: Option<f64>,
    /// The forecast of entries that was made before the batch was scored. `None` for rules without a model, and while the run
    /// has fewer scores than [`Forecast::top`].
    pub forecast: Option<Forecast>,
    /// The forecast for the next 100 scores: those of this batch, and of further ones like it. `None` without a forecast.
    pub next_hundred: Option<Forecast>,
    /// The number of entries of the batch: scores that are better than the k-th best before the batch, with the k of
    /// [`Forecast::top`]. `None` without a forecast.
    pub entries: Option<u64>,
    /// The hits of the run so far. `None` without [`StopConditions::hit`](crate::StopConditions::hit).
    pub hits: Option<Hits>,
    /// The seconds that each stage took.
    pub times: StageTimes,
}

impl IterationSummary {
    /// Adds the figures of the scored frame, in which `new_items` are new.
    pub(super) fn with_scores(self, scored: &DataFrame, new_items: u64) -> Result<Self> {
        let scores = schema::nullable_f64s(scored, SCORE)?;
        let present: Vec<f64> = scores.iter().copied().flatten().collect();
        let rejected = match scored.column(OUTCOME).and_then(|outcomes| outcomes.str()) {
            Ok(outcomes) => outcomes.iter().filter(|outcome| *outcome == Some(Outcome::Rejected.name())).count(),
            // Runs of format 1 have no outcomes.
            Err(_) => 0,
        };
        Ok(IterationSummary {
            rows: scores.len(),
            new_items,
            rejected,
            failed: scores.len() - present.len() - rejected,
            best: present.iter().copied().max_by(f64::total_cmp),
            best_so_far: None,
            mean: (!present.is_empty()).then(|| present.iter().sum::<f64>() / present.len() as f64),
            ..self
        })
    }
}
