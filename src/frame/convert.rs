//! Zero-copy conversion: arrow-rs ⇄ Polars, and embedding columns ⇄ `ndarray`.
//!
//! This file has the only `unsafe` code of the crate. Polars has its own Arrow implementation, `polars-arrow`. Both support
//! the Arrow C Data Interface, whose two structs are `#[repr(C)]` with a layout that the specification fixes.
//!
//! Every `unsafe` block here relies on these invariants:
//! 1. `ArrowArray` and `ArrowSchema` of both crates are the structs of the C Data Interface, field by field. Sizes and
//!    alignments are asserted at compile time.
//! 2. A struct is moved, never copied: exactly one side runs its release callback.
//! 3. An array and a schema that are imported together were exported together.
//! 4. A [`Matrix`] of shape `(rows, dim)` has exactly `rows x dim` values. [`matrix`] checks this.

use std::mem::transmute;
use std::sync::Arc;

use arrow::array::{ArrayRef, NullArray, RecordBatch, make_array};
use arrow::datatypes::{Field, Schema};
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi, to_ffi};
use ndarray::ArrayView2;
use polars::prelude::*;
use polars_arrow::array::{FixedSizeListArray, PrimitiveArray};
use polars_arrow::datatypes::ArrowDataType;
use polars_arrow::ffi;

use crate::error::{Error, Result, WrapErr};
use crate::frame::dtypes;

/// `Array(f64, dim)` in queries, `Array(f32, dim)` in results: the vector of a query or an item.
pub const EMBEDDING: &str = "embedding";

const _: () = assert!(
    size_of::<FFI_ArrowArray>() == size_of::<ffi::ArrowArray>()
        && align_of::<FFI_ArrowArray>() == align_of::<ffi::ArrowArray>()
        && size_of::<FFI_ArrowSchema>() == size_of::<ffi::ArrowSchema>()
        && align_of::<FFI_ArrowSchema>() == align_of::<ffi::ArrowSchema>()
);

/// Converts an arrow-rs array to a Polars series.
fn series_from_arrow(field: &Field, array: &ArrayRef) -> Result<Series> {
    let name = field.name();
    let array = match dtypes::is_uuid(field) {
        true => dtypes::uuids_to_text(array),
        false => dtypes::cast_strict(name, array, &dtypes::supported_dtype(name, array.data_type())?)?,
    };
    let (array, schema) = to_ffi(&array.to_data()).wrap_err("exporting an Arrow array")?;
    // SAFETY: invariants 1 and 2: same layout, and both are moved into the transmute.
    let (array, schema) = unsafe {
        (transmute::<FFI_ArrowArray, ffi::ArrowArray>(array), transmute::<FFI_ArrowSchema, ffi::ArrowSchema>(schema))
    };
    // SAFETY: invariant 3: both come from the one `to_ffi` above.
    let array = unsafe {
        let field = ffi::import_field_from_c(&schema).wrap_err("importing an Arrow schema")?;
        ffi::import_array_from_c(array, field.dtype).wrap_err("importing an Arrow array")?
    };
    Series::from_arrow(name.as_str().into(), array).wrap_err(format!("column `{name}`"))
}

/// Converts a Polars column to an arrow-rs array.
fn column_to_arrow(column: &Column) -> Result<(Field, ArrayRef)> {
    if *column.dtype() == polars::prelude::DataType::Null {
        // Polars exports a buffer that the C Data Interface does not have.
        let field = Field::new(column.name().as_str(), arrow::datatypes::DataType::Null, true);
        return Ok((field, Arc::new(NullArray::new(column.len()))));
    }
    let series = column.as_materialized_series().rechunk();
    let array = series.to_arrow(0, CompatLevel::oldest());
    let field = polars_arrow::datatypes::Field::new(series.name().clone(), array.dtype().clone(), true);
    let (schema, array) = (ffi::export_field_to_c(&field), ffi::export_array_to_c(array));
    // SAFETY: invariants 1 and 2, as above, in the other direction.
    let (array, schema) = unsafe {
        (transmute::<ffi::ArrowArray, FFI_ArrowArray>(array), transmute::<ffi::ArrowSchema, FFI_ArrowSchema>(schema))
    };
    // SAFETY: invariant 3: field and array describe the same series.
    let data = unsafe { from_ffi(array, &schema) }.wrap_err("importing a Polars array")?;
    let field = Field::try_from(&schema).wrap_err("importing a Polars field")?;
    Ok((field, make_array(data)))
}

/// Converts an arrow-rs batch to a Polars frame, without copying the values. Dictionaries become their values, decimals become
/// 128 bits wide, and UUIDs become text.
///
/// # Errors
/// A type that Polars does not support.
pub fn to_polars(batch: &RecordBatch) -> Result<DataFrame> {
    let columns = batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, array)| Ok(series_from_arrow(field, array)?.into_column()))
        .collect::<Result<Vec<_>>>()?;
    DataFrame::new(batch.num_rows(), columns).wrap_err("building a frame")
}

/// Converts a Polars frame to an arrow-rs batch. Numbers and embeddings are not copied. Strings become LargeUtf8, which every
/// reader supports.
///
/// # Errors
/// A type that arrow-rs does not support.
pub fn to_arrow(frame: &DataFrame) -> Result<RecordBatch> {
    let (fields, arrays): (Vec<_>, Vec<_>) =
        frame.columns().iter().map(column_to_arrow).collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(frame.height()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).wrap_err("building a batch")
}

/// The type of an embedding component: f32 or f64.
pub trait Component: polars_arrow::types::NativeType {
    /// The Polars dtype.
    const DTYPE: DataType;
}

