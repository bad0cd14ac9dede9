//! Attributes of every Arrow type, from Parquet through a search to each format, and to scorers.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    DataType, Field, Fields, Float32Type, Float64Type, Int8Type, Int32Type, Int64Type, TimeUnit, i256,
};
use half::f16;
use parquet::arrow::ArrowWriter;
use polars::prelude::IdxCa;
use serde_json::{Value, json};

use crate::common::*;
use crate::python::{python, succeeds};

const ROWS: usize = 12;

/// Every third row has no value.
fn some<T>(value: impl Fn(usize) -> T) -> impl Iterator<Item = Option<T>> {
    (0..ROWS).map(move |row| (row % 3 != 2).then(|| value(row)))
}

/// A column of each type.
fn columns() -> Vec<(&'static str, ArrayRef)> {
    macro_rules! of {
        ($array:ty, $value:expr) => {
            Arc::new(some($value).collect::<$array>()) as ArrayRef
        };
    }
    macro_rules! decimal {
        ($array:ty, $value:expr, $precision:expr, $scale:expr) => {
            Arc::new(some($value).collect::<$array>().with_precision_and_scale($precision, $scale).expect("digits"))
                as ArrayRef
        };
    }
    let n = |row: usize| row as i64;
    let nulls = || NullBuffer::from_iter((0..ROWS).map(|row| row % 3 != 2));
    let pairs = || {
        let fields = Fields::from(vec![
            Field::new("n", DataType::Int32, true),
            Field::new("when", DataType::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into())), true),
            Field::new("raw", DataType::Binary, true),
        ]);
        let arrays: Vec<ArrayRef> = vec![
            of!(Int32Array, |row| row as i32),
            Arc::new(
                some(|row| 1_700_000_000 + n(row)).collect::<TimestampSecondArray>().with_timezone("Europe/Berlin"),
            ),
            of!(BinaryArray, |row| vec![row as u8, 255]),
        ];
        StructArray::new(fields, arrays, Some(nulls()))
    };
    let offsets = || OffsetBuffer::from_lengths((0..ROWS).map(|row| usize::from(row % 2 == 0) * 2));
    let list_of = |values: ArrayRef| -> ArrayRef {
        let field = Arc::new(Field::new("item", values.data_type().clone(), true));
        Arc::new(ListArray::new(field, offsets(), values, Some(nulls())))
    };
    let fixed = |values: ArrayRef| -> ArrayRef {
        let field = Arc::new(Field::new("item", values.data_type().clone(), true));
        Arc::new(FixedSizeListArray::new(field, 1, values, Some(nulls())))
    };
    let sized = || -> ArrayRef {
        let bytes = some(|row| [row as u8, 0, 255]);
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes, 3).expect("bytes"))
    };
    let numbers = Int32Array::from_iter_values(0..ROWS as i32);
    let names = |n: usize| ["a", "b", "c"][n % 3];
    let map = MapArray::new(
        Arc::new(Field::new(
            "entries",
            DataType::Struct(Fields::from(vec![
                Field::new("keys", DataType::Utf8, false),
                Field::new("values", DataType::Int32, true),
            ])),
            false,
        )),
        offsets(),
        StructArray::from(vec![
            (
                Arc::new(Field::new("keys", DataType::Utf8, false)),
                Arc::new(StringArray::from_iter_values((0..ROWS).map(|n| format!("k{n}")))) as ArrayRef,
            ),
            (Arc::new(Field::new("values", DataType::Int32, true)), Arc::new(numbers.clone()) as ArrayRef),
        ]),
        Some(nulls()),
        false,
    );
    let big = 12_345_678_901_234_567_890_123_456_789_i128;
    vec![
        ("null", Arc::new(NullArray::new(ROWS)) as ArrayRef),
        ("boolean", of!(BooleanArray, |row| row % 2 == 0)),
        ("i8", of!(Int8Array, |row| row as i8 - 5)),
        ("i16", of!(Int16Array, |row| row as i16)),
        ("u8", of!(UInt8Array, |row| row as u8)),
        ("u16", of!(UInt16Array, |row| row as u16)),
        ("u32", of!(UInt32Array, |row| row as u32)),
        ("f16", Arc::new(some(|row| f16::from_f32(row as f32 + 0.5)).collect::<Float16Array>())),
        ("f32", of!(Float32Array, |row| row as f32 + 0.1f32)),
        ("text", of!(StringArray, |row| format!("é{row}"))),
        ("large text", of!(LargeStringArray, |row| format!("é{row}"))),
        ("text view", of!(StringViewArray, |row| format!("a text of more than twelve bytes {row}"))),
        ("binary", of!(BinaryArray, |row| vec![row as u8, 0, 255])),
        ("large binary", of!(LargeBinaryArray, |row| vec![row as u8, 0, 255])),
        ("binary view", of!(BinaryViewArray, |row| vec![row as u8, 0, 255])),
        ("fixed binary", sized()),
        ("date", of!(Date32Array, |row| 19_723 + row as i32)),
        ("date64", of!(Date64Array, |row| (19_723 + n(row)) * 86_400_000)),
        ("time s", of!(Time32SecondArray, |row| 3_600 + row as i32)),
        ("time ms", of!(Time32MillisecondArray, |row| 3_600_500 + row as i32)),
        ("time us", of!(Time64MicrosecondArray, |row| 3_600_000_005 + n(row))),
        ("time ns", of!(Time64NanosecondArray, |row| 3_600_000_000_007 + n(row))),
        ("timestamp s", of!(TimestampSecondArray, |row| 1_704_110_400 + n(row))),
        ("timestamp ms", of!(TimestampMillisecondArray, |row| 1_704_110_400_500 + n(row))),
        ("timestamp us", of!(TimestampMicrosecondArray, |row| 1_704_110_400_000_005 + n(row))),
        ("timestamp ns", of!(TimestampNanosecondArray, |row| 1_704_110_400_000_000_007 + n(row))),
        ("utc s", Arc::new(some(|row| 1_704_110_400 + n(row)).collect::<TimestampSecondArray>().with_timezone("UTC"))),
        (
            "berlin us",
            Arc::new(
                some(|row| 1_704_110_400_000_000 + n(row))
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("Europe/Berlin"),
            ),
        ),
        (
            "offset ns",
            Arc::new(
                some(|row| 1_704_110_400_000_000_000 + n(row))
                    .collect::<TimestampNanosecondArray>()
                    .with_timezone("+05:30"),
            ),
        ),
        ("duration s", of!(DurationSecondArray, |row| 5_400 + n(row))),
        ("duration ms", of!(DurationMillisecondArray, |row| 5_400_500 + n(row))),
        ("duration us", of!(DurationMicrosecondArray, |row| -5_400_500_000 - n(row))),
        ("duration ns", of!(DurationNanosecondArray, |row| 90_061_000_000_001 + n(row))),
        ("decimal32", decimal!(Decimal32Array, |row| 12_345 + row as i32, 9, 2)),
        ("decimal64", decimal!(Decimal64Array, |row| 123_456_789_012_345 + n(row), 18, 3)),
        ("decimal128", decimal!(Decimal128Array, |row| big + row as i128, 38, 10)),
        ("decimal256", decimal!(Decimal256Array, |row| i256::from_i128(big + row as i128), 38, 10)),
        ("money", decimal!(Decimal128Array, |row| 1_250 + row as i128, 10, 2)),
        ("dictionary", Arc::new(some(names).collect::<DictionaryArray<Int8Type>>())),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(some(|row| vec![Some(n(row)), None])))),
        (
            "large list",
            Arc::new(LargeListArray::from_iter_primitive::<Int64Type, _, _>(some(|row| vec![Some(n(row))]))),
        ),
        (
            "fixed list",
            Arc::new(FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
                some(|row| vec![Some(row as i32), None]),
                2,
            )),
        ),
        (
            "floats",
            Arc::new(FixedSizeListArray::from_iter_primitive::<Float64Type, _, _>(
                some(|row| vec![Some(row as f64 + 0.5), None]),
                2,
            )),
        ),
        ("fixed list of text", fixed(Arc::new((0..ROWS).map(|n| Some(names(n))).collect::<StringArray>()))),
        ("fixed list of fixed binary", fixed(sized())),
        ("struct", Arc::new(pairs())),
        ("list of structs", list_of(Arc::new(pairs()))),
        ("list of text", list_of(Arc::new((0..ROWS).map(|n| Some(format!("a \"{n}\""))).collect::<StringArray>()))),
        ("list of binary", list_of(of!(BinaryArray, |row| vec![row as u8, 0, 255]))),
        ("list of durations", list_of(of!(DurationSecondArray, |row| 5_400 + n(row)))),
        ("list of f16", list_of(Arc::new(some(|row| f16::from_f32(row as f32 + 0.5)).collect::<Float16Array>()))),
        ("list of dictionary", list_of(Arc::new(some(names).collect::<DictionaryArray<Int8Type>>()))),
        ("list of decimal256", list_of(decimal!(Decimal256Array, |row| i256::from_i128(big + row as i128), 38, 10))),
        (
            "list of lists",
            list_of(Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(some(|row| vec![Some(n(row))])))),
        ),
        ("list of nulls", list_of(Arc::new(NullArray::new(ROWS)))),
        ("map", Arc::new(map)),
        ("far date", of!(Date32Array, |row| i32::MAX - row as i32)),
        ("early date", of!(Date32Array, |row| -719_529 + row as i32)),
        ("far timestamp", of!(TimestampSecondArray, |row| i64::MAX / 1000 - n(row))),
        ("far ms", of!(TimestampMillisecondArray, |row| i64::MAX - n(row))),
        ("far duration", of!(DurationMillisecondArray, |row| i64::MIN + n(row))),
    ]
}

