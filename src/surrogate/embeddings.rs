//! Reads the embeddings of items, and finds values that are not finite.

use ndarray::ArrayView2;
use polars::prelude::DataFrame;

use crate::error::{Error, Result};
use crate::frame::convert::{self, Matrix};
use crate::frame::schema::{self, DB_IDX, EMBEDDING};

/// The embeddings of items, `(items, dim)`.
///
/// # Errors
/// An embedding that is not finite, because no model can be fitted to it. `uphill index` drops such items.
pub(super) fn finite_embeddings(items: &DataFrame) -> Result<Matrix<f32>> {
    let embeddings = convert::matrix::<f32>(items, EMBEDDING)?;
    let invalid =
        embeddings.view().indexed_iter().find(|(_, value)| !value.is_finite()).map(|(at, value)| (at, *value));
    match invalid {
        None => Ok(embeddings),
        Some(((row, component), value)) => {
            let item = schema::u64s(items, DB_IDX)?[row];
            let found = format!("{value} in component {component} of item {item}");
            Err(Error::contract("database", EMBEDDING, "finite numbers", found))
        }
    }
}

/// The rows of embeddings `(items, dim)` that contain only finite values.
pub(super) fn finite_rows(embeddings: ArrayView2<'_, f32>) -> Vec<usize> {
    let is_finite = |row: &usize| embeddings.row(*row).iter().all(|value| value.is_finite());
    (0..embeddings.nrows()).filter(is_finite).collect()
}
