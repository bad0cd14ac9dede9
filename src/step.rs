//! The state of one iteration, as selectors, pruners and update rules receive it.

use polars::prelude::DataFrame;

use crate::database::VectorDatabase;
use crate::random::{RandomStream, random_stream};

/// The state of one iteration, passed to [`Selector`](crate::Selector), [`Pruner`](crate::Pruner) and
/// [`UpdateRule`](crate::UpdateRule).
#[non_exhaustive]
pub struct Step<'a> {
    /// The iteration, from 0.
    pub iteration: u32,
    /// The queries of this iteration.
    pub queries: &'a DataFrame,
    /// The scored frame of the iteration. A [`Selector`](crate::Selector) receives the candidates that passed the filter,
    /// without scores. A rule with [`batches_in_flight`](crate::UpdateRule::batches_in_flight) receives the selected items,
    /// without scores while these are pending.
    pub results: &'a DataFrame,
    /// The pending evaluations of this and earlier iterations: a frame of selected items for each batch, without scores.
    /// Empty unless the rule has [`batches_in_flight`](crate::UpdateRule::batches_in_flight).
    pub pending: &'a [DataFrame],
    /// The library.
    pub database: &'a dyn VectorDatabase,
    /// The seed of the run.
    pub seed: u64,
    /// Whether a resumed run replays this iteration, which an earlier process committed. Rules print no warnings during a
    /// replay, because the earlier process printed them.
    pub is_replay: bool,
}

impl<'a> Step<'a> {
    /// The same iteration with other queries and results, for a stage that receives only some of them.
    pub fn with_frames(&self, queries: &'a DataFrame, results: &'a DataFrame) -> Self {
        Step { queries, results, ..*self }
    }

    /// An independent random stream for each `(seed, stage, iteration, query_idx)`. Neither threads nor resuming change the
    /// numbers.
    pub fn rng(&self, stage: &str, query_idx: u32) -> RandomStream {
        random_stream(self.seed, stage, self.iteration, query_idx)
    }
}
