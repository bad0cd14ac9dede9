//! Whether the predictions of a run can be trusted: sentences, charts and a table from its calibration.

use super::chart::{Chart, ChartDrawing, Dot, Dots, Line};
use super::run_data::RunData;
use super::tables::Table;
use crate::calibration::{BLOCK, Block, Calibration, PredictedItem, rounded};
use crate::error::Result;
use crate::frame::text::format_number;

/// The title of the section, and of the table if several runs are compared.
pub(super) const TITLE: &str = "Can the model be trusted?";

/// Maximum number of random picks, and of other items, that are drawn in addition to the last hundred.
const MAX_RANDOM: usize = 300;
const MAX_OTHERS: usize = 600;
/// Maximum number of blocks that are drawn.
const MAX_BLOCKS: usize = 400;

/// The section of a single run.
pub(super) struct Predictions {
    pub sentences: Vec<String>,
    /// Whether the first sentence is a warning.
    pub is_warning: bool,
    pub charts: Vec<ChartDrawing>,
}

/// The section of a run. `None` if no scored item was predicted.
///
/// # Errors
/// Files that cannot be read.
pub(super) fn predictions(run: &RunData, score: &str) -> Result<Option<Predictions>> {
    let Some(calibration) = Calibration::read(&run.log)? else { return Ok(None) };
    let forecast = run.log.manifest().ended.as_ref().and_then(|ended| ended.forecast);
    let forecast = forecast.map(|forecast| format!("forecast at the end of the run: {forecast}"));
    let sentences = calibration.comparison().into_iter().chain([calibration.summary()]).chain(forecast);
    let step = calibration.by_hundred.len().div_ceil(MAX_BLOCKS).max(1);
    let mut blocks: Vec<&Block> = calibration.by_hundred.iter().rev().step_by(step).collect();
    blocks.reverse();
    let charts =
        [Some(parity(run, &calibration, score)), coverage(&blocks), order(&blocks), entries(&blocks, calibration.top)];
    Ok(Some(Predictions {
        sentences: sentences.map(|text| sentence(&text)).collect(),
        is_warning: calibration.is_uninformative,
        charts: charts.into_iter().flatten().map(Chart::draw).collect(),
    }))
}

/// A table with a row for each run that has predictions. `None` if none has.
///
/// # Errors
/// Files that cannot be read.
pub(super) fn table(runs: &[RunData]) -> Result<Option<Table>> {
    let number = |value: Option<f64>| value.map_or("none".into(), rounded);
    let mut rows = Vec::new();
    for run in runs {
        let Some(calibration) = Calibration::read(&run.log)? else { continue };
        let (all, last) = (&calibration.all, &calibration.last_hundred);
        let forecast = run.log.manifest().ended.as_ref().and_then(|ended| ended.forecast);
        rows.push(vec![
            run.name.clone(),
            all.predictions.to_string(),
            all.coverage.map_or("none".into(), |share| format!("{:.0} %", 100.0 * share)),
            all.rank_correlation.map_or("none".into(), |correlation| format!("{correlation:.2}")),
            number(last.error),
            number(last.error_of_mean),
            number(forecast.map(|forecast| forecast.entries * BLOCK as f64 / forecast.items as f64)),
        ]);
    }
    let columns = [
        "",
        "predicted scores",
        "within 1.28 deviations",
        "rank correlation",
        "error of the last 100",
        "error of the mean",
        "entries expected of the next 100",
    ];
    let caption = "How the predictions agree with the scores. 80 % of the scores should be within 1.28 deviations. Errors are \
                   root mean squares. Where the mean of the first scores has no larger error than the predictions, the \
                   columns and the embedding say nothing about the score so far.";
    Ok((!rows.is_empty()).then(|| Table {
        id: "predictions",
        title: TITLE,
        caption: caption.into(),
        columns: columns.map(String::from).to_vec(),
        rows,
    }))
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map_or_else(String::new, |first| first.to_uppercase().collect());
    format!("{first}{}.", letters.as_str())
}

