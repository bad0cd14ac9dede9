//! How time, memory and files of a run grow with its evaluations, batches and iterations.
//!
//! ```text
//! cargo bench --profile dev --bench growth [-- most=1000000 folder=FOLDER only=evaluations,batch,per_iteration]
//! ```
//!
//! Measures runs of 1000 evaluations and ten times more, up to `most` (100,000), each phase in its own process: the run, resuming
//! it after its end (with a rule without state, and with one that reads all embeddings again), and its best hundred results.
//! The nearest-neighbour search is excluded: the database returns items in order, and only fetches them through Lance. So the
//! figures are those of the loop, the ledger and the log. Prints Markdown tables. An exponent is the growth from the size before.

mod resource_usage;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use self::resource_usage::{cpu_seconds, peak_mb};
use ndarray::Array2;
use polars::prelude::*;
use serde_json::{Value, json};
use uphill::{
    BlockVisitor, IndexKind, IndexOptions, LanceDatabase, Metric, QueryOptions, Result, Runner, Score, SearchLog,
    SurrogateUpdate, TopKUpdate, UpdateRule, VectorDatabase,
};

const DIM: usize = 32;
const FIRST: usize = 1000;

/// A database that returns items in order: the neighbours of a query at item `p` are the items after it.
struct SequentialDatabase(LanceDatabase, usize);

