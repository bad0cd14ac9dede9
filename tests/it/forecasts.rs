//! Tests of forecasts as the command shows them, and of `stop.scores_per_entry`.

use std::path::Path;

use polars::prelude::*;
use serde_json::Value;

use crate::common::*;
use crate::runs::frames;

const RUN: &str = "seed = 3\n[database]\npath = \"items.lance\"\n[score]\nsql = \"-height\"\n";
const STOP: &str = "[update]\nfeatures = []\nbatch = 10\n[stop]\nevaluations = 300\ntop = 10\n";

/// A library of 800 items whose `height` is the squared distance from the origin, and a run file.
fn library(sections: &str) -> TempDir {
    let folder = folder();
    let embeddings = normal(800, 4, &mut rng(1));
    let heights: Vec<f64> = embeddings.rows().into_iter().map(|row| f64::from(row.dot(&row))).collect();
    let mut items = items(&embeddings);
    items.with_column(Column::new("height".into(), heights)).expect("a column");
    write(&folder.path().join("items.parquet"), &items);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    std::fs::write(folder.path().join("run.toml"), format!("{RUN}{sections}")).expect("written");
    folder
}

fn search(folder: &Path, run: &str, options: &[&str]) -> String {
    let output = uphill(&[&["search", "run.toml", "--out", run][..], options].concat(), folder);
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

fn inspect(folder: &Path, run: &str) -> Value {
    serde_json::from_str(&uphill_ok(&["inspect", run, "--json"], folder)).expect("JSON")
}

fn manifest(folder: &Path, run: &str) -> String {
    std::fs::read_to_string(folder.join(run).join("run.json")).expect("run.json")
}

/// The number that follows a text.
fn number_after(text: &str, before: &str) -> f64 {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("`{before}` is not in: {text}"));
    let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    number.trim_end_matches('.').parse().unwrap_or_else(|error| panic!("{error}: {number}"))
}

#[test]
fn a_run_ends_when_an_entry_costs_too_much_and_continues_when_the_limit_is_raised() {
    let folder = library(STOP);
    let folder = folder.path();
    let said = search(folder, "run", &["--set", "stop.scores_per_entry=5"]);
    let ended: Value = serde_json::from_str::<Value>(&manifest(folder, "run")).expect("JSON")["ended"].clone();
    let evaluations = ended["evaluations"].as_u64().expect("a number");
    assert!(ended["reason"] == "scores_per_entry" && (20..300).contains(&evaluations), "{ended}");
    // Both figures, and what to type.
    assert!(said.contains("(an entry into the best scores is expected to cost too much): run\n"), "{said}");
    let price = number_after(&said, "an entry into the best 10 is expected to cost ");
    assert!(price > 5.0 && said.contains(" scores, more than stop.scores_per_entry = 5; to continue, use "), "{said}");
    let raised = number_after(&said, "--resume --set stop.scores_per_entry=");
    assert!((2.0 * price - raised).abs() < 2.0, "{said}");
    // `inspect` has the same figures.
    let shown = uphill_ok(&["inspect", "run"], folder);
    let line = said.lines().find(|line| line.starts_with("an entry ")).expect("a line");
    assert!(shown.contains(&format!("forecast          {line}\n")), "{shown}");
    let expected = inspect(folder, "run")["forecast"]["scores_per_entry"].as_f64().expect("a number");
    assert!((expected - price).abs() < 0.1, "{expected} {price}");

    // A run that has ended stays as it is.
    let (before, results) = (manifest(folder, "run"), frames(&folder.join("run")));
    search(folder, "run", &["--resume", "--set", "stop.scores_per_entry=5"]);
    let after: Value = serde_json::from_str(&manifest(folder, "run")).expect("JSON");
    let mut before: Value = serde_json::from_str(&before).expect("JSON");
    before["ended"]["at"] = after["ended"]["at"].clone();
    assert_eq!(before, after);
    assert!(results == frames(&folder.join("run")));

    // With a higher limit it continues, as a run that had this limit from the start.
    let limit = format!("stop.scores_per_entry={raised}");
    search(folder, "run", &["--resume", "--set", &limit]);
    search(folder, "whole", &["--set", &limit]);
    assert!(frames(&folder.join("run")).len() > results.len(), "it did not continue");
    assert!(frames(&folder.join("run")) == frames(&folder.join("whole")), "raised from the start");
}