/// The chart of scores against predictions.
fn parity(run: &RunData, calibration: &Calibration, score: &str) -> Chart {
    let items = &calibration.items;
    let (earlier, latest) = items.split_at(items.len().saturating_sub(BLOCK));
    let (random, others): (Vec<_>, Vec<_>) = earlier.iter().partition(|item| item.is_random);
    let (random, others) = (thin_out(random, MAX_RANDOM), thin_out(others, MAX_OTHERS));
    let omitted = earlier.len() - random.len() - others.len();
    let (latest_random, latest_others): (Vec<_>, Vec<_>) = latest.iter().partition(|item| item.is_random);
    let sets = [
        ("chosen by the model", "dots s0 earlier", false, others),
        ("random picks", "crosses s1 earlier", true, random),
        ("chosen by the model, of the last 100", "dots s0", false, latest_others),
        ("random picks, of the last 100", "crosses s1", true, latest_random),
    ];
    let dots =
        sets.into_iter().filter(|(.., items)| !items.is_empty()).map(|(label, class, are_crosses, items)| Dots {
            label: label.into(),
            class: class.into(),
            are_crosses,
            points: items.into_iter().map(|item| dot(run, item)).collect(),
        });
    let mut caption = "Each dot is an item: what the model predicted, and its score.".to_string();
    if items.iter().any(|item| item.is_random) {
        caption.push_str(" Crosses are random picks.");
    }
    if !earlier.is_empty() {
        caption.push_str(" Dark: the last 100.");
    }
    caption.push_str(" On the dashed line both are equal.");
    if omitted > 0 {
        caption.push_str(&format!(" {omitted} earlier items are not shown."));
    }
    Chart {
        title: "Predicted and scored",
        caption,
        x_label: "predicted",
        y_label: score.into(),
        dots: dots.collect(),
        is_parity: true,
        ..Chart::default()
    }
}

fn dot(run: &RunData, item: &PredictedItem) -> Dot {
    let (x, y) = (run.raw(item.predicted), run.raw(item.score));
    let (predicted, deviation, score) = (rounded(x), rounded(item.deviation), format_number(y));
    let text =
        format!("item {}\npredicted {predicted} ± {deviation}\nscore {score}\niteration {}", item.item, item.iteration);
    Dot { x, y, text }
}

/// An even selection of at most `count` items.
fn thin_out(items: Vec<&PredictedItem>, count: usize) -> Vec<&PredictedItem> {
    let all = items.len();
    if all <= count { items } else { (0..count).map(|at| items[at * all / count]).collect() }
}

/// The share of scores within the interval.
fn coverage(blocks: &[&Block]) -> Option<Chart> {
    let found = line("found", "s0", blocks, |block| block.agreement.coverage)?;
    let last = blocks.last().map_or(0, |block| block.last) as f64;
    let expected = Line { class: "random".into(), label: "expected".into(), points: vec![(0.0, 0.8), (last, 0.8)] };
    Some(Chart {
        title: "Scores within the interval",
        caption:
            "Share of the scores within 1.28 deviations of the prediction, by hundred scores. Dashed: 0.8, as it is if \
                  the deviations are right."
                .into(),
        x_label: "items scored",
        y_label: "share within 1.28 deviations".into(),
        lines: vec![found, expected],
        y_range: Some((0.0, 1.0)),
        ..Chart::default()
    })
}

/// The rank correlation.
fn order(blocks: &[&Block]) -> Option<Chart> {
    Some(Chart {
        title: "Order of the predictions",
        caption: "Spearman's rank correlation of predictions and scores, by hundred scores: 1 if the order is right, 0 if it \
                  is chance. It is lower than in the whole library, as the model chooses items of similar predictions."
            .into(),
        x_label: "items scored",
        y_label: "rank correlation".into(),
        lines: vec![line("rank correlation", "s0", blocks, |block| block.agreement.rank_correlation)?],
        y_range: Some((0.0, 1.0)),
        ..Chart::default()
    })
}

/// Entries into the best scores, and the forecast ones.
fn entries(blocks: &[&Block], top: usize) -> Option<Chart> {
    // A block may have more or fewer than a hundred scores.
    let per_hundred = |block: &Block, count: f64| count * BLOCK as f64 / (block.last + 1 - block.first) as f64;
    Some(Chart {
        title: "Entries into the best",
        caption: format!(
            "Solid: scores that entered the best {top}. Dashed: how many the forecasts expected. Both per hundred scores."
        ),
        x_label: "items scored",
        y_label: format!("entries into the best {top}"),
        lines: vec![
            line("entries", "s0", blocks, |block| Some(per_hundred(block, block.entries? as f64)))?,
            line("expected", "s1 dashed", blocks, |block| Some(per_hundred(block, block.expected_entries?)))?,
        ],
        y_range: Some((0.0, 1.0)),
        ..Chart::default()
    })
}

/// A line of blocks against the number of scores. `None` if no block has a value.
fn line(label: &str, class: &str, blocks: &[&Block], value: impl Fn(&Block) -> Option<f64>) -> Option<Line> {
    let points: Vec<_> = blocks.iter().filter_map(|block| Some((block.last as f64, value(block)?))).collect();
    (!points.is_empty()).then(|| Line { class: class.into(), label: label.into(), points })
}
