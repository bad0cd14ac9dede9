//! Predictions in the results: `predicted`, `deviation` and `chosen_by` are the same whatever happens to the process, and older
//! runs go on without them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use polars::prelude::*;
use uphill::{LanceDatabase, Runner, SearchLog, SqlScore, Step, TopKUpdate};

use crate::common::*;
use crate::faults::{compiled, files};

const COLUMNS: [&str; 3] = ["predicted", "deviation", "chosen_by"];

/// Scores items by `value`. Where there is a file `fails`, every fifth item fails. Where there is a file `uneven`, each
/// process has a speed of its own.
const SCORER: &str = r#"
import json, os, sys, time
for line in sys.stdin:
    if line.strip():
        item = json.loads(line)
        time.sleep(os.getpid() % 4 / 100 if os.path.exists("uneven") else 0.003)
        fails = os.path.exists("fails") and item["db_idx"] % 5 == 0
        print(json.dumps({"db_idx": item["db_idx"], "score": None if fails else item["value"]}), flush=True)
    else:
        print(flush=True)
"#;
pub const COMMAND: &str = "command = ['python3', 'score.py']\n";

/// Settings of `[score]`, of `[update]`, and other sections, of runs that differ in how they choose.
const RUNS: [(&str, &str, &str); 5] = [
    ("", "", ""),
    ("", "behind = 2", ""),
    // The kernels of so many points do not fit into memory: the library is searched from query points.
    ("", "points = 400_000", ""),
    ("", "", "[filter]\nsql = 'weight < 0.8'\n"),
    ("direction = 'minimize'\n", "", ""),
];

