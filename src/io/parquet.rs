//! Safe reading of Parquet files that may be damaged.
//!
//! A damaged file is an error that names the file. It cannot exhaust the memory or cause a panic:
//! - arrow-rs decodes a few thousand rows at a time, so memory grows with the data that exists, not with the counts in the
//!   footer. Polars allocates what the footer states, so [`check_counts`] compares footer and pages before Polars reads.
//! - Panics inside the libraries become errors: [`catch_at_path`].

use std::fs::File;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch, RecordBatchReader};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, FieldRef, Schema, UInt32Type};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowFilter,
};
use parquet::basic::LogicalType;
use parquet::column::page::PageReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;
use polars::prelude::DataFrame;

use crate::error::{AtPath, Error, Result, first_line};
use crate::frame::{convert, dtypes};
use crate::io::format::Format;
use crate::panics::catch_at_path;

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 8192;

fn not_parquet(path: &Path, error: impl std::fmt::Display) -> Error {
    let reason = match Format::detect(path) {
        Ok(Format::Parquet) | Err(_) => format!("cannot read it as Parquet: {}", first_line(&error.to_string())),
        Ok(Format::Empty) => "cannot read it as Parquet: it is empty".into(),
        Ok(format) => format!("is {format}, not Parquet; {}", format.conversion_hint()),
    };
    Error::input(path, reason)
}

/// Opens a Parquet file for reading in batches. Dictionary columns are read as their values, because the key type of one row
/// group may be too small for the values of several. UUID columns get the metadata of Arrow's extension type.
pub(crate) fn open_parquet(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).at_path(path)?;
    catch_at_path(path, || {
        let options = ArrowReaderOptions::new();
        let metadata = ArrowReaderMetadata::load(&file, options.clone()).map_err(|error| not_parquet(path, error))?;
        let schema = normalised_schema(metadata.schema(), metadata.parquet_schema());
        let metadata = match schema == **metadata.schema() {
            true => metadata,
            false => ArrowReaderMetadata::try_new(metadata.metadata().clone(), options.with_schema(schema.into()))
                .map_err(|error| not_parquet(path, error))?,
        };
        Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata))
    })
}

/// The Arrow schema of a file, with dictionaries replaced by their values, and with UUIDs marked as in the Parquet schema.
fn normalised_schema(schema: &Schema, parquet: &SchemaDescriptor) -> Schema {
    let columns = schema.fields().iter().zip(parquet.root_schema().get_fields()).map(|(field, column)| {
        let mut field = field.as_ref().clone().with_data_type(without_dictionaries(field.data_type()));
        if column.get_basic_info().logical_type_ref() == Some(&LogicalType::Uuid) {
            let mut metadata = field.metadata().clone();
            metadata.insert(dtypes::EXTENSION_KEY.into(), dtypes::UUID.into());
            field.set_metadata(metadata);
        }
        field
    });
    Schema::new_with_metadata(columns.collect::<Vec<_>>(), schema.metadata().clone())
}

