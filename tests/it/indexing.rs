//! Parquet into Lance: every accepted shape, every refusal, nothing half done.

use arrow::array::{ArrayRef, Float64Array, Int64Array, LargeListArray, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{Float16Type, Float32Type, Float64Type, UInt8Type};
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
fn a_table_in_memory_gives_the_same_library_as_its_file() {
    let folder = folder();
    let mut rows = vectors(20_000);
    (rows[0], rows[9000]) = (None, Some(vec![Some(1.0)]));
    let wide =
        rows.iter().map(|row| row.as_ref().map(|row| row.iter().map(|value| value.map(f64::from)).collect::<Vec<_>>()));
    let vectors: ArrayRef = Arc::new(LargeListArray::from_iter_primitive::<Float64Type, _, _>(wide));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..20_000));
    let parquet = folder.path().join("items.parquet");
    write_arrow(&parquet, vec![("number", numbers.clone()), ("vector", vectors.clone())]);
    let table = RecordBatch::try_from_iter([("number", numbers), ("vector", vectors)]).expect("a batch");
    // Batches that are none, small, large, and begin within another.
    let batches = [(0, 0), (0, 5), (5, 12_000), (12_005, 7995)].map(|(from, rows)| Ok(table.slice(from, rows)));

    let options = IndexOptions::new().skip_invalid(true);
    let (of_file, of_table) = (folder.path().join("file.lance"), folder.path().join("table.lance"));
    let expected = uphill::index(&parquet, &of_file, &options).expect("indexed");
    let batches = arrow::array::RecordBatchIterator::new(batches, table.schema());
    let report = uphill::index_table(batches, &of_table, &options).expect("indexed");
    assert_eq!((report.rows, report.invalid.counts), (expected.rows, expected.invalid.counts));
    let (_, row, what) = report.invalid.first.expect("the first");
    assert_eq!((row, what.as_str()), (0, "null"));
    let (one, other) = (open(&of_file), open(&of_table));
    assert_eq!(one.identity().map(|one| &one.library_id), other.identity().map(|other| &other.library_id));
    let all: Vec<u64> = (0..19_998).collect();
    assert!(one.take(&all).expect("items").equals_missing(&other.take(&all).expect("items")));

    let broken = [Ok(table.slice(0, 10)), Err(arrow::error::ArrowError::ComputeError("no more".into()))];
    let broken = arrow::array::RecordBatchIterator::new(broken, table.schema());
    let message =
        uphill::index_table(broken, folder.path().join("x.lance"), &options).expect_err("refused").to_string();
    assert!(message.starts_with("table: ") && message.ends_with("no more"), "{message}");
    assert!(!folder.path().join("x.lance").exists());
}

#[test]
fn invalid_embeddings_are_rejected_with_counts_and_the_position_of_the_first() {
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

    let options = IndexOptions::new().metric(uphill::Metric::Cosine);
    let message = uphill::index(folder.path().join("*.parquet"), &dataset, &options).expect_err("refused").to_string();
    let counts = "6 invalid embeddings (2 null, 1 of another length, 1 NaN, 1 infinite, 1 zero)";
    let first = format!("the first is row 11 of {}: component 1 is NaN", b.display());
    assert_eq!(message, format!("items: {counts}; {first}; fix them, or drop them with --skip-invalid"));
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(left.len(), 2, "something was left behind: {left:?}");

    let options = options.skip_invalid(true);
    let report = uphill::index(folder.path().join("*.parquet"), &dataset, &options).expect("indexed");
    assert_eq!((report.rows, report.invalid.total()), (34, 6));
    let database = open(&dataset);
    let items = database.take(&[20, 21, 33]).expect("items");
    assert_eq!(u64s(&items, "source_row"), [20, 27, 39]);
    let numbers: Vec<i64> = items.column("n").expect("n").i64().expect("i64").into_no_null_iter().collect();
    assert_eq!(numbers, [20, 27, 39]);
}

