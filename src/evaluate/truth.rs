//! The true scores of a library's items, and which row is which item.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use polars::prelude::*;

use crate::database::LocalPath;
use crate::error::{Error, Result, WrapErr};
use crate::frame::convert;
use crate::frame::keys::{KeyMap, Keys};
use crate::frame::schema::{self, DB_IDX, SOURCE_ROW};
use crate::index::find_files;
use crate::io::parquet::{open_parquet, read_rows};
use crate::io::table::{TableReader, is_parquet};
use crate::log::{SearchLog, collect};
use crate::panics::catch_at_path;
use crate::score::numbers;
use crate::suggest::unknown_column;

/// Where the true scores are, and how its rows are matched with items.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Truth {
    /// A file (Parquet, CSV, JSON), a glob, or a folder of .parquet files, here or on an object store: what was indexed, or
    /// with a key any other.
    pub items: PathBuf,
    /// The column of the true score, in the scorer's own direction.
    pub score_column: String,
    /// A column of unique values that both the file and the run have. Where `None`, items are matched by
    /// `source_row` if the run has it, else by row number: that is `db_idx`.
    pub key: Option<String>,
}

impl Truth {
    /// A file, a glob or a folder of what was indexed, and the column of the true score.
    pub fn new(items: impl Into<PathBuf>, score_column: impl Into<String>) -> Self {
        Truth { items: items.into(), score_column: score_column.into(), key: None }
    }

    /// The column by which items are matched.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
}

