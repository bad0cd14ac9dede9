//! Files as others write them: parts of several types, frames of pandas, UUIDs, large ids, dictionaries, embeddings that are
//! no lists, `file://` addresses.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType as Type, Field, Float32Type, Int8Type, Int64Type, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use polars::prelude::{Column, DataType, IntoColumn, NamedFrom, Series};
use uphill::{IndexOptions, VectorDatabase};

use crate::common::*;
use crate::python::{python, succeeds};

/// Rows of a part.
const ROWS: usize = 6;

fn write_fields(path: &Path, columns: Vec<(Field, ArrayRef)>, group: usize) {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("a batch");
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let file = std::fs::File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

fn write_columns(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let field = |name: &str, array: &ArrayRef| Field::new(name, array.data_type().clone(), true);
    let columns = columns.into_iter().map(|(name, array)| (field(name, &array), array));
    write_fields(path, columns.collect(), 1 << 20);
}

/// Vectors of three components, of so many rows from a number on.
fn vectors(from: usize, rows: usize) -> ArrayRef {
    let row = |row: usize| Some((0..3).map(move |at| Some((row * 3 + at) as f32)));
    Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>((from..from + rows).map(row), 3))
}

fn cast(array: &ArrayRef, dtype: &Type) -> ArrayRef {
    arrow::compute::cast(array, dtype).expect("cast")
}

fn whole(from: i64) -> ArrayRef {
    Arc::new((0..ROWS as i64).map(|row| (row != 2).then_some(from + row)).collect::<Int64Array>())
}

/// A library of two parts that have a column each.
fn indexed(one: &ArrayRef, other: &ArrayRef) -> Result<Column, String> {
    let folder = folder();
    std::fs::create_dir(folder.path().join("parts")).expect("a folder");
    for (number, column) in [one, other].into_iter().enumerate() {
        let path = folder.path().join(format!("parts/{number}.parquet"));
        write_columns(&path, vec![("embedding", vectors(number * ROWS, ROWS)), ("value", column.clone())]);
    }
    let dataset = folder.path().join("items.lance");
    let built = uphill::index(folder.path().join("parts"), &dataset, &IndexOptions::default());
    built.map_err(|error| error.to_string())?;
    let library = open(&dataset).columns(&["value"]).expect("a column");
    let all: Vec<u64> = (0..2 * ROWS as u64).collect();
    Ok(library.take(&all).expect("items").column("value").expect("value").clone())
}

/// A column as it comes out of a library by itself.
fn alone(column: &ArrayRef) -> Column {
    indexed(column, column).expect("indexed").slice(0, ROWS)
}

