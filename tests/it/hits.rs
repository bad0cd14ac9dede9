//! Tests of hits: scores that reach `stop.hit`, the end of a run by `stop.no_hit`, and ties among the best items.

use std::path::Path;

use polars::prelude::*;
use serde_json::Value;
use uphill::{RlUpdate, Runner, SearchLog, SqlScore, StopConditions, StopReason};

use crate::common::*;
use crate::runs::frames;

const YES_OR_NO: &str = "sql = \"CASE WHEN height < 1.0 THEN 1.0 ELSE 0.0 END\"";

/// A library of 800 items whose `height` is the squared distance from the origin, and a run file.
fn library(score: &str) -> TempDir {
    let folder = folder();
    let embeddings = normal(800, 4, &mut rng(1));
    let heights: Vec<f64> = embeddings.rows().into_iter().map(|row| f64::from(row.dot(&row))).collect();
    let mut items = items(&embeddings);
    items.with_column(Column::new("height".into(), heights)).expect("a column");
    write(&folder.path().join("items.parquet"), &items);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let run = format!(
        "seed = 3\n[database]\npath = \"items.lance\"\n[score]\n{score}\n[update]\nfeatures = []\nbatch = 10\n[stop]\nevaluations = 600\n"
    );
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    folder
}

fn search(folder: &Path, run: &str, options: &[&str]) -> String {
    let output = uphill(&[&["search", "run.toml", "--out", run][..], options].concat(), folder);
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

fn manifest(run: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(run.join("run.json")).expect("run.json")).expect("JSON")
}

/// The scores of a run in the order of their evaluations, with their iterations.
fn scores(run: &Path) -> Vec<(u32, f64)> {
    let log = SearchLog::open(run).expect("a run");
    let results = log.compile_results().expect("a query").filter(col("evaluation").is_not_null());
    let results = uphill::collect(results.sort(["evaluation"], SortMultipleOptions::default())).expect("results");
    u32s(&results, "iteration").into_iter().zip(f64s(&results, "score")).collect()
}

/// Hits found, the latest scores (at most 100) and the hits among them, and the scores since the last hit.
fn count(scores: &[f64], is_hit: impl Fn(f64) -> bool) -> [u64; 4] {
    let hits: Vec<bool> = scores.iter().map(|score| is_hit(*score)).collect();
    let hit_count = |hits: &[bool]| hits.iter().filter(|hit| **hit).count() as u64;
    let latest = &hits[hits.len().saturating_sub(100)..];
    let since = hits.iter().rev().take_while(|hit| !**hit).count() as u64;
    [hit_count(&hits), latest.len() as u64, hit_count(latest), since]
}

fn counted(hits: &Value) -> [u64; 4] {
    ["found", "recent_scores", "recent_hits", "scores_since_hit"]
        .map(|key| hits[key].as_u64().unwrap_or_else(|| panic!("{key}: {hits}")))
}

#[test]
fn a_run_ends_after_so_many_scores_without_a_hit_and_continues_when_the_limit_is_raised() {
    let folder = library(YES_OR_NO);
    let at = |run: &str| folder.path().join(run);
    let limit = |scores: u64| format!("stop.no_hit={scores}");
    let said = search(folder.path(), "run", &["--set", "stop.hit=1", "--set", &limit(40)]);
    let ended = manifest(&at("run"))["ended"].clone();
    assert_eq!(ended["reason"], "no_hit");

    // The count is that of the frames, and the run ended with the first batch that completes the forty.
    let scored = scores(&at("run"));
    let last = scored.last().expect("scores").0;
    let of = |iterations: u32| {
        let scores: Vec<f64> = scored.iter().filter(|row| row.0 < iterations).map(|row| row.1).collect();
        count(&scores, |score| score >= 1.0)
    };
    assert_eq!(counted(&ended["hits"]), of(last + 1));
    assert_eq!(ended["hits"]["threshold"], 1.0);
    let [found, .., since] = of(last + 1);
    assert!(found > 5 && since >= 40 && (1..=last).all(|iterations| of(iterations)[3] < 40), "{found} {since}");

    // Both figures, and what to type.
    let more = 2 * since;
    let line = format!(
        "{since} scores since the last hit, at least stop.no_hit = 40; to continue, use --resume --set stop.no_hit={more}"
    );
    assert!(said.contains("(too many scores in a row without a hit): run\n") && said.contains(&line), "{said}");
    let shown = uphill_ok(&["inspect", "run"], folder.path());
    assert!(shown.contains(&line), "{shown}");
    let inspected: Value =
        serde_json::from_str(&uphill_ok(&["inspect", "run", "--json"], folder.path())).expect("JSON");
    assert_eq!(inspected["hits"], ended["hits"]);
    let page = uphill_ok(&["report", "run", "-o", "report.html"], folder.path());
    let page = page + &std::fs::read_to_string(at("report.html")).expect("a page");
    assert!(page.contains("Hits") && page.contains(&format!("in the last {} scores", of(last + 1)[1])));

    // A run that has ended stays as it is. With a higher limit it continues as one that had it from the start.
    let before = frames(&at("run"));
    search(folder.path(), "run", &["--resume", "--set", "stop.hit=1", "--set", &limit(40)]);
    assert!(frames(&at("run")) == before);
    search(folder.path(), "run", &["--resume", "--set", "stop.hit=1", "--set", &limit(more)]);
    search(folder.path(), "whole", &["--set", "stop.hit=1", "--set", &limit(more)]);
    assert!(frames(&at("run")).len() > before.len(), "it did not continue");
    assert!(frames(&at("run")) == frames(&at("whole")));
    assert_eq!(manifest(&at("run"))["ended"]["hits"], manifest(&at("whole"))["ended"]["hits"]);
    // The limit changes nothing but the end.
    search(folder.path(), "unlimited", &["--set", "stop.hit=1"]);
    let unlimited = frames(&at("unlimited"));
    assert!(frames(&at("whole")).iter().all(|frame| unlimited.contains(frame)));
    assert!(unlimited.len() > frames(&at("whole")).len());
}

