//! Where the rows come from: Parquet files one after another, or a table in memory.

use std::collections::VecDeque;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::SchemaRef;

use super::options::IndexOptions;
use super::shape::{Part, Shape};
use super::vectors::Vectors;
use crate::error::{Error, Result, WrapErr, first_line};
use crate::frame::schema::is_pandas_index;
use crate::io::parquet::open_parquet;
use crate::panics::catch_at_path;

/// Rows looked at in one go.
const ROWS: usize = 8192;

/// What messages call a table.
const TABLE: &str = "table";

/// Rows as they were given.
pub(super) struct Source {
    /// What messages about the columns name.
    pub(super) name: PathBuf,
    pub(super) schema: SchemaRef,
    /// Rows in all, as far as that is known.
    pub(super) total: u64,
    /// What was looked at already.
    ahead: VecDeque<Take>,
    rest: Box<dyn Iterator<Item = Result<Take>> + Send>,
}

/// Some rows, and where they stand.
pub(super) struct Take {
    pub(super) place: Arc<Path>,
    pub(super) first_row: u64,
    pub(super) batch: RecordBatch,
}

impl Source {
    /// The rows of files, whose columns are widened to types that all of them fit in.
    pub(super) fn files(files: Vec<PathBuf>, options: &IndexOptions) -> Result<Self> {
        let mut total = 0;
        let mut input: Option<(Shape, PathBuf)> = None;
        let left_out = |name: &str| is_left_out(name, options);
        let mut with_index = None;
        for path in &files {
            let builder = open_parquet(path)?;
            let (schema, metadata) = (builder.schema(), Some(builder.metadata().as_ref()));
            total += builder.metadata().file_metadata().num_rows().max(0) as u64;
            let part = Part { path, schema, metadata, left_out: &left_out };
            match &mut input {
                Some((shape, _)) => shape.widen(&part)?,
                None => input = Some((Shape::of(&part)?, path.clone())),
            }
            with_index = with_index.or_else(|| part.left_out().map(|index| (path.clone(), index)));
        }
        let Some((shape, name)) = input else { return Err(Error::Config("no files".into())) };
        if total == 0 {
            return Err(empty(&name));
        }
        if let Some((path, index)) = with_index {
            note_left_out(&path, &index);
        }
        let (schema, shape) = (shape.schema(), Arc::new(shape));
        let rest = Box::new(files.into_iter().flat_map(move |path| of_file(path.into(), shape.clone())));
        Ok(Source { name, schema, total, ahead: VecDeque::new(), rest })
    }

    /// The rows of a table.
    pub(super) fn table(table: Box<dyn RecordBatchReader + Send>, options: &IndexOptions) -> Result<Self> {
        let (input, name) = (table.schema(), PathBuf::from(TABLE));
        let left_out = |name: &str| is_left_out(name, options);
        let part = Part { path: &name, schema: &input, metadata: None, left_out: &left_out };
        let shape = Shape::of(&part)?;
        if let Some(index) = part.left_out() {
            note_left_out(&name, &index);
        }
        let schema = shape.schema();
        let mut rest = numbered(Path::new(TABLE).into(), table, Arc::new(shape));
        let first = rest.next().transpose()?.ok_or_else(|| empty(&name))?;
        Ok(Source { name, schema, total: 0, ahead: VecDeque::from([first]), rest: Box::new(rest) })
    }

    /// The length of the first embedding that is there.
    pub(super) fn first_length(&mut self, embedding: usize) -> Result<usize> {
        let mut seen = 0;
        loop {
            if seen == self.ahead.len() {
                let Some(take) = self.rest.next().transpose()? else {
                    return Err(Error::input(&self.name, "every embedding is null"));
                };
                self.ahead.push_back(take);
            }
            if let Some(length) = Vectors::of(self.ahead[seen].batch.column(embedding))?.first_length() {
                return Ok(length);
            }
            seen += 1;
        }
    }
}

impl Iterator for Source {
    type Item = Result<Take>;
    fn next(&mut self) -> Option<Self::Item> {
        self.ahead.pop_front().map(Ok).or_else(|| self.rest.next())
    }
}

fn empty(name: &Path) -> Error {
    Error::input(name, "no rows; an empty library cannot be searched")
}

/// Whether this is the index of a pandas frame, which writers keep as a column, and nobody asked for.
fn is_left_out(name: &str, options: &IndexOptions) -> bool {
    is_pandas_index(name) && options.rename.iter().all(|(from, _)| from != name)
}

fn note_left_out(path: &Path, index: &str) {
    let path = path.display();
    log::warn!("{path}: `{index}`, the index of a pandas frame, is left out; --rename {index}=row keeps it");
}

/// The rows of a file, in the columns of all.
fn of_file(path: Arc<Path>, shape: Arc<Shape>) -> Box<dyn Iterator<Item = Result<Take>> + Send> {
    let opened = open_parquet(&path).and_then(|builder| builder.with_batch_size(ROWS).build().wrap_err(path.display()));
    match opened {
        Ok(reader) => Box::new(numbered(path, reader, shape)),
        Err(error) => Box::new(iter::once(Err(error))),
    }
}

/// The batches of a reader in the columns of all, none empty and none large, each with the number of its first row.
fn numbered(
    place: Arc<Path>,
    mut reader: impl RecordBatchReader + Send + 'static,
    shape: Arc<Shape>,
) -> impl Iterator<Item = Result<Take>> + Send {
    let (mut row, mut left) = (0, None::<RecordBatch>);
    iter::from_fn(move || {
        while left.as_ref().is_none_or(|batch| batch.num_rows() == 0) {
            // On a thread of Lance's, a panic would take the file's name with it.
            let batch = catch_at_path(&*place, || {
                let read = reader.next().transpose();
                read.map_err(|error| Error::input(&*place, first_line(&error.to_string())))
            });
            match batch {
                Ok(None) => return None,
                Ok(Some(batch)) => left = Some(batch),
                Err(error) => return Some(Err(error)),
            }
        }
        let batch = left.take()?;
        let rows = batch.num_rows().min(ROWS);
        left = Some(batch.slice(rows, batch.num_rows() - rows));
        let fitted = catch_at_path(&*place, || shape.fit(&batch.slice(0, rows), &place, row));
        let take = fitted.map(|batch| Take { place: place.clone(), first_row: row, batch });
        row += rows as u64;
        Some(take)
    })
}
