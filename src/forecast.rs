//! Forecasts what the next scores will bring: how many of them are expected to enter the best k so far.
//!
//! A rule with a model predicts each item before it is scored: the columns `predicted` (mean) and `deviation` (standard
//! deviation) of the results. With `tau` the k-th best score before the batch, a batch is expected to bring
//!
//! ```text
//! E = r * sum_i Phi((predicted_i - tau) / deviation_i)        r = (S + 5) / (F + 5), at least 1/2, at most 2
//! ```
//!
//! entries. `S` is the number of entries of earlier batches, and `F` what the sum was for them; both decay by 0.9 a batch. An
//! item without a prediction counts as no entry. The number of entries is taken as Poisson distributed around E. All of it
//! is computed from the log, so a resumed run forecasts what an uninterrupted run does.

use std::collections::VecDeque;
use std::fmt;

use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::frame::schema::{self, DEVIATION, PREDICTED, SCORE};
use crate::prediction;

/// What is left of earlier forecasts and entries after each batch.
const DECAY: f64 = 0.9;
/// Entries, forecast and seen, that a run begins with. They keep the correction near 1 while little is known.
const PRIOR: f64 = 5.0;
/// Scores of which a summary tells the forecast.
const SUMMARY_ITEMS: usize = 100;

/// How many of the next scores are expected to enter the best `top` so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Forecast {
    /// How many best scores count: an entry is a score better than the last of them.
    pub top: usize,
    /// The number of next scores.
    pub items: usize,
    /// The expected number of entries.
    pub entries: f64,
}

impl Forecast {
    /// The shortest interval that has the number of entries with a probability of at least 80 %, both ends included.
    pub fn interval(&self) -> (u64, u64) {
        poisson_interval(self.entries, 0.8)
    }

    /// The expected number of scores for an entry.
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

/// Makes forecasts: a fold over the scored frames of a run, in the order of iterations.
#[derive(Clone, Debug)]
pub(crate) struct Forecaster {
    top: usize,
    /// The best scores so far, at most `top`, the best first.
    best: Vec<f64>,
    /// Expected entries before the correction, and entries seen: both decayed.
    expected: f64,
    seen: f64,
    /// The forecasts of the latest batches.
    latest: VecDeque<Forecast>,
}

impl Forecaster {
    /// Forecasts of entries into the best `top`.
    pub fn new(top: usize) -> Self {
        Forecaster { top, best: Vec::new(), expected: 0.0, seen: 0.0, latest: VecDeque::new() }
    }

    /// The forecast for a batch before it is scored. `None` without predictions, or while fewer than `top` scores are known.
    ///
    /// # Errors
    /// Prediction columns of another type than f64.
    pub fn forecast(&self, predictions: &DataFrame) -> Result<Option<Forecast>> {
        let entries = self.expected_entries(predictions)?;
        let corrected = |entries| Forecast { top: self.top, items: predictions.height(), entries };
        Ok(entries.map(|entries| corrected(entries * self.correction())))
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
            let seen = scores.iter().filter(|score| **score > threshold).count();
            self.seen = DECAY * self.seen + seen as f64;
            entries = Some(seen as u64);
            self.expected = DECAY * self.expected + expected;
        }
        self.best.extend(scores);
        self.best.sort_by(|a, b| b.total_cmp(a));
        self.best.truncate(self.top);
        Ok(entries)
    }

    /// The sum of the forecast of the next batch and those of the latest batches, over at least so many scores. `None` while
    /// fewer were forecast.
    pub fn over_at_least(&self, items: f64, next: Forecast) -> Option<Forecast> {
        let mut sum = next;
        for earlier in self.latest.iter().rev() {
            if sum.items as f64 >= items {
                break;
            }
            sum = Forecast { items: sum.items + earlier.items, entries: sum.entries + earlier.entries, ..sum };
        }
        (sum.items as f64 >= items).then_some(sum)
    }

    /// The last of the best `top` scores, once there are so many.
    fn threshold(&self) -> Option<f64> {
        self.best.get(self.top.checked_sub(1)?).copied()
    }

    fn correction(&self) -> f64 {
        ((self.seen + PRIOR) / (self.expected + PRIOR)).clamp(0.5, 2.0)
    }

    /// The expected entries, before the correction.
    fn expected_entries(&self, batch: &DataFrame) -> Result<Option<f64>> {
        let Some(threshold) = self.threshold().filter(|_| prediction::has_predictions(batch)) else { return Ok(None) };
        let means = schema::nullable_f64s(batch, PREDICTED)?.into_iter();
        let pairs = means.zip(schema::nullable_f64s(batch, DEVIATION)?);
        let known: Vec<(f64, f64)> = pairs.filter_map(|(mean, deviation)| Some((mean?, deviation?))).collect();
        let entries = known.iter().map(|(mean, deviation)| standard_normal_cdf((mean - threshold) / deviation)).sum();
        Ok((!known.is_empty()).then_some(entries))
    }
}

/// `Phi(z)`.
fn standard_normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

/// The shortest interval of at least this probability, of a Poisson distribution: it grows from the most likely number to the
/// more likely of its neighbours.
fn poisson_interval(mean: f64, probability: f64) -> (u64, u64) {
    let mode = mean.floor();
    // In logarithms: `exp(-mean)` underflows from 745 on.
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
        // The counts of the highest scipy.stats.poisson.pmf, until they sum to 0.8; scipy.stats.norm.cdf(z).
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
