//! Tables of rows that people and tools bring: Parquet, CSV as spreadsheets save it, JSON.
//!
//! A number that could be read in two ways is refused, with its line and what to do.

mod csv;
mod json;
mod text;
mod values;

use std::path::{Path, PathBuf};

use polars::prelude::*;

use crate::database::LocalPath;
use crate::error::{Error, Result, WrapErr};
use crate::frame::schema;
use crate::io::format::Format;
use crate::io::parquet::read_parquet;
use crate::panics::catch_at_path;

/// A file of rows, and what some of its columns are.
pub(crate) struct TableReader<'a> {
    /// What messages name.
    path: &'a Path,
    /// Where it is on this machine, if it was fetched already.
    local: Option<&'a Path>,
    /// Columns that are read; all where `None`.
    only: Option<&'a dyn Fn(&str) -> bool>,
    roles: ColumnRoles<'a>,
}

/// What columns are, as text formats do not say it.
#[derive(Clone, Copy, Default)]
struct ColumnRoles<'a> {
    /// They name items: they are read as they are written.
    keys: &'a [&'a str],
    /// They name items, and are whole numbers.
    ids: &'a [&'a str],
    /// They are numbers, and what is none is refused.
    numbers: &'a [&'a str],
    /// They are texts, whatever they look like.
    texts: &'a [&'a str],
}

impl ColumnRoles<'_> {
    /// The columns that must be there.
    fn required(&self) -> impl Iterator<Item = &str> {
        [self.keys, self.ids, self.numbers].into_iter().flatten().copied()
    }
}

impl<'a> TableReader<'a> {
    /// A file, here or on an object store.
    pub(crate) fn new(path: &'a Path) -> Self {
        TableReader { path, local: None, only: None, roles: ColumnRoles::default() }
    }

    /// Where it was fetched to.
    pub(crate) fn local_copy(mut self, local: &'a Path) -> Self {
        self.local = Some(local);
        self
    }

    /// Columns that name items: they are read as they are written.
    pub(crate) fn keys(mut self, keys: &'a [&'a str]) -> Self {
        self.roles.keys = keys;
        self
    }

    /// Columns of whole numbers that name items.
    #[cfg(feature = "cli")]
    pub(crate) fn ids(mut self, ids: &'a [&'a str]) -> Self {
        self.roles.ids = ids;
        self
    }

    /// Columns of numbers: what is none is refused.
    pub(crate) fn numbers(mut self, numbers: &'a [&'a str]) -> Self {
        self.roles.numbers = numbers;
        self
    }

    /// Columns of text, whatever it looks like.
    pub(crate) fn texts(mut self, texts: &'a [&'a str]) -> Self {
        self.roles.texts = texts;
        self
    }

    /// The columns that are read.
    pub(crate) fn columns_where(mut self, only: &'a dyn Fn(&str) -> bool) -> Self {
        self.only = Some(only);
        self
    }

    /// Reads it whole.
    ///
    /// # Errors
    /// No such file; one of another format, which is named; text that cannot be read without a doubt.
    pub(crate) fn read(&self) -> Result<DataFrame> {
        let fetched = if self.local.is_none() { Some(LocalPath::fetch(self.path)?) } else { None };
        let local = self.local.or(fetched.as_ref().map(LocalPath::path)).unwrap_or(self.path);
        if local.is_dir() {
            return Err(Error::input(self.path, "is a folder; name a file: Parquet, CSV or JSON"));
        }
        catch_at_path(self.path, || self.read_at(local))
    }

    fn read_at(&self, local: &Path) -> Result<DataFrame> {
        let wrong = |reason: String| Error::input(self.path, reason);
        let format = Format::detect(local).map_err(|error| self.with_original_path(error))?;
        let frame = match format {
            Format::Parquet => read_parquet(local).map_err(|error| self.with_original_path(error))?,
            Format::Csv => csv::read(&text::read(local, self.path)?, &self.roles, self.only).map_err(wrong)?,
            Format::Json => json::read(&text::read(local, self.path)?).map_err(wrong)?,
            Format::Empty => return Err(wrong("is empty".into())),
            Format::Other(..) => {
                return Err(wrong(format!(
                    "is {format}, which is not read here; {}, or as CSV",
                    format.conversion_hint()
                )));
            }
        };
        let index: Vec<String> = schema::column_names(&frame)
            .into_iter()
            .filter(|name| schema::is_pandas_index(name))
            .map(str::to_string)
            .collect();
        self.normalize_case(frame.drop_many(index))
    }

    /// Names the file that was asked for, not the copy of it.
    fn with_original_path(&self, error: Error) -> Error {
        match error {
            Error::Input { reason, .. } => Error::input(self.path, reason),
            Error::Io { cause, .. } => Error::Io { path: PathBuf::from(self.path), cause },
            other => other.with_path(self.path),
        }
    }

    /// With the names of this program's own columns as it writes them: `DB_IDX` and `Score` are what they seem to be.
    fn normalize_case(&self, mut frame: DataFrame) -> Result<DataFrame> {
        for wanted in self
            .roles
            .required()
            .chain(self.roles.texts.iter().copied())
            .filter(|name| schema::is_reserved_column(name))
        {
            let names = schema::column_names(&frame);
            let alike: Vec<&str> = names.iter().copied().filter(|name| name.eq_ignore_ascii_case(wanted)).collect();
            if let [only] = alike[..]
                && only != wanted
            {
                let only = only.to_string();
                frame.rename(&only, wanted.into()).wrap_err("naming columns")?;
            }
        }
        Ok(frame)
    }
}

/// Whether a file is Parquet, or should be.
pub(crate) fn is_parquet(path: &Path) -> bool {
    !matches!(Format::detect(path), Ok(Format::Csv | Format::Json))
}
