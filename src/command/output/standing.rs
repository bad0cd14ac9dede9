//! How far a search is, in numbers and in words.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;

use super::screen::{count, seconds, spark};
use crate::config::StopConfig;
use crate::frame::text::format_number;
use crate::runner::IterationSummary;

/// What is known of how far the search is.
pub struct Standing {
    started: Instant,
    evaluations: Option<u64>,
    iterations: Option<u32>,
    seconds: Option<f64>,
    sign: f64,
    /// What was paid for before this process began.
    before: u64,
    /// Iterations that this process made.
    made: u32,
    last: Option<IterationSummary>,
    /// The best score so far after each of them.
    bests: Vec<f64>,
    /// The items that were asked and have no answer yet.
    pub waiting: Arc<AtomicUsize>,
}

impl Standing {
    pub fn new(stop: &StopConfig, minimize: bool) -> Self {
        Standing {
            started: Instant::now(),
            evaluations: stop.evaluations,
            iterations: Some(stop.max_iterations()).filter(|most| *most < u32::MAX),
            seconds: stop.seconds,
            sign: if minimize { -1.0 } else { 1.0 },
            before: 0,
            made: 0,
            last: None,
            bests: Vec::new(),
            waiting: Arc::default(),
        }
    }

    pub fn take(&mut self, summary: &IterationSummary) {
        if self.last.is_none() {
            self.before = summary.evaluations.saturating_sub(summary.new);
        }
        self.made += 1;
        self.last = Some(*summary);
        self.bests.extend(summary.best_so_far.map(|best| best * self.sign));
    }

    fn evaluated(&self) -> u64 {
        self.last.map_or(0, |last| last.evaluations)
    }

    fn elapsed(&self) -> f64 {
        self.started.elapsed().as_secs_f64().max(1e-9)
    }

    fn per_second(&self) -> f64 {
        self.evaluated().saturating_sub(self.before) as f64 / self.elapsed()
    }

    /// Seconds until the first of what stops the search, as far as what was seen tells.
    fn left(&self) -> Option<f64> {
        let last = self.last?;
        let per_second = self.per_second();
        let evaluations = self.evaluations.map(|budget| budget.saturating_sub(last.evaluations) as f64 / per_second);
        let iteration = self.elapsed() / f64::from(self.made);
        let iterations = self.iterations.map(|most| f64::from(most.saturating_sub(last.iteration + 1)) * iteration);
        let seconds = self.seconds.map(|limit| (limit - self.elapsed()).max(0.0));
        let known = [evaluations, iterations, seconds].into_iter().flatten().filter(|seconds| seconds.is_finite());
        known.min_by(f64::total_cmp)
    }

    /// The share of what it takes that is behind.
    fn share(&self) -> Option<f64> {
        let evaluations = self.evaluations.map(|budget| self.evaluated() as f64 / budget.max(1) as f64);
        let iterations = self.last.map_or(0, |last| last.iteration + 1);
        let iterations = self.iterations.map(|most| f64::from(iterations) / f64::from(most.max(1)));
        let seconds = self.seconds.map(|limit| self.elapsed() / limit.max(1e-9));
        [evaluations, iterations, seconds]
            .into_iter()
            .flatten()
            .max_by(f64::total_cmp)
            .map(|share| share.clamp(0.0, 1.0))
    }

    fn shown(&self, score: Option<f64>) -> String {
        score.map_or("-".into(), |score| format_number(score * self.sign))
    }

    pub fn best(&self) -> String {
        self.bests.last().map_or("no score yet".into(), |best| format!("best {}", format_number(*best)))
    }

    /// What the last iteration found.
    fn iteration(&self) -> String {
        let Some(last) = self.last else { return "iteration 0".into() };
        let of = self.iterations.map_or(String::new(), |most| format!(" of {}", count(u64::from(most))));
        let beside = [(last.rejected, "rejected"), (last.failed, "failed")];
        let beside: String =
            beside.iter().filter(|(items, _)| *items > 0).map(|(items, what)| format!(", {items} {what}")).collect();
        let made = count(u64::from(last.iteration) + 1);
        format!("iteration {made}{of}: mean {}{beside}", self.shown(last.mean))
    }

    pub fn found(&self) -> String {
        const CELLS: usize = 20;
        format!("  {}  {}", spark(&self.bests, CELLS), self.iteration())
    }

    /// What it took so far and still takes, the most important first.
    fn parts(&self) -> Vec<String> {
        let evaluations = match self.evaluations {
            Some(budget) => format!("{} of {} evaluations", count(self.evaluated()), count(budget)),
            None => format!("{} evaluations", count(self.evaluated())),
        };
        let mut parts = vec![evaluations];
        parts.extend(self.left().map(|left| format!("{} left", seconds(left))));
        let waiting = self.waiting.load(Ordering::Relaxed);
        if waiting > 0 {
            parts.push(format!("{} wait", count(waiting as u64)));
        }
        parts.extend((self.per_second() > 0.0).then(|| rate(self.per_second())));
        parts
    }

    /// How long the two parts of the bar are.
    pub fn bar(&self, width: usize) -> (usize, usize) {
        const LONGEST: usize = 40;
        let Some(share) = self.share() else { return (0, 0) };
        let long = width.saturating_sub(self.costs(width).chars().count()).min(LONGEST);
        let done = (share * long as f64).round() as usize;
        (done, long - done)
    }

    /// The parts as far as they leave room for a bar.
    pub fn costs(&self, width: usize) -> String {
        const SHORTEST: usize = 10;
        let mut parts = self.parts();
        loop {
            let text: String = parts.iter().map(|part| format!("  {part}")).collect();
            if text.chars().count() + SHORTEST <= width || parts.len() == 1 {
                return cut(&text, width);
            }
            parts.pop();
        }
    }

    pub fn line(&self) -> String {
        let mut parts = vec![self.best(), self.iteration()];
        parts.extend(self.parts());
        parts.join("  ")
    }

    pub fn verbose_line(&self, summary: &IterationSummary) -> String {
        let times = summary.times.stages().map(|(stage, seconds)| format!("{stage} {seconds:.3}")).join(" ");
        format!("{}  new {}  {times}", self.line(), summary.new)
    }

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
            "new": summary.new,
            "rejected": summary.rejected,
            "failed": summary.failed,
            "evaluations": summary.evaluations,
            "per_second": self.per_second(),
            "seconds_left": self.left(),
            "seconds": summary.times,
        })
    }
}

/// Items in the unit of time of which that is a number to read.
fn rate(per_second: f64) -> String {
    let units = [(1.0, "s"), (60.0, "min"), (3600.0, "h")];
    let (factor, unit) = units.into_iter().find(|(factor, _)| per_second * factor >= 1.0).unwrap_or(units[2]);
    format!("{:.1}/{unit}", per_second * factor)
}

pub fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some((end, _)) => text[..end].into(),
        None => text.into(),
    }
}
