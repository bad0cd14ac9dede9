//! Parquet into Lance: every accepted shape, every refusal, nothing half done.

use arrow::array::{ArrayRef, Float64Array, Int64Array, LargeListArray, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{Float16Type, Float32Type, Float64Type};
use parquet::arrow::ArrowWriter;
use polars::prelude::*;
use std::sync::Arc;
use uphill::{IndexKind, IndexOptions, VectorDatabase};

use crate::common::*;

fn write_arrow(path: &std::path::Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(path).expect("a file"), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

fn vectors(rows: usize) -> Vec<Option<Vec<Option<f32>>>> {
    (0..rows).map(|row| Some((0..3).map(|component| Some((row * 3 + component) as f32)).collect())).collect()
}

#[test]
fn embeddings_of_every_list_type_and_width_become_f32() {
    use half::f16;
    let rows = vectors(20);
    let f16s = rows
        .iter()
        .map(|row| row.as_ref().map(|row| row.iter().map(|value| value.map(f16::from_f32)).collect::<Vec<_>>()));
    let f64s = || {
        rows.iter().map(|row| row.as_ref().map(|row| row.iter().map(|value| value.map(f64::from)).collect::<Vec<_>>()))
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("list of f32", Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows.clone()))),
        ("list of f64", Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(f64s()))),
        ("large list of f64", Arc::new(LargeListArray::from_iter_primitive::<Float64Type, _, _>(f64s()))),
        ("list of f16", Arc::new(ListArray::from_iter_primitive::<Float16Type, _, _>(f16s))),
        (
            "fixed-size list of f64",
            Arc::new(arrow::array::FixedSizeListArray::from_iter_primitive::<Float64Type, _, _>(f64s(), 3)),
        ),
    ];
    for (what, column) in columns {
        let folder = folder();
        let (parquet, dataset) = (folder.path().join("items.parquet"), folder.path().join("items.lance"));
        write_arrow(&parquet, vec![("vector", column)]);
        uphill::index(&parquet, &dataset, &IndexOptions::default()).expect(what);
        let items = open(&dataset).take(&[4, 19]).expect(what);
        let matrix = uphill::matrix::<f32>(&items, "embedding").expect(what);
        assert_eq!(matrix.view(), ndarray::arr2(&[[12.0, 13.0, 14.0], [57.0, 58.0, 59.0]]), "{what}");
    }
}

#[test]
fn invalid_embeddings_are_refused_with_counts_and_the_first_place() {
    let folder = folder();
    let mut rows = vectors(30);
    rows[11] = Some(vec![Some(1.0), Some(f32::NAN), Some(0.0)]);
    rows[12] = None;
    rows[13] = Some(vec![Some(1.0), Some(2.0)]);
    rows[14] = Some(vec![Some(1.0), Some(f32::INFINITY), Some(0.0)]);
    rows[15] = Some(vec![Some(1.0), None, Some(0.0)]);
    rows[16] = Some(vec![Some(0.0), Some(0.0), Some(0.0)]);
    let (a, b) = (folder.path().join("a.parquet"), folder.path().join("b.parquet"));
    let list = |rows| Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows)) as ArrayRef;
    let numbers = |from: i64, to: i64| Arc::new(Int64Array::from_iter_values(from..to)) as ArrayRef;
    write_arrow(&a, vec![("vector", list(vectors(10))), ("n", numbers(0, 10))]);
    write_arrow(&b, vec![("vector", list(rows)), ("n", numbers(10, 40))]);
    let dataset = folder.path().join("items.lance");

    let options = IndexOptions { metric: Some(uphill::Metric::Cosine), ..Default::default() };
    let message = uphill::index(folder.path().join("*.parquet"), &dataset, &options).expect_err("refused").to_string();
    let counts = "6 invalid embeddings (2 null, 1 of another length, 1 NaN, 1 infinite, 1 zero)";
    let first = format!("the first is row 11 of {}: component 1 is NaN", b.display());
    assert_eq!(message, format!("items: {counts}; {first}; mend them, or leave them out with --skip-invalid"));
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(left.len(), 2, "something was left behind: {left:?}");

    let options = IndexOptions { skip_invalid: true, ..options };
    let report = uphill::index(folder.path().join("*.parquet"), &dataset, &options).expect("indexed");
    assert_eq!((report.rows, report.invalid.total()), (34, 6));
    let database = open(&dataset);
    let items = database.take(&[20, 21, 33]).expect("items");
    assert_eq!(u64s(&items, "source_row"), [20, 27, 39]);
    let numbers: Vec<i64> = items.column("n").expect("n").i64().expect("i64").into_no_null_iter().collect();
    assert_eq!(numbers, [20, 27, 39]);
}

