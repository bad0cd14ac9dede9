//! Forecasts how much the next scores will improve the top k of a run.
//!
//! An *entry* is a score that is better than the k-th best score known before its batch, `tau`. A rule with a model predicts each
//! item before it is scored: the columns `predicted` (mean) and `deviation` (standard deviation) of the results. The
//! probability that an item is an entry, and the expected number of entries of a batch, are
//!
//! ```text
//! p_i = min(1, r * Phi((predicted_i - tau) / deviation_i))      E = sum_i p_i      r = (S + 1) / (F + 1), from 0.1 to 2
//! ```
//!
//! The factor `r` corrects the model by how it did in this run: `S` is the number of entries of the earlier batches, and `F` the
//! sum of their `Phi`. Both sums decay by 0.8 per batch. An item without a prediction has `p_i = 0`. Items are taken as
//! independent, so the number of entries has a Poisson binomial distribution. Everything is computed from the log, so a resumed
//! run makes the same forecasts as an uninterrupted run.

use std::fmt;

use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::frame::schema::{self, DEVIATION, PREDICTED, SCORE};
use crate::prediction;

/// The factor by which the sums over earlier batches decay per batch.
const DECAY: f64 = 0.8;
/// Pseudo-count of both sums. It keeps the correction near 1 while the run has few batches.
const PRIOR: f64 = 1.0;
/// The least probability of the interval of a forecast.
const COVERAGE: f64 = 0.8;
/// The number of scores that a summary forecasts.
const SUMMARY_ITEMS: usize = 100;
/// From this number of scores per entry on, texts have no digits.
pub(crate) const MAX_SHOWN_PRICE: f64 = 1e6;

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
    /// The interval for the next 100 scores.
    #[serde(skip)]
    per_hundred: (u64, u64),
}

impl Forecast {
    /// The shortest interval that contains the number of entries with a probability of at least 80 %. Includes both ends.
    pub fn interval(&self) -> (u64, u64) {
        (self.low, self.high)
    }

    /// The expected number of scores per entry.
    pub fn scores_per_entry(&self) -> f64 {
        self.items as f64 / self.entries
    }

    /// The forecast for the next 100 scores, at the same rate.
    pub fn per_hundred(&self) -> Self {
        let entries = self.entries * SUMMARY_ITEMS as f64 / self.items.max(1) as f64;
        let (low, high) = self.per_hundred;
        Forecast { items: SUMMARY_ITEMS, entries, low, high, ..*self }
    }

    /// The expected number of entries as text. Small numbers have a decimal.
    pub(crate) fn entries_text(&self) -> String {
        let decimals = if self.entries < 10.0 { 1 } else { 0 };
        format!("{:.decimals$}", self.entries)
    }

    /// `: 11 scores each`. Empty for a number that is too large to show.
    pub(crate) fn price_text(&self) -> String {
        match self.scores_per_entry() {
            price if price < MAX_SHOWN_PRICE => format!(": {price:.0} scores each"),
            _ => String::new(),
        }
    }

    /// The forecast for items that are entries with these probabilities.
    fn new(top: usize, probabilities: &[f64]) -> Self {
        let (low, high) = shortest_interval(&poisson_binomial(probabilities));
        let hundred: Vec<f64> = probabilities.iter().copied().cycle().take(SUMMARY_ITEMS).collect();
        let per_hundred = shortest_interval(&poisson_binomial(&hundred));
        Forecast { top, items: probabilities.len(), entries: probabilities.iter().sum(), low, high, per_hundred }
    }
}

/// `the next 100 scores are expected to bring 9 entries into the best 100 (6 to 13): 11 scores each`
impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Forecast { top, items, low, high, .. } = *self;
        let (entries, each) = (self.entries_text(), self.price_text());
        write!(
            f,
            "the next {items} scores are expected to bring {entries} entries into the best {top} ({low} to {high}){each}"
        )
    }
}

/// The entries of a scored batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchEntries {
    /// The number of scored items.
    items: usize,
    /// The number of entries that the forecast for the batch expected.
    pub expected: f64,
    /// The number of entries that came.
    pub observed: u64,
}

/// Makes forecasts from the scored frames of a run, which it observes in the order of iterations.
#[derive(Clone, Debug)]
pub(crate) struct Forecaster {
    top: usize,
    /// The best scores so far, at most `top`, the best first.
    best: Vec<f64>,
    /// The expected entries of earlier batches without the correction, decayed.
    expected: f64,
    /// The entries of the same batches, decayed.
    observed: f64,
    /// The entries of all batches that had a forecast.
    batches: Vec<BatchEntries>,
}

impl Forecaster {
    /// Forecasts of entries into the best `top`.
    pub fn new(top: usize) -> Self {
        Forecaster { top, best: Vec::new(), expected: 0.0, observed: 0.0, batches: Vec::new() }
    }

    /// The forecast for a batch before it is scored. `None` without predictions, or while the run has fewer than `top` scores.
    ///
    /// # Errors
    /// Prediction columns of another type than f64.
    pub fn forecast(&self, predictions: &DataFrame) -> Result<Option<Forecast>> {
        let Some(probabilities) = self.probabilities(predictions)? else { return Ok(None) };
        Ok(Some(Forecast::new(self.top, &self.corrected(&probabilities))))
    }

