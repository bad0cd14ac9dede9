//! Explanations of items: they are of the model that chose the item, add up to its prediction, and change nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use ndarray::{Array2, Axis};
use polars::prelude::*;
use uphill::{LanceDatabase, RlUpdate, Runner, SearchLog, SqlScore, SurrogateUpdate, VectorDatabase};

use crate::common::*;
use crate::faults::*;

/// The negative squared distance to item 0: one peak.
fn hill(embeddings: &Array2<f32>) -> impl Fn(&DataFrame) -> uphill::Result<Vec<f64>> + Send + Sync + 'static {
    let squared = |item: ndarray::ArrayView1<f32>| (&item - &embeddings.row(0)).mapv(|value| value * value).sum();
    let scores: Vec<f64> = embeddings.axis_iter(Axis(0)).map(|item| -f64::from(squared(item))).collect();
    move |items: &DataFrame| Ok(u64s(items, "db_idx").into_iter().map(|item| scores[item as usize]).collect())
}

/// A search of a library of one peak, with so many batches in flight.
struct Hill {
    folder: TempDir,
    embeddings: Array2<f32>,
    database: LanceDatabase,
    behind: usize,
}

impl Hill {
    fn new(behind: usize) -> Self {
        let (folder, embeddings) = (folder(), clustered(1500, 6, 12, &mut rng(11)));
        let database = exact_library(&folder, &embeddings);
        Hill { folder, embeddings, database, behind }
    }

    fn runner(&self) -> (Runner, DataFrame) {
        let database = self.database.clone();
        let items = database.sample(8, &mut uphill::random_stream(4, "queries", 0, 0)).expect("a sample");
        let queries = uphill::queries_at(&database, &items).expect("queries");
        let rule = SurrogateUpdate::new().batch(12).behind(self.behind);
        (Runner::new(database, hill(&self.embeddings), rule).seed(4), queries)
    }

    /// Searches for a number of iterations. Returns the folder and a runner for it.
    fn search(&self, name: &str, iterations: u32) -> (PathBuf, Runner) {
        let (mut runner, queries) = self.runner();
        let run = self.folder.path().join(name);
        runner.search_into(&run, &queries, iterations).expect("a search");
        (run, runner)
    }
}

/// All items of a run, in the order of their evaluation.
fn log(run: &Path) -> DataFrame {
    let results = SearchLog::open(run).expect("a run").compile_results().expect("a query");
    uphill::collect(results.sort(["evaluation"], Default::default())).expect("items")
}

fn optional(frame: &DataFrame, name: &str) -> Vec<Option<f64>> {
    frame.column(name).expect(name).f64().expect("f64").iter().collect()
}

fn texts(frame: &DataFrame, name: &str) -> Vec<Option<String>> {
    frame.column(name).expect(name).str().expect("text").iter().map(|text| text.map(str::to_string)).collect()
}

/// The rows of each item, in order.
fn by_item(explained: &DataFrame) -> Vec<(u64, DataFrame)> {
    let items = u64s(explained, "db_idx");
    let mut starts: Vec<usize> = (0..items.len()).collect();
    starts.dedup_by_key(|row| items[*row]);
    let ends = starts.iter().skip(1).copied().chain([items.len()]);
    let rows = starts.iter().zip(ends).map(|(start, end)| (items[*start], explained.slice(*start as i64, end - start)));
    rows.collect()
}

/// All paths below a folder, with the bytes of the files.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(contents(&path));
            all.insert(path, None);
        } else {
            all.insert(path.clone(), Some(std::fs::read(&path).expect("a file")));
        }
    }
    all
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * (1.0 + a.abs())
}

