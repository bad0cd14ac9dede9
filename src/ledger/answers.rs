//! The answers for the items of a run, in memory.

use std::collections::BTreeMap;

use polars::prelude::*;

use crate::error::{Error, Result, WrapErr};
use crate::frame::outcome::{Outcome, PENDING};
use crate::frame::part_values::{PartColumn, PartKind, PartValue, part_column};
use crate::frame::schema::{self, DB_IDX, EVALUATION, OUTCOME, RAW_SCORE, REASON, SCORE};
use crate::score::is_part;

/// The answer for an item.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    /// `None` while the answer contains only parts of the score.
    pub(super) outcome: Option<Outcome>,
    /// The score as the scorer returned it, before any change of sign.
    score: Option<f64>,
    reason: Option<String>,
    parts: Vec<Option<PartValue>>,
}

/// Answers by item. Includes the answers of a killed process to items that the resumed search has not requested yet.
#[derive(Default)]
pub(super) struct Answers {
    by_item: PlHashMap<u64, Answer>,
    /// The parts of the score by name, so that the order in which batches arrive has no effect.
    parts: BTreeMap<String, Part>,
}

/// A part of the score, which answers contain in addition to the score.
struct Part {
    /// The index in [`Answer::parts`].
    index: usize,
    /// The kind of its first value, which all frames keep.
    kind: PartKind,
    /// Whether a warning has reported texts among numbers.
    has_warned: bool,
    /// The first iteration whose frame shows this part. Frames of earlier iterations never show it, even if an answer arrives
    /// early.
    first_iteration: Option<u32>,
}

impl Answers {
    /// The number of items with an answer or parts of one.
    pub(super) fn len(&self) -> usize {
        self.by_item.len()
    }

    /// The outcome of an item, if it has one.
    pub(super) fn outcome(&self, item: u64) -> Option<Outcome> {
        self.by_item.get(&item)?.outcome
    }

    /// The score of an item, as the scorer returned it, if it has one.
    pub(super) fn score(&self, item: u64) -> Option<f64> {
        self.by_item.get(&item)?.score
    }

    pub(super) fn reason(&self, item: u64) -> Option<&str> {
        self.by_item.get(&item)?.reason.as_deref()
    }

    /// Records a reused score.
    pub(super) fn record_reused(&mut self, item: u64, score: f64) {
        let outcome = Some(Outcome::Scored);
        self.by_item.insert(item, Answer { outcome, score: Some(score), reason: None, parts: Vec::new() });
    }

    /// Removes the outcome of a failed item before a retry, but keeps the parts of its score.
    pub(super) fn clear_failure(&mut self, item: u64) {
        if let Some(answer) = self.by_item.get_mut(&item) {
            (answer.outcome, answer.reason) = (None, None);
        }
    }

    /// Records answers: `db_idx`, `score`, `outcome`, `reason`, then parts. If there is no column `outcome`, as in format 1, the
    /// outcome is derived from the score.
    pub(super) fn record(&mut self, answers: &DataFrame) -> Result<()> {
        let mut parts = Vec::new();
        for column in answers.columns().iter().filter(|column| is_part(column.name())) {
            let Some(PartColumn { kind, values }) = PartColumn::read(column)? else { continue };
            let next = Part { index: self.parts.len(), kind, has_warned: false, first_iteration: None };
            let index = self.parts.entry(column.name().to_string()).or_insert(next).index;
            parts.push((index, values));
        }
        let (scores, outcomes) = (schema::nullable_f64s(answers, SCORE)?, outcomes(answers)?);
        let reasons = answers.column(REASON).wrap_err("answers")?.str().wrap_err("answers")?.clone();
        for (row, item) in schema::u64s(answers, DB_IDX)?.into_iter().enumerate() {
            let mut values = vec![None; if parts.is_empty() { 0 } else { self.parts.len() }];
            for (index, part) in &mut parts {
                values[*index] = part[row].take();
            }
            let reason = reasons.get(row).map(str::to_string);
            self.by_item.insert(item, Answer { outcome: outcomes[row], score: scores[row], reason, parts: values });
        }
        Ok(())
    }

    /// Converts the parts in new answers to the kinds that the parts have in this run. Numbers in a part of texts become text.
    /// Texts in a part of numbers are left out with a warning.
    pub(super) fn with_known_kinds(&mut self, mut answers: DataFrame) -> Result<DataFrame> {
        for column in answers.columns().to_vec().iter().filter(|column| is_part(column.name())) {
            let name = column.name().as_str();
            let Some(part) = self.parts.get_mut(name) else { continue };
            let Some(values) = PartColumn::read(column)?.filter(|values| values.kind != part.kind) else { continue };
            if part.kind == PartKind::Number && !std::mem::replace(&mut part.has_warned, true) {
                log::warn!("score: ignoring texts in `{name}`, because earlier answers of this run have numbers in it");
            }
            let column = part_column(name, part.kind, values.values.iter().map(Option::as_ref));
            answers.with_column(column).wrap_err("answers")?;
        }
        Ok(answers)
    }

