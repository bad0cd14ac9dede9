//! The path of each query: the log, kept by iteration, turned to go by query.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeListArray, RecordBatch, UInt32Array, UInt64Array, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{concat_batches, take, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef, UInt32Type};
use arrow::error::ArrowError;
use polars::prelude::{Column, DataFrame, DataType as PolarsType, IntoLazy, LazyFrame};
use rayon::prelude::*;

use super::SearchLog;
use crate::error::{AtPath, Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::{DB_IDX, ITERATION, QUERY_IDX, SCORE};
use crate::io::parquet::{check_counts, read_rows};

/// Of the results, in bytes a row.
const MET: ([&str; 3], u64) = ([QUERY_IDX, DB_IDX, SCORE], 20);

impl SearchLog {
    /// The path of each query, ordered by (`query_idx`, `iteration`): the columns of the queries frame, `iteration`,
    /// and the lists `db_idx` and `score` of what the query met there, in the order of the results (empty if nothing).
    ///
    /// The log is read here, and its paths are held in memory; [`SearchLog::trajectories`] gives them part by part.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn compile_trajectories(&self) -> Result<LazyFrame> {
        let mut all = DataFrame::empty();
        for part in self.trajectories(256 << 20)? {
            all.vstack_mut_owned(part?).wrap_err("trajectories")?;
        }
        Ok(all.lazy())
    }

    /// What [`SearchLog::compile_trajectories`] gives, as frames one below the other: for each the log is read for as
    /// many queries as have about so many `bytes` in it, and for one at least. It takes some three times that in memory.
    /// Each part reads the files of the queries up to its last one: parts should not be many.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn trajectories(&self, bytes: u64) -> Result<impl Iterator<Item = Result<DataFrame>> + '_> {
        let (mut queries, mut total) = (Vec::new(), 0u64);
        for iteration in &self.iterations {
            let file = self.file("queries", *iteration);
            let batch = read_rows(&file, &[QUERY_IDX], None)?;
            queries.extend_from_slice(numbers(&batch).map_err(|error| error.with_path(&file))?.values());
            check_counts(&file)?;
            let met = check_counts(&self.file("results", *iteration))?.file_metadata().num_rows();
            // Vectors are not compressed: what there is of them is what the file takes.
            total += file.metadata().at_path(&file)?.len() + MET.1 * met.max(0) as u64;
        }
        queries.sort_unstable();
        let rows = (bytes as u128 * queries.len() as u128 / total.max(1) as u128).clamp(1, u32::MAX.into()) as usize;
        let mut parts = Vec::new();
        let mut from = 0;
        while from < queries.len() {
            let last = queries[(from + rows - 1).min(queries.len() - 1)];
            parts.push(queries[from]..=last);
            from = queries.partition_point(|query| *query <= last);
        }
        let nothing = parts.is_empty().then(|| Ok(empty(&[QUERY_IDX, ITERATION])));
        let paths = |queries| self.paths_of(&queries).map_err(|error| error.with_path(&self.path));
        Ok(parts.into_iter().map(paths).chain(nothing))
    }

    /// The paths of some queries.
    fn paths_of(&self, queries: &RangeInclusive<u32>) -> Result<DataFrame> {
        let of_queries = |kind, columns: &[&str], iteration| {
            read_rows(&self.file(kind, iteration), columns, Some((QUERY_IDX, queries)))
        };
        let read = self.iterations.par_iter().map(|iteration| {
            Ok((*iteration, of_queries("queries", &[], *iteration)?, of_queries("results", &MET.0, *iteration)?))
        });
        let (mut steps, mut met) = (Vec::new(), Vec::new());
        // A step is a query in an iteration; a visit is a step and rows of what it met.
        let (mut names, mut visits, mut rows) = (Vec::new(), Vec::new(), 0);
        for (iteration, queries, results) in read.collect::<Result<Vec<_>>>()? {
            names.extend(numbers(&queries)?.values().iter().map(|query| (*query, iteration)));
            for of_one in numbers(&results)?.values().chunk_by(|a, b| a == b) {
                visits.push(((of_one[0], iteration), rows..rows + of_one.len() as u64));
                rows += of_one.len() as u64;
            }
            steps.push(queries);
            met.push(results);
        }
        let mut order: Vec<u32> = (0..names.len() as u32).collect();
        order.sort_by_key(|step| names[*step as usize]);
        visits.sort_by_key(|(step, _)| *step);

        let mut visits = visits.into_iter().peekable();
        let (mut taken, mut ends) = (Vec::with_capacity(rows as usize), vec![0]);
        for step in &order {
            let step = names[*step as usize];
            while let Some((of, rows)) = visits.next_if(|(of, _)| *of <= step) {
                taken.extend(rows.filter(|_| of == step));
            }
            ends.push(taken.len() as i64);
        }
        let iterations = UInt32Array::from_iter_values(order.iter().map(|step| names[*step as usize].1));
        let turned = turned(steps, &order.into(), iterations, met, &taken.into(), ends).wrap_err("trajectories");
        turned.and_then(|turned| convert::to_polars(&turned))
    }
}

