//! The forecaster: a fold over the scored batches of a run, which forecasts the entries of the next ones.

use std::collections::HashSet;

use polars::prelude::DataFrame;

use super::residuals::Residuals;
use super::{DECAY, Forecast};
use crate::error::Result;
use crate::frame::schema::{self, DB_IDX, DEVIATION, PREDICTED, SCORE};
use crate::prediction;

/// Pseudo-count of both sums of the correction. It keeps the correction near 1 while the run has few batches.
const PRIOR: f64 = 1.0;
/// The range of the correction.
const CORRECTION: (f64, f64) = (0.1, 2.0);
/// The number of scores that a summary forecasts.
const SUMMARY_ITEMS: usize = 100;
/// The relative standard deviation of the rate of entries in a summary, because later batches differ from the next one.
const SUMMARY_DEVIATION: f64 = 0.3;

/// The forecasts that are made before a batch is scored.
#[derive(Clone, Debug)]
pub(crate) struct BatchForecast {
    /// The forecast for the batch.
    pub batch: Forecast,
    /// The forecast for the next hundred scores, of this batch and further ones like it.
    pub next_hundred: Forecast,
    /// The probability of each item of the batch to be an entry.
    probabilities: Vec<f64>,
}

/// The entries of a scored batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchEntries {
    /// The number of entries that the forecast for the batch expected.
    pub expected: f64,
    /// The observed number of entries.
    pub observed: u64,
}

/// Makes forecasts from the scored frames of a run, which it observes in the order of iterations.
#[derive(Clone, Debug)]
pub(crate) struct Forecaster {
    top: usize,
    /// The items that were observed.
    items: HashSet<u64>,
    /// The best scores so far, at most `top`, the best first.
    best: Vec<f64>,
    /// The expected entries of earlier batches without the correction, decayed.
    expected: f64,
    /// The entries of the same batches, decayed.
    observed: f64,
    residuals: Residuals,
    /// The probabilities of the items of all batches that had a forecast.
    batches: Vec<Vec<f64>>,
    /// The latest batch that had predictions.
    latest: Option<Batch>,
}

/// The new items of a batch.
#[derive(Clone, Debug)]
struct Batch {
    /// The rows of the items. A row that repeats an item is not counted.
    rows: Vec<usize>,
    /// The expected score of each item, and its standard deviation.
    predictions: Vec<Option<(f64, f64)>>,
}

impl Forecaster {
    /// Forecasts of entries into the best `top`.
    pub fn new(top: usize) -> Self {
        Forecaster {
            top,
            items: HashSet::new(),
            best: Vec::new(),
            expected: 0.0,
            observed: 0.0,
            residuals: Residuals::default(),
            batches: Vec::new(),
            latest: None,
        }
    }

    /// The forecasts for a batch before it is scored. `None` without predictions, or while the run has fewer than `top` scores.
    ///
    /// # Errors
    /// Prediction columns of another type than f64.
    pub fn forecast(&self, selected: &DataFrame) -> Result<Option<BatchForecast>> {
        let batch = self.new_items(selected)?;
        let Some(threshold) = self.threshold().filter(|_| batch.has_predictions()) else { return Ok(None) };
        let probabilities = self.corrected(&batch, threshold);
        Ok(Some(BatchForecast {
            batch: self.forecast_of(&probabilities, 0.0),
            next_hundred: self.summary_of(&batch),
            probabilities,
        }))
    }

    /// The forecast for the next hundred scores, if they are of batches like the latest one. `None` without predictions, or while
    /// the run has fewer than `top` scores.
    pub fn next_hundred(&self) -> Option<Forecast> {
        self.threshold()?;
        Some(self.summary_of(self.latest.as_ref()?))
    }

    /// Learns from a scored batch. Returns its entries, if there is a forecast for it.
    ///
    /// # Errors
    /// Columns of another type than f64.
    pub fn observe(&mut self, scored: &DataFrame) -> Result<Option<BatchEntries>> {
        let batch = self.new_items(scored)?;
        let all_scores = schema::nullable_f64s(scored, SCORE)?;
        let scores: Vec<Option<f64>> = batch.rows.iter().map(|row| all_scores[*row]).collect();
        let mut entries = None;
        if let Some(threshold) = self.threshold().filter(|_| batch.has_predictions()) {
            let observed = scores.iter().flatten().filter(|score| **score > threshold).count() as u64;
            let probabilities = self.corrected(&batch, threshold);
            entries = Some(BatchEntries { expected: probabilities.iter().sum(), observed });
            let uncorrected = self.uncorrected(&batch, threshold).sum::<f64>();
            self.batches.push(probabilities);
            self.observed = DECAY * self.observed + observed as f64;
            self.expected = DECAY * self.expected + uncorrected;
        }
        if batch.has_predictions() {
            let pairs = scores.iter().zip(&batch.predictions);
            let residual = |(score, prediction): (&Option<f64>, &Option<(f64, f64)>)| {
                prediction.zip(*score).map(|((mean, deviation), score)| (score - mean) / deviation)
            };
            self.residuals.add_batch(pairs.filter_map(residual));
            self.latest = Some(batch);
        }
        self.items.extend(schema::u64s(scored, DB_IDX)?);
        self.best.extend(scores.into_iter().flatten());
        self.best.sort_by(|a, b| b.total_cmp(a));
        self.best.truncate(self.top);
        Ok(entries)
    }

