//! A batch: the items of one iteration, from their selection until the update rule has observed their scores.

use polars::prelude::DataFrame;

use super::summary::IterationSummary;
use crate::database::VectorDatabase;
use crate::error::Result;
use crate::ledger::{ScoreJob, without_scores};
use crate::step::Step;

/// An iteration whose items are selected.
pub(super) struct Batch {
    pub(super) iteration: u32,
    pub(super) queries: DataFrame,
    pub(super) state: BatchState,
    /// The predictions for its items, if the selector has a model.
    pub(super) predictions: Option<DataFrame>,
    /// The figures of the iteration. Complete once the batch is scored.
    pub(super) summary: IterationSummary,
    /// Whether an earlier process committed the iteration.
    pub(super) is_replay: bool,
}

/// The progress of a batch: selected, then in flight, then observed. A replayed batch is logged, then observed.
pub(super) enum BatchState {
    /// The items are selected. Their scores are not requested yet.
    Selected(DataFrame),
    /// The scores are requested.
    InFlight(ScoreJob),
    /// The scores are in the log of an earlier process. The rule has not observed them yet, and treats the batch as in flight.
    Logged(DataFrame),
    /// The rule has observed the scores.
    Observed(DataFrame),
}

impl Batch {
    /// The results that the rule may read: without scores until the rule observes them, then with scores.
    pub(super) fn visible_results(&self) -> Result<DataFrame> {
        match &self.state {
            BatchState::Selected(selected) => Ok(selected.clone()),
            BatchState::InFlight(job) => Ok(job.results.clone()),
            BatchState::Logged(scored) => without_scores(scored),
            BatchState::Observed(scored) => Ok(scored.clone()),
        }
    }

    /// The number of selected rows.
    pub(super) fn height(&self) -> usize {
        match &self.state {
            BatchState::InFlight(job) => job.results.height(),
            BatchState::Selected(frame) | BatchState::Logged(frame) | BatchState::Observed(frame) => frame.height(),
        }
    }

    /// The step that is passed to the rule.
    pub(super) fn step<'a>(
        &'a self,
        results: &'a DataFrame,
        pending: &'a [DataFrame],
        database: &'a dyn VectorDatabase,
        seed: u64,
    ) -> Step<'a> {
        let (iteration, queries, is_replay) = (self.iteration, &self.queries, self.is_replay);
        Step { iteration, queries, results, pending, database, seed, is_replay }
    }
}