fn library(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let vectors = (0..ROWS).map(|row| Some((0..3).map(move |at| Some((row * 3 + at) as f32))));
    let vectors: ArrayRef = Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, 3));
    let weights: ArrayRef = Arc::new(Float64Array::from_iter_values((0..ROWS).map(|row| -(row as f64))));
    let first = [("embedding", vectors), ("weight", weights)];
    let all = first.into_iter().chain(columns).map(|(name, array)| (name, array, true));
    let batch = RecordBatch::try_from_iter_with_nullable(all).expect("a batch");
    let file = std::fs::File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

/// A library of all columns, and a run file that names them: by default, nested columns do not ride along.
fn all_columns(folder: &Path, score: &str) {
    let columns = columns();
    let names: Vec<String> = columns.iter().map(|(name, _)| format!("{name:?}")).collect();
    library(&folder.join("items.parquet"), columns);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder);
    let run = format!(
        "[database]\npath = \"items.lance\"\nk = 12\ncolumns = [\"weight\", {}]\n[queries]\nsample = 2\n[stop]\n\
         iterations = 2\n[update]\nrule = \"rl\"\n[score]\n{score}\n",
        names.join(", ")
    );
    std::fs::write(folder.join("run.toml"), run).expect("written");
}

/// What the first item is in JSON, and in CSV where that is not the same text.
fn first_item() -> Value {
    const ITEM: &str = r#"{
        "null": null, "boolean": true, "i8": -5, "i16": 0, "u8": 0, "u16": 0, "u32": 0, "f16": 0.5, "f32": 0.1,
        "text": "é0", "large text": "é0", "text view": "a text of more than twelve bytes 0",
        "binary": "AAD/", "large binary": "AAD/", "binary view": "AAD/", "fixed binary": "AAD/",
        "date": "2024-01-01", "date64": "2024-01-01T00:00:00",
        "time s": "01:00:00", "time ms": "01:00:00.500", "time us": "01:00:00.000005", "time ns": "01:00:00.000000007",
        "timestamp s": "2024-01-01T12:00:00", "timestamp ms": "2024-01-01T12:00:00.500",
        "timestamp us": "2024-01-01T12:00:00.000005", "timestamp ns": "2024-01-01T12:00:00.000000007",
        "utc s": "2024-01-01T12:00:00Z", "berlin us": "2024-01-01T12:00:00Z", "offset ns": "2024-01-01T12:00:00Z",
        "duration s": "PT1H30M", "duration ms": "PT1H30M0.5S", "duration us": "-PT1H30M0.5S",
        "duration ns": "P1DT1H1M1.000000001S",
        "decimal32": "123.45", "decimal64": "123456789012.345", "decimal128": "1234567890123456789.0123456789",
        "decimal256": "1234567890123456789.0123456789", "money": "12.50", "dictionary": "a",
        "list": [0, null], "large list": [0], "fixed list": [0, null], "floats": [0.5, null],
        "struct": {"n": 0, "when": "2023-11-14T22:13:20Z", "raw": "AP8="}, "list of structs": [{"n": 0, "when": "2023-11-14T22:13:20Z", "raw": "AP8="}, {"n": 1, "when": "2023-11-14T22:13:21Z", "raw": "Af8="}],
        "list of text": ["a \"0\"", "a \"1\""], "fixed list of text": ["a"], "fixed list of fixed binary": ["AAD/"], "list of binary": ["AAD/", "AQD/"],
        "list of durations": ["PT1H30M", "PT1H30M1S"], "list of f16": [0.5, 1.5], "list of dictionary": ["a", "b"],
        "list of decimal256": ["1234567890123456789.0123456789", "1234567890123456789.0123456790"],
        "list of lists": [[0], [1]], "list of nulls": [null, null],
        "map": [{"keys": "k0", "values": 0}, {"keys": "k1", "values": 1}],
        "far date": "+5881580-07-11", "early date": "-0001-12-31", "far timestamp": "+292278994-08-17T07:12:55",
        "far ms": "+292278994-08-17T07:12:55.807", "far duration": "-P106751991167DT7H12M55.808S"
    }"#;
    serde_json::from_str(ITEM).expect("JSON")
}