    /// Learns from a scored batch. Returns its entries, if there is a forecast for it.
    ///
    /// # Errors
    /// Columns of another type than f64.
    pub fn observe(&mut self, scored: &DataFrame) -> Result<Option<BatchEntries>> {
        let scores: Vec<f64> = schema::nullable_f64s(scored, SCORE)?.into_iter().flatten().collect();
        let mut entries = None;
        if let (Some(threshold), Some(probabilities)) = (self.threshold(), self.probabilities(scored)?) {
            let observed = scores.iter().filter(|score| **score > threshold).count() as u64;
            let expected = self.corrected(&probabilities).iter().sum();
            let batch = BatchEntries { items: scored.height(), expected, observed };
            self.batches.push(batch);
            entries = Some(batch);
            self.observed = DECAY * self.observed + observed as f64;
            self.expected = DECAY * self.expected + probabilities.iter().sum::<f64>();
        }
        self.best.extend(scores);
        self.best.sort_by(|a, b| b.total_cmp(a));
        self.best.truncate(self.top);
        Ok(entries)
    }

    /// The forecast of the next batch plus those of the latest batches, until the sum covers at least `items` scores. `None`
    /// if all forecasts cover fewer.
    pub fn forecast_over(&self, items: f64, next: Forecast) -> Option<Forecast> {
        let mut sum = next;
        for earlier in self.batches.iter().rev() {
            if sum.items as f64 >= items {
                break;
            }
            sum = Forecast { items: sum.items + earlier.items, entries: sum.entries + earlier.expected, ..sum };
        }
        (sum.items as f64 >= items).then_some(sum)
    }

    /// The `top`-th best score. `None` while there are fewer scores.
    fn threshold(&self) -> Option<f64> {
        self.best.get(self.top.checked_sub(1)?).copied()
    }

    fn correction(&self) -> f64 {
        ((self.observed + PRIOR) / (self.expected + PRIOR)).clamp(0.1, 2.0)
    }

    /// The probabilities after the correction.
    fn corrected(&self, probabilities: &[f64]) -> Vec<f64> {
        let correction = self.correction();
        probabilities.iter().map(|probability| (correction * probability).min(1.0)).collect()
    }

    /// The probability of each item to be an entry, before the correction.
    fn probabilities(&self, batch: &DataFrame) -> Result<Option<Vec<f64>>> {
        let Some(threshold) = self.threshold().filter(|_| prediction::has_predictions(batch)) else { return Ok(None) };
        let means = schema::nullable_f64s(batch, PREDICTED)?.into_iter();
        let predictions: Vec<Option<(f64, f64)>> =
            means.zip(schema::nullable_f64s(batch, DEVIATION)?).map(|(mean, deviation)| mean.zip(deviation)).collect();
        if predictions.iter().all(Option::is_none) {
            return Ok(None);
        }
        let probability = |(mean, deviation): (f64, f64)| standard_normal_cdf((mean - threshold) / deviation);
        Ok(Some(predictions.into_iter().map(|prediction| prediction.map_or(0.0, probability)).collect()))
    }
}

/// The standard normal distribution function `Phi(z)`.
fn standard_normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

/// The distribution of the number of successes of independent trials with these probabilities: of 0, 1, 2, ... successes.
fn poisson_binomial(probabilities: &[f64]) -> Vec<f64> {
    let mut distribution = vec![1.0];
    for probability in probabilities {
        distribution.push(0.0);
        for count in (0..distribution.len()).rev() {
            let one_less = if count > 0 { distribution[count - 1] } else { 0.0 };
            distribution[count] = distribution[count] * (1.0 - probability) + one_less * probability;
        }
    }
    distribution
}

/// The shortest interval that covers at least [`COVERAGE`] of a distribution with one mode. It grows from the mode towards the
/// more probable neighbour.
fn shortest_interval(distribution: &[f64]) -> (u64, u64) {
    let probability = |count: usize| distribution.get(count).copied().unwrap_or(0.0);
    let mode = (0..distribution.len()).max_by(|a, b| probability(*a).total_cmp(&probability(*b))).unwrap_or(0);
    let (mut low, mut high, mut covered) = (mode, mode, probability(mode));
    while covered < COVERAGE && (low > 0 || high + 1 < distribution.len()) {
        let below = low.checked_sub(1).map_or(0.0, probability);
        let above = probability(high + 1);
        if low > 0 && below > above {
            low -= 1;
        } else {
            high += 1;
        }
        covered += below.max(above);
    }
    (low as u64, high as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_of_entries_is_that_of_all_outcomes() {
        let probabilities = [0.1, 0.5, 0.9, 0.25];
        let mut expected = [0.0; 5];
        for outcome in 0..16u32 {
            let is_entry = |item: usize| outcome >> item & 1 == 1;
            let chance = |item: usize| if is_entry(item) { probabilities[item] } else { 1.0 - probabilities[item] };
            expected[outcome.count_ones() as usize] += (0..4).map(chance).product::<f64>();
        }
        let distribution = poisson_binomial(&probabilities);
        assert!(distribution.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{distribution:?}");
        // 0.034, 0.353, 0.455, 0.148, 0.011
        assert_eq!(shortest_interval(&distribution), (1, 2));
        assert_eq!(shortest_interval(&poisson_binomial(&[])), (0, 0));
        assert_eq!(shortest_interval(&poisson_binomial(&[1.0, 1.0])), (2, 2));
    }

    #[test]
    fn probabilities_are_those_of_scipy() {
        // scipy.stats.norm.cdf(z)
        for (z, expected) in [(-3.0, 0.001_349_898_031_630_094_6), (0.0, 0.5), (1.5, 0.933_192_798_731_141_9)] {
            assert!((standard_normal_cdf(z) - expected).abs() < 1e-12, "z {z}");
        }
    }

    #[test]
    fn a_forecast_reads_as_a_sentence() {
        // scipy.stats.binom(100, 0.09): 0.85 from 5 to 12, 0.77 from 6 to 12.
        let forecast = Forecast::new(100, &[0.09; 20]).per_hundred();
        let expected =
            "the next 100 scores are expected to bring 9.0 entries into the best 100 (5 to 12): 11 scores each";
        assert_eq!(forecast.to_string(), expected);
    }
}
