//! The ledger's folder: answers that are durable, batch by batch, and notes of what is being asked.
//!
//! A batch goes below the rows of the last file, of which a longer one takes the place, until that file is full. So at any
//! instant each answer is in the folder once, whoever reads it and whenever the process is killed, and there are few files
//! however small the batches are: nothing is ever moved from one file to another, nor removed.

use std::fs;
use std::path::{Path, PathBuf};

use polars::prelude::{Column, DataFrame};
use rayon::prelude::*;

use crate::error::{AtPath, Doing, Error, Result};
use crate::folder;
use crate::log::write_parquet;
use crate::schema;
use crate::untrusted::read_parquet;

/// Answers from which on a file is full. Each batch writes anew what its file has before it: more would cost more than they
/// save, as each file is only opened once when the run goes on.
const FULL: usize = 512;

/// Files that are read at once: earlier versions wrote one for each batch.
const READ_AT_ONCE: usize = 64;

/// The folder of one run.
pub(super) struct Batches {
    tmp: PathBuf,
    path: PathBuf,
    /// The number of the last file, and its rows.
    last: Option<(usize, DataFrame)>,
    tickets: usize,
}

/// What an earlier process left.
pub(super) struct Found {
    /// Whether there are answers.
    pub(super) answers: bool,
    /// Items that it had asked without keeping an answer.
    pub(super) asked: u64,
}

impl Batches {
    /// From now on writes to `path`, through `tmp`; shows `visit` the answers that are there already, in the order in which
    /// they came.
    pub(super) fn open(
        path: &Path,
        tmp: &Path,
        mut visit: impl FnMut(&DataFrame) -> Result<()>,
    ) -> Result<(Self, Found)> {
        let (mut files, mut tickets, mut asked) = (Vec::new(), 0, 0);
        for entry in fs::read_dir(path).at_path(path)? {
            let file = entry.at_path(path)?.path();
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if let Some(number) = name.strip_prefix("asked-") {
                tickets = number.parse::<usize>().map_or(tickets, |number| tickets.max(number + 1));
                let items = fs::read_to_string(&file).at_path(&file)?;
                asked += items.parse::<u64>().unwrap_or(0);
            } else if let Some(number) = name.strip_prefix("batch-").and_then(|name| name.strip_suffix(".parquet")) {
                files.push((number.parse::<usize>().unwrap_or(0), file));
            }
        }
        files.sort();
        let mut last = None;
        for some in files.chunks(READ_AT_ONCE) {
            let read = some.par_iter().map(|(_, file)| read_parquet(file)).collect::<Result<Vec<_>>>()?;
            for ((number, file), answers) in some.iter().zip(read) {
                visit(&answers).map_err(|error| Error::input(file, error.to_string()))?;
                last = Some((*number, answers));
            }
        }
        let batches = Batches { tmp: tmp.into(), path: path.into(), last, tickets };
        Ok((batches, Found { answers: !files.is_empty(), asked }))
    }

    /// Makes a batch of answers durable.
    pub(super) fn write(&mut self, batch: &DataFrame) -> Result<()> {
        let (number, rows) = match &self.last {
            None => (0, batch.clone()),
            Some((number, rows)) => match if rows.height() < FULL { below(rows, batch)? } else { None } {
                Some(rows) => (*number, rows),
                // Not the number of files: one may be gone, and none is to be written over.
                None => (number + 1, batch.clone()),
            },
        };
        write_parquet(&self.tmp, &self.path.join(format!("batch-{number:06}.parquet")), &rows)?;
        self.last = Some((number, rows));
        Ok(())
    }

    /// Notes that so many items are being asked, so that a later process can tell how many may be paid twice.
    pub(super) fn ticket(&mut self, items: usize) -> Result<Ticket> {
        let path = self.path.join(format!("asked-{:06}", self.tickets));
        self.tickets += 1;
        folder::note(&path, &items.to_string())?;
        Ok(Ticket { path, items })
    }
}

/// A note of items that are being asked. Not fsynced: it is a figure for people, and outlives the process.
pub(super) struct Ticket {
    path: PathBuf,
    items: usize,
}

impl Ticket {
    /// Some of them are answered, durably.
    pub(super) fn answered(&mut self, items: usize) -> Result<()> {
        self.items = self.items.saturating_sub(items);
        // The last answer takes the note away.
        if self.items == 0 { Ok(()) } else { folder::note(&self.path, &self.items.to_string()) }
    }

    /// Nobody works on any of them any more.
    pub(super) fn close(self) -> Result<()> {
        folder::remove_file(&self.path)
    }
}

/// A batch below the rows before it. Parts of the score that one of them lacks are null there; `None` if they have columns
/// of one name that cannot stand in one file.
fn below(before: &DataFrame, batch: &DataFrame) -> Result<Option<DataFrame>> {
    let differs = |column: &Column| before.column(column.name()).is_ok_and(|other| other.dtype() != column.dtype());
    if batch.columns().iter().any(differs) {
        return Ok(None);
    }
    let mut rows = before.clone();
    complete(&mut rows, batch)?;
    let mut batch = batch.clone();
    complete(&mut batch, &rows)?;
    rows.vstack_mut_owned(batch.select(schema::names(&rows)).doing("writing the ledger")?)
        .doing("writing the ledger")?;
    rows.rechunk_mut();
    Ok(Some(rows))
}

/// Adds the columns that another frame has beside a frame's own, as nulls.
fn complete(frame: &mut DataFrame, other: &DataFrame) -> Result<()> {
    for column in other.columns() {
        if frame.column(column.name()).is_err() {
            let nulls = Column::full_null(column.name().clone(), frame.height(), column.dtype());
            frame.with_column(nulls).doing("writing the ledger")?;
        }
    }
    Ok(())
}