#[test]
fn files_of_compatible_types_are_one_library_with_a_common_supertype() {
    let unsigned = |from: u64| Arc::new((from..from + ROWS as u64).collect::<UInt64Array>()) as ArrayRef;
    let time = |unit| Type::Timestamp(unit, None);
    let zoned = |zone: &str| {
        cast(
            &cast(&whole(1_700_000_000), &Type::Timestamp(TimeUnit::Second, None)),
            &Type::Timestamp(TimeUnit::Millisecond, Some(zone.into())),
        )
    };
    let texts = cast(&whole(0), &Type::Utf8);
    let decimal = |digits, scale| cast(&whole(7), &Type::Decimal128(digits, scale));
    let list = |wide: bool| -> ArrayRef {
        let rows = (0..ROWS as i64).map(|row| Some((0..row % 3).map(Some)));
        match wide {
            true => Arc::new(LargeListArray::from_iter_primitive::<Int64Type, _, _>(rows)),
            false => cast(
                &(Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows)) as ArrayRef),
                &Type::List(Arc::new(Field::new("element", Type::Int32, true))),
            ),
        }
    };
    let members = |dtype: &Type| -> ArrayRef {
        let member = cast(&whole(1), dtype);
        Arc::new(StructArray::from(vec![(Arc::new(Field::new("n", dtype.clone(), true)), member)]))
    };
    let bytes = FixedSizeBinaryArray::try_from_iter((0..ROWS).map(|row| [row as u8, 1])).expect("bytes");
    let ms = TimeUnit::Millisecond;
    let struct_of = |dtype| DataType::Struct(vec![polars::prelude::Field::new("n".into(), dtype)]);
    let cases: Vec<(&str, ArrayRef, ArrayRef, DataType)> = vec![
        ("int and float", whole(3), cast(&whole(9), &Type::Float64), DataType::Float64),
        (
            "short int and short float",
            cast(&whole(3), &Type::Int16),
            cast(&whole(9), &Type::Float32),
            DataType::Float32,
        ),
        ("32 and 64 bits", cast(&whole(3), &Type::Int32), whole(9), DataType::Int64),
        ("floats", cast(&whole(3), &Type::Float32), cast(&whole(9), &Type::Float64), DataType::Float64),
        ("without and with a sign", cast(&whole(3), &Type::UInt8), cast(&whole(-3), &Type::Int8), DataType::Int16),
        ("large ids", unsigned(u64::MAX - 10), whole(4), DataType::UInt64),
        ("small ids below zero", unsigned(10), whole(-4), DataType::Int64),
        ("true and false", cast(&whole(0), &Type::Boolean), whole(4), DataType::Int64),
        ("nulls and numbers", Arc::new(NullArray::new(ROWS)), whole(4), DataType::Int64),
        ("nulls and text", Arc::new(NullArray::new(ROWS)), texts.clone(), DataType::String),
        (
            "ms and us",
            cast(&whole(3), &time(ms)),
            cast(&whole(9), &time(TimeUnit::Microsecond)),
            DataType::Datetime(polars::prelude::TimeUnit::Microseconds, None),
        ),
        (
            "s and ns",
            cast(&whole(3), &time(TimeUnit::Second)),
            cast(&whole(9), &time(TimeUnit::Nanosecond)),
            DataType::Datetime(polars::prelude::TimeUnit::Nanoseconds, None),
        ),
        (
            "date and time",
            cast(&cast(&whole(3), &Type::Int32), &Type::Date32),
            cast(&whole(9), &time(ms)),
            DataType::Datetime(polars::prelude::TimeUnit::Milliseconds, None),
        ),
        (
            "zones",
            zoned("Europe/Berlin"),
            zoned("UTC"),
            DataType::Datetime(polars::prelude::TimeUnit::Milliseconds, Some(polars::prelude::TimeZone::UTC)),
        ),
        (
            "durations",
            cast(&whole(3), &Type::Duration(TimeUnit::Second)),
            cast(&whole(9), &Type::Duration(TimeUnit::Microsecond)),
            DataType::Duration(polars::prelude::TimeUnit::Microseconds),
        ),
        (
            "times of day",
            cast(&cast(&whole(3), &Type::Int32), &Type::Time32(ms)),
            cast(&whole(9), &Type::Time64(TimeUnit::Microsecond)),
            DataType::Time,
        ),
        ("text and large text", texts.clone(), cast(&texts, &Type::LargeUtf8), DataType::String),
        ("text and views", cast(&texts, &Type::Utf8View), texts.clone(), DataType::String),
        (
            "text and dictionary",
            texts.clone(),
            cast(&texts, &Type::Dictionary(Type::Int8.into(), Type::Utf8.into())),
            DataType::String,
        ),
        (
            "dictionaries",
            cast(&texts, &Type::Dictionary(Type::Int32.into(), Type::LargeUtf8.into())),
            cast(&texts, &Type::Dictionary(Type::Int8.into(), Type::Utf8.into())),
            DataType::String,
        ),
        ("bytes", Arc::new(bytes), cast(&texts, &Type::Binary), DataType::Binary),
        ("decimals", decimal(10, 2), decimal(12, 4), DataType::Decimal(12, 4)),
        ("decimals of other widths", decimal(10, 6), decimal(9, 0), DataType::Decimal(15, 6)),
        ("decimal and int", decimal(6, 2), cast(&whole(7), &Type::Int32), DataType::Decimal(12, 2)),
        ("decimal and float", decimal(6, 2), cast(&whole(7), &Type::Float32), DataType::Float64),
        ("lists", list(false), list(true), DataType::List(DataType::Int64.into())),
        ("structs", members(&Type::Int32), members(&Type::Float64), struct_of(DataType::Float64)),
    ];
    for (what, one, other, dtype) in cases {
        // Whichever comes first.
        for (one, other) in [(&one, &other), (&other, &one)] {
            let found = indexed(one, other).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(*found.dtype(), dtype, "{what}");
            for (column, from) in [(one, 0), (other, ROWS as i64)] {
                let expected = alone(column).cast(&dtype).expect("cast");
                assert!(found.slice(from, ROWS).equals_missing(&expected), "{what}: {found:?}, expected {expected:?}");
            }
        }
    }
}

