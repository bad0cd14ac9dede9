//! Predictions and forecasts against programs in Python that read nothing but the files of a run.

use std::process::Command;
use std::sync::{Arc, Mutex};

use uphill::{Forecast, Runner, SearchLog, SqlScore, StopConditions, StopReason, SurrogateUpdate};

use crate::common::*;
use crate::predictions::{COMMAND, Place};
use crate::python::{environment, python, succeeds};

#[test]
fn predictions_are_those_of_scikit_learn_computed_from_the_log() {
    // Options of the score, of the rule, and other sections. What chooses items outside of the peak needs 100 scores.
    for (number, options, update, sections) in [
        (200, "", "", ""),
        (160, "", "behind = 2", ""),
        // A library that is searched from query points.
        (160, "", "points = 400_000", ""),
        (160, "direction = 'minimize'\n", "", "[filter]\nsql = 'weight < 0.8'\n"),
    ] {
        let place = Place::new();
        std::fs::write(place.path("fails"), "").expect("a file");
        place.run_file(number, COMMAND, (options, update, sections));
        place.search("run", &[]);
        let counts = recomputed(&place, "run");
        let count = |chosen_by: &str| counts[chosen_by].as_u64().unwrap_or(0);
        assert!(count("model") > 60 && count("elsewhere") > 0, "{counts}");
    }
}

#[test]
fn with_reused_scores_too_predictions_are_those_of_scikit_learn() {
    let place = Place::new();
    place.run_file(64, COMMAND, ("", "", ""));
    place.search("first", &[]);
    place.run_file(64, COMMAND, ("reuse = ['first']\n", "", ""));
    place.search("run", &[]);
    assert!(recomputed(&place, "run")["model"].as_u64() > Some(40));
}

/// Recomputes the predictions of a run. Returns how many there are, by `chosen_by`.
fn recomputed(place: &Place, run: &str) -> serde_json::Value {
    let script = root().join("tests/surrogate/predictions.py");
    let python = environment("venv-scikit-learn", &["polars==2.1.*", "scikit-learn==1.9.*"]);
    let mut command = Command::new(python);
    command.arg(script).args([run, "items.parquet", "--tolerance", "1e-9"]).current_dir(place.folder.path());
    let printed = succeeds(&mut command);
    println!("{printed}");
    serde_json::from_str(&printed).expect("JSON")
}

