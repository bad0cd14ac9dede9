//! Calibration of predictions: how well `predicted` and `deviation` of a run agree with the observed scores.

use polars::prelude::*;
use serde::Serialize;

use crate::error::{Error, Result, WrapErr};
use crate::forecast::Forecaster;
use crate::frame::schema::{self, CHOSEN_BY, DB_IDX, DEVIATION, ITERATION, PREDICTED, SCORE};
use crate::frame::text::format_number;
use crate::log::{SearchLog, collect};
use crate::runner::StopConditions;

/// The number of scores of a block. Blocks have whole batches, so some have more.
pub(crate) const BLOCK: usize = 100;
/// The number of deviations from the mean of a normal distribution at which its 80 % interval ends.
const DEVIATIONS: f64 = 1.2816;
/// Fewer predictions than this have no rank correlation, as it would be chance.
const MIN_CORRELATED: usize = 10;
/// Fewer predictions than this are no reason to distrust the model.
const MIN_JUDGED: usize = 20;

/// A scored item that was predicted before it was scored. `score` and `predicted` are as in the log: higher is better.
#[derive(Clone, Debug)]
pub(crate) struct PredictedItem {
    pub item: u64,
    pub iteration: u32,
    pub score: f64,
    pub predicted: f64,
    pub deviation: f64,
    /// Whether the item was a random pick.
    pub is_random: bool,
}

/// How well predictions agree with scores.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Agreement {
    /// Scored items with a prediction.
    pub predictions: usize,
    /// The share of scores within `predicted` ± 1.2816 `deviation`. It is 0.8 if the deviations are right.
    pub coverage: Option<f64>,
    /// Spearman's rank correlation of predictions and scores.
    pub rank_correlation: Option<f64>,
    /// The root mean square of `score - predicted`.
    pub error: Option<f64>,
    /// The root mean square of `score - mean`, with the mean of the scores before the first prediction: the error of a model
    /// that does not read the items. Later scores are not in the mean, because the model chose their items.
    pub error_of_mean: Option<f64>,
}

/// A hundred consecutive scores, in whole batches.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Block {
    /// The first and the last score, counted from 1. Reused scores do not count.
    pub first: usize,
    pub last: usize,
    #[serde(flatten)]
    pub agreement: Agreement,
    /// The scores that entered the best `top`, and how many were forecast. `None` until there are forecasts.
    pub entries: Option<u64>,
    pub expected_entries: Option<f64>,
}

/// The calibration of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Calibration {
    /// How many best scores count: an entry is a score better than the last of them before its batch.
    pub top: usize,
    pub all: Agreement,
    pub last_hundred: Agreement,
    /// Whether the model is no better than the mean: its error is not smaller, in the whole run and in the last hundred.
    pub is_uninformative: bool,
    pub by_hundred: Vec<Block>,
    /// In the order of the run.
    #[serde(skip)]
    pub items: Vec<PredictedItem>,
}

impl Calibration {
    /// Reads the predictions of a run. `None` if no scored item has one.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn read(log: &SearchLog) -> Result<Option<Self>> {
        const COLUMNS: [&str; 6] = [ITERATION, DB_IDX, SCORE, PREDICTED, DEVIATION, CHOSEN_BY];
        let Some(mut results) = log.scan_results()? else { return Ok(None) };
        let columns = results.collect_schema().wrap_err(log.path().display())?;
        if !COLUMNS.iter().all(|name| columns.contains(name)) {
            return Ok(None);
        }
        let in_order = SortMultipleOptions::default().with_maintain_order(true);
        let results = collect(results.select(COLUMNS.map(col)).sort([ITERATION], in_order))?;
        let ended = log.manifest().ended.as_ref().and_then(|ended| ended.forecast);
        let configured = log.manifest().config["stop"]["top"].as_u64().map(|top| top as usize);
        let mut replay =
            Replay::new(configured.or(ended.map(|forecast| forecast.top)).unwrap_or(StopConditions::DEFAULT_TOP));
        let mut start = 0;
        for batch in schema::u32s(&results, ITERATION)?.chunk_by(|a, b| a == b) {
            replay.add(batch[0], &results.slice(start as i64, batch.len()))?;
            start += batch.len();
        }
        Ok(replay.finish())
    }
}