/// The 10th best of scores, if there are so many.
fn tenth_best(scores: &mut [f64]) -> Option<f64> {
    scores.sort_by(|a, b| b.total_cmp(a));
    scores.get(9).copied()
}

/// The same numbers, but for the last bit, which reading run.json may change.
fn assert_same(a: &Value, b: &Value) {
    for key in ["top", "items", "entries", "low", "high", "scores_per_entry"] {
        let number = |forecast: &Value| forecast[key].as_f64().unwrap_or_else(|| panic!("{key}: {forecast}"));
        assert!((number(a) - number(b)).abs() <= 1e-12 * number(a).abs(), "{key}: {a} and {b}");
    }
}

#[test]
fn the_json_log_has_the_forecast_and_the_entries_of_each_batch() {
    let folder = library(STOP);
    let folder = folder.path();
    let said = search(folder, "run", &["--log-format", "json"]);
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let (ended, iterations) = events.split_last().expect("events");
    let (mut scores, mut forecasts) = (Vec::new(), 0);
    for event in iterations {
        let iteration = event["iteration"].as_u64().expect("a number");
        let results = read(&folder.join(format!("run/results/iteration={iteration:06}/part-0000.parquet")));
        let new = f64s(&results, "score");
        if let Some(threshold) = tenth_best(&mut scores).filter(|_| !event["forecast"].is_null()) {
            let came = new.iter().filter(|score| **score > threshold).count();
            assert_eq!(event["entries"], came, "iteration {iteration}");
            let forecast = &event["forecast"];
            assert_eq!((&forecast["top"], &forecast["items"]), (&10.into(), &new.len().into()), "{event}");
            let number = |key: &str| forecast[key].as_f64().unwrap_or_else(|| panic!("{key}: {event}"));
            assert!(number("low") <= number("entries") + 1.0 && number("entries") <= number("high") + 1.0, "{event}");
            let price = number("items") / number("entries");
            assert!((number("scores_per_entry") / price - 1.0).abs() < 1e-9, "{event}");
            forecasts += 1;
        } else {
            assert!(event["forecast"].is_null() && event["entries"].is_null(), "{event}");
        }
        scores.extend(new);
    }
    assert!(forecasts > 10, "{forecasts} forecasts");
    // The end of a run has one for the next hundred.
    let forecast = &ended["forecast"];
    assert_eq!((&forecast["top"], &forecast["items"]), (&10.into(), &100.into()), "{ended}");
    assert_same(forecast, &inspect(folder, "run")["forecast"]);
    // A limit that is not reached changes nothing.
    let text = search(folder, "again", &["--set", "stop.scores_per_entry=1e9"]);
    assert!(text.contains("\nthe next 100 scores are expected to bring "), "{text}");
    assert!(frames(&folder.join("run")) == frames(&folder.join("again")));
    // Resuming a run that has ended keeps its forecast.
    search(folder, "run", &["--resume"]);
    assert_same(forecast, &inspect(folder, "run")["forecast"]);
    // A line of -v has both figures.
    let verbose = search(folder, "verbose", &["-v"]);
    assert!(verbose.lines().filter(|line| line.contains("  entries ") && line.contains(" (expected ")).count() > 10);
}

#[test]
fn a_dry_run_explains_what_forecasts_count_and_when_they_end_the_search() {
    let folder = library(STOP);
    let folder = folder.path();
    let plan = |set: &[&str]| {
        let set: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
        let arguments = ["search", "run.toml", "--out", "run", "--dry-run", "--format", "json"];
        let plan: Value = serde_json::from_str(&uphill_ok(&[&arguments[..], &set].concat(), folder)).expect("JSON");
        plan["forecast"].as_str().expect("text").to_string()
    };
    let start = "expected entries into the best 10 scores, once 10 items have a score; ";
    assert_eq!(
        plan(&["stop.scores_per_entry=7.5"]),
        format!(
            "{start}the search ends when an entry is expected to cost more than 7.5 scores (stop.scores_per_entry)"
        )
    );
    assert_eq!(plan(&[]), format!("{start}stop.scores_per_entry is not set, so forecasts do not end the search"));
    assert_eq!(
        plan(&["stop.top=300"]),
        "none: it needs more than 300 scores (stop.top), and the search has at most 300"
    );
    std::fs::write(folder.join("run.toml"), format!("{RUN}[stop]\nevaluations = 101\n")).expect("written");
    assert!(plan(&[]).starts_with("expected entries into the best 100 scores, "), "the default of stop.top");
}

