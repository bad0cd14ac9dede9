//! What is said of a run, on standard error: how far it is, how it ended.

use crate::{SearchLog, Summary, number};

use super::say;

/// How a run ended, on standard error: what was asked, and what it cost beside that.
pub fn ended(log: &SearchLog) {
    let run = log.path().display();
    let Some(ended) = &log.manifest().ended else {
        return say(format_args!("{run}: not ended; it goes on, or was killed"));
    };
    let beside = [
        (ended.reused, "reused"),
        (ended.rejected, "rejected"),
        (ended.failed, "failed"),
        (ended.retries, "retried"),
        (ended.asked_again, "asked again after a stop"),
    ];
    let beside: String =
        beside.iter().filter(|(items, _)| *items > 0).map(|(items, what)| format!(", {items} {what}")).collect();
    let (iterations, evaluations, reason) = (ended.iterations, ended.evaluations, ended.reason);
    say(format_args!("{iterations} iterations, {evaluations} items scored{beside} ({reason}): {run}"));
}

/// A line per iteration; with the time left where a budget of evaluations says so.
pub fn progress_lines(budget: Option<u64>) -> impl FnMut(&Summary) + Send {
    let started = std::time::Instant::now();
    let mut scored = 0;
    move |summary| {
        scored += summary.new;
        let number = |value: Option<f64>| value.map_or("-".to_string(), number);
        let rate = scored as f64 / started.elapsed().as_secs_f64().max(1e-9);
        let left = budget.map(|budget| budget.saturating_sub(summary.evaluations) as f64 / rate.max(1e-9));
        say(format_args!(
            "iteration {:>4}  best {:>10}  mean {:>10}  new {:>6}  rejected {:>5}  failed {:>5}  scored {:>8}  {rate:>9.1}/s{}",
            summary.iteration,
            number(summary.best),
            number(summary.mean),
            summary.new,
            summary.rejected,
            summary.failed,
            summary.evaluations,
            left.map_or(String::new(), |seconds| format!("  {seconds:.0} s left"))
        ));
    }
}