#[test]
fn files_of_compatible_embeddings_are_one_library() {
    let narrow = vectors(0, ROWS);
    let wide = |dtype: Type| cast(&vectors(0, ROWS), &dtype);
    let item = |dtype: Type| Arc::new(Field::new("item", dtype, true));
    let expected =
        uphill::matrix::<f32>(&library_of(&narrow, &narrow), "embedding").expect("vectors").view().to_owned();
    for dtype in [
        Type::FixedSizeList(item(Type::Float64), 3),
        Type::List(item(Type::Float32)),
        Type::LargeList(item(Type::Float64)),
        Type::List(item(Type::Int64)),
    ] {
        for (one, other) in [(&narrow, &wide(dtype.clone())), (&wide(dtype.clone()), &narrow)] {
            let items = library_of(one, other);
            assert_eq!(uphill::matrix::<f32>(&items, "embedding").expect("vectors").view(), expected, "{dtype}");
        }
    }
}

/// The items of two parts with embeddings of their own type.
fn library_of(one: &ArrayRef, other: &ArrayRef) -> polars::prelude::DataFrame {
    let folder = folder();
    std::fs::create_dir(folder.path().join("parts")).expect("a folder");
    write_columns(&folder.path().join("parts/a.parquet"), vec![("embedding", one.clone())]);
    write_columns(&folder.path().join("parts/b.parquet"), vec![("embedding", other.clone())]);
    uphill_ok(&["index", "parts", "items.lance"], folder.path());
    open(&folder.path().join("items.lance")).take(&(0..2 * ROWS as u64).collect::<Vec<_>>()).expect("items")
}

#[test]
fn files_without_a_common_supertype_are_rejected_with_the_column_and_both_files() {
    let texts = cast(&whole(0), &Type::Utf8);
    let zoned = cast(&whole(3), &Type::Timestamp(TimeUnit::Second, Some("UTC".into())));
    let exact = |value: i64| Arc::new(Int64Array::from(vec![Some(1), Some(value)])) as ArrayRef;
    let short = |value: u64| Arc::new(UInt64Array::from(vec![1, value])) as ArrayRef;
    let two = |column: ArrayRef| column.slice(0, 2);
    for (one, other, expected) in [
        (whole(0), texts, "1.parquet: differs from 0.parquet: column `value` is Utf8, not Int64"),
        (
            cast(&whole(3), &Type::Timestamp(TimeUnit::Second, None)),
            zoned,
            "1.parquet: differs from 0.parquet: column `value` is Timestamp(s, \"UTC\"), not Timestamp(s)",
        ),
        (
            exact(9_007_199_254_740_993),
            two(cast(&whole(0), &Type::Float64)),
            "0.parquet: column `value`: 9007199254740993 in row 1 cannot be cast to Float64, the type of the column in 1.parquet; write the column with one type in all files",
        ),
        (
            short(u64::MAX),
            two(whole(-4)),
            "0.parquet: column `value`: 18446744073709551615 in row 1 cannot be cast to Int64, the type of the column in 1.parquet; write the column with one type in all files",
        ),
    ] {
        let folder = folder();
        std::fs::create_dir(folder.path().join("parts")).expect("a folder");
        for (number, column) in [one, other].into_iter().enumerate() {
            let columns = vec![("embedding", vectors(0, column.len())), ("value", column)];
            write_columns(&folder.path().join(format!("parts/{number}.parquet")), columns);
        }
        let said = stderr(&uphill(&["index", "*.parquet", "../items.lance"], &folder.path().join("parts")));
        assert_eq!(said, format!("uphill: {expected}\n"));
        assert!(!folder.path().join("items.lance").exists());
    }
}

