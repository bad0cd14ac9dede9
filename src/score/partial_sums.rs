//! Partial results of weighted sums: selects the items that each part scores next, and finds the items that are complete.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use polars::prelude::*;

use super::validation::{is_part, warn_ignored_columns};
use crate::error::{Result, WrapErr};
use crate::frame::convert;
use crate::frame::outcome::{Outcome, PENDING};
use crate::frame::part_values::{PartColumn, part_column};
use crate::frame::schema::{self, DB_IDX, OUTCOME, REASON, SCORE};

/// A term of a sum: the settings of one part.
pub(super) struct Term {
    pub(super) name: String,
    pub(super) weight: f64,
    /// The gate: items with a lower score of this part are rejected.
    pub(super) at_least: Option<f64>,
    /// Whether the scorer of this part is paid ([`Score::is_paid`](super::Score::is_paid)).
    pub(super) is_paid: bool,
}

/// The result of a part for an item: its score, or the outcome and reason if it has none.
type PartResult = std::result::Result<f64, (Outcome, String)>;

/// The results of each part for some items. Each row is an item.
pub(crate) struct PartialSums {
    terms: Vec<Term>,
    /// Consecutive parts that are scored concurrently.
    groups: Vec<Range<usize>>,
    /// The index of the next group to score.
    next_group: usize,
    items: DataFrame,
    ids: Vec<u64>,
    row_of: HashMap<u64, u32>,
    /// The results by part, then by row. `None` if the part was not requested or has not answered.
    results: Vec<Vec<Option<PartResult>>>,
    /// Other numbers and texts that the parts returned, by column name.
    extra_values: BTreeMap<String, PartColumn>,
    /// Whether each row was returned as complete.
    is_returned: Vec<bool>,
}

/// Groups consecutive parts that are scored concurrently. A group is one free part, or several paid parts of which only the
/// last may have a gate.
fn group_parts(terms: &[Term]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for (position, term) in terms.iter().enumerate() {
        let previous = position.checked_sub(1).map(|previous| &terms[previous]);
        let is_concurrent = |previous: &Term| previous.at_least.is_none() && previous.is_paid && term.is_paid;
        match groups.last_mut().filter(|_| previous.is_some_and(is_concurrent)) {
            Some(group) => group.end = position + 1,
            None => groups.push(position..position + 1),
        }
    }
    groups
}

impl PartialSums {
    /// Starts with the columns in `known`: results of parts, and other values that parts returned.
    pub(super) fn new(terms: Vec<Term>, items: &DataFrame, known: &[Column]) -> Result<Self> {
        let rows = items.height();
        let ids = schema::u64s(items, DB_IDX)?;
        let row_of = ids.iter().copied().zip(0..).collect();
        let mut results: Vec<Vec<Option<PartResult>>> = terms.iter().map(|_| vec![None; rows]).collect();
        let mut extra_values = BTreeMap::new();
        for column in known {
            match terms.iter().position(|term| term.name == column.name().as_str()) {
                Some(part) => {
                    let values = column.f64().wrap_err("known parts of the score")?.iter();
                    results[part] = values.map(|value| value.map(Ok)).collect();
                }
                None => {
                    extra_values.extend(PartColumn::read(column)?.map(|values| (column.name().to_string(), values)))
                }
            }
        }
        let (groups, items) = (group_parts(&terms), items.clone());
        Ok(PartialSums {
            terms,
            groups,
            next_group: 0,
            items,
            ids,
            row_of,
            results,
            extra_values,
            is_returned: vec![false; rows],
        })
    }

    /// Returns pairs of a part and the items that it scores next. They are of the next group that lacks results. Call it when
    /// all answers of the previous group are recorded. The list is empty when no result is missing.
    pub(crate) fn next_requests(&mut self) -> Result<Vec<(usize, DataFrame)>> {
        let mut requests = Vec::new();
        while requests.is_empty() {
            let Some(group) = self.groups.get(self.next_group).cloned() else { break };
            self.next_group += 1;
            let rows = 0..self.is_returned.len() as u32;
            let pending: Vec<u32> = rows.filter(|row| self.outcome_before(*row, group.start).is_none()).collect();
            for part in group {
                let unknown = pending.iter().copied().filter(|row| self.results[part][*row as usize].is_none());
                let unknown: Vec<u32> = unknown.collect();
                if !unknown.is_empty() {
                    requests.push((part, convert::gather(&self.items, &unknown)?));
                }
            }
        }
        Ok(requests)
    }

    /// Records the validated answers of a part. Returns their rows.
    pub(crate) fn record(&mut self, part: usize, answers: &DataFrame) -> Result<Vec<u32>> {
        let scores = schema::nullable_f64s(answers, SCORE)?;
        let outcomes = answers.column(OUTCOME).wrap_err("score")?.str().wrap_err("score")?;
        let reasons = answers.column(REASON).wrap_err("score")?.str().wrap_err("score")?;
        let items = schema::u64s(answers, DB_IDX)?;
        let rows: Vec<u32> = items.iter().filter_map(|item| self.row_of.get(item).copied()).collect();
        for (answer, row) in rows.iter().enumerate() {
            self.results[part][*row as usize] = Some(scores[answer].ok_or_else(|| {
                let outcome = outcomes.get(answer).and_then(Outcome::from_name).unwrap_or(Outcome::Failed);
                (outcome, format!("{}: {}", self.terms[part].name, reasons.get(answer).unwrap_or("no score")))
            }));
        }
        self.record_extra_values(part, answers, &rows)?;
        Ok(rows)
    }

