//! The guides in `docs/`: their files are written and their commands run, in the order they stand in.

use std::path::Path;
use std::process::Command;

use crate::common::*;
use crate::python::{python, succeeds};

/// Runs a guide: a block of code with a name is a file, one of `sh` is a script; all scripts are one, so that what one
/// exports or starts is there in the next. Gives the folder and what the scripts wrote.
fn run(guide: &str) -> (TempDir, String) {
    run_with(guide, &[])
}

/// As [`run`], with more folders on the `PATH`.
fn run_with(guide: &str, more: &[&Path]) -> (TempDir, String) {
    let folder = folder();
    for name in ["data", "examples"] {
        std::os::unix::fs::symlink(root().join(name), folder.path().join(name)).expect("a link");
    }
    let text = std::fs::read_to_string(root().join("docs").join(guide)).expect("a guide");
    // What is started in the background ends with the script.
    let mut script = String::from("set -euo pipefail\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n");
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let block: String = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        match kind.split_once(' ') {
            Some((_, name)) => std::fs::write(folder.path().join(name), block).expect("written"),
            None if kind == "sh" => script += &block,
            None => panic!("{guide}: a block of {kind:?} that nobody runs"),
        }
    }
    let uphill = Path::new(env!("CARGO_BIN_EXE_uphill")).parent().expect("a folder");
    let found = std::env::var_os("PATH").expect("a path");
    let folders = [uphill].into_iter().chain(more.iter().copied()).map(Path::to_path_buf);
    let path = std::env::join_paths(folders.chain(std::env::split_paths(&found))).expect("a path");
    let said = succeeds(Command::new("bash").args(["-c", &script]).current_dir(folder.path()).env("PATH", path));
    (folder, said)
}

fn ended(folder: &TempDir, run: &str) -> serde_json::Value {
    let manifest = std::fs::read_to_string(folder.path().join(run).join("run.json")).expect("run.json");
    serde_json::from_str::<serde_json::Value>(&manifest).expect("JSON")["ended"].clone()
}

#[test]
fn the_guide_for_a_docking_command_runs() {
    let (folder, said) = run("docking.md");
    assert!(said.contains("raw_score"), "{said}");
    assert_eq!(ended(&folder, "docked")["evaluations"], 160);
    assert_eq!(ended(&folder, "gated")["evaluations"], 60);
    let orders = std::fs::read_to_string(folder.path().join("to-order.csv")).expect("a file");
    assert_eq!(orders.lines().count(), 51);
    let report = std::fs::read_to_string(folder.path().join("docked.html")).expect("the report");
    assert!(report.contains("SmilesDrawer"), "structures are drawn");
}

#[test]
fn the_guide_for_a_nightly_job_runs_and_pays_for_nothing_twice() {
    let (folder, said) = run("nightly.md");
    assert!(said.contains("60 paid, 0 reused, 0 failed: evaluations"), "{said}");
    let tuesday = ended(&folder, "run-tuesday");
    assert_eq!(tuesday["evaluations"], 60);
    assert!(tuesday["reused"].as_u64() > Some(0), "{tuesday}");
    let best = read(&folder.path().join("best-tuesday.parquet"));
    assert!(f64s(&best, "score").is_sorted_by(|a, b| a >= b));
}

#[test]
fn the_guide_for_a_service_runs() {
    let (folder, said) = run("service.md");
    assert_eq!(ended(&folder, "served")["evaluations"], 320);
    assert!(said.contains("relevance"), "{said}");
}

#[test]
fn the_guide_for_a_judge_runs_with_the_stand_in_and_its_files_are_the_example() {
    let python = python();
    let (folder, said) = run_with("judge.md", &[python.parent().expect("a folder")]);
    for name in ["prompt.md", "judge.toml"] {
        let example = std::fs::read_to_string(root().join("examples/judge").join(name)).expect("an example");
        assert_eq!(std::fs::read_to_string(folder.path().join(name)).expect("a file of the guide"), example, "{name}");
    }
    assert_eq!(ended(&folder, "graded")["evaluations"], 160);
    let ranked = read(&folder.path().join("ranked.parquet"));
    assert!(f64s(&ranked, "score").is_sorted_by(|a, b| a >= b) && f64s(&ranked, "score")[0] == 2.0, "{said}");
    assert!(ranked.column("why").expect("the judge's words").str().expect("texts").get(0).is_some());
}
