//! Many runs as many jobs: the same command starts a run and goes on with it, and one query reads them all.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use polars::prelude::*;
use rustix::process::{Pid, Signal, kill_process};
use uphill::{IndexKind, IndexOptions};

use crate::common::*;
use crate::python::{python, succeeds};

const TARGETS: [&str; 3] = ["egfr", "braf", "jak2"];

/// Scores items for a target, and notes which it was asked for. Slow while there is a file `slow`.
const DOCK: &str = "
import json, os, sys, time
target = sys.argv[1]
for line in sys.stdin:
    if not line.strip():
        print(flush=True)
        continue
    item = json.loads(line)['db_idx']
    with open(f'asked-{target}.txt', 'a') as asked:
        asked.write(f'{item}\\n')
    while os.path.exists('slow'):
        time.sleep(0.02)
    print(json.dumps({'db_idx': item, 'score': item * (37 + len(target) + ord(target[0])) % 101}))
";

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let folder = folder();
        dataset(&folder, &clustered(300, 4, 6, &mut rng(5)), &IndexOptions::new().index(IndexKind::None));
        let run = "[database]\npath = 'items.lance'\n[score]\ncommand = ['replaced']\nbatch_size = 4\n[stop]\nevaluations = 60\n";
        std::fs::write(folder.path().join("run.toml"), run).expect("a run file");
        std::fs::write(folder.path().join("dock.py"), DOCK).expect("a scorer");
        // What the scheduler is told, in place of Slurm's command.
        std::fs::create_dir(folder.path().join("bin")).expect("a folder");
        let scontrol = folder.path().join("bin/scontrol");
        std::fs::write(&scontrol, "#!/bin/sh\necho \"$@\" >> scontrol.txt\n").expect("a script");
        succeeds(Command::new("chmod").arg("+x").arg(scontrol));
        Place(folder)
    }

    /// A job of the array, as Slurm starts it.
    fn job(&self, task: usize, fault: &str) -> Command {
        let built = std::path::Path::new(env!("CARGO_BIN_EXE_uphill")).parent().expect("a folder");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [self.0.path().join("bin"), built.into()].into_iter().chain(std::env::split_paths(&path));
        let mut command = Command::new("bash");
        command.arg(root().join("examples/slurm/array.sh")).args(TARGETS).current_dir(self.0.path());
        command.env("PATH", std::env::join_paths(path).expect("a path")).env("SLURM_ARRAY_TASK_ID", task.to_string());
        command.env("SLURM_ARRAY_JOB_ID", "7").env("SLURM_CPUS_PER_TASK", "1").env("UPHILL_FAIL_AT", fault);
        command.env("UPHILL_OPERATIONS", self.0.path().join(format!("operations-{task}"))).stderr(Stdio::piped());
        command
    }

    fn run(&self, task: usize, fault: &str) -> Output {
        self.job(task, fault).output().expect("bash runs")
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).unwrap_or_default()
    }

    fn results(&self, target: &str) -> DataFrame {
        let file = format!("{target}.parquet");
        uphill_ok(&["results", &format!("arr/target={target}"), "-o", &file], self.0.path());
        read(&self.0.path().join(file))
    }
}

#[test]
fn killed_or_stopped_array_jobs_are_repeated_by_the_same_command_and_read_as_one_table() {
    let (calm, place) = (Place::new(), Place::new());
    for task in 0..3 {
        let output = calm.run(task, "");
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stderr(&output).contains("no run to resume; starting a new one"), "{}", stderr(&output));
    }

    assert!(place.run(0, "").status.success());
    // The second is killed as it commits its third iteration.
    let operations = calm.text("operations-1");
    let third =
        operations.lines().position(|line| line.starts_with("rename") && line.ends_with("results/iteration=000002"));
    let output = place.run(1, &format!("{}:kill", third.expect("three iterations") + 1));
    assert_eq!(output.status.code(), Some(137), "{}", stderr(&output));
    // The third is told to stop, as its time is over.
    std::fs::write(place.0.path().join("slow"), "").expect("a file");
    let stopped = place.job(2, "").spawn().expect("bash runs");
    let until = Instant::now() + Duration::from_secs(60);
    while place.text("asked-jak2.txt").is_empty() {
        assert!(Instant::now() < until, "nothing is asked");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_raw(stopped.id() as i32).expect("a process"), Signal::TERM).expect("a signal");
    assert!(stopped.wait_with_output().expect("bash ends").status.success());
    assert_eq!(place.text("scontrol.txt"), "requeue 7_2\n");
    std::fs::remove_file(place.0.path().join("slow")).expect("removed");

    for task in 1..3 {
        let output = place.run(task, "");
        assert!(output.status.success(), "{}", stderr(&output));
    }
    for target in TARGETS {
        let (ours, theirs) = (place.results(target), calm.results(target));
        assert!(ours.equals_missing(&theirs), "{target}: {ours} is not {theirs}");
        assert_eq!(ours.height(), 60, "{target}");
    }

    // One query over all of them, in DuckDB and in Polars.
    let folder = place.0.path();
    const IN_DUCKDB: &str = "
import sys
import duckdb, polars
for statement in duckdb.extract_statements(open(sys.argv[1]).read()):
    table = duckdb.execute(statement).to_arrow_table()
print(polars.from_arrow(table).write_csv(), end='')
";
    let sql = root().join("examples/targets.sql");
    let duckdb = succeeds(Command::new(python()).args(["-c", IN_DUCKDB]).arg(sql).current_dir(folder));
    let script = root().join("examples/targets.py");
    let polars = succeeds(Command::new(python()).arg(script).arg("arr").current_dir(folder));
    assert_eq!(duckdb, polars);
    let mut expected = "target,db_idx,score,evaluation\n".to_string();
    let mut targets = TARGETS;
    targets.sort_unstable();
    for target in targets {
        // The example orders items of equal scores by `db_idx`.
        let order = SortMultipleOptions::new().with_order_descending_multi([true, false]);
        let best = place.results(target).sort(["score", "db_idx"], order).expect("sorted").head(Some(3));
        let (items, scores, evaluations) = (u64s(&best, "db_idx"), f64s(&best, "score"), u64s(&best, "evaluation"));
        for row in 0..3 {
            expected += &format!("{target},{},{:?},{}\n", items[row], scores[row], evaluations[row]);
        }
    }
    assert_eq!(duckdb, expected);

    let runs = TARGETS.map(|target| format!("arr/target={target}"));
    let report = [&["report"], &runs.each_ref().map(String::as_str)[..], &["-o", "all.html"]].concat();
    uphill_ok(&report, folder);
    let page = place.text("all.html");
    assert!(TARGETS.iter().all(|target| page.contains(&format!("target={target}: "))), "a run is not in the report");
}
