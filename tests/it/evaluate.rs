//! What a run found of the best, against a count by hand.

use std::collections::HashMap;
use std::path::Path;

use polars::prelude::*;

use crate::common::*;
use crate::runs::{molecules, run_file};

/// Evaluates with the binary.
fn evaluated(folder: &Path, more: &[&str]) -> DataFrame {
    let file = "evaluated.parquet";
    let arguments = [&["evaluate", "run", "-o", file], more].concat();
    uphill_ok(&arguments, folder);
    read(&folder.join(file))
}

fn refused(folder: &Path, more: &[&str]) -> (String, Option<i32>) {
    let output = uphill(&[&["evaluate", "run"], more].concat(), folder);
    (stderr(&output), output.status.code())
}

/// What a run asked first to last: evaluation and item, and whether it has a score.
fn asked(run: &Path) -> Vec<(u64, u64, bool)> {
    let mut asked = HashMap::new();
    for entry in std::fs::read_dir(run.join("results")).expect("a folder") {
        let results = read(&entry.expect("an entry").path().join("part-0000.parquet"));
        let scored = results.column("score").expect("scores").is_not_null();
        for ((evaluation, item), scored) in
            u64s(&results, "evaluation").into_iter().zip(u64s(&results, "db_idx")).zip(scored.iter())
        {
            asked.insert(item, (evaluation, item, scored == Some(true)));
        }
    }
    let mut asked: Vec<_> = asked.into_values().collect();
    asked.sort();
    asked
}

/// Counts by hand: found, best, sum of the best `top`, of the items asked within the budget.
fn by_hand(asked: &[(u64, u64, bool)], truth: &[f64], top: usize, minimize: bool, budget: u64) -> (u64, f64, f64) {
    let better = |a: &f64, b: &f64| if minimize { a.total_cmp(b) } else { b.total_cmp(a) };
    let mut all = truth.to_vec();
    all.sort_by(better);
    let cut = all[top - 1];
    let within = asked.iter().filter(|(evaluation, _, scored)| *evaluation <= budget && *scored);
    let mut met: Vec<f64> = within.map(|(_, item, _)| truth[*item as usize]).collect();
    met.sort_by(better);
    let found = met.iter().filter(|score| if minimize { **score <= cut } else { **score >= cut }).count().min(top);
    (found as u64, met[0], met.iter().take(top).sum())
}

fn check(frame: &DataFrame, asked: &[(u64, u64, bool)], truth: &[f64], top: usize, minimize: bool) {
    let (found, best, sum) = (u64s(frame, "found"), f64s(frame, "best"), f64s(frame, "top_sum"));
    for (row, budget) in u64s(frame, "budget").into_iter().enumerate() {
        let expected = by_hand(asked, truth, top, minimize, budget);
        assert_eq!((found[row], best[row]), (expected.0, expected.1), "budget {budget}");
        assert!((sum[row] - expected.2).abs() < 1e-9 * expected.2.abs(), "{} is not {}", sum[row], expected.2);
        assert_eq!(f64s(frame, "recall")[row], expected.0 as f64 / top as f64);
        assert_eq!(u64s(frame, "scored")[row], budget.min(asked.len() as u64));
    }
}

/// Of all that the run paid for.
fn last(frame: &DataFrame, name: &str) -> u64 {
    *u64s(frame, name).last().expect("a row")
}

fn data() -> String {
    root().join("data/molecules.parquet").to_string_lossy().into_owned()
}

