//! Worker utilisation: the share of the time in which workers score, when scoring times vary.
//!
//! ```text
//! cargo bench --profile dev --bench worker_utilisation
//! ```
//!
//! Searches the molecules of `data/` with 64 workers, which score one item at a time, through the real loop. An item takes a
//! second on average, lognormal with a coefficient of variation of 1, and always the same time for the same item. A batch has
//! one or four items per worker. Utilisation is the sum of these times, divided by 64 times the duration of the whole search,
//! including the first batch, for which there is no model.

use std::time::{Duration, Instant};

use polars::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, LogNormal};
use uphill::{
    Features, IndexOptions, LanceDatabase, Result, Runner, Score, StopConditions, SurrogateUpdate, VectorDatabase,
};

const WORKERS: usize = 64;
const ITEMS: u64 = 1280;
const NONE: [&str; 0] = [];

/// A score that sleeps for the time of each item.
struct SlowScore;

/// The scoring time of an item in seconds.
fn seconds(item: u64) -> f64 {
    // Mean and coefficient of variation 1: sigma^2 = ln 2, mu = -sigma^2 / 2.
    let sigma = std::f64::consts::LN_2.sqrt();
    let times = LogNormal::new(-sigma * sigma / 2.0, sigma).expect("a distribution");
    times.sample(&mut ChaCha8Rng::seed_from_u64(item))
}

impl Score for SlowScore {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let items: Vec<u64> = batch.column("db_idx")?.u64()?.into_no_null_iter().collect();
        std::thread::sleep(Duration::from_secs_f64(items.into_iter().map(seconds).sum()));
        Ok(batch.column("qed")?.clone().with_name("score".into()).into_frame())
    }
    fn batch_size(&self) -> usize {
        1
    }
    fn workers(&self) -> usize {
        WORKERS
    }
    fn is_paid(&self) -> bool {
        false
    }
}

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let dataset = folder.path().join("molecules.lance");
    uphill::index("data/molecules.parquet", &dataset, &IndexOptions::default())?;
    println!("{:>16} {:>7} {:>8} {:>12}", "items per worker", "behind", "seconds", "utilisation");
    for per_worker in [1, 4] {
        for behind in 0..=3 {
            let database = LanceDatabase::open(dataset.to_string_lossy())?.columns(&["qed"])?;
            let queries =
                uphill::queries_at(&database, &database.sample(16, &mut uphill::random_stream(1, "queries", 0, 0))?)?;
            let rule =
                SurrogateUpdate::new().features(Features::columns(NONE)).batch(per_worker * WORKERS).behind(behind);
            let stop = StopConditions::new().evaluations(ITEMS);
            let started = Instant::now();
            let log = Runner::new(database, SlowScore, rule).stop(stop).search(&queries, u32::MAX)?;
            let wall = started.elapsed().as_secs_f64();
            let items = uphill::collect(log.compile_results()?)?;
            let scored: f64 = items.column("db_idx")?.u64()?.into_no_null_iter().map(seconds).sum();
            println!("{per_worker:>16} {behind:>7} {wall:>8.1} {:>11.0}%", 100.0 * scored / (WORKERS as f64 * wall));
        }
    }
    Ok(())
}