#[test]
fn embeddings_whose_distances_overflow_or_vanish_are_rejected() {
    let folder = folder();
    let file = folder.path().join("items.parquet");
    for (metric, scale, squared) in [
        (uphill::Metric::L2, 1e19, "3.0e38"),
        (uphill::Metric::Dot, 1e22, "3.0e44"),
        (uphill::Metric::Cosine, 1e-22, "3.0e-44"),
        (uphill::Metric::L2, 1e-25, "3.0e-50"),
    ] {
        let mut rows = vectors(10);
        rows[4] = Some(vec![Some(scale); 3]);
        let list = Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows)) as ArrayRef;
        write_arrow(&file, vec![("vector", list)]);
        let options = IndexOptions::new().metric(metric);
        let message = uphill::index(&file, folder.path().join("items.lance"), &options).expect_err("refused");
        let expected = format!("1 invalid embeddings (1 out of range); the first is row 4 of {}", file.display());
        let message = message.to_string();
        assert!(message.contains(&expected) && message.contains(squared), "{message}");
    }
}

#[test]
fn files_are_read_in_the_order_of_their_sorted_paths_and_ids_are_positions() {
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

/// The library id of a dataset built of Parquet files with these frames in row groups of so many rows.
fn library_id(frames: &[DataFrame], group: usize, options: &IndexOptions) -> String {
    let folder = folder();
    for (number, frame) in frames.iter().enumerate() {
        let file = std::fs::File::create(folder.path().join(format!("{number}.parquet"))).expect("a file");
        let writer = ParquetWriter::new(file).with_row_group_size(Some(group));
        writer.finish(&mut frame.clone()).expect("Parquet");
    }
    let dataset = folder.path().join("items.lance");
    uphill::index(folder.path().join("*.parquet"), &dataset, options).expect("indexed");
    open(&dataset).identity().and_then(|identity| identity.library_id.clone()).expect("an id")
}

#[test]
fn the_library_id_depends_on_the_names_types_values_and_order_of_all_columns_and_on_nothing_else() {
    let vectors = ndarray::Array2::from_shape_fn((50, 3), |(row, component)| (row * 3 + component) as f32);
    let frame = items(&vectors);
    let options = IndexOptions::default();
    let id_of = |frame: &DataFrame| library_id(std::slice::from_ref(frame), 1000, &options);
    let id = id_of(&frame);
    // A later version must give the same, or paid scores are not found again.
    assert_eq!(id, "4a00f7ccce6616cf2a253bb5152dfe0b");

    assert_eq!(library_id(std::slice::from_ref(&frame), 7, &options), id, "row groups");
    let parts = [frame.slice(0, 1), frame.slice(1, 30), frame.slice(31, 19)];
    assert_eq!(library_id(&parts, 5, &options), id, "files");

    let with = |column: Column| {
        let mut other = frame.clone();
        other.with_column(column).expect("a column");
        other
    };
    let weight = |change: &dyn Fn(usize, f64) -> Option<f64>| {
        let weights = f64s(&frame, "weight").into_iter().enumerate().map(|(row, weight)| change(row, weight));
        with(Column::new("weight".into(), weights.collect::<Vec<_>>()))
    };
    let turned: Vec<f64> = f64s(&frame, "weight").into_iter().rev().collect();
    let names = |last: &str, last_but_one: &str| {
        let mut names: Vec<String> = (0..50).map(|row| format!("item {row}")).collect();
        (names[48], names[49]) = (last_but_one.into(), last.into());
        with(Column::new("name".into(), names))
    };
    let mut seen = vec![id];
    let changed = [
        ("a value", weight(&|row, weight| Some(if row == 49 { 9.0 } else { weight }))),
        ("a null", weight(&|row, weight| (row != 0).then_some(weight))),
        ("a zero for the null", weight(&|row, weight| Some(if row == 0 { -0.0 } else { weight }))),
        ("the order of an attribute", with(Column::new("weight".into(), turned))),
        ("a type", with(frame.column("weight").expect("weight").cast(&DataType::Float32).expect("cast"))),
        ("where a text ends", names("49", "item 48item ")),
        ("where another ends", names("9", "item 48item 4")),
        ("no column", frame.drop("weight").expect("dropped")),
        ("the order of columns", frame.select(["weight", "embedding", "name"]).expect("columns")),
    ];
    for (what, frame) in changed {
        let other = id_of(&frame);
        assert!(!seen.contains(&other), "{what}");
        seen.push(other);
    }
    let renamed = IndexOptions::new().rename("weight", "mass");
    assert!(!seen.contains(&library_id(std::slice::from_ref(&frame), 1000, &renamed)), "a name");
}

/// A column of each type, whose last value is `last`.
fn columns_of_every_type(last: i64) -> Vec<(String, ArrayRef)> {
    use arrow::array::{
        FixedSizeBinaryArray, FixedSizeListArray, Int32Builder, ListBuilder, MapBuilder, StringBuilder, StructArray,
    };
    use arrow::datatypes::{DataType as Type, Field, Int32Type, TimeUnit};
    let values = [Some(0), None, Some(1), Some(last)];
    let numbers: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    let cast = |array: &ArrayRef, dtype: &Type| arrow::compute::cast(array, dtype).expect("cast");
    let texts = cast(&numbers, &Type::Utf8);
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    let small = cast(&numbers, &Type::Int32);
    for (array, dtypes) in [
        (&numbers, &[Type::Int8, Type::Int16, Type::Int32, Type::Int64, Type::UInt8, Type::UInt16][..]),
        (&numbers, &[Type::UInt32, Type::UInt64, Type::Float16, Type::Float32, Type::Float64, Type::Boolean]),
        (&small, &[Type::Date32, Type::Time32(TimeUnit::Second), Type::Time32(TimeUnit::Millisecond)]),
        (&numbers, &[Type::Date64, Type::Time64(TimeUnit::Microsecond), Type::Time64(TimeUnit::Nanosecond)]),
        (&numbers, &[Type::Duration(TimeUnit::Millisecond), Type::Timestamp(TimeUnit::Microsecond, None)]),
        (&numbers, &[Type::Timestamp(TimeUnit::Millisecond, Some("Europe/Berlin".into()))]),
        (&numbers, &[Type::Decimal128(20, 3), Type::Decimal256(38, 3)]),
        (&texts, &[Type::Utf8, Type::LargeUtf8, Type::Utf8View, Type::Binary, Type::LargeBinary, Type::BinaryView]),
        (&texts, &[Type::Dictionary(Type::Int32.into(), Type::Utf8.into())]),
    ] {
        columns.extend(dtypes.iter().map(|dtype| (dtype.to_string(), cast(array, dtype))));
    }
    let bytes = values.map(|value| value.map(|value| [7, value as u8]));
    let bytes = FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes.into_iter(), 2).expect("bytes");
    let pairs = values.map(|value| value.map(|value| vec![None, Some(value as i32)]));
    let pairs = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(pairs, 2);
    columns.extend([("bytes".into(), Arc::new(bytes) as ArrayRef), ("pairs".into(), Arc::new(pairs) as ArrayRef)]);
    let rows = values.map(|value| value.map(|value| vec![Some(5), None, Some(value as i32)]));
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows));
    let large = cast(&list, &Type::LargeList(Arc::new(Field::new("item", Type::Int32, true))));
    let (mut maps, mut lists) = (
        MapBuilder::new(None, StringBuilder::new(), Int32Builder::new()),
        ListBuilder::new(MapBuilder::new(None, StringBuilder::new(), Int32Builder::new())),
    );
    for value in values {
        for map in [&mut maps, lists.values()] {
            map.keys().append_value("key");
            map.values().append_option(value.map(|value| value as i32));
            map.append(value.is_some()).expect("a map");
        }
        lists.append(true);
    }
    let maps: ArrayRef = Arc::new(maps.finish());
    let members: Vec<(Arc<Field>, ArrayRef)> = [("list", &list), ("map", &maps), ("text", &texts)]
        .map(|(name, array)| (Arc::new(Field::new(name, array.data_type().clone(), true)), array.clone()))
        .to_vec();
    columns.extend([
        ("list".into(), list),
        ("large list".into(), large),
        ("struct".into(), Arc::new(StructArray::from(members)) as ArrayRef),
        ("map".into(), maps),
        ("list of maps".into(), Arc::new(lists.finish()) as ArrayRef),
    ]);
    columns
}

