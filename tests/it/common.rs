//! Small libraries, the binary, and a seed that is printed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ndarray::Array2;
use polars::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use uphill::{IndexKind, IndexOptions, LanceDatabase};

pub use tempfile::TempDir;

pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A generator whose seed shows in the output of a failing test.
pub fn rng(seed: u64) -> ChaCha8Rng {
    println!("seed {seed}");
    ChaCha8Rng::seed_from_u64(seed)
}

/// A seed that is another one each time, for tests that run long.
pub fn fresh_seed() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos() as u64
}

pub fn normal(rows: usize, dim: usize, rng: &mut ChaCha8Rng) -> Array2<f32> {
    Array2::from_shape_simple_fn((rows, dim), || StandardNormal.sample(rng))
}

/// Points around `clusters` centres, as embeddings of real things are.
pub fn clustered(rows: usize, dim: usize, clusters: usize, rng: &mut ChaCha8Rng) -> Array2<f32> {
    let centres = normal(clusters, dim, rng) * 4.0;
    let mut points = normal(rows, dim, rng);
    for (row, mut point) in points.rows_mut().into_iter().enumerate() {
        point += &centres.row(row % clusters);
    }
    points
}

/// Items with attributes `name` and `weight`.
pub fn items(embeddings: &Array2<f32>) -> DataFrame {
    let rows = embeddings.nrows();
    let names: Vec<String> = (0..rows).map(|row| format!("item {row}")).collect();
    let weights: Vec<f64> = (0..rows).map(|row| (row * 37 % 100) as f64 / 100.0).collect();
    let columns = vec![
        Column::new("name".into(), names),
        uphill::embedding_column(embeddings.view()).expect("an embedding column"),
        Column::new("weight".into(), weights),
    ];
    DataFrame::new(rows, columns).expect("items")
}

pub fn write(path: &Path, frame: &DataFrame) {
    let file = std::fs::File::create(path).expect("a file");
    ParquetWriter::new(file).finish(&mut frame.clone()).expect("Parquet");
}

pub fn read(path: &Path) -> DataFrame {
    ParquetReader::new(std::fs::File::open(path).expect("a file")).finish().expect("Parquet")
}

/// Builds a dataset in the folder.
pub fn dataset(folder: &TempDir, embeddings: &Array2<f32>, options: &IndexOptions) -> PathBuf {
    let parquet = folder.path().join("items.parquet");
    write(&parquet, &items(embeddings));
    let dataset = folder.path().join("items.lance");
    uphill::index(&parquet, &dataset, options).expect("an index");
    dataset
}

/// A library without an index, so that searches are exact.
pub fn exact_library(folder: &TempDir, embeddings: &Array2<f32>) -> LanceDatabase {
    let options = IndexOptions::new().index(IndexKind::None);
    open(&dataset(folder, embeddings, &options))
}

pub fn open(dataset: &Path) -> LanceDatabase {
    LanceDatabase::open(dataset.to_string_lossy()).expect("a dataset")
}

/// Runs the binary.
pub fn uphill(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_uphill")).args(arguments).current_dir(folder).output().expect("the binary runs")
}

/// Runs the binary, which must succeed; gives its standard output.
pub fn uphill_ok(arguments: &[&str], folder: &Path) -> String {
    let output = uphill(arguments, folder);
    assert!(output.status.success(), "uphill {arguments:?} failed: {}", stderr(&output));
    String::from_utf8(output.stdout).expect("text")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn u64s(frame: &DataFrame, name: &str) -> Vec<u64> {
    frame.column(name).expect(name).u64().expect("u64").into_no_null_iter().collect()
}

pub fn u32s(frame: &DataFrame, name: &str) -> Vec<u32> {
    frame.column(name).expect(name).u32().expect("u32").into_no_null_iter().collect()
}

pub fn f64s(frame: &DataFrame, name: &str) -> Vec<f64> {
    frame.column(name).expect(name).f64().expect("f64").into_no_null_iter().collect()
}

pub fn f32s(frame: &DataFrame, name: &str) -> Vec<f32> {
    frame.column(name).expect(name).f32().expect("f32").into_no_null_iter().collect()
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn names(frame: &DataFrame) -> Vec<&str> {
    frame.columns().iter().map(|column| column.name().as_str()).collect()
}

/// Copies a folder with all that is in it.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

/// Gives items other embeddings by Lance itself, as the owner of a library would: their ids stay.
pub fn update(dataset: &Path, frame: &DataFrame) {
    use lance::dataset::{MergeInsertBuilder, WhenMatched, WhenNotMatched};
    let batch = uphill::to_arrow(frame).expect("a batch");
    let uri = dataset.to_string_lossy().into_owned();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let dataset = std::sync::Arc::new(lance::Dataset::open(&uri).await.expect("opened"));
        let schema = arrow::datatypes::Schema::from(dataset.schema());
        let cast = |field: &std::sync::Arc<arrow::datatypes::Field>| {
            arrow::compute::cast(batch.column_by_name(field.name()).expect("a column"), field.data_type())
                .expect("cast")
        };
        let columns = schema.fields().iter().map(cast).collect();
        let batch = arrow::array::RecordBatch::try_new(schema.into(), columns).expect("a batch");
        let schema = batch.schema();
        let mut job = MergeInsertBuilder::try_new(dataset, vec!["name".into()]).expect("a merge");
        job.when_matched(WhenMatched::UpdateAll).when_not_matched(WhenNotMatched::DoNothing);
        let reader = arrow::array::RecordBatchIterator::new([Ok(batch)], schema);
        job.try_build().expect("a merge").execute_reader(reader).await.expect("merged");
    });
}
