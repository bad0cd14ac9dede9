//! Several scores as one: a weighted sum, and cheap gates before dear scores.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use polars::prelude::*;

use super::Score;
use super::contract::check_answers;
use crate::bridge;
use crate::error::{Doing, Error, Result};
use crate::schema::{self, DB_IDX, REASON, SCORE};

/// A weighted sum of scores: `sum_i(weight_i * part_i)`.
///
/// Parts are asked in the order they were added, and each is kept in the log as a column of its name, as
/// its scorer gave it. A negative weight takes a part as a cost. With [`SumScore::gate`] a part also
/// decides who goes on: an item below the gate is not asked of the parts after it, so put cheap
/// ones first. Such an item, and one that a part fails on, has no score, and the
/// reason names the part. It counts as one evaluation.
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

impl Score for SumScore {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let rows = batch.height();
        let mut totals: Vec<f64> = vec![0.0; rows];
        let mut reasons: Vec<Option<String>> = vec![None; rows];
        let mut columns = vec![batch.column(DB_IDX).doing("score")?.clone()];
        for part in &self.parts {
            let open: Vec<u32> =
                (0..).zip(&reasons).filter(|(_, reason)| reason.is_none()).map(|(row, _)| row).collect();
            let mut values: Vec<Option<f64>> = vec![None; rows];
            if !open.is_empty() {
                let asked = bridge::gather(batch, &open)?;
                let answers = part.score.score(&asked).and_then(|answers| check_answers(&asked, answers))?;
                let why = answers.column(REASON).doing("score")?.str().doing("score")?.clone();
                for (answer, (row, score)) in open.iter().zip(schema::scores(&answers, SCORE)?).enumerate() {
                    let row = *row as usize;
                    values[row] = score;
                    totals[row] += part.weight * score.unwrap_or_default();
                    reasons[row] = match (score, part.at_least) {
                        (None, _) => Some(format!("{}: {}", part.name, why.get(answer).unwrap_or("no score"))),
                        (Some(score), Some(limit)) if score < limit => {
                            Some(format!("{}: {score} is below {limit}", part.name))
                        }
                        _ => None,
                    };
                }
            }
            columns.push(Column::new(part.name.as_str().into(), values));
        }
        let totals: Vec<Option<f64>> =
            totals.into_iter().zip(&reasons).map(|(total, reason)| reason.is_none().then_some(total)).collect();
        columns.push(Column::new(SCORE.into(), totals));
        columns.push(Column::new(REASON.into(), reasons));
        DataFrame::new(rows, columns).doing("score")
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

    fn is_paid(&self) -> bool {
        self.parts.iter().any(|part| part.score.is_paid())
    }

    fn asked_again(&self) -> u64 {
        self.parts.iter().map(|part| part.score.asked_again()).sum()
    }

    fn stderr_in(&self, folder: &Path) {
        self.parts.iter().for_each(|part| part.score.stderr_in(folder));
    }

    fn interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.parts.iter_mut().for_each(|part| part.score.interrupt(flag.clone()));
    }
}