#[test]
fn budgets_and_the_whole_run_agree_with_a_count_by_hand() {
    let folder = molecules(&run_file("rule = \"rl\"\nlr = 1.0", "iterations = 40"));
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let (data, asked) = (data(), asked(&folder.path().join("run")));
    let truth = f64s(&read(Path::new(&data)), "qed");
    for top in ["10", "100", "1000"] {
        let frame = evaluated(folder.path(), &["--truth", &data, "--score-column", "qed", "--top", top]);
        assert_eq!(names(&frame), ["share", "budget", "scored", "found", "recall", "best", "top_sum"]);
        let rows = truth.len() as f64;
        let budgets: Vec<u64> = [0.01, 0.02, 0.05].iter().map(|share| (share * rows).round() as u64).collect();
        let reached = budgets.into_iter().filter(|budget| *budget <= asked.len() as u64);
        let mut expected: Vec<u64> = reached.chain([asked.len() as u64]).collect();
        expected.dedup();
        assert_eq!(u64s(&frame, "budget"), expected);
        check(&frame, &asked, &truth, top.parse().expect("a number"), false);
    }
    // Another column of the file: judged by it, though the run climbed qed.
    let mw = f64s(&read(Path::new(&data)), "mw");
    let frame = evaluated(folder.path(), &["--truth", &data, "--score-column", "mw"]);
    check(&frame, &asked, &mw, 100, false);

    let curve = evaluated(folder.path(), &["--truth", &data, "--score-column", "qed", "--curve"]);
    assert_eq!(u64s(&curve, "scored"), (0..=asked.len() as u64).collect::<Vec<_>>());
    assert_eq!(curve.column("best").expect("best").null_count(), 1);
    for budget in [1, 7, asked.len() / 2] {
        let (found, best, _) = by_hand(&asked, &truth, 100, false, budget as u64);
        let row = curve.slice(budget as i64, 1);
        assert_eq!((u64s(&row, "found")[0], f64s(&row, "best")[0]), (found, best));
    }
    let csv = uphill_ok(&["evaluate", "run", "--truth", &data, "--score-column", "qed"], folder.path());
    let frame_rows = evaluated(folder.path(), &["--truth", &data, "--score-column", "qed"]).height();
    let head = Some("share,budget,scored,found,recall,best,top_sum");
    assert_eq!((csv.lines().next(), csv.lines().count()), (head, 1 + frame_rows));
    let json = ["evaluate", "run", "--truth", &data, "--score-column", "qed", "--format", "json"];
    let json: serde_json::Value = serde_json::from_str(&uphill_ok(&json, folder.path())).expect("JSON");
    assert_eq!(json[frame_rows - 1]["scored"], asked.len());
}

#[test]
fn the_true_scores_may_be_in_a_folder_and_a_run_may_have_found_nothing() {
    let folder = molecules(&run_file("rule = \"rl\"\nlr = 1.0", "iterations = 3"));
    let (data, parts) = (data(), folder.path().join("parts"));
    std::fs::create_dir(&parts).expect("a folder");
    let items = read(Path::new(&data));
    write(&parts.join("a.parquet"), &items.slice(0, 777));
    write(&parts.join("b.parquet"), &items.slice(777, items.height()));
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let whole = evaluated(folder.path(), &["--truth", &data, "--score-column", "qed"]);
    assert!(last(&whole, "scored") > 0);
    assert!(evaluated(folder.path(), &["--truth", "parts", "--score-column", "qed"]).equals(&whole));

    std::fs::remove_dir_all(folder.path().join("run")).expect("removed");
    uphill_ok(&["search", "run.toml", "--out", "run", "--set", "stop.iterations=0"], folder.path());
    let nothing = evaluated(folder.path(), &["--truth", &data, "--score-column", "qed"]);
    assert_eq!((u64s(&nothing, "scored"), u64s(&nothing, "found")), (vec![0], vec![0]));
    assert_eq!(nothing.column("best").expect("best").null_count(), 1);
}

#[test]
fn smaller_true_scores_are_better_if_the_run_minimized() {
    let folder = molecules(&run_file("rule = \"rl\"\nlr = 1.0", "iterations = 10"));
    uphill_ok(&["search", "run.toml", "--out", "run", "--set", "score.direction=minimize"], folder.path());
    let (data, asked) = (data(), asked(&folder.path().join("run")));
    let truth = f64s(&read(Path::new(&data)), "qed");
    let frame = evaluated(folder.path(), &["--truth", &data, "--score-column", "qed", "--top", "2000"]);
    check(&frame, &asked, &truth, 2000, true);
    assert!(last(&frame, "found") > 0);
}