/// A folder with a library, whose scores are in the column `value`, and with run files.
pub struct Place {
    pub folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let folder = folder();
        let embeddings = clustered(600, 4, 6, &mut rng(5));
        let mut frame = items(&embeddings);
        let value = |item: ndarray::ArrayView1<'_, f32>| {
            let off = &item - &embeddings.row(0);
            f64::from((-off.dot(&off) / 8.0).exp() + 0.3 * item[1].sin())
        };
        let values: Vec<f64> = embeddings.rows().into_iter().map(value).collect();
        frame.with_column(Column::new("value".into(), values)).expect("a column");
        write(&folder.path().join("items.parquet"), &frame);
        uphill_ok(&["index", "items.parquet", "items.lance", "--index", "none", "-q"], folder.path());
        std::fs::write(folder.path().join("score.py"), SCORER).expect("a scorer");
        Place { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the run file `run.toml`.
    pub fn run_file(&self, evaluations: u64, score: &str, (options, update, sections): (&str, &str, &str)) {
        let run = format!(
            "seed = 3\n[database]\npath = 'items.lance'\n[queries]\nsample = 3\n[score]\n{score}{options}[update]\nbatch = 8\n\
             features = []\n{update}\n{sections}[stop]\nevaluations = {evaluations}\nfailed_share = 1\n"
        );
        std::fs::write(self.path("run.toml"), run).expect("a run file");
    }

    pub fn search(&self, out: &str, more: &[&str]) {
        uphill_ok(&[&["search", "run.toml", "--out", out, "-q"], more].concat(), self.folder.path());
    }

    /// Starts or resumes a run, and kills it once it has so many iterations. Returns whether it was killed.
    fn killed_after(&self, out: &str, iterations: usize) -> bool {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uphill"));
        command.args(["search", "run.toml", "--out", out, "--resume"]).current_dir(self.folder.path());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
        let until = Instant::now() + Duration::from_secs(60);
        let has_ended = |child: &mut Child| child.try_wait().expect("a child").is_some();
        while files(&self.path(out).join("results")).len() < iterations && !has_ended(&mut child) {
            assert!(Instant::now() < until, "{out}: not {iterations} iterations in a minute");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().expect("killed");
        !child.wait().expect("a child").success()
    }

    /// The bytes of the results of each iteration.
    fn bytes(&self, run: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let results = self.path(run).join("results");
        let all = files(&results).into_iter().flat_map(|partition| files(&partition));
        let below = |file: &PathBuf| file.strip_prefix(&results).expect("below").to_path_buf();
        all.map(|file| (below(&file), std::fs::read(&file).expect("a file"))).collect()
    }

    #[track_caller]
    fn assert_same(&self, run: &str, whole: &str) {
        let (ours, theirs) = (self.bytes(run), self.bytes(whole));
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        for (file, bytes) in ours {
            assert!(
                theirs[&file] == bytes,
                "{run} and {whole} differ in {}: {}",
                file.display(),
                compiled(&self.path(run))
            );
        }
    }

    fn results(&self, run: &str) -> DataFrame {
        let results = compiled(&self.path(run)).sort(["iteration", "evaluation"], SortMultipleOptions::default());
        results.expect("sorted")
    }

    /// Asserts that a run has predictions where it should, and returns how many.
    #[track_caller]
    fn assert_predicts(&self, run: &str) -> usize {
        let results = read(&files(&self.path(run).join("results"))[0].join("part-0000.parquet"));
        assert_eq!(names(&results)[results.width() - 3..], COLUMNS);
        let mut count = 0;
        for row in predictions(&self.results(run)).values() {
            let (predicted, deviation) = (row.predicted.map(f64::from_bits), row.deviation.map(f64::from_bits));
            assert_eq!(predicted.is_some(), deviation.is_some());
            assert!(predicted.is_none_or(f64::is_finite) && deviation.is_none_or(|value| value > 0.0), "{row:?}");
            match row.chosen_by.as_deref() {
                Some("model" | "elsewhere") => count += usize::from(predicted.is_some()),
                Some("random") => {}
                Some("start") | None => assert_eq!(predicted, None),
                other => panic!("chosen by {other:?}"),
            }
        }
        count
    }
}

/// The predictions of an item, and its evaluation. Floats are bits.
#[derive(Clone, Debug, PartialEq)]
struct Prediction {
    predicted: Option<u64>,
    deviation: Option<u64>,
    chosen_by: Option<String>,
    evaluation: Option<u64>,
}

fn predictions(results: &DataFrame) -> HashMap<u64, Prediction> {
    let floats = |name: &str| -> Vec<Option<u64>> {
        let column = results.column(name).expect(name).f64().expect("f64");
        column.iter().map(|value| value.map(f64::to_bits)).collect()
    };
    let (means, deviations) = (floats("predicted"), floats("deviation"));
    let chosen_by = results.column("chosen_by").expect("chosen_by").str().expect("text");
    let evaluations = results.column("evaluation").expect("evaluation").u64().expect("u64");
    let row = |(row, item): (usize, u64)| {
        let chosen_by = chosen_by.get(row).map(str::to_string);
        let (predicted, deviation, evaluation) = (means[row], deviations[row], evaluations.get(row));
        (item, Prediction { predicted, deviation, chosen_by, evaluation })
    };
    u64s(results, "db_idx").into_iter().enumerate().map(row).collect()
}

#[test]
fn a_run_killed_repeatedly_has_the_predictions_of_one_that_never_stopped() {
    for (nth, run) in RUNS.into_iter().enumerate() {
        let place = Place::new();
        place.run_file(128, COMMAND, run);
        place.search("whole", &[]);
        let count = place.assert_predicts("whole");
        assert!(count > 64, "run {nth}: {count} predictions");
        let kills = [2, 5, 9, 12].into_iter().filter(|iterations| place.killed_after("killed", *iterations)).count();
        assert!(kills >= 2, "run {nth}: killed {kills} times");
        place.search("killed", &["--resume"]);
        place.assert_same("killed", "whole");
    }
}

#[test]
fn a_run_with_a_raised_budget_has_the_predictions_of_one_that_had_it_from_the_start() {
    for run in RUNS {
        let place = Place::new();
        place.run_file(128, "sql = 'value'\n", run);
        place.search("whole", &[]);
        // One budget ends with a batch, the other cuts one.
        for budget in [104, 109] {
            let name = format!("raised-{budget}");
            place.search(&name, &["--set", &format!("stop.evaluations={budget}")]);
            assert_eq!(place.results(&name).height(), budget);
            place.search(&name, &["--resume"]);
            place.assert_same(&name, "whole");
        }
        assert!(place.assert_predicts("whole") > 64);
    }
}

#[test]
fn the_speed_of_workers_does_not_change_predictions() {
    for behind in ["behind = 1", "behind = 3"] {
        let place = Place::new();
        place.run_file(96, COMMAND, ("", behind, ""));
        place.search("alone", &[]);
        std::fs::write(place.path("uneven"), "").expect("a file");
        place.run_file(96, COMMAND, ("workers = 3\nbatch_size = 2\n", behind, ""));
        place.search("together", &[]);
        place.assert_same("together", "alone");
        assert!(place.assert_predicts("together") > 40);
    }
}

#[test]
fn a_run_with_manual_scores_has_the_predictions_of_one_with_a_scorer() {
    let place = Place::new();
    place.run_file(48, "sql = 'value'\n", RUNS[0]);
    place.search("whole", &[]);
    place.run_file(48, "by_hand = true\n", RUNS[0]);
    for round in 0.. {
        assert!(round < 20, "the run does not end");
        let _ = std::fs::remove_file(place.path("next.parquet"));
        uphill_ok(&["ask", "run.toml", "--out", "hand", "-o", "next.parquet"], place.folder.path());
        if !place.path("next.parquet").exists() {
            break;
        }
        let next = read(&place.path("next.parquet"));
        let half = next.height().div_ceil(2);
        for part in [next.slice(0, half), next.slice(half as i64, half)] {
            if part.height() > 0 {
                let scores = df!("db_idx" => u64s(&part, "db_idx"), "score" => f64s(&part, "value")).expect("a frame");
                write(&place.path("scores.parquet"), &scores);
                uphill_ok(&["tell", "hand", "scores.parquet"], place.folder.path());
            }
        }
    }
    place.assert_same("hand", "whole");
    assert!(place.assert_predicts("hand") > 16);
}

#[test]
fn reused_scores_have_no_predictions_and_the_others_keep_theirs() {
    let place = Place::new();
    place.run_file(48, COMMAND, RUNS[0]);
    place.search("first", &[]);
    place.run_file(64, COMMAND, ("reuse = ['first']\n", "", ""));
    place.search("whole", &[]);
    let rows = predictions(&place.results("whole"));
    let (reused, scored): (Vec<_>, Vec<_>) = rows.values().partition(|row| row.evaluation.is_none());
    assert_eq!((reused.len(), scored.len()), (48, 64));
    assert!(reused.iter().all(|row| row.chosen_by.is_none() && row.predicted.is_none()));
    assert!(scored.iter().all(|row| row.chosen_by.is_some()));
    assert!(place.assert_predicts("whole") > 32);
    assert!(place.killed_after("killed", 4));
    place.search("killed", &["--resume"]);
    place.assert_same("killed", "whole");
}

#[test]
fn items_that_are_retried_keep_the_predictions_of_the_batch_that_they_were_chosen_for() {
    let place = Place::new();
    std::fs::write(place.path("fails"), "").expect("a file");
    place.run_file(64, COMMAND, RUNS[0]);
    place.search("run", &[]);
    let before = place.results("run");
    assert!(before.column("score").expect("score").null_count() > 4);
    assert!(place.assert_predicts("run") > 24);
    std::fs::remove_file(place.path("fails")).expect("removed");
    place.search("run", &["--resume", "--retry-failed"]);
    let after = place.results("run");
    assert_eq!(after.column("score").expect("score").null_count(), 0);
    assert_eq!(names(&after), names(&before));
    assert_eq!(predictions(&after), predictions(&before));
    place.search("run", &["--resume", "--set", "stop.evaluations=80"]);
    let more = predictions(&place.results("run"));
    assert_eq!(more.len(), 80);
    assert!(predictions(&before).iter().all(|(item, row)| more[item] == *row));
    assert!(place.assert_predicts("run") > 32);
}

#[test]
fn a_prediction_is_in_the_units_of_score_whatever_the_direction() {
    let place = Place::new();
    place.run_file(96, "sql = 'value'\n", ("direction = 'minimize'\n", "", ""));
    place.search("least", &[]);
    place.run_file(96, "sql = '-value'\n", RUNS[0]);
    place.search("most", &[]);
    let (least, most) = (place.results("least"), place.results("most"));
    assert_eq!(f64s(&least, "score"), f64s(&most, "score"));
    assert_eq!(f64s(&least, "raw_score"), f64s(&least, "value"));
    assert_eq!(predictions(&least), predictions(&most));
    assert!(place.assert_predicts("least") > 48);
}

#[test]
fn a_run_of_format_2_is_read_and_resumed_without_predictions() {
    for run in [RUNS[0], RUNS[1]] {
        let place = Place::new();
        place.run_file(128, "sql = 'value'\n", run);
        place.search("whole", &[]);
        place.search("run", &["--set", "stop.evaluations=101"]);
        // What an older program wrote.
        for file in place.bytes("run").into_keys().map(|file| place.path("run/results").join(file)) {
            write(&file, &read(&file).drop_many(COLUMNS));
        }
        let manifest = place.path("run/run.json");
        let text = std::fs::read_to_string(&manifest).expect("run.json");
        let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        json["format_version"] = 2.into();
        json["ended"].as_object_mut().expect("ended").remove("forecast");
        std::fs::write(&manifest, json.to_string()).expect("written");

        for command in [&["results"][..], &["inspect"], &["trajectories"], &["report", "-o", "report.html"]] {
            uphill_ok(&[&command[..1], &["run"], &command[1..]].concat(), place.folder.path());
        }
        place.search("run", &["--resume"]);
        let (ours, whole) = (place.bytes("run"), place.bytes("whole"));
        assert_eq!(ours.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
        for file in whole.keys() {
            let [ours, whole] = ["run", "whole"].map(|name| read(&place.path(name).join("results").join(file)));
            assert!(ours.equals_missing(&whole.drop_many(COLUMNS)), "{}: {ours} {whole}", file.display());
        }
        assert_eq!(SearchLog::open(place.path("run")).expect("a run").iterations().len(), whole.len());
    }
}

#[test]
fn columns_of_a_library_cannot_have_the_names_of_predictions() {
    let place = Place::new();
    for name in ["predicted", "deviation", "chosen_by", "Predicted"] {
        let mut frame = read(&place.path("items.parquet"));
        frame.rename("value", name.into()).expect("renamed");
        write(&place.path("named.parquet"), &frame);
        let output = uphill(&["index", "named.parquet", "named.lance"], place.folder.path());
        let message = format!("column `{name}` has a reserved name; rename it: --rename {name}=my_{name}");
        assert_eq!((stderr(&output), output.status.code()), (format!("uphill: {message}\n"), Some(2)));
        let rename = format!("{name}=my_{name}");
        uphill_ok(&["index", "named.parquet", "named.lance", "--rename", &rename, "--overwrite"], place.folder.path());
    }
}

/// A selector that predicts the score of each item to be twice its weight, but for the first of a batch.
fn predicting(columns: &'static [&'static str]) -> impl Fn(&Step<'_>) -> uphill::Result<DataFrame> + Send + 'static {
    move |step: &Step<'_>| {
        let mut rows = step.results.head(Some(6));
        let weights = f64s(&rows, "weight").into_iter().enumerate();
        let means: Vec<Option<f64>> = weights.map(|(row, weight)| (row > 0).then_some(weight * 2.0)).collect();
        for name in columns {
            let column = match *name {
                "predicted" => Column::new("predicted".into(), &means),
                "deviation" => {
                    Column::new("deviation".into(), means.iter().map(|mean| mean.map(|_| 0.5)).collect::<Vec<_>>())
                }
                _ => Column::new("chosen_by".into(), vec!["mine"; means.len()]),
            };
            rows.with_column(column)?;
        }
        Ok(rows)
    }
}

fn run_with_selector(database: &LanceDatabase, columns: &'static [&'static str]) -> uphill::Result<SearchLog> {
    let queries = uphill::queries_at(database, &[0, 50]).expect("queries");
    let score = SqlScore::new("weight * 2");
    Runner::new(database.clone(), score, TopKUpdate::new(3)).select(predicting(columns)).search(&queries, 3)
}

