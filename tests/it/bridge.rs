//! The bridge between arrow-rs and Polars, the only `unsafe` of the crate: every dtype, at every offset, with nulls,
//! in several chunks, of no rows. The oracle is Parquet: each library writes and reads it by itself, value by value.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, DictionaryArray, FixedSizeListArray, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, LargeListArray, LargeStringArray, ListArray,
    NullArray, RecordBatch, StringArray, StringViewArray, StructArray, TimestampMicrosecondArray, UInt8Array,
    UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Field, Float32Type, Int32Type, Int64Type};
use polars::prelude::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::common::*;

/// How a frame was cut out of a larger one.
#[derive(Clone, Debug)]
struct Shape {
    values: u64,
    rows: usize,
    nulls: bool,
    offset: usize,
    length: usize,
    chunks: usize,
}

fn shape() -> impl Strategy<Value = Shape> {
    let rows = prop_oneof![1 => Just(0usize), 2 => 1usize..4, 4 => 1usize..200];
    (any::<u64>(), rows, any::<bool>(), 0usize..70, 0usize..200, 1usize..4)
        .prop_map(|(values, rows, nulls, offset, length, chunks)| Shape { values, rows, nulls, offset, length, chunks })
}

fn for_shapes(cases: u32, seed: u64, property: impl Fn(&Shape)) {
    println!("seed {seed}");
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &key));
    let outcome = runner.run(&shape(), |shape| {
        property(&shape);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
}

/// Pseudo-random numbers of a shape: a fixed function of the row, so that shrinking keeps them.
fn number(shape: &Shape, row: usize) -> u64 {
    (shape.values ^ row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}

fn present(shape: &Shape, row: usize) -> bool {
    !shape.nulls || number(shape, row) % 5 > 1
}

/// A column of each type, by arrow-rs, of all rows.
fn arrays(shape: &Shape) -> Vec<(&'static str, ArrayRef)> {
    let rows = 0..shape.rows;
    let some = |row: usize| present(shape, row).then(|| number(shape, row));
    let text = |n: u64| "é-".repeat((n % 13) as usize) + &n.to_string();
    let list = |row: usize| some(row).map(|n| (0..n % 4).map(move |at| (at != 1).then_some(n as i64 + at as i64)));
    let vector = |row: usize| some(row).map(|n| (0..3).map(move |at| Some((n % 1000) as f32 + at as f32)));
    macro_rules! numbers {
        ($array:ty, $t:ty) => {
            Arc::new(rows.clone().map(|row| some(row).map(|n| n as $t)).collect::<$array>()) as ArrayRef
        };
    }
    let nulls = NullBuffer::from_iter(rows.clone().map(|row| present(shape, row)));
    let inner: ArrayRef = Arc::new(Int32Array::from_iter_values(rows.clone().map(|row| row as i32)));
    let pairs = StructArray::new(
        vec![Field::new("n", arrow::datatypes::DataType::Int32, true)].into(),
        vec![inner],
        shape.nulls.then_some(nulls),
    );
    vec![
        ("i8", numbers!(Int8Array, i8)),
        ("i16", numbers!(Int16Array, i16)),
        ("i32", numbers!(Int32Array, i32)),
        ("i64", numbers!(Int64Array, i64)),
        ("u8", numbers!(UInt8Array, u8)),
        ("u16", numbers!(UInt16Array, u16)),
        ("u32", numbers!(UInt32Array, u32)),
        ("u64", numbers!(UInt64Array, u64)),
        ("f32", numbers!(Float32Array, f32)),
        ("f64", numbers!(Float64Array, f64)),
        ("date", Arc::new(rows.clone().map(|row| some(row).map(|n| (n % 40_000) as i32)).collect::<Date32Array>())),
        (
            "time",
            Arc::new(
                rows.clone().map(|row| some(row).map(|n| (n >> 20) as i64)).collect::<TimestampMicrosecondArray>(),
            ),
        ),
        ("flag", Arc::new(rows.clone().map(|row| some(row).map(|n| n % 2 == 0)).collect::<BooleanArray>())),
        ("text", Arc::new(rows.clone().map(|row| some(row).map(text)).collect::<StringArray>())),
        ("large text", Arc::new(rows.clone().map(|row| some(row).map(text)).collect::<LargeStringArray>())),
        ("text view", Arc::new(rows.clone().map(|row| some(row).map(text)).collect::<StringViewArray>())),
        ("bytes", Arc::new(rows.clone().map(|row| some(row).map(u64::to_le_bytes)).collect::<BinaryArray>())),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows.clone().map(list)))),
        ("large list", Arc::new(LargeListArray::from_iter_primitive::<Int64Type, _, _>(rows.clone().map(list)))),
        ("vector", Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(rows.clone().map(vector), 3))),
        ("struct", Arc::new(pairs)),
        ("null", Arc::new(NullArray::new(shape.rows))),
    ]
}

