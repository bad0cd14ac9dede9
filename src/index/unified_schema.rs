//! The unified schema of the input files: the columns of the first file, each with a supertype of its types in all files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{cast, kernels::cmp::distinct};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use super::supertype::supertype;
use crate::error::{Error, Result, WrapErr};
use crate::frame::dtypes::{cast_strict, is_uuid, uuids_to_text};
use crate::suggest::unknown_column;

/// The columns that are read, in the order of the first file.
pub(super) struct UnifiedSchema {
    columns: Vec<Column>,
    first_path: PathBuf,
}

/// A column with a type that holds its values in all files so far.
struct Column {
    name: String,
    dtype: DataType,
    /// Whether no number is negative, according to the statistics of the files.
    is_non_negative: bool,
    /// The file that determined the type.
    path: PathBuf,
}

/// The schema and metadata of one file.
pub(super) struct InputFile<'a> {
    pub(super) path: &'a Path,
    pub(super) schema: &'a Schema,
    pub(super) metadata: Option<&'a ParquetMetaData>,
    /// Whether a column is skipped.
    pub(super) is_skipped: &'a dyn Fn(&str) -> bool,
}

impl InputFile<'_> {
    /// The first column that is skipped.
    pub(super) fn skipped_column(&self) -> Option<String> {
        let fields = self.schema.fields().iter();
        fields.map(|field| field.name()).find(|name| (self.is_skipped)(name)).cloned()
    }

    fn columns(&self) -> Result<Vec<Column>> {
        let mut columns: Vec<Column> = Vec::with_capacity(self.schema.fields().len());
        for field in self.schema.fields().iter().filter(|field| !(self.is_skipped)(field.name())) {
            let name = field.name().clone();
            if columns.iter().any(|other| other.name == name) {
                return Err(Error::input(self.path, format!("two columns are named `{name}`")));
            }
            let dtype = if is_uuid(field) { DataType::Utf8 } else { field.data_type().clone() };
            let is_non_negative =
                dtype.is_signed_integer() && self.metadata.is_some_and(|file| is_non_negative(file, &name));
            columns.push(Column { name, dtype, is_non_negative, path: self.path.into() });
        }
        Ok(columns)
    }
}

/// Whether no number of a column is negative, according to the statistics of the file.
fn is_non_negative(file: &ParquetMetaData, name: &str) -> bool {
    file.row_groups().iter().filter(|group| group.num_rows() > 0).all(|group| {
        let column = group.columns().iter().find(|column| column.column_path().parts() == [name]);
        let Some(statistics) = column.and_then(|column| column.statistics()) else { return false };
        let is_null = statistics.null_count_opt() == u64::try_from(group.num_rows()).ok();
        let min = match statistics {
            Statistics::Int64(numbers) => numbers.min_opt().copied(),
            Statistics::Int32(numbers) => numbers.min_opt().map(|min| i64::from(*min)),
            _ => None,
        };
        is_null || min.is_some_and(|min| min >= 0)
    })
}

impl UnifiedSchema {
    /// The schema of the first file, or of a table.
    pub(super) fn new(file: &InputFile<'_>) -> Result<Self> {
        Ok(UnifiedSchema { columns: file.columns()?, first_path: file.path.into() })
    }