#[test]
fn files_come_in_the_order_of_their_sorted_paths_and_ids_are_positions() {
    let folder = folder();
    let data = folder.path().join("parts");
    std::fs::create_dir_all(data.join("sub")).expect("a folder");
    let mut rng = rng(1);
    let all = normal(30, 4, &mut rng);
    for (name, rows) in [("b.parquet", 10..20), ("sub/c.parquet", 20..30), ("a.parquet", 0..10)] {
        let rows: Vec<usize> = rows.collect();
        write(&data.join(name), &items(&all.select(ndarray::Axis(0), &rows)));
    }
    std::fs::write(data.join("README.txt"), "not data").expect("written");
    let dataset = folder.path().join("items.lance");
    uphill::index(&data, &dataset, &IndexOptions::default()).expect("indexed");
    let items = open(&dataset).take(&(0..30).collect::<Vec<_>>()).expect("items");
    assert_eq!(uphill::matrix::<f32>(&items, "embedding").expect("vectors").view(), all);
}

#[test]
fn auto_builds_no_index_for_a_few_thousand_rows_then_full_vectors_then_codes_where_the_dimension_allows_them() {
    use uphill::IndexKind::{IvfFlat, IvfRq, None as NoIndex};
    let mut rng = rng(2);
    for (rows, dim, index, partitions) in [
        (19_999, 8, NoIndex, None),
        (20_000, 8, IvfFlat, Some(141)),
        (99_999, 8, IvfFlat, Some(316)),
        (100_000, 8, IvfRq, Some(316)),
        (100_000, 4, IvfFlat, Some(316)),
    ] {
        let folder = folder();
        let parquet = folder.path().join("items.parquet");
        write(&parquet, &items(&normal(rows, dim, &mut rng)));
        let report =
            uphill::index(&parquet, folder.path().join("items.lance"), &IndexOptions::default()).expect("indexed");
        assert_eq!((report.index, report.partitions), (index, partitions), "{rows} x {dim}");
    }
}

#[test]
fn an_index_of_the_same_items_has_the_same_library_id() {
    let mut rng = rng(3);
    let library = normal(60, 4, &mut rng);
    let id_of = |library: &ndarray::Array2<f32>| {
        let folder = folder();
        exact_library(&folder, library).identity().and_then(|identity| identity.library_id.clone()).expect("an id")
    };
    let mut other = library.clone();
    other[[59, 3]] += 1.0;
    assert_eq!(id_of(&library), id_of(&library));
    assert_ne!(id_of(&library), id_of(&other));
}

/// What goes in, and the whole of standard error and the exit code that come out.
#[test]
fn input_that_cannot_be_indexed_gives_one_line_and_the_right_exit_code() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let list = || Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(vectors(5))) as ArrayRef;
    let text = || Arc::new(StringArray::from_iter_values(["a", "b", "c", "d", "e"])) as ArrayRef;
    let numbers = || Arc::new(Float64Array::from_iter_values([1.0, 2.0, 3.0, 4.0, 5.0])) as ArrayRef;
    write_arrow(&at("good.parquet"), vec![("vector", list()), ("name", text())]);
    write_arrow(&at("two.parquet"), vec![("a", list()), ("b", list())]);
    write_arrow(&at("none.parquet"), vec![("name", text())]);
    write_arrow(&at("reserved.parquet"), vec![("vector", list()), ("score", numbers())]);
    std::fs::create_dir(at("mixed")).expect("a folder");
    write_arrow(&at("mixed/a.parquet"), vec![("vector", list()), ("name", text())]);
    write_arrow(&at("mixed/b.parquet"), vec![("vector", list()), ("name", numbers())]);
    std::fs::create_dir(at("empty")).expect("a folder");
    std::fs::write(at("torn.parquet"), &std::fs::read(at("good.parquet")).expect("read")[..300]).expect("written");
    let no_rows = Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(vectors(0))) as ArrayRef;
    write_arrow(&at("no-rows.parquet"), vec![("vector", no_rows)]);
    std::fs::create_dir(at("taken.lance")).expect("a folder");

    let cases: [(&[&str], i32, &str); 15] = [
        (&["absent.parquet", "x.lance"], 1, "absent.parquet: no such file or folder"),
        (&["empty", "x.lance"], 1, "empty: no .parquet files there"),
        (&["no-rows.parquet", "x.lance"], 1, "no-rows.parquet: no rows; an empty library cannot be searched"),
        (&["none.parquet", "x.lance"], 1, "none.parquet: no column is a list of floats (there are: name)"),
        (
            &["two.parquet", "x.lance"],
            2,
            "two.parquet: several columns are lists of floats (a, b); choose one with --embedding-column",
        ),
        (
            &["good.parquet", "x.lance", "--embedding-column", "vec"],
            1,
            "good.parquet: no column `vec` (there are: vector, name)",
        ),
        (
            &["good.parquet", "x.lance", "--embedding-column", "name"],
            1,
            "good.parquet: column `name`: expected a list of floats, found Utf8",
        ),
        (
            &["reserved.parquet", "x.lance"],
            2,
            "column `score` has a name this program uses itself; rename it: --rename score=my_score",
        ),
        (&["good.parquet", "x.lance", "--rename", "nome=title"], 2, "--rename nome: no such column"),
        (
            &["mixed", "x.lance"],
            1,
            "mixed/b.parquet: differs from mixed/a.parquet: column `name` Float64, not `name` Utf8",
        ),
        (
            &["good.parquet", "taken.lance"],
            1,
            "taken.lance: already exists; choose another name, or replace it with --overwrite",
        ),
        (
            &["good.parquet", "taken.lance", "--overwrite"],
            1,
            "taken.lance: is not a Lance dataset, and --overwrite replaces no other; choose another name",
        ),
        (
            &["good.parquet", "x.lance", "--index", "ivf-pq"],
            2,
            "index: ivf-pq learns its codes from at least 256 rows, there are 5; use none",
        ),
        (
            &["good.parquet", "x.lance", "--index", "ivf-rq"],
            2,
            "index: ivf-rq needs a multiple of 8 components, the embeddings have 3; use ivf-sq",
        ),
        (&["good.parquet", "nowhere/x.lance"], 1, "nowhere/x.lance: the folder nowhere does not exist"),
    ];
    for (arguments, code, message) in cases {
        let output = uphill(&[&["index"], arguments].concat(), folder.path());
        assert_eq!(stderr(&output), format!("uphill: {message}\n"), "{arguments:?}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(!at("x.lance").exists() && !at(".x.lance.partial").exists(), "{arguments:?} left something behind");
    }
    let output = uphill(&["index", "torn.parquet", "x.lance"], folder.path());
    assert!(stderr(&output).starts_with("uphill: torn.parquet: cannot read it as Parquet: "), "{}", stderr(&output));
    assert_eq!(stderr(&output).lines().count(), 1);
    let output = uphill(&["index", "good.parquet", "x.lance", "--metric", "manhattan"], folder.path());
    assert_eq!(output.status.code(), Some(2));

    // What was refused works once mended.
    uphill_ok(&["index", "reserved.parquet", "x.lance", "--rename", "score=docking"], folder.path());
    uphill_ok(&["index", "good.parquet", "x.lance", "--overwrite", "--index", "none"], folder.path());
    let names = open(&at("x.lance")).column_names().to_vec();
    assert_eq!(names, ["name"]);
}

