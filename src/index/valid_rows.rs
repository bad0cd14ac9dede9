//! Streams the valid rows of the input as batches in the dataset's schema.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, RecordBatch, RecordBatchReader, UInt64Array,
};
use arrow::compute;
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;

use super::columns::{embedding_position, output_schema};
use super::content_hash::ContentHasher;
use super::embeddings::{EmbeddingColumn, InvalidRows};
use super::options::{IndexOptions, IndexProgress};
use super::row_source::{RowSource, SourceBatch};
use crate::database::Metric;
use crate::error::{Error, Result, WrapErr};
use crate::frame::dtypes::cast_strict;
use crate::panics::catch_at_path;

/// A reader of the valid rows of files or of a table, in the dataset's schema.
pub(super) struct ValidRows {
    source: RowSource,
    output: SchemaRef,
    embedding: usize,
    pub(super) dim: usize,
    metric: Metric,
    /// The next value of the `source_row` column, if there is one.
    source_row: Option<u64>,
    rows_read: u64,
    progress: Option<Arc<dyn Fn(IndexProgress) + Send + Sync>>,
    stop: Option<Arc<AtomicBool>>,
    hasher: ContentHasher,
    pub(super) summary: Arc<Mutex<ReadSummary>>,
}

/// The result of reading all rows. It is shared with the caller, because Lance owns the reader while it writes.
#[derive(Default)]
pub(super) struct ReadSummary {
    /// The number of valid rows.
    pub(super) valid: u64,
    pub(super) invalid: InvalidRows,
    /// The content hash, set after the last row.
    pub(super) library_id: String,
    pub(super) error: Option<Error>,
}

impl ValidRows {
    /// Checks the columns, and reads the dimension of the first embedding.
    pub(super) fn open(mut source: RowSource, metric: Metric, options: &IndexOptions) -> Result<Self> {
        let (input, name) = (source.schema.clone(), source.name.clone());
        let embedding = embedding_position(&input, &name, options.embedding_column.as_deref())?;
        let dim = match input.field(embedding).data_type() {
            DataType::FixedSizeList(_, dim) => *dim as usize,
            _ => source.first_embedding_length(embedding)?,
        };
        if dim == 0 {
            return Err(Error::input(
                name,
                format!("column `{}`: embeddings have no components", input.field(embedding).name()),
            ));
        }
        if (0..input.fields().len()).any(|at| at != embedding && input.field(at).name().is_empty()) {
            return Err(Error::input(name, "a column has no name; name it or remove it"));
        }
        let output = output_schema(&input, embedding, dim, options)?;
        let hasher = ContentHasher::new(&output, embedding).map_err(|error| error.with_path(name))?;
        Ok(ValidRows {
            source,
            output,
            embedding,
            dim,
            metric,
            source_row: options.skip_invalid.then_some(0),
            rows_read: 0,
            progress: options.progress.clone(),
            stop: options.stop.clone(),
            hasher,
            summary: Arc::default(),
        })
    }

    /// The next batch of valid rows. `None` at the end.
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(Error::Interrupted);
            }
            let Some(SourceBatch { path, first_row, batch }) = self.source.next().transpose()? else {
                return self.finish();
            };
            let valid = catch_at_path(&*path, || self.convert(&batch, &path, first_row))?;
            self.rows_read += batch.num_rows() as u64;
            if let Some(progress) = &self.progress {
                progress(IndexProgress::Rows(self.rows_read, self.source.total_rows.max(self.rows_read)));
            }
            if valid.num_rows() > 0 {
                return Ok(Some(valid));
            }
        }
    }

    /// Checks the counts after the last row. Invalid rows are counted to the end, so that one message reports all of them.
    fn finish(&mut self) -> Result<Option<RecordBatch>> {
        let mut summary = self.summary.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if summary.invalid.total() > 0 && self.source_row.is_none() {
            return Err(Error::Dependency {
                context: "items".into(),
                message: format!("{}; fix them, or drop them with --skip-invalid", summary.invalid),
                cause: None,
            });
        }
        if summary.valid == 0 {
            return Err(Error::Dependency { context: "items".into(), message: "no valid rows".into(), cause: None });
        }
        summary.library_id = self.hasher.library_id();
        Ok(None)
    }

    /// Drops invalid rows of a batch, and converts the others to the dataset's schema.
    fn convert(&mut self, batch: &RecordBatch, path: &Path, first_row: u64) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let embeddings = EmbeddingColumn::new(batch.column(self.embedding))?;
        let summary = &mut *self.summary.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut is_valid = vec![true; rows];
        let mut values: Vec<f32> = Vec::with_capacity(embeddings.values.len());
        for (row, is_valid) in is_valid.iter_mut().enumerate() {
            match embeddings.check(row, self.dim, self.metric) {
                Ok(vector) => values.extend_from_slice(vector),
                Err((kind, reason)) => {
                    *is_valid = false;
                    summary.invalid.counts[kind] += 1;
                    summary.invalid.first.get_or_insert_with(|| (path.to_path_buf(), first_row + row as u64, reason));
                }
            }
        }
        let valid = values.len() / self.dim;
        summary.valid += valid as u64;
        let values = Float32Array::from(values);
        let item = Arc::new(Field::new("item", DataType::Float32, true));
        let embedding: ArrayRef = Arc::new(
            FixedSizeListArray::try_new(item, self.dim as i32, Arc::new(values), None).wrap_err("embeddings")?,
        );
        let mask = (valid < rows).then(|| BooleanArray::from(is_valid));
        let filter = |array: ArrayRef| match &mask {
            Some(mask) => compute::filter(&array, mask).wrap_err("dropping invalid rows"),
            None => Ok(array),
        };
        let mut columns = Vec::with_capacity(batch.num_columns() + 1);
        for (position, array) in batch.columns().iter().enumerate() {
            if position == self.embedding {
                columns.push(embedding.clone());
            } else {
                let dtype = self.output.field(position).data_type();
                let array = cast_strict(self.source.schema.field(position).name(), array, dtype);
                columns.push(filter(array.map_err(|error| error.with_path(path))?)?);
            }
        }
        if let Some(next) = &mut self.source_row {
            let numbers = UInt64Array::from_iter_values(*next..*next + rows as u64);
            *next += rows as u64;
            columns.push(filter(Arc::new(numbers))?);
        }
        let batch = RecordBatch::try_new(self.output.clone(), columns).wrap_err("items")?;
        self.hasher.update(&batch)?;
        Ok(batch)
    }
}

impl Iterator for ValidRows {
    type Item = Result<RecordBatch, ArrowError>;
    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch()
            .map_err(|error| {
                let message = error.to_string();
                let mut summary = self.summary.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                summary.error = Some(error);
                ArrowError::ExternalError(message.into())
            })
            .transpose()
    }
}

impl RecordBatchReader for ValidRows {
    fn schema(&self) -> SchemaRef {
        self.output.clone()
    }
}