#[test]
fn the_library_id_depends_on_columns_of_every_accepted_type() {
    let id_of = |column: &ArrayRef| {
        let folder = folder();
        let (parquet, dataset) = (folder.path().join("items.parquet"), folder.path().join("items.lance"));
        let list = Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(vectors(4))) as ArrayRef;
        write_arrow(&parquet, vec![("vector", list), ("value", column.clone())]);
        uphill::index(&parquet, &dataset, &IndexOptions::default())
            .map(|_| open(&dataset).identity().and_then(|identity| identity.library_id.clone()).expect("an id"))
    };
    for ((what, one), (_, other)) in columns_of_every_type(2).into_iter().zip(columns_of_every_type(0)) {
        let ids = [&one, &one, &other].map(|column| id_of(column).unwrap_or_else(|error| panic!("{what}: {error}")));
        assert_eq!(ids[0], ids[1], "{what}");
        assert_ne!(ids[0], ids[2], "{what}");
    }
    // Whoever wrote the file chose the width of offsets.
    let ids = |wanted: &[&str]| -> Vec<String> {
        let columns = columns_of_every_type(2).into_iter().filter(|(what, _)| wanted.contains(&what.as_str()));
        columns.map(|(_, column)| id_of(&column).expect("indexed")).collect()
    };
    for same in
        [&["Utf8", "LargeUtf8", "Utf8View"][..], &["Binary", "LargeBinary", "BinaryView"], &["list", "large list"]]
    {
        let ids = ids(same);
        assert!(ids.len() == same.len() && ids.iter().all(|id| *id == ids[0]), "{same:?}: {ids:?}");
    }
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

    let cases: [(&[&str], i32, &str); 17] = [
        (&["absent.parquet", "x.lance"], 1, "absent.parquet: no such file or folder"),
        (&["empty", "x.lance"], 1, "empty: contains no .parquet files"),
        (&["no-rows.parquet", "x.lance"], 1, "no-rows.parquet: no rows; an empty library cannot be searched"),
        (&["none.parquet", "x.lance"], 1, "none.parquet: no column has lists of numbers (there are: name)"),
        (
            &["two.parquet", "x.lance"],
            2,
            "two.parquet: several columns have lists of numbers (a, b); choose one with --embedding-column",
        ),
        (
            &["good.parquet", "x.lance", "--embedding-column", "vec"],
            1,
            "good.parquet: no column `vec`; did you mean `vector`?",
        ),
        (
            &["good.parquet", "x.lance", "--embedding-column", "name"],
            1,
            "good.parquet: column `name`: expected lists of numbers, found Utf8; it is text; convert it to lists with Polars: \
             pl.col(\"name\").str.json_decode(pl.List(pl.Float32)) for text such as \"[0.5, 0.25]\", or \
             pl.col(\"name\").str.decode(\"base64\").bin.reinterpret(dtype=pl.Array(pl.Float32, N)) for base64 of N components",
        ),
        (&["reserved.parquet", "x.lance"], 2, "column `score` has a reserved name; rename it: --rename score=my_score"),
        (&["good.parquet", "x.lance", "--rename", "nome=title"], 2, "--rename: no column `nome`; did you mean `name`?"),
        (
            &["good.parquet", "x.lance", "--rename", "name=title", "--rename", "name=label"],
            2,
            "--rename: `name` is renamed twice, to `title` and to `label`",
        ),
        (
            &["good.parquet", "x.lance", "--rename", "vector=fingerprint"],
            2,
            "--rename: `vector` contains the embeddings, which are named `embedding` in every dataset; remove the option",
        ),
        (&["mixed", "x.lance"], 1, "mixed/b.parquet: differs from mixed/a.parquet: column `name` is Float64, not Utf8"),
        (
            &["good.parquet", "taken.lance"],
            1,
            "taken.lance: already exists; choose another name, or replace it with --overwrite",
        ),
        (
            &["good.parquet", "taken.lance", "--overwrite"],
            1,
            "taken.lance: is not a Lance dataset, and --overwrite replaces only Lance datasets; choose another name",
        ),
        (
            &["good.parquet", "x.lance", "--index", "ivf-pq"],
            2,
            "index: ivf-pq needs at least 256 rows to train its codes, found 5; use none",
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
fn files_with_columns_in_another_order_are_one_library() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("items")).expect("a folder");
    let all = items(&normal(30, 4, &mut rng(3)));
    let turned = all.select(["weight", "embedding", "name"]).expect("selected");
    write(&folder.path().join("items/a.parquet"), &all.slice(0, 20));
    write(&folder.path().join("items/b.parquet"), &turned.slice(20, 10));
    uphill_ok(&["index", "items", "items.lance"], folder.path());
    let found = open(&folder.path().join("items.lance")).take(&(0..30).collect::<Vec<_>>()).expect("items");
    for name in ["name", "weight"] {
        assert!(found.column(name).expect("found").equals(all.column(name).expect("given")), "{name}");
    }
    let vectors = |frame: &DataFrame| uphill::matrix::<f32>(frame, "embedding").expect("vectors").view().to_owned();
    assert_eq!(vectors(&found), vectors(&all));
}

