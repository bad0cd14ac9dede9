//! The upper bound of a search's evaluations, known before it starts.

use super::{Config, LearningRates, UpdateConfig};
use crate::surrogate::SurrogateUpdate;

impl Config {
    /// An upper bound on the evaluations of a search. The library has `library_size` items, and the search starts at
    /// `query_count` queries. Each item counts once.
    pub fn max_evaluations(&self, library_size: u64, query_count: u64) -> u64 {
        let (first_batch, growth) = self.max_batch(query_count);
        let limit = library_size.min(self.stop.evaluations.unwrap_or(u64::MAX));
        let iterations = self.stop.max_iterations();
        if growth == 1 {
            return first_batch.saturating_mul(iterations.into()).min(limit);
        }
        let (mut evaluations, mut batch) = (0u64, first_batch);
        for _ in 0..iterations {
            evaluations = evaluations.saturating_add(batch);
            batch = batch.saturating_mul(growth);
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
            UpdateConfig::Surrogate { batch: None, .. } => (SurrogateUpdate::LARGEST_START.max(query_count), 1),
            UpdateConfig::Rl { lr: LearningRates::Several(rates), .. } => (candidates, rates.len().max(1) as u64),
            UpdateConfig::Rl { lr: LearningRates::One(_), .. } | UpdateConfig::TopK { .. } => (candidates, 1),
            UpdateConfig::TopKDiscrete { k } => (candidates, (*k).max(1) as u64),
        }
    }
}