#[test]
fn attributes_of_every_type_are_shown_and_exported_in_every_format() {
    let folder = folder();
    let folder = folder.path();
    all_columns(folder, "sql = \"weight\"");
    // The table at its end has them all.
    let output = uphill(&["search", "run.toml", "--out", "run", "--format", "table"], folder);
    assert!(output.status.success(), "{}", stderr(&output));
    let results = |format: &str| uphill_ok(&["results", "run", "--format", format], folder);

    let rows: Vec<Value> = serde_json::from_str(&results("json")).expect("JSON");
    let row = |item: u64| rows.iter().find(|row| row["db_idx"] == item).expect("an item");
    for (name, expected) in first_item().as_object().expect("an object") {
        assert_eq!(row(0)[name], *expected, "{name}");
        // Whatever is nested may also be there and empty.
        assert_eq!(row(2)[name], Value::Null, "{name} of an item without a value");
    }

    let mut csv = csv(&results("csv"));
    let first = csv.remove(0);
    let csv = first.iter().zip(csv.iter().find(|row| row[0] == "0").expect("the first item"));
    let csv: HashMap<&str, &str> = csv.map(|(name, cell)| (name.as_str(), cell.as_str())).collect();
    for (name, expected) in first_item().as_object().expect("an object") {
        match expected {
            Value::Null => assert_eq!(csv[name.as_str()], "", "{name}"),
            Value::String(text) => assert_eq!(csv[name.as_str()], text, "{name}"),
            Value::Array(_) | Value::Object(_) if name.contains("decimal") => {}
            other => {
                let found: Value = serde_json::from_str(csv[name.as_str()]).expect("JSON in a cell");
                assert_eq!(found, *other, "{name}");
            }
        }
    }

    let table = results("table");
    for shown in ["AAD/", "PT1H30M0.5S", "2024-01-01T12:00:00Z", "[0, null]", "{\"n\": 0, \"when\": \"2023-11-14T"] {
        assert!(table.contains(shown), "{shown} is not in\n{table}");
    }

    uphill_ok(&["results", "run", "-o", "results.parquet"], folder);
    let (before, after) = (uphill::read_parquet(folder.join("items.parquet")), read(&folder.join("results.parquet")));
    let (before, ids) = (before.expect("a frame"), u64s(&after, "db_idx"));
    let ids = IdxCa::from_vec("rows".into(), ids.into_iter().map(|id| id as u32).collect());
    for (name, _) in columns() {
        let (found, expected) = (after.column(name).expect(name), before.column(name).expect(name));
        let expected = expected.take(&ids).expect("rows").cast(found.dtype()).expect("a cast");
        assert!(found.equals_missing(&expected), "{name}: {found:?} is not {expected:?}");
    }
}

