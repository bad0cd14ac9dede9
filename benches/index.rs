//! Recall@10, CPU time and wall time per 100 queries of each kind of index, compared with exact search.
//!
//! ```text
//! cargo bench --profile dev --bench index -- exact       # exact search
//! cargo bench --profile dev --bench index -- threshold   # the number of rows from which an index is faster
//! cargo bench --profile dev --bench index -- nprobes     # partitions x nprobes
//! cargo bench --profile dev --bench index -- kinds       # all kinds of index
//! cargo bench --bench index -- large                     # a million rows, and 384 dimensions
//! ```
//!
//! Each table is one run. The searches of a row are timed in turns, five times, and the median is
//! printed. CPU time is that of all threads. It is available on Linux only, and 0 elsewhere.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ndarray::{Array2, Axis};
use polars::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use uphill::{IndexKind, IndexOptions, LanceDatabase, QueryOptions, VectorDatabase};

const SEED: u64 = 7;
const ROUNDS: usize = 5;
const QUERIES: usize = 100;
const K: usize = 10;

fn main() -> uphill::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let runs = |table: &str| wanted.is_empty() || wanted.iter().any(|name| name == table);
    println!("seed {SEED}; {QUERIES} queries, k = {K}; median of {ROUNDS}; milliseconds per {QUERIES} queries");
    if runs("exact") {
        compare(&Library::clustered(100_000, 128), &[], &[])?;
    }
    if runs("threshold") {
        for dim in [64, 128] {
            for rows in [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000] {
                compare(&Library::clustered(rows, dim), &[(IndexKind::IvfFlat, None)], &[None])?;
            }
        }
        compare(&Library::molecules()?, &[(IndexKind::IvfFlat, None)], &[None])?;
    }
    if runs("nprobes") {
        for library in [Library::molecules()?, Library::clustered(20_000, 64), Library::clustered(100_000, 128)] {
            let root = (library.rows() as f64).sqrt();
            let partitions = [root / 2.0, root, root * 2.0];
            let indexes = partitions.map(|partitions| (IndexKind::IvfFlat, Some(partitions.round() as usize)));
            compare(&library, &indexes, &[8, 16, 32, 64].map(Some))?;
        }
    }
    if runs("kinds") {
        use IndexKind::{IvfFlat, IvfHnswSq, IvfPq, IvfRq, IvfSq};
        let kinds = [IvfFlat, IvfSq, IvfPq, IvfRq, IvfHnswSq].map(|kind| (kind, None));
        for library in [Library::molecules()?, Library::clustered(20_000, 64), Library::clustered(100_000, 128)] {
            compare(&library, &kinds, &[None])?;
        }
    }
    if runs("large") {
        use IndexKind::{IvfFlat, IvfHnswSq, IvfPq, IvfRq, IvfSq};
        let kinds = [IvfFlat, IvfSq, IvfRq, IvfPq, IvfHnswSq].map(|kind| (kind, None));
        compare(&Library::learned(50_000, 384), &kinds, &[None])?;
        // The last two take many minutes to build.
        compare(&Library::clustered(1_000_000, 128), &kinds[..3], &[None])?;
    }
    Ok(())
}

/// Items on disk, and queries like those of a search: items, moved towards another item.
struct Library {
    name: String,
    folder: tempfile::TempDir,
    items: PathBuf,
    vectors: Array2<f32>,
    queries: DataFrame,
}

impl Library {
    /// Points around 100 centres.
    fn clustered(rows: usize, dim: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let mut normal = |rows| Array2::from_shape_simple_fn((rows, dim), || StandardNormal.sample(&mut rng));
        let centres: Array2<f32> = normal(100) * 4.0;
        let mut vectors: Array2<f32> = normal(rows);
        for (row, mut vector) in vectors.rows_mut().into_iter().enumerate() {
            vector += &centres.row(row % 100);
        }
        // Rows 100 apart are of one cluster.
        Self::new(format!("clustered {rows} x {dim}"), vectors, |row, rng| {
            (row + 100 * (1 + rng.next_u32() as usize % 5)) % rows
        })
    }

    /// Vectors like embeddings of texts: unit vectors of many dimensions that a network computes from few properties. Each item
    /// has one of 1000 topics and 24 properties. Two layers of random weights give the vector.
    fn learned(rows: usize, dim: usize) -> Self {
        const PROPERTIES: usize = 24;
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let mut normal = |rows: usize, dim| -> Array2<f32> {
            Array2::from_shape_simple_fn((rows, dim), || StandardNormal.sample(&mut rng))
        };
        let (topics, first, second) = (normal(1000, PROPERTIES), normal(PROPERTIES, 256), normal(256, dim));
        let mut properties = normal(rows, PROPERTIES) * 0.5;
        for (row, mut item) in properties.rows_mut().into_iter().enumerate() {
            item += &topics.row(row % 1000);
        }
        let hidden = properties.dot(&(first / (PROPERTIES as f32).sqrt())).mapv_into(f32::tanh);
        let mut vectors = hidden.dot(&second);
        for mut vector in vectors.rows_mut() {
            vector /= vector.dot(&vector).sqrt();
        }
        Self::new(format!("learned {rows} x {dim}"), vectors, |_, rng| rng.next_u32() as usize % rows)
    }