#[test]
fn a_threshold_shortens_the_start_of_a_run_that_starts_with_it_and_of_no_other() {
    // Almost half of the items are hits, so that few scores have both values.
    let folder = library(&YES_OR_NO.replace("1.0 THEN", "3.0 THEN"));
    let at = |run: &str| folder.path().join(run);
    let set = |sets: &[&'static str]| -> Vec<&'static str> { sets.iter().flat_map(|set| ["--set", set]).collect() };
    let first_model = |run: &str| {
        let results = SearchLog::open(at(run)).expect("a run").compile_results().expect("a query");
        let by_model = uphill::collect(results.filter(col("chosen_by").eq(lit("model")))).expect("results");
        by_model.column("evaluation").expect("evaluation").u64().expect("u64").min().expect("a model")
    };
    search(folder.path(), "without", &set(&["stop.evaluations=200", "update.batch=4"]));
    search(folder.path(), "hit", &set(&["stop.evaluations=200", "update.batch=4", "stop.hit=1"]));
    assert!(first_model("hit") < first_model("without"), "{} {}", first_model("hit"), first_model("without"));
    assert!(manifest(&at("without")).get("planned_hit").is_none());
    // A threshold that is set or removed later leaves the frames as they are.
    for (run, first, later) in [("added", &[][..], &["stop.hit=1"][..]), ("removed", &["stop.hit=1"], &[])] {
        let limit =
            |evaluations: &'static str, sets: &[&'static str]| set(&[&[evaluations, "update.batch=4"], sets].concat());
        search(folder.path(), run, &limit("stop.evaluations=200", &[first, &["stop.iterations=6"]].concat()));
        search(folder.path(), run, &[&["--resume"][..], &limit("stop.evaluations=200", later)].concat());
        let whole = if run == "added" { "without" } else { "hit" };
        assert!(frames(&at(run)) == frames(&at(whole)), "{run}");
    }
}

#[test]
fn with_batches_in_flight_the_last_ones_are_completed_and_a_raised_limit_continues_the_same() {
    let folder = library(YES_OR_NO);
    let at = |run: &str| folder.path().join(run);
    let set = |limit: &'static str| ["--set", "update.behind=2", "--set", "stop.hit=1", "--set", limit];
    search(folder.path(), "run", &set("stop.no_hit=30"));
    assert_eq!(manifest(&at("run"))["ended"]["reason"], "no_hit");
    search(folder.path(), "run", &[&["--resume"][..], &set("stop.no_hit=60")].concat());
    search(folder.path(), "whole", &set("stop.no_hit=60"));
    assert!(frames(&at("run")) == frames(&at("whole")));
}

#[test]
fn if_smaller_scores_are_better_a_score_of_at_most_the_threshold_is_a_hit() {
    let folder = library("sql = \"height\"\ndirection = \"minimize\"");
    search(folder.path(), "run", &["--set", "stop.hit=0.8", "--set", "stop.evaluations=200"]);
    let run = folder.path().join("run");
    let scored: Vec<f64> = scores(&run).into_iter().map(|(_, score)| -score).collect();
    let expected = count(&scored, |height| height <= 0.8);
    assert_eq!(counted(&manifest(&run)["ended"]["hits"]), expected);
    assert!(expected[0] > 5 && expected[0] < 200, "{expected:?}");
}

