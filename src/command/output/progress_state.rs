//! The state of a running search: its cost so far, an estimate of the time left, and text for progress displays.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;

use super::forecast::{ForecastProgress, forecast_json, iteration_entries};
use super::numbers::{count, duration, rate, sparkline};
use super::terminal::truncate;
use crate::config::StopConfig;
use crate::frame::text::format_number;
use crate::runner::IterationSummary;

/// The state of a running search, updated after each iteration.
pub struct ProgressState {
    started: Instant,
    evaluations: Option<u64>,
    iterations: Option<u32>,
    seconds: Option<f64>,
    sign: f64,
    /// Evaluations before this process started.
    previous_evaluations: u64,
    /// Iterations that this process finished.
    finished_iterations: u32,
    last: Option<IterationSummary>,
    /// The best score so far, after each of these iterations, as given by the scorer.
    bests: Vec<f64>,
    pub forecast: ForecastProgress,
    /// Number of pending evaluations.
    pub pending: Arc<AtomicUsize>,
}

impl ProgressState {
    pub fn new(stop: &StopConfig, minimize: bool) -> Self {
        ProgressState {
            started: Instant::now(),
            evaluations: stop.evaluations,
            iterations: Some(stop.max_iterations()).filter(|most| *most < u32::MAX),
            seconds: stop.seconds,
            sign: if minimize { -1.0 } else { 1.0 },
            previous_evaluations: 0,
            finished_iterations: 0,
            last: None,
            bests: Vec::new(),
            forecast: ForecastProgress::default(),
            pending: Arc::default(),
        }
    }

    /// Adds the summary of an iteration.
    pub fn add(&mut self, summary: &IterationSummary) {
        if self.last.is_none() {
            self.previous_evaluations = summary.evaluations.saturating_sub(summary.new_items);
        }
        self.finished_iterations += 1;
        self.last = Some(*summary);
        self.forecast.add(summary);
        self.bests.extend(summary.best_so_far.map(|best| best * self.sign));
    }

    fn evaluations_so_far(&self) -> u64 {
        self.last.map_or(0, |last| last.evaluations)
    }

    fn elapsed(&self) -> f64 {
        self.started.elapsed().as_secs_f64().max(1e-9)
    }

    fn per_second(&self) -> f64 {
        self.evaluations_so_far().saturating_sub(self.previous_evaluations) as f64 / self.elapsed()
    }

    /// The estimated seconds until the search reaches one of its limits.
    fn seconds_left(&self) -> Option<f64> {
        let last = self.last?;
        let per_second = self.per_second();
        let evaluations = self.evaluations.map(|budget| budget.saturating_sub(last.evaluations) as f64 / per_second);
        let iteration = self.elapsed() / f64::from(self.finished_iterations);
        let iterations = self.iterations.map(|most| f64::from(most.saturating_sub(last.iteration + 1)) * iteration);
        let seconds = self.seconds.map(|limit| (limit - self.elapsed()).max(0.0));
        let estimates = [evaluations, iterations, seconds].into_iter().flatten().filter(|seconds| seconds.is_finite());
        estimates.min_by(f64::total_cmp)
    }

    /// The fraction of the search that is done, from 0 to 1: the largest over its limits.
    fn fraction_done(&self) -> Option<f64> {
        let evaluations = self.evaluations.map(|budget| self.evaluations_so_far() as f64 / budget.max(1) as f64);
        let iterations = self.last.map_or(0, |last| last.iteration + 1);
        let iterations = self.iterations.map(|most| f64::from(iterations) / f64::from(most.max(1)));
        let seconds = self.seconds.map(|limit| self.elapsed() / limit.max(1e-9));
        [evaluations, iterations, seconds]
            .into_iter()
            .flatten()
            .max_by(f64::total_cmp)
            .map(|fraction| fraction.clamp(0.0, 1.0))
    }

    /// A score as given by the scorer, as text.
    fn score_text(&self, score: Option<f64>) -> String {
        score.map_or("-".into(), |score| format_number(score * self.sign))
    }

    pub fn best(&self) -> String {
        self.bests.last().map_or("no score yet".into(), |best| format!("best {}", format_number(*best)))
    }