impl Truth {
    pub(super) fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::input(&self.items, reason)
    }

    /// The score, the key, and the columns that the run kept too.
    pub(super) fn read(&self, met: &DataFrame) -> Result<DataFrame> {
        let (mut frames, local) = (Vec::<LazyFrame>::new(), LocalPath::fetch(&self.items)?);
        let mut wanted: Vec<String> = Vec::new();
        for file in find_files(local.path())? {
            let frame = catch_at_path(&file, || self.read_one(&file, met))?;
            if frames.is_empty() {
                wanted = schema::column_names(&frame).into_iter().map(str::to_string).collect();
            }
            let there = schema::column_names(&frame);
            if let Some(name) = wanted.iter().find(|name| !there.contains(&name.as_str())) {
                return Err(Error::input(&file, unknown_column(name, "", there)));
            }
            frames.push(frame.select(&wanted).wrap_err(file.display())?.lazy());
        }
        // Files may have a column in several types, as those that are indexed.
        let relaxed = UnionArgs { to_supertypes: true, ..Default::default() };
        collect(concat(frames, relaxed).wrap_err(self.items.display())?).map_err(|error| error.with_path(&self.items))
    }

    /// The score, the key, and the columns that the run kept too, of one file.
    fn read_one(&self, file: &Path, met: &DataFrame) -> Result<DataFrame> {
        let is_kept = |column: &Column| !schema::is_reserved_column(column.name()) && !column.dtype().is_nested();
        let kept: Vec<&Column> = met.columns().iter().filter(|column| is_kept(column)).collect();
        let needed: Vec<&str> =
            [Some(&self.score_column), self.key.as_ref()].into_iter().flatten().map(String::as_str).collect();
        let wanted = |name: &str| needed.contains(&name) || kept.iter().any(|column| column.name() == name);
        if !is_parquet(file) {
            let texts = kept.iter().filter(|column| column.dtype().is_string());
            let texts: Vec<&str> = texts.map(|column| column.name().as_str()).collect();
            let table =
                TableReader::new(file).numbers(&needed[..1]).keys(&needed[1..]).texts(&texts).columns_where(&wanted);
            let read = table.read()?;
            return Self::has_all(file, &schema::column_names(&read), &needed).map(|()| read);
        }
        let columns = open_parquet(file)?.schema().clone();
        let names: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
        Self::has_all(file, &names, &needed)?;
        let wanted: Vec<&str> = names.into_iter().filter(|name| wanted(name)).collect();
        convert::to_polars(&read_rows(file, &wanted, None)?).map_err(|error| error.with_path(file))
    }

    fn has_all(file: &Path, names: &[&str], needed: &[&str]) -> Result<()> {
        let missing = needed.iter().find(|name| !names.contains(name));
        missing.map_or(Ok(()), |name| Err(Error::input(file, unknown_column(name, "", names.iter().copied()))))
    }

    /// The row of each item that was met.
    pub(super) fn rows_of(&self, log: &SearchLog, met: &DataFrame, known: &DataFrame) -> Result<Vec<u32>> {
        if let Some(key) = &self.key {
            return self.rows_by_key(key, met, known);
        }
        let dataset = log.manifest().dataset.as_ref();
        let there = known.height() as u64;
        let skipped = met.column(SOURCE_ROW).is_ok();
        if let Some(dataset) = dataset {
            if !skipped && dataset.ids != "row id" {
                let reason = format!("the run's db_idx are not row numbers but of {}; match by a --key", dataset.ids);
                return Err(self.refuse(reason));
            }
            let rows = dataset.rows + dataset.without_embedding;
            if rows > there || rows < there && !skipped {
                let reason = format!("is not what was indexed: it has {there} rows, the dataset {rows}");
                return Err(self.refuse(format!("{reason}; match another file by a --key")));
            }
        }
        let rows = schema::u64s(met, if skipped { SOURCE_ROW } else { DB_IDX })?;
        if let Some(beyond) = rows.iter().find(|row| **row >= there) {
            let reason = format!("is not what was indexed: it has {there} rows, the run met row {beyond}");
            return Err(self.refuse(reason));
        }
        let rows: Vec<u32> = rows.into_iter().map(|row| row as u32).collect();
        self.compare(met, &convert::gather(known, &rows)?, &rows)?;
        Ok(rows)
    }

    fn rows_by_key(&self, key: &str, met: &DataFrame, known: &DataFrame) -> Result<Vec<u32>> {
        let keys = |frame: &DataFrame, place: &str| {
            let missing = || unknown_column(key, &format!(" in {place}"), schema::column_names(frame));
            Keys::from_column(frame.column(key).map_err(|_| Error::Config(format!("--key: {}", missing())))?)
        };
        let (place, theirs) = (self.items.display().to_string(), keys(known, "the truth")?);
        let mut row_of: HashMap<&str, usize> = HashMap::new();
        for (row, text) in theirs.texts().iter().enumerate() {
            let Some(text) = text else { continue };
            if let Some(first) = row_of.insert(text, row) {
                let reason = format!("column `{key}` is no key: {text} is in row {first} and in row {row}");
                return Err(self.refuse(reason));
            }
        }
        let there = theirs.describe();
        let (items, ours) = (schema::u64s(met, DB_IDX)?, keys(met, "the run")?);
        let rows = KeyMap::new(theirs, (0..known.height() as u32).map(Some)).lookup(&ours, "the run", &place)?;
        let found = rows.into_iter().zip(items).zip(ours.texts()).map(|((row, item), text)| {
            let text = text.as_deref().unwrap_or("null");
            let missing = || {
                let reason = format!("no row whose `{key}` is {text}, as item {item} of the run has");
                self.refuse(format!("{reason}; here it is such as {there}, there {}", ours.dtype()))
            };
            row.ok_or_else(missing)
        });
        found.collect()
    }

    /// Refuses a file whose values are not those that the run met.
    fn compare(&self, met: &DataFrame, truth: &DataFrame, rows: &[u32]) -> Result<()> {
        for theirs in truth.columns() {
            let Ok(ours) = met.column(theirs.name()) else { continue };
            if schema::is_reserved_column(theirs.name()) {
                continue;
            }
            // Text formats have other values only as text.
            if theirs.dtype().is_string() != ours.dtype().is_string() {
                continue;
            }
            let theirs = theirs.cast(ours.dtype()).wrap_err(format!("column `{}`", theirs.name()))?;
            let differs = ours.not_equal_missing(&theirs).wrap_err(format!("column `{}`", theirs.name()))?;
            let Some(row) = differs.iter().position(|differs| differs == Some(true)) else { continue };
            let (found, expected) = (theirs.get(row).wrap_err("evaluate")?, ours.get(row).wrap_err("evaluate")?);
            let (name, row) = (theirs.name(), rows[row]);
            let reason = format!("is not what was indexed: `{name}` in row {row} is {found}, the run met {expected}");
            return Err(self.refuse(format!("{reason}; match another file by a --key")));
        }
        Ok(())
    }

    /// The true scores, such that more is better.
    pub(super) fn scores(&self, known: &DataFrame, minimize: bool) -> Result<Vec<Option<f64>>> {
        let column = known.column(&self.score_column).wrap_err("evaluate")?;
        let reason = || format!("column `{}`: expected numbers, found {}", self.score_column, column.dtype());
        let scores = numbers(known, &self.score_column).map_err(|_| self.refuse(reason()))?.into_iter();
        let sign = if minimize { -1.0 } else { 1.0 };
        Ok(scores.map(|score| score.filter(|score| score.is_finite()).map(|score| sign * score)).collect())
    }
}