#[test]
fn contributions_sum_to_the_prediction_in_the_log_of_every_item() {
    for behind in [0, 2] {
        let hill = Hill::new(behind);
        let (run, mut runner) = hill.search("run", 16);
        let log = log(&run);
        let items = u64s(&log, "db_idx");
        let before = contents(&run);
        let explained = runner.explain(&run, &items).expect("an explanation");
        assert!(before == contents(&run), "explaining changed the run folder");

        let (predicted, deviation) = (optional(&log, "predicted"), optional(&log, "deviation"));
        let (iteration, chosen_by, scores) = (u32s(&log, "iteration"), texts(&log, "chosen_by"), f64s(&log, "score"));
        let row_of: HashMap<u64, usize> = items.iter().copied().zip(0..).collect();
        let rows = by_item(&explained);
        assert_eq!(rows.iter().map(|(item, _)| *item).collect::<Vec<_>>(), items, "the order of the arguments");
        let (mut predictions, mut linear) = (0, 0);
        for (at, (item, rows)) in rows.iter().enumerate() {
            let first = |name: &str| optional(rows, name)[0];
            assert_eq!(first("score"), Some(scores[at]));
            assert_eq!((u32s(rows, "iteration")[0], &texts(rows, "chosen_by")[0]), (iteration[at], &chosen_by[at]));
            assert_eq!(first("predicted").is_some(), predicted[at].is_some(), "item {item}");
            let Some(mean) = first("posterior_mean") else {
                assert!(rows.height() == 1 && iteration[at] < 3 && predicted[at].is_none(), "item {item}");
                continue;
            };
            if let Some(predicted) = predicted[at] {
                predictions += 1;
                assert!(close(predicted, first("predicted").expect("predicted")), "item {item}: {predicted}");
                assert!(close(deviation[at].expect("deviation"), first("deviation").expect("deviation")));
            }
            let sum = |name: &str| optional(rows, name).into_iter().flatten().sum::<f64>();
            assert!(close(sum("contribution"), mean), "item {item}: {} {mean}", sum("contribution"));
            assert!(close(sum("share"), 1.0), "item {item}: {}", sum("share"));

            // Five items with the score of the log, which was known when the item was chosen, then the others.
            let neighbours: Vec<Option<u64>> =
                rows.column("neighbour_idx").expect("u64").u64().expect("u64").iter().collect();
            assert!(neighbours.len() == 6 && neighbours[5].is_none(), "{neighbours:?}");
            let contributions = optional(rows, "contribution");
            assert!(contributions[..5].windows(2).all(|pair| pair[0].map(f64::abs) >= pair[1].map(f64::abs)));
            let shares =
                ["embedding", "name", "weight"].map(|group| optional(rows, &format!("distance_share_{group}")));
            for (row, neighbour) in neighbours[..5].iter().enumerate() {
                let other = row_of[&neighbour.expect("an item")];
                assert!(iteration[other] < iteration[at]);
                assert_eq!(optional(rows, "neighbour_score")[row], Some(scores[other]));
                assert!(close(shares.iter().map(|shares| shares[row].expect("a share")).sum(), 1.0));
            }

            // The scale of targets: scores at least the median of the first 32, standardised, if none is logarithmic.
            let observed: Vec<f64> =
                (0..items.len()).filter(|row| iteration[*row] < iteration[at]).map(|row| scores[row]).collect();
            let mut baseline = observed[..observed.len().min(32)].to_vec();
            baseline.sort_by(f64::total_cmp);
            let floor = baseline[baseline.len() / 2];
            let targets: Vec<f64> = observed.iter().map(|score| score.max(floor)).collect();
            let n = targets.len() as f64;
            let centre = targets.iter().sum::<f64>() / n;
            let scale = (targets.iter().map(|target| (target - centre).powi(2)).sum::<f64>() / n).sqrt();
            let is_linear = targets.iter().all(|target| (target - centre) / scale <= 3.0);
            if let (0, true, Some(predicted), Some("model" | "random")) =
                (behind, is_linear, predicted[at], chosen_by[at].as_deref())
            {
                linear += 1;
                assert!(close(centre + scale * mean, predicted), "item {item}: {predicted}");
            }
        }
        println!("behind {behind}: {predictions} predictions, {linear} linear");
        assert!(predictions > 60 && (linear > 30 || behind > 0));
    }
}

#[test]
fn an_item_without_a_score_is_explained_as_by_the_model_that_chooses_it_later() {
    let hill = Hill::new(0);
    let (long, mut runner) = hill.search("long", 8);
    let log = log(&long);
    let by_model = texts(&log, "chosen_by").into_iter().zip(u32s(&log, "iteration")).zip(u64s(&log, "db_idx"));
    let chosen: Vec<u64> = by_model
        .filter(|((chosen_by, iteration), _)| *iteration == 6 && chosen_by.as_deref() == Some("model"))
        .map(|(_, item)| item)
        .collect();
    let (short, mut other) = hill.search("short", 6);
    let (later, now) =
        (runner.explain(&long, &chosen).expect("explained"), other.explain(&short, &chosen).expect("explained"));
    assert!(chosen.len() > 4 && now.column("score").expect("score").null_count() == now.height());
    let log_columns = ["iteration", "chosen_by", "score"];
    assert!(later.drop_many(log_columns).equals_missing(&now.drop_many(log_columns)), "{later} {now}");
    // In another order and repeated, each item is there once.
    let reversed: Vec<u64> = chosen.iter().rev().chain(&chosen).copied().collect();
    let again = runner.explain(&long, &reversed).expect("explained");
    assert_eq!(by_item(&again).iter().map(|(item, _)| *item).collect::<Vec<_>>(), reversed[..chosen.len()]);
}

