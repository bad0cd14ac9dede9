//! The most items that the search of a run file can pay for, told before it begins.

use super::{Config, LearningRates, UpdateConfig};

/// What a surrogate asks at once where nothing is said, at most: a batch, or a random start.
const SURROGATE: u64 = 64;

impl Config {
    /// The most items that a search can pay for in a library of so many, from so many starting queries: whatever it meets,
    /// it asks for no more. An item counts once.
    pub fn most_items(&self, library: u64, queries: u64) -> u64 {
        let (at_first, branches) = self.most_of_an_iteration(queries);
        let most = library.min(self.stop.evaluations.unwrap_or(u64::MAX));
        let iterations = self.stop.most_iterations();
        if branches == 1 {
            return at_first.saturating_mul(iterations.into()).min(most);
        }
        let (mut items, mut asked) = (0u64, at_first);
        for _ in 0..iterations {
            items = items.saturating_add(asked);
            asked = asked.saturating_mul(branches);
            if items >= most || asked == 0 {
                break;
            }
        }
        items.min(most)
    }

    /// The most items that the first iteration asks for, and how many times as many each one after it does.
    fn most_of_an_iteration(&self, queries: u64) -> (u64, u64) {
        let scales = self.gradient.as_ref().map_or(1, |gradient| gradient.scales.len() as u64);
        let met = queries.saturating_mul(scales).saturating_mul(self.database.k as u64);
        match &self.update {
            UpdateConfig::Surrogate { batch: Some(batch), .. } => (*batch as u64, 1),
            UpdateConfig::Surrogate { batch: None, .. } => (SURROGATE.max(queries), 1),
            UpdateConfig::Rl { lr: LearningRates::Several(rates), .. } => (met, rates.len().max(1) as u64),
            UpdateConfig::Rl { lr: LearningRates::One(_), .. } | UpdateConfig::TopK { .. } => (met, 1),
            UpdateConfig::TopKDiscrete { k } => (met, (*k).max(1) as u64),
        }
    }
}
