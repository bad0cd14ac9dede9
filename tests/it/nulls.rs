//! Datasets that others made, some of whose rows have no embedding: such rows are no items.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float64Array, RecordBatch, RecordBatchIterator, UInt64Array};
use arrow::datatypes::Float32Type;
use lance::Dataset;
use lance::dataset::{WriteMode, WriteParams};
use lance::index::DatasetIndexExt;
use lance::index::vector::VectorIndexParams;
use lance_index::IndexType;
use lance_linalg::distance::MetricType;
use ndarray::Array2;
use polars::prelude::DataFrame;
use uphill::{LanceDatabase, OpenOptions, QueryOptions, VectorDatabase};

use crate::common::*;

/// Rows of a dataset: `key` (1000 + row), `weight`, `vector`, which `has` says of a row whether it has.
fn batch(vectors: &Array2<f32>, from: usize, has: impl Fn(usize) -> bool) -> RecordBatch {
    let rows = vectors.rows().into_iter().enumerate().map(|(at, vector)| {
        has(from + at).then(|| vector.iter().map(|component| Some(*component)).collect::<Vec<_>>())
    });
    let list = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(rows, vectors.ncols() as i32);
    let numbers = from..from + vectors.nrows();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("key", Arc::new(UInt64Array::from_iter_values(numbers.clone().map(|row| 1000 + row as u64)))),
        ("weight", Arc::new(Float64Array::from_iter_values(numbers.map(|row| (row % 100) as f64 / 100.0)))),
        ("vector", Arc::new(list)),
    ];
    RecordBatch::try_from_iter(columns).expect("a batch")
}

struct Theirs {
    folder: TempDir,
    vectors: Array2<f32>,
}

const ROWS: usize = 900;

/// Every fifth row has no embedding, and none of the rows from 700 to 799.
fn has(row: usize) -> bool {
    !row.is_multiple_of(5) && !(700..800).contains(&row)
}

impl Theirs {
    /// A dataset of two fragments, the second after the index, if there is to be one.
    fn write(index: bool, has: impl Fn(usize) -> bool + Copy) -> Self {
        let theirs = Theirs { folder: folder(), vectors: clustered(ROWS, 8, 9, &mut rng(21)) };
        let uri = theirs.path().to_string_lossy().into_owned();
        let batches = [0..600, 600..ROWS].map(|rows| {
            let vectors = theirs.vectors.slice(ndarray::s![rows.clone(), ..]).to_owned();
            batch(&vectors, rows.start, has)
        });
        tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
            for (number, batch) in batches.into_iter().enumerate() {
                let mode = if number == 0 { WriteMode::Create } else { WriteMode::Append };
                let params = WriteParams { mode, enable_stable_row_ids: true, ..Default::default() };
                let schema = batch.schema();
                let reader = RecordBatchIterator::new([Ok(batch)], schema);
                let mut dataset = Dataset::write(reader, uri.as_str(), Some(params)).await.expect("written");
                if index && number == 0 {
                    let params = VectorIndexParams::ivf_flat(6, MetricType::L2);
                    dataset.create_index(&["vector"], IndexType::Vector, None, &params, true).await.expect("indexed");
                }
            }
        });
        theirs
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("theirs.lance")
    }

    fn open(&self) -> LanceDatabase {
        open(&self.path())
    }
}

fn items_there() -> Vec<u64> {
    (0..ROWS).filter(|row| has(*row)).map(|row| row as u64).collect()
}

fn queries_of(vectors: &Array2<f32>) -> DataFrame {
    uphill::queries(vectors.slice(ndarray::s![..20, ..]).mapv(f64::from).view()).expect("queries")
}

/// The ids that a query met, in ascending order.
fn met(results: &DataFrame, query: u32) -> Vec<u64> {
    let rows = u32s(results, "query_idx").into_iter().zip(u64s(results, "db_idx"));
    let mut met: Vec<u64> = rows.filter(|(of, _)| *of == query).map(|(_, id)| id).collect();
    met.sort();
    met
}

#[test]
fn rows_without_an_embedding_are_never_counted_sampled_or_found() {
    let there = items_there();
    for index in [false, true] {
        let theirs = Theirs::write(index, has);
        let database = theirs.open().k(ROWS);
        let identity = database.identity().expect("an identity");
        assert_eq!((identity.rows, identity.without_embedding), (there.len() as u64, (ROWS - there.len()) as u64));
        assert_eq!((database.len(), database.uses_index()), (there.len() as u64, index));
        assert_eq!(database.sample(ROWS, &mut uphill::random_stream(1, "sample", 0, 0)).expect("a sample"), there);
        let mut seen = Vec::new();
        let mut visit = |ids: &[u64], items: ndarray::ArrayView2<'_, f32>| {
            for (id, item) in ids.iter().zip(items.rows()) {
                assert_eq!(item, theirs.vectors.row(*id as usize));
                seen.push(*id);
            }
            Ok(())
        };
        database.scan(&mut visit).expect("a scan");
        seen.sort();
        assert_eq!(seen, there);

        // All of them, though more are asked for; and few, through the index and beside it.
        let queries = queries_of(&theirs.vectors);
        let results = database.query(&queries, QueryOptions::default()).expect("results");
        (0..20).for_each(|query| assert_eq!(met(&results, query), there));
        let few = database.clone().k(10).nprobes(6).query(&queries, QueryOptions::default()).expect("results");
        let exact = database.clone().k(10).exact(true).query(&queries, QueryOptions::default()).expect("results");
        assert_eq!(few.height(), 200);
        assert!(few.equals(&exact), "{few} is not {exact}");

        let some = database.clone().prefilter("weight < 0.3 -- a comment");
        let light: Vec<u64> = there.iter().copied().filter(|row| row % 100 < 30).collect();
        assert_eq!(some.sample(ROWS, &mut uphill::random_stream(1, "sample", 0, 0)).expect("a sample"), light);
        let results = some.query(&queries, QueryOptions::default()).expect("results");
        (0..20).for_each(|query| assert_eq!(met(&results, query), light));
        let few = some.clone().k(10).nprobes(6).query(&queries, QueryOptions::default()).expect("results");
        let exact = some.k(10).exact(true).query(&queries, QueryOptions::default()).expect("results");
        assert!(few.height() == 200 && few.equals(&exact), "{few} is not {exact}");

        let error = database.take(&[1, 705]).expect_err("no item").to_string();
        assert!(error.ends_with("theirs.lance: row id 705 has no embedding, so it is not an item"), "{error}");
    }
}