/// The steps in order, with their iterations and lists of what they met.
fn turned(
    steps: Vec<RecordBatch>,
    order: &UInt32Array,
    iterations: UInt32Array,
    met: Vec<RecordBatch>,
    rows: &UInt64Array,
    ends: Vec<i64>,
) -> Result<RecordBatch, ArrowError> {
    let steps = take_record_batch(&concat(steps)?, order)?;
    let met = concat(met)?;
    let mut fields: Vec<_> = steps.schema().fields().iter().cloned().collect();
    let mut columns = steps.columns().to_vec();
    let mut add = |name: &str, column: ArrayRef| {
        fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
        columns.push(column);
    };
    add(ITERATION, Arc::new(iterations));
    for name in [DB_IDX, SCORE] {
        let values =
            take(met.column_by_name(name).ok_or(ArrowError::SchemaError(format!("no column `{name}`")))?, rows, None)?;
        let field = Arc::new(Field::new("item", values.data_type().clone(), true));
        let lists = LargeListArray::try_new(field, OffsetBuffer::new(ends.clone().into()), values, None)?;
        add(name, Arc::new(lists));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Batches one below the other, with the columns of the last.
fn concat(batches: Vec<RecordBatch>) -> Result<RecordBatch, ArrowError> {
    let schema = batches.last().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    below_each_other(schema, batches)
}

/// Batches one below the other, with the columns of the last iteration: those that others lack are null there.
pub(super) fn below_each_other(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<RecordBatch, ArrowError> {
    let alike = batches.into_iter().map(|batch| {
        if let Some(field) = batch.schema().fields().iter().find(|field| schema.index_of(field.name()).is_err()) {
            return Err(ArrowError::SchemaError(format!("the last iteration has no column `{}`", field.name())));
        }
        let columns = schema.fields().iter().map(|field| {
            batch
                .column_by_name(field.name())
                .cloned()
                .unwrap_or_else(|| new_null_array(field.data_type(), batch.num_rows()))
        });
        RecordBatch::try_new(schema.clone(), columns.collect())
    });
    concat_batches(&schema, &alike.collect::<Result<Vec<_>, _>>()?)
}

/// The numbers of the queries of a batch.
fn numbers(batch: &RecordBatch) -> Result<&UInt32Array> {
    let column = batch.column_by_name(QUERY_IDX).and_then(|column| column.as_primitive_opt::<UInt32Type>());
    column.filter(|column| column.null_count() == 0).ok_or("is not u32 without nulls").wrap_err(QUERY_IDX)
}

/// No rows of columns of those names.
pub(super) fn empty(names: &[&str]) -> DataFrame {
    let columns = names.iter().map(|name| {
        let dtype = match *name {
            DB_IDX => PolarsType::UInt64,
            SCORE => PolarsType::Float64,
            _ => PolarsType::UInt32,
        };
        Column::new_empty((*name).into(), &dtype)
    });
    DataFrame::new(0, columns.collect()).unwrap_or_default()
}
