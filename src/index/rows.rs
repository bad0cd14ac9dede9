//! The valid rows of all files, streamed.

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
use super::content::Content;
use super::options::{IndexOptions, Progress};
use super::source::{Source, Take};
use super::vectors::{Invalid, Vectors};
use crate::database::Metric;
use crate::error::{Error, Result, WrapErr};
use crate::frame::dtypes::cast_strict;
use crate::panics::catch_at_path;

/// The valid rows of files or of a table as batches in the dataset's schema.
pub(super) struct Rows {
    source: Source,
    output: SchemaRef,
    embedding: usize,
    pub(super) dim: usize,
    metric: Metric,
    source_row: Option<u64>,
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
    /// Looks at the columns, and at the first embedding.
    pub(super) fn open(mut source: Source, metric: Metric, options: &IndexOptions) -> Result<Self> {
        let (input, name) = (source.schema.clone(), source.name.clone());
        let embedding = embedding_position(&input, &name, options.embedding_column.as_deref())?;
        let dim = match input.field(embedding).data_type() {
            DataType::FixedSizeList(_, dim) => *dim as usize,
            _ => source.first_length(embedding)?,
        };
        if dim == 0 {
            return Err(Error::input(
                name,
                format!("column `{}`: embeddings of no components", input.field(embedding).name()),
            ));
        }
        if (0..input.fields().len()).any(|at| at != embedding && input.field(at).name().is_empty()) {
            return Err(Error::input(name, "a column without a name; give it one, or leave it out"));
        }
        let output = output_schema(&input, embedding, dim, options)?;
        let content = Content::new(&output, embedding).map_err(|error| error.with_path(name))?;
        Ok(Rows {
            source,
            output,
            embedding,
            dim,
            metric,
            source_row: options.skip_invalid.then_some(0),
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
            let Some(Take { place, first_row, batch }) = self.source.next().transpose()? else { return self.end() };
            let kept = catch_at_path(&*place, || self.convert(&batch, &place, first_row))?;
            self.seen += batch.num_rows() as u64;
            if let Some(progress) = &self.progress {
                progress(Progress::Rows(self.seen, self.source.total.max(self.seen)));
            }
            if kept.num_rows() > 0 {
                return Ok(Some(kept));
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
                cause: None,
            });
        }
        if outcome.kept == 0 {
            return Err(Error::Library { context: "items".into(), message: "no valid rows".into(), cause: None });
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
        let embedding: ArrayRef = Arc::new(
            FixedSizeListArray::try_new(item, self.dim as i32, Arc::new(values), None).wrap_err("embeddings")?,
        );
        let keep = (kept < rows).then(|| BooleanArray::from(keep));
        let filtered = |array: ArrayRef| match &keep {
            Some(keep) => compute::filter(&array, keep).wrap_err("dropping invalid rows"),
            None => Ok(array),
        };
        let mut columns = Vec::with_capacity(batch.num_columns() + 1);
        for (position, array) in batch.columns().iter().enumerate() {
            if position == self.embedding {
                columns.push(embedding.clone());
            } else {
                let dtype = self.output.field(position).data_type();
                let array = cast_strict(self.source.schema.field(position).name(), array, dtype);
                columns.push(filtered(array.map_err(|error| error.with_path(path))?)?);
            }
        }
        if let Some(next) = &mut self.source_row {
            let numbers = UInt64Array::from_iter_values(*next..*next + rows as u64);
            *next += rows as u64;
            columns.push(filtered(Arc::new(numbers))?);
        }
        let batch = RecordBatch::try_new(self.output.clone(), columns).wrap_err("items")?;
        self.content.add(&batch)?;
        Ok(batch)
    }
}

impl Iterator for Rows {
    type Item = Result<RecordBatch, ArrowError>;
    fn next(&mut self) -> Option<Self::Item> {
        self.advance()
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
