//! The guides in `docs/`: their files are written and their commands run, in the order they stand in.

use std::path::Path;
use std::process::Command;

use crate::common::*;
use crate::python::succeeds;

/// Runs a guide: a block of code with a name is a file, one of `sh` is a script; all scripts are one, so that what one
/// exports or starts is there in the next. Gives the folder and what the scripts wrote.
fn run(guide: &str) -> (TempDir, String) {
    let folder = folder();
    std::os::unix::fs::symlink(root().join("data"), folder.path().join("data")).expect("a link");
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
    let path = format!("{}:{}", uphill.display(), std::env::var("PATH").expect("a path"));
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
