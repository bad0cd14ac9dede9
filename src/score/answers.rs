//! The answers to a request, collected over several attempts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use polars::prelude::*;

use super::AnswerSink;
use super::answer::{Answer, InvalidScore, text_for_number};
use super::fault::{AttemptFault, FaultKind, ScorerFault};
use super::validation::truncate_reason;
use crate::error::{Error, Result, WrapErr};
use crate::frame::convert;
use crate::frame::part_values::{PartColumn, PartKind, PartValue, part_column};
use crate::frame::schema::{self, DB_IDX, OUTCOME, REASON, SCORE};

/// The number of seconds after which an unavailable item should be requested again. Only in answers with the outcome `unavailable`.
pub(super) const RETRY_AFTER: &str = "retry_after";

/// The maximum delay that an answer may request.
const MAX_RETRY_AFTER: f64 = 86_400.0;

/// The items of a request.
struct RequestedItems {
    items: Vec<u64>,
    row_of: HashMap<u64, usize>,
    /// The columns that were sent. If the scorer returns them, they are not parts of the score.
    sent_columns: SchemaRef,
}

/// The answers to a request so far.
pub(super) struct RequestAnswers {
    request: Arc<RequestedItems>,
    table: AnswerTable,
    /// Which rows were passed to the sink.
    emitted: Vec<bool>,
}

/// RequestAnswers and parts, one row for each item of the request.
struct AnswerTable {
    answers: Vec<Option<Answer>>,
    parts: Vec<(String, PartColumn)>,
}

impl AnswerTable {
    fn new(rows: usize) -> Self {
        AnswerTable { answers: vec![None; rows], parts: Vec::new() }
    }

    fn part(&mut self, name: &str) -> &mut PartColumn {
        let rows = self.answers.len();
        let index = self.parts.iter().position(|(part, _)| part == name).unwrap_or_else(|| {
            self.parts.push((name.into(), PartColumn::new(rows)));
            self.parts.len() - 1
        });
        &mut self.parts[index].1
    }
}

impl RequestAnswers {
    /// Starts without answers.
    pub(super) fn new(sent: &DataFrame) -> Result<Self> {
        let items = schema::u64s(sent, DB_IDX)?;
        let row_of: HashMap<u64, usize> = items.iter().copied().zip(0..).collect();
        if row_of.len() < items.len() {
            let found = format!("{} items, {} distinct", items.len(), row_of.len());
            return Err(Error::contract("score", DB_IDX, "each item once", found));
        }
        let table = AnswerTable::new(items.len());
        let emitted = vec![false; items.len()];
        Ok(RequestAnswers {
            request: Arc::new(RequestedItems { items, row_of, sent_columns: sent.schema().clone() }),
            table,
            emitted,
        })
    }

    /// Starts another attempt for some of the unanswered items.
    pub(super) fn attempt(&self, items: &DataFrame) -> Result<Attempt> {
        let mut requested = vec![false; self.emitted.len()];
        for item in schema::u64s(items, DB_IDX)? {
            if let Some(row) = self.request.row_of.get(&item) {
                requested[*row] = self.table.answers[*row].is_none();
            }
        }
        let unanswered = requested.iter().filter(|requested| **requested).count();
        let (table, unavailable) = (AnswerTable::new(requested.len()), UnavailableItems::new(requested.len()));
        Ok(Attempt { request: self.request.clone(), requested, unanswered, table, unavailable })
    }

