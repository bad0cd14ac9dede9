//! Several scores as one: a weighted sum, and cheap gates before dear scores.

use std::collections::HashMap;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};

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
/// ones first. Parts that cost something, with no gate between them, are asked side by side.
/// An item that is below a gate is rejected, and one that a part fails on has failed; the
/// reason names the first such part, and the parts that are known are kept. An item that gates of free parts reject, before
/// any other part, costs no evaluation. Each part is paid for once: it is kept before a part that waits for it is asked for.
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

/// Parts that are asked at the same time: one that is free, or several that are not, of which only the last has a gate.
fn stages(parts: &[Part]) -> Vec<Range<usize>> {
    let mut stages: Vec<Range<usize>> = Vec::new();
    for (position, part) in parts.iter().enumerate() {
        let before = position.checked_sub(1).map(|before| &parts[before]);
        let is_beside = |before: &Part| before.at_least.is_none() && before.score.is_paid() && part.score.is_paid();
        match stages.last_mut().filter(|_| before.is_some_and(is_beside)) {
            Some(stage) => stage.end = position + 1,
            None => stages.push(position..position + 1),
        }
    }
    stages
}

/// What a part says of a row: its score, or why there is none.
type Said = std::result::Result<f64, (Outcome, String)>;

/// What is known of a batch, row by row.
struct Sums<'a> {
    parts: &'a [Part],
    stages: Vec<Range<usize>>,
    items: DataFrame,
    /// By part, then by row; `None` where it was not asked, or has not answered.
    said: Vec<Vec<Option<Said>>>,
    handed: Vec<bool>,
}

