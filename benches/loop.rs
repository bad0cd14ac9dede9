//! The cost of an iteration by stage: `cargo bench --bench loop -- DATASET.lance QUERIES.parquet [OPTION=VALUE …]`.
//!
//! Options: k, nprobes, exact (0 or 1), iterations, repeats, out (a folder for the run), keep (1: keep the run). Prints a JSON
//! line per repeat: CPU and wall seconds of the whole search and of its stages, and peak memory. The score is a cheap
//! expression over two attributes `a` and `b`. `benches/compare` makes the data, and compares the figures with other programs.

mod resource_usage;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use self::resource_usage::{cpu_seconds, peak_mb};
use polars::prelude::*;
use serde_json::json;
use uphill::{BlockVisitor, Step, VectorDatabase};
use uphill::{
    Filter, LanceDatabase, Metric, QueryOptions, Result, RlUpdate, Runner, Score, SqlFilter, SqlScore, UpdateRule,
};

/// A stage, its CPU seconds and its wall seconds.
type Lap = (&'static str, f64, f64);

/// Collects the time of each stage.
#[derive(Clone, Default)]
struct Clock(Arc<Mutex<Vec<Lap>>>);

impl Clock {
    fn time<T>(&self, stage: &'static str, work: impl FnOnce() -> T) -> T {
        let (cpu, wall) = (cpu_seconds(), Instant::now());
        let done = work();
        let mut stages = self.0.lock().expect("one thread");
        let entry = match stages.iter_mut().position(|entry| entry.0 == stage) {
            Some(position) => &mut stages[position],
            None => {
                stages.push((stage, 0.0, 0.0));
                stages.last_mut().expect("just pushed")
            }
        };
        entry.1 += cpu_seconds() - cpu;
        entry.2 += wall.elapsed().as_secs_f64();
        done
    }
}

struct TimedDatabase(LanceDatabase, Clock);

impl VectorDatabase for TimedDatabase {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn dim(&self) -> usize {
        self.0.dim()
    }
    fn metric(&self) -> Metric {
        self.0.metric()
    }
    fn query(&self, queries: &DataFrame, options: QueryOptions<'_>) -> Result<DataFrame> {
        self.1.time("search", || self.0.query(queries, options))
    }
    fn take(&self, db_idx: &[u64]) -> Result<DataFrame> {
        self.0.take(db_idx)
    }
    fn sample(&self, n: usize, rng: &mut uphill::RandomStream) -> Result<Vec<u64>> {
        self.0.sample(n, rng)
    }
    fn scan(&self, visit: &mut BlockVisitor<'_>) -> Result<()> {
        self.0.scan(visit)
    }
}

struct TimedFilter(SqlFilter, Clock);

impl Filter for TimedFilter {
    fn filter(&self, results: DataFrame) -> Result<DataFrame> {
        self.1.time("filter", || self.0.filter(results))
    }
}

struct TimedScore(SqlScore, Clock);

impl Score for TimedScore {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        self.1.time("score", || self.0.score(batch))
    }
    fn is_paid(&self) -> bool {
        false
    }
}

struct TimedUpdate(RlUpdate, Clock, Cell<u32>);

impl UpdateRule for TimedUpdate {
    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        self.2.set(self.2.get() + 1);
        self.1.time("update", || self.0.update(step))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (Some(dataset), Some(queries)) = (arguments.first(), arguments.get(1)) else {
        // Without arguments (as `cargo test --benches` calls it) there is nothing to measure.
        return;
    };
    let option = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(&format!("{name}=")));
    let number = |name: &str, default: usize| option(name).map_or(default, |value| value.parse().expect(name));
    let (iterations, repeats) = (number("iterations", 10) as u32, number("repeats", 5));
    let mut database =
        LanceDatabase::open(dataset).expect("a dataset").k(number("k", 10)).exact(number("exact", 0) == 1);
    if option("nprobes").is_some() {
        database = database.nprobes(number("nprobes", 0));
    }
    let queries = uphill::read_parquet(queries).expect("queries");
    let vectors = uphill::matrix::<f64>(&queries, "embedding").expect("f64 vectors");
    let queries = uphill::queries(vectors.view()).expect("queries");
    let out = option("out").map_or_else(std::env::temp_dir, PathBuf::from);

    // Fills the caches of the index and of files.
    database.query(&queries, QueryOptions::default()).expect("a query");
    for repeat in 0..repeats {
        let clock = Clock::default();
        let run = out.join(format!("loop-{}-{repeat}", std::process::id()));
        let mut runner = Runner::new(
            TimedDatabase(database.clone(), clock.clone()),
            TimedScore(SqlScore::new("0.5 * a - abs(b)"), clock.clone()),
            TimedUpdate(RlUpdate::new(0.5), clock.clone(), Cell::new(0)),
        )
        .filter(TimedFilter(SqlFilter::new("a < 0.9"), clock.clone()));
        let log = clock.time("all", || runner.search_into(&run, &queries, iterations)).expect("a search");
        let scored = log.manifest().ended.as_ref().map_or(0, |ended| ended.evaluations);
        let stages: serde_json::Map<String, serde_json::Value> = clock
            .0
            .lock()
            .expect("one thread")
            .iter()
            .map(|(stage, cpu, wall)| (stage.to_string(), json!({ "cpu": cpu, "wall": wall })))
            .collect();
        println!(
            "{}",
            json!({ "repeat": repeat, "iterations": iterations, "scored": scored, "stages": stages, "peak_mb": peak_mb(), "run": run })
        );
        if number("keep", 0) == 0 {
            std::fs::remove_dir_all(&run).expect("removed");
        }
    }
}
