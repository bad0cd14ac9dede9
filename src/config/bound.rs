//! The upper bound of a search's evaluations, known before it starts.

use super::{Config, LearningRates, UpdateConfig};

/// The largest batch of a surrogate without `update.batch`, including the random start.
const MAX_SURROGATE_BATCH: u64 = 64;

impl Config {
    /// The largest number of evaluations of a search in a library of `library_size` items that starts at `query_count`
    /// queries, whatever it finds. Each item counts once.
    pub fn max_evaluations(&self, library_size: u64, query_count: u64) -> u64 {
        let (first, branching) = self.max_batch(query_count);
        let limit = library_size.min(self.stop.evaluations.unwrap_or(u64::MAX));
        let iterations = self.stop.max_iterations();
        if branching == 1 {
            return first.saturating_mul(iterations.into()).min(limit);
        }
        let (mut evaluations, mut batch) = (0u64, first);
        for _ in 0..iterations {
            evaluations = evaluations.saturating_add(batch);
            batch = batch.saturating_mul(branching);
            if evaluations >= limit || batch == 0 {
                break;
            }
        }
        evaluations.min(limit)
    }

    /// The largest batch of the first iteration, and the factor by which later batches grow.
    fn max_batch(&self, query_count: u64) -> (u64, u64) {
        let scales = self.gradient.as_ref().map_or(1, |gradient| gradient.scales.len() as u64);
        let candidates = query_count.saturating_mul(scales).saturating_mul(self.database.k as u64);
        match &self.update {
            UpdateConfig::Surrogate { batch: Some(batch), .. } => (*batch as u64, 1),
            UpdateConfig::Surrogate { batch: None, .. } => (MAX_SURROGATE_BATCH.max(query_count), 1),
            UpdateConfig::Rl { lr: LearningRates::Several(rates), .. } => (candidates, rates.len().max(1) as u64),
            UpdateConfig::Rl { lr: LearningRates::One(_), .. } | UpdateConfig::TopK { .. } => (candidates, 1),
            UpdateConfig::TopKDiscrete { k } => (candidates, (*k).max(1) as u64),
        }
    }
}
