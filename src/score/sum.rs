//! Several scores as one: a weighted sum, and cheap gates before dear scores.

use std::collections::HashMap;

use polars::prelude::*;

use super::contract::ask;
use super::{Keep, Score, Session};
use crate::bridge;
use crate::error::{Doing, Error, Result};
use crate::outcome::{OPEN, Outcome};
use crate::schema::{self, DB_IDX, OUTCOME, REASON, SCORE};

/// A weighted sum of scores: `sum_i(weight_i * part_i)`.
///
/// Parts are asked in the order they were added, and each is kept in the log as a column of its name, as
/// its scorer gave it. A negative weight takes a part as a cost. With [`SumScore::gate`] a part also
/// decides who goes on: an item below the gate is not asked of the parts after it, so put cheap
/// ones first. Such an item is rejected, and one that a part fails on has failed; the
/// reason names the part, and the parts that are known are kept. An item that gates of free parts reject, before
/// any other part, costs no evaluation. Each part is paid for once: it is kept before the next part is asked for.
#[derive(Default)]
pub struct SumScore {
    parts: Vec<Part>,
}

struct Part {
    name: String,
    weight: f64,
    at_least: Option<f64>,
    score: Box<dyn Score>,
}

impl SumScore {
    /// No parts yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part.
    pub fn part(self, name: impl Into<String>, weight: f64, score: impl Score + 'static) -> Self {
        self.boxed(name.into(), weight, None, Box::new(score))
    }

    /// Adds a part that an item must reach `at_least` in, or it is not asked of the parts that follow.
    pub fn gate(self, name: impl Into<String>, weight: f64, at_least: f64, score: impl Score + 'static) -> Self {
        self.boxed(name.into(), weight, Some(at_least), Box::new(score))
    }

    pub(crate) fn boxed(mut self, name: String, weight: f64, at_least: Option<f64>, score: Box<dyn Score>) -> Self {
        self.parts.push(Part { name, weight, at_least, score });
        self
    }
}

/// What is known of a batch, row by row.
struct Sums<'a> {
    parts: &'a [Part],
    items: DataFrame,
    /// By part, then by row, as its scorer gave it.
    values: Vec<Vec<Option<f64>>>,
    /// How it ended before the last part.
    ended: Vec<Option<(Outcome, String)>>,
    handed: Vec<bool>,
}

impl<'a> Sums<'a> {
    /// Parts that are known stand in the batch, as columns of their names.
    fn new(parts: &'a [Part], batch: &DataFrame) -> Result<Self> {
        let rows = batch.height();
        let known = |part: &Part| match batch.column(&part.name) {
            Ok(_) => schema::scores(batch, &part.name),
            Err(_) => Ok(vec![None; rows]),
        };
        let values = parts.iter().map(known).collect::<Result<_>>()?;
        let items = batch.drop_many(parts.iter().map(|part| part.name.as_str()));
        Ok(Sums { parts, items, values, ended: vec![None; rows], handed: vec![false; rows] })
    }

    /// The rows that have not ended before a part.
    fn open(&self) -> Vec<u32> {
        (0..).zip(&self.ended).filter(|(_, ended)| ended.is_none()).map(|(row, _)| row).collect()
    }

    /// Asks for a part of the rows that are still open, where it is not known; shows the rows that were answered.
    fn ask(&mut self, position: usize, answered: &mut dyn FnMut(&mut Self, &[u32]) -> Result<()>) -> Result<()> {
        let part = &self.parts[position];
        let open = self.open();
        let (known, unknown): (Vec<u32>, Vec<u32>) =
            open.into_iter().partition(|row| self.values[position][*row as usize].is_some());
        known.into_iter().for_each(|row| self.gate(position, row as usize));
        if unknown.is_empty() {
            return Ok(());
        }
        let asked = bridge::gather(&self.items, &unknown)?;
        let row_of: HashMap<u64, u32> = schema::u64s(&asked, DB_IDX)?.into_iter().zip(unknown).collect();
        ask(&*part.score, &asked, &mut |answers| {
            let scores = schema::scores(&answers, SCORE)?;
            let outcomes = answers.column(OUTCOME).doing("score")?.str().doing("score")?.clone();
            let reasons = answers.column(REASON).doing("score")?.str().doing("score")?.clone();
            let mut rows = Vec::with_capacity(scores.len());
            for (at, item) in schema::u64s(&answers, DB_IDX)?.iter().enumerate() {
                let Some(row) = row_of.get(item) else { continue };
                rows.push(*row);
                self.values[position][*row as usize] = scores[at];
                if scores[at].is_none() {
                    let outcome = outcomes.get(at).and_then(Outcome::named).unwrap_or(Outcome::Failed);
                    let reason = format!("{}: {}", part.name, reasons.get(at).unwrap_or("no score"));
                    self.ended[*row as usize] = Some((outcome, reason));
                }
                self.gate(position, *row as usize);
            }
            answered(self, &rows)
        })
    }

    /// Rejects a row whose part is below what it must reach.
    fn gate(&mut self, position: usize, row: usize) {
        let part = &self.parts[position];
        if let (Some(score), Some(limit)) = (self.values[position][row], part.at_least)
            && score < limit
        {
            self.ended[row] = Some((Outcome::Rejected, format!("{}: {score} is below {limit}", part.name)));
        }
    }

    /// Whether a row waits for a part.
    fn waits(&self, row: u32) -> bool {
        self.ended[row as usize].is_none() && self.values.iter().any(|values| values[row as usize].is_none())
    }