impl Component for f32 {
    const DTYPE: DataType = DataType::Float32;
}

impl Component for f64 {
    const DTYPE: DataType = DataType::Float64;
}

/// The values of an embedding column, shared with its frame.
pub struct Matrix<T: Component> {
    values: PrimitiveArray<T>,
    shape: (usize, usize),
}

impl<T: Component> Matrix<T> {
    /// A view of shape `(rows, dim)`.
    pub fn view(&self) -> ArrayView2<'_, T> {
        // SAFETY: invariant 4; the view borrows from the values.
        unsafe { ArrayView2::from_shape_ptr(self.shape, self.values.values().as_ptr()) }
    }
}

/// An embedding column of a frame as a matrix of shape `(rows, dim)`, without copying.
///
/// # Errors
/// No such column, a dtype other than `Array(T, dim)`, or nulls.
pub fn matrix<T: Component>(frame: &DataFrame, name: &str) -> Result<Matrix<T>> {
    let column = frame.column(name).wrap_err("embedding column")?;
    let invalid = || Error::contract("frame", name, format!("array of {} without nulls", T::DTYPE), column.dtype());
    let DataType::Array(inner, dim) = column.dtype() else { return Err(invalid()) };
    if **inner != T::DTYPE {
        return Err(invalid());
    }
    let series = column.as_materialized_series().rechunk();
    let chunk = &series.chunks()[0];
    let list = chunk.as_any().downcast_ref::<FixedSizeListArray>().ok_or_else(invalid)?;
    let values = list.values().as_any().downcast_ref::<PrimitiveArray<T>>().ok_or_else(invalid)?;
    if polars_arrow::array::Array::null_count(list) > 0 || polars_arrow::array::Array::null_count(values) > 0 {
        return Err(invalid());
    }
    let shape = (frame.height(), *dim);
    if values.values().len() != shape.0 * shape.1 {
        return Err(invalid());
    }
    Ok(Matrix { values: values.clone(), shape })
}

/// Builds a column named `embedding` from a matrix of shape `(rows, dim)`.
///
/// # Errors
/// `dim` is 0.
pub fn embedding_column<T: Component>(vectors: ArrayView2<'_, T>) -> Result<Column> {
    let (rows, dim) = vectors.dim();
    let values: Vec<T> = match vectors.as_slice() {
        Some(values) => values.to_vec(),
        None => vectors.iter().copied().collect(),
    };
    embedding_from_values(values, rows, dim)
}

/// Builds a column named `embedding` from the row-major values of a matrix of shape `(rows, dim)`.
pub(crate) fn embedding_from_values<T: Component>(values: Vec<T>, rows: usize, dim: usize) -> Result<Column> {
    if dim == 0 {
        return Err(Error::contract("frame", EMBEDDING, "at least one dimension", "0"));
    }
    let values = PrimitiveArray::from_vec(values);
    let item = ArrowDataType::from(T::PRIMITIVE);
    let dtype = FixedSizeListArray::default_datatype(item, dim);
    let list =
        FixedSizeListArray::try_new(dtype, rows, values.boxed(), None).wrap_err("building an embedding column")?;
    Ok(Series::from_arrow(EMBEDDING.into(), list.boxed()).wrap_err("building an embedding column")?.into_column())
}

/// Gathers the rows of a frame at the given positions, in that order.
///
/// Polars gathers fixed-size lists row by row through boxed arrays, and panics if there are no rows. This function copies
/// embeddings as one block.
///
/// # Errors
/// A position outside of the frame.
pub(crate) fn gather(frame: &DataFrame, rows: &[u32]) -> Result<DataFrame> {
    let positions = IdxCa::new("rows".into(), rows);
    let others: Vec<&str> =
        frame.columns().iter().filter(|column| !is_matrix(column)).map(|column| column.name().as_str()).collect();
    let others = frame.select(others).and_then(|others| others.take(&positions)).wrap_err("gathering rows")?;
    let mut gathered = others.into_columns().into_iter();
    let columns = frame.columns().iter().map(|column| {
        if !is_matrix(column) {
            return gathered.next().ok_or_else(|| Error::contract("frame", column.name().as_str(), "a column", "none"));
        }
        let gathered = match column.dtype() {
            DataType::Array(inner, _) if **inner == DataType::Float64 => {
                gather_matrix::<f64>(frame, column.name(), rows)
            }
            _ => gather_matrix::<f32>(frame, column.name(), rows),
        };
        Ok(gathered?.with_name(column.name().clone()))
    });
    DataFrame::new(rows.len(), columns.collect::<Result<Vec<_>>>()?).wrap_err("gathering rows")
}

fn is_matrix(column: &Column) -> bool {
    let float = |inner: &DataType| matches!(inner, DataType::Float32 | DataType::Float64);
    matches!(column.dtype(), DataType::Array(inner, _) if float(inner))
        && column.null_count() == 0
        && column.array().is_ok_and(|vectors| vectors.get_inner().null_count() == 0)
}

fn gather_matrix<T: Component>(frame: &DataFrame, name: &str, rows: &[u32]) -> Result<Column> {
    let matrix = matrix::<T>(frame, name)?;
    let dim = matrix.shape.1;
    let values = matrix.values.values().as_slice();
    let mut gathered = Vec::with_capacity(rows.len() * dim);
    for row in rows {
        gathered.extend_from_slice(&values[*row as usize * dim..(*row as usize + 1) * dim]);
    }
    embedding_from_values(gathered, rows.len(), dim)
}
