//! Partial results of weighted sums: which part to score next for which items, and which items are complete.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use polars::prelude::*;

use super::contract::{is_part, warn_once};
use crate::error::{Result, WrapErr};
use crate::frame::convert;
use crate::frame::outcome::{Outcome, PENDING};
use crate::frame::schema::{self, DB_IDX, OUTCOME, REASON, SCORE};

/// A part of a sum.
pub(super) struct Term {
    pub(super) name: String,
    pub(super) weight: f64,
    pub(super) at_least: Option<f64>,
    pub(super) is_paid: bool,
}

/// The result of a part for an item: its score, or why there is none.
type Said = std::result::Result<f64, (Outcome, String)>;

/// The partial results of some items. Rows are items.
pub(crate) struct PartialSums {
    terms: Vec<Term>,
    stages: Vec<Range<usize>>,
    /// The index of the next stage.
    next: usize,
    items: DataFrame,
    ids: Vec<u64>,
    row_of: HashMap<u64, u32>,
    /// By part, then by row; `None` if the part was not requested or has not answered.
    said: Vec<Vec<Option<Said>>>,
    /// Other numbers that the parts returned, by column name.
    others: BTreeMap<String, Vec<Option<f64>>>,
    /// Which rows are complete and were returned.
    handed: Vec<bool>,
}

/// Groups parts that are scored concurrently: one free part, or several paid ones, of which only the last has a gate.
fn stages(terms: &[Term]) -> Vec<Range<usize>> {
    let mut stages: Vec<Range<usize>> = Vec::new();
    for (position, term) in terms.iter().enumerate() {
        let before = position.checked_sub(1).map(|before| &terms[before]);
        let is_beside = |before: &Term| before.at_least.is_none() && before.is_paid && term.is_paid;
        match stages.last_mut().filter(|_| before.is_some_and(is_beside)) {
            Some(stage) => stage.end = position + 1,
            None => stages.push(position..position + 1),
        }
    }
    stages
}

impl PartialSums {
    /// Starts with known columns of the items: parts, and other numbers.
    pub(super) fn new(terms: Vec<Term>, items: &DataFrame, known: &[Column]) -> Result<Self> {
        let rows = items.height();
        let ids = schema::u64s(items, DB_IDX)?;
        let row_of = ids.iter().copied().zip(0..).collect();
        let mut said: Vec<Vec<Option<Said>>> = terms.iter().map(|_| vec![None; rows]).collect();
        let mut others = BTreeMap::new();
        for column in known {
            let values: Vec<Option<f64>> = column.f64().wrap_err("known parts of the score")?.iter().collect();
            match terms.iter().position(|term| term.name == column.name().as_str()) {
                Some(part) => said[part] = values.into_iter().map(|value| value.map(Ok)).collect(),
                None => drop(others.insert(column.name().to_string(), values)),
            }
        }
        let (stages, items) = (stages(&terms), items.clone());
        Ok(PartialSums { terms, stages, next: 0, items, ids, row_of, said, others, handed: vec![false; rows] })
    }

    /// Returns the items to score next, by part: those of the first remaining stage with unknown results. Call it
    /// when the previous stage has been answered. It is empty when everything is known.
    pub(crate) fn questions(&mut self) -> Result<Vec<(usize, DataFrame)>> {
        let mut questions = Vec::new();
        while questions.is_empty() {
            let Some(stage) = self.stages.get(self.next).cloned() else { break };
            self.next += 1;
            let rows = 0..self.handed.len() as u32;
            let open: Vec<u32> = rows.filter(|row| self.ended(*row, stage.start).is_none()).collect();
            for part in stage {
                let unknown = open.iter().copied().filter(|row| self.said[part][*row as usize].is_none());
                let unknown: Vec<u32> = unknown.collect();
                if !unknown.is_empty() {
                    questions.push((part, convert::gather(&self.items, &unknown)?));
                }
            }
        }
        Ok(questions)
    }

    /// Records validated answers of a part; returns their rows.
    pub(crate) fn take(&mut self, part: usize, answers: &DataFrame) -> Result<Vec<u32>> {
        let scores = schema::nullable_f64s(answers, SCORE)?;
        let outcomes = answers.column(OUTCOME).wrap_err("score")?.str().wrap_err("score")?;
        let reasons = answers.column(REASON).wrap_err("score")?.str().wrap_err("score")?;
        let items = schema::u64s(answers, DB_IDX)?;
        let rows: Vec<u32> = items.iter().filter_map(|item| self.row_of.get(item).copied()).collect();
        for (at, row) in rows.iter().enumerate() {
            self.said[part][*row as usize] = Some(scores[at].ok_or_else(|| {
                let outcome = outcomes.get(at).and_then(Outcome::from_name).unwrap_or(Outcome::Failed);
                (outcome, format!("{}: {}", self.terms[part].name, reasons.get(at).unwrap_or("no score")))
            }));
        }
        self.take_others(part, answers, &rows)?;
        Ok(rows)
    }

    /// Records the other numbers that a part returned, replacing earlier ones.
    fn take_others(&mut self, part: usize, answers: &DataFrame, rows: &[u32]) -> Result<()> {
        let (terms, all) = (&self.terms, self.handed.len());
        for (_, values) in self.others.iter_mut().filter(|(name, _)| owner(terms, name) == Some(part)) {
            rows.iter().for_each(|row| values[*row as usize] = None);
        }
        let mut left_out = BTreeSet::new();
        for column in answers.columns().iter().filter(|column| is_part(column.name())) {
            let name = format!("{}.{}", self.terms[part].name, column.name());
            if self.items.column(&name).is_ok() || owner(&self.terms, &name) != Some(part) {
                left_out.insert(name);
                continue;
            }
            let kept = self.others.entry(name).or_insert_with(|| vec![None; all]);
            for (row, value) in rows.iter().zip(schema::nullable_f64s(answers, column.name())?) {
                kept[*row as usize] = value;
            }
        }
        warn_once(left_out);
        Ok(())
    }