/// The calibration as sentences.
impl Calibration {
    /// Coverage and rank correlation, of all predictions and of the last hundred.
    pub fn summary(&self) -> String {
        let (all, last) = (&self.all, &self.last_hundred);
        let percent = |share: Option<f64>| share.map_or("none".into(), |share| format!("{:.0} %", 100.0 * share));
        let number = |value: Option<f64>| value.map_or("none".into(), |value| format!("{value:.2}"));
        format!(
            "{} of the {} predicted scores are within 1.28 deviations of the prediction (80 % expected), {} of the last {}; the \
             rank correlation of predictions and scores is {}, of the last {} {}",
            percent(all.coverage),
            all.predictions,
            percent(last.coverage),
            last.predictions,
            number(all.rank_correlation),
            last.predictions,
            number(last.rank_correlation),
        )
    }

    /// Compares the errors of the predictions with those of the mean of the first scores. `None` if numbers overflow.
    pub fn comparison(&self) -> Option<String> {
        let Agreement { predictions, error, error_of_mean, .. } = self.last_hundred;
        let (error, of_mean) = (rounded(error?), rounded(error_of_mean?));
        let figures = format!(
            "the last {predictions} predictions miss their scores by {error} (root mean square), the mean of the first scores \
             misses them by {of_mean}"
        );
        Some(match self.is_uninformative {
            true => format!("the columns and the embedding say nothing about this score so far: {figures}"),
            false => figures,
        })
    }
}

/// A number with three digits.
pub(crate) fn rounded(value: f64) -> String {
    format_number(format!("{value:.2e}").parse().unwrap_or(value))
}

/// A replay of the run: a fold over its batches.
struct Replay {
    top: usize,
    forecaster: Forecaster,
    /// The mean of the scores before the first prediction, and their number.
    first_mean: f64,
    first_count: usize,
    /// The number of scores, without reused ones.
    scored: usize,
    items: Vec<PredictedItem>,
    blocks: Vec<BlockStart>,
}

/// The start of a block and its entries, before its agreement is computed.
#[derive(Default)]
struct BlockStart {
    scored_before: usize,
    items_before: usize,
    entries: Option<u64>,
    expected_entries: Option<f64>,
}

impl Replay {
    fn new(top: usize) -> Self {
        Replay {
            top,
            forecaster: Forecaster::new(top),
            first_mean: 0.0,
            first_count: 0,
            scored: 0,
            items: Vec::new(),
            blocks: Vec::new(),
        }
    }

    fn add(&mut self, iteration: u32, batch: &DataFrame) -> Result<()> {
        if self.blocks.last().is_none_or(|block| block.scored_before / BLOCK < self.scored / BLOCK) {
            let (scored_before, items_before) = (self.scored, self.items.len());
            self.blocks.push(BlockStart { scored_before, items_before, ..BlockStart::default() });
        }
        let scores = schema::nullable_f64s(batch, SCORE)?;
        if let (Some(entries), Some(block)) = (self.forecaster.observe(batch)?, self.blocks.last_mut()) {
            block.entries = Some(block.entries.unwrap_or(0) + entries.observed);
            block.expected_entries = Some(block.expected_entries.unwrap_or(0.0) + entries.expected);
        }

        let chosen_by = schema::typed_column("results", batch, CHOSEN_BY, &DataType::String)?;
        let chosen_by = chosen_by.str().map_err(|error| Error::contract("results", CHOSEN_BY, "text", error))?;
        let predicted = schema::nullable_f64s(batch, PREDICTED)?.into_iter();
        let predictions = predicted.zip(schema::nullable_f64s(batch, DEVIATION)?).zip(chosen_by.iter());
        for ((score, item), ((predicted, deviation), chosen_by)) in
            scores.iter().zip(schema::u64s(batch, DB_IDX)?).zip(predictions)
        {
            let Some(score) = *score else { continue };
            self.scored += usize::from(chosen_by.is_some());
            let (Some(predicted), Some(deviation)) = (predicted, deviation) else { continue };
            let is_random = chosen_by == Some("random");
            self.items.push(PredictedItem { item, iteration, score, predicted, deviation, is_random });
        }
        if self.items.is_empty() {
            for score in scores.into_iter().flatten() {
                self.first_count += 1;
                self.first_mean += (score - self.first_mean) / self.first_count as f64;
            }
        }
        Ok(())
    }