#[test]
fn pyarrow_and_duckdb_read_attributes_of_every_type_unchanged() {
    const SCRIPT: &str = r#"
import duckdb, pyarrow as pa, pyarrow.parquet as pq
items, results = pq.read_table("items.parquet"), pq.read_table("results.parquet")
ids = results["db_idx"].to_pylist()
assert sorted(ids) == list(range(len(items)))
def plain(value):
    # A map is a list of pairs.
    if isinstance(value, list):
        return [plain(tuple(item.values()) if isinstance(item, dict) and set(item) == {"keys", "values"} else item) for item in value]
    return value
for name in set(items.column_names) - {"embedding", "struct", "list of structs", "list of durations"}:
    before, after = items[name], results[name]
    if pa.types.is_temporal(after.type):
        # Python's own dates end at the year 9999.
        integers = pa.int64() if after.type.bit_width == 64 else pa.int32()
        # Arrow's date64 is a number to pyarrow.
        before = before.cast(after.type).cast(integers) if pa.types.is_temporal(before.type) else before
        after = after.cast(integers)
    before, after = before.to_pylist(), after.to_pylist()
    if pa.types.is_temporal(results[name].type):
        # Parquet has no seconds: arrow-rs writes them as plain numbers.
        units = [unit for unit in (1, 10**3, 10**6, 10**9) if [value and unit * value for value in before] == [after[ids.index(row)] for row in range(len(ids))]]
        assert len(units) == 1, (name, before, after)
        continue
    assert [plain(before[item]) for item in ids] == plain(after), (name, before, after)
for kind in ["results.parquet", "results.csv"]:
    assert duckdb.sql(f"select count(*) from '{kind}'").fetchall() == [(len(items),)], kind
assert duckdb.sql("select \"binary\" from 'results.parquet' where db_idx = 0").fetchall() == [(bytes([0, 0, 255]),)]
assert duckdb.sql("select from_base64(\"binary\"), \"duration ms\"::varchar from read_csv('results.csv') where db_idx = 0").fetchall() == [(bytes([0, 0, 255]), "PT1H30M0.5S")]
"#;
    let folder = folder();
    all_columns(folder.path(), "sql = \"weight\"");
    uphill_ok(&["search", "run.toml", "--out", "run", "--format", "csv"], folder.path());
    for name in ["results.parquet", "results.csv"] {
        uphill_ok(&["results", "run", "-o", name], folder.path());
    }
    std::fs::write(folder.path().join("script.py"), SCRIPT).expect("written");
    succeeds(Command::new(python()).arg("script.py").current_dir(folder.path()));
}