/// The molecules' file with one column changed.
fn changed(folder: &TempDir, change: impl Fn(LazyFrame) -> LazyFrame) {
    write(&folder.path().join("changed.parquet"), &change(read(Path::new(&data())).lazy()).collect().expect("changed"));
}

#[test]
fn items_that_tie_with_the_last_of_the_best_count_equally() {
    let folder = molecules(&run_file("rule = \"rl\"\nlr = 1.0", "iterations = 20"));
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let asked = asked(&folder.path().join("run"));
    changed(&folder, |frame| {
        let steps = when(col("qed").gt(lit(0.8))).then(lit(0.8)).when(col("qed").gt(lit(0.5))).then(lit(0.5));
        frame.with_column(steps.otherwise(lit(0.0)).alias("steps"))
    });
    let truth = f64s(&read(&folder.path().join("changed.parquet")), "steps");
    let arguments = |top| ["--truth", "changed.parquet", "--score-column", "steps", "--top", top];
    let ties = truth.iter().filter(|score| **score == 0.8).count();
    let frame = evaluated(folder.path(), &arguments("5"));
    check(&frame, &asked, &truth, 5, false);
    assert!(ties > 5);
    assert_eq!(last(&frame, "found"), 5);
}

#[test]
fn skipped_rows_do_not_shift_the_items() {
    let folder = molecules(&run_file("rule = \"rl\"\nlr = 1.0", "iterations = 5"));
    // Every seventh row without an embedding.
    let mut items = read(Path::new(&data()));
    let every = |row: &u32| row % 7 == 3;
    let embeddings = items.column("embedding").expect("embeddings").clone();
    let dtype = DataType::List(Box::new(DataType::Float32));
    let lists = embeddings.cast(&dtype).expect("lists");
    let lists = lists.list().expect("lists");
    let holes: ListChunked = (0..items.height() as u32)
        .map(|row| (!every(&row)).then(|| lists.get_as_series(row as usize).expect("a list")))
        .collect();
    items.with_column(holes.with_name("embedding".into()).into_column()).expect("a column");
    write(&folder.path().join("holes.parquet"), &items);
    uphill_ok(&["index", "holes.parquet", "molecules.lance", "--skip-invalid", "--overwrite"], folder.path());
    let run = ["search", "run.toml", "--out", "run", "--set", "database.columns=[\"qed\", \"mw\", \"source_row\"]"];
    uphill_ok(&run, folder.path());
    let asked: Vec<(u64, u64, bool)> = asked(&folder.path().join("run"))
        .into_iter()
        .map(|(evaluation, item, scored)| {
            (evaluation, (0..).filter(|row| !every(row)).nth(item as usize).expect("a row").into(), scored)
        })
        .collect();
    let truth = f64s(&items, "qed");
    let frame = evaluated(folder.path(), &["--truth", "holes.parquet", "--score-column", "qed"]);
    check(&frame, &asked, &truth, 100, false);
}

