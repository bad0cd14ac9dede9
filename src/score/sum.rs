//! Weighted sums of scores, with gates so that cheap scores filter items before expensive ones.

use polars::prelude::*;

use super::partial_sums::{PartialSums, Term};
use super::validation::score_request;
use super::{AnswerSink, Score, Session, split_requests};
use crate::error::{Error, Result};
use crate::frame::schema;

/// A weighted sum of scores: `sum_i(weight_i * part_i)`.
///
/// The log stores each part in a column of its name, as its scorer returned it, and other numbers and texts of that scorer in
/// columns `part.name`. A negative weight makes a part a cost. A part added with [`SumScore::gate`] also
/// filters items: items below the gate are not scored by later parts, so put cheap
/// parts first. Paid parts without a gate between them are scored concurrently. Parts after a gate start when the gate has
/// scored all items of an iteration. Each part has its own [`Score::batch_size`] and
/// [`Score::workers`].
///
/// An item below a gate is rejected. An item that fails in a part has failed. The
/// reason names the first such part, and the log stores the results of the other parts that are known. If free parts come
/// first and their gates reject an item, it costs no evaluation. Each part is paid for once: its answers are stored durably
/// when they arrive.
///
/// A sum within a score of your own, or within another sum, scores its parts sequentially. Implement [`Score::as_sum`] to expose
/// the parts to the runner.
#[derive(Default)]
pub struct SumScore {
    parts: Vec<ScorePart>,
}

pub(crate) struct ScorePart {
    name: String,
    weight: f64,
    at_least: Option<f64>,
    pub(crate) score: Box<dyn Score>,
}

impl ScorePart {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl SumScore {
    /// Starts without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part.
    pub fn part(self, name: impl Into<String>, weight: f64, score: impl Score + 'static) -> Self {
        self.add_boxed(name.into(), weight, None, Box::new(score))
    }

    /// Adds a part with a gate: items that score below `at_least` are rejected and not scored by later parts.
    pub fn gate(self, name: impl Into<String>, weight: f64, at_least: f64, score: impl Score + 'static) -> Self {
        self.add_boxed(name.into(), weight, Some(at_least), Box::new(score))
    }

    pub(crate) fn add_boxed(mut self, name: String, weight: f64, at_least: Option<f64>, score: Box<dyn Score>) -> Self {
        self.parts.push(ScorePart { name, weight, at_least, score });
        self
    }

    /// The parts, in the order they were added.
    pub(crate) fn parts(&self) -> &[ScorePart] {
        &self.parts
    }

    /// The names of the parts.
    pub(crate) fn names(&self) -> Vec<String> {
        self.parts.iter().map(|part| part.name.clone()).collect()
    }

    /// The largest number of workers of any part.
    pub(crate) fn max_workers(&self) -> usize {
        self.parts.iter().map(|part| part.score.workers()).max().unwrap_or(1)
    }

    /// Starts the partial results of some items. `known` has results of parts, and other values that parts returned.
    pub(crate) fn partial_sums(&self, items: &DataFrame, known: &[Column]) -> Result<PartialSums> {
        let term = |part: &ScorePart| Term {
            name: part.name.clone(),
            weight: part.weight,
            at_least: part.at_least,
            is_paid: part.score.is_paid(),
        };
        PartialSums::new(self.parts.iter().map(term).collect(), items, known)
    }

    /// Scores the free parts that come first, and returns the items that their gates reject. `None` if none of them has a gate.
    pub(crate) fn reject_by_free_gates(&self, items: &DataFrame) -> Result<Option<DataFrame>> {
        let free = self.parts.iter().take_while(|part| !part.score.is_paid()).count();
        if self.parts[..free].iter().all(|part| part.at_least.is_none()) {
            return Ok(None);
        }
        let mut sums = self.partial_sums(items, &[])?;
        while let Some((part, items)) = sums.next_requests()?.into_iter().next().filter(|(part, _)| *part < free) {
            score_request(&*self.parts[part].score, &items, &mut |answers| sums.record(part, &answers).map(drop))?;
        }
        sums.rejected_before(free).map(Some)
    }

    /// Scores the parts sequentially, for callers that do not use [`Score::as_sum`]. Calls `on_answers` with the rows that a
    /// part has just answered.
    fn score_sequentially(
        &self,
        items: &DataFrame,
        on_answers: &mut (dyn FnMut(&mut PartialSums, &[u32]) -> Result<()> + Send),
    ) -> Result<PartialSums> {
        let mut sums = self.partial_sums(items, &[])?;
        loop {
            let requests = sums.next_requests()?;
            if requests.is_empty() {
                return Ok(sums);
            }
            for (part, items) in requests {
                let score = &*self.parts[part].score;
                for request in split_requests(&items, score) {
                    score_request(score, &request, &mut |answers| {
                        let rows = sums.record(part, &answers)?;
                        on_answers(&mut sums, &rows)
                    })?;
                }
            }
        }
    }
}

impl Score for SumScore {
    fn score(&self, items: &DataFrame) -> Result<DataFrame> {
        let sums = self.score_sequentially(items, &mut |_, _| Ok(()))?;
        sums.frame(&sums.rows())
    }

    fn score_into(&self, items: &DataFrame, sink: &mut AnswerSink<'_>) -> Result<()> {
        self.score_sequentially(items, &mut |sums, rows| sums.newly_complete(rows)?.map_or(Ok(()), &mut *sink))
            .map(drop)
    }

    fn as_sum(&self) -> Option<&SumScore> {
        Some(self)
    }

    fn check(&self, items: &DataFrame) -> Result<()> {
        for (position, part) in self.parts.iter().enumerate() {
            let taken =
                items.column(&part.name).is_ok() || self.parts[..position].iter().any(|other| other.name == part.name);
            if taken || schema::is_reserved_column(&part.name) {
                return Err(Error::Config(format!(
                    "score.sum: the name `{}` of a part is already used or reserved; choose another name",
                    part.name
                )));
            }
            if !part.weight.is_finite() {
                return Err(Error::Config(format!(
                    "score.sum: part `{}`: expected a finite weight, found {}",
                    part.name, part.weight
                )));
            }
            if part.score.is_manual() {
                return Err(Error::Config(format!(
                    "score.sum: part `{}`: manual scores cannot be a part; give scores of the whole sum instead",
                    part.name
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
        self.parts.iter().map(|part| part.score.batch_size()).max().unwrap_or(usize::MAX)
    }

    /// The minimum over the parts, so that no part gets more concurrent calls than it allows.
    fn workers(&self) -> usize {
        self.parts.iter().map(|part| part.score.workers()).min().unwrap_or(1)
    }

    fn columns_read(&self) -> Vec<String> {
        self.parts.iter().flat_map(|part| part.score.columns_read()).collect()
    }

    fn is_paid(&self) -> bool {
        self.parts.iter().any(|part| part.score.is_paid())
    }

    fn retry_count(&self) -> u64 {
        self.parts.iter().map(|part| part.score.retry_count()).sum()
    }

    fn begin(&mut self, session: &Session) {
        self.parts.iter_mut().for_each(|part| part.score.begin(session));
    }
}
