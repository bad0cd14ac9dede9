//! The overhead of scorer processes: items per second through the stream scorer, with a score that costs nothing.
//!
//! ```text
//! cargo bench --profile dev --bench scorer
//! ```
//!
//! Each line is the median of five runs over the same items, with running processes and without the ledger. `right` is the
//! share of items that were returned with their own score. The scorers are Python programs, run by the interpreter that
//! `UPHILL_PYTHON` names (it needs pyarrow), or by one in an environment that is made below the target folder.

#[path = "../tests/it/python.rs"]
mod python;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Instant;

use polars::prelude::*;
use uphill::{CommandFormat, CommandScore, Result, Score};

const ITEMS: usize = 1 << 16;
const RUNS: usize = 5;

const ARROW: &str = "
import sys, pyarrow as pa
while sys.stdin.buffer.peek(1):
    items = pa.ipc.open_stream(sys.stdin.buffer).read_all()
    answers = pa.table({'db_idx': items['db_idx'], 'score': items['qed']})
    with pa.ipc.new_stream(sys.stdout.buffer, answers.schema) as stream:
        stream.write_table(answers)
    sys.stdout.flush()
";

const JSON_LINES: &str = "
import json, sys
for line in sys.stdin:
    if line.strip():
        item = json.loads(line)
        print(json.dumps({'db_idx': item['db_idx'], 'score': item['qed']}))
    else:
        print(flush=True)
";

fn main() -> Result<()> {
    let python = std::env::var_os("UPHILL_PYTHON").map_or_else(python::python, PathBuf::from);
    let python = python.to_string_lossy();
    let arrow = || CommandScore::new([&python, "-c", ARROW]).format(CommandFormat::Arrow);
    let json_lines = || CommandScore::new([&python, "-c", JSON_LINES]);
    let items = items()?;

    println!("{ITEMS} items, median of {RUNS} runs");
    println!("{:<8} {:>7} {:>8} {:>11} {:>10} {:>6}", "format", "batch", "workers", "items/s", "us/batch", "right");
    report("arrow", arrow(), &items)?;
    report("jsonl", json_lines(), &items)?;
    println!("(above: the defaults)");
    for batch_size in [64, 256, 1024, 8192] {
        for workers in [1, 2, 4] {
            report("arrow", arrow().batch_size(batch_size).workers(workers), &items)?;
        }
    }
    for batch_size in [64, 256, 1024, 8192] {
        for workers in [1, 2, 4] {
            report("jsonl", json_lines().batch_size(batch_size).workers(workers), &items)?;
        }
    }
    Ok(())
}

/// Items as a run sends them, with the expected score.
fn items() -> Result<DataFrame> {
    let scores: Vec<f64> = (0..ITEMS).map(|item| (item as f64 + 0.1) / 7.0).collect();
    let names: Vec<String> = (0..ITEMS).map(|item| format!("item {item}")).collect();
    let columns = vec![
        Column::new("db_idx".into(), (0..ITEMS as u64).collect::<Vec<_>>()),
        uphill::embedding_column(ndarray::Array2::<f32>::zeros((ITEMS, 32)).view())?,
        Column::new("name".into(), names),
        Column::new("qed".into(), scores),
    ];
    Ok(DataFrame::new(ITEMS, columns)?)
}

fn report(format: &str, score: CommandScore, items: &DataFrame) -> Result<()> {
    let (size, workers) = (Score::batch_size(&score), Score::workers(&score));
    start(&score, items, workers)?;
    let mut seconds = Vec::new();
    let mut right = 0;
    for _ in 0..RUNS {
        let started = Instant::now();
        let answers = score_all(&score, items)?;
        seconds.push(started.elapsed().as_secs_f64());
        right += count_right(&answers, items)?;
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[RUNS / 2];
    let share = right as f64 / (RUNS * ITEMS) as f64;
    let (rate, per_batch) = (ITEMS as f64 / median, median * 1e6 / ITEMS.div_ceil(size) as f64);
    println!("{format:<8} {size:>7} {workers:>8} {rate:>11.0} {per_batch:>10.0} {share:>6}");
    assert_eq!(share, 1.0, "items came back without their scores");
    Ok(())
}

/// Starts all processes. A process takes longer to start than the threads take to reach the barrier.
fn start(score: &CommandScore, items: &DataFrame, workers: usize) -> Result<()> {
    let barrier = Barrier::new(workers);
    let ask = || {
        barrier.wait();
        score.score(&items.head(Some(1)))
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic").map(|_| ()))
    })
}

/// Scores all items as a run does: in batches of the score's size, with one thread per worker.
fn score_all(score: &CommandScore, items: &DataFrame) -> Result<Vec<DataFrame>> {
    let size = Score::batch_size(score);
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        loop {
            let at = next.fetch_add(size, Ordering::Relaxed);
            if at >= ITEMS {
                return Ok(());
            }
            let answer = score.score(&items.slice(at as i64, size))?;
            answers.lock().expect("no panic").push(answer);
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..Score::workers(score)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    Ok(answers.into_inner().expect("no panic"))
}

/// The number of items that were returned with the expected score.
fn count_right(answers: &[DataFrame], items: &DataFrame) -> Result<usize> {
    let expected = items.column("qed")?.f64()?;
    let mut is_right = vec![false; ITEMS];
    for frame in answers {
        let scores = frame.column("score")?.f64()?;
        for (item, score) in frame.column("db_idx")?.u64()?.iter().zip(scores.iter()) {
            let item = item.expect("an id") as usize;
            is_right[item] |= score == expected.get(item);
        }
    }
    Ok(is_right.into_iter().filter(|is_right| *is_right).count())
}