fn without_dictionaries(dtype: &DataType) -> DataType {
    let field =
        |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(without_dictionaries(field.data_type())));
    match dtype {
        DataType::Dictionary(_, values) => without_dictionaries(values),
        DataType::List(item) => DataType::List(field(item)),
        DataType::LargeList(item) => DataType::LargeList(field(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(field(item), *length),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        other => other.clone(),
    }
}

/// Reads a Parquet file into a Polars frame.
///
/// # Errors
/// The file does not exist, is not Parquet, is damaged, or has a type that Polars does not support.
pub fn read_parquet(path: impl AsRef<Path>) -> Result<DataFrame> {
    let path = path.as_ref();
    catch_at_path(path, || {
        let batch = batches(open_parquet(path)?).map_err(|error| not_parquet(path, error))?;
        convert::to_polars(&batch).map_err(|error| error.with_path(path))
    })
}

fn batches(builder: ParquetRecordBatchReaderBuilder<File>) -> Result<RecordBatch, ArrowError> {
    let reader = builder.with_batch_size(BATCH_ROWS).build()?;
    let schema = reader.schema();
    concat_batches(&schema, &reader.collect::<Result<Vec<_>, _>>()?)
}

/// Reads rows of a Parquet file. An empty `columns` means all columns. `only` names a u32 column and a range: other rows are
/// skipped.
///
/// # Errors
/// As for [`read_parquet`]; a column does not exist.
pub(crate) fn read_rows(
    path: &Path,
    columns: &[&str],
    only: Option<(&str, &RangeInclusive<u32>)>,
) -> Result<RecordBatch> {
    let mut builder = open_parquet(path)?;
    let mask = |names: &[&str]| ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
    let projection = if columns.is_empty() { ProjectionMask::all() } else { mask(columns) };
    if let Some((column, range)) = only {
        let (first, last) = (*range.start(), *range.end());
        let is_in = ArrowPredicateFn::new(mask(&[column]), move |batch| {
            let numbers = batch.columns().first().and_then(|numbers| numbers.as_primitive_opt::<UInt32Type>());
            let numbers = numbers.ok_or_else(|| ArrowError::SchemaError("the filter column is not u32".into()))?;
            Ok(BooleanArray::from_unary(numbers, |number| (first <= number) & (number <= last)))
        });
        builder = builder.with_row_filter(RowFilter::new(vec![Box::new(is_in)]));
    }
    catch_at_path(path, || batches(builder.with_projection(projection)).map_err(|error| not_parquet(path, error)))
}

/// Reads the footer of a Parquet file and checks its counts against the page headers.
///
/// # Errors
/// The file does not exist, is not Parquet, or has different counts.
pub(crate) fn check_counts(path: &Path) -> Result<ParquetMetaData> {
    let file = File::open(path).at_path(path)?;
    catch_at_path(path, || {
        let reader = SerializedFileReader::new(file).map_err(|error| not_parquet(path, error))?;
        match count_mismatch(&reader).map_err(|error| not_parquet(path, error))? {
            None => Ok(reader.metadata().clone()),
            Some(what) => Err(Error::input(path, format!("damaged: {what}"))),
        }
    })
}

/// Describes the first difference between the counts in the footer and those of the pages. `None` if they agree.
fn count_mismatch(reader: &SerializedFileReader<File>) -> Result<Option<String>, ParquetError> {
    let mut rows = 0i64;
    for (group_index, group) in reader.metadata().row_groups().iter().enumerate() {
        rows = rows.saturating_add(group.num_rows());
        let pages = reader.get_row_group(group_index)?;
        for (position, column) in group.columns().iter().enumerate() {
            let (stated, found) = (column.num_values(), count_values(pages.get_column_page_reader(position)?)?);
            let name = column.column_path().string();
            if stated != found {
                return Ok(Some(format!("column `{name}` should have {stated} values, its pages have {found}")));
            }
            // A list column has at least one value per row.
            let is_list = column.column_descr().max_rep_level() > 0;
            if group.num_rows() > found || (!is_list && group.num_rows() != found) {
                return Ok(Some(format!("{} rows, but column `{name}` has {found} values", group.num_rows())));
            }
        }
    }
    let stated = reader.metadata().file_metadata().num_rows();
    Ok((stated != rows).then(|| format!("{stated} rows, but its row groups have {rows}")))
}

/// The number of values in the pages of a column, including nulls.
fn count_values(mut pages: Box<dyn PageReader>) -> Result<i64, ParquetError> {
    let mut values = 0i64;
    while let Some(page) = pages.peek_next_page()? {
        if !page.is_dict {
            values = values.saturating_add(page.num_levels.unwrap_or_default().try_into().unwrap_or(i64::MAX));
        }
        pages.skip_next_page()?;
    }
    Ok(values)
}
