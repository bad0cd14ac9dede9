//! The columns of all files: those of the first, each of a type that holds the values of every file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{cast, kernels::cmp::distinct};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use super::widen::common;
use crate::error::{Error, Result, WrapErr};
use crate::frame::dtypes::{cast_strict, is_uuid, uuids_to_text};
use crate::suggest::unknown_column;

/// The columns that are read, in the order of the first file.
pub(super) struct Shape {
    columns: Vec<Column>,
    first: PathBuf,
}

/// A column, as all files so far have it.
struct Column {
    name: String,
    dtype: DataType,
    /// Whether signed numbers are known to be positive.
    is_positive: bool,
    /// The file that the type is of.
    path: PathBuf,
}

/// The columns of one file.
pub(super) struct Part<'a> {
    pub(super) path: &'a Path,
    pub(super) schema: &'a Schema,
    pub(super) metadata: Option<&'a ParquetMetaData>,
    /// Columns that are not read.
    pub(super) left_out: &'a dyn Fn(&str) -> bool,
}

impl Part<'_> {
    /// The first column that is not read.
    pub(super) fn left_out(&self) -> Option<String> {
        let fields = self.schema.fields().iter();
        fields.map(|field| field.name()).find(|name| (self.left_out)(name)).cloned()
    }

    fn columns(&self) -> Result<Vec<Column>> {
        let mut columns: Vec<Column> = Vec::with_capacity(self.schema.fields().len());
        for field in self.schema.fields().iter().filter(|field| !(self.left_out)(field.name())) {
            let name = field.name().clone();
            if columns.iter().any(|other| other.name == name) {
                return Err(Error::input(self.path, format!("two columns are named `{name}`")));
            }
            let dtype = if is_uuid(field) { DataType::Utf8 } else { field.data_type().clone() };
            let is_positive = dtype.is_signed_integer() && self.metadata.is_some_and(|file| is_positive(file, &name));
            columns.push(Column { name, dtype, is_positive, path: self.path.into() });
        }
        Ok(columns)
    }
}

/// Whether a file's statistics say that no number of a column is negative.
fn is_positive(file: &ParquetMetaData, name: &str) -> bool {
    file.row_groups().iter().filter(|group| group.num_rows() > 0).all(|group| {
        let column = group.columns().iter().find(|column| column.column_path().parts() == [name]);
        let Some(known) = column.and_then(|column| column.statistics()) else { return false };
        let is_null = known.null_count_opt() == u64::try_from(group.num_rows()).ok();
        let least = match known {
            Statistics::Int64(numbers) => numbers.min_opt().copied(),
            Statistics::Int32(numbers) => numbers.min_opt().map(|least| i64::from(*least)),
            _ => None,
        };
        is_null || least.is_some_and(|least| least >= 0)
    })
}

impl Shape {
    /// The columns of the first file, or of a table.
    pub(super) fn of(part: &Part<'_>) -> Result<Self> {
        Ok(Shape { columns: part.columns()?, first: part.path.into() })
    }

    /// Widens the columns to those of one more file.
    ///
    /// # Errors
    /// A column that one of the files lacks, or that no type holds.
    pub(super) fn widen(&mut self, part: &Part<'_>) -> Result<()> {
        let theirs = part.columns()?;
        let lacks = |path: &Path, column: &str, there: &[Column], other: &Path| {
            let missing = unknown_column(column, "", there.iter().map(|column| column.name.as_str()));
            let remedy = "add it, as nulls if need be, or leave it out of all files";
            Err(Error::input(path, format!("{missing}; {} has it: {remedy}", other.display())))
        };
        if let Some(more) = theirs.iter().find(|more| self.columns.iter().all(|ours| ours.name != more.name))
            && theirs.len() > self.columns.len()
        {
            return lacks(&self.first, &more.name, &self.columns, part.path);
        }
        for ours in &mut self.columns {
            let Some(column) = theirs.iter().find(|column| column.name == ours.name) else {
                return lacks(part.path, &ours.name, &theirs, &ours.path);
            };
            let is_positive = ours.is_positive && column.is_positive;
            let Some(wide) = ours.common(column) else {
                let what = format!("column `{}` is {}, not {}", ours.name, column.dtype, ours.dtype);
                return Err(Error::input(part.path, format!("differs from {}: {what}", ours.path.display())));
            };
            if wide != ours.dtype {
                (ours.dtype, ours.path) = (wide, part.path.into());
            }
            ours.is_positive = is_positive;
        }
        Ok(())
    }

    pub(super) fn schema(&self) -> SchemaRef {
        let field = |column: &Column| Field::new(&column.name, column.dtype.clone(), true);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// The rows of a file in these columns.
    ///
    /// # Errors
    /// A value that the common type does not hold.
    pub(super) fn fit(&self, batch: &RecordBatch, place: &Path, first_row: u64) -> Result<RecordBatch> {
        let column = |column: &Column| {
            let at = batch.schema_ref().index_of(&column.name).wrap_err(place.display())?;
            let array = batch.column(at);
            let array = if is_uuid(batch.schema_ref().field(at)) { uuids_to_text(array) } else { array.clone() };
            column.widened(&array, place, first_row)
        };
        let columns = self.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(self.schema(), columns).wrap_err(place.display())
    }
}

impl Column {
    fn common(&self, other: &Column) -> Option<DataType> {
        use DataType::UInt64;
        // No signed type holds them all, but where no number is negative an unsigned one does.
        let is_unsigned = |one: &Column, other: &Column| one.dtype == UInt64 && other.is_positive;
        if is_unsigned(self, other) || is_unsigned(other, self) {
            return Some(UInt64);
        }
        common(&self.dtype, &other.dtype)
    }

    fn widened(&self, array: &ArrayRef, place: &Path, first_row: u64) -> Result<ArrayRef> {
        let wide = match cast_strict(&self.name, array, &self.dtype) {
            Ok(wide) => wide,
            Err(error) => {
                let wide = cast(array, &self.dtype).wrap_err(place.display())?;
                let lost = (0..array.len()).find(|row| array.is_valid(*row) && wide.is_null(*row));
                return Err(match lost {
                    Some(row) => self.does_not_hold(array, row, place, first_row)?,
                    None => error.with_path(place),
                });
            }
        };
        // Beyond 2^53 a float does not hold every whole number.
        let is_long = matches!(array.data_type(), DataType::Int64 | DataType::UInt64);
        if is_long && self.dtype.is_floating() {
            let back = cast(&wide, array.data_type()).wrap_err(place.display())?;
            let differs = distinct(array, &back).wrap_err(place.display())?;
            if let Some(row) = (0..differs.len()).find(|row| differs.value(*row)) {
                return Err(self.does_not_hold(array, row, place, first_row)?);
            }
        }
        Ok(wide)
    }

    /// That the type of all files has no such value as stands in a row.
    fn does_not_hold(&self, array: &ArrayRef, row: usize, place: &Path, first_row: u64) -> Result<Error> {
        let value = array_value_to_string(array, row).wrap_err(place.display())?;
        let (name, row) = (&self.name, first_row + row as u64);
        let reason = format!(
            "column `{name}`: {value} in row {row} is no {}, which the column is in {}; write it as one type in all files",
            self.dtype,
            self.path.display()
        );
        Ok(Error::input(place, reason))
    }
}
