//! Scorers that do not look at some items: these are asked for again, cost nothing, and nothing that was answered is lost.

use std::time::Duration;

use polars::prelude::*;
use uphill::{
    CommandFormat, CommandMode, CommandScore, Error, HttpScore, Result, RlUpdate, Runner, Score, StopConditions,
};

use crate::common::*;
use crate::python::python;
use crate::scorers::*;
use crate::scorers_http::Server;

const OK: std::result::Result<(), &str> = Ok(());

fn busy(counter: &Counter, behaviour: &str) -> CommandScore {
    CommandScore::new(["python3", &script("busy.py"), &counter.path(), behaviour])
        .backoff(Duration::from_millis(1))
        .stderr(counter.file("stderr.log"))
}

#[test]
fn an_item_that_was_not_looked_at_is_asked_for_again_and_is_no_retry() {
    let counter = Counter::new();
    let score = busy(&counter, "odd").retries(0);
    let answers = score.score(&batch(6)).expect("answers");
    assert_answers(&answers, &[OK; 6]);
    assert_eq!(names(&answers), ["db_idx", "score", "outcome", "reason"], "what comes with no answer is no part");
    assert_eq!((score.retry_count(), counter.items()), (0, vec![0, 1, 2, 3, 4, 5]));
    drop(score);
    assert_eq!(counter.processes(), 1, "the process goes on");
    counter.assert_all_gone();
}

#[test]
fn the_delay_that_an_answer_asks_for_is_kept() {
    let counter = Counter::new();
    assert_answers(&busy(&counter, "odd 1.5").score(&batch(4)).expect("answers"), &[OK; 4]);
    let times = std::fs::read_to_string(counter.file("counter.times")).expect("times");
    let times: Vec<f64> = times.lines().map(|time| time.parse().expect("seconds")).collect();
    assert_eq!(times.len(), 2);
    assert!(times[1] - times[0] >= 1.5, "{times:?}");
}

#[test]
fn arrow_streams_and_files_say_it_in_a_column() {
    let table = "pa.table({'db_idx': items['db_idx'], 'score': items['qed'], 'retry_after': [0.0] * len(items),\n\
        \x20   'outcome': ['unavailable' if i % 2 and i not in seen else None for i in items['db_idx'].to_pylist()]})";
    let stream = format!(
        "import sys, pyarrow as pa\nseen = set()\nwhile sys.stdin.buffer.peek(1):\n\
        \x20 items = pa.ipc.open_stream(sys.stdin.buffer).read_all()\n\
        \x20 answers = {table}\n\
        \x20 seen |= set(items['db_idx'].to_pylist())\n\
        \x20 with pa.ipc.new_stream(sys.stdout.buffer, answers.schema) as out: out.write_table(answers)\n\
        \x20 sys.stdout.flush()"
    );
    let folder = folder();
    let seen = folder.path().join("seen");
    let file = format!(
        "import os, sys, pyarrow as pa, pyarrow.parquet as pq\nitems = pq.read_table(sys.argv[1])\n\
        seen = set(range(6)) if os.path.exists({seen:?}) else set()\nopen({seen:?}, 'w')\n\
        pq.write_table({table}, sys.argv[2])"
    );
    let python = python().to_string_lossy().into_owned();
    let score =
        |code: &str| CommandScore::new([python.as_str(), "-c", code]).backoff(Duration::from_millis(1)).retries(0);
    for score in [score(&stream).format(CommandFormat::Arrow), score(&file).mode(CommandMode::Batch)] {
        let answers = score.score(&batch(6)).expect("answers");
        assert_answers(&answers, &[OK; 6]);
        assert_eq!(score.retry_count(), 0);
    }
}

#[test]
fn a_service_says_it_in_its_answer() {
    let server = Server::start();
    let score = HttpScore::new(server.url("busy")).retries(0).backoff(Duration::from_millis(1));
    assert_answers(&score.score(&batch(6)).expect("answers"), &[OK; 6]);
    assert_eq!((score.retry_count(), server.counter.items()), (0, vec![0, 1, 2, 3, 4, 5]));
}

#[test]
fn the_exit_status_75_of_a_process_is_an_outage() {
    let counter = Counter::new();
    let score = busy(&counter, "exits 0").retries(0).patience(Duration::from_millis(300));
    let error = score.score(&batch(6)).expect_err("nobody answered");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().starts_with("score: exited with status 75; "), "{error}");
    assert_eq!(score.retry_count(), 0);
    assert!(counter.processes() > 1, "it is started again while there is patience");
    std::fs::write(counter.file("counter.good"), "").expect("written");
    assert_answers(&score.score(&batch(6)).expect("answers"), &[OK; 6]);
    drop(score);
    counter.assert_all_gone();
}

/// The rows of the ledger of a run.
fn ledger(folder: &TempDir, run: &str) -> usize {
    let files = std::fs::read_dir(folder.path().join(run).join("ledger")).expect("a ledger");
    let files = files.map(|file| file.expect("an entry").path());
    let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "parquet"));
    files.map(|file| read(&file).height()).sum()
}

