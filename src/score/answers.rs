//! The answers to a batch, collected over several attempts.

use std::collections::HashMap;
use std::sync::Arc;

use polars::prelude::*;

use super::AnswerSink;
use super::fault::{AttemptFault, ScorerFault};
use crate::error::{Error, Result, WrapErr};
use crate::frame::convert;
use crate::frame::outcome::Outcome;
use crate::frame::schema::{self, DB_IDX, OUTCOME, REASON, SCORE};

/// The answer for an item.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// A finite score.
    Score(f64),
    /// Not worth a score, with the reason.
    Rejected(String),
    /// No score, with the reason.
    Failed(String),
    /// The score is not a number; holds a description. The item fails if other items of the batch have valid scores.
    NotANumber(String),
}

/// Why an answer has no valid score.
pub(super) enum InvalidScore {
    /// The score is missing, with the reason.
    Missing(String),
    /// The score is not a number; holds a description.
    NotANumber(String),
}

impl Answer {
    /// Combines a score (or why it is missing) with the `reason` and the `outcome` that the scorer returned.
    pub(super) fn new(score: Result<f64, InvalidScore>, reason: Option<&str>, outcome: Option<&str>) -> Self {
        match (outcome.and_then(Outcome::from_name), score) {
            (Some(Outcome::Rejected), _) => Answer::Rejected(reason.unwrap_or("rejected by the scorer").into()),
            (Some(Outcome::Failed), Ok(_)) => Answer::Failed(reason.unwrap_or("no score").into()),
            (_, Ok(score)) if score.is_nan() => Answer::Failed("NaN".into()),
            (_, Ok(score)) if score.is_infinite() => Answer::Failed("infinite".into()),
            (_, Ok(score)) => Answer::Score(score),
            (_, Err(InvalidScore::Missing(reason))) => Answer::Failed(reason),
            (_, Err(InvalidScore::NotANumber(what))) => Answer::NotANumber(what),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Answer::Score(_) => Outcome::Scored,
            Answer::Rejected(_) => Outcome::Rejected,
            Answer::Failed(_) | Answer::NotANumber(_) => Outcome::Failed,
        }
    }

    fn score(&self) -> Option<f64> {
        if let Answer::Score(score) = self { Some(*score) } else { None }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Answer::Score(_) => None,
            Answer::Rejected(reason) | Answer::Failed(reason) | Answer::NotANumber(reason) => Some(reason),
        }
    }
}

/// The items of a batch.
struct BatchItems {
    items: Vec<u64>,
    row_of: HashMap<u64, usize>,
    /// The columns that were sent. If the scorer returns them, they are not parts of the score.
    sent_columns: SchemaRef,
}

/// The answers of a batch so far.
pub(super) struct Answers {
    batch: Arc<BatchItems>,
    table: AnswerTable,
    /// Which rows were passed to the sink.
    emitted: Vec<bool>,
}

/// Answers and parts, one row for each item of the batch.
struct AnswerTable {
    answers: Vec<Option<Answer>>,
    parts: Vec<(String, Vec<Option<f64>>)>,
}

impl AnswerTable {
    fn part(&mut self, name: &str) -> &mut Vec<Option<f64>> {
        let rows = self.answers.len();
        let index = self.parts.iter().position(|(part, _)| part == name).unwrap_or_else(|| {
            self.parts.push((name.into(), vec![None; rows]));
            self.parts.len() - 1
        });
        &mut self.parts[index].1
    }
}

impl Answers {
    /// Starts without answers.
    pub(super) fn new(batch: &DataFrame) -> Result<Self> {
        let items = schema::u64s(batch, DB_IDX)?;
        let row_of: HashMap<u64, usize> = items.iter().copied().zip(0..).collect();
        if row_of.len() < items.len() {
            let found = format!("{} items, {} distinct", items.len(), row_of.len());
            return Err(Error::contract("score", DB_IDX, "each item once", found));
        }
        let table = AnswerTable { answers: vec![None; items.len()], parts: Vec::new() };
        let emitted = vec![false; items.len()];
        Ok(Answers {
            batch: Arc::new(BatchItems { items, row_of, sent_columns: batch.schema().clone() }),
            table,
            emitted,
        })
    }

    /// Starts another attempt for some of the unanswered items.
    pub(super) fn attempt(&self, items: &DataFrame) -> Result<Attempt> {
        let mut requested = vec![false; self.emitted.len()];
        for item in schema::u64s(items, DB_IDX)? {
            if let Some(row) = self.batch.row_of.get(&item) {
                requested[*row] = self.table.answers[*row].is_none();
            }
        }
        let unanswered = requested.iter().filter(|requested| **requested).count();
        let table = AnswerTable { answers: vec![None; requested.len()], parts: Vec::new() };
        Ok(Attempt { batch: self.batch.clone(), requested, unanswered, table })
    }

