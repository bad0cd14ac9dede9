//! Forecasts how much the next scores will improve the top k of a run.
//!
//! An *entry* is a new score that is better than the k-th best score before its batch. A rule with a model predicts each item
//! before it is scored: the columns `predicted` (mean) and `deviation` (standard deviation) of the results. The expected
//! number of entries of a batch is
//!
//! ```text
//! E = r * sum_i Phi((predicted_i - tau) / deviation_i)        r = (S + 5) / (F + 5), at least 1/2, at most 2
//! ```
//!
//! `tau` is the k-th best score before the batch, and `Phi` the standard normal distribution function. The correction `r`
//! compares earlier batches with their forecasts: `S` is the number of their entries, and `F` the sum of their terms `Phi`.
//! Each new batch multiplies both by 0.9. An item without a prediction is expected to be no entry. The number of entries is
//! modelled as Poisson distributed with mean E. All figures are computed from the log, so a resumed run makes the same
//! forecasts as an uninterrupted one.

use std::collections::VecDeque;
use std::fmt;

use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::frame::schema::{self, DEVIATION, PREDICTED, SCORE};
use crate::prediction;

/// The factor by which the counts of earlier batches decay with each batch.
const DECAY: f64 = 0.9;
/// The number of entries, both expected and observed, that a run starts with. It keeps the correction near 1 at first.
const PRIOR: f64 = 5.0;
/// The number of scores that the forecast in a summary covers.
const SUMMARY_ITEMS: usize = 100;

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
}

impl Forecast {
    /// The shortest interval that contains the number of entries with a probability of at least 80 %. Includes both ends.
    pub fn interval(&self) -> (u64, u64) {
        poisson_interval(self.entries, 0.8)
    }

    /// The expected number of scores per entry.
    pub fn scores_per_entry(&self) -> f64 {
        self.items as f64 / self.entries
    }

    /// The forecast for the next 100 scores, at the same rate.
    pub fn per_hundred(&self) -> Self {
        let entries = self.entries * SUMMARY_ITEMS as f64 / self.items.max(1) as f64;
        Forecast { items: SUMMARY_ITEMS, entries, ..*self }
    }
}

/// `the next 100 scores are expected to bring 9 entries into the best 100 (6 to 13): 11 scores each`
impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Forecast { top, items, entries } = *self;
        let (low, high) = self.interval();
        let shown = if entries < 10.0 { format!("{entries:.1}") } else { format!("{entries:.0}") };
        write!(
            f,
            "the next {items} scores are expected to bring {shown} entries into the best {top} ({low} to {high})"
        )?;
        match self.scores_per_entry() {
            scores if scores < 1e6 => write!(f, ": {scores:.0} scores each"),
            _ => Ok(()),
        }
    }
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
    /// The forecasts of the latest batches.
    latest: VecDeque<Forecast>,
}

impl Forecaster {
    /// Forecasts of entries into the best `top`.
    pub fn new(top: usize) -> Self {
        Forecaster { top, best: Vec::new(), expected: 0.0, observed: 0.0, latest: VecDeque::new() }
    }

    /// The forecast for a batch before it is scored. `None` without predictions, or while the run has fewer than `top` scores.
    ///
    /// # Errors
    /// Prediction columns of another type than f64.
    pub fn forecast(&self, predictions: &DataFrame) -> Result<Option<Forecast>> {
        let entries = self.expected_entries(predictions)?;
        let forecast = |entries| Forecast { top: self.top, items: predictions.height(), entries };
        Ok(entries.map(|entries| forecast(entries * self.correction())))
    }

