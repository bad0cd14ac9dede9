//! Forecasts how much the next scores will improve the top k of a run.
//!
//! An *entry* is a score that is better than the k-th best score known before its batch, `tau`. A rule with a model predicts each
//! item before it is scored: the columns `predicted` (mean) and `deviation` (standard deviation) of the results. The
//! probability that an item is an entry, and the expected number of entries of a batch, are
//!
//! ```text
//! p_i = min(1, r * q_i)      E = sum_i p_i      r = (S + 1) / (F + 1), from 0.1 to 2
//! q_i = (2 Phi(-z_i) + sum_j w_j [e_j > z_i]) / (2 + sum_j w_j)
//! z_i = (tau - predicted_i) / deviation_i       e_j = (score_j - predicted_j) / deviation_j
//! ```
//!
//! Both corrections are learned from the earlier batches of the run. The residuals `e_j` replace the normal distribution: a model
//! chooses what it overestimates, and its deviations may be wrong. The factor `r` corrects what is left: `S` is the number of
//! entries of the earlier batches, and `F` the sum of their `q`. Weights and sums decay by 0.8 per batch. An item
//! without a prediction has `p_i = 0`. So have all items once the k best scores are equal (k > 1), because scores of few values
//! have then reached the highest one.
//!
//! Given `r`, items are taken as independent, so the number of entries has a Poisson binomial distribution. `r` is uncertain by
//! `1 / sqrt(S + 1)` of itself, which widens the interval.
//!
//! The forecast of the next hundred scores repeats the batch. Entries raise the threshold: for the batch after `j` others, it is
//! the lowest score `t` of the top k for which fewer than k scores are above it, counting `j E(t)` new ones. `E(t)` is the
//! expected number of scores of the batch above `t`. Later batches differ, so `r` is uncertain by another 0.3 of itself.
//!
//! Everything is computed from the log, so a resumed run makes the same forecasts as an uninterrupted run.

mod counts;
mod forecaster;
mod residuals;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use self::forecaster::{BatchForecast, Forecaster};

/// The factor by which the weights of earlier batches decay per batch.
const DECAY: f64 = 0.8;
/// From this number of scores per entry on, texts have no digits.
pub(crate) const MAX_SHOWN_SCORES_PER_ENTRY: f64 = 1e6;

/// The expected number of entries among the next scores. An entry is a score that is better than the `top`-th best score so
/// far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Forecast {
    /// The number of best scores that entries improve.
    pub top: usize,
    /// The number of next scores.
    pub items: usize,
    /// The expected number of entries.
    pub entries: f64,
    /// The interval of the number of entries, both ends included.
    low: u64,
    high: u64,
}

impl Forecast {
    /// The interval that contains the number of entries with a probability of nearly 80 %. Includes both ends.
    pub fn interval(&self) -> (u64, u64) {
        (self.low, self.high)
    }

    /// The expected number of scores per entry.
    pub fn scores_per_entry(&self) -> f64 {
        self.items as f64 / self.entries
    }

    /// The expected number of entries as text. Small numbers have a decimal.
    pub(crate) fn entries_text(&self) -> String {
        let decimals = if self.entries < 10.0 { 1 } else { 0 };
        format!("{:.decimals$}", self.entries)
    }

    /// `: 11 scores each`. Empty for a number that is too large to show.
    pub(crate) fn scores_per_entry_text(&self) -> String {
        match self.scores_per_entry() {
            scores if scores < MAX_SHOWN_SCORES_PER_ENTRY => format!(": {scores:.0} scores each"),
            _ => String::new(),
        }
    }

    /// The forecast for items that are entries with these probabilities. `deviation` is the relative standard deviation of
    /// a common factor of the probabilities.
    fn new(top: usize, probabilities: &[f64], deviation: f64) -> Self {
        let (low, high) = counts::interval(probabilities, deviation);
        Forecast { top, items: probabilities.len(), entries: probabilities.iter().sum(), low, high }
    }
}

/// `the next 100 scores are expected to bring 9 entries into the best 100 (6 to 13): 11 scores each`
impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Forecast { top, items, low, high, .. } = *self;
        let (entries, each) = (self.entries_text(), self.scores_per_entry_text());
        write!(
            f,
            "the next {items} scores are expected to bring {entries} entries into the best {top} ({low} to {high}){each}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_reads_as_a_sentence() {
        // scipy.stats.binom(100, 0.09): 0.77 from 6 to 12, 0.85 from 5 to 12.
        let forecast = Forecast::new(100, &[0.09; 100], 0.0);
        let expected =
            "the next 100 scores are expected to bring 9.0 entries into the best 100 (6 to 12): 11 scores each";
        assert_eq!(forecast.to_string(), expected);
    }
}
