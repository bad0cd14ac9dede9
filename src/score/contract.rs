//! What a scorer gave, checked against what it was asked.

use std::collections::HashMap;

use polars::prelude::*;

use crate::error::{Doing, Error, Result};
use crate::schema::{self, DB_IDX, REASON, SCORE};

/// Sets failed items aside: where they stop the run they are not recorded, so that they are asked
/// again when it goes on. Gives the error for the first.
pub(crate) fn without_failures(answers: DataFrame) -> Result<(DataFrame, Option<Error>)> {
    let scores = answers.column(SCORE).doing("score")?;
    let Some(row) = schema::scores(&answers, SCORE)?.iter().position(Option::is_none) else {
        return Ok((answers, None));
    };
    let reason =
        answers.column(REASON).doing("score")?.str().doing("score")?.get(row).unwrap_or("no score").to_string();
    let item = schema::u64s(&answers, DB_IDX)?[row];
    let scored = answers.filter(&scores.is_not_null()).doing("score")?;
    Ok((scored, Some(Error::Score { iteration: None, reason: format!("item {item} failed: {reason}") })))
}

/// Puts what a score gave into the order asked, as `db_idx`, `score`, `reason`, parts.
/// NaN and infinite scores become failures with that reason.
pub(crate) fn check_answers(batch: &DataFrame, answers: DataFrame) -> Result<DataFrame> {
    let asked = schema::u64s(batch, DB_IDX)?;
    let answers = match answers.column(DB_IDX) {
        Ok(_) => in_order(&asked, answers)?,
        Err(_) if answers.height() == asked.len() => answers,
        Err(_) => {
            let found =
                format!("{} (with a `db_idx` column they may come in any order, or fail to come)", answers.height());
            return Err(Error::contract("score", "rows", format!("{} scores, one for each item", asked.len()), found));
        }
    };
    let mut columns = vec![Column::new(DB_IDX.into(), asked)];
    let score = number(&answers, SCORE)?;
    let reasons = match answers.column(REASON) {
        Ok(column) => column
            .cast(&DataType::String)
            .doing("score: column `reason`")?
            .str()
            .doing("score: column `reason`")?
            .clone(),
        Err(_) => StringChunked::full_null(REASON.into(), answers.height()),
    };
    let failure = |score: Option<f64>| match score {
        None => Some("no score"),
        Some(score) if score.is_nan() => Some("NaN"),
        Some(score) if score.is_infinite() => Some("infinite"),
        Some(_) => None,
    };
    let reasons: StringChunked = score
        .iter()
        .zip(reasons.iter())
        .map(|(score, reason)| failure(*score).map(|failure| reason.unwrap_or(failure)))
        .collect();
    let finite: Vec<Option<f64>> = score.iter().map(|score| score.filter(|score| score.is_finite())).collect();
    columns.push(Column::new(SCORE.into(), finite));
    columns.push(reasons.with_name(REASON.into()).into_column());
    for name in schema::names(&answers) {
        if [DB_IDX, SCORE, REASON].contains(&name) {
            continue;
        }
        if schema::is_reserved(name) || batch.column(name).is_ok() {
            return Err(Error::contract("score", name, "another name for a part of the score", "a name that is taken"));
        }
        columns.push(Column::new(name.into(), number(&answers, name)?));
    }
    DataFrame::new(columns[0].len(), columns).doing("score")
}

/// A numeric column as nullable f64.
fn number(answers: &DataFrame, name: &str) -> Result<Vec<Option<f64>>> {
    let Ok(column) = answers.column(name) else {
        let names = schema::names(answers).join(", ");
        return Err(Error::contract("score", name, "a number", format!("no such column (there are: {names})")));
    };
    let dtype = column.dtype();
    if !(dtype.is_primitive_numeric() || dtype.is_decimal() || matches!(dtype, DataType::Boolean | DataType::Null)) {
        return Err(Error::contract("score", name, "a number", dtype));
    }
    let column = column.cast(&DataType::Float64).doing("score")?;
    Ok(column.f64().doing("score")?.iter().collect())
}

/// Matches answers to the items asked by `db_idx`; an item without an answer has a null score.
fn in_order(asked: &[u64], answers: DataFrame) -> Result<DataFrame> {
    let ids = answers.column(DB_IDX).doing("score")?.cast(&DataType::UInt64).doing("score: column `db_idx`")?;
    let ids = ids.u64().doing("score")?.clone();
    let position: HashMap<u64, usize> = asked.iter().copied().zip(0..).collect();
    let mut row_of: Vec<Option<u32>> = vec![None; asked.len()];
    for (row, id) in ids.iter().enumerate() {
        let Some(at) = id.and_then(|id| position.get(&id)) else {
            let found = id.map_or("null".to_string(), |id| format!("{id}, which was not"));
            return Err(Error::contract("score", DB_IDX, "items that were asked", found));
        };
        if row_of[*at].replace(row as u32).is_some() {
            return Err(Error::contract("score", DB_IDX, "each item once", format!("{} twice", asked[*at])));
        }
    }
    let rows: IdxCa = row_of.into_iter().collect();
    answers.take(&rows.with_name("rows".into())).doing("score")
}