/// A scene of the surrogate rule, so many batches behind.
fn scene(score: &str, behind: usize) -> Scene {
    let scene = Scene::new(score, 1);
    let run = format!(
        "seed = 3\n[database]\npath = 'items.lance'\n[queries]\nsample = 3\n[score]\n{score}\n\
         [update]\nfeatures = ['name']\nbatch = 4\nbehind = {behind}\n[stop]\nevaluations = 40\n"
    );
    std::fs::write(scene.path("run.toml"), run).expect("a run file");
    scene
}

/// The explanation of all items of a run, by the command.
fn explain_all(folder: &Path, run: &str) -> DataFrame {
    let items: Vec<String> = u64s(&log(&folder.join(run)), "db_idx").iter().map(u64::to_string).collect();
    let arguments: Vec<&str> =
        ["explain", run, "-q", "-o", "explained.parquet"].into_iter().chain(items.iter().map(String::as_str)).collect();
    let output = uphill(&arguments, folder);
    assert_eq!((stderr(&output), output.status.code()), (String::new(), Some(0)));
    read(&folder.join("explained.parquet"))
}

#[test]
fn a_killed_and_resumed_run_has_the_same_explanations() {
    for behind in [0, 1] {
        let scene = scene(COMMAND, behind);
        let whole = scene.whole();
        let killed = scene.run("killed");
        let at = whole.operation_that_publishes("results/iteration=000004");
        assert!(!killed.go(&format!("{at}:kill")).status.success());
        explain_all(scene.folder.path(), "killed");
        assert!(killed.go("").status.success());
        let explained = explain_all(scene.folder.path(), "whole");
        assert!(explained.column("predicted").expect("predicted").null_count() < explained.height() / 2);
        assert!(explained.equals_missing(&explain_all(scene.folder.path(), "killed")), "{behind} behind");
    }
}

#[test]
fn nothing_is_scored_and_nothing_is_written_whatever_the_scorer() {
    let scene = scene(COMMAND, 0);
    let whole = scene.whole();
    let (folder, paid) = (scene.folder.path(), whole.paid());
    let expected = explain_all(folder, "whole");
    std::fs::remove_file(scene.path("scorer.sh")).expect("removed");
    let manifest = std::fs::read_to_string(whole.path().join("run.json")).expect("run.json");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    for score in [
        manifest["config"]["score"].clone(),
        serde_json::json!({ "url": "http://127.0.0.1:9/${NO_SUCH_VARIABLE}", "headers": { "Authorization": "NO_SUCH_VARIABLE" } }),
        serde_json::json!({ "by_hand": true }),
        serde_json::json!({ "call": "score" }),
        serde_json::json!({ "sum": [{ "name": "part", "call": "score" }, { "name": "other", "command": ["false"] }] }),
    ] {
        let mut manifest = manifest.clone();
        manifest["config"]["score"] = score.clone();
        if score.get("call").is_some() {
            manifest["config"]["filter"] = serde_json::json!({ "call": "keep" });
        }
        // With all keys, as a search records it.
        let config = uphill::Config::from_json(&manifest["config"].to_string()).expect("a run file");
        manifest["config"] = serde_json::to_value(config).expect("JSON");
        std::fs::write(whole.path().join("run.json"), manifest.to_string()).expect("written");
        let before = contents(&whole.path());
        assert!(explain_all(folder, "whole").equals_missing(&expected), "{score}");
        assert!(before == contents(&whole.path()), "{score}");
    }
    assert_eq!(whole.paid(), paid);
}

#[test]
fn pending_items_of_a_run_by_hand_are_explained_before_their_scores_are_given() {
    let scene = scene(BY_HAND, 0);
    let folder = scene.folder.path();
    for round in 0.. {
        uphill_ok(&["ask", "run.toml", "--out", "lab", "-o", "asked.parquet"], folder);
        let asked = u64s(&read(&scene.path("asked.parquet")), "db_idx");
        if round == 4 {
            let before = contents(&scene.path("lab"));
            let items: Vec<String> = asked.iter().map(u64::to_string).collect();
            let arguments: Vec<&str> =
                ["explain", "lab", "-o", "why.csv"].into_iter().chain(items.iter().map(String::as_str)).collect();
            let said = stderr(&uphill(&arguments, folder));
            assert!(before == contents(&scene.path("lab")));
            assert_eq!(said.lines().count(), asked.len(), "{said}");
            assert!(
                said.lines().all(|line| line.contains("; no score; not chosen yet; 5 scored items carry ")),
                "{said}"
            );
            break;
        }
        let scores: Vec<f64> = asked.iter().map(|item| (item * 37 % 101) as f64).collect();
        write(&scene.path("scores.parquet"), &df!("db_idx" => asked, "score" => scores).expect("scores"));
        uphill_ok(&["tell", "lab", "scores.parquet"], folder);
    }
}

