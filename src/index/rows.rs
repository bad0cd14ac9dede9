//! The valid rows of all files, streamed.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, RecordBatch, RecordBatchReader, UInt64Array,
};
use arrow::compute;
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use super::columns::{embedding_position, output_schema, same_columns};
use super::content::Content;
use super::options::{IndexOptions, Progress};
use super::vectors::{Invalid, Vectors};
use crate::database::Metric;
use crate::error::{Doing, Error, Result, one_line};
use crate::untrusted::{caught, open_parquet};

/// The valid rows of all files as batches in the dataset's schema.
pub(super) struct Rows {
    files: VecDeque<PathBuf>,
    current: Option<(PathBuf, u64, ParquetRecordBatchReader)>,
    input: SchemaRef,
    output: SchemaRef,
    embedding: usize,
    pub(super) dim: usize,
    metric: Metric,
    source_row: Option<u64>,
    total: u64,
    seen: u64,
    progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    stop: Option<Arc<AtomicBool>>,
    content: Content,
    pub(super) outcome: Arc<Mutex<Outcome>>,
}

/// What the reader found, for the writer's other end.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) kept: u64,
    pub(super) invalid: Invalid,
    /// Once all rows were read.
    pub(super) library_id: String,
    pub(super) error: Option<Error>,
}

impl Rows {
    /// Opens the files, whose columns must be the same.
    pub(super) fn open(files: &[PathBuf], metric: Metric, options: &IndexOptions) -> Result<Self> {
        let mut total = 0;
        let mut input: Option<(SchemaRef, &PathBuf)> = None;
        for path in files {
            let builder = open_parquet(path)?;
            total += builder.metadata().file_metadata().num_rows().max(0) as u64;
            match &input {
                None => input = Some((builder.schema().clone(), path)),
                Some((first, first_path)) => same_columns(first, first_path, builder.schema(), path)?,
            }
        }
        let Some((input, first_path)) = input else { return Err(Error::Config("no files".into())) };
        if total == 0 {
            return Err(Error::input(first_path, "no rows; an empty library cannot be searched"));
        }
        let embedding = embedding_position(&input, first_path, options.embedding_column.as_deref())?;
        let dim = match input.field(embedding).data_type() {
            DataType::FixedSizeList(_, dim) => *dim as usize,
            _ => first_length(files, embedding)?,
        };
        if dim == 0 {
            return Err(Error::input(
                first_path,
                format!("column `{}`: embeddings of no components", input.field(embedding).name()),
            ));
        }
        if (0..input.fields().len()).any(|at| at != embedding && input.field(at).name().is_empty()) {
            return Err(Error::input(first_path, "a column without a name; give it one, or leave it out"));
        }
        let output = output_schema(&input, embedding, dim, options)?;
        let content = Content::new(&output, embedding).map_err(|error| error.of(first_path))?;
        Ok(Rows {
            files: files.iter().cloned().collect(),
            current: None,
            input,
            output,
            embedding,
            dim,
            metric,
            source_row: options.skip_invalid.then_some(0),
            total,
            seen: 0,
            progress: options.progress.clone(),
            stop: options.stop.clone(),
            content,
            outcome: Arc::default(),
        })
    }