#[test]
fn an_index_that_was_killed_leaves_nothing_under_the_name_and_the_next_one_clears_up() {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(60_000, 64, 50, &mut rng(4))));
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_uphill"))
        .args(["index", "items.parquet", "items.lance"])
        .current_dir(folder.path())
        .spawn()
        .expect("the binary runs");
    let partial = folder.path().join(".items.lance.partial/dataset.lance");
    while !partial.exists() && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().expect("killed");
    child.wait().expect("reaped");
    assert!(partial.exists() && !folder.path().join("items.lance").exists());

    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    assert_eq!(open(&folder.path().join("items.lance")).len(), 60_000);
    assert!(!folder.path().join(".items.lance.partial").exists());
}

#[test]
fn a_second_index_of_the_same_name_is_told_to_wait() {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&normal(10, 4, &mut rng(5))));
    let partial = folder.path().join(".items.lance.partial");
    std::fs::create_dir(&partial).expect("a folder");
    let lock = std::fs::File::create(partial.join("lock")).expect("a file");
    lock.lock().expect("locked");
    let output = uphill(&["index", "items.parquet", "items.lance"], folder.path());
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(stderr(&output), "uphill: items.lance: in use by another process; wait for it to end, or stop it\n");
    drop(lock);
    uphill_ok(&["index", "items.parquet", "items.lance", "--index", "none"], folder.path());
}

#[test]
fn odd_attribute_types_come_through_unchanged() {
    let folder = folder();
    let frame = df!(
        "flag" => [Some(true), None, Some(false)],
        "small" => [1i8, -2, 3],
        "text with spaces" => ["a", "é", "x\ny"],
    )
    .expect("a frame");
    let mut frame = frame;
    let vectors = normal(3, 4, &mut rng(6));
    frame.with_column(uphill::embedding_column(vectors.view()).expect("a column")).expect("a column");
    let days = Column::new("day".into(), [0i32, 1, 20000]).cast(&DataType::Date).expect("dates");
    frame.with_column(days).expect("a column");
    write(&folder.path().join("items.parquet"), &frame);
    let dataset = folder.path().join("items.lance");
    uphill::index(
        folder.path().join("items.parquet"),
        &dataset,
        &IndexOptions { index: IndexKind::None, ..Default::default() },
    )
    .expect("indexed");
    let items = open(&dataset).take(&[0, 1, 2]).expect("items");
    for name in ["flag", "small", "text with spaces", "day"] {
        assert!(items.column(name).expect(name).equals_missing(frame.column(name).expect(name)), "{name}: {items}");
    }
}
