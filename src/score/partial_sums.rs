//! Partial results of weighted sums: which part to score next for which items, and which items are complete.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use polars::prelude::*;

use super::validation::{is_part, warn_ignored_columns};
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
type PartResult = std::result::Result<f64, (Outcome, String)>;

/// The partial results of some items. Rows are items.
pub(crate) struct PartialSums {
    terms: Vec<Term>,
    stages: Vec<Range<usize>>,
    /// The index of the next stage.
    next_stage: usize,
    items: DataFrame,
    ids: Vec<u64>,
    row_of: HashMap<u64, u32>,
    /// By part, then by row; `None` if the part was not requested or has not answered.
    results: Vec<Vec<Option<PartResult>>>,
    /// Other numbers that the parts returned, by column name.
    extra_values: BTreeMap<String, Vec<Option<f64>>>,
    /// Which rows are complete and were returned.
    is_returned: Vec<bool>,
}

/// Groups parts that are scored concurrently: one free part, or several paid ones, of which only the last has a gate.
fn group_stages(terms: &[Term]) -> Vec<Range<usize>> {
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
        let mut results: Vec<Vec<Option<PartResult>>> = terms.iter().map(|_| vec![None; rows]).collect();
        let mut extra_values = BTreeMap::new();
        for column in known {
            let values: Vec<Option<f64>> = column.f64().wrap_err("known parts of the score")?.iter().collect();
            match terms.iter().position(|term| term.name == column.name().as_str()) {
                Some(part) => results[part] = values.into_iter().map(|value| value.map(Ok)).collect(),
                None => drop(extra_values.insert(column.name().to_string(), values)),
            }
        }
        let (stages, items) = (group_stages(&terms), items.clone());
        Ok(PartialSums {
            terms,
            stages,
            next_stage: 0,
            items,
            ids,
            row_of,
            results,
            extra_values,
            is_returned: vec![false; rows],
        })
    }

    /// Returns the items to score next, by part: those of the first remaining stage with unknown results. Call it
    /// when the previous stage has been answered. It is empty when everything is known.
    pub(crate) fn next_requests(&mut self) -> Result<Vec<(usize, DataFrame)>> {
        let mut requests = Vec::new();
        while requests.is_empty() {
            let Some(stage) = self.stages.get(self.next_stage).cloned() else { break };
            self.next_stage += 1;
            let rows = 0..self.is_returned.len() as u32;
            let pending: Vec<u32> = rows.filter(|row| self.outcome_before(*row, stage.start).is_none()).collect();
            for part in stage {
                let unknown = pending.iter().copied().filter(|row| self.results[part][*row as usize].is_none());
                let unknown: Vec<u32> = unknown.collect();
                if !unknown.is_empty() {
                    requests.push((part, convert::gather(&self.items, &unknown)?));
                }
            }
        }
        Ok(requests)
    }

    /// Records validated answers of a part; returns their rows.
    pub(crate) fn record(&mut self, part: usize, answers: &DataFrame) -> Result<Vec<u32>> {
        let scores = schema::nullable_f64s(answers, SCORE)?;
        let outcomes = answers.column(OUTCOME).wrap_err("score")?.str().wrap_err("score")?;
        let reasons = answers.column(REASON).wrap_err("score")?.str().wrap_err("score")?;
        let items = schema::u64s(answers, DB_IDX)?;
        let rows: Vec<u32> = items.iter().filter_map(|item| self.row_of.get(item).copied()).collect();
        for (at, row) in rows.iter().enumerate() {
            self.results[part][*row as usize] = Some(scores[at].ok_or_else(|| {
                let outcome = outcomes.get(at).and_then(Outcome::from_name).unwrap_or(Outcome::Failed);
                (outcome, format!("{}: {}", self.terms[part].name, reasons.get(at).unwrap_or("no score")))
            }));
        }
        self.record_extra_values(part, answers, &rows)?;
        Ok(rows)
    }

    /// Records the other numbers that a part returned, replacing earlier ones.
    fn record_extra_values(&mut self, part: usize, answers: &DataFrame, rows: &[u32]) -> Result<()> {
        let (terms, all) = (&self.terms, self.is_returned.len());
        for (_, values) in self.extra_values.iter_mut().filter(|(name, _)| owner_of_column(terms, name) == Some(part)) {
            rows.iter().for_each(|row| values[*row as usize] = None);
        }
        let mut left_out = BTreeSet::new();
        for column in answers.columns().iter().filter(|column| is_part(column.name())) {
            let name = format!("{}.{}", self.terms[part].name, column.name());
            if self.items.column(&name).is_ok() || owner_of_column(&self.terms, &name) != Some(part) {
                left_out.insert(name);
                continue;
            }
            let kept = self.extra_values.entry(name).or_insert_with(|| vec![None; all]);
            for (row, value) in rows.iter().zip(schema::nullable_f64s(answers, column.name())?) {
                kept[*row as usize] = value;
            }
        }
        warn_ignored_columns(left_out);
        Ok(())
    }

    /// Why a row ended before a part, if it did: an earlier part gave no score, or one below its gate.
    fn outcome_before(&self, row: u32, before: usize) -> Option<(Outcome, String)> {
        self.terms[..before].iter().zip(&self.results).find_map(|(term, results)| {
            match (&results[row as usize], term.at_least) {
                (Some(Err(why)), _) => Some(why.clone()),
                (Some(Ok(score)), Some(limit)) if *score < limit => {
                    Some((Outcome::Rejected, format!("{}: {score} is below {limit}", term.name)))
                }
                _ => None,
            }
        })
    }

    /// Whether a row still needs the result of a part.
    fn is_pending(&self, row: u32) -> bool {
        let is_incomplete =
            |stage: &&Range<usize>| self.results[(*stage).clone()].iter().any(|result| result[row as usize].is_none());
        self.stages.iter().find(is_incomplete).is_some_and(|stage| self.outcome_before(row, stage.start).is_none())
    }

    /// The score of a part for a row.
    fn value(&self, part: usize, row: u32) -> Option<f64> {
        self.results[part][row as usize].as_ref().and_then(|result| result.as_ref().ok().copied())
    }

    /// All rows.
    pub(crate) fn rows(&self) -> Vec<u32> {
        (0..self.is_returned.len() as u32).collect()
    }

    /// Returns those of some rows that are newly complete, and marks them as returned.
    pub(crate) fn newly_complete(&mut self, rows: &[u32]) -> Result<Option<DataFrame>> {
        let is_new = |row: &u32| !self.is_returned[*row as usize] && !self.is_pending(*row);
        let rows: Vec<u32> = rows.iter().copied().filter(is_new).collect();
        rows.iter().for_each(|row| self.is_returned[*row as usize] = true);
        if rows.is_empty() { Ok(None) } else { self.frame(&rows).map(Some) }
    }

    /// Returns the rows to store after a part has answered, and how many of them are complete. Incomplete rows are stored with
    /// what is known so far. Results of free parts are stored only together with others.
    pub(crate) fn rows_to_store(&mut self, part: usize, rows: &[u32]) -> Result<(usize, Option<DataFrame>)> {
        let is_complete = |row: &&u32| !self.is_pending(**row);
        let complete: Vec<u32> = rows.iter().filter(is_complete).copied().collect();
        complete.iter().for_each(|row| self.is_returned[*row as usize] = true);
        let stored = if self.terms[part].is_paid { rows } else { &complete };
        let frame = if stored.is_empty() { None } else { Some(self.frame(stored)?) };
        Ok((complete.len(), frame))
    }

    /// The rows that were rejected before a part.
    pub(super) fn rejected_before(&self, part: usize) -> Result<DataFrame> {
        let is_rejected = |row: &u32| matches!(self.outcome_before(*row, part), Some((Outcome::Rejected, _)));
        self.frame(&self.rows().into_iter().filter(is_rejected).collect::<Vec<_>>())
    }

    /// Returns `db_idx`, `score`, `outcome`, `reason`, the parts and other numbers. The outcome of incomplete rows is `open`.
    pub(super) fn frame(&self, rows: &[u32]) -> Result<DataFrame> {
        let all = self.terms.len();
        let (mut scores, mut outcomes, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let ended = if self.is_pending(*row) { Some((PENDING, None)) } else { None };
            let ended =
                ended.or_else(|| self.outcome_before(*row, all).map(|(outcome, why)| (outcome.name(), Some(why))));
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
        for (name, values) in &self.extra_values {
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
fn owner_of_column(terms: &[Term], column: &str) -> Option<usize> {
    let is_of = |term: &Term| column.strip_prefix(term.name.as_str()).is_some_and(|rest| rest.starts_with('.'));
    let is_a_part = terms.iter().any(|term| term.name == column);
    let owners = (0..terms.len()).filter(|part| !is_a_part && is_of(&terms[*part]));
    owners.max_by_key(|part| terms[*part].name.len())
}