#[test]
fn a_rule_without_a_model_does_not_forecast_and_says_so() {
    for rule in ["rl", "top-k", "top-k-discrete"] {
        let folder = library(&format!("[update]\nrule = \"{rule}\"\n[stop]\niterations = 2\n"));
        let folder = folder.path();
        let message = format!(
            "uphill: stop.scores_per_entry: does not work with the rule `{rule}`, which has no model that forecasts scores; \
             remove stop.scores_per_entry, or set update.rule to `surrogate`\n"
        );
        for dry in [&["--dry-run"][..], &[]] {
            let set = ["search", "run.toml", "--out", "run", "--set", "stop.scores_per_entry=50"];
            let output = uphill(&[&set[..], dry].concat(), folder);
            assert_eq!((stderr(&output), output.status.code()), (message.clone(), Some(2)));
            assert!(!folder.join("run").exists(), "nothing was written");
        }
        let unused = format!("stop.top = 20 is not used: the rule `{rule}` has no model that forecasts scores");
        let arguments = ["search", "run.toml", "--out", "run", "--set", "stop.top=20"];
        let plan = uphill_ok(&[&arguments[..], &["--dry-run"]].concat(), folder);
        assert!(plan.contains(&format!("unused keys       {unused}\n")) && !plan.contains("forecast "), "{plan}");
        let output = uphill(&arguments, folder);
        assert!(stderr(&output).starts_with(&format!("uphill: {unused}\n")), "{}", stderr(&output));
        assert!(inspect(folder, "run")["forecast"].is_null());
    }
}

#[test]
fn a_run_that_was_killed_before_it_recorded_its_end_records_the_same_forecast_when_it_is_resumed() {
    for behind in ["", "behind = 2\n"] {
        let folder = library(&STOP.replace("[stop]", &format!("{behind}[stop]")));
        let folder = folder.path();
        search(folder, "run", &["--set", "stop.evaluations=60"]);
        let path = folder.join("run/run.json");
        let whole: Value = serde_json::from_str(&manifest(folder, "run")).expect("JSON");
        // As run.json is between the last iteration and the end.
        let mut running = whole.clone();
        running.as_object_mut().expect("an object").remove("ended");
        std::fs::write(&path, running.to_string()).expect("written");
        search(folder, "run", &["--resume", "--set", "stop.evaluations=60"]);
        let resumed: Value = serde_json::from_str(&manifest(folder, "run")).expect("JSON");
        let keys = ["top", "items", "entries", "low", "high"];
        assert_eq!(
            keys.map(|key| &resumed["ended"]["forecast"][key]),
            keys.map(|key| &whole["ended"]["forecast"][key])
        );
        // Read back, it has its interval.
        let log = uphill::SearchLog::open(folder.join("run")).expect("a run");
        let forecast = log.manifest().ended.as_ref().and_then(|ended| ended.forecast).expect("a forecast");
        let (low, high) = forecast.interval();
        assert_eq!(
            (whole["ended"]["forecast"]["low"].as_u64(), whole["ended"]["forecast"]["high"].as_u64()),
            (Some(low), Some(high))
        );
        assert!(high > 0, "{forecast:?}");
    }
}

#[test]
fn a_batch_that_the_budget_cuts_is_forecast_for_the_items_within_the_budget() {
    let folder = library(STOP);
    let folder = folder.path();
    let last = |budget: u64| {
        let said = search(
            folder,
            &format!("run-{budget}"),
            &["--log-format", "json", "--set", &format!("stop.evaluations={budget}")],
        );
        let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
        events[events.len() - 2].clone()
    };
    let (whole, cut) = (last(260), last(253));
    assert_eq!((&whole["iteration"], &whole["forecast"]["items"]), (&cut["iteration"], &10.into()));
    assert_eq!((&cut["forecast"]["items"], &cut["new"]), (&3.into(), &3.into()));
    let entries = |event: &Value| event["forecast"]["entries"].as_f64().expect("a number");
    assert!(entries(&cut) < entries(&whole), "{cut} {whole}");
}
