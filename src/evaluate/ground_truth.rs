//! Reads the true scores of a library's items, and matches their rows with the items of a run.

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
use crate::log::{SearchLog, collect};
use crate::panics::catch_at_path;
use crate::score::numbers;
use crate::suggest::unknown_column;
use crate::table::{TableReader, is_parquet};

/// The true scores of all items: the file that contains them, and how its rows are matched with items.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroundTruth {
    /// A file (Parquet, CSV, JSON), a glob, or a folder of .parquet files, local or on an object store. Without a key, it must
    /// be the one that was indexed.
    pub items: PathBuf,
    /// The column of the true scores, in the scorer's own direction.
    pub score_column: String,
    /// A column of unique values in both the file and the run, to match items by. `None`: matches by `db_idx` if the file has it,
    /// or else by row number: `source_row` if the run has it, or `db_idx`.
    pub key: Option<String>,
}

impl GroundTruth {
    /// True scores in a column of the file, glob or folder that was indexed.
    pub fn new(items: impl Into<PathBuf>, score_column: impl Into<String>) -> Self {
        GroundTruth { items: items.into(), score_column: score_column.into(), key: None }
    }

    /// Sets the column by which items are matched.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
}

impl GroundTruth {
    /// An error about the file.
    pub(super) fn error(&self, reason: impl Into<String>) -> Error {
        Error::input(&self.items, reason)
    }

    /// Reads the score, the key, and the columns that the run logged as well.
    pub(super) fn read(&self, results: &DataFrame) -> Result<DataFrame> {
        let (mut frames, local) = (Vec::<LazyFrame>::new(), LocalPath::fetch(&self.items)?);
        let mut wanted: Vec<String> = Vec::new();
        for file in find_files(local.path())? {
            let frame = catch_at_path(&file, || self.read_file(&file, results))?;
            if frames.is_empty() {
                wanted = schema::column_names(&frame).into_iter().map(str::to_string).collect();
            }
            let names = schema::column_names(&frame);
            if let Some(name) = wanted.iter().find(|name| !names.contains(&name.as_str())) {
                return Err(Error::input(&file, unknown_column(name, "", names)));
            }
            frames.push(frame.select(&wanted).wrap_err(file.display())?.lazy());
        }
        // Files may have a column in several types, as in `uphill index`.
        let relaxed = UnionArgs { to_supertypes: true, ..Default::default() };
        collect(concat(frames, relaxed).wrap_err(self.items.display())?).map_err(|error| error.with_path(&self.items))
    }

    /// Reads the score, the key and the logged attributes from one file.
    fn read_file(&self, file: &Path, results: &DataFrame) -> Result<DataFrame> {
        let is_attribute = |column: &Column| !schema::is_reserved_column(column.name()) && !column.dtype().is_nested();
        let attributes: Vec<&Column> = results.columns().iter().filter(|column| is_attribute(column)).collect();
        let needed: Vec<&str> =
            [Some(&self.score_column), self.key.as_ref()].into_iter().flatten().map(String::as_str).collect();
        // Without a key, a column `db_idx` is the key.
        let key = self.key.as_deref().unwrap_or(DB_IDX);
        let is_wanted =
            |name: &str| name == key || needed.contains(&name) || attributes.iter().any(|column| column.name() == name);
        if !is_parquet(file) {
            let texts = attributes.iter().filter(|column| column.dtype().is_string());
            let texts: Vec<&str> = texts.map(|column| column.name().as_str()).collect();
            let table =
                TableReader::new(file).numbers(&needed[..1]).keys(&needed[1..]).texts(&texts).columns_where(&is_wanted);
            let read = table.read()?;
            if needed.iter().any(|name| read.column(name).is_err()) {
                // The error lists all columns.
                let all = TableReader::new(file).read()?;
                Self::check_columns(file, &schema::column_names(&all), &needed)?;
            }
            return Ok(read);
        }
        let columns = open_parquet(file)?.schema().clone();
        let names: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
        Self::check_columns(file, &names, &needed)?;
        let wanted: Vec<&str> = names.into_iter().filter(|name| is_wanted(name)).collect();
        convert::to_polars(&read_rows(file, &wanted, None)?).map_err(|error| error.with_path(file))
    }

    /// Fails if a file lacks a needed column.
    fn check_columns(file: &Path, names: &[&str], needed: &[&str]) -> Result<()> {
        let missing = needed.iter().find(|name| !names.contains(name));
        missing.map_or(Ok(()), |name| Err(Error::input(file, unknown_column(name, "", names.iter().copied()))))
    }

