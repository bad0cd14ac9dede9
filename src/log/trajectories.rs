//! Trajectories of queries: groups the log by query, which is stored by iteration.

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

/// The columns of the results that trajectories need.
const RESULT_COLUMNS: [&str; 3] = [QUERY_IDX, DB_IDX, SCORE];

/// The bytes of these columns per row.
const RESULT_BYTES: u64 = 20;

impl SearchLog {
    /// The trajectory of each query, ordered by (`query_idx`, `iteration`): the columns of the queries frame, `iteration`,
    /// and the lists `db_idx` and `score` of the query's results, in the order of the results (empty if there are none).
    ///
    /// Reads the whole log and keeps all trajectories in memory. [`SearchLog::trajectories`] returns them in parts.
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

    /// The frame of [`SearchLog::compile_trajectories`] in parts, from top to bottom. A part contains at least one query, and the
    /// data of its queries take about `bytes` in the log. It needs about three times this memory. The log is read again for
    /// each part, so prefer few large parts.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn trajectories(&self, bytes: u64) -> Result<impl Iterator<Item = Result<DataFrame>> + '_> {
        let (mut queries, mut total) = (Vec::new(), 0u64);
        for iteration in &self.iterations {
            let file = self.file("queries", *iteration);
            let batch = read_rows(&file, &[QUERY_IDX], None)?;
            queries.extend_from_slice(query_indices(&batch).map_err(|error| error.with_path(&file))?.values());
            check_counts(&file)?;
            let rows = check_counts(&self.file("results", *iteration))?.file_metadata().num_rows();
            // Vectors are not compressed, so the file size is about their size in memory.
            total += file.metadata().at_path(&file)?.len() + RESULT_BYTES * rows.max(0) as u64;
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
        let no_rows = parts.is_empty().then(|| Ok(empty(&[QUERY_IDX, ITERATION])));
        let trajectories = |queries| self.trajectories_of(&queries).map_err(|error| error.with_path(&self.path));
        Ok(parts.into_iter().map(trajectories).chain(no_rows))
    }

    /// The trajectories of a range of queries.
    fn trajectories_of(&self, queries: &RangeInclusive<u32>) -> Result<DataFrame> {
        let read_queries = |kind, columns: &[&str], iteration| {
            read_rows(&self.file(kind, iteration), columns, Some((QUERY_IDX, queries)))
        };
        let read = self.iterations.par_iter().map(|iteration| {
            Ok((
                *iteration,
                read_queries("queries", &[], *iteration)?,
                read_queries("results", &RESULT_COLUMNS, *iteration)?,
            ))
        });
        let (mut steps, mut results) = (Vec::new(), Vec::new());
        // A step is a query in one iteration, with the key (query, iteration). A visit is the key of a step that has results,
        // and the range of their rows in the concatenated `results`.
        let (mut keys, mut visits, mut rows) = (Vec::new(), Vec::new(), 0);
        for (iteration, queries, found) in read.collect::<Result<Vec<_>>>()? {
            keys.extend(query_indices(&queries)?.values().iter().map(|query| (*query, iteration)));
            for visit in query_indices(&found)?.values().chunk_by(|a, b| a == b) {
                visits.push(((visit[0], iteration), rows..rows + visit.len() as u64));
                rows += visit.len() as u64;
            }
            steps.push(queries);
            results.push(found);
        }
        let mut order: Vec<u32> = (0..keys.len() as u32).collect();
        order.sort_by_key(|step| keys[*step as usize]);
        visits.sort_by_key(|(step, _)| *step);

        let mut visits = visits.into_iter().peekable();
        let (mut order_of_results, mut ends) = (Vec::with_capacity(rows as usize), vec![0]);
        for step in &order {
            let step = keys[*step as usize];
            while let Some((visited, rows)) = visits.next_if(|(visited, _)| *visited <= step) {
                order_of_results.extend(rows.filter(|_| visited == step));
            }
            ends.push(order_of_results.len() as i64);
        }
        let iterations = UInt32Array::from_iter_values(order.iter().map(|step| keys[*step as usize].1));
        let grouped = group_by_step(steps, &order.into(), iterations, results, &order_of_results.into(), ends);
        convert::to_polars(&grouped.wrap_err("trajectories")?)
    }
}

/// The steps in `order`, with their iterations and lists of their results. `rows` are the rows of all lists, one after the
/// other, and `ends` the offsets of the lists.
fn group_by_step(
    steps: Vec<RecordBatch>,
    order: &UInt32Array,
    iterations: UInt32Array,
    results: Vec<RecordBatch>,
    rows: &UInt64Array,
    ends: Vec<i64>,
) -> Result<RecordBatch, ArrowError> {
    let steps = take_record_batch(&concat(steps)?, order)?;
    let results = concat(results)?;
    let mut fields: Vec<_> = steps.schema().fields().iter().cloned().collect();
    let mut columns = steps.columns().to_vec();
    let mut add = |name: &str, column: ArrayRef| {
        fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
        columns.push(column);
    };
    add(ITERATION, Arc::new(iterations));
    for name in [DB_IDX, SCORE] {
        let values = take(
            results.column_by_name(name).ok_or(ArrowError::SchemaError(format!("no column `{name}`")))?,
            rows,
            None,
        )?;
        let field = Arc::new(Field::new("item", values.data_type().clone(), true));
        let lists = LargeListArray::try_new(field, OffsetBuffer::new(ends.clone().into()), values, None)?;
        add(name, Arc::new(lists));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Concatenates batches, with the columns of the last one.
fn concat(batches: Vec<RecordBatch>) -> Result<RecordBatch, ArrowError> {
    let schema = batches.last().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    concat_with_schema(schema, batches)
}

/// Concatenates batches with the columns of `schema`, the schema of the last iteration. Columns that a batch lacks are null.
pub(super) fn concat_with_schema(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<RecordBatch, ArrowError> {
    let aligned = batches.into_iter().map(|batch| {
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
    concat_batches(&schema, &aligned.collect::<Result<Vec<_>, _>>()?)
}

/// The column `query_idx` of a batch.
fn query_indices(batch: &RecordBatch) -> Result<&UInt32Array> {
    let column = batch.column_by_name(QUERY_IDX).and_then(|column| column.as_primitive_opt::<UInt32Type>());
    column.filter(|column| column.null_count() == 0).ok_or("is not u32 without nulls").wrap_err(QUERY_IDX)
}

/// An empty frame with these columns.
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
