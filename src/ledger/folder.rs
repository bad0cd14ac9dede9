//! The ledger folder: durable answers, one row for each item, and counts of items in flight.
//!
//! New answers are appended to the last file until it is full: a longer file atomically replaces it. A later answer to the
//! same item, such as further parts of its score or a retry, replaces the item's row. So readers find each item once, with
//! its current answer, at any time and even after the process was killed. The answers to small requests share files, so there
//! are few files. Rows never move between files and are never removed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use polars::prelude::*;
use rayon::prelude::*;

use super::answers::outcomes;
use crate::error::{AtPath, Error, Result, WrapErr};
use crate::frame::convert;
use crate::frame::outcome::Outcome;
use crate::frame::schema::{self, DB_IDX, EVALUATION, OUTCOME, REASON, SCORE};
use crate::io::atomic;
use crate::io::parquet::read_parquet;
use crate::io::parquet_writer::write_parquet;

/// The number of rows of a full file. Each write of answers rewrites its file, so larger files would cost more than they
/// save: a file is read only once when the run is resumed.
const MAX_FILE_ROWS: usize = 512;

/// The number of files to read at once. Earlier versions wrote one file for each request.
const FILES_PER_READ: usize = 64;

/// The ledger folder of a run.
pub(super) struct LedgerFolder {
    tmp: PathBuf,
    path: PathBuf,
    /// The number of the last file, and its rows.
    last: Option<(usize, DataFrame)>,
    /// The number of the file of each item whose answer may still change.
    file_of_changeable: PlHashMap<u64, usize>,
    /// The number of in-flight records so far.
    in_flight_count: usize,
}

/// A summary of the folder that an earlier process wrote.
pub(super) struct FolderContents {
    /// Whether there are answers.
    pub(super) has_answers: bool,
    /// The number of items that were requested but have no answer.
    pub(super) unanswered: u64,
}

impl LedgerFolder {
    /// Opens the folder `path`, and writes to it through `tmp`. Calls `visit` with the answers of each file, in the order of
    /// the files. `visit` returns how many of these answers supersede earlier ones.
    pub(super) fn open(
        path: &Path,
        tmp: &Path,
        mut visit: impl FnMut(&DataFrame) -> Result<usize>,
    ) -> Result<(Self, FolderContents)> {
        let (mut files, mut in_flight_count, mut unanswered) = (Vec::new(), 0, 0);
        for entry in fs::read_dir(path).at_path(path)? {
            let file = entry.at_path(path)?.path();
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if let Some(number) = name.strip_prefix("asked-") {
                in_flight_count =
                    number.parse::<usize>().map_or(in_flight_count, |number| in_flight_count.max(number + 1));
                let items = fs::read_to_string(&file).at_path(&file)?;
                unanswered += items.parse::<u64>().unwrap_or(0);
            } else if let Some(number) = name.strip_prefix("batch-").and_then(|name| name.strip_suffix(".parquet")) {
                files.push((number.parse::<usize>().unwrap_or(0), file));
            }
        }
        files.sort();
        let mut folder = LedgerFolder {
            tmp: tmp.into(),
            path: path.into(),
            last: None,
            file_of_changeable: PlHashMap::new(),
            in_flight_count,
        };
        let (mut has_answers, mut superseded) = (false, 0);
        for chunk in files.chunks(FILES_PER_READ) {
            let read = chunk.par_iter().map(|(_, file)| read_parquet(file)).collect::<Result<Vec<_>>>()?;
            for ((number, file), rows) in chunk.iter().zip(read) {
                let with_file = |error: Error| Error::input(file, error.to_string());
                superseded += visit(&rows).map_err(with_file)?;
                folder.record_changeable(&rows, *number).map_err(with_file)?;
                has_answers |= rows.height() > 0;
                folder.last = Some((*number, rows));
            }
        }
        if superseded > 0 {
            folder.remove_superseded(&files)?;
        }
        Ok((folder, FolderContents { has_answers, unanswered }))
    }

