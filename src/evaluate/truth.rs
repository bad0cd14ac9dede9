//! The true scores of a library's items, and which row is which item.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use polars::prelude::*;

use crate::bridge;
use crate::database::Local;
use crate::error::{Doing, Error, Result};
use crate::index::find_files;
use crate::log::{SearchLog, collect};
use crate::near::no_column;
use crate::schema::{self, DB_IDX, SOURCE_ROW};

/// Where the true scores are, and how its rows are matched with items.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Truth {
    /// A Parquet file, a glob, or a folder of .parquet files, here or on an object store, or files of CSV: what was
    /// indexed, or with a key any other.
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

    /// The score, the key, and the columns that the run kept too. Files whose columns differ in their types are read as what
    /// holds the values of all.
    pub(super) fn read(&self, met: &DataFrame) -> Result<DataFrame> {
        let (mut frames, local) = (Vec::new(), Local::of(&self.items)?);
        let mut wanted: Vec<PlSmallStr> = Vec::new();
        for file in find_files(local.path())? {
            let mut frame = if is_csv(&file) { scan_csv(&file, met)? } else { scan_parquet(&file)? };
            let columns = frame.collect_schema().doing(format!("reading {}", file.display()))?;
            if wanted.is_empty() {
                let is_kept = |name: &str, dtype: &DataType| {
                    let ours = met.column(name).ok().filter(|_| !schema::is_reserved(name) && !dtype.is_nested());
                    // CSV has other values of other types only as text.
                    ours.is_some_and(|ours| !is_csv(&file) || is_number(ours.dtype()) || ours.dtype().is_string())
                };
                let kept = columns.iter().filter(|(name, dtype)| is_kept(name, dtype)).map(|(name, _)| name.clone());
                let asked = [Some(&self.score_column), self.key.as_ref()].into_iter().flatten();
                wanted.extend(asked.map(|name| name.as_str().into()));
                for name in kept {
                    if !wanted.contains(&name) {
                        wanted.push(name);
                    }
                }
            }
            if let Some(name) = wanted.iter().find(|name| !columns.contains(name)) {
                let there = columns.iter_names().map(|name| name.as_str());
                return Err(Error::input(&file, no_column(name, "", there)));
            }
            frames.push(frame.select(wanted.iter().map(|name| col(name.clone())).collect::<Vec<_>>()));
        }
        let args = UnionArgs { to_supertypes: true, ..Default::default() };
        collect(concat(frames, args).doing(self.items.display())?).map_err(|error| error.of(&self.items))
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
        self.compare(met, &bridge::gather(known, &rows)?, &rows)?;
        Ok(rows)
    }

    fn rows_by_key(&self, key: &str, met: &DataFrame, known: &DataFrame) -> Result<Vec<u32>> {
        let texts = |frame: &DataFrame, place: &str| -> Result<Vec<Option<String>>> {
            let missing = || no_column(key, &format!(" in {place}"), schema::names(frame));
            let column = frame.column(key).map_err(|_| Error::Config(format!("--key: {}", missing())))?;
            key_texts(column).doing("--key")
        };
        let mut row_of: HashMap<String, u32> = HashMap::new();
        for (row, text) in texts(known, &self.items.to_string_lossy())?.into_iter().enumerate() {
            let Some(text) = text else { continue };
            if let Some(first) = row_of.insert(text.clone(), row as u32) {
                let reason = format!("column `{key}` is no key: {text} is in row {first} and in row {row}");
                return Err(self.refuse(reason));
            }
        }
        let items = schema::u64s(met, DB_IDX)?;
        let found = texts(met, "the run")?.into_iter().zip(items).map(|(text, item)| {
            let row = text.as_ref().and_then(|text| row_of.get(text)).copied();
            let text = text.as_deref().unwrap_or("null");
            row.ok_or_else(|| self.refuse(format!("no row whose `{key}` is {text}, as item {item} of the run has")))
        });
        found.collect()
    }

    /// Refuses a file whose values are not those that the run met.
    fn compare(&self, met: &DataFrame, truth: &DataFrame, rows: &[u32]) -> Result<()> {
        for theirs in truth.columns() {
            let Ok(ours) = met.column(theirs.name()) else { continue };
            if schema::is_reserved(theirs.name()) {
                continue;
            }
            let theirs = theirs.cast(ours.dtype()).doing(format!("column `{}`", theirs.name()))?;
            let differs = ours.not_equal_missing(&theirs).doing(format!("column `{}`", theirs.name()))?;
            let Some(row) = differs.iter().position(|differs| differs == Some(true)) else { continue };
            let (found, expected) = (theirs.get(row).doing("evaluate")?, ours.get(row).doing("evaluate")?);
            let (name, row) = (theirs.name(), rows[row]);
            let reason = format!("is not what was indexed: `{name}` in row {row} is {found}, the run met {expected}");
            return Err(self.refuse(format!("{reason}; match another file by a --key")));
        }
        Ok(())
    }

    /// The true scores, such that more is better.
    pub(super) fn scores(&self, known: &DataFrame, minimize: bool) -> Result<Vec<Option<f64>>> {
        let column = known.column(&self.score_column).doing("evaluate")?;
        if !is_number(column.dtype()) {
            let reason = format!("column `{}`: expected numbers, found {}", self.score_column, column.dtype());
            return Err(self.refuse(reason));
        }
        let scores = column.cast(&DataType::Float64).doing("evaluate")?;
        let sign = if minimize { -1.0 } else { 1.0 };
        let scores = scores.f64().doing("evaluate")?.iter();
        Ok(scores.map(|score| score.filter(|score| score.is_finite()).map(|score| sign * score)).collect())
    }
}

