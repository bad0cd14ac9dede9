//! Validates the answers of a score against the requested items.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use polars::prelude::*;

use super::{AnswerSink, Score};
use crate::error::{Error, Result, WrapErr};
use crate::frame::convert;
use crate::frame::outcome::{Outcome, UNAVAILABLE};
use crate::frame::part_values::{PartColumn, part_column};
use crate::frame::schema::{self, DB_IDX, EVALUATION, OUTCOME, REASON, SCORE};
use crate::panics::lock;

/// The maximum number of characters of a reason.
const MAX_REASON_CHARS: usize = 500;

/// Scores the distinct items of a request. Validates the answers and passes them to `sink`, each item once, in frames of `db_idx`,
/// `score`, `outcome`, `reason`, parts. Items without an answer have failed, unless the score returns an error.
///
/// # Errors
/// As [`Score::score`]; answers that break the contract; [`Error::Unavailable`] if the score did not look at some items. The
/// answers for the other items are passed to `sink` before.
pub(crate) fn score_request(score: &dyn Score, request: &DataFrame, sink: &mut AnswerSink<'_>) -> Result<()> {
    let items = schema::u64s(request, DB_IDX)?;
    let mut unanswered: HashMap<u64, u32> = items.iter().copied().zip(0..).collect();
    let (mut ignored, mut has_answers, mut outage) = (BTreeSet::new(), false, None);
    let result = score.score_into(request, &mut |answers| {
        let rows = match answers.column(DB_IDX) {
            Ok(ids) => {
                let rows = parse_ids("score", ids)?.into_iter().map(|id| row_of(id, &mut unanswered, &items));
                rows.collect::<Result<Vec<u32>>>()?
            }
            Err(_) if answers.height() == items.len() && !has_answers => {
                unanswered.clear();
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
        has_answers = true;
        let (looked_at, reason) = split_unavailable(&answers)?;
        outage = outage.take().or(reason);
        let items = convert::gather(request, &rows)?;
        match looked_at {
            None => sink(validate(&items, &answers, &mut ignored)?),
            Some(kept) if kept.is_empty() => Ok(()),
            Some(kept) => {
                sink(validate(&convert::gather(&items, &kept)?, &convert::gather(&answers, &kept)?, &mut ignored)?)
            }
        }
    });
    warn_ignored_columns(ignored);
    result?;
    if let Some(reason) = outage {
        return Err(Error::Unavailable { reason });
    }
    let mut missing: Vec<u32> = unanswered.into_values().collect();
    missing.sort_unstable();
    match missing.is_empty() {
        true => Ok(()),
        false => {
            let missing = convert::gather(request, &missing)?;
            let nothing = Column::full_null(SCORE.into(), missing.height(), &DataType::Float64).into_frame();
            sink(validate(&missing, &nothing, &mut BTreeSet::new())?)
        }
    }
}

/// Returns the row of an item in the request, and removes the item from `unanswered`.
fn row_of(id: u64, unanswered: &mut HashMap<u64, u32>, items: &[u64]) -> Result<u32> {
    unanswered.remove(&id).ok_or_else(|| match items.contains(&id) {
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
fn parse_ids(stage: &'static str, column: &Column) -> Result<Vec<u64>> {
    let dtype = column.dtype();
    // Some writers lose the type of a column without rows.
    if !dtype.is_integer() && !dtype.is_float() && *dtype != DataType::Null {
        return Err(Error::contract(stage, DB_IDX, "u64", dtype));
    }
    let cast = if dtype.is_float() { column.cast(&DataType::Float64).wrap_err(stage)? } else { column.clone() };
    let ids = cast.cast(&DataType::UInt64).wrap_err(stage)?;
    let ids = ids.u64().wrap_err(stage)?;
    let is_whole = |row: usize| match cast.f64() {
        Ok(values) => values.get(row).is_none_or(|value| value.fract() == 0.0 && (0.0..9.0e15).contains(&value)),
        Err(_) => true,
    };
    (0..ids.len())
        .map(|row| match ids.get(row).filter(|_| is_whole(row)) {
            Some(id) => Ok(id),
            None => {
                let found = column.get(row).wrap_err(stage)?;
                Err(Error::contract(stage, DB_IDX, "whole numbers as they were sent", format!("{found} in row {row}")))
            }
        })
        .collect()
}

/// Returns the ids of the scores that a user gives, and the rows whose items have no outcome yet.
///
/// # Errors
/// Invalid ids.
pub(crate) fn given_items(given: &DataFrame, has_outcome: impl Fn(u64) -> bool) -> Result<(Vec<u64>, Vec<u32>)> {
    let column = schema::column("tell", given, DB_IDX)?;
    let ids = parse_ids("tell", column)?;
    let new_rows = (0..).zip(&ids).filter(|(_, id)| !has_outcome(**id)).map(|(row, _)| row).collect();
    Ok((ids, new_rows))
}

/// Returns answers in the order of the items, as `db_idx`, `score`, `outcome`, `reason`, parts. NaN and infinite scores become
/// failures with that reason. Adds the names of ignored columns to `ignored`.
fn validate(items: &DataFrame, answers: &DataFrame, ignored: &mut BTreeSet<String>) -> Result<DataFrame> {
    let score = numbers(answers, SCORE)?;
    let (outcome_names, reasons) = (texts(answers, OUTCOME)?, texts(answers, REASON)?);
    let (mut scores, mut outcomes, mut failure_reasons) = (Vec::new(), Vec::new(), Vec::new());
    for ((score, outcome), reason) in score.into_iter().zip(outcome_names.iter()).zip(reasons.iter()) {
        let given = outcome.and_then(Outcome::from_name);
        let failure = match score {
            _ if given == Some(Outcome::Rejected) => Some("rejected by the scorer"),
            None => Some("no score"),
            Some(score) if score.is_nan() => Some("NaN"),
            Some(score) if score.is_infinite() => Some("infinite"),
            Some(_) => (given == Some(Outcome::Failed)).then_some("no score"),
        };
        let outcome = match (failure, given) {
            (None, _) => Outcome::Scored,
            (_, Some(Outcome::Rejected)) => Outcome::Rejected,
            _ => Outcome::Failed,
        };
        scores.push(score.filter(|_| failure.is_none()));
        outcomes.push(outcome.name());
        failure_reasons.push(failure.map(|failure| truncate_reason(reason.unwrap_or(failure))));
    }
    let mut columns = vec![
        items.column(DB_IDX).wrap_err("score")?.clone(),
        Column::new(SCORE.into(), scores),
        Column::new(OUTCOME.into(), outcomes),
        Column::new(REASON.into(), failure_reasons),
    ];
    for part in answers.columns() {
        let name = part.name().as_str();
        if [DB_IDX, SCORE, OUTCOME, REASON].contains(&name) {
            continue;
        }
        let is_usable = !schema::is_reserved_column(name) && items.column(name).is_err();
        match PartColumn::read(part)? {
            Some(part) if is_usable => {
                columns.push(part_column(name, part.kind, part.values.iter().map(Option::as_ref)));
            }
            // A column without any value contains nothing to ignore.
            None if is_usable && part.null_count() == part.len() => {}
            _ => drop(ignored.insert(name.into())),
        }
    }
    DataFrame::new(items.height(), columns).wrap_err("score")
}

/// Warns about ignored columns of a scorer, once per process and column.
pub(super) fn warn_ignored_columns(names: BTreeSet<String>) {
    static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut warned = lock(&WARNED);
    for name in names {
        if !warned.contains(&name) {
            log::warn!(
                "score: ignoring column `{name}` of the scorer: its name is already used, or its values are neither numbers nor texts"
            );
            warned.insert(name);
        }
    }
}

pub(super) fn truncate_reason(reason: &str) -> String {
    match reason.char_indices().nth(MAX_REASON_CHARS) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.into(),
    }
}

/// Finds the items that a score did not look at. Returns the rows of the others and the first reason, or `None` if there are no
/// such items.
fn split_unavailable(answers: &DataFrame) -> Result<(Option<Vec<u32>>, Option<String>)> {
    let outcomes = texts(answers, OUTCOME)?;
    let Some(first) = outcomes.iter().position(|outcome| outcome == Some(UNAVAILABLE)) else { return Ok((None, None)) };
    let kept = (0..).zip(outcomes.iter()).filter(|(_, outcome)| *outcome != Some(UNAVAILABLE)).map(|(row, _)| row);
    let reason =
        texts(answers, REASON)?.get(first).map_or("the scorer did not look at the item".into(), truncate_reason);
    Ok((Some(kept.collect()), Some(reason)))
}

/// Removes the items that were not looked at from the scores that a user gives, so that they stay pending.
pub(crate) fn without_unavailable(given: &DataFrame) -> Result<DataFrame> {
    match split_unavailable(given)?.0 {
        Some(kept) => convert::gather(given, &kept),
        None => Ok(given.clone()),
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
pub(crate) fn numbers(answers: &DataFrame, name: &str) -> Result<Vec<Option<f64>>> {
    let column = schema::column("score", answers, name)?;
    if !is_number(column.dtype()) {
        return Err(Error::contract("score", name, "a number", column.dtype()));
    }
    let column = column.cast(&DataType::Float64).wrap_err("score")?;
    Ok(column.f64().wrap_err("score")?.iter().collect())
}

/// Removes failed items from the answers, for runs that stop on a failure: they are not recorded, so that a resumed run scores
/// them again. Returns the error for the first one, which names the part of the sum.
pub(crate) fn split_failures(answers: DataFrame, part: Option<&str>) -> Result<(DataFrame, Option<Error>)> {
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
