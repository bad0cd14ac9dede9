//! Attributes of every Arrow type, from Parquet through a search to each format, and to scorers.

use std::path::Path;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Field, Fields, Float32Type, Int8Type, Int32Type, Int64Type, IntervalMonthDayNano, TimeUnit, i256,
};
use half::f16;
use parquet::arrow::ArrowWriter;

use crate::common::*;

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
        None,
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
        ("f32", of!(Float32Array, |row| row as f32 + 0.1)),
        ("text", of!(StringArray, |row| format!("é{row}"))),
        ("large text", of!(LargeStringArray, |row| format!("é{row}"))),
        ("text view", of!(StringViewArray, |row| format!("a text of more than twelve bytes {row}"))),
        ("binary", of!(BinaryArray, |row| vec![row as u8, 0, 255])),
        ("large binary", of!(LargeBinaryArray, |row| vec![row as u8, 0, 255])),
        ("binary view", of!(BinaryViewArray, |row| vec![row as u8, 0, 255])),
        (
            "fixed binary",
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(some(|row| [row as u8, 0, 255]), 3)
                    .expect("bytes"),
            ),
        ),
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
        ("decimal256 wide", decimal!(Decimal256Array, |row| i256::from_i128(row as i128), 60, 10)),
        (
            "interval",
            Arc::new(some(|row| IntervalMonthDayNano::new(1, row as i32, 5)).collect::<IntervalMonthDayNanoArray>()),
        ),
        ("interval ym", of!(IntervalYearMonthArray, |row| row as i32)),
        ("struct of nothing", Arc::new(StructArray::new_empty_fields(ROWS, None))),
        ("far date", of!(Date32Array, |row| i32::MAX - row as i32)),
        ("far timestamp", of!(TimestampSecondArray, |row| i64::MAX / 1000 - n(row))),
        ("far ms", of!(TimestampMillisecondArray, |row| i64::MAX - n(row))),
        ("far duration", of!(DurationMillisecondArray, |row| i64::MIN + n(row))),
        ("far time", of!(Time64NanosecondArray, |row| i64::MAX - n(row))),
    ]
}

fn library(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let vectors = (0..ROWS).map(|row| Some((0..3).map(move |at| Some((row * 3 + at) as f32))));
    let vectors: ArrayRef = Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, 3));
    let weights: ArrayRef = Arc::new(Float64Array::from_iter_values((0..ROWS).map(|row| -(row as f64))));
    let first = [("embedding", vectors), ("weight", weights)];
    let all = first.into_iter().chain(columns).map(|(name, array)| (name, array, true));
    let batch = RecordBatch::try_from_iter_with_nullable(all).expect("a batch");
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(path).expect("a file"), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

const RUN: &str = "[database]\npath = \"items.lance\"\nk = 12\n[queries]\nsample = 2\n[stop]\niterations = 2\n[update]\nrule = \"rl\"\n[score]\nsql = \"weight\"\n";

#[test]
#[ignore = "explores"]
fn explore() {
    for (name, array) in columns() {
        let folder = folder();
        let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            library(&folder.path().join("items.parquet"), vec![(name, array.clone())])
        }));
        if written.is_err() {
            println!("{name:20} NOT WRITTEN");
            continue;
        }
        std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
        let said = |arguments: &[&str]| {
            let output = uphill(arguments, folder.path());
            let text = String::from_utf8_lossy(&output.stdout)
                .lines()
                .nth(if arguments.contains(&"table") { 3 } else { 1 })
                .unwrap_or("")
                .to_string();
            println!(
                "{name:20} {:?} {} {} {}",
                output.status.code(),
                arguments[0],
                arguments.last().unwrap(),
                if output.status.success() { text } else { stderr(&output) }
            );
            output.status.success()
        };
        if !said(&["index", "items.parquet", "items.lance"]) {
            continue;
        }
        if !said(&["search", "run.toml", "--out", "run", "--format", "csv"]) {
            if !folder.path().join("run/results/iteration=000001").exists() {
                continue;
            }
        }
        for format in ["table", "csv", "json", "parquet"] {
            said(&["results", "run", "-n", "3", "--format", format]);
        }
    }
}
