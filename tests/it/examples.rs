//! The examples do what their first lines say.

use std::path::Path;
use std::process::{Command, Output};

use crate::common::*;

/// Runs an example, which must succeed, with a temporary folder of its own: standard output and error.
fn example(name: &str, temporary: &TempDir) -> (String, String) {
    let test = std::env::current_exe().expect("this test");
    let built = test.parent().and_then(Path::parent).expect("the target folder").join("examples").join(name);
    assert!(built.exists(), "{} is not there; `cargo test` builds it, or `cargo build --examples`", built.display());
    let output = Command::new(&built).env("TMPDIR", temporary.path()).current_dir(temporary.path()).output();
    let Output { status, stdout, stderr } = output.expect("the example runs");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned());
    assert!(status.success(), "{name}: {status}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

/// The cells of the rows of a frame that was printed.
fn rows(printed: &str) -> Vec<Vec<String>> {
    let lines =
        printed.lines().skip_while(|line| !line.starts_with('╞')).take_while(|line| !line.starts_with('└')).skip(1);
    lines.map(|line| line.trim_matches('│').split('┆').map(|cell| cell.trim().to_string()).collect()).collect()
}

#[test]
fn the_demo_prints_each_command_and_writes_a_run_and_a_report() {
    let folder = folder();
    let output = uphill(&["demo"], folder.path());
    let (said, shown) = (stderr(&output), String::from_utf8_lossy(&output.stdout).into_owned());
    assert!(output.status.success(), "{said}");
    let typed: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert_eq!(typed.len(), 4, "{said}");
    for (line, begins) in typed.iter().zip(["uphill index ", "cat ", "uphill search ", "uphill report "]) {
        assert!(line.starts_with(begins), "{line}");
    }
    assert_eq!(shown.lines().count(), 11, "the ten best: {shown}");
    assert!(folder.path().join("uphill-demo/report.html").exists());
    let next: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("  uphill ")).collect();
    let next = &next[next.len() - 3..];
    for line in next {
        uphill_ok(&line.split_whitespace().collect::<Vec<_>>(), folder.path());
    }
    assert!(folder.path().join("run.toml").exists(), "{next:?}");
    let again = uphill(&["demo"], folder.path());
    assert!(!again.status.success() && stderr(&again).contains("already exists"), "{}", stderr(&again));
}

#[test]
fn the_quickstart_finds_better_items_and_writes_a_run_folder_and_a_report() {
    let temporary = folder();
    let (stdout, stderr) = example("quickstart", &temporary);

    let best = rows(&stdout);
    assert_eq!(best.len(), 10, "{stdout}");
    let column = |cell: usize| best.iter().map(|row| row[cell].parse().expect("a number")).collect::<Vec<f64>>();
    assert!(column(1).is_sorted_by(|a, b| a >= b), "the best first: {stdout}");
    assert!(column(2).iter().all(|mw| *mw < 500.0), "the filter holds: {stdout}");

    let mut lines = stdout.lines().rev();
    let report = Path::new(lines.next().expect("a last line"));
    let page = std::fs::read_to_string(report).expect("the report");
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains(&best[0][0]), "{stdout}");
    let run = Path::new(lines.nth(1).expect("the run folder"));
    assert!(run.starts_with(temporary.path()) && run.join("run.json").exists(), "{stdout}");
    assert!(stdout.contains("scored 400 of 20000 molecules"), "{stdout}");

    let number =
        |line: &str, name: &str| -> Option<f64> { line.split_once(name)?.1.split_whitespace().next()?.parse().ok() };
    let all = |name| stderr.lines().filter_map(|line| number(line, name)).collect::<Vec<f64>>();
    let (means, bests) = (all("mean "), all("best so far "));
    assert!(run.join(format!("results/iteration={:06}/part-0000.parquet", means.len() - 1)).exists(), "{stderr}");
    assert!(
        run.join(format!("queries/iteration={:06}/part-0000.parquet", means.len())).exists(),
        "the last update is kept"
    );
    assert!(bests.is_sorted() && bests[bests.len() - 1] > 0.94, "{stderr}");
    assert!(means[means.len() - 1] > means[0] + 0.05, "{stderr}");
}

#[test]
fn a_custom_score_may_fail_for_some_items() {
    let temporary = folder();
    let (stdout, _) = example("custom_score", &temporary);
    assert!(stdout.contains("molecules have no score"), "{stdout}");
    assert_eq!(rows(&stdout).len(), 5, "{stdout}");
    nothing_left_behind(&temporary);
}

#[test]
fn a_custom_rule_with_state_resumes_where_it_stopped() {
    let temporary = folder();
    let (stdout, _) = example("custom_update", &temporary);
    assert!(stdout.contains("it ends at the same query vectors"), "{stdout}");
    nothing_left_behind(&temporary);
}

/// Logs that were not kept go with the process.
fn nothing_left_behind(temporary: &TempDir) {
    let left: Vec<_> =
        std::fs::read_dir(temporary.path()).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}