    /// Hands over the rows that are complete, and of some others the parts that are known.
    fn hand_over(&mut self, others: &[u32], keep: &mut Keep<'_>) -> Result<()> {
        let is_done = |row: &u32| !self.handed[*row as usize] && !self.waits(*row);
        let mut rows: Vec<u32> = (0..self.handed.len() as u32).filter(is_done).collect();
        rows.iter().for_each(|row| self.handed[*row as usize] = true);
        rows.extend(others.iter().filter(|row| self.waits(**row)));
        if rows.is_empty() { Ok(()) } else { keep(self.frame(&rows)?) }
    }

    fn frame(&self, rows: &[u32]) -> Result<DataFrame> {
        let at = |row: &u32| *row as usize;
        let outcome = |row: &u32| match &self.ended[at(row)] {
            Some((outcome, _)) => outcome.name(),
            None if self.waits(*row) => OPEN,
            None => Outcome::Scored.name(),
        };
        let total = |row: &u32| {
            let scored = outcome(row) == Outcome::Scored.name();
            let weighted = self.parts.iter().zip(&self.values);
            let weighted = weighted.map(|(part, values)| part.weight * values[at(row)].unwrap_or_default());
            scored.then(|| weighted.fold(0.0, |sum, part| sum + part))
        };
        let reason = |row: &u32| self.ended[at(row)].as_ref().map(|(_, reason)| reason.as_str());
        let ids = schema::u64s(&self.items, DB_IDX)?;
        let mut columns = vec![
            Column::new(DB_IDX.into(), rows.iter().map(|row| ids[at(row)]).collect::<Vec<_>>()),
            Column::new(SCORE.into(), rows.iter().map(total).collect::<Vec<_>>()),
            Column::new(OUTCOME.into(), rows.iter().map(outcome).collect::<Vec<_>>()),
            Column::new(REASON.into(), rows.iter().map(reason).collect::<Vec<_>>()),
        ];
        for (part, values) in self.parts.iter().zip(&self.values) {
            let values: Vec<Option<f64>> = rows.iter().map(|row| values[at(row)]).collect();
            columns.push(Column::new(part.name.as_str().into(), values));
        }
        DataFrame::new(rows.len(), columns).doing("score")
    }
}

impl Score for SumScore {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let mut sums = Sums::new(&self.parts, batch)?;
        for position in 0..self.parts.len() {
            sums.ask(position, &mut |_, _| Ok(()))?;
        }
        sums.frame(&(0..batch.height() as u32).collect::<Vec<_>>())
    }

    fn score_into(&self, batch: &DataFrame, keep: &mut Keep<'_>) -> Result<()> {
        let mut sums = Sums::new(&self.parts, batch)?;
        let asked = (0..self.parts.len()).try_for_each(|position| {
            // What was paid for is kept as it comes; what is free waits for company.
            let is_dear = self.parts[position].score.is_paid();
            sums.ask(position, &mut |sums, rows| match is_dear {
                true => sums.hand_over(rows, keep),
                false => Ok(()),
            })
        });
        sums.hand_over(&[], keep)?;
        asked
    }

    fn screen(&self, items: &DataFrame) -> Result<Option<DataFrame>> {
        let free = self.parts.iter().take_while(|part| !part.score.is_paid()).count();
        if self.parts[..free].iter().all(|part| part.at_least.is_none()) {
            return Ok(None);
        }
        let mut sums = Sums::new(&self.parts, items)?;
        for position in 0..free {
            sums.ask(position, &mut |_, _| Ok(()))?;
        }
        let is_rejected = |row: &u32| matches!(sums.ended[*row as usize], Some((Outcome::Rejected, _)));
        let rejected: Vec<u32> = (0..items.height() as u32).filter(is_rejected).collect();
        sums.frame(&rejected).map(Some)
    }

    fn parts(&self) -> Vec<&str> {
        self.parts.iter().map(|part| part.name.as_str()).collect()
    }

    fn check(&self, items: &DataFrame) -> Result<()> {
        for (position, part) in self.parts.iter().enumerate() {
            let taken =
                items.column(&part.name).is_ok() || self.parts[..position].iter().any(|other| other.name == part.name);
            if taken || schema::is_reserved(&part.name) {
                return Err(Error::Config(format!(
                    "score.sum: the part `{}` needs another name, this one is taken",
                    part.name
                )));
            }
            if !part.weight.is_finite() {
                return Err(Error::Config(format!(
                    "score.sum: part `{}`: expected a finite weight, found {}",
                    part.name, part.weight
                )));
            }
            part.score.check(items)?;
        }
        match self.parts.is_empty() {
            true => Err(Error::Config("score.sum: no parts".into())),
            false => Ok(()),
        }
    }

    fn batch_size(&self) -> usize {
        self.parts.iter().map(|part| part.score.batch_size()).min().unwrap_or(usize::MAX)
    }

    fn workers(&self) -> usize {
        self.parts.iter().map(|part| part.score.workers()).max().unwrap_or(1)
    }

    fn reads(&self) -> Vec<String> {
        self.parts.iter().flat_map(|part| part.score.reads()).collect()
    }

    fn is_paid(&self) -> bool {
        self.parts.iter().any(|part| part.score.is_paid())
    }

    fn retried(&self) -> u64 {
        self.parts.iter().map(|part| part.score.retried()).sum()
    }

    fn begin(&mut self, session: &Session) {
        self.parts.iter_mut().for_each(|part| part.score.begin(session));
    }
}
