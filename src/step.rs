//! One iteration, as the stages that decide see it.

use polars::prelude::DataFrame;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::database::VectorDatabase;

/// One iteration, as a [`Select`](crate::Select), a [`Prune`](crate::Prune) or a [`QueryUpdate`](crate::QueryUpdate)
/// sees it.
pub struct Step<'a> {
    /// Counts from 0.
    pub iteration: u32,
    /// The queries that were asked.
    pub queries: &'a DataFrame,
    /// What they met: the scored frame; for a [`Select`](crate::Select) what passed the filter, not scored yet; for an update
    /// that is [`behind`](crate::QueryUpdate::behind) what was chosen, if its scores are out.
    pub results: &'a DataFrame,
    /// What was chosen, this iteration's and earlier ones', and is not scored yet: for an update that is
    /// [`behind`](crate::QueryUpdate::behind).
    pub out: &'a [DataFrame],
    /// The library.
    pub database: &'a dyn VectorDatabase,
    /// The run's seed.
    pub seed: u64,
}

impl Step<'_> {
    /// A random stream of its own for each (seed, stage, iteration, query_idx), so that
    /// neither threads nor resuming change what is drawn.
    pub fn rng(&self, stage: &str, query_idx: u32) -> ChaCha8Rng {
        stream(self.seed, stage, self.iteration, query_idx)
    }
}

/// The random stream of one (seed, stage, iteration, query_idx).
pub fn stream(seed: u64, stage: &str, iteration: u32, query_idx: u32) -> ChaCha8Rng {
    let mut key = blake3::Hasher::new();
    key.update(&seed.to_le_bytes()).update(stage.as_bytes()).update(&[0]);
    key.update(&iteration.to_le_bytes()).update(&query_idx.to_le_bytes());
    ChaCha8Rng::from_seed(*key.finalize().as_bytes())
}
