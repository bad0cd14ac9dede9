//! An error that ended a run is known afterwards: run.json has it, and whatever shows the run says it, until it goes on.

use std::process::Command;

use uphill::{RlUpdate, Runner, SearchLog, StopReason};

use crate::common::*;
use crate::faults::{SQL, Scene, succeeded};
use crate::scorers::script;
use crate::scorers_http::Server;

const HEAD: &str = "seed = 3\n[database]\npath = 'items.lance'\nk = 5\n[queries]\nsample = 4\n[update]\nrule = 'rl'\n";

fn library() -> TempDir {
    let folder = folder();
    exact_library(&folder, &clustered(300, 4, 6, &mut rng(5)));
    folder
}

fn run_file(folder: &TempDir, sections: &str) {
    std::fs::write(folder.path().join("run.toml"), format!("{HEAD}{sections}")).expect("written");
}

fn ended(folder: &TempDir) -> uphill::RunSummary {
    SearchLog::open(folder.path().join("run")).expect("a run").manifest().ended.clone().expect("an end")
}

/// Asserts that the run ended by what the command said in its last line, and that all who show it say so.
fn assert_tells(folder: &TempDir, output: &std::process::Output, reason: StopReason) {
    let said = stderr(output);
    let line = said.lines().last().and_then(|line| line.strip_prefix("uphill: ")).expect("a line");
    let ended = ended(folder);
    assert_eq!((ended.reason, ended.error.as_deref()), (reason, Some(line)));
    let inspected: serde_json::Value =
        serde_json::from_str(&uphill_ok(&["inspect", "run", "--json"], folder.path())).expect("JSON");
    assert_eq!(inspected["ended"], format!("an error: {line}"));
    for name in ["items scored", "items failed", "items reused", "items retried"] {
        assert!(inspected[name].is_u64(), "{name}: {inspected}");
    }
    assert!(uphill_ok(&["inspect", "run"], folder.path()).contains("an error: "));
    let shown = uphill(&["results", "run"], folder.path());
    assert!(stderr(&shown).contains(&format!("(an error: {line}): run")), "{}", stderr(&shown));
    uphill_ok(&["report", "run", "-o", "report.html"], folder.path());
    let page = std::fs::read_to_string(folder.path().join("report.html")).expect("a page");
    assert!(page.contains("Ended: an error: score"));
}

#[test]
fn inspect_shows_a_run_whose_scorer_was_never_available() {
    let folder = library();
    let score = |more: &str| {
        format!("[score]\ncommand = ['sh', 'score.sh']\nformat = 'jsonl'\nretries = 0\n{more}[stop]\niterations = 2\n")
    };
    std::fs::write(folder.path().join("score.sh"), "exit 75\n").expect("written");
    run_file(&folder, &score("patience = 0.1\n"));
    let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
    assert!(!output.status.success());
    let reason = if output.status.code() == Some(75) { StopReason::Outage } else { StopReason::Error };
    assert_tells(&folder, &output, reason);
    let inspected: serde_json::Value =
        serde_json::from_str(&uphill_ok(&["inspect", "run", "--json"], folder.path())).expect("JSON");
    assert_eq!(
        (&inspected["best score"], &inspected["best item"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    assert_eq!((&inspected["iterations"], &inspected["items scored"]), (&0.into(), &0.into()));
}

#[test]
fn the_error_that_ended_a_run_is_shown_until_it_is_resumed_and_never_with_a_secret() {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(300, 4, 6, &mut rng(5))));
    uphill_ok(&["index", "items.parquet", "items.lance", "--rename", "weight=qed"], folder.path());
    let server = Server::start();
    let search = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uphill"));
        command.args(["search", "run.toml", "--out", "run"]).args(more).current_dir(folder.path());
        command.env("API_TOKEN", "Bearer 4d1f2c3b5a69").output().expect("the binary runs")
    };
    let score = format!("[score]\nurl = '{}'\nretries = 0\npatience = 0.1\n", server.url("dead"));
    run_file(&folder, &format!("{score}headers = {{ Authorization = 'API_TOKEN' }}\n[stop]\niterations = 2\n"));
    let status = server.counter.file("counter.status");
    std::fs::write(&status, "503").expect("written");
    let output = search(&[]);
    assert_eq!(output.status.code(), Some(75));
    assert_tells(&folder, &output, StopReason::Outage);
    std::fs::remove_file(&status).expect("removed");
    let output = search(&["--resume"]);
    assert_eq!(output.status.code(), Some(1));
    assert_tells(&folder, &output, StopReason::Error);
    let manifest = || std::fs::read_to_string(folder.path().join("run/run.json")).expect("run.json");
    let then = manifest();
    assert!(then.contains("has expired") && !then.contains("4d1f2c3b5a69"), "{then}");
    // A resume that is refused changes nothing of it.
    assert_eq!(search(&["--resume", "--set", "seed=9"]).status.code(), Some(2));
    assert_eq!(manifest(), then);
    std::fs::write(server.counter.file("counter.good"), "").expect("written");
    succeeded(&search(&["--resume"]));
    assert_eq!((ended(&folder).reason, ended(&folder).error), (StopReason::Iterations, None));
}