#[test]
fn lists_of_integers_are_embeddings_if_no_list_has_floats() {
    let folder = folder();
    let bits: Vec<Option<Vec<Option<u8>>>> =
        (0..20).map(|row| Some((0..8).map(|bit| Some(((row * 37) >> bit & 1) as u8)).collect())).collect();
    let bits = Arc::new(ListArray::from_iter_primitive::<UInt8Type, _, _>(bits)) as ArrayRef;
    let names = Arc::new((0..20).map(|row| Some(format!("item {row}"))).collect::<StringArray>()) as ArrayRef;
    write_arrow(&folder.path().join("bits.parquet"), vec![("fingerprint", bits), ("name", names)]);
    uphill_ok(&["index", "bits.parquet", "bits.lance", "--skip-invalid"], folder.path());
    let database = open(&folder.path().join("bits.lance"));
    let first = database.take(&[3]).expect("an item");
    let vector = uphill::matrix::<f32>(&first, "embedding").expect("a vector");
    let row = u64s(&first, "source_row")[0];
    let expected: Vec<f32> = (0..8).map(|bit| ((row * 37) >> bit & 1) as f32).collect();
    assert_eq!(vector.view().row(0).to_vec(), expected);
}

#[test]
fn reserved_names_are_rejected_whatever_their_case() {
    let folder = folder();
    for name in ["Score", "DB_IDX", "Outcome"] {
        let mut frame = items(&normal(5, 3, &mut rng(4)));
        frame.rename("weight", name.into()).expect("renamed");
        write(&folder.path().join("items.parquet"), &frame);
        let output = uphill(&["index", "items.parquet", "items.lance"], folder.path());
        let message = format!("column `{name}` has a reserved name; rename it: --rename {name}=my_{name}");
        assert_eq!((stderr(&output), output.status.code()), (format!("uphill: {message}\n"), Some(2)));
    }
}

#[test]
fn a_killed_index_build_leaves_no_dataset_and_the_next_one_removes_its_files() {
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
fn a_second_index_build_of_the_same_dataset_is_rejected() {
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
fn unusual_attribute_types_are_kept_unchanged() {
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
    uphill::index(folder.path().join("items.parquet"), &dataset, &IndexOptions::new().index(IndexKind::None))
        .expect("indexed");
    let items = open(&dataset).take(&[0, 1, 2]).expect("items");
    for name in ["flag", "small", "text with spaces", "day"] {
        assert!(items.column(name).expect(name).equals_missing(frame.column(name).expect(name)), "{name}: {items}");
    }
}