#[test]
fn a_column_that_a_file_lacks_is_reported_with_the_file() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("parts")).expect("a folder");
    let with = || vec![("embedding", vectors(0, ROWS)), ("weight", whole(0)), ("name", whole(0))];
    let without = || vec![("embedding", vectors(0, ROWS)), ("name", whole(0))];
    for (a, b, expected) in [
        (with(), without(), "parts/b.parquet: no column `weight` (there are: embedding, name); parts/a.parquet has it"),
        (without(), with(), "parts/a.parquet: no column `weight` (there are: embedding, name); parts/b.parquet has it"),
        (
            with(),
            vec![("embedding", vectors(0, ROWS)), ("wieght", whole(0)), ("name", whole(0))],
            "parts/b.parquet: no column `weight`; did you mean `wieght`?; parts/a.parquet has it",
        ),
    ] {
        write_columns(&at("parts/a.parquet"), a);
        write_columns(&at("parts/b.parquet"), b);
        let said = stderr(&uphill(&["index", "parts", "items.lance"], folder.path()));
        assert_eq!(said, format!("uphill: {expected}: add it, with nulls if need be, or remove it from all files\n"));
    }
}

#[test]
fn the_index_of_a_pandas_frame_is_skipped_with_a_warning_or_renamed() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let filtered = || vec![("embedding", vectors(0, ROWS)), ("x", whole(0)), ("__index_level_0__", whole(3))];
    write_columns(&at("f.parquet"), filtered());
    let output = uphill(&["index", "f.parquet", "f.lance", "-q"], folder.path());
    assert!(output.status.success(), "{}", stderr(&output));
    let note = "f.parquet: skipped column `__index_level_0__`, the index of a pandas frame; keep it with --rename __index_level_0__=row";
    assert_eq!(stderr(&output), format!("uphill: {note}\n"));
    assert_eq!(open(&at("f.lance")).column_names(), ["x"]);
    let output = uphill(&["index", "f.parquet", "g.lance", "-q", "--rename", "__index_level_0__=row"], folder.path());
    assert_eq!(stderr(&output), "");
    assert_eq!(open(&at("g.lance")).column_names(), ["x", "row"]);

    // Of parts, only some may have been filtered; of an index of several levels, all are left out.
    std::fs::create_dir(at("parts")).expect("a folder");
    write_columns(&at("parts/a.parquet"), vec![("embedding", vectors(0, ROWS)), ("x", whole(0))]);
    write_columns(&at("parts/b.parquet"), [filtered(), vec![("__index_level_1__", whole(0))]].concat());
    let output = uphill(&["index", "parts", "parts.lance", "-q"], folder.path());
    assert!(
        output.status.success() && stderr(&output).contains("parts/b.parquet: skipped column `__index_level_0__`"),
        "{}",
        stderr(&output)
    );
    assert_eq!(open(&at("parts.lance")).column_names(), ["x"]);
}

/// UUIDs, as Arrow marks them.
fn uuids() -> (Field, ArrayRef) {
    let bytes = (0..ROWS)
        .map(|row| (row != 1).then(|| (0x0123_4567_89ab_cdef_0123_4567_89ab_cde0_u128 + row as u128).to_be_bytes()));
    let bytes = FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes, 16).expect("bytes");
    let field = Field::new("uid", Type::FixedSizeBinary(16), true);
    let field = field.with_metadata([("ARROW:extension:name".to_string(), "arrow.uuid".to_string())].into());
    (field, Arc::new(bytes))
}

const UUID: &str = "01234567-89ab-cdef-0123-456789abcde0";

