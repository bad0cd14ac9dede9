//! Where the rows come from: Parquet files one after another, or a table in memory.

use std::collections::VecDeque;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::SchemaRef;

use super::columns::same_columns;
use super::vectors::Vectors;
use crate::error::{Doing, Error, Result, one_line};
use crate::untrusted::{caught, open_parquet};

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
    /// The rows of files, whose columns must be the same.
    pub(super) fn files(files: Vec<PathBuf>) -> Result<Self> {
        let mut total = 0;
        let mut input: Option<(SchemaRef, &PathBuf)> = None;
        let mut orders = Vec::with_capacity(files.len());
        for path in &files {
            let builder = open_parquet(path)?;
            total += builder.metadata().file_metadata().num_rows().max(0) as u64;
            orders.push(match &input {
                Some((first, first_path)) => same_columns(first, first_path, builder.schema(), path)?,
                None => (0..builder.schema().fields().len()).collect(),
            });
            input.get_or_insert_with(|| (builder.schema().clone(), path));
        }
        let Some((schema, first)) = input else { return Err(Error::Config("no files".into())) };
        let name = first.clone();
        if total == 0 {
            return Err(empty(&name));
        }
        let files = files.into_iter().zip(orders);
        let rest = Box::new(files.flat_map(|(path, order)| of_file(path.into(), order)));
        Ok(Source { name, schema, total, ahead: VecDeque::new(), rest })
    }

    /// The rows of a table.
    pub(super) fn table(table: Box<dyn RecordBatchReader + Send>) -> Result<Self> {
        let (schema, name) = (table.schema(), PathBuf::from(TABLE));
        let mut rest = numbered(Path::new(TABLE).into(), table);
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

/// The rows of a file, its columns in the order that is asked for.
fn of_file(path: Arc<Path>, order: Vec<usize>) -> Box<dyn Iterator<Item = Result<Take>> + Send> {
    let opened = open_parquet(&path).and_then(|builder| builder.with_batch_size(ROWS).build().doing(path.display()));
    match opened {
        Ok(reader) => Box::new(numbered(path, reader).map(move |take| {
            let take = take?;
            Ok(Take { batch: take.batch.project(&order).doing("reading columns")?, ..take })
        })),
        Err(error) => Box::new(iter::once(Err(error))),
    }
}

/// The batches of a reader, none empty and none large, each with the number of its first row.
fn numbered(
    place: Arc<Path>,
    mut reader: impl RecordBatchReader + Send + 'static,
) -> impl Iterator<Item = Result<Take>> + Send {
    let (mut row, mut left) = (0, None::<RecordBatch>);
    iter::from_fn(move || {
        while left.as_ref().is_none_or(|batch| batch.num_rows() == 0) {
            // On a thread of Lance's, a panic would take the file's name with it.
            let batch = caught(&*place, || {
                let read = reader.next().transpose();
                read.map_err(|error| Error::input(&*place, one_line(&error.to_string())))
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
        let take = Take { place: place.clone(), first_row: row, batch: batch.slice(0, rows) };
        row += rows as u64;
        Some(Ok(take))
    })
}