    /// The row of `table` for each item of the run.
    pub(super) fn match_rows(&self, log: &SearchLog, results: &DataFrame, table: &DataFrame) -> Result<Vec<u32>> {
        if let Some(key) = &self.key {
            return self.match_rows_by_key(key, results, table);
        }
        if table.column(DB_IDX).is_ok() {
            let rows = self.match_rows_by_key(DB_IDX, results, table)?;
            self.check_values(results, &convert::gather(table, &rows)?, &rows)?;
            return Ok(rows);
        }
        let dataset = log.manifest().dataset.as_ref();
        let table_rows = table.height() as u64;
        let has_source_rows = results.column(SOURCE_ROW).is_ok();
        if let Some(dataset) = dataset {
            if !has_source_rows && dataset.ids != "row id" {
                let reason = format!(
                    "cannot match by row: db_idx of this run is `{}`, not the row number; set `key` to match by a column",
                    dataset.ids
                );
                return Err(self.error(reason));
            }
            let rows = dataset.rows + dataset.without_embedding;
            if rows > table_rows || rows < table_rows && !has_source_rows {
                let reason = format!("is not the file that was indexed: it has {table_rows} rows, the dataset {rows}");
                return Err(self.error(format!("{reason}; set `key` to match another file by a column")));
            }
        }
        let rows = schema::u64s(results, if has_source_rows { SOURCE_ROW } else { DB_IDX })?;
        if let Some(beyond) = rows.iter().find(|row| **row >= table_rows) {
            let reason =
                format!("is not the file that was indexed: it has {table_rows} rows, the run has row {beyond}");
            return Err(self.error(format!("{reason}; set `key` to match another file by a column")));
        }
        let rows: Vec<u32> = rows.into_iter().map(|row| row as u32).collect();
        self.check_values(results, &convert::gather(table, &rows)?, &rows)?;
        Ok(rows)
    }

    fn match_rows_by_key(&self, key: &str, results: &DataFrame, table: &DataFrame) -> Result<Vec<u32>> {
        let keys = |frame: &DataFrame, place: &str| {
            let missing = || unknown_column(key, &format!(" in {place}"), schema::column_names(frame));
            Keys::from_column(frame.column(key).map_err(|_| Error::Config(format!("key: {}", missing())))?)
        };
        let (place, truth_keys) = (self.items.display().to_string(), keys(table, "the truth")?);
        let mut row_of: HashMap<&str, usize> = HashMap::new();
        for (row, text) in truth_keys.texts().iter().enumerate() {
            let Some(text) = text else { continue };
            if let Some(first) = row_of.insert(text, row) {
                let reason = format!("column `{key}` is not a key: {text} is in row {first} and in row {row}");
                return Err(self.error(reason));
            }
        }
        let examples = truth_keys.describe();
        let (items, run_keys) = (schema::u64s(results, DB_IDX)?, keys(results, "the run")?);
        let rows =
            KeyMap::new(truth_keys, (0..table.height() as u32).map(Some)).lookup(&run_keys, "the run", &place)?;
        let found = rows.into_iter().zip(items).zip(run_keys.texts()).map(|((row, item), text)| {
            let text = text.as_deref().unwrap_or("null");
            let missing = || {
                let reason = format!("no row has the `{key}` {text} of item {item}");
                self.error(format!(
                    "{reason}; this file has values such as {examples}, the run has {} values",
                    run_keys.dtype()
                ))
            };
            row.ok_or_else(missing)
        });
        found.collect()
    }

    /// Fails if a column of the file has other values than the same column of the run.
    fn check_values(&self, results: &DataFrame, truth: &DataFrame, rows: &[u32]) -> Result<()> {
        for true_column in truth.columns() {
            let Ok(run_column) = results.column(true_column.name()) else { continue };
            if schema::is_reserved_column(true_column.name()) {
                continue;
            }
            // CSV and JSON store some values as text, which cannot be compared.
            if true_column.dtype().is_string() != run_column.dtype().is_string() {
                continue;
            }
            let name = true_column.name().clone();
            let true_column = true_column.cast(run_column.dtype()).wrap_err(format!("column `{name}`"))?;
            let differs = run_column.not_equal_missing(&true_column).wrap_err(format!("column `{name}`"))?;
            let Some(row) = differs.iter().position(|differs| differs == Some(true)) else { continue };
            let (found, expected) =
                (true_column.get(row).wrap_err("evaluate")?, run_column.get(row).wrap_err("evaluate")?);
            let row = rows[row];
            let reason =
                format!("is not the file that was indexed: `{name}` in row {row} is {found}, in the run {expected}");
            return Err(self.error(format!("{reason}; set `key` to match another file by a column")));
        }
        Ok(())
    }

    /// The true scores, with the sign changed if smaller is better. Null if not finite.
    pub(super) fn scores(&self, table: &DataFrame, minimize: bool) -> Result<Vec<Option<f64>>> {
        let column = table.column(&self.score_column).wrap_err("evaluate")?;
        let reason = || format!("column `{}`: expected numbers, found {}", self.score_column, column.dtype());
        let scores = numbers(table, &self.score_column).map_err(|_| self.error(reason()))?.into_iter();
        let sign = if minimize { -1.0 } else { 1.0 };
        Ok(scores.map(|score| score.filter(|score| score.is_finite()).map(|score| sign * score)).collect())
    }
}
