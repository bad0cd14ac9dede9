//! One iteration, as the stages that decide see it.

use polars::prelude::DataFrame;

use crate::database::VectorDatabase;
use crate::random::{RandomStream, random_stream};

/// One iteration, as a [`Select`](crate::Select), a [`Prune`](crate::Prune) or a [`QueryUpdate`](crate::QueryUpdate)
/// sees it.
#[non_exhaustive]
pub struct Step<'a> {
    /// Counts from 0.
    pub iteration: u32,
    /// The queries that were asked.
    pub queries: &'a DataFrame,
    /// What they met: the scored frame; for a [`Select`](crate::Select) what passed the filter, not scored yet; for an update
    /// with [`batches_in_flight`](crate::QueryUpdate::batches_in_flight) what was chosen, if its scores are out.
    pub results: &'a DataFrame,
    /// What was chosen, this iteration's and earlier ones', and is not scored yet: for an update with
    /// [`batches_in_flight`](crate::QueryUpdate::batches_in_flight).
    pub pending: &'a [DataFrame],
    /// The library.
    pub database: &'a dyn VectorDatabase,
    /// The run's seed.
    pub seed: u64,
    /// Whether it was observed before: a run that goes on replays what is committed. Of such a step a rule says nothing on
    /// screen, as it said it then.
    pub is_replay: bool,
}

impl<'a> Step<'a> {
    /// The same iteration as a stage sees it that is given other queries and results.
    pub fn with_frames(&self, queries: &'a DataFrame, results: &'a DataFrame) -> Self {
        Step { queries, results, ..*self }
    }

    /// A random stream of its own for each (seed, stage, iteration, query_idx), so that
    /// neither threads nor resuming change what is drawn.
    pub fn rng(&self, stage: &str, query_idx: u32) -> RandomStream {
        random_stream(self.seed, stage, self.iteration, query_idx)
    }
}
