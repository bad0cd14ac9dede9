//! The source of rows: Parquet files one after another, or a table in memory.

use std::collections::VecDeque;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::SchemaRef;

use super::embeddings::EmbeddingColumn;
use super::options::IndexOptions;
use super::unified_schema::{InputFile, UnifiedSchema};
use crate::error::{Error, Result, WrapErr, first_line};
use crate::frame::schema::is_pandas_index;
use crate::io::parquet::open_parquet;
use crate::panics::catch_at_path;

/// The largest number of rows in a batch.
const BATCH_ROWS: usize = 8192;

/// The name of a table in messages.
const TABLE_NAME: &str = "table";

/// An iterator over the rows of the input, in a unified schema.
pub(super) struct RowSource {
    /// The path that messages about columns name.
    pub(super) name: PathBuf,
    pub(super) schema: SchemaRef,
    /// The number of rows, or 0 if it is not known.
    pub(super) total_rows: u64,
    /// Batches that were read ahead.
    buffered: VecDeque<SourceBatch>,
    rest: Box<dyn Iterator<Item = Result<SourceBatch>> + Send>,
}

/// A batch of rows with its file and the number of its first row in the file.
pub(super) struct SourceBatch {
    pub(super) path: Arc<Path>,
    pub(super) first_row: u64,
    pub(super) batch: RecordBatch,
}

impl RowSource {
    /// The rows of files. Column types are widened to a common supertype.
    pub(super) fn files(files: Vec<PathBuf>, options: &IndexOptions) -> Result<Self> {
        let mut total_rows = 0;
        let mut input: Option<(UnifiedSchema, PathBuf)> = None;
        let is_skipped = |name: &str| is_skipped(name, options);
        let mut pandas_index = None;
        for path in &files {
            let builder = open_parquet(path)?;
            let (schema, metadata) = (builder.schema(), Some(builder.metadata().as_ref()));
            total_rows += builder.metadata().file_metadata().num_rows().max(0) as u64;
            let file = InputFile { path, schema, metadata, is_skipped: &is_skipped };
            match &mut input {
                Some((unified, _)) => unified.widen(&file)?,
                None => input = Some((UnifiedSchema::new(&file)?, path.clone())),
            }
            pandas_index = pandas_index.or_else(|| file.skipped_column().map(|index| (path.clone(), index)));
        }
        let Some((unified, name)) = input else { return Err(Error::Config("no files".into())) };
        if total_rows == 0 {
            return Err(empty_error(&name));
        }
        if let Some((path, index)) = pandas_index {
            warn_skipped(&path, &index);
        }
        let (schema, unified) = (unified.schema(), Arc::new(unified));
        let rest = Box::new(files.into_iter().flat_map(move |path| file_batches(path.into(), unified.clone())));
        Ok(RowSource { name, schema, total_rows, buffered: VecDeque::new(), rest })
    }

    /// The rows of a table.
    pub(super) fn table(table: Box<dyn RecordBatchReader + Send>, options: &IndexOptions) -> Result<Self> {
        let (input, name) = (table.schema(), PathBuf::from(TABLE_NAME));
        let is_skipped = |name: &str| is_skipped(name, options);
        let file = InputFile { path: &name, schema: &input, metadata: None, is_skipped: &is_skipped };
        let unified = UnifiedSchema::new(&file)?;
        if let Some(index) = file.skipped_column() {
            warn_skipped(&name, &index);
        }
        let schema = unified.schema();
        let mut rest = numbered_batches(Path::new(TABLE_NAME).into(), table, Arc::new(unified));
        let first = rest.next().transpose()?.ok_or_else(|| empty_error(&name))?;
        Ok(RowSource { name, schema, total_rows: 0, buffered: VecDeque::from([first]), rest: Box::new(rest) })
    }

    /// The length of the first embedding that is not null.
    pub(super) fn first_embedding_length(&mut self, embedding: usize) -> Result<usize> {
        let mut checked = 0;
        loop {
            if checked == self.buffered.len() {
                let Some(batch) = self.rest.next().transpose()? else {
                    return Err(Error::input(&self.name, "every embedding is null"));
                };
                self.buffered.push_back(batch);
            }
            if let Some(length) = EmbeddingColumn::new(self.buffered[checked].batch.column(embedding))?.first_length() {
                return Ok(length);
            }
            checked += 1;
        }
    }
}

impl Iterator for RowSource {
    type Item = Result<SourceBatch>;
    fn next(&mut self) -> Option<Self::Item> {
        self.buffered.pop_front().map(Ok).or_else(|| self.rest.next())
    }
}

/// The error of an input without rows.
fn empty_error(name: &Path) -> Error {
    Error::input(name, "no rows; an empty library cannot be searched")
}

/// Whether a column is the index of a pandas frame, which pandas writes as a column, and is not renamed by an option.
fn is_skipped(name: &str, options: &IndexOptions) -> bool {
    is_pandas_index(name) && options.rename.iter().all(|(from, _)| from != name)
}

/// Warns that the index of a pandas frame is skipped.
fn warn_skipped(path: &Path, index: &str) {
    let path = path.display();
    log::warn!("{path}: skipped column `{index}`, the index of a pandas frame; keep it with --rename {index}=row");
}

/// The batches of a file in the unified schema.
fn file_batches(path: Arc<Path>, unified: Arc<UnifiedSchema>) -> Box<dyn Iterator<Item = Result<SourceBatch>> + Send> {
    let opened =
        open_parquet(&path).and_then(|builder| builder.with_batch_size(BATCH_ROWS).build().wrap_err(path.display()));
    match opened {
        Ok(reader) => Box::new(numbered_batches(path, reader, unified)),
        Err(error) => Box::new(iter::once(Err(error))),
    }
}

/// The batches of a reader in the unified schema, each with 1 to [`BATCH_ROWS`] rows and the number of its first row.
fn numbered_batches(
    path: Arc<Path>,
    mut reader: impl RecordBatchReader + Send + 'static,
    unified: Arc<UnifiedSchema>,
) -> impl Iterator<Item = Result<SourceBatch>> + Send {
    let (mut row, mut remaining) = (0, None::<RecordBatch>);
    iter::from_fn(move || {
        while remaining.as_ref().is_none_or(|batch| batch.num_rows() == 0) {
            // This runs on a thread of Lance, where a panic would lose the file's name.
            let batch = catch_at_path(&*path, || {
                let read = reader.next().transpose();
                read.map_err(|error| Error::input(&*path, first_line(&error.to_string())))
            });
            match batch {
                Ok(None) => return None,
                Ok(Some(batch)) => remaining = Some(batch),
                Err(error) => return Some(Err(error)),
            }
        }
        let batch = remaining.take()?;
        let rows = batch.num_rows().min(BATCH_ROWS);
        remaining = Some(batch.slice(rows, batch.num_rows() - rows));
        let batch = catch_at_path(&*path, || unified.cast(&batch.slice(0, rows), &path, row));
        let batch = batch.map(|batch| SourceBatch { path: path.clone(), first_row: row, batch });
        row += rows as u64;
        Some(batch)
    })
}