#[test]
fn the_json_log_has_the_hits_after_each_batch() {
    let folder = library(YES_OR_NO);
    let stop = ["--set", "stop.hit=1", "--set", "stop.evaluations=200"];
    let said = search(folder.path(), "run", &[&["--log-format", "json"][..], &stop].concat());
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let (ended, iterations) = events.split_last().expect("events");
    let scored = scores(&folder.path().join("run"));
    for event in iterations {
        let iteration = event["iteration"].as_u64().expect("a number") as u32;
        let scores: Vec<f64> = scored.iter().filter(|row| row.0 <= iteration).map(|row| row.1).collect();
        assert_eq!(counted(&event["hits"]), count(&scores, |score| score >= 1.0), "{event}");
    }
    assert_eq!(ended["hits"], iterations.last().expect("an event")["hits"]);
    let text = search(folder.path(), "verbose", &[&["-v"][..], &stop].concat());
    assert!(text.lines().any(|line| line.contains("in the last 100 scores;")), "{text}");
    let said = search(folder.path(), "without", &["--log-format", "json", "--set", "stop.evaluations=20"]);
    let event: Value = serde_json::from_str(said.lines().next().expect("a line")).expect("an object");
    assert!(event["hits"].is_null());
}

#[test]
fn the_dry_run_explains_hits_and_wrong_settings_are_refused() {
    let folder = library(YES_OR_NO);
    let plan = |sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let arguments = [&["search", "run.toml", "--out", "run", "--dry-run", "--format", "json"], &sets[..]].concat();
        uphill(&arguments, folder.path())
    };
    let hits = |sets: &[&str]| {
        let plan: Value = serde_json::from_slice(&plan(sets).stdout).expect("JSON");
        plan["hits"].clone()
    };
    assert_eq!(
        hits(&["stop.hit=1", "stop.no_hit=100"]),
        "scores of at least 1 (stop.hit); after the first batch that completes 100 scores in a row without one, the search ends \
         (stop.no_hit)"
    );
    assert_eq!(
        hits(&["stop.hit=-9.5", "score.direction=minimize"]),
        "scores of at most -9.5 (stop.hit); stop.no_hit is not set, so hits do not end the search"
    );
    assert!(hits(&[]).is_null());
    for (sets, message) in [
        (
            &["stop.no_hit=100"][..],
            "stop.no_hit = 100 needs the threshold of a hit; set stop.hit to the score from which on an item is a hit",
        ),
        (&["stop.hit=1", "stop.no_hit=0"], "stop.no_hit: expected at least 1, found 0"),
        (&["stop.hit=inf"], "stop.hit: expected a finite number, found inf"),
    ] {
        let output = plan(sets);
        assert_eq!(
            (stderr(&output).as_str(), output.status.code()),
            (format!("uphill: {message}\n").as_str(), Some(2))
        );
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let output = uphill(&[&["search", "run.toml", "--out", "run"], &sets[..]].concat(), folder.path());
        assert_eq!(stderr(&output), format!("uphill: {message}\n"));
        assert!(!folder.path().join("run/run.json").exists());
    }
}

#[test]
fn an_item_that_several_queries_find_again_counts_once_and_an_item_without_a_score_does_not_count() {
    let folder = folder();
    let library = exact_library(&folder, &clustered(400, 4, 8, &mut rng(2)));
    let start = uphill::queries_at(&library, &[3, 3, 14]).expect("queries");
    // A third of the items has no score.
    let score = "CASE WHEN weight < 0.33 THEN NULL WHEN weight > 0.8 THEN 1.0 ELSE 0.0 END";
    let stop = StopConditions::new().hit(1.0).no_hit(15).failed_share(1.0);
    let run = folder.path().join("run");
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let notes = seen.clone();
    let log = Runner::new(library, SqlScore::new(score), RlUpdate::new(0.5))
        .stop(stop)
        .on_iteration(move |summary| notes.lock().expect("notes").push(summary.hits.expect("hits")))
        .search_into(&run, &start, 40)
        .expect("a search");
    let results = log.compile_results().expect("a query").sort(["evaluation"], SortMultipleOptions::default());
    let results = uphill::collect(results).expect("results");
    let scored: Vec<f64> = results.column("score").expect("score").f64().expect("f64").iter().flatten().collect();
    assert!(scored.len() < results.height() && log.scan_results().expect("a scan").is_some());
    let ended = log.manifest().ended.clone().expect("ended");
    let hits = ended.hits.expect("hits");
    let found = [hits.found, hits.recent_scores, hits.recent_hits, hits.scores_since_hit];
    assert_eq!(found, count(&scored, |score| score >= 1.0));
    assert_eq!(seen.lock().expect("notes").last(), Some(&hits));
    assert!(ended.reason == StopReason::NoHit || ended.reason == StopReason::Iterations, "{ended}");
    // The library refuses what the command refuses.
    let stop = StopConditions::new().no_hit(5);
    let error = Runner::new(open(&folder.path().join("items.lance")), SqlScore::new(score), RlUpdate::new(0.5))
        .stop(stop)
        .search(&start, 1)
        .err()
        .expect("refused");
    assert!(error.to_string().starts_with("stop.no_hit = 5 needs the threshold of a hit"), "{error}");
}

