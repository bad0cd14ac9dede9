//! What tests of scorers share: items, scripts, counters, and who is still running.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use polars::prelude::*;
use uphill::{IndexKind, IndexOptions, LanceDatabase, RlUpdate, Runner, Score, SearchLog};

use crate::common::*;

/// Items as the runner hands them over, whose right scores are in `qed`.
pub fn batch(items: u64) -> DataFrame {
    let ids: Vec<u64> = (0..items).collect();
    let qed: Vec<f64> = ids.iter().map(|id| (*id as f64 + 0.1) / 7.0).collect();
    let names: Vec<String> = ids.iter().map(|id| format!("\"item\" {id}")).collect();
    let columns = vec![
        Column::new("db_idx".into(), ids),
        uphill::embedding_column(ndarray::Array2::<f32>::zeros((items as usize, 3)).view()).expect("embeddings"),
        Column::new("name".into(), names),
        Column::new("qed".into(), qed),
    ];
    DataFrame::new(items as usize, columns).expect("items")
}

pub fn script(name: &str) -> String {
    root().join("tests/scorers").join(name).to_string_lossy().into_owned()
}

/// The lines that a scorer wrote for each item it scored.
pub struct Counter {
    folder: TempDir,
}

impl Counter {
    pub fn new() -> Self {
        Counter { folder: folder() }
    }

