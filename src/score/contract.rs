//! Validates the answers of a score against the requested items.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use polars::prelude::*;

use super::{Keep, Score};
use crate::error::{Error, Result, WrapErr};
use crate::frame::convert;
use crate::frame::outcome::Outcome;
use crate::frame::schema::{self, DB_IDX, EVALUATION, OUTCOME, REASON, SCORE};
use crate::panics::lock;

/// The maximum number of characters of a reason.
const LONGEST_REASON: usize = 500;

/// Scores a batch of distinct items. Passes each item's validated answer to `sink` once, as it arrives, as rows of `db_idx`,
/// `score`, `outcome`, `reason`, parts. Items without an answer have failed, unless the score returns an error.
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
                    "{} (add a `db_idx` column to return scores in another order, or to leave items out)",
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

/// The row of an item in the batch, which is then no longer unanswered.
fn row_of(id: u64, waiting: &mut HashMap<u64, u32>, items: &[u64]) -> Result<u32> {
    waiting.remove(&id).ok_or_else(|| match items.contains(&id) {
        true => Error::contract("score", DB_IDX, "each item once", format!("{id} twice")),
        false => {
            Error::contract("score", DB_IDX, "items that were requested", format!("{id}, which was not requested"))
        }
    })
}

/// Parses ids from a column of integers, or of whole floats, which pandas makes of integers with nulls.
///
/// # Errors
/// Any other value; the message names the first one.
fn ids_of(stage: &'static str, column: &Column) -> Result<Vec<u64>> {
    let dtype = column.dtype();
    // Some writers lose the type of a column without rows.
    if !dtype.is_integer() && !dtype.is_float() && *dtype != DataType::Null {
        return Err(Error::contract(stage, DB_IDX, "u64", dtype));
    }
    let cast = if dtype.is_float() { column.cast(&DataType::Float64).wrap_err(stage)? } else { column.clone() };
    let ids = cast.cast(&DataType::UInt64).wrap_err(stage)?;
    let ids = ids.u64().wrap_err(stage)?;
    let whole = |row: usize| match cast.f64() {
        Ok(values) => values.get(row).is_none_or(|value| value.fract() == 0.0 && (0.0..9.0e15).contains(&value)),
        Err(_) => true,
    };
    (0..ids.len())
        .map(|row| match ids.get(row).filter(|_| whole(row)) {
            Some(id) => Ok(id),
            None => {
                let found = column.get(row).wrap_err(stage)?;
                Err(Error::contract(stage, DB_IDX, "whole numbers as they were sent", format!("{found} in row {row}")))
            }
        })
        .collect()
}

/// The ids of manually given scores, and the rows whose items have no outcome yet.
///
/// # Errors
/// Invalid ids.
pub(crate) fn items_told(told: &DataFrame, is_known: impl Fn(u64) -> bool) -> Result<(Vec<u64>, Vec<u32>)> {
    let column = schema::column("tell", told, DB_IDX)?;
    let ids = ids_of("tell", column)?;
    let news = (0..).zip(&ids).filter(|(_, id)| !is_known(**id)).map(|(row, _)| row).collect();
    Ok((ids, news))
}

/// Returns answers in the order of the items, as `db_idx`, `score`, `outcome`, `reason`, parts. NaN and infinite scores become
/// failures with that reason. Adds the names of ignored columns to `left_out`.
fn checked(items: &DataFrame, answers: &DataFrame, left_out: &mut BTreeSet<String>) -> Result<DataFrame> {
    let score = number(answers, SCORE)?;
    let (said, reasons) = (texts(answers, OUTCOME)?, texts(answers, REASON)?);
    let (mut scores, mut outcomes, mut whys) = (Vec::new(), Vec::new(), Vec::new());
    for ((score, said), reason) in score.into_iter().zip(said.iter()).zip(reasons.iter()) {
        let said = said.and_then(Outcome::from_name);
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
        items.column(DB_IDX).wrap_err("score")?.clone(),
        Column::new(SCORE.into(), scores),
        Column::new(OUTCOME.into(), outcomes),
        Column::new(REASON.into(), whys),
    ];
    for part in answers.columns() {
        let name = part.name().as_str();
        if [DB_IDX, SCORE, OUTCOME, REASON].contains(&name) {
            continue;
        }
        if schema::is_reserved_column(name) || items.column(name).is_ok() || !is_number(part.dtype()) {
            left_out.insert(name.into());
        } else {
            columns.push(Column::new(name.into(), number(answers, name)?));
        }
    }
    DataFrame::new(items.height(), columns).wrap_err("score")
}

/// Warns about ignored columns of a scorer, once per process and column.
pub(super) fn warn_once(names: BTreeSet<String>) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut said = lock(&SAID);
    for name in names {
        if !said.contains(&name) {
            log::warn!("score: ignoring column `{name}` of the scorer: its name is already used, or it is not numeric");
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

/// A column as text; nulls if it is missing.
fn texts(answers: &DataFrame, name: &str) -> Result<StringChunked> {
    let Ok(column) = answers.column(name) else { return Ok(StringChunked::full_null(name.into(), answers.height())) };
    let text = column.cast(&DataType::String).wrap_err(format!("score: column `{name}`"))?;
    Ok(text.str().wrap_err("score")?.clone())
}

fn is_number(dtype: &DataType) -> bool {
    dtype.is_primitive_numeric() || dtype.is_decimal() || matches!(dtype, DataType::Boolean | DataType::Null)
}

/// A numeric column as nullable f64.
pub(crate) fn number(answers: &DataFrame, name: &str) -> Result<Vec<Option<f64>>> {
    let column = schema::column("score", answers, name)?;
    if !is_number(column.dtype()) {
        return Err(Error::contract("score", name, "a number", column.dtype()));
    }
    let column = column.cast(&DataType::Float64).wrap_err("score")?;
    Ok(column.f64().wrap_err("score")?.iter().collect())
}

/// Removes failed items from the answers, for runs that stop on a failure: they are not recorded, so that a resumed run scores
/// them again. Returns the error for the first one, which names the part of the sum.
pub(crate) fn without_failures(answers: DataFrame, part: Option<&str>) -> Result<(DataFrame, Option<Error>)> {
    let outcomes = answers.column(OUTCOME).wrap_err("score")?.str().wrap_err("score")?;
    let failed = outcomes.iter().position(|outcome| outcome == Some(Outcome::Failed.name()));
    let Some(row) = failed else { return Ok((answers, None)) };
    let reason = texts(&answers, REASON)?.get(row).unwrap_or("no score").to_string();
    let item = schema::u64s(&answers, DB_IDX)?[row];
    let others: BooleanChunked = outcomes.iter().map(|outcome| outcome != Some(Outcome::Failed.name())).collect();
    let others = answers.filter(&others).wrap_err("score")?;
    let part = part.map_or(String::new(), |part| format!("{part}: "));
    Ok((others, Some(Error::Score { iteration: None, reason: format!("item {item} failed: {part}{reason}") })))
}

/// Whether a column of answers is a part of the score.
pub(crate) fn is_part(name: &str) -> bool {
    ![DB_IDX, SCORE, OUTCOME, REASON, EVALUATION].contains(&name)
}
