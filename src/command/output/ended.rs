//! How a run ended, on standard error: what it cost, where it is, and the commands that go on from there.

use std::io::{self, IsTerminal};
use std::path::Path;

use serde_json::{Value, json};

use super::screen::seconds;
use super::voice::{Voice, report, say};
use crate::log::{SearchLog, StopReason};

/// How a run ended: what was asked, and what it cost beside that.
pub fn ended(log: &SearchLog) {
    let run = log.path().display();
    let Some(ended) = &log.manifest().ended else {
        return say(format_args!("{run}: {}", log.manifest().status()));
    };
    if Voice::now().is_json() {
        let mut event = json!({ "event": "ended", "run": log.path() });
        if let (Value::Object(event), Ok(Value::Object(ended))) = (&mut event, serde_json::to_value(ended)) {
            event.extend(ended);
        }
        return report(&event);
    }
    let beside = [
        (ended.reused, "reused"),
        (ended.rejected, "rejected"),
        (ended.failed, "failed"),
        (ended.retries, "retried"),
        (ended.asked_again, "asked again after a stop"),
    ];
    let beside: String =
        beside.iter().filter(|(items, _)| *items > 0).map(|(items, what)| format!(", {items} {what}")).collect();
    let (iterations, evaluations) = (ended.iterations, ended.evaluations);
    let scored = ended.scored.unwrap_or(evaluations);
    // What was paid for and has no score.
    let of = if scored == evaluations { String::new() } else { format!("{evaluations} evaluations: ") };
    say(format_args!("{iterations} iterations, {of}{scored} items scored{beside} ({ended}): {run}"));
}

/// Where the time went.
pub fn took(log: &SearchLog) {
    let Some(times) = log.times().filter(|_| !Voice::now().is_json()) else { return };
    let mut stages = times.stages();
    stages.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let all: f64 = stages.iter().map(|(_, time)| time).sum();
    let shares = stages.iter().filter(|(_, time)| *time >= all / 100.0);
    let shares: Vec<String> = shares.map(|(stage, time)| format!("{stage} {}", seconds(*time))).collect();
    say(format_args!("{}: {}", seconds(all), shares.join(", ")));
}

/// The commands that go on from a run of a run file with some overrides, for whoever looks at a screen.
pub fn go_on(log: &SearchLog, run_file: &Path, set: &[String]) {
    if !io::stderr().is_terminal() || Voice::now().is_json() {
        return;
    }
    let run = shell(&log.path().to_string_lossy());
    let set: String = set.iter().map(|set| format!(" --set {}", shell(set))).collect();
    let resume = format!("uphill search {} --out {run} --resume{set}", shell(&run_file.to_string_lossy()));
    let Some(ended) = &log.manifest().ended else { return };
    if ended.reason == StopReason::Interrupted {
        return say(format_args!("  {resume}"));
    }
    let further = match ended.reason {
        StopReason::Evaluations => format!(" --set stop.evaluations={}", ended.evaluations.saturating_mul(2)),
        StopReason::Iterations => format!(" --set stop.iterations={}", ended.iterations.saturating_mul(2)),
        _ => String::new(),
    };
    say("");
    say("See it, query it, go further:");
    say(format_args!("  uphill report {run} -o report.html --open"));
    say(format_args!("  duckdb -c {}", shell(&best_by_sql(log.path()))));
    say(format_args!("  {resume}{further}"));
}

/// What DuckDB is asked for the best items.
fn best_by_sql(run: &Path) -> String {
    // In the names of folders, what its patterns take for more than themselves stands in brackets.
    let plain = |c: char| if "*?[".contains(c) { format!("[{c}]") } else { c.into() };
    let files: String = run.to_string_lossy().chars().map(plain).collect::<String>().replace('\'', "''");
    format!("from '{files}/results/*/*.parquet' order by score desc limit 10")
}

/// A word as a shell takes it.
pub fn shell(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:+,@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into();
    }
    match word.contains(['"', '$', '`', '\\', '!']) {
        false => format!("\"{word}\""),
        true => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
