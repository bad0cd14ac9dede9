//! Whole runs of the binary on the molecules: the folder, resuming, what comes out.

use std::path::{Path, PathBuf};

use polars::prelude::*;

use crate::common::*;

/// The molecules as an indexed dataset, and a run file beside it.
pub fn molecules(run: &str) -> TempDir {
    let folder = folder();
    let data = root().join("data/molecules.parquet");
    uphill_ok(&["index", &data.to_string_lossy(), "molecules.lance"], folder.path());
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    folder
}

pub fn run_file(update: &str, stop: &str) -> String {
    format!(
        r#"
seed = 7

[database]
path = "molecules.lance"
columns = ["name", "smiles", "mw", "qed"]
k = 10
nprobes = 16

[queries]
sample = 16

[filter]
sql = "mw < 500"

[score]
sql = "qed"

[update]
{update}

[stop]
{stop}
"#
    )
}

/// All files of a run's frames, read.
pub fn frames(run: &Path) -> Vec<(PathBuf, DataFrame)> {
    let mut files: Vec<PathBuf> = Vec::new();
    for kind in ["queries", "results"] {
        for entry in std::fs::read_dir(run.join(kind)).expect("a folder") {
            files.push(entry.expect("an entry").path().join("part-0000.parquet"));
        }
    }
    files.sort();
    files.into_iter().map(|file| (file.strip_prefix(run).expect("below the run").to_path_buf(), read(&file))).collect()
}

#[test]
fn searches_with_each_rule_find_each_item_once_best_first() {
    for update in ["rule = \"rl\"\nlr = 1.0", "rule = \"top-k\"\nk = 3"] {
        let folder = molecules(&run_file(update, "iterations = 10\nevaluations = 600"));
        let printed = uphill_ok(&["search", "run.toml", "--out", "run", "--format", "csv"], folder.path());
        assert_eq!(printed.lines().count(), 11, "{printed}");

        let results = uphill_ok(&["results", "run", "-o", "results.parquet"], folder.path());
        assert_eq!(results, "");
        let results = read(&folder.path().join("results.parquet"));
        let mut ids = u64s(&results, "db_idx");
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), results.height());
        assert!(f64s(&results, "score").is_sorted_by(|a, b| a >= b));
        assert!(f64s(&results, "mw").iter().all(|mw| *mw < 500.0));

        let inspected: serde_json::Value =
            serde_json::from_str(&uphill_ok(&["inspect", "run", "--json"], folder.path())).expect("JSON");
        assert_eq!(inspected["items scored"], results.height());
        assert!(results.height() <= 600);
        let best = inspected["best score"].as_f64().expect("a number");
        assert!((best - f64s(&results, "score")[0]).abs() < 1e-12);
    }
}

#[test]
fn two_runs_with_one_seed_are_equal_and_another_seed_differs() {
    let folder = molecules(&run_file("rule = \"rl\"\nlr = 1.0", "iterations = 4"));
    for (out, seed) in [("a", "7"), ("b", "7"), ("c", "8")] {
        uphill_ok(&["search", "run.toml", "--out", out, "--set", &format!("seed={seed}")], folder.path());
    }
    let [a, b, c] = ["a", "b", "c"].map(|out| frames(&folder.path().join(out)));
    assert_eq!(a.len(), 9);
    assert!(a == b, "two runs with one seed differ");
    assert!(a != c, "another seed changed nothing");
}

#[test]
fn a_resumed_run_equals_one_that_never_stopped() {
    for update in ["rule = \"rl\"\nlr = 1.0", "rule = \"top-k\"\nk = 3"] {
        let folder = molecules(&run_file(update, "iterations = 6"));
        uphill_ok(&["search", "run.toml", "--out", "whole"], folder.path());
        uphill_ok(&["search", "run.toml", "--out", "parts", "--set", "stop.iterations=2"], folder.path());
        uphill_ok(&["search", "run.toml", "--out", "parts", "--resume", "--set", "stop.iterations=3"], folder.path());
        uphill_ok(&["search", "run.toml", "--out", "parts", "--resume"], folder.path());
        assert!(frames(&folder.path().join("whole")) == frames(&folder.path().join("parts")), "{update}");
    }
}

#[test]
fn killed_runs_resume_to_the_same_frames() {
    let folder = molecules(&run_file("rule = \"rl\"\nlr = 1.0", "iterations = 30"));
    uphill_ok(&["search", "run.toml", "--out", "whole"], folder.path());
    let whole = frames(&folder.path().join("whole"));
    let binary = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_uphill"));
        command
            .args(["search", "run.toml", "--out", "killed"])
            .current_dir(folder.path())
            .stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        command
    };
    let mut child = binary().spawn().expect("the binary runs");
    let mut kills = 0;
    for committed in [3, 11, 17] {
        let waited_for = folder.path().join(format!("killed/results/iteration={committed:06}"));
        while !waited_for.exists() && child.try_wait().expect("a child").is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().expect("killed");
        child.wait().expect("reaped");
        kills += 1;
        child = binary().arg("--resume").spawn().expect("the binary runs");
    }
    assert!(child.wait().expect("a child").success());
    println!("{kills} kills");
    assert!(whole == frames(&folder.path().join("killed")));
}