    /// Adds the answers of an attempt.
    pub(super) fn merge(&mut self, attempt: Attempt) {
        for (name, values) in attempt.table.parts {
            for (merged, value) in self.table.part(&name).iter_mut().zip(values) {
                *merged = merged.or(value);
            }
        }
        for (merged, answer) in self.table.answers.iter_mut().zip(attempt.table.answers) {
            if answer.is_some() {
                *merged = answer;
            }
        }
    }

    /// The rows without an answer.
    pub(super) fn unanswered(&self) -> Vec<u32> {
        let rows = (0..).zip(&self.table.answers);
        rows.filter(|(_, answer)| answer.is_none()).map(|(row, _)| row).collect()
    }

    /// Whether any item has an answer.
    pub(super) fn has_any(&self) -> bool {
        self.table.answers.iter().any(Option::is_some)
    }

    /// Marks all items without an answer as failed.
    pub(super) fn fail_unanswered(&mut self, reason: &str) {
        for answer in self.table.answers.iter_mut().filter(|answer| answer.is_none()) {
            *answer = Some(Answer::Failed(reason.into()));
        }
    }

    /// Passes the answers that are new since the last call to `sink`, if there are any.
    pub(super) fn emit(&mut self, sink: &mut AnswerSink<'_>) -> Result<()> {
        let is_new = |row: &u32| !self.emitted[*row as usize] && self.table.answers[*row as usize].is_some();
        let rows: Vec<u32> = (0..self.emitted.len() as u32).filter(is_new).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let answers = convert::gather(&self.frame()?, &rows)?;
        rows.into_iter().for_each(|row| self.emitted[row as usize] = true);
        sink(answers)
    }

    /// The answers as [`Score::score`](super::Score::score) returns them: `db_idx`, `score`, `outcome`, `reason`, parts; one
    /// row for each item.
    pub(super) fn frame(&self) -> Result<DataFrame> {
        let answers = self.table.answers.iter().map(Option::as_ref);
        let scores: Vec<Option<f64>> = answers.clone().map(|answer| answer?.score()).collect();
        let outcomes: StringChunked = answers.clone().map(|answer| Some(answer?.outcome().name())).collect();
        let reasons: StringChunked = answers.map(|answer| answer?.reason()).collect();
        let mut columns = vec![
            Column::new(DB_IDX.into(), self.batch.items.clone()),
            Column::new(SCORE.into(), scores),
            outcomes.with_name(OUTCOME.into()).into_column(),
            reasons.with_name(REASON.into()).into_column(),
        ];
        let parts = self.table.parts.iter();
        columns.extend(parts.map(|(name, values)| Column::new(name.as_str().into(), values.clone())));
        DataFrame::new(columns[0].len(), columns).wrap_err("score")
    }
}

/// The answers of one attempt. [`Answers::merge`] adds them to those of the batch, unless the ids were wrong.
pub struct Attempt {
    batch: Arc<BatchItems>,
    requested: Vec<bool>,
    unanswered: usize,
    table: AnswerTable,
}

impl Attempt {
    /// Whether any item has an answer.
    pub(super) fn has_any(&self) -> bool {
        self.table.answers.iter().any(Option::is_some)
    }

    /// Whether every requested item has an answer.
    pub(super) fn is_complete(&self) -> bool {
        self.unanswered == 0
    }

    /// Returns a fault if none of the scores is a number: then the scorer is wrong, not the items. Returns `None` for a
    /// single item of a larger batch, because the item is then at fault.
    pub(super) fn invalid_answer(&self) -> Option<AttemptFault> {
        if self.requested.len() > 1 && self.requested.iter().filter(|requested| **requested).count() == 1 {
            return None;
        }
        let not_a_number = |answer: &Answer| match answer {
            Answer::NotANumber(what) => Some(what.clone()),
            _ => None,
        };
        let all: Option<Vec<String>> = self.table.answers.iter().flatten().map(not_a_number).collect();
        all?.into_iter().next().map(AttemptFault::invalid_answer)
    }

    /// The row of an item that was requested and has no answer yet.
    fn row(&mut self, db_idx: u64) -> Result<usize, ScorerFault> {
        let row = self.batch.row_of.get(&db_idx).copied().filter(|row| self.requested[*row]);
        match row {
            Some(row) if self.table.answers[row].is_some() => {
                Err(ScorerFault::wrong_ids(format!("returned item {db_idx} twice")))
            }
            Some(row) => Ok(row),
            None => Err(ScorerFault::wrong_ids(format!("returned item {db_idx}, which was not requested"))),
        }
    }

    /// Records the answer for an item and returns its row.
    ///
    /// # Errors
    /// The item was not requested, or already has an answer.
    pub(super) fn record(&mut self, db_idx: u64, answer: Answer) -> Result<usize, ScorerFault> {
        let row = self.row(db_idx)?;
        self.table.answers[row] = Some(answer);
        self.unanswered -= 1;
        Ok(row)
    }

    /// Records a part of an item's score. Columns that were sent are ignored. Values that are not finite become null.
    pub(super) fn record_part(&mut self, row: usize, name: &str, value: f64) {
        if !self.batch.sent_columns.contains(name) {
            self.table.part(name)[row] = Some(value).filter(|value| value.is_finite());
        }
    }