/// A slice of the columns, as a batch whose arrays share buffers with longer ones.
fn sliced(shape: &Shape) -> RecordBatch {
    let batch =
        RecordBatch::try_from_iter_with_nullable(arrays(shape).into_iter().map(|(name, array)| (name, array, true)))
            .expect("a batch");
    let offset = shape.offset.min(batch.num_rows());
    batch.slice(offset, shape.length.min(batch.num_rows() - offset))
}

/// As Polars reads what arrow-rs writes: another way from the one to the other.
fn through_parquet(batch: &RecordBatch) -> DataFrame {
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
    writer.write(batch).expect("written");
    writer.close().expect("closed");
    ParquetReader::new(std::io::Cursor::new(bytes)).finish().expect("Parquet")
}

/// As arrow-rs reads what Polars writes.
fn back_through_parquet(frame: &DataFrame, folder: &TempDir) -> RecordBatch {
    let path = folder.path().join("frame.parquet");
    write(&path, frame);
    let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(
        std::fs::File::open(path).expect("a file"),
    );
    let builder = builder.expect("Parquet");
    let schema = builder.schema().clone();
    let batches: Vec<_> = builder.build().expect("a reader").map(|batch| batch.expect("a batch")).collect();
    arrow::compute::concat_batches(&schema, &batches).expect("a batch")
}

/// The values of two arrays, whatever the layouts of text and lists.
fn assert_same_values(name: &str, found: &ArrayRef, expected: &ArrayRef) {
    let expected = arrow::compute::cast(expected, found.data_type()).expect("a cast");
    assert_eq!(found.to_data(), expected.to_data(), "{name}");
}

fn arrow_to_polars(cases: u32, seed: u64) {
    for_shapes(cases, seed, |shape| {
        let batch = sliced(shape);
        // Polars has no Parquet for columns of nulls; nor does Parquet keep them.
        let typed: Vec<usize> = (0..batch.num_columns() - 1).collect();
        let expected = through_parquet(&batch.project(&typed).expect("columns"));
        let frame = uphill::to_polars(&batch).expect("a frame");
        // The buffers live on in the frame alone.
        drop(batch);
        assert_eq!(frame.column("null").expect("null").null_count(), frame.height());
        let frame = frame.drop("null").expect("dropped");
        assert_eq!(frame.schema(), expected.schema());
        assert!(frame.equals_missing(&expected), "{frame} is not {expected}");
    });
}

fn polars_to_arrow(cases: u32, seed: u64) {
    let folder = folder();
    for_shapes(cases, seed, |shape| {
        // A Polars frame of its own making, in chunks, then sliced.
        let typed: Vec<usize> = (0..22 - 1).collect();
        let whole = RecordBatch::try_from_iter_with_nullable(arrays(shape).into_iter().map(|(n, a)| (n, a, true)));
        let whole = through_parquet(&whole.expect("a batch").project(&typed).expect("columns"));
        let mut frame = whole.clone();
        for _ in 1..shape.chunks {
            frame.vstack_mut(&whole).expect("stacked");
        }
        let frame = frame.slice((shape.offset % (frame.height() + 1)) as i64, shape.length);
        let expected = back_through_parquet(&frame, &folder);
        let batch = uphill::to_arrow(&frame).expect("a batch");
        let height = frame.height();
        drop((frame, whole));
        assert_eq!(batch.num_rows(), height);
        for (field, found) in batch.schema().fields().iter().zip(batch.columns()) {
            assert!(found.to_data().validate_full().is_ok(), "{}", field.name());
            assert_same_values(field.name(), found, expected.column_by_name(field.name()).expect("a column"));
        }
    });
}