    /// Why a row ended before a part, if it did: an earlier part gave no score, or one below its gate.
    fn ended(&self, row: u32, before: usize) -> Option<(Outcome, String)> {
        self.terms[..before].iter().zip(&self.said).find_map(|(term, said)| {
            match (&said[row as usize], term.at_least) {
                (Some(Err(why)), _) => Some(why.clone()),
                (Some(Ok(score)), Some(limit)) if *score < limit => {
                    Some((Outcome::Rejected, format!("{}: {score} is below {limit}", term.name)))
                }
                _ => None,
            }
        })
    }

    /// Whether a row still needs the result of a part.
    fn waits(&self, row: u32) -> bool {
        let waiting =
            |stage: &&Range<usize>| self.said[(*stage).clone()].iter().any(|said| said[row as usize].is_none());
        self.stages.iter().find(waiting).is_some_and(|stage| self.ended(row, stage.start).is_none())
    }

    /// The score of a part for a row.
    fn value(&self, part: usize, row: u32) -> Option<f64> {
        self.said[part][row as usize].as_ref().and_then(|said| said.as_ref().ok().copied())
    }

    /// All rows.
    pub(crate) fn rows(&self) -> Vec<u32> {
        (0..self.handed.len() as u32).collect()
    }

    /// Returns those of some rows that are newly complete, and marks them as returned.
    pub(crate) fn complete(&mut self, rows: &[u32]) -> Result<Option<DataFrame>> {
        let fresh = |row: &u32| !self.handed[*row as usize] && !self.waits(*row);
        let rows: Vec<u32> = rows.iter().copied().filter(fresh).collect();
        rows.iter().for_each(|row| self.handed[*row as usize] = true);
        if rows.is_empty() { Ok(None) } else { self.frame(&rows).map(Some) }
    }

    /// Returns the rows to store after a part has answered, and how many of them are complete. Incomplete rows are stored with
    /// what is known so far. Results of free parts are stored only together with others.
    pub(crate) fn fresh(&mut self, part: usize, rows: &[u32]) -> Result<(usize, Option<DataFrame>)> {
        let is_complete = |row: &&u32| !self.waits(**row);
        let complete: Vec<u32> = rows.iter().filter(is_complete).copied().collect();
        complete.iter().for_each(|row| self.handed[*row as usize] = true);
        let kept = if self.terms[part].is_paid { rows } else { &complete };
        let frame = if kept.is_empty() { None } else { Some(self.frame(kept)?) };
        Ok((complete.len(), frame))
    }

    /// The rows that were rejected before a part.
    pub(super) fn rejected_before(&self, part: usize) -> Result<DataFrame> {
        let is_rejected = |row: &u32| matches!(self.ended(*row, part), Some((Outcome::Rejected, _)));
        self.frame(&self.rows().into_iter().filter(is_rejected).collect::<Vec<_>>())
    }

    /// Returns `db_idx`, `score`, `outcome`, `reason`, the parts and other numbers. The outcome of incomplete rows is `open`.
    pub(super) fn frame(&self, rows: &[u32]) -> Result<DataFrame> {
        let all = self.terms.len();
        let (mut scores, mut outcomes, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let ended = if self.waits(*row) { Some((PENDING, None)) } else { None };
            let ended = ended.or_else(|| self.ended(*row, all).map(|(outcome, why)| (outcome.name(), Some(why))));
            let weighted = self.terms.iter().enumerate();
            let weighted = weighted.map(|(at, term)| term.weight * self.value(at, *row).unwrap_or_default());
            scores.push(ended.is_none().then(|| weighted.fold(0.0, |sum, part| sum + part)));
            let (outcome, reason) = ended.unwrap_or((Outcome::Scored.name(), None));
            outcomes.push(outcome);
            reasons.push(reason);
        }
        let mut columns = vec![
            Column::new(DB_IDX.into(), rows.iter().map(|row| self.ids[*row as usize]).collect::<Vec<_>>()),
            Column::new(SCORE.into(), scores),
            Column::new(OUTCOME.into(), outcomes),
            Column::new(REASON.into(), reasons),
        ];
        for (part, term) in self.terms.iter().enumerate() {
            let values: Vec<Option<f64>> = rows.iter().map(|row| self.value(part, *row)).collect();
            columns.push(Column::new(term.name.as_str().into(), values));
        }
        for (name, values) in &self.others {
            let values: Vec<Option<f64>> = rows.iter().map(|row| values[*row as usize]).collect();
            if values.iter().any(Option::is_some) {
                columns.push(Column::new(name.as_str().into(), values));
            }
        }
        DataFrame::new(rows.len(), columns).wrap_err("score")
    }
}

/// The part that a column `part.name` belongs to: the one with the longest matching name, so that no two parts share a column.
/// A column with the name of a part belongs to none.
fn owner(terms: &[Term], column: &str) -> Option<usize> {
    let is_of = |term: &Term| column.strip_prefix(term.name.as_str()).is_some_and(|rest| rest.starts_with('.'));
    let is_a_part = terms.iter().any(|term| term.name == column);
    let owners = (0..terms.len()).filter(|part| !is_a_part && is_of(&terms[*part]));
    owners.max_by_key(|part| terms[*part].name.len())
}
