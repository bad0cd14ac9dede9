//! Columns of Lance's record batches, and conversion of embeddings to matrices.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Float32Type};
use ndarray::ArrayView2;

use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::EMBEDDING;

/// The name of Lance's column of row ids.
pub(super) const ROW_ID: &str = "_rowid";

/// A column by name.
pub(super) fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::contract("database", name, "a column", "none"))
}

/// Converts a matrix `(rows, dim)` to a column.
pub(super) fn fixed_size_list(vectors: ArrayView2<'_, f32>) -> FixedSizeListArray {
    let values = Float32Array::from_iter_values(vectors.iter().copied());
    FixedSizeListArray::new(item_field(), vectors.ncols() as i32, Arc::new(values), None)
}

/// Casts an embedding column of any float type to f32. A column of f32 is not copied.
pub(super) fn as_f32(vectors: &ArrayRef) -> Result<FixedSizeListArray> {
    let DataType::FixedSizeList(_, dim) = vectors.data_type() else {
        return Err(Error::contract("database", EMBEDDING, "a fixed-size list", vectors.data_type()));
    };
    let vectors = arrow::compute::cast(vectors, &DataType::FixedSizeList(item_field(), *dim))
        .wrap_err("casting embeddings to f32")?;
    Ok(vectors.as_fixed_size_list().clone())
}

/// The values of an embedding column as a matrix `(rows, dim)`.
pub(super) fn matrix(vectors: &FixedSizeListArray) -> Result<ArrayView2<'_, f32>> {
    let values = vectors.values().as_primitive::<Float32Type>().values();
    ArrayView2::from_shape((vectors.len(), vectors.value_length() as usize), values).wrap_err("reading embeddings")
}

fn item_field() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float32, true))
}
