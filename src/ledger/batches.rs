//! The ledger's folder: answers that are durable, a row an item, and notes of what is being asked.
//!
//! A batch goes below the rows of the last file, of which a longer one takes the place, until that file is full. What comes
//! later for an item that is there already, as parts of its score were known, or as it failed, takes the place of its row.
//! So at any instant each item is in the folder once, as it is known then, whoever reads it and whenever the process is
//! killed, and there are few files however small the batches are: nothing is ever moved from one file to another, nor removed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use polars::prelude::*;
use rayon::prelude::*;

use super::answers::outcomes;
use crate::error::{AtPath, Doing, Error, Result};
use crate::frame::convert;
use crate::frame::outcome::Outcome;
use crate::frame::schema::{self, DB_IDX, EVALUATION, OUTCOME, REASON, SCORE};
use crate::io::atomic;
use crate::io::parquet::read_parquet;
use crate::log::write_parquet;

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
    /// Items of which more may come, and the files that their rows are in.
    unsettled: PlHashMap<u64, usize>,
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
    /// they came, which says how many of them are of items that it has seen before.
    pub(super) fn open(
        path: &Path,
        tmp: &Path,
        mut visit: impl FnMut(&DataFrame) -> Result<usize>,
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
        let mut batches =
            Batches { tmp: tmp.into(), path: path.into(), last: None, unsettled: PlHashMap::new(), tickets };
        let (mut answers, mut twice) = (false, 0);
        for some in files.chunks(READ_AT_ONCE) {
            let read = some.par_iter().map(|(_, file)| read_parquet(file)).collect::<Result<Vec<_>>>()?;
            for ((number, file), rows) in some.iter().zip(read) {
                let named = |error: Error| Error::input(file, error.to_string());
                twice += visit(&rows).map_err(named)?;
                batches.note(&rows, *number).map_err(named)?;
                answers |= rows.height() > 0;
                batches.last = Some((*number, rows));
            }
        }
        if twice > 0 {
            batches.drop_superseded(&files)?;
        }
        Ok((batches, Found { answers, asked }))
    }

    /// Takes the rows out that others took the place of, below them: so earlier versions wrote them.
    fn drop_superseded(&mut self, files: &[(usize, PathBuf)]) -> Result<()> {
        let mut seen = HashSet::new();
        for (number, file) in files.iter().rev() {
            let rows = read_parquet(file)?;
            let items = schema::u64s(&rows, DB_IDX)?;
            let mut stands: Vec<u32> =
                (0..items.len() as u32).rev().filter(|row| seen.insert(items[*row as usize])).collect();
            stands.reverse();
            if stands.len() < items.len() {
                self.publish(*number, convert::gather(&rows, &stands)?)?;
            }
        }
        Ok(())
    }

    /// A first file without rows, where nothing was paid for so far: whoever reads the ledger finds one.
    pub(super) fn begin(&mut self) -> Result<()> {
        if self.last.is_some() {
            return Ok(());
        }
        let columns = vec![
            Column::new_empty(EVALUATION.into(), &DataType::UInt64),
            Column::new_empty(DB_IDX.into(), &DataType::UInt64),
            Column::new_empty(SCORE.into(), &DataType::Float64),
            Column::new_empty(OUTCOME.into(), &DataType::String),
            Column::new_empty(REASON.into(), &DataType::String),
        ];
        self.publish(0, DataFrame::new(0, columns).doing("writing the ledger")?)
    }

    /// Makes a batch of answers durable.
    pub(super) fn write(&mut self, batch: &DataFrame) -> Result<()> {
        let items = schema::u64s(batch, DB_IDX)?;
        let (mut there, mut new): (BTreeMap<usize, Vec<u32>>, Vec<u32>) = (BTreeMap::new(), Vec::new());
        for (row, item) in (0..).zip(&items) {
            match self.unsettled.get(item) {
                Some(number) => there.entry(*number).or_default().push(row),
                None => new.push(row),
            }
        }
        // The last file is written once.
        let last = self.last.as_ref().map(|(number, _)| *number);
        let mut of_last = last.and_then(|last| there.remove(&last)).unwrap_or_default();
        for (number, rows) in there {
            let before = read_parquet(self.file(number))?;
            self.replace(number, before, &convert::gather(batch, &rows)?)?;
        }
        // What is going to be written anew stands in files that are small.
        let is_open = outcomes(batch)?.contains(&None);
        for some in new.chunks(if is_open { FULL } else { new.len().max(1) }) {
            of_last.extend(some);
            self.add(&convert::gather(batch, &std::mem::take(&mut of_last))?)?;
        }
        if of_last.is_empty() { Ok(()) } else { self.add(&convert::gather(batch, &of_last)?) }
    }

    /// Adds rows to the last file, or begins another if that is full; those of items that are in it take the places of theirs.
    fn add(&mut self, batch: &DataFrame) -> Result<()> {
        let Some((number, rows)) = self.last.clone() else { return self.publish(0, batch.clone()) };
        if rows.height() < FULL && is_alike(&rows, batch) {
            return self.replace(number, rows, batch);
        }
        let items = schema::u64s(batch, DB_IDX)?;
        let is_there = |row: &u32| self.unsettled.get(&items[*row as usize]) == Some(&number);
        let (there, new): (Vec<u32>, Vec<u32>) = (0..items.len() as u32).partition(is_there);
        if !there.is_empty() {
            self.replace(number, rows, &convert::gather(batch, &there)?)?;
        }
        // Not the number of files: one may be gone, and none is to be written over.
        if new.is_empty() { Ok(()) } else { self.publish(number + 1, convert::gather(batch, &new)?) }
    }

    /// Writes a file anew, with rows in the place of those of the same items, and the others below.
    fn replace(&mut self, number: usize, before: DataFrame, batch: &DataFrame) -> Result<()> {
        let (old, new) = (schema::u64s(&before, DB_IDX)?, schema::u64s(batch, DB_IDX)?);
        let place_of: HashMap<u64, u32> = new.iter().copied().zip(old.len() as u32..).collect();
        let there: HashSet<u64> = old.iter().copied().collect();
        let stands = |(row, item): (u32, &u64)| place_of.get(item).copied().unwrap_or(row);
        let mut rows: Vec<u32> = (0..).zip(&old).map(stands).collect();
        rows.extend((old.len() as u32..).zip(&new).filter(|(_, item)| !there.contains(item)).map(|(row, _)| row));
        self.publish(number, convert::gather(&below(before, batch)?, &rows)?)
    }

    /// Makes a file durable.
    fn publish(&mut self, number: usize, rows: DataFrame) -> Result<()> {
        write_parquet(&self.tmp, &self.file(number), &rows)?;
        self.note(&rows, number)?;
        if self.last.as_ref().is_none_or(|(last, _)| *last <= number) {
            self.last = Some((number, rows));
        }
        Ok(())
    }

    /// Notes the items of a file of which more may come.
    fn note(&mut self, rows: &DataFrame, number: usize) -> Result<()> {
        for (item, outcome) in schema::u64s(rows, DB_IDX)?.into_iter().zip(outcomes(rows)?) {
            match outcome {
                None | Some(Outcome::Failed) => drop(self.unsettled.insert(item, number)),
                Some(Outcome::Scored | Outcome::Rejected) => drop(self.unsettled.remove(&item)),
            }
        }
        Ok(())
    }

    fn file(&self, number: usize) -> PathBuf {
        self.path.join(format!("batch-{number:06}.parquet"))
    }

    /// Notes that so many items are being asked, so that a later process can tell how many may be paid twice.
    pub(super) fn ticket(&mut self, items: usize) -> Result<Ticket> {
        let path = self.path.join(format!("asked-{:06}", self.tickets));
        self.tickets += 1;
        atomic::note(&path, &items.to_string())?;
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
        if self.items == 0 { Ok(()) } else { atomic::note(&self.path, &self.items.to_string()) }
    }

    /// Nobody works on any of them any more.
    pub(super) fn close(self) -> Result<()> {
        atomic::remove_file(&self.path)
    }
}

/// Whether no two columns of one name cannot stand in one file.
fn is_alike(rows: &DataFrame, batch: &DataFrame) -> bool {
    let differs = |column: &Column| rows.column(column.name()).is_ok_and(|other| other.dtype() != column.dtype());
    !batch.columns().iter().any(differs)
}

/// A batch below the rows before it. Parts of the score that one of them lacks are null there.
fn below(mut rows: DataFrame, batch: &DataFrame) -> Result<DataFrame> {
    complete(&mut rows, batch)?;
    let mut batch = batch.clone();
    complete(&mut batch, &rows)?;
    let columns = rows.columns().iter().map(|column| {
        let same = batch.column(column.name()).and_then(|other| other.strict_cast(column.dtype()));
        same.doing("writing the ledger")
    });
    let batch = DataFrame::new(batch.height(), columns.collect::<Result<Vec<_>>>()?).doing("writing the ledger")?;
    rows.vstack_mut_owned(batch).doing("writing the ledger")?;
    rows.rechunk_mut();
    Ok(rows)
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