    /// The forecast for the next batch and the latest batches together, if it expects more than `limit` scores per entry. Takes
    /// as many of the latest batches as are needed to cover at least `limit` scores and at least `top`: fewer would end
    /// runs by chance. `None` if all batches cover fewer.
    pub fn forecast_over_limit(&self, limit: f64, next: &BatchForecast) -> Option<Forecast> {
        let min_items = limit.max(self.top as f64);
        let mut probabilities = next.probabilities.clone();
        for earlier in self.batches.iter().rev() {
            if probabilities.len() as f64 >= min_items {
                break;
            }
            probabilities.extend(earlier);
        }
        let (items, entries) = (probabilities.len() as f64, probabilities.iter().sum::<f64>());
        (items >= min_items && items / entries > limit).then(|| self.forecast_of(&probabilities, 0.0))
    }

    /// The forecast for the next hundred scores, if they are of batches like this one.
    fn summary_of(&self, batch: &Batch) -> Forecast {
        self.forecast_of(&self.repeated(batch, SUMMARY_ITEMS), SUMMARY_DEVIATION)
    }

    /// The forecast for items that are entries with these probabilities. The correction is uncertain by the relative standard
    /// deviation of a Poisson count of its entries, and by `deviation`.
    fn forecast_of(&self, probabilities: &[f64], deviation: f64) -> Forecast {
        let variance = 1.0 / (self.observed + PRIOR) + deviation * deviation;
        Forecast::new(self.top, probabilities, variance.sqrt())
    }

    /// The `top`-th best score. `None` while there are fewer scores.
    fn threshold(&self) -> Option<f64> {
        self.best.get(self.top.checked_sub(1)?).copied()
    }

    fn correction(&self) -> f64 {
        ((self.observed + PRIOR) / (self.expected + PRIOR)).clamp(CORRECTION.0, CORRECTION.1)
    }

    /// The probability of each item to have a score above a threshold. 0 for an item without a prediction.
    fn corrected(&self, batch: &Batch, threshold: f64) -> Vec<f64> {
        let correction = self.correction();
        self.uncorrected(batch, threshold).map(|probability| (correction * probability).min(1.0)).collect()
    }

    /// The same before the correction. 0 if the best `top` scores are equal: scores of few values have reached the highest one.
    fn uncorrected<'a>(&'a self, batch: &'a Batch, threshold: f64) -> impl Iterator<Item = f64> + 'a {
        let is_highest = self.top > 1 && self.best.len() == self.top && self.best.first() == self.best.last();
        let probability = move |(mean, deviation): (f64, f64)| match is_highest {
            true => 0.0,
            false => self.residuals.probability_above((threshold - mean) / deviation),
        };
        batch.predictions.iter().map(move |prediction| prediction.map_or(0.0, probability))
    }

    /// The probabilities of the next `items` scores, if the batch is repeated. The expected entries raise the threshold.
    fn repeated(&self, batch: &Batch, items: usize) -> Vec<f64> {
        let mut probabilities = Vec::new();
        let mut repetitions = 0.0;
        while probabilities.len() < items {
            // The number of earlier and new scores above a threshold, of which the top-th best score has fewer than `top`.
            let scores_above = |threshold: f64| {
                let known = self.best.partition_point(|score| *score > threshold) as f64;
                known + repetitions * self.corrected(batch, threshold).iter().sum::<f64>()
            };
            let possible = self.best.partition_point(|threshold| scores_above(*threshold) < self.top as f64);
            probabilities.extend(self.corrected(batch, self.best[possible.saturating_sub(1)]));
            repetitions += 1.0;
        }
        probabilities.truncate(items);
        probabilities
    }

