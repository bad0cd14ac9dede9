//! Forecasts of what the next scores will bring, as text and as JSON.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::numbers::count;
use crate::forecast::{Forecast, MAX_SHOWN_SCORES_PER_ENTRY};
use crate::frame::text::format_number;
use crate::log::{RunSummary, SearchLog, StopReason};
use crate::runner::IterationSummary;

/// The number of latest scores whose entries are shown with a forecast. Batches are counted as a whole.
const LATEST_SCORES: usize = 100;

/// The forecast for the next hundred scores, and the entries that the latest batches brought.
#[derive(Default)]
pub struct ForecastProgress {
    next: Option<Forecast>,
    /// Scores and entries of the latest batches.
    latest: VecDeque<(usize, u64)>,
}

impl ForecastProgress {
    /// Adds a batch whose scores are requested.
    pub fn submit(&mut self, summary: &IterationSummary) {
        self.next = summary.next_hundred;
    }

    /// Adds a scored batch.
    pub fn add(&mut self, summary: &IterationSummary) {
        let Some(entries) = summary.entries else { return };
        self.latest.push_back((summary.rows, entries));
        let mut total: usize = self.latest.iter().map(|(scores, _)| scores).sum();
        while let Some((oldest, _)) = self.latest.front().filter(|(oldest, _)| total - oldest >= LATEST_SCORES) {
            total -= oldest;
            self.latest.pop_front();
        }
    }

    /// What came and what is expected, in at most `width` characters if possible. `None` while there is no forecast.
    pub fn text(&self, width: usize) -> Option<String> {
        let next = self.next?;
        let (scores, entries) = self.latest.iter().fold((0, 0), |sum, batch| (sum.0 + batch.0, sum.1 + batch.1));
        let (top, items, (low, high)) = (next.top, next.items, next.interval());
        let (expected, each) = (next.entries_text(), next.scores_per_entry_text());
        let noun = if entries == 1 { "entry" } else { "entries" };
        let (scores, entries) = (count(scores as u64), count(entries));
        let long = match self.latest.is_empty() {
            true => format!("{next}"),
            false => format!(
                "the last {scores} scores brought {entries} new {noun} into the best {top}; the next {items} are expected to \
                 bring {expected} ({low} to {high}){each}"
            ),
        };
        if long.chars().count() <= width {
            return Some(long);
        }
        let last =
            if self.latest.is_empty() { String::new() } else { format!("last {scores} scores: {entries} {noun}; ") };
        Some(format!("{last}next {items}: {expected} ({low} to {high}){each}"))
    }
}

/// The entries of an iteration, and the expected ones. Empty if there was no forecast.
pub fn iteration_entries(summary: &IterationSummary) -> String {
    let (Some(forecast), Some(entries)) = (&summary.forecast, summary.entries) else { return String::new() };
    let (low, high) = forecast.interval();
    format!("  entries {entries} (expected {}, {low} to {high})", forecast.entries_text())
}

/// A forecast as JSON, with its interval and the expected number of scores for an entry (null if no entry is expected).
pub fn forecast_json(forecast: &Forecast) -> Value {
    let (low, high) = forecast.interval();
    json!({
        "top": forecast.top,
        "items": forecast.items,
        "entries": forecast.entries,
        "low": low,
        "high": high,
        "scores_per_entry": forecast.scores_per_entry(),
    })
}

/// The forecast of a run that has ended. If it ended the run: the expected scores per entry, the limit, and how to
/// continue.
pub fn final_forecast(log: &SearchLog) -> Option<String> {
    let (ended, config) = (log.manifest().ended.as_ref()?, &log.manifest().config);
    let forecast = ended.forecast.as_ref()?;
    let limit = config["stop"]["scores_per_entry"].as_f64();
    let Some(limit) = limit.filter(|_| ended.reason == StopReason::ScoresPerEntry) else {
        return Some(forecast.to_string());
    };
    let scores = match forecast.scores_per_entry() {
        scores if scores < MAX_SHOWN_SCORES_PER_ENTRY => format!("{scores:.1}"),
        _ => "more than a million".into(),
    };
    let resume = if config["score"]["by_hand"] == true { "ask again with" } else { "use --resume" };
    Some(format!(
        "an entry into the best {} is expected to cost {scores} scores, more than stop.scores_per_entry = {}; to continue, \
         {resume}{}",
        forecast.top,
        format_number(limit),
        raised_limit(ended),
    ))
}

/// The option that raises `stop.scores_per_entry` to twice the expected scores per entry.
pub fn raised_limit(ended: &RunSummary) -> String {
    let scores = ended.forecast.map_or(f64::INFINITY, |forecast| forecast.scores_per_entry());
    let limit =
        if scores < MAX_SHOWN_SCORES_PER_ENTRY { format!("{:.0}", (2.0 * scores).ceil()) } else { "inf".into() };
    format!(" --set stop.scores_per_entry={limit}")
}