    /// Removes superseded rows, which earlier versions of this program left in the folder.
    fn remove_superseded(&mut self, files: &[(usize, PathBuf)]) -> Result<()> {
        let mut seen = HashSet::new();
        for (number, file) in files.iter().rev() {
            let rows = read_parquet(file)?;
            let items = schema::u64s(&rows, DB_IDX)?;
            let mut current: Vec<u32> =
                (0..items.len() as u32).rev().filter(|row| seen.insert(items[*row as usize])).collect();
            current.reverse();
            if current.len() < items.len() {
                self.write_file(*number, convert::gather(&rows, &current)?)?;
            }
        }
        Ok(())
    }

    /// Writes a first file without rows if there is none, so that readers of the ledger find a file.
    pub(super) fn create_first_file(&mut self) -> Result<()> {
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
        self.write_file(0, DataFrame::new(0, columns).wrap_err("writing the ledger")?)
    }

    /// Makes answers durable.
    pub(super) fn write(&mut self, answers: &DataFrame) -> Result<()> {
        let items = schema::u64s(answers, DB_IDX)?;
        let (mut existing, mut new): (BTreeMap<usize, Vec<u32>>, Vec<u32>) = (BTreeMap::new(), Vec::new());
        for (row, item) in (0..).zip(&items) {
            match self.file_of_changeable.get(item) {
                Some(number) => existing.entry(*number).or_default().push(row),
                None => new.push(row),
            }
        }
        // Write the last file once.
        let last = self.last.as_ref().map(|(number, _)| *number);
        let mut last_rows = last.and_then(|last| existing.remove(&last)).unwrap_or_default();
        for (number, rows) in existing {
            let before = read_parquet(self.file_path(number))?;
            self.rewrite(number, before, &convert::gather(answers, &rows)?)?;
        }
        // Keep rows that will change in small files, because each change rewrites the file.
        let is_pending = outcomes(answers)?.contains(&None);
        for chunk in new.chunks(if is_pending { MAX_FILE_ROWS } else { new.len().max(1) }) {
            last_rows.extend(chunk);
            self.add(&convert::gather(answers, &std::mem::take(&mut last_rows))?)?;
        }
        if last_rows.is_empty() { Ok(()) } else { self.add(&convert::gather(answers, &last_rows)?) }
    }

    /// Appends rows to the last file, or to a new one if it is full. Rows of items that are in the last file replace theirs.
    fn add(&mut self, answers: &DataFrame) -> Result<()> {
        let Some((number, rows)) = self.last.clone() else { return self.write_file(0, answers.clone()) };
        if rows.height() < MAX_FILE_ROWS && has_same_types(&rows, answers) {
            return self.rewrite(number, rows, answers);
        }
        let items = schema::u64s(answers, DB_IDX)?;
        let is_existing = |row: &u32| self.file_of_changeable.get(&items[*row as usize]) == Some(&number);
        let (existing, new): (Vec<u32>, Vec<u32>) = (0..items.len() as u32).partition(is_existing);
        if !existing.is_empty() {
            self.rewrite(number, rows, &convert::gather(answers, &existing)?)?;
        }
        // The number of the last file plus one, not the number of files: if a file is missing, no other must be overwritten.
        if new.is_empty() { Ok(()) } else { self.write_file(number + 1, convert::gather(answers, &new)?) }
    }

    /// Rewrites a file: rows of the same items are replaced, the others appended.
    fn rewrite(&mut self, number: usize, before: DataFrame, answers: &DataFrame) -> Result<()> {
        let (old, new) = (schema::u64s(&before, DB_IDX)?, schema::u64s(answers, DB_IDX)?);
        let row_of: HashMap<u64, u32> = new.iter().copied().zip(old.len() as u32..).collect();
        let existing: HashSet<u64> = old.iter().copied().collect();
        let current_row = |(row, item): (u32, &u64)| row_of.get(item).copied().unwrap_or(row);
        let mut rows: Vec<u32> = (0..).zip(&old).map(current_row).collect();
        rows.extend((old.len() as u32..).zip(&new).filter(|(_, item)| !existing.contains(item)).map(|(row, _)| row));
        self.write_file(number, convert::gather(&append_rows(before, answers)?, &rows)?)
    }