    /// The items of a frame that were not observed before, each once.
    fn new_items(&self, frame: &DataFrame) -> Result<Batch> {
        let items = schema::u64s(frame, DB_IDX)?;
        let mut in_batch = HashSet::new();
        let rows: Vec<usize> =
            (0..items.len()).filter(|row| !self.items.contains(&items[*row]) && in_batch.insert(items[*row])).collect();
        if !prediction::has_predictions(frame) {
            return Ok(Batch { predictions: vec![None; rows.len()], rows });
        }
        let (means, deviations) = (schema::nullable_f64s(frame, PREDICTED)?, schema::nullable_f64s(frame, DEVIATION)?);
        let is_valid = |(mean, deviation): &(f64, f64)| mean.is_finite() && deviation.is_finite() && *deviation > 0.0;
        let predictions = rows.iter().map(|row| means[*row].zip(deviations[*row]).filter(is_valid)).collect();
        Ok(Batch { rows, predictions })
    }
}

impl Batch {
    fn has_predictions(&self) -> bool {
        self.predictions.iter().any(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polars::prelude::df;

    fn batch(first: u64, scores: &[f64], means: &[Option<f64>]) -> DataFrame {
        let items: Vec<u64> = (first..).take(scores.len()).collect();
        let deviations: Vec<Option<f64>> = means.iter().map(|mean| mean.map(|_| 1.0)).collect();
        let chosen_by = vec!["model"; scores.len()];
        df!("db_idx" => items, "score" => scores, "predicted" => means, "deviation" => deviations, "chosen_by" => chosen_by)
            .expect("a frame")
    }

    #[test]
    fn entries_that_are_expected_raise_the_threshold_of_later_batches() {
        let mut forecaster = Forecaster::new(4);
        forecaster.observe(&batch(0, &[1.0, 2.0, 3.0, 4.0], &[None; 4])).expect("observed");
        let next = batch(10, &[0.0; 2], &[Some(2.5), Some(0.0)]);
        let forecast = forecaster.forecast(&next).expect("valid").expect("a forecast");
        // Thresholds of the batches 0, 1, 2, ..., by brute force: `scipy.stats.norm.sf` of both items at 1, 2, 3, 4.
        let above = [
            0.933_192_798_7 + 0.158_655_253_9,
            0.691_462_461_3 + 0.022_750_131_9,
            0.308_537_538_7 + 0.001_349_898_0,
            0.066_807_201_3 + 0.000_031_671_2,
        ];
        let mut expected = 0.0;
        for repetition in 0..50 {
            let known_above = [3.0, 2.0, 1.0, 0.0];
            let lowest = (0..4).find(|place| known_above[*place] + f64::from(repetition) * above[*place] < 4.0);
            expected += above[lowest.unwrap_or(3)];
        }
        assert_eq!((forecast.batch.items, forecast.next_hundred.items), (2, 100));
        assert!((forecast.batch.entries - above[0]).abs() < 1e-9, "{forecast:?}");
        assert!((forecast.next_hundred.entries - expected).abs() < 1e-7, "{forecast:?} {expected}");
        assert!(forecast.next_hundred.entries < 50.0 * above[0] / 2.0);
    }

    #[test]
    fn no_entry_is_expected_once_the_best_scores_are_equal() {
        let mut forecaster = Forecaster::new(2);
        forecaster.observe(&batch(0, &[1.0, 0.0, 1.0], &[None; 3])).expect("observed");
        let next = batch(5, &[1.0], &[Some(0.9)]);
        let forecast = forecaster.forecast(&next).expect("valid").expect("a forecast");
        assert_eq!((forecast.batch.entries, forecast.next_hundred.entries), (0.0, 0.0));
        assert!(forecaster.forecast_over_limit(1.0, &forecast).is_none(), "fewer items than the best two");
    }

    #[test]
    fn an_item_that_is_repeated_counts_once() {
        let mut forecaster = Forecaster::new(2);
        forecaster.observe(&batch(0, &[1.0, 2.0], &[None; 2])).expect("observed");
        let next = batch(5, &[3.0, 3.0], &[Some(2.0), Some(2.0)]);
        let once = forecaster.forecast(&next.head(Some(1))).expect("valid").expect("a forecast");
        let twice = next.head(Some(1)).vstack(&next.head(Some(1))).expect("a frame");
        assert_eq!(forecaster.forecast(&twice).expect("valid").expect("a forecast").batch, once.batch);
        assert_eq!(forecaster.observe(&twice).expect("observed").expect("entries").observed, 1);
        assert_eq!(forecaster.best, [3.0, 2.0]);
        assert!(forecaster.forecast(&twice).expect("valid").is_none(), "an item of an earlier iteration");
    }
}