fn there_and_back(cases: u32, seed: u64) {
    for_shapes(cases, seed, |shape| {
        let frame = uphill::to_polars(&sliced(shape)).expect("a frame");
        let again = uphill::to_polars(&uphill::to_arrow(&frame).expect("a batch")).expect("a frame");
        assert_eq!(frame.schema(), again.schema());
        assert!(frame.equals_missing(&again), "{frame} is not {again}");
    });
}

#[test]
fn arrow_arrays_become_the_same_columns_as_through_parquet() {
    arrow_to_polars(150, 1);
}

#[test]
fn polars_columns_become_the_same_arrays_as_through_parquet() {
    polars_to_arrow(150, 2);
}

#[test]
fn frames_are_unchanged_after_a_conversion_to_arrow_and_back() {
    there_and_back(150, 3);
}

#[test]
#[ignore = "long"]
fn the_bridge_long() {
    let seed = fresh_seed();
    arrow_to_polars(10_000, seed);
    polars_to_arrow(10_000, seed);
    there_and_back(10_000, seed);
}

#[test]
fn a_column_outlives_its_batch_and_an_array_outlives_its_frame() {
    let values: Vec<u64> = (0..50_000).collect();
    let batch =
        RecordBatch::try_from_iter([("n", Arc::new(UInt64Array::from(values.clone())) as ArrayRef)]).expect("a batch");
    let frame = uphill::to_polars(&batch.slice(10_000, 20_000)).expect("a frame");
    drop(batch);
    let filler: Vec<Vec<u64>> = (0..50).map(|_| vec![u64::MAX; 10_000]).collect();
    assert_eq!(u64s(&frame, "n"), values[10_000..30_000]);
    let batch = uphill::to_arrow(&frame.slice(5, 10_000)).expect("a batch");
    drop((frame, filler));
    let _filler: Vec<Vec<u64>> = (0..50).map(|_| vec![0; 10_000]).collect();
    let column = batch.column(0).as_any().downcast_ref::<UInt64Array>().expect("u64");
    assert_eq!(column.values(), &values[10_005..20_005]);
}

#[test]
fn numbers_and_embeddings_are_shared_not_copied() {
    let vectors = normal(1_000, 8, &mut rng(4));
    let frame = items(&vectors);
    let batch = uphill::to_arrow(&frame).expect("a batch");
    let list = batch.column_by_name("embedding").expect("embedding");
    let list = list.as_any().downcast_ref::<FixedSizeListArray>().expect("a fixed-size list");
    let values = list.values().as_any().downcast_ref::<Float32Array>().expect("f32");
    let matrix = uphill::matrix::<f32>(&frame, "embedding").expect("a matrix");
    assert_eq!(values.values().as_ptr(), matrix.view().as_ptr());
    let again = uphill::to_polars(&batch).expect("a frame");
    let again = uphill::matrix::<f32>(&again, "embedding").expect("a matrix");
    assert_eq!(values.values().as_ptr(), again.view().as_ptr());
}

#[test]
fn types_that_polars_does_not_have_are_errors() {
    let union = arrow::datatypes::UnionFields::from_iter([(
        0,
        Arc::new(Field::new("n", arrow::datatypes::DataType::Int32, true)),
    )]);
    let ids = arrow::buffer::ScalarBuffer::from(vec![0i8, 0]);
    let union = arrow::array::UnionArray::try_new(union, ids, None, vec![Arc::new(Int32Array::from(vec![1, 2]))]);
    let odd: Vec<(&str, ArrayRef)> = vec![
        ("union", Arc::new(union.expect("a union"))),
        ("interval", Arc::new(arrow::array::IntervalYearMonthArray::from(vec![1]))),
    ];
    for (name, array) in odd {
        let batch = RecordBatch::try_from_iter([(name, array)]).expect("a batch");
        let error = uphill::to_polars(&batch).expect_err(name).to_string();
        assert!(error.contains(name) && error.lines().count() == 1, "{error}");
    }
    let keys: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
    let batch = RecordBatch::try_from_iter([("keys", Arc::new(keys) as ArrayRef)]).expect("a batch");
    // A dictionary is text to us.
    let text = uphill::to_polars(&batch).map(|frame| frame.column("keys").expect("keys").cast(&DataType::String));
    if let Ok(text) = text {
        assert_eq!(text.expect("text").str().expect("text").iter().flatten().collect::<Vec<_>>(), ["a", "b", "a"]);
    }
}
