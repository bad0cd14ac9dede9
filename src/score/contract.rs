//! What a scorer gave, checked against what it was asked.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use polars::prelude::*;

use super::{Keep, Score};
use crate::error::{Doing, Error, Result};
use crate::frame::convert;
use crate::frame::outcome::Outcome;
use crate::frame::schema::{self, DB_IDX, EVALUATION, OUTCOME, REASON, SCORE};
use crate::panics::lock;

/// The most characters of a reason that are kept.
const LONGEST_REASON: usize = 500;

/// Asks a score for a batch of distinct items. Hands each item's answer to `keep` once, checked, as it comes, as rows of
/// `db_idx`, `score`, `outcome`, `reason`, parts. Items that do not come back have failed, unless the score gives an error.
///
/// # Errors
/// As [`Score::score`]; answers that break the contract.
pub(crate) fn ask(score: &dyn Score, batch: &DataFrame, keep: &mut Keep<'_>) -> Result<()> {
    let items = schema::u64s(batch, DB_IDX)?;
    let mut open: HashMap<u64, u32> = items.iter().copied().zip(0..).collect();
    let (mut left_out, mut handed) = (BTreeSet::new(), false);
    let asked = score.score_into(batch, &mut |answers| {
        let rows = match answers.column(DB_IDX) {
            Ok(ids) => {
                let rows = ids_of("score", ids)?.into_iter().map(|id| row_of(id, &mut open, &items));
                rows.collect::<Result<Vec<u32>>>()?
            }
            Err(_) if answers.height() == items.len() && !handed => {
                open.clear();
                (0..items.len() as u32).collect()
            }
            Err(_) => {
                let found = format!(
                    "{} (with a `db_idx` column they may come in any order, or fail to come)",
                    answers.height()
                );
                return Err(Error::contract(
                    "score",
                    "rows",
                    format!("{} scores, one for each item", items.len()),
                    found,
                ));
            }
        };
        handed = true;
        keep(checked(&convert::gather(batch, &rows)?, &answers, &mut left_out)?)
    });
    warn_once(left_out);
    asked?;
    let mut silent: Vec<u32> = open.into_values().collect();
    silent.sort_unstable();
    match silent.is_empty() {
        true => Ok(()),
        false => {
            let silent = convert::gather(batch, &silent)?;
            let nothing = Column::full_null(SCORE.into(), silent.height(), &DataType::Float64).into_frame();
            keep(checked(&silent, &nothing, &mut BTreeSet::new())?)
        }
    }
}

/// The row of an item in the batch, which waits no more.
fn row_of(id: u64, waiting: &mut HashMap<u64, u32>, items: &[u64]) -> Result<u32> {
    waiting.remove(&id).ok_or_else(|| match items.contains(&id) {
        true => Error::contract("score", DB_IDX, "each item once", format!("{id} twice")),
        false => Error::contract("score", DB_IDX, "items that were asked", format!("{id}, which was not")),
    })
}

/// The ids in a column of integers, or of floats that are whole, as pandas makes of integers beside a null.
///
/// # Errors
/// Anything else; the message names the first.
fn ids_of(stage: &'static str, column: &Column) -> Result<Vec<u64>> {
    let dtype = column.dtype();
    // Of no rows at all, some writers do not know the type.
    if !dtype.is_integer() && !dtype.is_float() && *dtype != DataType::Null {
        return Err(Error::contract(stage, DB_IDX, "u64", dtype));
    }
    let cast = if dtype.is_float() { column.cast(&DataType::Float64).doing(stage)? } else { column.clone() };
    let ids = cast.cast(&DataType::UInt64).doing(stage)?;
    let ids = ids.u64().doing(stage)?;
    let whole = |row: usize| match cast.f64() {
        Ok(values) => values.get(row).is_none_or(|value| value.fract() == 0.0 && (0.0..9.0e15).contains(&value)),
        Err(_) => true,
    };
    (0..ids.len())
        .map(|row| match ids.get(row).filter(|_| whole(row)) {
            Some(id) => Ok(id),
            None => {
                let found = column.get(row).doing(stage)?;
                Err(Error::contract(
                    stage,
                    DB_IDX,
                    "whole numbers as they were given out",
                    format!("{found} in row {row}"),
                ))
            }
        })
        .collect()
}

/// The rows of told scores whose items are not known yet, and the ids of all.
///
/// # Errors
/// Ids that are none.
pub(crate) fn items_told(told: &DataFrame, is_known: impl Fn(u64) -> bool) -> Result<(Vec<u64>, Vec<u32>)> {
    let column = schema::expect_column("told scores", told, DB_IDX)?;
    let ids = ids_of("told scores", column)?;
    let news = (0..).zip(&ids).filter(|(_, id)| !is_known(**id)).map(|(row, _)| row).collect();
    Ok((ids, news))
}