#[test]
fn a_resumed_run_rejects_other_settings_and_another_dataset() {
    let folder = molecules(&run_file("rule = \"rl\"\nlr = 1.0", "iterations = 2"));
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let output = uphill(&["search", "run.toml", "--out", "run", "--resume", "--set", "update.lr=2.0"], folder.path());
    assert_eq!(
        stderr(&output),
        "uphill: a resumed run can change only stop conditions and how the scorer is called, but update.lr was 1.0, is 2.0; restore the setting, or start a new run\n"
    );
    assert_eq!(output.status.code(), Some(2));
    let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
    assert_eq!(
        stderr(&output),
        "uphill: run: already holds a run; resume it with --resume, or choose another folder\n"
    );

    let data = root().join("data/molecules.parquet");
    uphill_ok(
        &["index", &data.to_string_lossy(), "molecules.lance", "--overwrite", "--partitions", "20"],
        folder.path(),
    );
    let output =
        uphill(&["search", "run.toml", "--out", "run", "--resume", "--set", "stop.iterations=3"], folder.path());
    assert!(
        stderr(&output).starts_with("uphill: run: this is not the dataset that the run read: index was IVF_FLAT"),
        "{}",
        stderr(&output)
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_second_writer_of_a_run_folder_exits_with_code_4() {
    let folder = molecules(&run_file("rule = \"rl\"\nlr = 1.0", "iterations = 2"));
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let lock = std::fs::File::options().write(true).open(folder.path().join("run/lock")).expect("a lock file");
    lock.lock().expect("locked");
    let output =
        uphill(&["search", "run.toml", "--out", "run", "--resume", "--set", "stop.iterations=3"], folder.path());
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(stderr(&output), "uphill: run: in use by another process; wait for it to end, or stop it\n");
}

#[test]
fn results_trajectories_and_queries_are_written_as_csv_json_and_parquet() {
    let folder = molecules(&run_file("rule = \"rl\"\nlr = 1.0", "iterations = 3"));
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let csv = uphill_ok(&["results", "run", "-n", "5"], folder.path());
    assert_eq!(csv.lines().next(), Some("db_idx,name,smiles,mw,qed,score,outcome,reason,evaluation,iteration"));
    assert_eq!(csv.lines().count(), 6);
    let json: serde_json::Value =
        serde_json::from_str(&uphill_ok(&["trajectories", "run", "--format", "json"], folder.path())).expect("JSON");
    let rows = json.as_array().expect("rows");
    assert_eq!(rows.len(), 16 * 3);
    assert_eq!(rows[0]["score"].as_array().map(Vec::len), rows[0]["db_idx"].as_array().map(Vec::len));
    for command in ["results", "trajectories"] {
        uphill_ok(&[command, "run", "-o", "all.csv"], folder.path());
        let file = std::fs::read_to_string(folder.path().join("all.csv")).expect("a file");
        assert_eq!(file, uphill_ok(&[command, "run"], folder.path()));
    }
    uphill_ok(&["queries", "run", "--output", "queries.parquet"], folder.path());
    assert_eq!(read(&folder.path().join("queries.parquet")).height(), 16 * 3);
    let table = uphill_ok(&["results", "run", "-n", "2", "--format", "table"], folder.path());
    assert!(table.contains("db_idx") && table.contains("smiles"), "{table}");
}

#[test]
fn a_folder_named_like_a_partition_does_not_confuse_the_log() {
    let folder = molecules(&run_file("rule = \"rl\"\nlr = 1.0", "iterations = 2"));
    std::fs::create_dir(folder.path().join("project=uphill")).expect("a folder");
    uphill_ok(&["search", "run.toml", "--out", "project=uphill/run"], folder.path());
    let csv = uphill_ok(&["results", "project=uphill/run", "-n", "1"], folder.path());
    assert_eq!(csv.lines().next(), Some("db_idx,name,smiles,mw,qed,score,outcome,reason,evaluation,iteration"));
}

#[test]
fn an_interrupted_run_says_so_and_can_be_resumed() {
    let folder = molecules(&run_file("rule = \"rl\"\nlr = 1.0", "iterations = 100000\nnothing_new = 100000"));
    for (signal, code) in [(rustix::process::Signal::INT, 130), (rustix::process::Signal::TERM, 143)] {
        let out = format!("run-{code}");
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_uphill"))
            .args(["search", "run.toml", "--out", &out])
            .current_dir(folder.path())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the binary runs");
        while !folder.path().join(&out).join("results/iteration=000001").exists() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).expect("signalled");
        assert_eq!(child.wait().expect("a child").code(), Some(code));
        let arguments = ["search", "run.toml", "--out", &out, "--resume", "--set", "stop.iterations=1"];
        uphill_ok(&arguments, folder.path());
    }
}