    /// Widens the column types to hold the values of another file.
    ///
    /// # Errors
    /// A column that one of the files lacks, or types without a supertype.
    pub(super) fn widen(&mut self, file: &InputFile<'_>) -> Result<()> {
        let file_columns = file.columns()?;
        let missing_error = |path: &Path, column: &str, columns: &[Column], other: &Path| {
            let missing = unknown_column(column, "", columns.iter().map(|column| column.name.as_str()));
            let advice = "add it, with nulls if need be, or remove it from all files";
            Err(Error::input(path, format!("{missing}; {} has it: {advice}", other.display())))
        };
        if let Some(additional) =
            file_columns.iter().find(|other| self.columns.iter().all(|column| column.name != other.name))
            && file_columns.len() > self.columns.len()
        {
            return missing_error(&self.first_path, &additional.name, &self.columns, file.path);
        }
        for unified in &mut self.columns {
            let Some(column) = file_columns.iter().find(|column| column.name == unified.name) else {
                return missing_error(file.path, &unified.name, &file_columns, &unified.path);
            };
            let is_non_negative = unified.is_non_negative && column.is_non_negative;
            let Some(wide) = unified.supertype(column) else {
                let difference = format!("column `{}` is {}, not {}", unified.name, column.dtype, unified.dtype);
                return Err(Error::input(file.path, format!("differs from {}: {difference}", unified.path.display())));
            };
            if wide != unified.dtype {
                (unified.dtype, unified.path) = (wide, file.path.into());
            }
            unified.is_non_negative = is_non_negative;
        }
        Ok(())
    }

    /// The Arrow schema.
    pub(super) fn schema(&self) -> SchemaRef {
        let field = |column: &Column| Field::new(&column.name, column.dtype.clone(), true);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// Casts a batch of a file to this schema.
    ///
    /// # Errors
    /// A value that the supertype cannot represent.
    pub(super) fn cast(&self, batch: &RecordBatch, path: &Path, first_row: u64) -> Result<RecordBatch> {
        let column = |column: &Column| {
            let at = batch.schema_ref().index_of(&column.name).wrap_err(path.display())?;
            let array = batch.column(at);
            let array = if is_uuid(batch.schema_ref().field(at)) { uuids_to_text(array) } else { array.clone() };
            column.cast(&array, path, first_row)
        };
        let columns = self.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(self.schema(), columns).wrap_err(path.display())
    }
}

impl Column {
    /// The supertype of two columns.
    fn supertype(&self, other: &Column) -> Option<DataType> {
        use DataType::UInt64;
        // No signed type holds all values of UInt64. If no number is negative, UInt64 holds both.
        let fits_unsigned = |one: &Column, other: &Column| one.dtype == UInt64 && other.is_non_negative;
        if fits_unsigned(self, other) || fits_unsigned(other, self) {
            return Some(UInt64);
        }
        supertype(&self.dtype, &other.dtype)
    }

    /// Casts values to the type of the column.
    fn cast(&self, array: &ArrayRef, path: &Path, first_row: u64) -> Result<ArrayRef> {
        let wide = match cast_strict(&self.name, array, &self.dtype) {
            Ok(wide) => wide,
            Err(error) => {
                let wide = cast(array, &self.dtype).wrap_err(path.display())?;
                let lost = (0..array.len()).find(|row| array.is_valid(*row) && wide.is_null(*row));
                return Err(match lost {
                    Some(row) => self.cast_error(array, row, path, first_row)?,
                    None => error.with_path(path),
                });
            }
        };
        // Beyond 2^53 a float does not represent every integer.
        let is_long = matches!(array.data_type(), DataType::Int64 | DataType::UInt64);
        if is_long && self.dtype.is_floating() {
            let back = cast(&wide, array.data_type()).wrap_err(path.display())?;
            let differs = distinct(array, &back).wrap_err(path.display())?;
            if let Some(row) = (0..differs.len()).find(|row| differs.value(*row)) {
                return Err(self.cast_error(array, row, path, first_row)?);
            }
        }
        Ok(wide)
    }

    /// An error about a value that the type of the column cannot represent.
    fn cast_error(&self, array: &ArrayRef, row: usize, path: &Path, first_row: u64) -> Result<Error> {
        let value = array_value_to_string(array, row).wrap_err(path.display())?;
        let (name, row) = (&self.name, first_row + row as u64);
        let reason = format!(
            "column `{name}`: {value} in row {row} cannot be cast to {}, the type of the column in {}; write the column with one type in all files",
            self.dtype,
            self.path.display()
        );
        Ok(Error::input(path, reason))
    }
}