    /// Records the other values that a part returned. They replace earlier ones of the same rows.
    fn record_extra_values(&mut self, part: usize, answers: &DataFrame, rows: &[u32]) -> Result<()> {
        let (terms, row_count) = (&self.terms, self.is_returned.len());
        for (_, values) in self.extra_values.iter_mut().filter(|(name, _)| owner_of_column(terms, name) == Some(part)) {
            rows.iter().for_each(|row| values.set(*row as usize, None));
        }
        let mut ignored = BTreeSet::new();
        for column in answers.columns().iter().filter(|column| is_part(column.name())) {
            let name = format!("{}.{}", self.terms[part].name, column.name());
            if self.items.column(&name).is_ok() || owner_of_column(&self.terms, &name) != Some(part) {
                ignored.insert(name);
                continue;
            }
            let Some(part) = PartColumn::read(column)? else { continue };
            let values = self.extra_values.entry(name).or_insert_with(|| PartColumn::new(row_count));
            rows.iter().zip(part.values).for_each(|(row, value)| values.set(*row as usize, value));
        }
        warn_ignored_columns(ignored);
        Ok(())
    }

    /// The outcome and reason of a row if an earlier part than `before` decides it: by a missing score, or by a score below its
    /// gate.
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
            |group: &&Range<usize>| self.results[(*group).clone()].iter().any(|result| result[row as usize].is_none());
        self.groups.iter().find(is_incomplete).is_some_and(|group| self.outcome_before(row, group.start).is_none())
    }

    /// The score of a part for a row.
    fn value(&self, part: usize, row: u32) -> Option<f64> {
        self.results[part][row as usize].as_ref().and_then(|result| result.as_ref().ok().copied())
    }

    /// All rows.
    pub(crate) fn rows(&self) -> Vec<u32> {
        (0..self.is_returned.len() as u32).collect()
    }

    /// Returns the frame of those rows that are complete and were not returned before. Marks them as returned.
    pub(crate) fn newly_complete(&mut self, rows: &[u32]) -> Result<Option<DataFrame>> {
        let is_new = |row: &u32| !self.is_returned[*row as usize] && !self.is_pending(*row);
        let rows: Vec<u32> = rows.iter().copied().filter(is_new).collect();
        rows.iter().for_each(|row| self.is_returned[*row as usize] = true);
        if rows.is_empty() { Ok(None) } else { self.frame(&rows).map(Some) }
    }

    /// Returns the rows to store after a part has answered, and how many of them are complete. After a paid part, incomplete
    /// rows are stored too, with the results so far. After a free part they are not: its results cost nothing.
    pub(crate) fn rows_to_store(&mut self, part: usize, rows: &[u32]) -> Result<(usize, Option<DataFrame>)> {
        let is_complete = |row: &&u32| !self.is_pending(**row);
        let complete: Vec<u32> = rows.iter().filter(is_complete).copied().collect();
        complete.iter().for_each(|row| self.is_returned[*row as usize] = true);
        let stored = if self.terms[part].is_paid { rows } else { &complete };
        let frame = if stored.is_empty() { None } else { Some(self.frame(stored)?) };
        Ok((complete.len(), frame))
    }

    /// The rows that a gate or scorer before `part` rejected.
    pub(super) fn rejected_before(&self, part: usize) -> Result<DataFrame> {
        let is_rejected = |row: &u32| matches!(self.outcome_before(*row, part), Some((Outcome::Rejected, _)));
        self.frame(&self.rows().into_iter().filter(is_rejected).collect::<Vec<_>>())
    }

    /// Returns a frame of some rows: `db_idx`, `score`, `outcome`, `reason`, the parts, and other values that parts returned.
    /// The outcome of incomplete rows is `open`.
    pub(super) fn frame(&self, rows: &[u32]) -> Result<DataFrame> {
        let part_count = self.terms.len();
        let (mut scores, mut outcomes, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let unscored = if self.is_pending(*row) { Some((PENDING, None)) } else { None };
            let unscored = unscored
                .or_else(|| self.outcome_before(*row, part_count).map(|(outcome, why)| (outcome.name(), Some(why))));
            let weighted = self.terms.iter().enumerate();
            let weighted = weighted.map(|(part, term)| term.weight * self.value(part, *row).unwrap_or_default());
            scores.push(unscored.is_none().then(|| weighted.fold(0.0, |sum, part| sum + part)));
            let (outcome, reason) = unscored.unwrap_or((Outcome::Scored.name(), None));
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
        for (name, part) in &self.extra_values {
            let values = || rows.iter().map(|row| part.values[*row as usize].as_ref());
            if values().any(|value| value.is_some()) {
                columns.push(part_column(name, part.kind, values()));
            }
        }
        DataFrame::new(rows.len(), columns).wrap_err("score")
    }
}

/// The part that a column `part.name` belongs to. If several part names match, the longest one wins. A column with exactly the
/// name of a part belongs to no part.
fn owner_of_column(terms: &[Term], column: &str) -> Option<usize> {
    let is_of = |term: &Term| column.strip_prefix(term.name.as_str()).is_some_and(|rest| rest.starts_with('.'));
    let is_a_part = terms.iter().any(|term| term.name == column);
    let owners = (0..terms.len()).filter(|part| !is_a_part && is_of(&terms[*part]));
    owners.max_by_key(|part| terms[*part].name.len())
}