#[test]
fn a_reused_hit_is_found_but_is_no_score_in_a_row() {
    let folder = library(YES_OR_NO);
    search(folder.path(), "earlier", &["--set", "stop.evaluations=100"]);
    let said = search(
        folder.path(),
        "run",
        &["--set", "score.reuse=[\"earlier\"]", "--set", "stop.hit=1", "--set", "stop.evaluations=20"],
    );
    let reused = scores(&folder.path().join("earlier")).iter().filter(|(_, score)| *score >= 1.0).count() as u64;
    let scored: Vec<f64> = scores(&folder.path().join("run")).into_iter().map(|(_, score)| score).collect();
    let [found, recent, hits, since] = count(&scored, |score| score >= 1.0);
    let expected = [found + reused, recent, hits, since];
    assert_eq!(counted(&manifest(&folder.path().join("run"))["ended"]["hits"]), expected, "{said}");
    assert!(reused > 5 && recent == 20);
}

#[test]
fn a_run_by_hand_that_no_hit_ended_continues_when_asked_with_a_higher_limit() {
    let folder = library("by_hand = true");
    let ask = |limit: &str| {
        let set = ["--set", "stop.hit=1", "--set", limit];
        let output =
            uphill(&[&["ask", "run.toml", "--out", "hand", "-o", "asked.parquet"][..], &set].concat(), folder.path());
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    for round in 0.. {
        let said = ask("stop.no_hit=20");
        if said.contains("without a hit") {
            assert!(
                said.contains("at least stop.no_hit = 20; to continue, ask again with --set stop.no_hit="),
                "{said}"
            );
            break;
        }
        assert!(round < 20, "{said}");
        let asked = read(&folder.path().join("asked.parquet"));
        let scores = asked.lazy().select([col("db_idx"), lit(0.0).alias("score")]).collect().expect("scores");
        write(&folder.path().join("scores.parquet"), &scores);
        uphill_ok(&["tell", "hand", "scores.parquet"], folder.path());
    }
    assert!(ask("stop.no_hit=60").contains("items are waiting for scores"));
}

#[test]
fn ties_among_the_ten_best_are_told_and_ordered_by_the_prediction() {
    let folder = library(YES_OR_NO);
    let said = search(folder.path(), "run", &["--set", "stop.evaluations=300"]);
    let run = folder.path().join("run");
    let tied = scores(&run).iter().filter(|(_, score)| *score == 1.0).count();
    let sentence = format!("{tied} items share the best score");
    assert!(tied > 20 && said.contains(&format!("{sentence}\n")), "{said}");
    let output = uphill(&["results", "run", "-o", "results.parquet"], folder.path());
    assert!(stderr(&output).contains(&format!("{sentence}\n")), "{}", stderr(&output));
    uphill_ok(&["report", "run", "-o", "report.html"], folder.path());
    let page = std::fs::read_to_string(folder.path().join("report.html")).expect("a page");
    assert!(page.contains(&format!("{sentence}.")));
    let said = search(folder.path(), "json", &["--log-format", "json", "--set", "stop.evaluations=300"]);
    let ended: Value = serde_json::from_str(said.lines().last().expect("a line")).expect("an object");
    assert_eq!(ended["tied_for_best"], tied);

    // The order, by a sort of the test's own.
    let results = read(&folder.path().join("results.parquet"));
    let predicted: Vec<Option<f64>> =
        results.column("predicted").expect("predicted").f64().expect("f64").iter().collect();
    let rows: Vec<(f64, Option<f64>, u64)> = f64s(&results, "score")
        .into_iter()
        .zip(predicted)
        .zip(u64s(&results, "db_idx"))
        .map(|((score, predicted), item)| (score, predicted, item))
        .collect();
    let mut sorted = rows.clone();
    // None is smaller than every number, so that it comes last.
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.partial_cmp(&a.1).expect("numbers")).then(a.2.cmp(&b.2)));
    assert!(rows == sorted);
    let mut by_item = rows.clone();
    by_item.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.2.cmp(&b.2)));
    assert!(rows != by_item, "the predictions order nothing");

    // Scores that differ are not told.
    std::fs::write(folder.path().join("run.toml"), {
        let text = std::fs::read_to_string(folder.path().join("run.toml")).expect("a run file");
        text.replace(YES_OR_NO, "sql = \"-height\"")
    })
    .expect("written");
    let said = search(folder.path(), "distinct", &["--set", "stop.evaluations=50"]);
    assert!(!said.contains("share the best score"), "{said}");
}
