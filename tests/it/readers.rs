//! Readers never see a torn or a partial iteration: at any instant, each iteration is there whole or not at all.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use polars::prelude::*;
use uphill::SearchLog;

use crate::faults::*;
use crate::python::python;

/// Reads run folders as its users do, each time anew, and compares all rows with those of a whole run.
const READER: &str = r#"
import json, sys
import duckdb, polars as pl

ORDER = ["iteration", "query_idx", "distance", "db_idx"]

def with_duckdb(files):
    rows = f"select * replace (iteration::int as iteration) from '{files}' order by {', '.join(ORDER)}"
    return duckdb.sql(rows).fetchall()

def with_polars(files):
    return pl.scan_parquet(files, hive_partitioning=True).sort(ORDER).collect().rows()

engines = {"duckdb": with_duckdb, "polars": with_polars}
whole = {name: read("whole/results/*/*.parquet") for name, read in engines.items()}
for line in sys.stdin:
    run, at_least = json.loads(line)
    for name, read in engines.items():
        rows = read(f"{run}/results/*/*.parquet")
        iterations = rows[-1][-1] + 1
        assert iterations >= at_least, (name, run, iterations, at_least)
        assert rows == [row for row in whole[name] if row[-1] < iterations], (name, run, rows)
    print("ok", flush=True)
"#;

/// DuckDB, and Polars from Python and Rust.
struct Readers<'a> {
    whole: &'a Run<'a>,
    python: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl<'a> Readers<'a> {
    fn new(scene: &Scene, whole: &'a Run<'a>) -> Self {
        let mut python = Command::new(python())
            .args(["-c", READER])
            .current_dir(scene.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python");
        let (ask, answers) = (python.stdin.take().expect("a pipe"), python.stdout.take().expect("a pipe"));
        Readers { whole, python, ask, answers: BufReader::new(answers) }
    }

    /// Reads a run folder with each, unless nothing is committed yet. Each must see as many iterations as
    /// there were before it looked, at least, and all rows of those that it sees.
    fn look(&mut self, run: &Run<'_>) -> u32 {
        let committed = run.committed();
        if run.path().join("run.json").exists() {
            let log = SearchLog::open(run.path()).expect("a run");
            assert!(log.iterations().len() as u32 >= committed);
            if let Some(rows) = log.scan_results().expect("a query") {
                let until = lit(log.iterations().len() as u32);
                let whole = SearchLog::open(self.whole.path()).and_then(|log| log.scan_results()).expect("a query");
                let expected = whole.expect("rows").filter(col("iteration").lt(until)).collect().expect("rows");
                assert!(rows.collect().expect("rows").equals_missing(&expected), "{}", run.name);
            }
        }
        if committed > 0 {
            writeln!(self.ask, "[\"{}\", {committed}]", run.name).expect("Python listens");
            let mut answer = String::new();
            self.answers.read_line(&mut answer).expect("an answer");
            assert_eq!(answer, "ok\n", "see above what Python says");
        }
        committed
    }
}

impl Drop for Readers<'_> {
    fn drop(&mut self) {
        let _ = self.python.kill();
        let _ = self.python.wait();
    }
}

#[test]
fn duckdb_and_polars_read_complete_iterations_between_any_two_file_operations_of_a_search() {
    let scene = Scene::new(SQL, 3);
    let whole = scene.whole();
    let mut readers = Readers::new(&scene, &whole);
    // One that is not disturbed, then one that goes on after a kill in the middle of writing.
    let killed = scene.run("killed");
    was_killed(&killed.go(&format!("{}:kill", whole.operation_that_publishes("results/iteration=000001"))));
    for run in [scene.run("calm"), killed] {
        let mut search = Pausing::start(&mut run.command("*:stop"));
        let (mut looks, mut seen) = (0, 0);
        let code = loop {
            if let Some(code) = search.wait() {
                break code;
            }
            seen = readers.look(&run).max(seen);
            looks += 1;
            search.go_on();
        };
        println!("{}: {looks} looks", run.name);
        assert_eq!((code, seen), (0, 3));
        run.assert_equals(&whole);
    }
}

#[test]
fn duckdb_and_polars_read_complete_iterations_while_searches_run_are_killed_and_resume() {
    let scene = Scene::new(SQL, 25);
    let whole = scene.whole();
    let mut readers = Readers::new(&scene, &whole);
    let runs = [0, 1, 2].map(|number| scene.run(format!("killed-{number}")));
    let kill_and_go_on = |run: &Run<'_>| {
        for iteration in [0, 3, 8, 15, 21] {
            let name = format!("results/iteration={iteration:06}");
            let mut search = Pausing::start(&mut run.command(""));
            while !run.path().join(&name).exists() {
                assert!(!search.has_ended(), "{name}: it does not come that far");
                std::thread::yield_now();
            }
            search.signal(rustix::process::Signal::KILL);
            assert_eq!(search.wait(), Some(-9));
        }
        succeeded(&run.go(""));
    };
    let looks = std::thread::scope(|scope| {
        let writing = scope.spawn(|| runs.iter().for_each(kill_and_go_on));
        let mut looks = 0;
        while !writing.is_finished() {
            looks += runs.iter().filter(|run| readers.look(run) > 0).count();
        }
        looks
    });
    println!("{looks} looks");
    assert!(looks > 0);
    runs.iter().for_each(|run| run.assert_equals(&whole));
}

/// Says of ledgers how many rows, items and ordinals they have, and whether the scores are right.
const LEDGER: &str = r#"
import sys, duckdb
for run in sys.stdin:
    rows = "count(*), count(distinct db_idx), count(distinct evaluation), count(*) filter (where score = db_idx * 37 % 101)"
    print(*duckdb.sql(f"select {rows} from '{run.strip()}/ledger/*.parquet'").fetchall()[0], flush=True)
"#;

#[test]
fn duckdb_reads_each_answer_once_between_any_two_file_operations_of_a_ledger() {
    let scene = Scene::with_an_almost_full_ledger();
    let run = scene.copied("begun", "run");
    let mut python = Command::new(python())
        .args(["-c", LEDGER])
        .current_dir(scene.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python");
    let (mut ask, answers) = (python.stdin.take().expect("a pipe"), python.stdout.take().expect("a pipe"));
    let mut answers = BufReader::new(answers);
    let mut look = || {
        writeln!(ask, "run").expect("Python listens");
        let mut answer = String::new();
        answers.read_line(&mut answer).expect("an answer");
        let counts: Vec<usize> = answer.split_whitespace().map(|count| count.parse().expect("a number")).collect();
        assert_eq!(counts, [counts[0]; 4], "rows, items, ordinals, right scores");
        counts[0]
    };
    let mut seen = vec![look()];
    let mut search = Pausing::start(&mut run.command("*:stop"));
    while search.wait().is_none() {
        seen.push(look());
        search.go_on();
    }
    drop(ask);
    python.wait().expect("reaped");
    println!("{} looks", seen.len());
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!((seen.last(), run.batches().len()), (Some(&532), 2));
}
