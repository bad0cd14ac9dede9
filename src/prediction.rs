//! Predictions of a model, made before the scores were known: three additional columns of a scored batch.

use std::collections::HashMap;

use polars::prelude::{Column, DataFrame, DataType, IdxCa};

use crate::error::{Result, WrapErr};
use crate::frame::schema::{self, CHOSEN_BY, DB_IDX, DEVIATION, PREDICTED, PREDICTIONS, QUERY_IDX};

/// The types of the columns of predictions.
const DTYPES: [DataType; 3] = [DataType::Float64, DataType::Float64, DataType::String];

/// Splits the rows that a selector chose: returns the rows without predictions, and a frame with `query_idx`,
/// `db_idx` and the three columns.
/// `None` if the selector makes no predictions.
///
/// # Errors
/// Only some of the three columns, or a column of another type.
pub(crate) fn split_predictions(selected: DataFrame) -> Result<(DataFrame, Option<DataFrame>)> {
    if PREDICTIONS.iter().all(|name| selected.column(name).is_err()) {
        return Ok((selected, None));
    }
    let key = |name| schema::column("select", &selected, name).cloned();
    let mut columns = vec![key(QUERY_IDX)?, key(DB_IDX)?];
    for (name, dtype) in PREDICTIONS.iter().zip(&DTYPES) {
        columns.push(schema::typed_column("select", &selected, name, dtype)?.clone());
    }
    let predictions = DataFrame::new(selected.height(), columns).wrap_err("select")?;
    Ok((selected.drop_many(PREDICTIONS), Some(predictions)))
}

/// Joins the predictions to a scored batch, as its last columns. Rows without a prediction get nulls. Several queries may have
/// found an item, so its rows may have different predictions.
///
/// # Errors
/// A frame without `query_idx` or `db_idx`.
pub(crate) fn join_predictions(mut scored: DataFrame, predictions: &DataFrame) -> Result<DataFrame> {
    let row_of: HashMap<(u32, u64), u32> = keys(predictions)?.zip(0..).collect();
    let rows: IdxCa = keys(&scored)?.map(|key| row_of.get(&key).copied()).collect();
    for name in PREDICTIONS {
        let column = schema::column("select", predictions, name)?.take(&rows).wrap_err("predictions")?;
        scored.with_column(column).wrap_err("predictions")?;
    }
    Ok(scored)
}

/// The query and the item of each row.
fn keys(frame: &DataFrame) -> Result<impl Iterator<Item = (u32, u64)>> {
    Ok(schema::u32s(frame, QUERY_IDX)?.into_iter().zip(schema::u64s(frame, DB_IDX)?))
}

/// Adds predictions to the rows that a selector chose, in the order of the rows.
///
/// # Errors
/// A number of values that differs from the number of rows.
pub(crate) fn add_predictions(
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
pub(crate) fn has_predictions(frame: &DataFrame) -> bool {
    frame.column(CHOSEN_BY).is_ok()
}
