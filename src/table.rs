//! Reading tables in the formats that users have: Parquet, CSV from spreadsheets, JSON.
//!
//! An ambiguous number, such as `1,234`, is an error with its line and what to do.

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

/// Reads a table file, with the roles of its columns.
pub(crate) struct TableReader<'a> {
    /// The path in messages.
    path: &'a Path,
    /// The local copy, if the file was fetched already.
    local: Option<&'a Path>,
    /// The columns to read; all if `None`.
    columns_where: Option<&'a dyn Fn(&str) -> bool>,
    roles: ColumnRoles<'a>,
}

/// The roles of columns. Text formats have no dtypes.
#[derive(Clone, Copy, Default)]
struct ColumnRoles<'a> {
    /// Keys of items, read as text without conversion.
    keys: &'a [&'a str],
    /// Integer ids of items.
    ids: &'a [&'a str],
    /// Numbers; any other value is an error.
    numbers: &'a [&'a str],
    /// Text, even if the values look like numbers.
    texts: &'a [&'a str],
}

impl ColumnRoles<'_> {
    /// The required columns.
    fn required(&self) -> impl Iterator<Item = &str> {
        [self.keys, self.ids, self.numbers].into_iter().flatten().copied()
    }
}

impl<'a> TableReader<'a> {
    /// A reader of a file, local or on an object store.
    pub(crate) fn new(path: &'a Path) -> Self {
        TableReader { path, local: None, columns_where: None, roles: ColumnRoles::default() }
    }

    /// Sets the local copy of a file that was fetched already.
    pub(crate) fn local_copy(mut self, local: &'a Path) -> Self {
        self.local = Some(local);
        self
    }

    /// Sets the columns with keys of items. They are read as text without conversion.
    pub(crate) fn keys(mut self, keys: &'a [&'a str]) -> Self {
        self.roles.keys = keys;
        self
    }

    /// Sets the columns with integer ids of items.
    #[cfg(feature = "cli")]
    pub(crate) fn ids(mut self, ids: &'a [&'a str]) -> Self {
        self.roles.ids = ids;
        self
    }

    /// Sets the columns with numbers. Any other value is an error.
    pub(crate) fn numbers(mut self, numbers: &'a [&'a str]) -> Self {
        self.roles.numbers = numbers;
        self
    }

    /// Sets the columns with text, even if the values look like numbers.
    pub(crate) fn texts(mut self, texts: &'a [&'a str]) -> Self {
        self.roles.texts = texts;
        self
    }

    /// Reads only the columns whose name satisfies a predicate.
    pub(crate) fn columns_where(mut self, is_read: &'a dyn Fn(&str) -> bool) -> Self {
        self.columns_where = Some(is_read);
        self
    }

    /// Reads the table.
    ///
    /// # Errors
    /// The file does not exist, has an unsupported format (which the error names), or has ambiguous text.
    pub(crate) fn read(&self) -> Result<DataFrame> {
        let fetched = if self.local.is_none() { Some(LocalPath::fetch(self.path)?) } else { None };
        let local = self.local.or(fetched.as_ref().map(LocalPath::path)).unwrap_or(self.path);
        if local.is_dir() {
            return Err(Error::input(self.path, "is a folder; give a Parquet, CSV or JSON file"));
        }
        catch_at_path(self.path, || self.read_at(local))
    }

    fn read_at(&self, local: &Path) -> Result<DataFrame> {
        let invalid = |reason: String| Error::input(self.path, reason);
        let format = Format::detect(local).map_err(|error| self.with_original_path(error))?;
        let frame = match format {
            Format::Parquet => read_parquet(local).map_err(|error| self.with_original_path(error))?,
            Format::Csv => {
                csv::read(&text::read(local, self.path)?, &self.roles, self.columns_where).map_err(invalid)?
            }
            Format::Json => json::read(&text::read(local, self.path)?).map_err(invalid)?,
            Format::Empty => return Err(invalid("is empty".into())),
            Format::Other(..) => {
                return Err(invalid(format!(
                    "is {format}, which is not supported; {}, or as CSV",
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

    /// Makes an error name the original file instead of its local copy.
    fn with_original_path(&self, error: Error) -> Error {
        match error {
            Error::Input { reason, .. } => Error::input(self.path, reason),
            Error::Io { cause, .. } => Error::Io { path: PathBuf::from(self.path), cause },
            other => other.with_path(self.path),
        }
    }

    /// Renames reserved columns that differ only in case, such as `DB_IDX` and `Score`.
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
                frame.rename(&only, wanted.into()).wrap_err("renaming columns")?;
            }
        }
        Ok(frame)
    }
}

/// Whether a file should be read as Parquet: it is neither CSV nor JSON.
pub(crate) fn is_parquet(path: &Path) -> bool {
    !matches!(Format::detect(path), Ok(Format::Csv | Format::Json))
}