    fn finish(self) -> Option<Calibration> {
        let items = self.items;
        let mean = (self.first_count > 0 && self.first_mean.is_finite()).then_some(self.first_mean);
        let all = Agreement::new(&items, mean);
        let last_hundred = Agreement::new(&items[items.len().saturating_sub(BLOCK)..], mean);
        let ends = self.blocks.iter().skip(1).map(|next| (next.scored_before, next.items_before));
        let ends = ends.chain([(self.scored, items.len())]);
        let by_hundred = self.blocks.iter().zip(ends).map(|(block, (last, items_end))| Block {
            first: block.scored_before + 1,
            last,
            agreement: Agreement::new(&items[block.items_before..items_end], mean),
            entries: block.entries,
            expected_entries: block.expected_entries,
        });
        let by_hundred = by_hundred.filter(|block| block.first <= block.last).collect();
        let is_uninformative =
            items.len() >= MIN_JUDGED && [&all, &last_hundred].into_iter().all(Agreement::is_no_better_than_mean);
        let top = self.top;
        (!items.is_empty()).then_some(Calibration { top, all, last_hundred, is_uninformative, by_hundred, items })
    }
}

impl Agreement {
    fn new(items: &[PredictedItem], mean: Option<f64>) -> Self {
        let is_inside = |item: &&PredictedItem| (item.score - item.predicted).abs() <= DEVIATIONS * item.deviation;
        let inside = items.iter().filter(is_inside).count();
        let (predicted, scores): (Vec<f64>, Vec<f64>) = items.iter().map(|item| (item.predicted, item.score)).unzip();
        Agreement {
            predictions: items.len(),
            coverage: (!items.is_empty()).then(|| inside as f64 / items.len() as f64),
            rank_correlation: rank_correlation(&predicted, &scores).filter(|_| items.len() >= MIN_CORRELATED),
            error: root_mean_square(items.iter().map(|item| item.score - item.predicted)),
            error_of_mean: mean.and_then(|mean| root_mean_square(items.iter().map(|item| item.score - mean))),
        }
    }

    fn is_no_better_than_mean(&self) -> bool {
        self.error.zip(self.error_of_mean).is_some_and(|(model, mean)| model >= mean)
    }
}

/// The root mean square. `None` without values, and if it overflows.
fn root_mean_square(values: impl ExactSizeIterator<Item = f64> + Clone) -> Option<f64> {
    let (count, largest) =
        (values.len() as f64, values.clone().fold(0.0, |largest: f64, value| largest.max(value.abs())));
    // Scaled, as squares overflow earlier than values.
    let scale = if largest > 0.0 { largest } else { 1.0 };
    let root = scale * (values.map(|value| (value / scale).powi(2)).sum::<f64>() / count).sqrt();
    Some(root).filter(|root| root.is_finite())
}

/// Spearman's rank correlation: Pearson's correlation of the ranks. Equal values have their mean rank. `None` if all values
/// of a side are equal.
fn rank_correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let middle = (a.len() as f64 + 1.0) / 2.0;
    let centred = |values: &[f64]| ranks(values).into_iter().map(|rank| rank - middle).collect::<Vec<f64>>();
    let (a, b) = (centred(a), centred(b));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let length = (product(&a, &a) * product(&b, &b)).sqrt();
    (length > 0.0).then(|| product(&a, &b) / length)
}

/// The rank of each value, from 1. Equal values have the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = before as f64 + (equal.len() as f64 + 1.0) / 2.0;
        equal.iter().for_each(|position| ranks[*position] = rank);
        before += equal.len();
    }
    ranks
}
