//! The batch schedule: the size of the random start and of each batch, and when batches become asynchronous.

use super::bounded_fraction::BoundedFraction;
use super::few_values::MIN_SCORED_ANNOUNCED;
use super::observations::Observations;
use crate::error::{Error, Result};

/// The size of the random start, as a fraction of the library.
const START: BoundedFraction = BoundedFraction { one_in: 2000, min: 16, max: LARGEST_START };
/// The size of the largest random start.
pub(super) const LARGEST_START: u64 = 64;
/// A limit of the size of the random start, as a fraction of the budget.
const START_LIMIT: BudgetLimit = BudgetLimit { one_in: 6, min: 4 };
/// The size of a batch, as a fraction of the observations.
const BATCH: BoundedFraction = BoundedFraction { one_in: 20, min: 5, max: LARGEST_BATCH as u64 };
/// The size of the largest batch, unless it is configured.
pub(super) const LARGEST_BATCH: usize = 32;
/// A limit of the minimum size of a batch, as a fraction of the budget.
const BATCH_LIMIT: BudgetLimit = BudgetLimit { one_in: 40, min: 1 };

/// A limit on a size in runs with a budget of evaluations: one in `one_in` evaluations of the budget, but at least `min`.
struct BudgetLimit {
    one_in: u64,
    min: u64,
}

/// The batch sizes of a run by its number of observations.
#[derive(Clone, Debug, Default)]
pub(super) struct BatchSchedule {
    /// The configured batch size.
    pub batch: Option<usize>,
    /// The configured number of batches in flight when the next batch is chosen.
    pub behind: usize,
    /// The budget of evaluations that the run was started with.
    budget: Option<u64>,
    /// Whether the user announced that scores have few values.
    announces_few_values: bool,
    /// Whether the random start is short, because the scores have few values as announced.
    is_start_short: bool,
    /// The number of observations after each observed iteration.
    observed_after: Vec<usize>,
    /// The number of iterations of the random start, once it has ended.
    start_iterations: Option<usize>,
}

impl BatchSchedule {
    /// Checks the settings.
    ///
    /// # Errors
    /// A batch size of 0.
    pub fn check(&self) -> Result<()> {
        match self.batch {
            Some(0) => Err(Error::Config("update.batch: expected at least 1, found 0".into())),
            _ => Ok(()),
        }
    }

    /// Starts a run with a budget of evaluations, whose scores may be announced to have few values.
    pub fn begin(&mut self, budget: Option<u64>, announces_few_values: bool) {
        let (batch, behind) = (self.batch, self.behind);
        *self = BatchSchedule { batch, behind, budget, announces_few_values, ..BatchSchedule::default() };
    }

    /// Whether the next batch belongs to the random start, because there are too few observations for a model, or all their scores
    /// are equal.
    pub fn is_start(&self, observations: &Observations, library_size: u64) -> bool {
        observations.len() < self.start_size(library_size) || observations.are_scores_equal()
    }

    /// The size of a batch that is chosen when there are `observed` observations.
    pub fn batch_size(&self, observed: usize, queries: usize, library_size: u64) -> usize {
        if let Some(batch) = self.batch {
            return batch;
        }
        let min_size = self.limit_by_budget(BATCH_LIMIT, BATCH.min as usize);
        let start = self.start_size(library_size);
        match observed {
            0 => {
                let min = if self.announces_few_values { MIN_SCORED_ANNOUNCED } else { START.min as usize };
                self.limit_by_budget(START_LIMIT, queries.max(min))
            }
            observed if observed < start => (start - observed).max(min_size),
            observed => BoundedFraction { min: min_size as u64, ..BATCH }.of(observed as u64) as usize,
        }
    }

    /// The scheduled size of the next batch to be observed.
    pub fn observed_batch_size(&self, queries: usize, library_size: u64) -> usize {
        self.batch_size(self.observed_when_chosen(), queries, library_size)
    }

    /// Records that an iteration was observed.
    pub fn record(&mut self, observations: &Observations, library_size: u64) {
        self.observed_after.push(observations.len());
        self.is_start_short |= self.announces_few_values && observations.few_values().is_some();
        if self.start_iterations.is_none() && !self.is_start(observations, library_size) {
            self.start_iterations = Some(self.observed_after.len());
        }
    }

    /// The number of batches that may be in flight when the next one is chosen. 0 before there is a model.
    pub fn batches_in_flight(&self) -> usize {
        if self.start_iterations.is_some() { self.behind } else { 0 }
    }

    /// The number of observations at the time when the next batch to be observed was chosen. With asynchronous batches, earlier
    /// batches were in flight then, so this is less than the number of observations before that batch.
    fn observed_when_chosen(&self) -> usize {
        let next = self.observed_after.len();
        let iterations =
            self.start_iterations.map_or(next, |start| next.saturating_sub(self.behind).max(start).min(next));
        iterations.checked_sub(1).map_or(0, |last| self.observed_after[last])
    }

    /// The number of observations that end the random start.
    fn start_size(&self, library_size: u64) -> usize {
        let size = self.limit_by_budget(START_LIMIT, START.of(library_size) as usize);
        if self.is_start_short { size.min(MIN_SCORED_ANNOUNCED) } else { size }
    }

    /// Reduces a size to a limit, if the run has a budget. A size below the minimum of the limit stays as it is.
    fn limit_by_budget(&self, limit: BudgetLimit, size: usize) -> usize {
        let max = size as u64;
        let fraction = BoundedFraction { one_in: limit.one_in, min: limit.min.min(max), max };
        self.budget.map_or(size, |budget| fraction.of(budget) as usize)
    }
}