    /// Records the answers of a scored frame from the log.
    pub(super) fn record_logged(&mut self, iteration: u32, scored: &DataFrame) -> Result<()> {
        let mut answers = scored.clone();
        if scored.column(RAW_SCORE).is_ok() {
            answers = answers.drop(SCORE).wrap_err("replaying")?;
            answers.rename(RAW_SCORE, SCORE.into()).wrap_err("replaying")?;
        }
        let columns: Vec<String> = schema::column_names(&answers).into_iter().map(str::to_string).collect();
        let first = columns.iter().position(|name| name == REASON).map_or(columns.len(), |position| position + 1);
        let fixed = [DB_IDX, SCORE, OUTCOME, REASON].into_iter().filter(|name| answers.column(name).is_ok());
        // Columns after the evaluation are predictions, which are not part of an answer.
        let parts: Vec<&str> =
            columns[first..].iter().map(String::as_str).take_while(|name| *name != EVALUATION).collect();
        let columns: Vec<&str> = fixed.chain(parts.iter().copied()).collect();
        // Keep newer parts of failed items that were being retried when the run ended.
        let items = schema::u64s(&answers, DB_IDX)?.into_iter();
        let newer: Vec<(u64, Answer)> = items
            .filter_map(|item| Some((item, self.by_item.get(&item).filter(|answer| answer.outcome.is_none())?.clone())))
            .collect();
        self.record(&answers.select(columns).wrap_err("replaying")?)?;
        for (item, newer) in newer {
            if let Some(answer) = self.by_item.get_mut(&item) {
                answer.parts.resize(self.parts.len(), None);
                answer.parts.iter_mut().zip(newer.parts).for_each(|(part, newer)| *part = part.take().or(newer));
            }
        }
        for name in parts {
            self.parts.get_mut(name).into_iter().for_each(|part| part.show(iteration));
        }
        Ok(())
    }

    /// Assigns the answers of some items to an iteration: the frames of this and later iterations show the parts that these
    /// answers contain. The parts in `always` are shown if any of the items was scored.
    pub(super) fn show_parts(&mut self, iteration: u32, items: &[u64], always: &[String]) {
        let answers: Vec<&Answer> = items.iter().filter_map(|item| self.by_item.get(item)).collect();
        let is_scored = answers.iter().any(|answer| !answer.parts.is_empty());
        for (name, part) in &mut self.parts {
            let has_part = |answer: &&Answer| answer.parts.get(part.index).is_some_and(Option::is_some);
            if part.first_iteration.is_none_or(|since| since > iteration)
                && (answers.iter().any(has_part) || is_scored && always.contains(name))
            {
                part.show(iteration);
            }
        }
    }

    /// The names of the parts that an iteration shows, sorted.
    pub(super) fn visible_parts(&self, iteration: u32) -> impl Iterator<Item = &str> {
        let is_visible = move |part: &Part| part.first_iteration.is_some_and(|since| since <= iteration);
        self.parts.iter().filter(move |(_, part)| is_visible(part)).map(|(name, _)| name.as_str())
    }

    /// The available parts of the scores of some items, as columns. Parts without values are left out.
    pub(super) fn stored_parts(&self, items: &[u64]) -> Vec<Column> {
        let column = |(name, part): (&String, &Part)| {
            let values = || items.iter().map(|item| self.by_item.get(item)?.parts.get(part.index)?.as_ref());
            values().any(|value| value.is_some()).then(|| part_column(name, part.kind, values()))
        };
        self.parts.iter().filter_map(column).collect()
    }

    /// Adds the answers to the results frame of an iteration: `score`, `raw_score` (if smaller is better), `outcome`, `reason` and
    /// the parts that the iteration shows.
    pub(super) fn add_scores(&self, iteration: u32, mut results: DataFrame, minimize: bool) -> Result<DataFrame> {
        let missing = || Error::contract("score", DB_IDX, "an answer for each item", "none");
        let answers = schema::u64s(&results, DB_IDX)?;
        let answers =
            answers.iter().map(|item| self.by_item.get(item).ok_or_else(missing)).collect::<Result<Vec<_>>>()?;
        let raw: Vec<Option<f64>> = answers.iter().map(|answer| answer.score).collect();
        let mut add = |column: Column| results.with_column(column).map(|_| ()).wrap_err("adding scores");
        if minimize {
            add(Column::new(SCORE.into(), raw.iter().map(|score| score.map(|score| -score)).collect::<Vec<_>>()))?;
            add(Column::new(RAW_SCORE.into(), raw))?;
        } else {
            add(Column::new(SCORE.into(), raw))?;
        }
        let outcomes: StringChunked = answers.iter().map(|answer| answer.outcome.map(Outcome::name)).collect();
        add(outcomes.with_name(OUTCOME.into()).into_column())?;
        let reasons: StringChunked = answers.iter().map(|answer| answer.reason.as_deref()).collect();
        add(reasons.with_name(REASON.into()).into_column())?;
        for name in self.visible_parts(iteration) {
            let Part { index, kind, .. } = self.parts[name];
            add(part_column(name, kind, answers.iter().map(|answer| answer.parts.get(index)?.as_ref())))?;
        }
        Ok(results)
    }
}

impl Part {
    fn show(&mut self, iteration: u32) {
        self.first_iteration = Some(self.first_iteration.map_or(iteration, |since| since.min(iteration)));
    }
}

/// The outcome of each row. `None` if the row contains only parts of a score.
pub(super) fn outcomes(frame: &DataFrame) -> Result<Vec<Option<Outcome>>> {
    let scores = schema::nullable_f64s(frame, SCORE)?;
    let of_score = |score: Option<f64>| Some(Outcome::from_score(score));
    let Ok(column) = frame.column(OUTCOME) else { return Ok(scores.into_iter().map(of_score).collect()) };
    let names = column.str().wrap_err("outcomes")?;
    let wrong = |name: &str| Error::contract("frame", OUTCOME, "scored, rejected or failed", name);
    let outcome = |(name, score): (Option<&str>, Option<f64>)| match name {
        None => Ok(of_score(score)),
        Some(PENDING) => Ok(None),
        Some(name) => Outcome::from_name(name).map(Some).ok_or_else(|| wrong(name)),
    };
    names.iter().zip(scores).map(outcome).collect()
}