    pub fn path(&self) -> String {
        self.file("counter").to_string_lossy().into_owned()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The items scored, in order of their ids.
    pub fn items(&self) -> Vec<u64> {
        let mut items = numbers(&self.file("counter"));
        items.sort_unstable();
        items
    }

    /// How many processes were started.
    pub fn processes(&self) -> usize {
        numbers(&self.file("counter.pids")).len()
    }

    /// Asserts that of all processes that were started none runs, and none waits to be reaped by us.
    pub fn assert_all_gone(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        for process in numbers(&self.file("counter.pids")) {
            // Killed processes that others have to reap take a moment.
            while is_ours(process) {
                assert!(Instant::now() < until, "process {process} is still there");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn numbers(path: &Path) -> Vec<u64> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(|line| line.parse().expect("a number")).collect()
}

/// Whether a process runs, or is a zombie of this one.
fn is_ours(process: u64) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return false };
    let fields: Vec<&str> = status.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields[0] != "Z" || fields[1] == std::process::id().to_string()
}

/// Asserts scores (`Ok`) and reasons for having none, by item; the scores must be those of `qed`.
pub fn assert_answers(answers: &DataFrame, expected: &[Result<(), &str>]) {
    assert_eq!(u64s(answers, "db_idx"), (0..expected.len() as u64).collect::<Vec<_>>());
    let scores: Vec<Option<f64>> = answers.column("score").expect("score").f64().expect("f64").iter().collect();
    let right = f64s(&batch(expected.len() as u64), "qed");
    let reasons = answers.column("reason").expect("reason").str().expect("strings");
    let outcomes = answers.column("outcome").expect("outcome").str().expect("strings");
    for (item, expected) in expected.iter().enumerate() {
        match expected {
            Ok(()) => assert_eq!((scores[item], reasons.get(item)), (Some(right[item]), None), "item {item}"),
            Err(reason) => assert_eq!((scores[item], reasons.get(item)), (None, Some(*reason)), "item {item}"),
        }
        let outcome = if expected.is_ok() { "scored" } else { "failed" };
        assert_eq!(outcomes.get(item), Some(outcome), "item {item}");
    }
}

/// Two iterations with a score.
pub fn run_file(score: &str) -> String {
    // The model reads the structures alone: the scores stand in a column, whoever gives them.
    let update = "[update]\nrule = \"surrogate\"\nfeatures = [\"smiles\"]\n";
    let head = "[database]\npath = \"molecules.lance\"\n[queries]\nsample = 3\n[stop]\niterations = 2\n";
    format!("{head}{update}[score]\n{score}\n")
}

/// The molecules, without an index: searches are exact.
pub fn molecules(folder: &TempDir) -> PathBuf {
    let dataset = folder.path().join("molecules.lance");
    let options = IndexOptions::new().index(IndexKind::None);
    uphill::index(root().join("data/molecules.parquet"), &dataset, &options).expect("an index");
    dataset
}

/// A short search of the molecules by a score.
pub fn search(dataset: &Path, score: impl Score + 'static) -> SearchLog {
    let database = LanceDatabase::open(dataset.to_string_lossy()).expect("a dataset").k(10);
    let start = uphill::queries_at(&database, &[1, 700, 5_000, 9_999, 12_345, 19_998]).expect("queries");
    Runner::new(database, score, RlUpdate::new(0.5)).search(&start, 4).expect("a search")
}

/// Asserts that two searches gave the same rows.
pub fn assert_same_runs(run: &SearchLog, expected: &SearchLog) {
    assert_eq!(run.iterations(), expected.iterations());
    for iteration in expected.iterations() {
        let (run, expected) =
            (run.results(*iteration).expect("results"), expected.results(*iteration).expect("results"));
        assert!(run.equals_missing(&expected), "iteration {iteration}: {run} is not {expected}");
    }
}

/// The items that a search asked for, in order of their ids.
pub fn asked(log: &SearchLog) -> Vec<u64> {
    let mut items = u64s(&uphill::collect(log.compile_results().expect("results")).expect("results"), "db_idx");
    items.sort_unstable();
    items
}

#[test]
fn an_expression_that_reads_other_rows_is_rejected_and_others_are_accepted() {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&normal(20, 4, &mut rng(1))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let search = |sql: &str| {
        let run = "[database]\npath = \"items.lance\"\n[queries]\nsample = 2\n[stop]\niterations = 1\n";
        let run = format!("{run}[score]\nsql = {}\n", serde_json::Value::from(sql));
        std::fs::write(folder.path().join("run.toml"), run).expect("written");
        let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
        let kept = std::fs::remove_dir_all(folder.path().join("run")).is_ok();
        assert_eq!(kept, output.status.success(), "{sql}: {}", stderr(&output));
        (stderr(&output), output.status.code())
    };
    for (sql, function) in [
        ("weight / max(weight)", "max"),
        ("weight - avg(weight)", "mean"),
        ("sum(weight)", "sum"),
        ("count(*)", "count"),
        ("count(name)", "count"),
        ("weight - min(weight) * 0.5", "min"),
        ("stddev(weight)", "std"),
        ("median(weight)", "median"),
        ("first(weight)", "first"),
        ("CASE WHEN weight > avg(weight) THEN 1 ELSE 0 END", "mean"),
        ("max(weight) over (partition by name)", "max over"),
        ("row_number() over (order by weight)", "row_number over"),
        ("rank() over (order by weight)", "rank over"),
        ("lag(weight) over (order by weight)", "shift over"),
        ("sum(weight) over (order by weight)", "fill_null_with_strategy over"),
    ] {
        let (said, code) = search(sql);
        let expected = format!(
            "uphill: score.sql: cannot evaluate `{sql}`: `{function}` reads other rows, but items are scored in \
             batches; store its result in a column of the items, or write it as a number\n"
        );
        assert_eq!((said, code), (expected, Some(2)));
    }
    assert_eq!(search("rank() over ()").1, Some(2));
    for sql in [
        "1",
        "weight",
        "-weight + 3 * weight % 0.4",
        "CASE WHEN weight > 0.5 THEN weight ELSE 0 END",
        "abs(weight - 0.5)",
        "greatest(weight, 0.5) - least(weight, 0.2)",
        "coalesce(nullif(weight, 0.1), 0)",
        "CASE WHEN name LIKE '%1%' AND name NOT LIKE 'x_' THEN 1 ELSE 0 END",
        "length(upper(name) || lower(name)) + strpos(name, '1')",
        "CASE WHEN starts_with(name, 'item') THEN 1 ELSE 0 END + length(substr(replace(name, 'i', 'j'), 2, 3))",
        "weight IN (0.1, 0.2, 0.3)",
        "name IN ('item 1', 'item 2')",
        "weight BETWEEN 0.1 AND 0.5",
        "weight IS NOT NULL",
        "round(sqrt(weight), 2) + floor(weight) + ceil(weight) + exp(weight) + ln(weight + 1) + log10(weight + 1)",
        "power(weight, 2) + sin(weight) + atan2(weight, 1) + sign(weight) + pi()",
        "CAST(weight AS INTEGER)",
        "if(weight > 0.5, 1, 0)",
    ] {
        let (said, code) = search(sql);
        assert_eq!(code, Some(0), "{sql}: {said}");
    }
}