#[test]
fn items_with_a_reused_score_count_even_if_their_source_is_gone() {
    let scene = scene(SQL, 0);
    let folder = scene.folder.path();
    scene.whole();
    let text = std::fs::read_to_string(scene.path("run.toml")).expect("a run file");
    std::fs::write(
        scene.path("run.toml"),
        text.replace("seed = 3", "seed = 9").replace("[update]", "reuse = ['whole']\n[update]"),
    )
    .expect("written");
    uphill_ok(&["search", "run.toml", "--out", "second"], folder);
    std::fs::remove_dir_all(scene.path("whole")).expect("removed");
    let (log, explained) = (log(&scene.path("second")), explain_all(folder, "second"));
    assert_eq!(log.column("evaluation").expect("evaluation").null_count(), 40);
    let predicted: HashMap<u64, Option<f64>> =
        u64s(&log, "db_idx").into_iter().zip(optional(&log, "predicted")).collect();
    let mut predictions = 0;
    for (item, rows) in by_item(&explained) {
        let now = optional(&rows, "predicted")[0];
        predictions += usize::from(now.is_some());
        assert!(
            now.is_some() == predicted[&item].is_some() && now.zip(predicted[&item]).is_none_or(|(a, b)| close(a, b))
        );
    }
    assert!(predictions > 20, "{predictions}");
}

#[test]
fn a_rule_without_a_model_an_unknown_item_and_a_run_of_the_rust_api_are_errors() {
    let scene = scene(SQL, 0);
    let folder = scene.folder.path();
    scene.whole();
    let walk =
        "[database]\npath = 'items.lance'\n[score]\nsql = 'weight'\n[update]\nrule = 'rl'\n[stop]\niterations = 2\n";
    std::fs::write(scene.path("rl.toml"), walk).expect("a run file");
    uphill_ok(&["search", "rl.toml", "--out", "rl"], folder);
    let said = |arguments: &[&str]| {
        let output = uphill(arguments, folder);
        (stderr(&output).trim_end().to_string(), output.status.code())
    };
    let reason = "explain: the rule of this run has no model of the scores; only items of the rule `surrogate` have an explanation";
    assert_eq!(said(&["explain", "rl", "3"]), (format!("uphill: {reason}"), Some(2)));
    let (message, code) = said(&["explain", "whole", "3", "5000"]);
    assert!(code == Some(1) && message.contains("5000"), "{message}");

    // Another library of the same columns.
    write(&scene.path("fewer.parquet"), &items(&clustered(200, 4, 6, &mut rng(6))));
    uphill_ok(&["index", "fewer.parquet", "fewer.lance", "-q"], folder);
    let (message, code) = said(&["explain", "whole", "3", "--library", "fewer.lance"]);
    assert!(code == Some(1) && message.contains("whole: this is not the dataset that the run read: "), "{message}");

    let database = open(&scene.path("items.lance"));
    let queries = uphill::queries_at(&database, &[1]).expect("queries");
    let mut runner = Runner::new(database, SqlScore::new("weight"), RlUpdate::new(0.5));
    runner.search_into(scene.path("api"), &queries, 1).expect("a search");
    let (message, code) = said(&["explain", "api", "3"]);
    assert!(code == Some(1) && message.contains("has no run file"), "{message}");
    assert!(runner.explain(scene.path("api"), &[3]).expect_err("no model").to_string().contains("has no model"));
}

#[test]
fn the_summary_says_how_an_item_was_chosen_and_what_carries_its_prediction() {
    let scene = scene(SQL, 0);
    let folder = scene.folder.path();
    scene.whole();
    let log = log(&scene.path("whole"));
    let (items, chosen_by) = (u64s(&log, "db_idx"), texts(&log, "chosen_by"));
    let item = |by: &str| {
        let row = chosen_by.iter().rposition(|chosen_by| chosen_by.as_deref() == Some(by)).expect(by);
        items[row].to_string()
    };
    let (start, by_model) = (item("start"), item("model"));
    std::fs::rename(scene.path("items.lance"), scene.path("moved.lance")).expect("moved");
    let arguments = ["explain", "whole", &start, &by_model, "--library", "moved.lance", "--format", "json"];
    let output = uphill(&arguments, folder);
    let said = stderr(&output);
    println!("{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with(&format!("item {start}: no prediction, because no model chose it; score ")), "{said}");
    assert!(lines[0].ends_with("; chosen near a starting query in iteration 0"), "{said}");
    assert!(
        lines[1].contains("; chosen by the model in iteration ") && lines[1].contains("; distances to them: "),
        "{said}"
    );
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(rows.as_array().map(Vec::len), Some(1 + 6));
    assert!(rows[0]["predicted"].is_null() && rows[1]["contribution"].is_f64() && rows[6]["neighbour_idx"].is_null());
}