#[test]
fn scorers_get_attributes_of_every_type_as_json() {
    const SCORER: &str = r#"
import json, sys
for line in sys.stdin:
    if line.strip():
        item = json.loads(line)
        open(f"item-{item['db_idx']}.json", "w").write(line)
        print(json.dumps({"db_idx": item["db_idx"], "score": 1}))
    else:
        print(flush=True)
"#;
    let folder = folder();
    std::fs::write(folder.path().join("score.py"), SCORER).expect("written");
    all_columns(folder.path(), "command = [\"python3\", \"score.py\"]");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let item = |item| std::fs::read_to_string(folder.path().join(format!("item-{item}.json"))).expect("it was asked");
    let (first, third): (Value, Value) =
        (serde_json::from_str(&item(0)).expect("JSON"), serde_json::from_str(&item(2)).expect("JSON"));
    for (name, expected) in first_item().as_object().expect("an object") {
        // Decimals that a float holds exactly are numbers.
        let expected = match name.as_str() {
            "money" => json!(12.5),
            "decimal32" => json!(123.45),
            "f32" => json!(f64::from(0.1f32)),
            _ => expected.clone(),
        };
        assert_eq!(first[name], expected, "{name}");
        assert_eq!(third[name], Value::Null, "{name}");
    }
}

#[test]
fn a_filter_may_drop_all_rows_of_any_type() {
    let folder = folder();
    all_columns(folder.path(), "sql = \"weight\"\n[filter]\nsql = \"weight > 100\"");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    assert_eq!(uphill_ok(&["results", "run", "--format", "csv"], folder.path()).lines().count(), 1);
}

#[test]
fn unsupported_types_are_rejected_by_index_with_advice() {
    let wide = Decimal256Array::from_iter_values((0..ROWS).map(|row| i256::from_i128(row as i128)));
    let columns: Vec<(&str, ArrayRef, &str)> =
        vec![("wide", Arc::new(wide.with_precision_and_scale(60, 10).expect("digits")), "Decimal256(60, 10)")];
    for (name, column, dtype) in columns {
        let folder = folder();
        library(&folder.path().join("items.parquet"), vec![(name, column)]);
        let output = uphill(&["index", "items.parquet", "items.lance"], folder.path());
        let expected =
            format!("uphill: column `{name}`: unsupported type {dtype}; cast it (for example, to text), or drop it\n");
        assert_eq!((stderr(&output), output.status.code()), (expected, Some(1)));
        assert!(!folder.path().join("items.lance").exists());
    }
}

/// The cells of CSV, quoted ones too.
fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => cell.extend(characters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            c => cell.push(c),
        }
    }
    rows
}