#[test]
fn predictions_of_a_custom_selector_are_logged_if_it_has_all_three_columns() {
    let place = Place::new();
    let database = open(&place.path("items.lance")).k(8);
    let log = run_with_selector(&database, &["chosen_by", "deviation", "predicted"]).expect("a search");
    for iteration in 0..3 {
        let results = log.results(iteration).expect("results");
        assert_eq!(names(&results)[results.width() - 3..], COLUMNS);
        let predicted: Vec<Option<f64>> =
            results.column("predicted").expect("a column").f64().expect("f64").iter().collect();
        let expected = f64s(&results, "score").into_iter().enumerate().map(|(row, score)| (row > 0).then_some(score));
        assert_eq!(predicted, expected.collect::<Vec<_>>());
        let chosen_by = results.column("chosen_by").expect("a column").str().expect("text");
        assert!(chosen_by.iter().all(|chosen_by| chosen_by == Some("mine")));
        assert_eq!(results.column("deviation").expect("a column").null_count(), 1);
    }
    let log = run_with_selector(&database, &[]).expect("a search");
    assert!(log.results(0).expect("results").column("predicted").is_err());
    for (columns, missing) in [
        (&["predicted"][..], "deviation"),
        (&["deviation"], "predicted"),
        (&["chosen_by"], "predicted"),
        (&["predicted", "deviation"], "chosen_by"),
    ] {
        let error = run_with_selector(&database, columns).err().expect("an error").to_string();
        assert!(error.starts_with(&format!("select in iteration 0: column `{missing}`: expected ")), "{error}");
        assert!(error.contains("no such column"), "{error}");
    }
}

#[test]
fn each_row_keeps_the_prediction_that_the_selector_made_for_it() {
    let place = Place::new();
    let database = open(&place.path("items.lance")).k(5);
    // Both queries find the same items.
    let queries = uphill::queries_at(&database, &[7, 7]).expect("queries");
    let by_query = |step: &Step<'_>| {
        let mut rows = step.results.clone();
        let queries: Vec<f64> = u32s(&rows, "query_idx").into_iter().map(f64::from).collect();
        rows.with_column(Column::new("predicted".into(), queries))?;
        rows.with_column(Column::new("deviation".into(), vec![0.5; rows.height()]))?;
        rows.with_column(Column::new("chosen_by".into(), vec!["mine"; rows.height()]))?;
        Ok(rows)
    };
    let mut runner = Runner::new(database, SqlScore::new("weight"), TopKUpdate::new(3)).select(by_query);
    let results = runner.search(&queries, 1).expect("a search").results(0).expect("results");
    assert_eq!(results.height(), 10);
    let queries: Vec<f64> = u32s(&results, "query_idx").into_iter().map(f64::from).collect();
    assert_eq!(f64s(&results, "predicted"), queries);
}