#[test]
fn another_file_is_matched_by_a_key_or_rejected() {
    let folder = molecules(&run_file("rule = \"rl\"\nlr = 1.0", "iterations = 3"));
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let (data, asked) = (data(), asked(&folder.path().join("run")));
    let truth = f64s(&read(Path::new(&data)), "qed");
    let rows = truth.len();

    changed(&folder, |frame| frame.reverse());
    let arguments = ["--truth", "changed.parquet", "--score-column", "qed"];
    let (message, code) = refused(folder.path(), &arguments);
    assert!(message.starts_with("uphill: changed.parquet: is not the file that was indexed: `"), "{message}");
    assert!(message.ends_with("; set `key` to match another file by a column\n"), "{message}");
    assert_eq!(code, Some(1));
    let smiles = [&arguments[..], &["--key", "smiles"]].concat();
    check(&evaluated(folder.path(), &smiles), &asked, &truth, 100, false);

    changed(&folder, |frame| frame.slice(0, 100));
    let (message, _) = refused(folder.path(), &arguments);
    let expected = format!(
        "is not the file that was indexed: it has 100 rows, the dataset {rows}; set `key` to match another file by a column"
    );
    assert_eq!(message, format!("uphill: changed.parquet: {expected}\n"));
    let (message, _) = refused(folder.path(), &smiles);
    assert!(message.starts_with("uphill: changed.parquet: no row has the `smiles` "), "{message}");

    changed(&folder, |frame| frame.with_column(lit("C").alias("smiles")));
    let (message, _) = refused(folder.path(), &smiles);
    assert_eq!(message, "uphill: changed.parquet: column `smiles` is not a key: C is in row 0 and in row 1\n");

    let (message, _) = refused(folder.path(), &["--truth", &data, "--score-column", "qde"]);
    assert!(message.contains("no column `qde`; did you mean `qed`?"), "{message}");
    let (message, _) = refused(folder.path(), &["--truth", &data, "--score-column", "name"]);
    assert!(message.ends_with("column `name`: expected numbers, found str\n"), "{message}");
    let (message, _) = refused(folder.path(), &["--truth", &data, "--score-column", "qed", "--top", "0"]);
    assert!(
        message.ends_with(&format!("top: expected 1 to {rows}, the number of scores in this file, found 0\n")),
        "{message}"
    );
    let (message, code) = refused(folder.path(), &["--truth", &data, "--score-column", "qed", "--key", "id"]);
    assert!(message.starts_with("uphill: key: no column `id` in the run (there are: "), "{message}");
    assert_eq!(code, Some(2));
}

#[test]
fn a_file_of_db_idx_and_scores_in_any_order_is_matched_by_db_idx() {
    let folder = molecules(&run_file("rule = \"rl\"\nlr = 1.0", "iterations = 3"));
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let (data, asked) = (data(), asked(&folder.path().join("run")));
    let truth = f64s(&read(Path::new(&data)), "qed");
    let mut rows: Vec<(usize, f64)> = truth.iter().copied().enumerate().collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1));
    let ids: Vec<u64> = rows.iter().map(|(id, _)| *id as u64).collect();
    let scores: Vec<f64> = rows.iter().map(|(_, score)| *score).collect();
    write(&folder.path().join("truth.parquet"), &df!("db_idx" => ids, "score" => scores).expect("a frame"));
    let lines: String = rows.iter().map(|(id, score)| format!("{id},{score:?}\n")).collect();
    std::fs::write(folder.path().join("truth.csv"), format!("db_idx,score\n{lines}")).expect("written");
    for file in ["truth.parquet", "truth.csv"] {
        check(&evaluated(folder.path(), &["--truth", file, "--score-column", "score"]), &asked, &truth, 100, false);
    }
    let few: String = rows.iter().take(5).map(|(id, score)| format!("{id},{score:?}\n")).collect();
    std::fs::write(folder.path().join("truth.csv"), format!("db_idx,score\n{few}")).expect("written");
    let (message, _) = refused(folder.path(), &["--truth", "truth.csv", "--score-column", "score"]);
    assert!(message.starts_with("uphill: truth.csv: no row has the `db_idx` "), "{message}");
    // The column of another tool with this name is noticed by the other columns.
    changed(&folder, |frame| frame.with_row_index("db_idx", None).with_column(col("db_idx").reverse()));
    let (message, _) = refused(folder.path(), &["--truth", "changed.parquet", "--score-column", "qed"]);
    assert!(message.starts_with("uphill: changed.parquet: is not the file that was indexed: `"), "{message}");
}