    /// Learns from a scored batch. Returns its number of entries, if there is a forecast for it.
    ///
    /// # Errors
    /// Columns of another type than f64.
    pub fn observe(&mut self, scored: &DataFrame) -> Result<Option<u64>> {
        let scores: Vec<f64> = schema::nullable_f64s(scored, SCORE)?.into_iter().flatten().collect();
        let mut entries = None;
        if let (Some(threshold), Some(expected)) = (self.threshold(), self.expected_entries(scored)?) {
            self.latest.extend(self.forecast(scored)?);
            let observed = scores.iter().filter(|score| **score > threshold).count();
            self.observed = DECAY * self.observed + observed as f64;
            entries = Some(observed as u64);
            self.expected = DECAY * self.expected + expected;
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
        for earlier in self.latest.iter().rev() {
            if sum.items as f64 >= items {
                break;
            }
            sum = Forecast { items: sum.items + earlier.items, entries: sum.entries + earlier.entries, ..sum };
        }
        (sum.items as f64 >= items).then_some(sum)
    }

    /// The `top`-th best score. `None` while there are fewer scores.
    fn threshold(&self) -> Option<f64> {
        self.best.get(self.top.checked_sub(1)?).copied()
    }

    fn correction(&self) -> f64 {
        ((self.observed + PRIOR) / (self.expected + PRIOR)).clamp(0.5, 2.0)
    }

    /// The expected entries, before the correction.
    fn expected_entries(&self, batch: &DataFrame) -> Result<Option<f64>> {
        let Some(threshold) = self.threshold().filter(|_| prediction::has_predictions(batch)) else { return Ok(None) };
        let means = schema::nullable_f64s(batch, PREDICTED)?.into_iter();
        let pairs = means.zip(schema::nullable_f64s(batch, DEVIATION)?);
        let predictions: Vec<(f64, f64)> = pairs.filter_map(|(mean, deviation)| Some((mean?, deviation?))).collect();
        let entries =
            predictions.iter().map(|(mean, deviation)| standard_normal_cdf((mean - threshold) / deviation)).sum();
        Ok((!predictions.is_empty()).then_some(entries))
    }
}

/// The standard normal distribution function `Phi(z)`.
fn standard_normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

/// The shortest interval of a Poisson distribution with at least this probability. It starts at the mode, and repeatedly adds
/// the more likely of its two neighbours.
fn poisson_interval(mean: f64, probability: f64) -> (u64, u64) {
    let mode = mean.floor();
    // Computed in logarithms, because `exp(-mean)` underflows from 745 on.
    let log_factorial = |count: f64| libm::lgamma(count + 1.0);
    let density = |count: f64| (count * mean.max(f64::MIN_POSITIVE).ln() - mean - log_factorial(count)).exp();
    let (mut low, mut high, mut covered) = (mode, mode, density(mode));
    while covered < probability && high < 2.0 * mean + 100.0 {
        let (below, above) = (if low > 0.0 { density(low - 1.0) } else { 0.0 }, density(high + 1.0));
        if below > above {
            low -= 1.0;
        } else {
            high += 1.0;
        }
        covered += below.max(above);
    }
    (low as u64, high as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_and_probabilities_are_those_of_scipy() {
        // Intervals: the counts with the highest scipy.stats.poisson.pmf, until these sum to 0.8. Probabilities:
        // scipy.stats.norm.cdf(z).
        for (mean, low, high) in [
            (0.0, 0, 0),
            (0.05, 0, 0),
            (0.5, 0, 1),
            (3.2, 1, 5),
            (4.8, 2, 7),
            (9.3, 6, 13),
            (40.2, 32, 48),
            (1000.5, 960, 1041),
        ] {
            assert_eq!(poisson_interval(mean, 0.8), (low, high), "mean {mean}");
        }
        for (z, expected) in [(-3.0, 0.001_349_898_031_630_094_6), (0.0, 0.5), (1.5, 0.933_192_798_731_141_9)] {
            assert!((standard_normal_cdf(z) - expected).abs() < 1e-12, "z {z}");
        }
    }

    #[test]
    fn a_forecast_reads_as_a_sentence() {
        let forecast = Forecast { top: 100, items: 20, entries: 1.8 };
        let expected =
            "the next 100 scores are expected to bring 9.0 entries into the best 100 (5 to 12): 11 scores each";
        assert_eq!(forecast.per_hundred().to_string(), expected);
    }
}