    /// Makes a file durable.
    fn write_file(&mut self, number: usize, rows: DataFrame) -> Result<()> {
        write_parquet(&self.tmp, &self.file_path(number), &rows)?;
        self.record_changeable(&rows, number)?;
        if self.last.as_ref().is_none_or(|(last, _)| *last <= number) {
            self.last = Some((number, rows));
        }
        Ok(())
    }

    /// Records which items of a file may still change.
    fn record_changeable(&mut self, rows: &DataFrame, number: usize) -> Result<()> {
        for (item, outcome) in schema::u64s(rows, DB_IDX)?.into_iter().zip(outcomes(rows)?) {
            match outcome {
                None | Some(Outcome::Failed) => drop(self.file_of_changeable.insert(item, number)),
                Some(Outcome::Scored | Outcome::Rejected) => drop(self.file_of_changeable.remove(&item)),
            }
        }
        Ok(())
    }

    fn file_path(&self, number: usize) -> PathBuf {
        self.path.join(format!("batch-{number:06}.parquet"))
    }

    /// Records the number of items in flight, so that a later process can report how many may be scored twice.
    pub(super) fn start_in_flight(&mut self, items: usize) -> Result<InFlightRecord> {
        let path = self.path.join(format!("asked-{:06}", self.in_flight_count));
        self.in_flight_count += 1;
        atomic::write_unsynced(&path, &items.to_string())?;
        Ok(InFlightRecord { path, items })
    }
}

/// The recorded number of items in flight. The file survives the process. It is not fsynced, because nothing depends on it.
pub(super) struct InFlightRecord {
    path: PathBuf,
    items: usize,
}

impl InFlightRecord {
    /// Subtracts items whose answers are durable.
    pub(super) fn subtract(&mut self, items: usize) -> Result<()> {
        self.items = self.items.saturating_sub(items);
        // The last answer removes the file: see `close`.
        if self.items == 0 { Ok(()) } else { atomic::write_unsynced(&self.path, &self.items.to_string()) }
    }

    /// Removes the record when nothing is in flight any more.
    pub(super) fn close(self) -> Result<()> {
        atomic::remove_file(&self.path)
    }
}

/// Whether columns of the same name have the same type, so that both frames fit into one file.
fn has_same_types(rows: &DataFrame, answers: &DataFrame) -> bool {
    let differs = |column: &Column| rows.column(column.name()).is_ok_and(|other| other.dtype() != column.dtype());
    !answers.columns().iter().any(differs)
}

/// Appends answers to rows. Parts of the score that one of them lacks are null there.
fn append_rows(mut rows: DataFrame, answers: &DataFrame) -> Result<DataFrame> {
    add_missing_columns(&mut rows, answers)?;
    let mut answers = answers.clone();
    add_missing_columns(&mut answers, &rows)?;
    let columns = rows.columns().iter().map(|column| {
        let same = answers.column(column.name()).and_then(|other| other.strict_cast(column.dtype()));
        same.wrap_err("writing the ledger")
    });
    let answers =
        DataFrame::new(answers.height(), columns.collect::<Result<Vec<_>>>()?).wrap_err("writing the ledger")?;
    rows.vstack_mut_owned(answers).wrap_err("writing the ledger")?;
    rows.rechunk_mut();
    Ok(rows)
}

/// Adds the missing columns of another frame as nulls.
fn add_missing_columns(frame: &mut DataFrame, other: &DataFrame) -> Result<()> {
    for column in other.columns() {
        if frame.column(column.name()).is_err() {
            let nulls = Column::full_null(column.name().clone(), frame.height(), column.dtype());
            frame.with_column(nulls).wrap_err("writing the ledger")?;
        }
    }
    Ok(())
}
