//! Outputs of earlier versions stay readable: run folders of each released format, as they were written then, are
//! opened, compiled, inspected and gone on with. Formats of the future are named as such.

use std::path::Path;

use polars::prelude::*;
use uphill::SearchLog;

use crate::common::*;

/// A copy of a golden folder. It was written as `/golden`, and its paths are moved to where it is now.
fn golden(name: &str) -> TempDir {
    let folder = folder();
    copy_tree(&root().join("tests").join(name), folder.path());
    for run in ["first", "run"] {
        // Git keeps no empty folders.
        std::fs::create_dir_all(folder.path().join(run).join("tmp")).expect("a folder");
        let path = folder.path().join(run).join("run.json");
        let text = std::fs::read_to_string(&path).expect("run.json");
        assert!(text.contains("\"/golden/"), "{text}");
        std::fs::write(path, text.replace("\"/golden/", &format!("\"{}/", folder.path().display()))).expect("written");
    }
    folder
}

fn frames(run: &Path) -> Vec<DataFrame> {
    let log = SearchLog::open(run).expect("a run");
    let iterations = log.iterations().iter();
    iterations.flat_map(|at| [log.queries(*at).expect("queries"), log.results(*at).expect("results")]).collect()
}

#[test]
fn a_run_of_format_1_is_read_unchanged() {
    let folder = golden("format-1");
    let log = SearchLog::open(folder.path().join("run")).expect("a run");
    assert_eq!(log.manifest().format_version, 1);
    assert_eq!(log.iterations(), [0, 1]);
    // What the program of that time printed.
    for command in ["results", "queries", "trajectories"] {
        let printed = uphill_ok(&[command, "run", "--format", "csv"], folder.path());
        let then = std::fs::read_to_string(folder.path().join(format!("{command}.csv"))).expect("read");
        // A null in a list was written as nothing then, which was no JSON.
        assert_eq!(printed.replace("null", ""), then, "{command}");
    }
    let inspected: serde_json::Value =
        serde_json::from_str(&uphill_ok(&["inspect", "run", "--json"], folder.path())).expect("JSON");
    let then = std::fs::read_to_string(folder.path().join("inspect.json")).expect("read");
    let then: serde_json::Value = serde_json::from_str(&then).expect("JSON");
    for (key, value) in then.as_object().expect("an object") {
        assert_eq!(inspected[key], *value, "{key}");
    }
    // It has what it should show: reused scores, parts, failures, a ledger.
    let results = uphill::collect(log.compile_results().expect("a query")).expect("results");
    assert!(results.column("evaluation").expect("evaluation").null_count() > 0);
    assert!(results.column("score").expect("score").null_count() > 0);
    assert!(results.column("likeness").expect("a part").null_count() < results.height());
    assert!(folder.path().join("run/ledger/batch-000000.parquet").exists());
}

#[test]
fn a_run_of_format_1_resumes_to_the_frames_of_a_current_run() {
    let folder = golden("format-1");
    let arguments = ["search", "run.toml", "--out", "run", "--resume", "--set", "stop.iterations=4"];
    uphill_ok(&arguments, folder.path());
    assert_eq!(frames(&folder.path().join("run")).len(), 8);
    // Nothing that was paid for in the first two iterations was asked again.
    let asked: Vec<u64> = std::fs::read_to_string(folder.path().join("asked.txt"))
        .expect("the scorer was asked")
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    let golden = golden("format-1");
    let before = SearchLog::open(golden.path().join("run")).expect("a run");
    let before = u64s(&uphill::collect(before.compile_results().expect("a query")).expect("results"), "db_idx");
    assert!(!asked.is_empty() && asked.iter().all(|item| !before.contains(item)), "{asked:?} of {before:?}");
    uphill_ok(&["search", "run.toml", "--out", "today", "--set", "stop.iterations=4"], folder.path());
    let (then, today) = (frames(&folder.path().join("run")), frames(&folder.path().join("today")));
    assert_eq!(then.len(), today.len());
    // A later program may round otherwise: vectors and distances are the same to that.
    let rounded = ["embedding", "distance"];
    // Its first iterations, and the first rows of its ledger, are of before there were outcomes.
    let new = ["outcome"];
    for (then, today) in then.iter().zip(&today) {
        let (old, now) = (then.drop_many(rounded).drop_many(new), today.drop_many(rounded).drop_many(new));
        assert!(old.equals_missing(&now), "{then} is not {today}");
        if then.column("embedding").is_ok() {
            let vectors = |frame| uphill::matrix::<f64>(frame, "embedding").expect("vectors");
            let difference = &vectors(then).view() - &vectors(today).view();
            assert!(difference.iter().all(|difference| difference.abs() < 1e-12), "{then} is not {today}");
        } else {
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
            assert!(f32s(then, "distance").iter().zip(&f32s(today, "distance")).all(close), "{then} is not {today}");
        }
    }
    // What is told now stands below what was told then, and is read with it by the next that goes on.
    let mut answered = Vec::new();
    for file in std::fs::read_dir(folder.path().join("run/ledger")).expect("a ledger") {
        answered.extend(u64s(&read(&file.expect("a file").path()), "db_idx"));
    }
    let asked = || std::fs::read_to_string(folder.path().join("asked.txt")).expect("asked");
    let before = asked();
    uphill_ok(&["search", "run.toml", "--out", "run", "--resume", "--set", "stop.iterations=5"], folder.path());
    let more = asked().split_off(before.len());
    let again = |item: &&str| answered.contains(&item.parse().expect("a number"));
    assert_eq!(more.lines().find(again), None, "{answered:?}");
    assert_eq!(frames(&folder.path().join("run"))[..8], then[..]);
}

#[test]
fn a_later_or_unknown_format_is_reported() {
    let folder = golden("format-1");
    let path = folder.path().join("run/run.json");
    let text = std::fs::read_to_string(&path).expect("read");
    let version = "\"format_version\": 1,";
    assert!(text.contains(version), "{text}");
    let future = "run: has format version 4; this program reads up to 3: use a later uphill";
    let odd = |found: &str| format!("run/run.json: damaged: expected a format_version from 1 to 3, found {found}");
    let cases = [
        (text.replace(version, "\"format_version\": 4,"), future.to_string()),
        // Whatever else a later format changes.
        ("{\"format_version\": 4, \"everything\": \"else\"}".into(), future.into()),
        (text.replace(version, ""), "run/run.json: damaged: no format_version, or not a file of this program".into()),
        (text.replace(version, "\"format_version\": 0,"), odd("0")),
        (text.replace(version, "\"format_version\": -1,"), odd("-1")),
        (text.replace(version, "\"format_version\": \"1\","), odd("\"1\"")),
        (text.replace(version, "\"format_version\": 1.5,"), odd("1.5")),
        ("[]".into(), "run/run.json: damaged: no format_version, or not a file of this program".into()),
        (String::new(), "run/run.json: damaged: EOF while parsing a value at line 1 column 0".into()),
        ("{\"format_version\": 1}".into(), "run/run.json: damaged: missing field `uphill_version`".into()),
    ];
    for (text, message) in cases {
        std::fs::write(&path, &text).expect("written");
        for arguments in [
            &["results", "run"][..],
            &["queries", "run"],
            &["trajectories", "run"],
            &["inspect", "run"],
            &["search", "run.toml", "--out", "run", "--resume"],
            &["tell", "run", "scores.parquet"],
        ] {
            let output = uphill(arguments, folder.path());
            assert_eq!(stderr(&output), format!("uphill: {message}\n"), "{arguments:?}: {text}");
            assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        }
    }
}
