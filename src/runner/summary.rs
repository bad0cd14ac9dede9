//! The summary of one iteration, as callbacks and progress lines get it.

use polars::prelude::DataFrame;

use crate::error::Result;
use crate::forecast::Forecast;
use crate::frame::outcome::Outcome;
use crate::frame::schema::{self, OUTCOME, SCORE};
use crate::log::StageTimes;

/// One iteration in numbers.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct IterationSummary {
    /// Counts from 0.
    pub iteration: u32,
    /// Rows of the scored frame.
    pub rows: usize,
    /// Items that no earlier iteration decided.
    pub new: u64,
    /// Candidates: rows before the filter.
    pub candidates: usize,
    /// Candidates that passed the filter.
    pub passed: usize,
    /// Rows whose item was rejected.
    pub rejected: usize,
    /// Rows whose item failed.
    pub failed: usize,
    /// Items paid for so far in the run.
    pub evaluations: u64,
    /// The best score of the iteration.
    pub best: Option<f64>,
    /// The best score of the run so far, including iterations before it was resumed. `None` outside of callbacks.
    pub best_so_far: Option<f64>,
    /// The mean score of the iteration's rows.
    pub mean: Option<f64>,
    /// How many entries into the best scores were expected of the batch, before it was scored. `None` for rules without a
    /// model, and while fewer scores are known than count as best.
    pub forecast: Option<Forecast>,
    /// How many scores of the batch entered the best ones: those better than the last of them before the batch. `None`
    /// without a forecast.
    pub entries: Option<u64>,
    /// The seconds that each stage took.
    pub times: StageTimes,
}

impl IterationSummary {
    /// Adds the figures of the scored frame, in which `new` items are new.
    pub(super) fn with_scores(self, scored: &DataFrame, new: u64) -> Result<Self> {
        let scores = schema::nullable_f64s(scored, SCORE)?;
        let present: Vec<f64> = scores.iter().copied().flatten().collect();
        let rejected = match scored.column(OUTCOME).and_then(|outcomes| outcomes.str()) {
            Ok(outcomes) => outcomes.iter().filter(|outcome| *outcome == Some(Outcome::Rejected.name())).count(),
            // Runs of format 1 have no outcomes.
            Err(_) => 0,
        };
        Ok(IterationSummary {
            rows: scores.len(),
            new,
            rejected,
            failed: scores.len() - present.len() - rejected,
            best: present.iter().copied().max_by(f64::total_cmp),
            best_so_far: None,
            mean: (!present.is_empty()).then(|| present.iter().sum::<f64>() / present.len() as f64),
            ..self
        })
    }
}
