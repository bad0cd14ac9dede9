//! The end of a run on standard error: its cost, the time of each stage, and commands to run next.

use std::io::{self, IsTerminal};
use std::path::Path;

use serde_json::{Value, json};

use super::forecast::{final_forecast, forecast_json, raised_limit};
use super::hits::{final_hits, raised_no_hit};
use super::logger::{info, json_event, verbosity};
use super::numbers::{count, duration};
use super::shell::quote;
use crate::log::{SearchLog, StopReason};

/// Prints why a run ended and what it cost.
pub fn print_summary(log: &SearchLog) {
    let run = log.path().display();
    let Some(ended) = &log.manifest().ended else {
        return info(format_args!("{run}: {}", log.manifest().status()));
    };
    if verbosity().is_json() {
        let mut event = json!({ "event": "ended", "run": log.path() });
        if let (Value::Object(event), Ok(Value::Object(ended))) = (&mut event, serde_json::to_value(ended)) {
            event.extend(ended);
        }
        if let Some(forecast) = &ended.forecast {
            event["forecast"] = forecast_json(forecast);
        }
        if let Some(items) = tied_for_best(log) {
            event["tied_for_best"] = items.into();
        }
        return json_event(&event);
    }
    let others = [
        (ended.reused, "reused"),
        (ended.rejected, "rejected"),
        (ended.failed, "failed"),
        (ended.retries, "retried"),
        (ended.scored_again, "scored again after a kill"),
    ];
    let others: String =
        others.iter().filter(|(items, _)| *items > 0).map(|(items, what)| format!(", {items} {what}")).collect();
    let (iterations, evaluations) = (ended.iterations, ended.evaluations);
    let scored = ended.scored.unwrap_or(evaluations);
    // Some evaluations may have given no score.
    let total = if scored == evaluations { String::new() } else { format!("{evaluations} evaluations: ") };
    info(format_args!("{iterations} iterations, {total}{scored} items scored{others} ({ended}): {run}"));
    if let Some(items) = tied_for_best(log) {
        info(format_args!("{} items share the best score", count(items)));
    }
    final_hits(log).into_iter().chain(final_forecast(log)).for_each(info);
}

/// The number of items that share the best score, if the ten best items do. `None` if the results cannot be read, because this
/// is only a remark.
fn tied_for_best(log: &SearchLog) -> Option<u64> {
    log.tied_for_best().ok().flatten()
}

/// Prints the time of each stage, the longest first.
pub fn print_times(log: &SearchLog) {
    let Some(times) = log.times().filter(|_| !verbosity().is_json()) else { return };
    let mut stages = times.stages();
    stages.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let total: f64 = stages.iter().map(|(_, time)| time).sum();
    let longest = stages.iter().filter(|(_, time)| *time >= total / 100.0);
    let longest: Vec<String> = longest.map(|(stage, time)| format!("{stage} {}", duration(*time))).collect();
    info(format_args!("{}: {}", duration(total), longest.join(", ")));
}

/// Prints commands to run next, if standard error is a terminal. `set` has the overrides of the run file.
pub fn print_next_steps(log: &SearchLog, run_file: &Path, set: &[String]) {
    if !io::stderr().is_terminal() || verbosity().is_json() {
        return;
    }
    let run = quote(&log.path().to_string_lossy());
    let set: String = set.iter().map(|set| format!(" --set {}", quote(set))).collect();
    let resume = format!("uphill search {} --out {run} --resume{set}", quote(&run_file.to_string_lossy()));
    let Some(ended) = &log.manifest().ended else { return };
    if ended.reason == StopReason::Interrupted {
        return info(format_args!("  {resume}"));
    }
    let more = match ended.reason {
        StopReason::Evaluations => format!(" --set stop.evaluations={}", ended.evaluations.saturating_mul(2)),
        StopReason::Iterations => format!(" --set stop.iterations={}", ended.iterations.saturating_mul(2)),
        StopReason::ScoresPerEntry => raised_limit(ended),
        StopReason::NoHit => raised_no_hit(ended),
        _ => String::new(),
    };
    info("");
    info("Next steps:");
    info(format_args!("  uphill report {run} -o report.html --open"));
    info(format_args!("  duckdb -c {}", quote(&best_items_query(log.path()))));
    info(format_args!("  {resume}{more}"));
}

/// The DuckDB query for the best items.
fn best_items_query(run: &Path) -> String {
    // Brackets escape the special characters of glob patterns.
    let escape = |c: char| if "*?[".contains(c) { format!("[{c}]") } else { c.into() };
    let files: String = run.to_string_lossy().chars().map(escape).collect::<String>().replace('\'', "''");
    format!("from '{files}/results/*/*.parquet' order by score desc limit 10")
}