/// A run that its scorer leaves ends with status 75, has booked what was answered and nothing else, and goes on as one that its
/// scorer never left.
fn left_and_resumed(folder: &TempDir, run: &str, counter: &Counter, score: &str, reason: &str) {
    std::fs::write(folder.path().join("run.toml"), run_file(score)).expect("written");
    let output = uphill(&["search", "run.toml", "--out", run], folder.path());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(75), "{said}");
    let end =
        format!("score: {reason}; the scorer was unavailable for longer than score.patience; resume with --resume");
    assert!(said.contains(&end), "{said}");
    assert_eq!(ledger(folder, run), counter.items().len(), "what was answered is booked, and nothing else");
    let manifest = std::fs::read_to_string(folder.path().join(run).join("run.json")).expect("run.json");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest["ended"]["failed"], 0, "{manifest}");

    std::fs::write(counter.file("counter.good"), "").expect("written");
    uphill_ok(&["search", "run.toml", "--out", run, "--resume"], folder.path());
    for iteration in 0..2 {
        let file = format!("results/iteration={iteration:06}/part-0000.parquet");
        let results = |run: &str| read(&folder.path().join(run).join(&file));
        let (run, sql) = (results(run), results("sql"));
        assert!(run.select(names(&sql)).expect("columns").equals_missing(&sql), "iteration {iteration}");
    }
    let scored = counter.items();
    let mut distinct = scored.clone();
    distinct.dedup();
    assert_eq!(scored, distinct, "each item is scored once");
}

#[test]
fn a_run_whose_scorer_looks_at_no_item_any_more_ends_as_in_an_outage_and_goes_on() {
    let command = |counter: &Counter, behaviour: &str| {
        let arguments = format!("[\"python3\", {:?}, {:?}, {behaviour:?}]", script("busy.py"), counter.path());
        format!("command = {arguments}\nbatch_size = 4\npatience = 0.3")
    };
    let folder = folder();
    molecules(&folder);
    std::fs::write(folder.path().join("sql.toml"), run_file("sql = \"qed\"")).expect("written");
    uphill_ok(&["search", "sql.toml", "--out", "sql"], folder.path());
    for (behaviour, reason) in
        [("after 6", "the queue is full"), ("always", "the queue is full"), ("exits 6", "exited with status 75")]
    {
        // Alone, several at a time where a failure would end the run, and as a part of a sum.
        let counters = [(); 3].map(|()| Counter::new());
        let scores = [
            command(&counters[0], behaviour),
            command(&counters[1], behaviour) + "\nworkers = 3\non_error = \"stop\"",
            format!("[[score.sum]]\nname = \"likeness\"\n{}", command(&counters[2], behaviour)),
        ];
        for (number, (counter, score)) in counters.iter().zip(&scores).enumerate() {
            left_and_resumed(&folder, &format!("{behaviour} {number}"), counter, score, reason);
        }
    }
}

#[test]
fn a_busy_scorer_is_no_news_as_long_as_it_answers() {
    let counter = Counter::new();
    let folder = folder();
    molecules(&folder);
    let command =
        format!("command = [\"python3\", {:?}, {:?}, \"odd\"]\nbatch_size = 4", script("busy.py"), counter.path());
    std::fs::write(folder.path().join("run.toml"), run_file(&command)).expect("written");
    let output = uphill(&["search", "run.toml", "--out", "run", "--set", "stop.iterations=1"], folder.path());
    let said = stderr(&output);
    assert!(output.status.success() && !said.contains("waiting up to"), "{said}");
}

/// A function that does not look at items from the twentieth on.
struct Leaves(std::sync::atomic::AtomicUsize);

impl Score for Leaves {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let before = self.0.fetch_add(batch.height(), std::sync::atomic::Ordering::Relaxed);
        let rows = before..before + batch.height();
        let outcomes: Vec<Option<&str>> = rows.map(|row| (row >= 20).then_some("unavailable")).collect();
        Ok(df!("score" => vec![1.0; batch.height()], "outcome" => outcomes)?)
    }
    fn batch_size(&self) -> usize {
        16
    }
}

#[test]
fn a_function_that_does_not_look_at_an_item_ends_the_run_which_keeps_the_rest() {
    let folder = folder();
    let database = exact_library(&folder, &clustered(300, 4, 6, &mut rng(1))).k(10);
    let queries = uphill::queries_at(&database, &[1, 2, 3, 4]).expect("queries");
    let stop = StopConditions::new().evaluations(60);
    let mut runner = Runner::new(database, Leaves(0.into()), RlUpdate::new(1.0)).stop(stop);
    let error = runner.search_into(folder.path().join("run"), &queries, 9).map(drop).expect_err("it left");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("the scorer did not look at the item"), "{error}");
    assert_eq!(ledger(&folder, "run"), 20);
}

#[test]
fn an_item_told_as_unavailable_goes_on_waiting() {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(400, 4, 8, &mut rng(1))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let run = "[database]\npath = \"items.lance\"\n[score]\nby_hand = true\n[stop]\nevaluations = 20\n";
    std::fs::write(folder.path().join("hand.toml"), run).expect("written");
    let ask = || {
        uphill_ok(&["ask", "hand.toml", "--out", "hand", "-o", "asked.parquet"], folder.path());
        u64s(&read(&folder.path().join("asked.parquet")), "db_idx")
    };
    let asked = ask();
    let (left, scored) = (&asked[..2], &asked[2..]);
    let left: String = left.iter().map(|item| format!("{item},,unavailable\n")).collect();
    let scored: String = scored.iter().map(|item| format!("{item},0.5,\n")).collect();
    std::fs::write(folder.path().join("told.csv"), format!("db_idx,score,outcome\n{left}{scored}")).expect("written");
    uphill_ok(&["tell", "hand", "told.csv"], folder.path());
    assert_eq!(ask(), asked[..2]);
}