/// Is shown what is known, and the rows that were just answered.
type Answered<'a, 'b> = dyn FnMut(&mut Sums<'a>, &[u32]) -> Result<()> + Send + 'b;

impl<'a> Sums<'a> {
    /// Parts that are known stand in the batch, as columns of their names.
    fn new(parts: &'a [Part], batch: &DataFrame) -> Result<Self> {
        let rows = batch.height();
        let known = |part: &Part| match batch.column(&part.name) {
            Ok(_) => Ok(schema::scores(batch, &part.name)?.into_iter().map(|score| score.map(Ok)).collect()),
            Err(_) => Ok(vec![None; rows]),
        };
        let said = parts.iter().map(known).collect::<Result<_>>()?;
        let items = batch.drop_many(parts.iter().map(|part| part.name.as_str()));
        Ok(Sums { parts, stages: stages(parts), items, said, handed: vec![false; rows] })
    }

    /// Asks for the parts of a stage, side by side, where they are not known, of the rows that go on to it.
    fn ask(&mut self, stage: Range<usize>, answered: &mut Answered<'a, '_>) -> Result<()> {
        let open: Vec<u32> =
            (0..self.handed.len() as u32).filter(|row| self.ended(*row, stage.start).is_none()).collect();
        let mut questions = Vec::new();
        for position in stage {
            let unknown: Vec<u32> =
                open.iter().copied().filter(|row| self.said[position][*row as usize].is_none()).collect();
            if !unknown.is_empty() {
                let asked = bridge::gather(&self.items, &unknown)?;
                let row_of: HashMap<u64, u32> = schema::u64s(&asked, DB_IDX)?.into_iter().zip(unknown).collect();
                questions.push((position, asked, row_of));
            }
        }
        let parts = self.parts;
        let shared = Mutex::new((self, answered));
        let ask_for = |(position, asked, row_of): (usize, DataFrame, HashMap<u64, u32>)| {
            ask(&*parts[position].score, &asked, &mut |answers| {
                let (sums, answered) = &mut *shared.lock().unwrap_or_else(PoisonError::into_inner);
                let rows = sums.take(position, &row_of, &answers)?;
                answered(sums, &rows)
            })
        };
        // The last is asked for here: where there is but one, no thread is started.
        let Some(last) = questions.pop() else { return Ok(()) };
        std::thread::scope(|scope| {
            let ask_for = &ask_for;
            let others: Vec<_> = questions.into_iter().map(|question| scope.spawn(move || ask_for(question))).collect();
            let last = ask_for(last);
            let mut ended: Vec<Result<()>> =
                others.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect();
            ended.push(last);
            ended.into_iter().collect()
        })
    }

    /// Takes answers of a part; gives their rows.
    fn take(&mut self, position: usize, row_of: &HashMap<u64, u32>, answers: &DataFrame) -> Result<Vec<u32>> {
        let scores = schema::scores(answers, SCORE)?;
        let outcomes = answers.column(OUTCOME).doing("score")?.str().doing("score")?;
        let reasons = answers.column(REASON).doing("score")?.str().doing("score")?;
        let mut rows = Vec::with_capacity(scores.len());
        for (at, item) in schema::u64s(answers, DB_IDX)?.iter().enumerate() {
            let Some(row) = row_of.get(item) else { continue };
            rows.push(*row);
            self.said[position][*row as usize] = Some(scores[at].ok_or_else(|| {
                let outcome = outcomes.get(at).and_then(Outcome::named).unwrap_or(Outcome::Failed);
                (outcome, format!("{}: {}", self.parts[position].name, reasons.get(at).unwrap_or("no score")))
            }));
        }
        Ok(rows)
    }

    /// How a row ended before a part: one that gave no score, or was below its gate.
    fn ended(&self, row: u32, before: usize) -> Option<(Outcome, String)> {
        self.parts[..before].iter().zip(&self.said).find_map(|(part, said)| {
            match (&said[row as usize], part.at_least) {
                (Some(Err(why)), _) => Some(why.clone()),
                (Some(Ok(score)), Some(limit)) if *score < limit => {
                    Some((Outcome::Rejected, format!("{}: {score} is below {limit}", part.name)))
                }
                _ => None,
            }
        })
    }

    /// Whether a row waits for a part.
    fn waits(&self, row: u32) -> bool {
        let waiting =
            |stage: &&Range<usize>| self.said[(*stage).clone()].iter().any(|said| said[row as usize].is_none());
        self.stages.iter().find(waiting).is_some_and(|stage| self.ended(row, stage.start).is_none())
    }

    /// The score that a part gave to a row.
    fn value(&self, position: usize, row: u32) -> Option<f64> {
        self.said[position][row as usize].as_ref().and_then(|said| said.as_ref().ok().copied())
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
        let (ids, all) = (schema::u64s(&self.items, DB_IDX)?, self.parts.len());
        let (mut scores, mut outcomes, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let ended = if self.waits(*row) { Some((OPEN, None)) } else { None };
            let ended = ended.or_else(|| self.ended(*row, all).map(|(outcome, why)| (outcome.name(), Some(why))));
            let weighted = self.parts.iter().enumerate();
            let weighted = weighted.map(|(at, part)| part.weight * self.value(at, *row).unwrap_or_default());
            scores.push(ended.is_none().then(|| weighted.fold(0.0, |sum, part| sum + part)));
            let (outcome, reason) = ended.unwrap_or((Outcome::Scored.name(), None));
            outcomes.push(outcome);
            reasons.push(reason);
        }
        let mut columns = vec![
            Column::new(DB_IDX.into(), rows.iter().map(|row| ids[*row as usize]).collect::<Vec<_>>()),
            Column::new(SCORE.into(), scores),
            Column::new(OUTCOME.into(), outcomes),
            Column::new(REASON.into(), reasons),
        ];
        for (position, part) in self.parts.iter().enumerate() {
            let values: Vec<Option<f64>> = rows.iter().map(|row| self.value(position, *row)).collect();
            columns.push(Column::new(part.name.as_str().into(), values));
        }
        DataFrame::new(rows.len(), columns).doing("score")
    }
}

impl Score for SumScore {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let mut sums = Sums::new(&self.parts, batch)?;
        for stage in stages(&self.parts) {
            sums.ask(stage, &mut |_, _| Ok(()))?;
        }
        sums.frame(&(0..batch.height() as u32).collect::<Vec<_>>())
    }

    fn score_into(&self, batch: &DataFrame, keep: &mut Keep<'_>) -> Result<()> {
        let mut sums = Sums::new(&self.parts, batch)?;
        let asked = stages(&self.parts).into_iter().try_for_each(|stage| {
            // What was paid for is kept as it comes; what is free waits for company.
            let is_dear = self.parts[stage.start].score.is_paid();
            sums.ask(stage, &mut |sums, rows| match is_dear {
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
            sums.ask(position..position + 1, &mut |_, _| Ok(()))?;
        }
        let is_rejected = |row: &u32| matches!(sums.ended(*row, free), Some((Outcome::Rejected, _)));
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
