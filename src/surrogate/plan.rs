//! The plan of a search: the size of the random start and of each batch, and when batches become asynchronous.

use super::observations::Observations;
use crate::error::{Error, Result};

/// The size of the random start: one in so many items of the library, at least and at most so many items.
const START: (u64, u64, u64) = (2000, 16, 64);
/// With a budget, the start is at most one in so many evaluations of it, but at least so many.
const START_OF_BUDGET: (u64, u64) = (6, 4);
/// The size of a batch: one in so many of the observations, at least and at most so many items.
const BATCH: (usize, usize, usize) = (20, 5, LARGEST_BATCH);
/// The size of the largest batch, unless it is configured.
pub(super) const LARGEST_BATCH: usize = 32;
/// With a budget, the smallest batch is at most one in so many evaluations of it, but at least so many.
const BATCH_OF_BUDGET: (u64, u64) = (40, 1);

/// Batch sizes by the number of observations, and the history that they depend on.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// The configured batch size.
    pub batch: Option<usize>,
    /// The configured number of batches in flight when the next batch is chosen.
    pub behind: usize,
    /// The budget of evaluations that the run was started with.
    budget: Option<u64>,
    /// The number of observations after each observed iteration.
    observed_after: Vec<usize>,
    /// How many iterations had been observed when the first model was fitted.
    iterations_of_start: Option<usize>,
}

impl Plan {
    /// # Errors
    /// A batch of no items.
    pub fn check(&self) -> Result<()> {
        match self.batch {
            Some(0) => Err(Error::Config("update.batch: expected at least 1, found 0".into())),
            _ => Ok(()),
        }
    }

    /// Starts a run with a budget of evaluations.
    pub fn begin(&mut self, budget: Option<u64>) {
        *self = Plan { batch: self.batch, behind: self.behind, budget, ..Plan::default() };
    }

    /// Whether the next batch still belongs to the random start: there are too few observations for a model, or none has a
    /// score.
    pub fn is_start(&self, observations: &Observations, library_size: u64) -> bool {
        observations.len() < self.start_size(library_size) || observations.scored_count() == 0
    }

    /// The number of items in a batch that is chosen after so many observations.
    pub fn batch_size(&self, observed: usize, queries: usize, library_size: u64) -> usize {
        if let Some(batch) = self.batch {
            return batch;
        }
        let (share, smallest, largest) = BATCH;
        let smallest = self.limit_by_budget(BATCH_OF_BUDGET, smallest);
        let start = self.start_size(library_size);
        match observed {
            0 => self.limit_by_budget(START_OF_BUDGET, queries.max(START.1 as usize)),
            observed if observed < start => (start - observed).max(smallest),
            observed => (observed / share).clamp(smallest, largest),
        }
    }

    /// The planned size of the batch that is observed next.
    pub fn observed_batch_size(&self, queries: usize, library_size: u64) -> usize {
        self.batch_size(self.observed_when_chosen(), queries, library_size)
    }

    /// Records that an iteration was observed.
    pub fn record(&mut self, observations: &Observations, library_size: u64) {
        self.observed_after.push(observations.len());
        if self.iterations_of_start.is_none() && !self.is_start(observations, library_size) {
            self.iterations_of_start = Some(self.observed_after.len());
        }
    }

    /// The number of batches that may be in flight when the next is chosen: none before there is a model.
    pub fn batches_in_flight(&self) -> usize {
        if self.iterations_of_start.is_some() { self.behind } else { 0 }
    }

    /// The number of observations when the iteration was chosen that is observed next.
    fn observed_when_chosen(&self) -> usize {
        let next = self.observed_after.len();
        let iterations =
            self.iterations_of_start.map_or(next, |start| next.saturating_sub(self.behind).max(start).min(next));
        iterations.checked_sub(1).map_or(0, |last| self.observed_after[last])
    }

    /// The number of observations that end the random start.
    fn start_size(&self, library_size: u64) -> usize {
        let (share, least, most) = START;
        self.limit_by_budget(START_OF_BUDGET, (library_size / share).clamp(least, most) as usize)
    }

    /// `most`; with a budget, its share, but at least `least` and at most `most`.
    fn limit_by_budget(&self, (share, least): (u64, u64), most: usize) -> usize {
        self.budget.map_or(most, |budget| (budget / share).clamp(least.min(most as u64), most as u64) as usize)
    }
}
