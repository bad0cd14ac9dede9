//! Ctrl-C while a scorer is busy: the run ends at once, keeps what is finished, and goes on later.

use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::*;
use crate::python::python;
use crate::scorers::*;
use crate::scorers_http::Server;

fn write_run_file(folder: &Path, name: &str, score: &str) {
    std::fs::write(folder.join(name), crate::scorers::run_file(score)).expect("written");
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_string).collect()
}

/// How a process ended, long before what it waits for would have: that sleeps for ten minutes.
fn ended(run: &mut Child) -> ExitStatus {
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(status) = run.try_wait().expect("a status") {
            return status;
        }
        if Instant::now() > until {
            run.kill().expect("killed");
            panic!("the run waits for its scorer");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Interrupts a run with two batches in flight when both wait, and goes on with it.
fn interrupted(score: &str, counter: &Counter, signal: Signal, both_wait: impl Fn(&[String]) -> bool) {
    let folder = folder();
    molecules(&folder);
    write_run_file(folder.path(), "run.toml", score);
    write_run_file(folder.path(), "sql.toml", "sql = \"qed\"");
    let messages = folder.path().join("messages");
    let mut run = Command::new(env!("CARGO_BIN_EXE_uphill"));
    run.args(["search", "run.toml", "--out", "run"]).current_dir(folder.path());
    run.stderr(std::fs::File::create(&messages).expect("a file"));
    let mut run = run.spawn().expect("it runs");
    while !both_wait(&lines(&messages)) {
        assert!(run.try_wait().expect("a status").is_none(), "the run ended too early: {:?}", lines(&messages));
        std::thread::sleep(Duration::from_millis(5));
    }
    let paid = counter.items();
    kill_process(Pid::from_child(&run), signal).expect("signalled");
    let code = if signal == Signal::INT { 130 } else { 143 };
    assert_eq!(ended(&mut run).code(), Some(code), "{:?}", lines(&messages));
    counter.assert_all_gone();
    let ledger = std::fs::read_dir(folder.path().join("run/ledger")).expect("a ledger");
    let batches = ledger.map(|file| file.expect("an entry").path());
    let batches = batches.filter(|file| file.extension().is_some_and(|extension| extension == "parquet"));
    let kept: usize = batches.map(|file| read(&file).height()).sum();
    assert_eq!(kept, paid.len(), "what was finished is kept");

    std::fs::write(counter.file("counter.good"), "").expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run", "--resume"], folder.path());
    uphill_ok(&["search", "sql.toml", "--out", "sql"], folder.path());
    for iteration in 0..2 {
        let results = |name: &str| {
            read(&folder.path().join(format!("{name}/results/iteration={iteration:06}/part-0000.parquet")))
        };
        let (run, sql) = (results("run"), results("sql"));
        // Without the part, where the score is a sum.
        assert!(run.select(names(&sql)).expect("columns").equals_missing(&sql), "iteration {iteration}");
    }
    let asked = counter.items();
    let mut distinct = asked.clone();
    distinct.dedup();
    assert_eq!(asked, distinct, "what was finished is not asked again");
}

fn both_stalled(counter: &Counter) -> impl Fn(&[String]) -> bool {
    let stalled = counter.file("counter.stalled");
    move |_| lines(&stalled).len() >= 2
}

#[test]
fn an_interrupted_run_does_not_wait_for_a_process() {
    let counter = Counter::new();
    let command = format!("command = [\"python3\", {:?}, {:?}, \"stalls\"]", script("jsonl.py"), counter.path());
    let score = format!("{command}\nworkers = 2\nbatch_size = 2");
    interrupted(&score, &counter, Signal::INT, both_stalled(&counter));
}

#[test]
fn an_interrupted_run_does_not_wait_for_a_process_per_batch() {
    let counter = Counter::new();
    let command = format!("command = [{:?}, {:?}, {:?}, \"stalls\"]", python(), script("parquet.py"), counter.path());
    let score = format!("{command}\nmode = \"batch\"\nworkers = 2\nbatch_size = 4\ntimeout = 3600");
    interrupted(&score, &counter, Signal::TERM, both_stalled(&counter));
}

#[test]
fn an_interrupted_run_does_not_wait_for_a_service() {
    let server = Server::start();
    let score = format!("url = \"{}\"\nconcurrency = 2\nbatch_size = 2\ntimeout = 3600", server.url("stalls"));
    interrupted(&score, &server.counter, Signal::INT, both_stalled(&server.counter));
}

#[test]
fn an_interrupted_run_does_not_wait_for_the_next_retry() {
    let counter = Counter::new();
    let command = format!("command = [{:?}, {:?}, {:?}, \"exits\"]", python(), script("parquet.py"), counter.path());
    // Twenty retries take a quarter of an hour.
    let score = format!("{command}\nmode = \"batch\"\nworkers = 2\nbatch_size = 8\nretries = 20");
    let pausing = |messages: &[String]| messages.iter().filter(|line| line.contains("; retrying")).count() >= 2;
    interrupted(&score, &counter, Signal::INT, pausing);
}

#[test]
fn an_interrupted_sum_does_not_wait_for_its_parts() {
    let counter = Counter::new();
    let command = format!("command = [\"python3\", {:?}, {:?}, \"stalls\"]", script("jsonl.py"), counter.path());
    let part = format!("[[score.sum]]\nname = \"likeness\"\n{command}\nworkers = 2\nbatch_size = 2");
    interrupted(&part, &counter, Signal::INT, both_stalled(&counter));
}