    /// The next batch of kept rows; `None` at the end.
    fn advance(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(Error::Interrupted);
            }
            let Some((path, row, reader)) = &mut self.current else {
                let Some(path) = self.files.pop_front() else { return self.end() };
                let reader = open_parquet(&path)?.with_batch_size(8192).build().doing(path.display())?;
                self.current = Some((path, 0, reader));
                continue;
            };
            match reader.next() {
                None => self.current = None,
                Some(Err(error)) => return Err(Error::input(&*path, one_line(&error.to_string()))),
                Some(Ok(batch)) => {
                    let (path, first_row) = (path.clone(), *row);
                    *row += batch.num_rows() as u64;
                    let kept = self.convert(&batch, &path, first_row)?;
                    self.seen += batch.num_rows() as u64;
                    if let Some(progress) = &self.progress {
                        progress(Progress::Rows(self.seen, self.total));
                    }
                    if kept.num_rows() > 0 {
                        return Ok(Some(kept));
                    }
                }
            }
        }
    }

    /// Invalid rows are counted to the end, so that one message tells of them all.
    fn end(&mut self) -> Result<Option<RecordBatch>> {
        let mut outcome = self.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if outcome.invalid.total() > 0 && self.source_row.is_none() {
            return Err(Error::Library {
                context: "items".into(),
                message: format!("{}; mend them, or leave them out with --skip-invalid", outcome.invalid),
            });
        }
        if outcome.kept == 0 {
            return Err(Error::Library { context: "items".into(), message: "no valid rows".into() });
        }
        outcome.library_id = self.content.id();
        Ok(None)
    }

    fn convert(&mut self, batch: &RecordBatch, path: &Path, first_row: u64) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let vectors = Vectors::of(batch.column(self.embedding))?;
        let outcome = &mut *self.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut keep = vec![true; rows];
        let mut values: Vec<f32> = Vec::with_capacity(vectors.values.len());
        for (row, keep) in keep.iter_mut().enumerate() {
            match vectors.check(row, self.dim, self.metric) {
                Ok(vector) => values.extend_from_slice(vector),
                Err((kind, what)) => {
                    *keep = false;
                    outcome.invalid.counts[kind] += 1;
                    outcome.invalid.first.get_or_insert_with(|| (path.to_path_buf(), first_row + row as u64, what));
                }
            }
        }
        let kept = values.len() / self.dim;
        outcome.kept += kept as u64;
        let values = Float32Array::from(values);
        let item = Arc::new(Field::new("item", DataType::Float32, true));
        let embedding: ArrayRef =
            Arc::new(FixedSizeListArray::try_new(item, self.dim as i32, Arc::new(values), None).doing("embeddings")?);
        let keep = (kept < rows).then(|| BooleanArray::from(keep));
        let filtered = |array: ArrayRef| match &keep {
            Some(keep) => compute::filter(&array, keep).doing("dropping invalid rows"),
            None => Ok(array),
        };
        let mut columns = Vec::with_capacity(batch.num_columns() + 1);
        for (position, array) in batch.columns().iter().enumerate() {
            if position == self.embedding {
                columns.push(embedding.clone());
            } else {
                let array = compute::cast(array, self.output.field(position).data_type())
                    .doing(self.input.field(position).name())?;
                columns.push(filtered(array)?);
            }
        }
        if let Some(next) = &mut self.source_row {
            let numbers = UInt64Array::from_iter_values(*next..*next + rows as u64);
            *next += rows as u64;
            columns.push(filtered(Arc::new(numbers))?);
        }
        let batch = RecordBatch::try_new(self.output.clone(), columns).doing("items")?;
        self.content.add(&batch)?;
        Ok(batch)
    }
}

impl Iterator for Rows {
    type Item = Result<RecordBatch, ArrowError>;
    fn next(&mut self) -> Option<Self::Item> {
        // Lance calls this on a thread of its own, where a panic would take the file's name with it.
        let file = self.current.as_ref().map(|(path, ..)| path).or(self.files.front()).cloned().unwrap_or_default();
        caught(file, || self.advance())
            .map_err(|error| {
                let message = error.to_string();
                let mut outcome = self.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                outcome.error = Some(error);
                ArrowError::ExternalError(message.into())
            })
            .transpose()
    }
}

impl RecordBatchReader for Rows {
    fn schema(&self) -> SchemaRef {
        self.output.clone()
    }
}

/// The length of the first embedding that is there.
fn first_length(files: &[PathBuf], embedding: usize) -> Result<usize> {
    for path in files {
        for batch in open_parquet(path)?.with_batch_size(1024).build().doing(path.display())? {
            let batch = batch.map_err(|error| Error::input(path, one_line(&error.to_string())))?;
            if let Some(length) = Vectors::of(batch.column(embedding))?.first_length() {
                return Ok(length);
            }
        }
    }
    Err(Error::input(&files[0], "every embedding is null"))
}