/// What scores may be.
fn is_number(dtype: &DataType) -> bool {
    dtype.is_primitive_numeric() || dtype.is_decimal() || matches!(dtype, DataType::Boolean | DataType::Null)
}

/// Keys as text. Whole numbers that a program made floats (as of a column with nulls) are whole numbers.
fn key_texts(column: &Column) -> PolarsResult<Vec<Option<String>>> {
    /// Floats up to here are exact.
    const EXACT: f64 = (1u64 << 53) as f64;
    if column.dtype().is_float() {
        let floats = column.cast(&DataType::Float64)?;
        let text = |value: f64| match value.fract() == 0.0 && value.abs() <= EXACT {
            true => (value as i64).to_string(),
            false => value.to_string(),
        };
        return Ok(floats.f64()?.iter().map(|value| value.map(text)).collect());
    }
    let text = column.cast(&DataType::String)?;
    Ok(text.str()?.iter().map(|text| text.map(str::to_string)).collect())
}

fn is_csv(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
}

fn scan_parquet(file: &Path) -> Result<LazyFrame> {
    let args = ScanArgsParquet {
        glob: false,
        hive_options: HiveOptions { enabled: Some(false), ..Default::default() },
        ..Default::default()
    };
    LazyFrame::scan_parquet(PlRefPath::new(file.to_string_lossy()), args).doing(format!("reading {}", file.display()))
}

/// Of types that all of the file says, but what is text in the run is text: `007` is no number then.
fn scan_csv(file: &Path, met: &DataFrame) -> Result<LazyFrame> {
    let is_text = |name: &str| met.column(name).is_ok_and(|column| column.dtype().is_string());
    let reader = LazyCsvReader::new(PlRefPath::new(file.to_string_lossy())).with_glob(false);
    let reader = reader.with_infer_schema_length(None).with_schema_modify(|schema| {
        let typed = |(name, dtype): (PlSmallStr, DataType)| {
            let dtype = if is_text(&name) { DataType::String } else { dtype };
            Field::new(name, dtype)
        };
        Ok(schema.into_iter().map(typed).collect())
    });
    reader.and_then(LazyFileListReader::finish).doing(format!("reading {}", file.display()))
}