    /// Adds the answers of an attempt.
    pub(super) fn merge(&mut self, attempt: Attempt) {
        for (name, part) in attempt.table.parts {
            let merged = self.table.part(&name);
            for (row, value) in part.values.into_iter().enumerate().filter(|(_, value)| value.is_some()) {
                if merged.values[row].is_none() {
                    merged.set(row, value);
                }
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
            Column::new(DB_IDX.into(), self.request.items.clone()),
            Column::new(SCORE.into(), scores),
            outcomes.with_name(OUTCOME.into()).into_column(),
            reasons.with_name(REASON.into()).into_column(),
        ];
        let parts = self.table.parts.iter();
        columns.extend(parts.map(|(name, part)| part_column(name, part.kind, part.values.iter().map(Option::as_ref))));
        DataFrame::new(columns[0].len(), columns).wrap_err("score")
    }
}

/// The answers of one attempt. [`RequestAnswers::merge`] adds them to those of the request, unless the ids were wrong.
pub struct Attempt {
    request: Arc<RequestedItems>,
    requested: Vec<bool>,
    unanswered: usize,
    table: AnswerTable,
    unavailable: UnavailableItems,
}

/// The items of an attempt that the scorer did not look at.
struct UnavailableItems {
    rows: Vec<bool>,
    /// The first reason.
    reason: Option<String>,
    /// The longest requested delay.
    retry_after: Option<Duration>,
}

impl UnavailableItems {
    fn new(rows: usize) -> Self {
        UnavailableItems { rows: vec![false; rows], reason: None, retry_after: None }
    }
}

impl Attempt {
    /// Whether the scorer has returned anything about an item, even that it did not look at it.
    pub(super) fn has_any(&self) -> bool {
        self.has_answers() || self.unavailable.reason.is_some()
    }

    /// Whether any item has an answer.
    pub(super) fn has_answers(&self) -> bool {
        self.table.answers.iter().any(Option::is_some)
    }

    /// The outage, if the scorer did not look at some items.
    pub(super) fn outage(&self) -> Option<AttemptFault> {
        let reason = self.unavailable.reason.clone()?;
        Some(AttemptFault { retry_after: self.unavailable.retry_after, ..AttemptFault::new(FaultKind::Outage, reason) })
    }

    /// Whether every requested item has an answer.
    pub(super) fn is_complete(&self) -> bool {
        self.unanswered == 0
    }

    /// Returns a fault if none of the scores is a number: then the scorer is wrong, not the items. Returns `None` for a
    /// single item of a larger request, because the item is then at fault.
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
        let row = self.request.row_of.get(&db_idx).copied().filter(|row| self.requested[*row]);
        match row {
            Some(row) if self.table.answers[row].is_some() || self.unavailable.rows[row] => {
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
        self.unanswered -= 1;
        match answer {
            Answer::Unavailable(reason) => {
                self.unavailable.rows[row] = true;
                self.unavailable.reason.get_or_insert_with(|| truncate_reason(&reason));
            }
            answer => self.table.answers[row] = Some(answer),
        }
        Ok(row)
    }

    /// Records a part of an item's score. Columns that were sent are ignored. Numbers that are not finite become null. Of an item
    /// that the scorer did not look at, only the delay that it requests is recorded.
    pub(super) fn record_part(&mut self, row: usize, name: &str, value: PartValue) {
        let value = Some(value).filter(|value| !matches!(value, PartValue::Number(number) if !number.is_finite()));
        if self.unavailable.rows[row] {
            if let (RETRY_AFTER, Some(PartValue::Number(seconds))) = (name, value) {
                let delay = Duration::from_secs_f64(seconds.clamp(0.0, MAX_RETRY_AFTER));
                self.unavailable.retry_after = self.unavailable.retry_after.max(Some(delay));
            }
        } else if !self.request.sent_columns.contains(name) {
            self.table.part(name).set(row, value);
        }
    }

    /// The maximum number of rows to read: one more than the request has items, which is enough to detect wrong ids.
    pub(super) fn max_rows(&self) -> usize {
        self.request.items.len() + 1
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
            if [DB_IDX, SCORE, OUTCOME, REASON].contains(&name) || self.request.sent_columns.contains(name) {
                continue;
            }
            let Some(part) = PartColumn::read(part)? else { continue };
            // Add the part even if all its values are null, so that the answers to every request have the same parts. A delay
            // is no part.
            if part.kind == PartKind::Number && (name != RETRY_AFTER || self.unavailable.reason.is_none()) {
                self.table.part(name);
            }
            for (row, value) in rows.iter().zip(part.values) {
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