    /// The molecules of this repository. Queries move towards any other item.
    fn molecules() -> uphill::Result<Self> {
        let frame = uphill::read_parquet(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/data/molecules.parquet")))?;
        let vectors = uphill::matrix::<f32>(&frame, "embedding")?.view().to_owned();
        let (rows, dim) = vectors.dim();
        Ok(Self::new(format!("molecules {rows} x {dim}"), vectors, |_, rng| rng.next_u32() as usize % rows))
    }

    fn new(name: String, vectors: Array2<f32>, towards: impl Fn(usize, &mut ChaCha8Rng) -> usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED + 1);
        let rows = vectors.nrows();
        let from: Vec<usize> = (0..QUERIES).map(|_| rng.next_u32() as usize % rows).collect();
        let to: Vec<usize> = from.iter().map(|row| towards(*row, &mut rng)).collect();
        let queries = vectors.select(Axis(0), &from) * 0.7 + vectors.select(Axis(0), &to) * 0.3;
        let queries = uphill::queries(queries.mapv(f64::from).view()).expect("queries");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let items = folder.path().join("items.parquet");
        let column = uphill::embedding_column(vectors.view()).expect("a column");
        let mut frame = DataFrame::new(rows, vec![column]).expect("a frame");
        ParquetWriter::new(std::fs::File::create(&items).expect("a file")).finish(&mut frame).expect("Parquet");
        Library { name, folder, items, vectors, queries }
    }

    fn rows(&self) -> usize {
        self.vectors.nrows()
    }
}

/// Builds each index, times it with each `nprobes` and an exact search in turns, and prints a row for each.
fn compare(library: &Library, indexes: &[(IndexKind, Option<usize>)], nprobes: &[Option<usize>]) -> uphill::Result<()> {
    println!("\n{}", library.name);
    println!(
        "index               build CPU s  index MB  partitions  nprobes  recall@10  CPU ms  wall ms  CPU of exact"
    );
    let mut searches: Vec<(String, LanceDatabase)> = Vec::new();
    let exact = [(IndexKind::None, None)];
    for (number, &(index, partitions)) in exact.iter().chain(indexes).enumerate() {
        let dataset = library.folder.path().join(format!("{number}.lance"));
        let options = partitions.into_iter().fold(IndexOptions::new().index(index), IndexOptions::partitions);
        let start = cpu();
        let built = uphill::index(&library.items, &dataset, &options)?;
        let build = cpu() - start;
        let megabytes = size(&dataset.join("_indices")) as f64 / 1e6;
        let database = LanceDatabase::open(dataset.to_string_lossy())?.k(K);
        let partitions = built.partitions.map_or(String::new(), |partitions| partitions.to_string());
        for nprobes in if number == 0 { &[None] } else { nprobes } {
            let shown = nprobes.map_or(String::new(), |nprobes| nprobes.to_string());
            let database = database.clone();
            searches.push((
                format!("{index:18} {build:>12.2} {megabytes:>9.1} {partitions:>11} {shown:>8}"),
                nprobes.map_or(database.clone(), |nprobes| database.nprobes(nprobes)),
            ));
        }
    }
    let mut times: Vec<Vec<(f64, f64)>> = vec![Vec::new(); searches.len()];
    for round in 0..=ROUNDS {
        for ((_, database), times) in searches.iter().zip(&mut times) {
            let time = time(database, &library.queries)?;
            // The first round fills the caches.
            if round > 0 {
                times.push(time);
            }
        }
    }
    let truth = neighbours(&searches[0].1, &library.queries)?;
    let exact = median(times[0].iter().map(|time| time.0));
    for ((label, database), times) in searches.iter().zip(&times) {
        let found = neighbours(database, &library.queries)?.intersection(&truth).count();
        let (cpu, wall) = (median(times.iter().map(|time| time.0)), median(times.iter().map(|time| time.1)));
        let recall = found as f64 / truth.len() as f64;
        println!("{label} {recall:>10.3} {:>7.2} {:>8.2} {:>13.2}", 1e3 * cpu, 1e3 * wall, cpu / exact);
    }
    Ok(())
}

/// Bytes of all files in a folder, at any depth.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |path: PathBuf| if path.is_dir() { size(&path) } else { path.metadata().map_or(0, |file| file.len()) };
    entries.map(|entry| bytes(entry.path())).sum()
}

/// The CPU and wall seconds of one search: the mean over a fifth of a second.
fn time(database: &LanceDatabase, queries: &DataFrame) -> uphill::Result<(f64, f64)> {
    let (start, cpu_start) = (Instant::now(), cpu());
    let mut searches = 0.0;
    while start.elapsed().as_secs_f64() < 0.2 {
        std::hint::black_box(database.query(queries, QueryOptions::default())?);
        searches += 1.0;
    }
    Ok(((cpu() - cpu_start) / searches, start.elapsed().as_secs_f64() / searches))
}

/// The pairs of query and item in the results.
fn neighbours(database: &LanceDatabase, queries: &DataFrame) -> uphill::Result<HashSet<(u32, u64)>> {
    let results = database.query(queries, QueryOptions::default())?;
    let queries = results.column("query_idx")?.u32()?.into_no_null_iter();
    Ok(queries.zip(results.column("db_idx")?.u64()?.into_no_null_iter()).collect())
}

/// CPU seconds of all living threads of this process.
fn cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|task| {
        std::fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e9
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