    /// The last iteration: its number, the mean score, and items without a score.
    fn iteration(&self) -> String {
        let Some(last) = self.last else { return "iteration 0".into() };
        let of = self.iterations.map_or(String::new(), |most| format!(" of {}", count(u64::from(most))));
        let unscored = [(last.rejected, "rejected"), (last.failed, "failed")];
        let unscored: String =
            unscored.iter().filter(|(items, _)| *items > 0).map(|(items, what)| format!(", {items} {what}")).collect();
        let number = count(u64::from(last.iteration) + 1);
        format!("iteration {number}{of}: mean {}{unscored}", self.score_text(last.mean))
    }

    /// The best scores so far as a sparkline, and the last iteration.
    pub fn scores(&self) -> String {
        const CELLS: usize = 20;
        format!("  {}  {}", sparkline(&self.bests, CELLS), self.iteration())
    }

    /// The hits so far. `None` without `stop.hit`.
    pub fn hits(&self) -> Option<String> {
        Some(self.last?.hits?.to_string())
    }

    /// The cost so far and the time left, the most important part first.
    fn cost_parts(&self) -> Vec<String> {
        let evaluations = match self.evaluations {
            Some(budget) => format!("{} of {} evaluations", count(self.evaluations_so_far()), count(budget)),
            None => format!("{} evaluations", count(self.evaluations_so_far())),
        };
        let mut parts = vec![evaluations];
        parts.extend(self.seconds_left().map(|left| format!("{} left", duration(left))));
        let pending = self.pending.load(Ordering::Relaxed);
        if pending > 0 {
            parts.push(format!("{} pending", count(pending as u64)));
        }
        parts.extend((self.per_second() > 0.0).then(|| rate(self.per_second())));
        parts
    }

    /// The lengths of the done part and the rest of the bar, in a block of this width.
    pub fn bar(&self, width: usize) -> (usize, usize) {
        const MAX_LENGTH: usize = 40;
        let Some(fraction) = self.fraction_done() else { return (0, 0) };
        let length = width.saturating_sub(self.cost(width).chars().count()).min(MAX_LENGTH);
        let done = (fraction * length as f64).round() as usize;
        (done, length - done)
    }

    /// The parts of the cost that leave room for a bar in a block of this width.
    pub fn cost(&self, width: usize) -> String {
        const MIN_BAR: usize = 10;
        let mut parts = self.cost_parts();
        loop {
            let text: String = parts.iter().map(|part| format!("  {part}")).collect();
            if text.chars().count() + MIN_BAR <= width || parts.len() == 1 {
                return truncate(&text, width);
            }
            parts.pop();
        }
    }

    /// The best score, the last iteration and the cost on one line.
    fn short_line(&self) -> String {
        let mut parts = vec![self.best(), self.iteration()];
        parts.extend(self.hits());
        parts.extend(self.cost_parts());
        parts.join("  ")
    }

    /// The whole state on one line.
    pub fn line(&self) -> String {
        let forecast = self.forecast.text(usize::MAX).map_or(String::new(), |text| format!("  {text}"));
        self.short_line() + &forecast
    }

    /// An iteration on one line: the state, its entries and the times of its stages.
    pub fn verbose_line(&self, summary: &IterationSummary) -> String {
        let times = summary.times.stages().map(|(stage, seconds)| format!("{stage} {seconds:.3}")).join(" ");
        format!("{}  new {}{}  {times}", self.short_line(), summary.new_items, iteration_entries(summary))
    }

    /// The event of an iteration, for `--log-format json`.
    pub fn event(&self, summary: &IterationSummary) -> serde_json::Value {
        let score = |score: Option<f64>| score.map(|score| score * self.sign);
        json!({
            "event": "iteration",
            "iteration": summary.iteration,
            "best": score(summary.best_so_far),
            "best_of_iteration": score(summary.best),
            "mean": score(summary.mean),
            "met": summary.candidates,
            "passed": summary.passed,
            "new": summary.new_items,
            "rejected": summary.rejected,
            "failed": summary.failed,
            "forecast": summary.forecast.as_ref().map(forecast_json),
            "entries": summary.entries,
            "hits": summary.hits,
            "evaluations": summary.evaluations,
            "per_second": self.per_second(),
            "seconds_left": self.seconds_left(),
            "seconds": summary.times,
        })
    }
}