#[test]
fn uuids_are_text_for_filters_scorers_and_in_every_format() {
    let folder = folder();
    let embedding = vectors(0, ROWS);
    let (x, embeddings) =
        (Field::new("x", Type::Int64, true), Field::new("embedding", embedding.data_type().clone(), true));
    write_fields(&folder.path().join("items.parquet"), vec![(embeddings, embedding), (x, whole(0)), uuids()], 100);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let scorer = "import json, sys\nfor line in sys.stdin:\n    if line.strip():\n        item = json.loads(line)\n        print(json.dumps({'db_idx': item['db_idx'], 'score': len(item['uid'] or '')}))\n    else:\n        print(flush=True)\n";
    std::fs::write(folder.path().join("score.py"), scorer).expect("written");
    let run = "[database]\npath = \"items.lance\"\nk = 6\n[update]\nrule = \"top-k\"\n[stop]\niterations = 1\n[score]\ncommand = [\"python3\", \"score.py\"]\n";
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let csv = uphill_ok(&["results", "run", "--format", "csv"], folder.path());
    assert!(csv.contains(UUID) && csv.contains(",36.0,"), "{csv}");
    assert!(uphill_ok(&["results", "run", "--format", "table"], folder.path()).contains(UUID));
    let filter = format!("filter.sql=uid = '{UUID}'");
    uphill_ok(&["search", "run.toml", "--out", "one", "--set", &filter], folder.path());
    assert_eq!(uphill_ok(&["results", "one", "--format", "csv"], folder.path()).lines().count(), 2);
    // The file that was indexed is the truth, by row and by key.
    for more in [&[][..], &["--key", "uid"]] {
        let arguments = ["evaluate", "one", "--truth", "items.parquet", "--score-column", "x", "--top", "2"];
        uphill_ok(&[&arguments, more].concat(), folder.path());
    }
}

#[test]
fn uuids_in_a_dataset_of_another_program_are_text_however_they_are_read() {
    let folder = folder();
    let (field, array) = uuids();
    let embedding = vectors(0, ROWS);
    let schema = Arc::new(Schema::new(vec![Field::new("vector", embedding.data_type().clone(), false), field]));
    let batch = RecordBatch::try_new(schema.clone(), vec![embedding, array]).expect("a batch");
    let uri = folder.path().join("theirs.lance").to_string_lossy().into_owned();
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let reader = RecordBatchIterator::new([Ok(batch)], schema);
        lance::Dataset::write(reader, uri.as_str(), None).await.expect("written");
    });
    let library = open(Path::new(&uri)).k(1);
    let first = |frame: &polars::prelude::DataFrame| {
        frame.column("uid").expect("uid").str().expect("text").get(0).map(str::to_string)
    };
    assert_eq!(first(&library.take(&[0]).expect("an item")).as_deref(), Some(UUID));
    let queries = uphill::queries_at(&library, &[0]).expect("queries");
    let met = library.query(&queries, uphill::QueryOptions::default()).expect("results");
    assert_eq!(first(&met).as_deref(), Some(UUID));
    let mut seen = Vec::new();
    let visited = library.visit_columns(&["uid".into()], &mut |items| {
        seen.push(first(&items));
        Ok(())
    });
    visited.expect("visited");
    assert_eq!(seen, [Some(UUID.to_string())]);
}

#[test]
fn uuids_that_only_parquet_marks_are_text() {
    let folder = folder();
    const SCRIPT: &str = "import duckdb\nduckdb.sql(\"copy (select '01234567-89ab-cdef-0123-456789abcde0'::uuid uid, [1.0::float, 2.0, 3.0] embedding) to 'items.parquet'\")\n";
    std::fs::write(folder.path().join("script.py"), SCRIPT).expect("written");
    succeeds(Command::new(python()).arg("script.py").current_dir(folder.path()));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let items = open(&folder.path().join("items.lance")).take(&[0]).expect("an item");
    assert_eq!(items.column("uid").expect("uid").str().expect("text").get(0), Some(UUID));
    let read = uphill::read_parquet(folder.path().join("items.parquet")).expect("read");
    assert_eq!(read.column("uid").expect("uid").str().expect("text").get(0), Some(UUID));
}