#[test]
fn the_forecast_is_that_of_the_benchmark_computed_from_the_log() {
    const SCRIPT: &str = r#"
import importlib.machinery, importlib.util, json, sys
import polars as pl
loader = importlib.machinery.SourceFileLoader("forecast", sys.argv[1])
forecast = importlib.util.module_from_spec(importlib.util.spec_from_loader("forecast", loader))
loader.exec_module(forecast)
forecast.TOP = int(sys.argv[2])
results = pl.read_parquet("run/results/**/*.parquet", hive_partitioning=True).sort("iteration", "evaluation")
print(json.dumps([forecast.forecasts(results), forecast.final(results)]))
"#;
    let place = Place::new();
    let database = open(&place.path("items.lance"));
    let queries = uphill::queries_at(&database, &[3, 50, 400]).expect("queries");
    let told: Arc<Mutex<Vec<(Forecast, Forecast)>>> = Arc::default();
    let runner = |iterations: u32| {
        let told = Arc::clone(&told);
        let score = SqlScore::new("CASE WHEN weight < 0.9 THEN value END");
        Runner::new(database.clone(), score, SurrogateUpdate::new().features(uphill::Features::Columns(Vec::new())))
            .seed(3)
            .stop(StopConditions::new().top(30))
            .on_iteration(move |summary| {
                assert!(summary.iteration < iterations);
                told.lock().expect("no panic").extend(summary.forecast.zip(summary.next_hundred));
            })
    };
    let path = place.path("run");
    // A run that is resumed forecasts as if it had not stopped.
    runner(12).search_into(&path, &queries, 12).expect("a search");
    let log = runner(25).resume(&path, &queries, 25).expect("a search");
    let script = root().join("benches/forecast");
    let mut command = Command::new(python());
    command.args(["-c", SCRIPT]).arg(script).arg("30").current_dir(place.folder.path());
    // Items, expected entries, entries that came, whether these are within the interval; the forecast for the next hundred.
    type Row = (usize, f64, u64, bool, f64, u64, u64);
    let (expected, at_end): (Vec<Row>, (f64, u64, u64)) = serde_json::from_str(&succeeds(&mut command)).expect("JSON");
    let told = told.lock().expect("no panic").clone();
    assert!(expected.len() > 15, "{expected:?}");
    assert_eq!(told.len(), expected.len());
    let is_same = |ours: &Forecast, (entries, low, high): (f64, u64, u64)| {
        (ours.entries - entries).abs() <= 1e-9 * entries && ours.interval() == (low, high)
    };
    for ((batch, next_hundred), (items, entries, came, is_within, following, low, high)) in told.iter().zip(expected) {
        assert_eq!((batch.top, batch.items), (30, items));
        let (lowest, highest) = batch.interval();
        assert_eq!((lowest..=highest).contains(&came), is_within, "{came} entries: {batch:?}");
        assert!((batch.entries - entries).abs() <= 1e-9 * entries, "{batch:?} is not {entries}");
        assert_eq!((next_hundred.top, next_hundred.items), (30, 100));
        assert!(is_same(next_hundred, (following, low, high)), "{next_hundred:?} is not {following} ({low} to {high})");
    }
    let recorded =
        |log: &SearchLog| log.manifest().ended.as_ref().and_then(|ended| ended.forecast).expect("a forecast");
    let ended = recorded(&log);
    assert_eq!((ended.top, ended.items), (30, 100));
    assert!(is_same(&ended, at_end), "{ended:?} is not {at_end:?}");
    drop(log);
    assert_eq!(recorded(&runner(25).resume(&path, &queries, 25).expect("nothing to do")), ended);
}

#[test]
fn the_forecast_that_ends_a_run_is_that_of_the_benchmark_computed_from_a_longer_run() {
    const SCRIPT: &str = r#"
import importlib.machinery, importlib.util, json, sys
import polars as pl
loader = importlib.machinery.SourceFileLoader("forecast", sys.argv[1])
forecast = importlib.util.module_from_spec(importlib.util.spec_from_loader("forecast", loader))
loader.exec_module(forecast)
forecast.TOP = 20
results = pl.read_parquet("whole/results/**/*.parquet", hive_partitioning=True).sort("iteration", "evaluation")
print(json.dumps(forecast.stop(results, 4)))
"#;
    for behind in ["", "behind = 1"] {
        let place = Place::new();
        place.run_file(200, "sql = 'value'\n", ("", behind, ""));
        place.search("whole", &["--set", "stop.top=20"]);
        place.search("ended", &["--set", "stop.top=20", "--set", "stop.scores_per_entry=4"]);
        let log = SearchLog::open(place.path("ended")).expect("a run");
        let ended = log.manifest().ended.clone().expect("an end");
        assert_eq!(ended.reason, StopReason::ScoresPerEntry);
        let forecast = ended.forecast.expect("a forecast");
        if behind.is_empty() {
            let mut command = Command::new(python());
            command.args(["-c", SCRIPT]).arg(root().join("benches/forecast")).current_dir(place.folder.path());
            let (scores, items, entries, low, high): (u64, usize, f64, u64, u64) =
                serde_json::from_str(&succeeds(&mut command)).expect("JSON");
            assert_eq!((ended.evaluations, forecast.items, forecast.interval()), (scores, items, (low, high)));
            assert!((forecast.entries - entries).abs() <= 1e-9 * entries, "{forecast:?} is not {entries}");
        }
        // More than one batch, and an interval for all of them.
        let (low, high) = forecast.interval();
        assert!(forecast.items >= 20 && forecast.scores_per_entry() > 4.0 && high > low, "{forecast:?}");
    }
}