/// Answers in the order of the items, as `db_idx`, `score`, `outcome`, `reason`, parts. NaN and infinite scores are
/// failures with that reason. Notes the columns that are left out.
fn checked(items: &DataFrame, answers: &DataFrame, left_out: &mut BTreeSet<String>) -> Result<DataFrame> {
    let score = number(answers, SCORE)?;
    let (said, reasons) = (texts(answers, OUTCOME)?, texts(answers, REASON)?);
    let (mut scores, mut outcomes, mut whys) = (Vec::new(), Vec::new(), Vec::new());
    for ((score, said), reason) in score.into_iter().zip(said.iter()).zip(reasons.iter()) {
        let said = said.and_then(Outcome::named);
        let failure = match score {
            _ if said == Some(Outcome::Rejected) => Some("rejected by the scorer"),
            None => Some("no score"),
            Some(score) if score.is_nan() => Some("NaN"),
            Some(score) if score.is_infinite() => Some("infinite"),
            Some(_) => (said == Some(Outcome::Failed)).then_some("no score"),
        };
        let outcome = match (failure, said) {
            (None, _) => Outcome::Scored,
            (_, Some(Outcome::Rejected)) => Outcome::Rejected,
            _ => Outcome::Failed,
        };
        scores.push(score.filter(|_| failure.is_none()));
        outcomes.push(outcome.name());
        whys.push(failure.map(|failure| shortened(reason.unwrap_or(failure))));
    }
    let mut columns = vec![
        items.column(DB_IDX).doing("score")?.clone(),
        Column::new(SCORE.into(), scores),
        Column::new(OUTCOME.into(), outcomes),
        Column::new(REASON.into(), whys),
    ];
    for part in answers.columns() {
        let name = part.name().as_str();
        if [DB_IDX, SCORE, OUTCOME, REASON].contains(&name) {
            continue;
        }
        if schema::is_reserved(name) || items.column(name).is_ok() || !is_number(part.dtype()) {
            left_out.insert(name.into());
        } else {
            columns.push(Column::new(name.into(), number(answers, name)?));
        }
    }
    DataFrame::new(items.height(), columns).doing("score")
}

/// Says once per program that a scorer gives what cannot be kept.
pub(super) fn warn_once(names: BTreeSet<String>) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut said = lock(&SAID);
    for name in names {
        if !said.contains(&name) {
            log::warn!("score: the scorer's `{name}` is left out: the name is taken, or it is no number");
            said.insert(name);
        }
    }
}

fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.into(),
    }
}

/// A column as text, if there is one; nulls if not.
fn texts(answers: &DataFrame, name: &str) -> Result<StringChunked> {
    let Ok(column) = answers.column(name) else { return Ok(StringChunked::full_null(name.into(), answers.height())) };
    let text = column.cast(&DataType::String).doing(format!("score: column `{name}`"))?;
    Ok(text.str().doing("score")?.clone())
}

fn is_number(dtype: &DataType) -> bool {
    dtype.is_primitive_numeric() || dtype.is_decimal() || matches!(dtype, DataType::Boolean | DataType::Null)
}

/// A numeric column as nullable f64.
pub(crate) fn number(answers: &DataFrame, name: &str) -> Result<Vec<Option<f64>>> {
    let column = schema::expect_column("score", answers, name)?;
    if !is_number(column.dtype()) {
        return Err(Error::contract("score", name, "a number", column.dtype()));
    }
    let column = column.cast(&DataType::Float64).doing("score")?;
    Ok(column.f64().doing("score")?.iter().collect())
}

/// Sets failed items aside: where they stop the run they are not recorded, so that they are asked
/// again when it goes on. Gives the error for the first, which names the part that was asked.
pub(crate) fn without_failures(answers: DataFrame, part: Option<&str>) -> Result<(DataFrame, Option<Error>)> {
    let outcomes = answers.column(OUTCOME).doing("score")?.str().doing("score")?;
    let failed = outcomes.iter().position(|outcome| outcome == Some(Outcome::Failed.name()));
    let Some(row) = failed else { return Ok((answers, None)) };
    let reason = texts(&answers, REASON)?.get(row).unwrap_or("no score").to_string();
    let item = schema::u64s(&answers, DB_IDX)?[row];
    let others: BooleanChunked = outcomes.iter().map(|outcome| outcome != Some(Outcome::Failed.name())).collect();
    let others = answers.filter(&others).doing("score")?;
    let part = part.map_or(String::new(), |part| format!("{part}: "));
    Ok((others, Some(Error::Score { iteration: None, reason: format!("item {item} failed: {part}{reason}") })))
}

/// Of the columns of answers, those that are parts of the score.
pub(crate) fn is_part(name: &str) -> bool {
    ![DB_IDX, SCORE, OUTCOME, REASON, EVALUATION].contains(&name)
}
