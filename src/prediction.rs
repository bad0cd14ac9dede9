//! Predictions that a model made before the scores were known: three columns beside the scores of a batch.

use std::collections::HashMap;

use polars::prelude::{Column, DataFrame, DataType, IdxCa};

use crate::error::{Result, WrapErr};
use crate::frame::schema::{self, CHOSEN_BY, DB_IDX, DEVIATION, PREDICTED};

/// The columns, in their order in the results, and their types.
const COLUMNS: [(&str, DataType); 3] =
    [(PREDICTED, DataType::Float64), (DEVIATION, DataType::Float64), (CHOSEN_BY, DataType::String)];

/// Separates the predictions from the rows that a selector chose: returns the rows without them, and a frame of `db_idx` and
/// the three columns. `None` if the selector predicts nothing.
///
/// # Errors
/// Some of the columns without the others, or a column of another type.
pub(crate) fn separate(selected: DataFrame) -> Result<(DataFrame, Option<DataFrame>)> {
    if COLUMNS.iter().all(|(name, _)| selected.column(name).is_err()) {
        return Ok((selected, None));
    }
    let mut columns = vec![schema::column("select", &selected, DB_IDX)?.clone()];
    for (name, dtype) in &COLUMNS {
        columns.push(schema::typed_column("select", &selected, name, dtype)?.clone());
    }
    let predictions = DataFrame::new(selected.height(), columns).wrap_err("select")?;
    Ok((selected.drop_many(COLUMNS.map(|(name, _)| name)), Some(predictions)))
}

/// Adds the predictions to a scored batch, as its last columns. Items without a prediction get nulls.
///
/// # Errors
/// Frames without `db_idx`.
pub(crate) fn attach(mut scored: DataFrame, predictions: &DataFrame) -> Result<DataFrame> {
    let row_of: HashMap<u64, u32> = schema::u64s(predictions, DB_IDX)?.into_iter().zip(0..).collect();
    let rows: IdxCa = schema::u64s(&scored, DB_IDX)?.iter().map(|item| row_of.get(item).copied()).collect();
    for (name, _) in &COLUMNS {
        let column = schema::column("select", predictions, name)?.take(&rows).wrap_err("predictions")?;
        scored.with_column(column).wrap_err("predictions")?;
    }
    Ok(scored)
}

/// Adds predictions to the rows that a selector chose, in their order.
///
/// # Errors
/// Numbers of values that differ from the number of rows.
pub(crate) fn append(
    mut selected: DataFrame,
    means: Vec<Option<f64>>,
    deviations: Vec<Option<f64>>,
    chosen_by: Vec<Option<&str>>,
) -> Result<DataFrame> {
    let columns = [
        Column::new(PREDICTED.into(), means),
        Column::new(DEVIATION.into(), deviations),
        Column::new(CHOSEN_BY.into(), chosen_by),
    ];
    for column in columns {
        selected.with_column(column).wrap_err("predictions")?;
    }
    Ok(selected)
}

/// Whether a frame has predictions.
pub(crate) fn has(frame: &DataFrame) -> bool {
    frame.column(CHOSEN_BY).is_ok()
}
