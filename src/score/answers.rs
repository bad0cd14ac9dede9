//! The answers to a batch, gathered over several attempts.

use std::collections::HashMap;
use std::sync::Arc;

use polars::prelude::*;

use super::trouble::Trouble;
use crate::error::{Doing, Error, Result};
use crate::schema::{self, DB_IDX, REASON, SCORE};

/// What an item was answered: a finite number, or why there is none.
type Outcome = std::result::Result<f64, String>;

/// The items of a batch.
struct Asked {
    items: Vec<u64>,
    row_of: HashMap<u64, usize>,
    /// What the scorer was sent: if it sends that back, it is not a part of the score.
    columns: SchemaRef,
}

/// What is known of each item of a batch so far.
pub(super) struct Answers {
    asked: Arc<Asked>,
    given: Given,
}

/// Rows are those of the batch.
struct Given {
    outcomes: Vec<Option<Outcome>>,
    parts: Vec<(String, Vec<Option<f64>>)>,
}

impl Given {
    fn part(&mut self, name: &str) -> &mut Vec<Option<f64>> {
        let rows = self.outcomes.len();
        let at = self.parts.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.parts.push((name.into(), vec![None; rows]));
            self.parts.len() - 1
        });
        &mut self.parts[at].1
    }
}

impl Answers {
    /// Nothing answered yet.
    pub(super) fn new(batch: &DataFrame) -> Result<Self> {
        let items = schema::u64s(batch, DB_IDX)?;
        let row_of: HashMap<u64, usize> = items.iter().copied().zip(0..).collect();
        if row_of.len() < items.len() {
            let found = format!("{} items, {} distinct", items.len(), row_of.len());
            return Err(Error::contract("score", DB_IDX, "each item once", found));
        }
        let given = Given { outcomes: vec![None; items.len()], parts: Vec::new() };
        Ok(Answers { asked: Arc::new(Asked { items, row_of, columns: batch.schema().clone() }), given })
    }

    /// Room for the answers of one more attempt, which asks for what is unanswered.
    pub(super) fn attempt(&self) -> Attempt {
        let open: Vec<bool> = self.given.outcomes.iter().map(Option::is_none).collect();
        let left = open.iter().filter(|open| **open).count();
        let given = Given { outcomes: vec![None; open.len()], parts: Vec::new() };
        Attempt { asked: self.asked.clone(), open, left, given }
    }

    /// Keeps what an attempt answered.
    pub(super) fn take(&mut self, attempt: Attempt) {
        for (name, values) in attempt.given.parts {
            for (kept, value) in self.given.part(&name).iter_mut().zip(values) {
                *kept = kept.or(value);
            }
        }
        for (kept, outcome) in self.given.outcomes.iter_mut().zip(attempt.given.outcomes) {
            if outcome.is_some() {
                *kept = outcome;
            }
        }
    }

    /// The rows without an answer.
    pub(super) fn unanswered(&self) -> Vec<u32> {
        let rows = (0..).zip(&self.given.outcomes);
        rows.filter(|(_, outcome)| outcome.is_none()).map(|(row, _)| row).collect()
    }

    /// Gives up the items without an answer.
    pub(super) fn fail(&mut self, reason: &str) {
        for outcome in self.given.outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = Some(Err(reason.into()));
        }
    }

    /// As [`Score::score`](super::Score::score) gives it: `db_idx`, `score`, `reason`, parts.
    pub(super) fn into_frame(self) -> Result<DataFrame> {
        let outcomes = &self.given.outcomes;
        let scores: Vec<Option<f64>> = outcomes
            .iter()
            .map(|outcome| outcome.as_ref().and_then(|outcome| outcome.as_ref().ok().copied()))
            .collect();
        let reasons: StringChunked = outcomes
            .iter()
            .map(|outcome| outcome.as_ref().and_then(|outcome| outcome.as_ref().err().map(String::as_str)))
            .collect();
        let mut columns = vec![
            Column::new(DB_IDX.into(), self.asked.items.clone()),
            Column::new(SCORE.into(), scores),
            reasons.with_name(REASON.into()).into_column(),
        ];
        columns.extend(self.given.parts.into_iter().map(|(name, values)| Column::new(name.into(), values)));
        DataFrame::new(columns[0].len(), columns).doing("score")
    }
}

/// What one attempt answered. It counts once the attempt is over, unless its ids were wrong.
pub struct Attempt {
    asked: Arc<Asked>,
    open: Vec<bool>,
    left: usize,
    given: Given,
}

impl Attempt {
    /// Whether each item that was asked is answered.
    pub(super) fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// The row of an item that was asked and not answered yet.
    fn row(&mut self, db_idx: u64) -> Result<usize, Trouble> {
        let row = self.asked.row_of.get(&db_idx).copied().filter(|row| self.open[*row]);
        match row {
            Some(row) if self.given.outcomes[row].is_some() => {
                Err(Trouble::void(format!("answered item {db_idx} twice")))
            }
            Some(row) => Ok(row),
            None => Err(Trouble::void(format!("answered for item {db_idx}, which was not asked"))),
        }
    }