#[test]
fn a_column_that_the_true_scores_lack_is_reported_with_the_columns_of_the_file() {
    let folder = molecules(&run_file("rule = \"rl\"\nlr = 1.0", "iterations = 1"));
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    std::fs::write(folder.path().join("t.csv"), "db_idx,true\n0,0.5\n1,0.7\n").expect("written");
    std::fs::write(folder.path().join("t.json"), r#"[{"db_idx": 0, "true": 0.5}]"#).expect("written");
    for file in ["t.csv", "t.json"] {
        let (message, _) = refused(folder.path(), &["--truth", file, "--score-column", "qed"]);
        assert_eq!(message, format!("uphill: {file}: no column `qed` (there are: db_idx, true)\n"));
        let (message, _) = refused(folder.path(), &["--truth", file, "--score-column", "ture"]);
        assert_eq!(message, format!("uphill: {file}: no column `ture`; did you mean `true`?\n"));
    }
    let points = clustered(50, 4, 5, &mut rng(1));
    write(&folder.path().join("items.parquet"), &items(&points).drop("name").expect("a frame without text"));
    uphill_ok(&["index", "items.parquet", "no-text.lance"], folder.path());
    let run = "[database]\npath = \"no-text.lance\"\n[score]\nsql = \"weight\"\n[stop]\nevaluations = 10\n";
    std::fs::write(folder.path().join("no-text.toml"), run).expect("written");
    uphill_ok(&["search", "no-text.toml", "--out", "no-text"], folder.path());
    let output = uphill(&["report", "no-text", "-o", "report.html", "--smiles", "nope"], folder.path());
    assert!(
        stderr(&output).contains("no column `nope` of text among the items (there are none)"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn failed_items_cost_and_are_not_found_and_reused_scores_cost_nothing() {
    let run = run_file("rule = \"rl\"\nlr = 1.0", "iterations = 3")
        .replace("sql = \"qed\"", "sql = \"CASE WHEN mw > 150 THEN qed END\"");
    let folder = molecules(&run);
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let (data, before) = (data(), asked(&folder.path().join("run")));
    let truth = f64s(&read(Path::new(&data)), "qed");
    assert!(before.iter().any(|(_, _, scored)| !scored));
    let arguments = ["--truth", &data, "--score-column", "qed", "--top", "500"];
    check(&evaluated(folder.path(), &arguments), &before, &truth, 500, false);

    std::fs::rename(folder.path().join("run"), folder.path().join("earlier")).expect("renamed");
    uphill_ok(&["search", "run.toml", "--out", "run", "--set", "score.reuse=[\"earlier\"]"], folder.path());
    let frame = evaluated(folder.path(), &arguments);
    // Only failures are paid for again.
    let failed = before.iter().filter(|(_, _, scored)| !scored).count() as u64;
    assert_eq!(last(&frame, "scored"), failed);
    assert_eq!(last(&frame, "found"), by_hand(&before, &truth, 500, false, before.len() as u64).0);
}

/// A library of so many items of `weight`, searched for so many of them into `run`.
fn searched(rows: usize, evaluations: u64) -> TempDir {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(rows, 4, 8, &mut rng(1))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let run = format!(
        "seed = 3\n[database]\npath = 'items.lance'\n[score]\nsql = 'weight'\n[stop]\nevaluations = {evaluations}\n"
    );
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    folder
}

const WEIGHT: [&str; 4] = ["--truth", "items.parquet", "--score-column", "weight"];

#[test]
fn budgets_that_a_run_did_not_reach_have_no_row_and_are_listed() {
    // 1, 2 and 5 % are 10, 20 and 50 items.
    for (evaluations, budgets, says) in [
        (
            12,
            vec![10, 12],
            "not reached: 2 % of the library (20 items), 5 % of the library (50 items); the run has 12 evaluations",
        ),
        (20, vec![10, 20], "not reached: 5 % of the library (50 items); the run has 20 evaluations"),
        (60, vec![10, 20, 50, 60], ""),
    ] {
        let folder = searched(1000, evaluations);
        let output = uphill(&[&["evaluate", "run", "-o", "evaluated.parquet"], &WEIGHT[..]].concat(), folder.path());
        assert_eq!(stderr(&output).trim_end(), says);
        let frame = read(&folder.path().join("evaluated.parquet"));
        assert_eq!(u64s(&frame, "budget"), budgets);
        assert_eq!(u64s(&frame, "scored"), budgets, "what was not paid for has no row");
        let curve = evaluated(folder.path(), &[&WEIGHT[..], &["--curve"]].concat());
        assert_eq!(u64s(&curve, "scored"), (0..=evaluations).collect::<Vec<_>>());
    }
    // Of a library so small that a share is less than one item.
    let folder = searched(30, 20);
    let frame = evaluated(folder.path(), &WEIGHT);
    assert_eq!(u64s(&frame, "budget"), [1, 2, 20]);
}

#[test]
fn by_default_all_items_with_a_true_score_count_if_there_are_fewer_than_100() {
    let folder = searched(40, 10);
    let output = uphill(&[&["evaluate", "run", "-o", "evaluated.parquet"], &WEIGHT[..]].concat(), folder.path());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("recall of the best 40 items: only 40 have a true score"), "{}", stderr(&output));
    let frame = read(&folder.path().join("evaluated.parquet"));
    let found = u64s(&frame, "found");
    assert_eq!(found.last(), Some(&10), "whatever was scored is among them");
    assert_eq!(f64s(&frame, "recall").last(), Some(&0.25));
    let page = |more: &[&str]| {
        let output = uphill(&[&["report", "run", "-o", "report.html"], &WEIGHT[..], more].concat(), folder.path());
        (output.status.code(), stderr(&output))
    };
    assert_eq!(page(&[]).0, Some(0), "{}", page(&[]).1);
    let report = std::fs::read_to_string(folder.path().join("report.html")).expect("a report");
    assert!(report.contains("share of the true best 40") && report.contains("<dd>10 of 40</dd>"));

    // More than there are is a mistake, if it is asked for.
    let says = "items.parquet: top: expected 1 to 40, the number of scores in this file, found 100";
    let (message, code) = refused(folder.path(), &[&WEIGHT[..], &["--top", "100"]].concat());
    assert_eq!((message.trim_end(), code), (format!("uphill: {says}").as_str(), Some(1)));
    assert_eq!(page(&["--top", "100"]), (Some(1), format!("uphill: {says}\n")));

    // From Rust.
    let log = uphill::SearchLog::open(folder.path().join("run")).expect("a run");
    let truth = uphill::GroundTruth::new(folder.path().join("items.parquet"), "weight");
    assert_eq!(uphill::evaluate(&log, &truth, None).expect("an evaluation").top(), 40);
    assert_eq!(uphill::evaluate(&log, &truth, 7).expect("an evaluation").top(), 7);
    let message = uphill::evaluate(&log, &truth, 41).expect_err("too many").to_string();
    assert!(message.ends_with("top: expected 1 to 40, the number of scores in this file, found 41"), "{message}");

    // Of those only that have a score.
    let some = when(col("weight").gt(lit(0.5))).then(col("weight"));
    let changed =
        read(&folder.path().join("items.parquet")).lazy().with_column(some.otherwise(lit(NULL)).alias("known"));
    let changed = changed.with_column(lit(f64::NAN).alias("nothing")).collect().expect("changed");
    let known = changed.height() - changed.column("known").expect("scores").null_count();
    write(&folder.path().join("items.parquet"), &changed);
    assert_eq!(
        uphill::evaluate(&log, &uphill::GroundTruth::new(&truth.items, "known"), None).expect("scores").top(),
        known
    );
    let (message, _) = refused(folder.path(), &["--truth", "items.parquet", "--score-column", "nothing"]);
    assert_eq!(message, "uphill: items.parquet: column `nothing`: no row has a finite score\n");
}

#[test]
fn true_scores_may_be_csv_booleans_files_of_other_types_and_float_ids() {
    let folder = searched(300, 60);
    let at = |name: &str| folder.path().join(name);
    let expected = evaluated(folder.path(), &[&WEIGHT[..], &["--top", "20"]].concat());
    let items = read(&at("items.parquet"));
    let judged = |more: &[&str]| evaluated(folder.path(), &[more, &["--top", "20"]].concat());
    let shares = |frame: &DataFrame| (u64s(frame, "budget"), u64s(frame, "found"), f64s(frame, "best"));

    // As `ask` and `results` write it; with names that only look like numbers.
    let mut flat = items.drop("embedding").expect("a frame");
    CsvWriter::new(std::fs::File::create(at("items.csv")).expect("a file")).finish(&mut flat).expect("CSV");
    let csv = judged(&["--truth", "items.csv", "--score-column", "weight"]);
    assert_eq!(shares(&csv), shares(&expected));
    let keyed = judged(&["--truth", "items.csv", "--score-column", "weight", "--key", "name"]);
    assert_eq!(shares(&keyed), shares(&expected));

    // Good or not.
    let good = items.clone().lazy().with_column(col("weight").gt(lit(0.9)).alias("good")).collect().expect("changed");
    write(&at("good.parquet"), &good);
    let good = judged(&["--truth", "good.parquet", "--score-column", "good"]);
    assert_eq!(f64s(&good, "best").last(), Some(&1.0));

    // Parts of which one holds whole numbers, columns in another order.
    std::fs::create_dir(at("parts")).expect("a folder");
    let whole = items.slice(0, 100).lazy().with_column(lit(0i64).alias("truth")).collect().expect("changed");
    let others =
        items.slice(100, 200).lazy().select([col("weight").alias("truth"), col("*")]).collect().expect("changed");
    write(&at("parts/a.parquet"), &whole);
    write(&at("parts/b.parquet"), &others);
    let parts = judged(&["--truth", "parts", "--score-column", "truth"]);
    assert_eq!(u64s(&parts, "budget"), u64s(&expected, "budget"));
}

#[test]
fn integer_keys_match_float_keys() {
    let folder = folder();
    let ids: Vec<i64> = (0..200).map(|row| 1000 + row * 7).collect();
    let floats: Vec<f64> = ids.iter().map(|id| *id as f64).collect();
    let mut frame = items(&clustered(200, 4, 8, &mut rng(1)));
    frame.with_column(Column::new("id".into(), ids)).expect("a column");
    write(&folder.path().join("items.parquet"), &frame);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let run = "[database]\npath = 'items.lance'\n[score]\nsql = 'weight'\n[stop]\nevaluations = 30\n";
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let by_id = [&WEIGHT[..], &["--key", "id"]].concat();
    let expected = evaluated(folder.path(), &by_id);
    // As pandas has a column of whole numbers some of which are missing.
    frame.with_column(Column::new("id".into(), floats)).expect("a column");
    write(&folder.path().join("items.parquet"), &frame.reverse());
    assert!(evaluated(folder.path(), &by_id).equals(&expected));
}

#[test]
fn shares_refer_to_the_library_even_if_the_file_of_true_scores_has_other_rows() {
    let folder = searched(1000, 60);
    let frame = read(&folder.path().join("items.parquet"));
    let mut others = items(&clustered(1000, 4, 8, &mut rng(2)));
    let names: Vec<String> = (0..1000).map(|row| format!("another {row}")).collect();
    others.with_column(Column::new("name".into(), names)).expect("a column");
    let both = frame.vstack(&others);
    write(&folder.path().join("items.parquet"), &both.expect("both"));
    let frame = evaluated(folder.path(), &[&WEIGHT[..], &["--key", "name"]].concat());
    assert_eq!(u64s(&frame, "budget"), [10, 20, 50, 60]);
}