#[test]
fn ids_beyond_2_63_can_be_written_in_every_sql() {
    let folder = folder();
    let ids = [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1, 5, 0];
    let columns = vec![("embedding", vectors(0, ROWS)), ("uid", Arc::new(UInt64Array::from(ids.to_vec())) as ArrayRef)];
    write_columns(&folder.path().join("items.parquet"), columns);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let run = "[database]\npath = \"items.lance\"\nk = 6\n[update]\nrule = \"top-k\"\n[stop]\niterations = 1\n[score]\nsql = \"1\"\n";
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    let found = |name: &str, set: &str| {
        uphill_ok(&["search", "run.toml", "--out", name, "--set", set], folder.path());
        uphill_ok(&["results", name, "-o", "results.parquet"], folder.path());
        let results = read(&folder.path().join("results.parquet"));
        let mut found = u64s(&results, "uid");
        found.sort_unstable();
        (found, f64s(&results, "score"))
    };
    let cases: [(&str, &[u64]); 8] = [
        ("uid = 18446744073709551615", &[u64::MAX]),
        ("uid <> 18446744073709551615 AND uid >= 9223372036854775808", &[1 << 63, u64::MAX - 1]),
        ("uid IN (5, 18446744073709551614, NULL)", &[5, u64::MAX - 1]),
        ("uid NOT IN (18446744073709551614, 18446744073709551615, 0)", &[5, (1 << 63) - 1, 1 << 63]),
        ("uid BETWEEN 9223372036854775808 AND 18446744073709551614", &[1 << 63, u64::MAX - 1]),
        ("uid > -9223372036854775808 AND uid < 6 -- not 18446744073709551615", &[0, 5]),
        ("uid::text = '18446744073709551615'", &[u64::MAX]),
        ("(CASE WHEN uid = 18446744073709551614 THEN 1 ELSE 0 END) = 1 /* 18446744073709551614 */", &[u64::MAX - 1]),
    ];
    for (number, (sql, expected)) in cases.into_iter().enumerate() {
        assert_eq!(found(&format!("filter-{number}"), &format!("filter.sql={sql}")).0, expected, "{sql}");
    }
    let (_, scores) =
        found("score", "score.sql=CASE WHEN uid >= 18446744073709551614 THEN uid - 18446744073709551000 ELSE 0 END");
    assert_eq!(scores, [615.0, 614.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(found("prefilter", "database.prefilter=uid = 18446744073709551614").0, [u64::MAX - 1]);
    let output =
        uphill(&["search", "run.toml", "--out", "x", "--set", "filter.sql=uid < 18446744073709551616"], folder.path());
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn each_row_group_may_use_all_keys_of_a_dictionary() {
    let folder = folder();
    let dictionary = |values: usize, rows: usize, at: usize| -> ArrayRef {
        let keys: Int8Array = (0..rows).map(|row| Some((row % values) as i8)).collect();
        let values: StringArray = (0..values).map(|value| Some(format!("{at}-{value:03}"))).collect();
        Arc::new(DictionaryArray::<Int8Type>::try_new(keys, Arc::new(values)).expect("a dictionary"))
    };
    for (name, values, rows, group) in [("full", 128, 128, 1000), ("groups", 127, 381, 50)] {
        let column = dictionary(values, rows, 0);
        let field = Field::new("value", column.data_type().clone(), true);
        let embedding = vectors(0, rows);
        let embeddings = Field::new("embedding", embedding.data_type().clone(), true);
        let path = folder.path().join(format!("{name}.parquet"));
        write_fields(&path, vec![(embeddings, embedding), (field, column.clone())], group);
        let dataset = format!("{name}.lance");
        uphill_ok(&["index", &format!("{name}.parquet"), &dataset], folder.path());
        let items = open(&folder.path().join(dataset)).take(&(0..rows as u64).collect::<Vec<_>>()).expect("items");
        let found: Vec<&str> = items.column("value").expect("value").str().expect("text").iter().flatten().collect();
        let expected = cast(&column, &Type::Utf8);
        assert_eq!(found, expected.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), "{name}");
    }
    // Two parts, each with a full dictionary of its own.
    std::fs::create_dir(folder.path().join("parts")).expect("a folder");
    for at in 0..2 {
        let columns = vec![("embedding", vectors(0, 128)), ("value", dictionary(128, 128, at))];
        write_columns(&folder.path().join(format!("parts/{at}.parquet")), columns);
    }
    uphill_ok(&["index", "parts", "parts.lance"], folder.path());
    assert_eq!(open(&folder.path().join("parts.lance")).len(), 256);
}

#[test]
fn embeddings_that_are_not_lists_are_rejected_with_the_expression_that_converts_them() {
    let folder = folder();
    let texts: ArrayRef = Arc::new((0..ROWS).map(|row| Some(format!("[{row}, 1, 2]"))).collect::<StringArray>());
    let bytes = |size: i32| -> ArrayRef {
        let rows = (0..ROWS).map(|row| vec![row as u8; size as usize]);
        Arc::new(FixedSizeBinaryArray::try_from_iter(rows).expect("bytes"))
    };
    let of = |values: ArrayRef, lengths: [usize; ROWS]| -> ArrayRef {
        let item = Arc::new(Field::new("item", values.data_type().clone(), true));
        Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths), values, None))
    };
    let inner = vectors(0, ROWS);
    let member = Arc::new(Field::new("vector", inner.data_type().clone(), true));
    let wide = |stem: &str| -> Vec<_> {
        (0..12).map(|at| (format!("{stem}{at}"), cast(&whole(at), &Type::Float32))).collect()
    };
    let none = "no column has lists of numbers; ";
    type Columns = Vec<(String, ArrayRef)>;
    let cases: Vec<(Columns, &[&str], String)> = vec![
        (
            vec![("embedding".into(), texts.clone())],
            &[],
            "column `embedding` is text; convert it to lists with Polars: pl.col(\"embedding\").str.json_decode(pl.List(pl.Float32)) for text such as \"[0.5, 0.25]\", or pl.col(\"embedding\").str.decode(\"base64\").bin.reinterpret(dtype=pl.Array(pl.Float32, N)) for base64 of N components".into(),
        ),
        (
            vec![("name".into(), texts.clone()), ("vec".into(), bytes(12))],
            &[],
            format!("{none}column `vec` is bytes; convert it to lists with Polars: pl.col(\"vec\").bin.reinterpret(dtype=pl.Array(pl.Float32, 3)), if they are floats of 32 bits"),
        ),
        (
            vec![("e".into(), Arc::new(StructArray::from(vec![(member, inner.clone())])) as ArrayRef)],
            &["--embedding-column", "e.vector"],
            "no column `e.vector`; did you mean `e`?; column `e` is a struct; convert it to lists with Polars: pl.col(\"e\").struct.field(\"vector\").alias(\"embedding\")".into(),
        ),
        (
            vec![("deep".into(), of(inner.clone(), [1; ROWS]))],
            &[],
            format!("{none}column `deep` is lists in lists; convert it to lists with Polars: pl.col(\"deep\").list.first(), if each holds one"),
        ),
        (
            wide("dim_"),
            &[],
            format!("{none}the columns `dim_0` to `dim_11` are one component each; convert them to lists with Polars: df.select(pl.all().exclude(\"^dim_[0-9]+$\"), embedding=pl.concat_arr(\"^dim_[0-9]+$\"))"),
        ),
        (
            vec![("value".into(), texts)],
            &["--embedding-column", "value"],
            "column `value`: expected lists of numbers, found Utf8; it is text; convert it to lists with Polars: pl.col(\"value\").str.json_decode(pl.List(pl.Float32)) for text such as \"[0.5, 0.25]\", or pl.col(\"value\").str.decode(\"base64\").bin.reinterpret(dtype=pl.Array(pl.Float32, N)) for base64 of N components".into(),
        ),
    ];
    for (columns, more, expected) in cases {
        let columns = columns.iter().map(|(name, array)| (name.as_str(), array.clone()));
        write_columns(&folder.path().join("items.parquet"), [("x", whole(0))].into_iter().chain(columns).collect());
        let output = uphill(&[&["index", "items.parquet", "items.lance"], more].concat(), folder.path());
        assert_eq!(stderr(&output), format!("uphill: items.parquet: {expected}\n"));
    }
}