    /// Takes the answer for an item, and gives its row. NaN and infinities are failures.
    ///
    /// # Errors
    /// An item that was not asked, or that was answered already.
    pub(super) fn put(&mut self, db_idx: u64, outcome: Outcome) -> Result<usize, Trouble> {
        let row = self.row(db_idx)?;
        self.given.outcomes[row] = Some(outcome.and_then(|score| match score {
            score if score.is_nan() => Err("NaN".into()),
            score if score.is_infinite() => Err("infinite".into()),
            score => Ok(score),
        }));
        self.left -= 1;
        Ok(row)
    }

    /// Takes a part of an item's score. What was sent and comes back is left out; so is what is not finite.
    pub(super) fn put_part(&mut self, row: usize, name: &str, value: f64) {
        if !self.asked.columns.contains(name) {
            self.given.part(name)[row] = Some(value).filter(|value| value.is_finite());
        }
    }

    /// Takes answers that came as a frame with `db_idx`, `score`, optionally `reason` and parts, in any order.
    ///
    /// # Errors
    /// A frame without `db_idx` or `score`; ids that were not asked, or twice.
    pub(super) fn put_frame(&mut self, answers: &DataFrame) -> Result<(), Trouble> {
        let column = |name: &str| {
            let names = schema::names(answers).join(", ");
            answers
                .column(name)
                .map_err(|_| Trouble::void(format!("answered without a column `{name}` (there are: {names})")))
        };
        let ids = column(DB_IDX)?;
        // Of no rows at all, some writers do not know the type.
        if !ids.dtype().is_integer() && *ids.dtype() != DataType::Null {
            return Err(Trouble::void(format!("answered `db_idx` as {}, expected integers", ids.dtype())));
        }
        let ids = ids.cast(&DataType::UInt64).doing("score")?;
        let scores = outcomes(column(SCORE)?, answers.column(REASON).ok())?;
        let mut rows = Vec::with_capacity(answers.height());
        for (id, outcome) in ids.u64().doing("score")?.iter().zip(scores) {
            let id = id.ok_or_else(|| Trouble::void("answered for an item without a `db_idx`"))?;
            rows.push(self.put(id, outcome)?);
        }
        for part in answers.columns() {
            let name = part.name().as_str();
            if [DB_IDX, SCORE, REASON].contains(&name) || self.asked.columns.contains(name) || !is_number(part.dtype())
            {
                continue;
            }
            let values = part.cast(&DataType::Float64).doing("score")?;
            // Also where all are null: the parts are the same in each batch.
            self.given.part(name);
            for (row, value) in rows.iter().zip(values.f64().doing("score")?.iter()) {
                if let Some(value) = value {
                    self.put_part(*row, name, value);
                }
            }
        }
        Ok(())
    }
}

fn is_number(dtype: &DataType) -> bool {
    dtype.is_primitive_numeric() || dtype.is_decimal() || *dtype == DataType::Boolean
}

/// The scores of a frame, whatever their dtype; a null has the reason beside it.
fn outcomes(scores: &Column, reasons: Option<&Column>) -> Result<Vec<Outcome>, Trouble> {
    let dtype = scores.dtype();
    let reasons = match reasons {
        Some(reasons) => reasons.cast(&DataType::String).doing("score: column `reason`")?,
        None => Column::full_null(REASON.into(), scores.len(), &DataType::String),
    };
    let reasons = reasons.str().doing("score")?.iter();
    let no_score = |reason: Option<&str>| Err(reason.unwrap_or("no score").to_string());
    if *dtype == DataType::String {
        let scores = scores.str().doing("score")?.iter();
        return Ok(scores
            .zip(reasons)
            .map(|(score, reason)| score.map_or_else(|| no_score(reason), |score| Err(text_for_number(score))))
            .collect());
    }
    if !is_number(dtype) && *dtype != DataType::Null {
        return Ok(vec![Err(format!("answered {dtype} for a number")); scores.len()]);
    }
    let scores = scores.cast(&DataType::Float64).doing("score")?;
    Ok(scores
        .f64()
        .doing("score")?
        .iter()
        .zip(reasons)
        .map(|(score, reason)| score.map_or_else(|| no_score(reason), Ok))
        .collect())
}

/// The reason of an item whose score is text.
pub(super) fn text_for_number(text: &str) -> String {
    format!("answered text for a number: {}", excerpt(text.as_bytes()))
}

/// The beginning of what a scorer said, on one line, in quotes.
pub(super) fn excerpt(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(240)]);
    let line = text.trim().lines().next().unwrap_or_default();
    let short: String = line.chars().take(60).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let more = if short.chars().count() < text.trim().chars().count() { "…" } else { "" };
    format!("`{short}{more}`")
}