    /// The maximum number of rows to read: one more than the batch has items, which is enough to detect wrong ids.
    pub(super) fn max_rows(&self) -> usize {
        self.batch.items.len() + 1
    }

    /// Records a frame of answers: `db_idx`, `score`, optionally `outcome`, `reason` and parts, in any order.
    ///
    /// # Errors
    /// No column `db_idx` or `score`; ids that were not requested, or duplicate ids.
    pub(super) fn record_frame(&mut self, answers: &DataFrame) -> Result<(), ScorerFault> {
        let column = |name: &str| {
            let names = schema::column_names(answers).join(", ");
            answers
                .column(name)
                .map_err(|_| ScorerFault::wrong_ids(format!("returned no column `{name}` (there are: {names})")))
        };
        let ids = column(DB_IDX)?;
        // Some writers lose the type of a column without rows.
        if !ids.dtype().is_integer() && *ids.dtype() != DataType::Null {
            return Err(ScorerFault::wrong_ids(format!("returned `db_idx` as {}, expected integers", ids.dtype())));
        }
        let ids = ids.cast(&DataType::UInt64).wrap_err("score")?;
        let parsed = parse_answers(column(SCORE)?, answers.column(REASON).ok(), answers.column(OUTCOME).ok())?;
        let mut rows = Vec::with_capacity(answers.height());
        for (id, answer) in ids.u64().wrap_err("score")?.iter().zip(parsed) {
            let id = id.ok_or_else(|| ScorerFault::wrong_ids("returned a row without a `db_idx`"))?;
            rows.push(self.record(id, answer)?);
        }
        for part in answers.columns() {
            let name = part.name().as_str();
            if [DB_IDX, SCORE, OUTCOME, REASON].contains(&name)
                || self.batch.sent_columns.contains(name)
                || !is_number(part.dtype())
            {
                continue;
            }
            let values = part.cast(&DataType::Float64).wrap_err("score")?;
            // Add the part even if all its values are null, so that every batch has the same parts.
            self.table.part(name);
            for (row, value) in rows.iter().zip(values.f64().wrap_err("score")?.iter()) {
                if let Some(value) = value {
                    self.record_part(*row, name, value);
                }
            }
        }
        Ok(())
    }
}

fn is_number(dtype: &DataType) -> bool {
    dtype.is_primitive_numeric() || dtype.is_decimal() || *dtype == DataType::Boolean
}

/// Parses the answers of a frame. Scores may have any dtype.
fn parse_answers(
    scores: &Column,
    reasons: Option<&Column>,
    outcomes: Option<&Column>,
) -> Result<Vec<Answer>, ScorerFault> {
    let texts = |column: Option<&Column>| -> Result<StringChunked> {
        match column {
            Some(column) => Ok(column.cast(&DataType::String).wrap_err("score")?.str().wrap_err("score")?.clone()),
            None => Ok(StringChunked::full_null(REASON.into(), scores.len())),
        }
    };
    let (reasons, outcomes) = (texts(reasons)?, texts(outcomes)?);
    let details = reasons.iter().zip(outcomes.iter());
    let no_score = |reason: Option<&str>| Err(InvalidScore::Missing(reason.unwrap_or("no score").to_string()));
    let dtype = scores.dtype();
    if *dtype == DataType::String {
        let scores = scores.str().wrap_err("score")?.iter().zip(details);
        let answer = |(score, (reason, outcome)): (Option<&str>, (Option<&str>, Option<&str>))| {
            let score =
                score.map_or_else(|| no_score(reason), |score| Err(InvalidScore::NotANumber(text_for_number(score))));
            Answer::new(score, reason, outcome)
        };
        return Ok(scores.map(answer).collect());
    }
    if !is_number(dtype) && *dtype != DataType::Null {
        let wrong = || Err(InvalidScore::NotANumber(format!("returned {dtype} instead of a number")));
        return Ok(details.map(|(reason, outcome)| Answer::new(wrong(), reason, outcome)).collect());
    }
    let scores = scores.cast(&DataType::Float64).wrap_err("score")?;
    let scores = scores.f64().wrap_err("score")?.iter().zip(details);
    let answer = |(score, (reason, outcome)): (Option<f64>, (Option<&str>, Option<&str>))| {
        Answer::new(score.map_or_else(|| no_score(reason), Ok), reason, outcome)
    };
    Ok(scores.map(answer).collect())
}

/// The reason for an item whose score is text.
pub(super) fn text_for_number(text: &str) -> String {
    format!("returned text instead of a number: {}", excerpt(text.as_bytes()))
}

/// The beginning of a scorer's output, on one line, in backquotes.
pub(super) fn excerpt(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(240)]);
    let line = text.trim().lines().next().unwrap_or_default();
    let short: String = line.chars().take(60).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let more = if short.chars().count() < text.trim().chars().count() { "…" } else { "" };
    format!("`{short}{more}`")
}