#[test]
fn ids_of_a_column_are_those_of_rows_with_an_embedding() {
    let theirs = Theirs::write(true, has);
    let options = OpenOptions::new().id_column("key");
    let database = LanceDatabase::open_with(theirs.path().to_string_lossy(), &options).expect("opened").k(ROWS);
    let keys: Vec<u64> = items_there().iter().map(|row| 1000 + row).collect();
    assert_eq!(database.sample(ROWS, &mut uphill::random_stream(1, "sample", 0, 0)).expect("a sample"), keys);
    let results = database.query(&queries_of(&theirs.vectors), QueryOptions::default()).expect("results");
    assert_eq!(met(&results, 3), keys);
    assert!(database.take(&[1705]).is_err());
    assert_eq!(u64s(&database.take(&[1001]).expect("an item"), "db_idx"), [1001]);
}

fn run_file(folder: &Path) {
    let text = "[database]\npath = \"theirs.lance\"\n[score]\nsql = \"weight\"\n[stop]\nevaluations = 1000\n";
    std::fs::write(folder.join("run.toml"), text).expect("written");
}

#[test]
fn a_search_finds_every_item_and_inspect_shows_the_number_of_rows_without_an_embedding() {
    let there = items_there();
    let theirs = Theirs::write(true, has);
    let folder = theirs.folder.path();
    run_file(folder);
    let shown: serde_json::Value =
        serde_json::from_str(&uphill_ok(&["inspect", "theirs.lance", "--json"], folder)).expect("JSON");
    assert_eq!(shown["rows"].as_u64(), Some(there.len() as u64));
    assert_eq!(shown["rows without an embedding"].as_u64(), Some((ROWS - there.len()) as u64));
    uphill_ok(&["search", "run.toml", "--out", "run"], folder);
    uphill_ok(&["results", "run", "-o", "results.parquet"], folder);
    let results = read(&folder.join("results.parquet"));
    let mut found = u64s(&results, "db_idx");
    found.sort();
    assert!(found.iter().all(|id| there.binary_search(id).is_ok()), "{found:?}");

    // The file has all rows; the library, whose hundredth part is the budget, has the items.
    let truth = uphill::to_polars(&batch(&theirs.vectors, 0, has)).expect("a frame");
    write(&folder.join("truth.parquet"), &truth.select(["key", "weight"]).expect("columns"));
    let evaluated = ["evaluate", "run", "--truth", "truth.parquet", "--score-column", "weight", "--format", "json"];
    let printed = uphill_ok(&evaluated, folder);
    let rows: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(rows[2]["budget"].as_u64(), Some((there.len() as f64 * 0.05).round() as u64), "{printed}");
}

#[test]
fn a_search_of_a_dataset_without_embeddings_reports_that_it_has_no_items() {
    let theirs = Theirs::write(false, |_| false);
    let database = theirs.open();
    assert!(database.is_empty());
    assert_eq!(database.sample(5, &mut uphill::random_stream(1, "sample", 0, 0)).expect("a sample"), Vec::<u64>::new());
    let results = database.query(&queries_of(&theirs.vectors), QueryOptions::default()).expect("results");
    assert_eq!(results.height(), 0);
    run_file(theirs.folder.path());
    let output = uphill(&["search", "run.toml", "--out", "run"], theirs.folder.path());
    let said = "uphill: ./theirs.lance: has no row with an embedding; there is nothing to search\n";
    assert_eq!((stderr(&output).as_str(), output.status.code()), (said, Some(1)));
    assert!(!theirs.folder.path().join("run").exists());
}

/// A run of a version that took all rows for items.
#[test]
fn a_run_that_counted_all_rows_reads_the_same_dataset() {
    let theirs = Theirs::write(true, has);
    let database = theirs.open();
    let now = database.identity().expect("an identity").clone();
    let mut then = serde_json::to_value(&now).expect("JSON");
    then.as_object_mut().expect("an object").remove("without_embedding");
    then["rows"] = ROWS.into();
    let then: uphill::DatasetIdentity = serde_json::from_value(then).expect("an identity");
    assert_eq!(then.differences(&now), Vec::<String>::new());
    let other = uphill::DatasetIdentity { rows: now.rows + 1, ..now.clone() };
    assert_eq!(other.differences(&now), [format!("rows was {}, is {ROWS}", ROWS + 1)]);
}