impl VectorDatabase for SequentialDatabase {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn dim(&self) -> usize {
        DIM
    }
    fn metric(&self) -> Metric {
        Metric::L2
    }
    fn query(&self, queries: &DataFrame, options: QueryOptions<'_>) -> Result<DataFrame> {
        let vectors = uphill::matrix::<f64>(queries, "embedding")?;
        let (mut query_idx, mut db_idx) = (Vec::new(), Vec::new());
        for (query, vector) in queries.column("query_idx")?.u32()?.into_no_null_iter().zip(vectors.view().rows()) {
            let first = (vector[0] + 1.0) as u64;
            let neighbours = first..(first + options.k.unwrap_or(self.1) as u64).min(self.len());
            query_idx.extend(neighbours.clone().map(|_| query));
            db_idx.extend(neighbours);
        }
        let distances: Vec<f32> = (0..db_idx.len()).map(|position| position as f32).collect();
        let columns = vec![
            Column::new("query_idx".into(), query_idx),
            Column::new("db_idx".into(), db_idx.clone()),
            Column::new("distance".into(), distances),
            uphill::embedding_column(embeddings(&db_idx).view())?,
        ];
        Ok(DataFrame::new(db_idx.len(), columns)?)
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

/// The embeddings of items, `(items, DIM)`. The first component is the item's number.
fn embeddings(db_idx: &[u64]) -> Array2<f32> {
    let component = |(row, column): (usize, usize)| match column {
        0 => db_idx[row] as f32,
        _ => (db_idx[row].wrapping_mul(2654435761 * column as u64 + 1) >> 8 & 0xffff) as f32 / 65536.0,
    };
    Array2::from_shape_fn((db_idx.len(), DIM), component)
}

/// Scores an item by its number, in batches of the given size. The best neighbour of a query is the last.
struct NumberScore(usize);

impl Score for NumberScore {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let scores = batch.column("db_idx")?.cast(&DataType::Float64)?;
        Ok(scores.with_name("score".into()).into_frame())
    }
    fn batch_size(&self) -> usize {
        self.0
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let option = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(&format!("{name}=")));
    if let Some(phase) = option("phase") {
        let numbers: Vec<usize> =
            option("sizes").expect("sizes").split(',').map(|size| size.parse().expect("a number")).collect();
        return measure(phase, Path::new(option("folder").expect("a folder")), numbers[0], numbers[1], numbers[2]);
    }
    let most: usize = option("most").map_or(100_000, |most| most.parse().expect("most"));
    let kept = tempfile::tempdir().expect("a folder");
    let folder = option("folder").map_or(kept.path().to_path_buf(), PathBuf::from);
    std::fs::create_dir_all(&folder).expect("a folder");
    library(&folder, most)?;
    for (title, batch_size, per_iteration) in [
        ("Evaluations, one a batch, 100 an iteration", 1, 100),
        ("Evaluations, 100 a batch, 100 an iteration", 100, 100),
        ("Iterations, one evaluation each", 1, 1),
    ] {
        if option("only").is_some_and(|only| only != format!("{batch_size},{per_iteration}")) {
            continue;
        }
        println!("\n{title}:\n");
        println!(
            "| evaluations | run, wall ms each | CPU ms each | files | MB on disk | resume, `top-k`: wall s | CPU s | peak MB | resume, `surrogate`: wall s | CPU s | peak MB | `results`: wall s | CPU s | peak MB |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        let mut before: Option<Vec<f64>> = None;
        let mut evaluations = FIRST;
        while evaluations <= most {
            let figures = row(&folder, evaluations, batch_size, per_iteration);
            println!(
                "| {} | {} |",
                thousands(evaluations),
                figures.iter().map(|f| rounded(*f)).collect::<Vec<_>>().join(" | ")
            );
            if let Some(before) = before {
                let exponents = figures.iter().zip(&before).map(|(now, then)| format!("{:.2}", (now / then).log10()));
                println!("| *exponent* | {} |", exponents.collect::<Vec<_>>().join(" | "));
            }
            before = Some(figures);
            evaluations *= 10;
        }
    }
    Ok(())
}

/// The figures of one size, in the order of the table's columns.
fn row(folder: &Path, evaluations: usize, batch_size: usize, per_iteration: usize) -> Vec<f64> {
    let run = folder.join("run");
    let _ = std::fs::remove_dir_all(&run);
    let mut phases = ["run", "top-k", "surrogate", "results"].map(|phase| {
        let child = Command::new(std::env::current_exe().expect("this program"))
            .arg(format!("phase={phase}"))
            .arg(format!("folder={}", folder.display()))
            .arg(format!("sizes={evaluations},{batch_size},{per_iteration}"))
            .output()
            .expect("it runs");
        assert!(child.status.success(), "{phase}: {}", String::from_utf8_lossy(&child.stderr));
        serde_json::from_slice::<Value>(&child.stdout).expect("JSON")
    });
    let (files, bytes) = size(&run);
    std::fs::remove_dir_all(&run).expect("removed");
    let mut take = |phase: usize, name: &str| phases[phase][name].take().as_f64().expect("a number");
    let each = 1e3 / evaluations as f64;
    let mut figures = vec![take(0, "wall") * each, take(0, "cpu") * each, files as f64, bytes as f64 / 1e6];
    for phase in 1..4 {
        figures.extend(["wall", "cpu", "peak_mb"].map(|name| take(phase, name)));
    }
    figures
}

/// Runs one phase in this process, and prints its time and memory.
fn measure(phase: &str, folder: &Path, evaluations: usize, batch_size: usize, per_iteration: usize) -> Result<()> {
    let database = LanceDatabase::open(folder.join("library.lance").to_string_lossy())?;
    // The first fetch opens the files.
    database.take(&[0])?;
    let run = folder.join("run");
    let mut start = Array2::zeros((1, DIM));
    start[(0, 0)] = -1.0;
    let queries = uphill::queries(start.view())?;
    let iterations = (evaluations / per_iteration) as u32;
    let runner = |rule: Box<dyn UpdateRule>, database| {
        Runner::from_parts(
            Box::new(SequentialDatabase(database, per_iteration)),
            Box::new(NumberScore(batch_size)),
            rule,
        )
    };
    let (cpu, wall) = (cpu_seconds(), Instant::now());
    let log = match phase {
        "run" => runner(Box::new(TopKUpdate::new(1)), database).search_into(&run, &queries, iterations)?,
        "top-k" => runner(Box::new(TopKUpdate::new(1)), database).resume(&run, &queries, iterations)?,
        "surrogate" => runner(Box::new(SurrogateUpdate::new()), database).resume(&run, &queries, iterations)?,
        _ => {
            let log = SearchLog::open(&run)?;
            let best = uphill::collect(log.compile_results()?.limit(100))?;
            assert_eq!(best.column("score")?.f64()?.get(0), Some(evaluations as f64 - 1.0));
            log
        }
    };
    assert_eq!(log.manifest().ended.as_ref().map(|ended| ended.evaluations), Some(evaluations as u64));
    let (cpu, wall) = (cpu_seconds() - cpu, wall.elapsed().as_secs_f64());
    println!("{}", json!({ "cpu": cpu, "wall": wall, "peak_mb": peak_mb() }));
    Ok(())
}

fn library(folder: &Path, items: usize) -> Result<()> {
    let dataset = folder.join("library.lance");
    if dataset.exists() {
        return Ok(());
    }
    let parts = folder.join("items");
    std::fs::create_dir_all(&parts).expect("a folder");
    let ids: Vec<u64> = (0..items as u64).collect();
    for (part, ids) in ids.chunks(100_000).enumerate() {
        let column = uphill::embedding_column(embeddings(ids).view())?;
        let file = std::fs::File::create(parts.join(format!("{part:04}.parquet"))).expect("a file");
        ParquetWriter::new(file).finish(&mut column.into_frame())?;
    }
    let options = IndexOptions::new().index(IndexKind::None);
    uphill::index(&parts, &dataset, &options).map(drop)
}

/// The number of files and bytes below a folder.
fn size(folder: &Path) -> (u64, u64) {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    entries.fold((0, 0), |(files, bytes), entry| match entry.metadata().expect("metadata") {
        found if found.is_dir() => {
            let (more, below) = size(&entry.path());
            (files + more, bytes + below)
        }
        found => (files + 1, bytes + found.len()),
    })
}

fn rounded(figure: f64) -> String {
    match figure.abs() {
        large if large >= 100.0 => thousands(figure.round() as usize),
        middle if middle >= 1.0 => format!("{figure:.1}"),
        _ => format!("{figure:.3}"),
    }
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}