#[test]
fn a_run_that_ended_with_too_many_failures_shows_the_reason_and_its_counts() {
    let folder = library();
    run_file(&folder, "[score]\nsql = 'weight / 0'\n[stop]\nevaluations = 20\n");
    let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
    assert_tells(&folder, &output, StopReason::Error);
    assert_eq!((ended(&folder).evaluations, ended(&folder).failed), (20, 20));
    // Its last iteration was cut, and is gone on with as that of any other run.
    let more = ["--set", "stop.failed_share=1", "--set", "stop.evaluations=33"];
    uphill_ok(&[&["search", "run.toml", "--out", "run", "--resume"][..], &more].concat(), folder.path());
    uphill_ok(&[&["search", "run.toml", "--out", "whole"][..], &more].concat(), folder.path());
    let results = |run: &str| uphill_ok(&["results", run, "--format", "csv"], folder.path());
    assert_eq!(results("run"), results("whole"));
    assert_eq!(ended(&folder).error, None);
}

#[test]
fn an_error_during_a_retry_of_failed_items_is_recorded_and_the_run_keeps_its_counts() {
    let folder = library();
    let scorer = folder.path().join("score.py");
    std::fs::copy(script("outcomes.py"), &scorer).expect("copied");
    std::fs::write(folder.path().join("fails"), "").expect("written");
    run_file(
        &folder,
        "[score]\ncommand = ['python3', 'score.py']\nretries = 0\npatience = 0.5\n[stop]\nevaluations = 25\n",
    );
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let before = ended(&folder);
    assert!(before.failed > 0, "{before:?}");
    std::fs::write(&scorer, "import no_such_module\n").expect("written");
    let retry = ["search", "run.toml", "--out", "run", "--resume", "--retry-failed"];
    let output = uphill(&retry, folder.path());
    assert!(!output.status.success());
    let after = ended(&folder);
    assert!(after.error.as_deref().is_some_and(|error| stderr(&output).contains(error)), "{after:?}");
    assert_eq!((after.evaluations, after.failed), (before.evaluations, before.failed));
    std::fs::copy(script("outcomes.py"), &scorer).expect("mended");
    std::fs::remove_file(folder.path().join("fails")).expect("removed");
    uphill_ok(&retry, folder.path());
    assert_eq!(
        (ended(&folder).reason, ended(&folder).failed, ended(&folder).error),
        (StopReason::Evaluations, 0, None)
    );
}

#[test]
fn an_error_of_a_custom_stage_or_of_a_disk_is_recorded() {
    let folder = library();
    let database = open(&folder.path().join("items.lance")).k(4);
    let queries = uphill::queries_at(&database, &[0, 1]).expect("queries");
    let score =
        |_: &polars::prelude::DataFrame| -> uphill::Result<Vec<f64>> { Err(uphill::Error::custom("no ink\nat all")) };
    let run = folder.path().join("run");
    Runner::new(database, score, RlUpdate::new(1.0)).search_into(&run, &queries, 2).err().expect("an error");
    assert_eq!(ended(&folder).error.as_deref(), Some("iteration 0: no ink"));
    assert_eq!(ended(&folder).reason, StopReason::Error);

    let scene = Scene::new(SQL, 3);
    let whole = scene.whole();
    let run = scene.run("run");
    let output = run.go(&format!("{}:enospc", whole.operation_that_publishes("results/iteration=000001")));
    let line = stderr(&output).trim_start_matches("uphill: ").trim_end().to_string();
    let manifest = || SearchLog::open(run.path()).expect("a run").manifest().clone();
    assert_eq!(manifest().ended.and_then(|ended| ended.error), Some(line));
    succeeded(&run.go(""));
    assert_eq!(manifest().ended.and_then(|ended| ended.error), None);
    run.assert_equals(&whole);
}

#[test]
fn the_status_of_a_run_says_that_it_waits_for_manual_scores() {
    let folder = library();
    run_file(&folder, "[score]\nby_hand = true\n[stop]\nevaluations = 20\n");
    uphill_ok(&["ask", "run.toml", "--out", "run", "-o", "next.parquet"], folder.path());
    assert!(uphill_ok(&["inspect", "run"], folder.path()).contains("not ended: items wait for their scores"));
    assert!(
        stderr(&uphill(&["results", "run"], folder.path())).contains("run: not ended: items wait for their scores")
    );
}

#[test]
fn each_line_of_the_times_names_its_iteration_and_the_stages_of_the_report() {
    let folder = library();
    run_file(&folder, "[score]\nsql = 'weight'\n[stop]\niterations = 3\n");
    let said = stderr(&uphill(&["search", "run.toml", "--out", "run", "-v"], folder.path()));
    let file = folder.path().join("run/times.jsonl");
    let text = std::fs::read_to_string(&file).expect("times");
    uphill_ok(&["report", "run", "-o", "report.html"], folder.path());
    let page = std::fs::read_to_string(folder.path().join("report.html")).expect("a page");
    let table = page.split("<h2 id=\"times\">").nth(1).and_then(|rest| rest.split("</table>").next()).expect("a table");
    let names: Vec<&str> =
        table.split("<th scope=\"row\">").skip(1).filter_map(|rest| rest.split('<').next()).collect();
    assert_eq!(names, ["vector search", "filter", "choice", "score", "log", "rule"]);
    for (iteration, line) in text.lines().enumerate() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let keys: Vec<&str> = line.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys, [&["iteration"], &names[..]].concat());
        assert_eq!(line["iteration"], iteration);
    }
    assert!(names.iter().all(|name| said.contains(&format!("{name} 0."))), "{said}");
    let times = || SearchLog::open(folder.path().join("run")).expect("a run").times().expect("times");
    let (now, before) =
        (times(), "{\"query\":1.0,\"filter\":0.0,\"select\":2.0,\"score\":0.0,\"log\":0.0,\"update\":4.0}\n");
    assert!(now.query > 0.0 && now.update >= 0.0);
    // Of an earlier version.
    std::fs::write(&file, before).expect("written");
    assert_eq!((times().query, times().select, times().update), (1.0, 2.0, 4.0));
}