#[test]
fn lists_of_booleans_and_of_decimals_are_embeddings() {
    let folder = folder();
    let values = vectors(0, ROWS).as_fixed_size_list().values().clone();
    let list = |dtype: &Type| -> ArrayRef {
        let values = cast(&values, dtype);
        let item = Arc::new(Field::new("item", dtype.clone(), true));
        Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([3; ROWS]), values, None))
    };
    for (dtype, expected) in
        [(Type::Boolean, [1.0, 1.0, 1.0]), (Type::Decimal128(10, 4), [3.0, 4.0, 5.0]), (Type::Int8, [3.0, 4.0, 5.0])]
    {
        write_columns(&folder.path().join("items.parquet"), vec![("bits", list(&dtype))]);
        uphill_ok(&["index", "items.parquet", "items.lance", "--overwrite"], folder.path());
        let items = open(&folder.path().join("items.lance")).take(&[1]).expect("an item");
        assert_eq!(
            uphill::matrix::<f32>(&items, "embedding").expect("a vector").view().row(0).to_vec(),
            expected,
            "{dtype}"
        );
    }
}

#[test]
fn a_file_url_is_accepted_wherever_a_path_is() {
    let folder = folder();
    let url = |name: &str| format!("file://{}/{}", folder.path().display(), name.replace(' ', "%20"));
    write(&folder.path().join("my items.parquet"), &items(&clustered(60, 4, 3, &mut rng(1))));
    uphill_ok(&["index", &url("my items.parquet"), &url("my lib.lance")], folder.path());
    let queries = Series::new("embedding".into(), [Series::new("".into(), [0.5, 1.0, 0.0, 0.25])]).into_column();
    write(&folder.path().join("my queries.parquet"), &queries.into_frame());
    let run = |more: &str| {
        let head = format!(
            "[database]\npath = \"{}\"\n[queries]\npath = \"{}\"\n",
            url("my lib.lance"),
            url("my queries.parquet")
        );
        let rest = "[score]\nsql = \"weight\"\n[update]\nrule = \"rl\"\n[stop]\niterations = 2\n";
        std::fs::write(
            folder.path().join("my run.toml"),
            format!("{head}{rest}").replace("[score]\n", &format!("[score]\n{more}")),
        )
        .expect("written");
    };
    run("");
    uphill_ok(&["search", &url("my run.toml"), "--out", &url("my run")], folder.path());
    uphill_ok(
        &["search", "my run.toml", &format!("--out={}", url("my run")), "--resume", "--set", "stop.iterations=3"],
        folder.path(),
    );
    run(&format!("reuse = [\"{}\"]\n", url("my run")));
    uphill_ok(&["search", "my run.toml", "--out", "again"], folder.path());
    for path in ["my lib.lance", "my run"] {
        uphill_ok(&["inspect", &url(path)], folder.path());
    }
    uphill_ok(
        &["evaluate", &url("my run"), "--truth", &url("my items.parquet"), "--score-column", "weight", "--top", "5"],
        folder.path(),
    );
    uphill_ok(&["remove", &url("again")], folder.path());
    // The library takes them as the command does.
    let library = uphill::LanceDatabase::open(url("my lib.lance").replace("file://", "file:")).expect("opened");
    assert_eq!(library.len(), 60);
    uphill::SearchLog::open(url("my run")).expect("a run");
    let mut there: Vec<String> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    there.sort();
    assert_eq!(there, ["my items.parquet", "my lib.lance", "my queries.parquet", "my run", "my run.toml"]);

    let output = uphill(&["inspect", "file://elsewhere/items.lance"], folder.path());
    let message = "file://elsewhere/items.lance: names another host; write file:/// followed by an absolute path";
    assert_eq!(stderr(&output), format!("uphill: {message}\n"));
}
