//! Pays for each item once: who was asked, what came back, what is durable.
//!
//! The ledger is a cache under `Score`; no strategy reads it. It alone decides which
//! items are asked (distinct, unseen, within the budget), in which batches, and it makes
//! what comes back durable before the worker that scored it gets more.

mod answers;
mod batches;

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use polars::prelude::*;

use self::answers::{Answers, outcomes};
use self::batches::Batches;
use crate::bridge;
use crate::database::VectorDatabase;
use crate::error::{Doing, Error, Result};
use crate::outcome::Outcome;
use crate::schema::{self, DB_IDX, DISTANCE, EVALUATION, QUERY_IDX, SCORE};
use crate::score::{OnError, Reusable, Score, ask, items_told, without_failures};

/// Everything asked and answered in a run so far.
#[derive(Default)]
pub(crate) struct Ledger {
    /// The items that have an outcome in this run.
    booked: HashSet<u64>,
    /// Those of them that were paid for, and their ordinals in the strategy's order.
    asked: PlHashMap<u64, u64>,
    /// How many of them have a score that was paid for before.
    reused: u64,
    /// Those of them that failed.
    failed: PlHashSet<u64>,
    /// How many of them were rejected.
    rejected: u64,
    answers: Answers,
    /// Where what comes back is kept.
    batches: Option<Batches>,
    /// Scores that were paid for before.
    pub(crate) reusable: Reusable,
    /// Whether a smaller raw score is better.
    pub(crate) minimize: bool,
    /// What a failed item does to the run.
    pub(crate) on_error: OnError,
    /// Items that wait for scores by hand.
    pub(crate) waiting: Option<DataFrame>,
    /// Items that an earlier process had asked without keeping an answer.
    pub(crate) asked_again: u64,
    /// What scorers were tried again for in earlier processes.
    pub(crate) retries_before: u64,
    /// Set from outside to stop asking.
    pub(crate) interrupt: Option<Arc<AtomicBool>>,
    /// The items that were asked and have no answer yet, for whoever looks.
    pub(crate) open: Arc<AtomicUsize>,
}

impl Ledger {
    /// Items paid for so far, each counted once: the cost.
    pub(crate) fn evaluations(&self) -> u64 {
        self.asked.len() as u64
    }

    /// Items of which there is an earlier score, the best first.
    pub(crate) fn known(&self, database: &dyn VectorDatabase) -> Result<Vec<u64>> {
        self.reusable.known(database, self.minimize)
    }

    /// Items booked whose score was paid for before.
    pub(crate) fn reused(&self) -> u64 {
        self.reused
    }

    /// Items booked that were rejected.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected
    }

    /// Items booked that failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.len() as u64
    }

    /// Why one of them failed.
    pub(crate) fn a_failure(&self) -> Option<&str> {
        self.failed.iter().filter_map(|item| self.answers.reason(*item)).min()
    }

    /// The items that have an outcome in this run.
    pub(crate) fn booked(&self) -> &HashSet<u64> {
        &self.booked
    }

    /// Forgets who was asked: another run begins.
    pub(crate) fn clear(&mut self) {
        let (minimize, on_error) = (self.minimize, self.on_error);
        let (interrupt, open) = (self.interrupt.take(), self.open.clone());
        let reusable = std::mem::take(&mut self.reusable);
        *self = Ledger { minimize, on_error, interrupt, open, reusable, ..Ledger::default() };
    }

    /// From now on keeps what comes back in `path`, and takes what is there already. Says whether that is anything.
    pub(crate) fn keep_in(&mut self, path: &Path, tmp: &Path) -> Result<bool> {
        let (batches, found) = Batches::open(path, tmp, |answers| self.answers.record(answers))?;
        self.asked_again += found.asked;
        self.batches = Some(batches);
        Ok(found.answers)
    }

    /// Takes the items of a committed iteration, as a resumed run replays them, and gives how many were new. The frame
    /// is brought up to date where an item that failed in it was asked again since: says whether it was.
    pub(crate) fn replay(&mut self, scored: DataFrame) -> Result<(DataFrame, u64, bool)> {
        let items = schema::u64s(&scored, DB_IDX)?;
        let is_stale = |(item, was): (&u64, &Option<Outcome>)| {
            let now = self.answers.outcome(*item);
            *was == Some(Outcome::Failed) && now.is_some_and(|now| now != Outcome::Failed)
        };
        let was = outcomes(&scored)?;
        let stale: Vec<bool> = items.iter().zip(&was).map(is_stale).collect();
        let amended = stale.contains(&true);
        let valid: BooleanChunked = stale.iter().map(|stale| Some(!stale)).collect();
        self.answers.record_logged(&if amended {
            scored.filter(&valid).doing("replaying")?
        } else {
            scored.clone()
        })?;
        let mut new = 0;
        for (item, ordinal) in items.into_iter().zip(schema::nullable_u64s(&scored, EVALUATION)?) {
            self.asked.extend(ordinal.map(|ordinal| (item, ordinal)));
            new += u64::from(self.book(item));
        }
        if !amended {
            return Ok((scored, new, false));
        }
        let columns = schema::names(&scored);
        let first = columns.iter().position(|name| *name == SCORE).unwrap_or(columns.len());
        let met = scored.select(columns[..first].iter().copied()).doing("replaying")?;
        Ok((self.annotate(met)?, new, true))
    }

    /// Books an item whose answer is known. Says whether it is new.
    fn book(&mut self, item: u64) -> bool {
        let outcome = self.answers.outcome(item);
        match outcome {
            Some(Outcome::Failed) => self.failed.insert(item),
            _ => self.failed.remove(&item),
        };
        let is_new = self.booked.insert(item);
        if is_new {
            self.rejected += u64::from(outcome == Some(Outcome::Rejected));
            self.reused += u64::from(outcome == Some(Outcome::Scored) && !self.asked.contains_key(&item));
        }
        is_new
    }

    /// Scores a results frame: each item asked once, however many queries meet it.
    /// Gives the scored frame, without rows of items beyond the budget, and how many items were new.
    pub(crate) fn score(
        &mut self,
        score: &dyn Score,
        results: DataFrame,
        budget: Option<u64>,
    ) -> Result<(DataFrame, u64)> {
        let items = schema::u64s(&results, DB_IDX)?;
        let free = self.free(score, &items, &results)?;
        let mut left = budget.map_or(u64::MAX, |budget| budget.saturating_sub(self.evaluations()));
        let (mut wanted, mut kept, mut fresh) = (Vec::new(), Vec::with_capacity(items.len()), HashSet::new());
        for (row, item) in (0u32..).zip(&items) {
            if !self.booked.contains(item) && !fresh.contains(item) {
                if !free.contains(item) {
                    if left == 0 {
                        continue;
                    }
                    left -= 1;
                    self.asked.insert(*item, self.evaluations() + 1);
                }
                fresh.insert(*item);
                // A killed process may have paid for it.
                if self.answers.outcome(*item).is_none() {
                    wanted.push(row);
                }
            }
            kept.push(row);
        }
        if let Err(error) = self.ask(score, &items_of(&results, &wanted)?) {
            // What was answered stays answered; the iteration never happened.
            for item in &fresh {
                self.asked.remove(item);
            }
            return Err(error);
        }
        let new = fresh.into_iter().filter(|item| self.book(*item)).count();
        let results = if kept.len() == items.len() { results } else { bridge::gather(&results, &kept)? };
        Ok((self.annotate(results)?, new as u64))
    }

    /// The items of a results frame that are new and cost nothing, whose answers are then known: those whose scores were
    /// paid for before, and those that the score rejects at no cost.
    fn free(&mut self, score: &dyn Score, items: &[u64], results: &DataFrame) -> Result<HashSet<u64>> {
        let (mut free, mut others, mut seen) = (HashSet::new(), Vec::new(), HashSet::new());
        if self.reusable.is_empty() && score.parts().is_empty() {
            return Ok(free);
        }
        let earlier = self.reusable.of(results)?;
        for (row, item) in items.iter().enumerate() {
            if self.booked.contains(item) || !seen.insert(*item) {
                continue;
            }
            match earlier[row] {
                Some(score) => {
                    self.answers.take_score(*item, score);
                    free.insert(*item);
                }
                None => others.push(row as u32),
            }
        }
        if !score.parts().is_empty()
            && let Some(rejected) = score.screen(&items_of(results, &others)?)?
        {
            self.answers.record(&rejected)?;
            free.extend(schema::u64s(&rejected, DB_IDX)?);
        }
        Ok(free)
    }

    /// Notes the items of a logged iteration that failed in it.
    pub(crate) fn note_failed(&mut self, scored: &DataFrame, failed: &mut BTreeSet<u64>) -> Result<()> {
        let ordinals = schema::nullable_u64s(scored, EVALUATION)?;
        let items = schema::u64s(scored, DB_IDX)?.into_iter().zip(ordinals);
        for ((item, ordinal), outcome) in items.zip(outcomes(scored)?) {
            let is_known = self.answers.outcome(item).is_some_and(|now| now != Outcome::Failed);
            if outcome == Some(Outcome::Failed) && !is_known {
                failed.insert(item);
                self.asked.extend(ordinal.map(|ordinal| (item, ordinal)));
            }
        }
        Ok(())
    }

    /// Asks for items that failed once more; each was counted once. `items` has `db_idx`, `embedding` and attributes.
    pub(crate) fn ask_again(&mut self, score: &dyn Score, items: &DataFrame) -> Result<()> {
        schema::u64s(items, DB_IDX)?.into_iter().for_each(|item| self.answers.reopen(item));
        self.ask(score, items)
    }

    /// Takes what was told of the items; the others wait.
    fn take_told(&mut self, score: &dyn Score, items: &DataFrame) -> Result<()> {
        // What was asked with the items and comes back is no part of the score.
        let asked_with = schema::names(items).into_iter().filter(|name| *name != DB_IDX);
        let told = score.score(items)?.drop_many(asked_with.map(str::to_string));
        // Told again what is known already: no harm.
        let (ids, news) = items_told(&told, |item| self.answers.outcome(item).is_some())?;
        let known: HashSet<u64> = ids.into_iter().collect();
        let (mut rows, mut open) = (Vec::new(), Vec::new());
        for (row, item) in (0u32..).zip(schema::u64s(items, DB_IDX)?) {
            if known.contains(&item) { rows.push(row) } else { open.push(row) }
        }
        if !news.is_empty() {
            let told = bridge::gather(&told, &news)?;
            let told = |_: &DataFrame| Ok(told.clone());
            ask(&told, &bridge::gather(items, &rows)?, &mut |answers| self.keep(&answers, true))?;
        }
        if open.is_empty() {
            return Ok(());
        }
        self.waiting = Some(bridge::gather(items, &open)?);
        Err(Error::Waiting { items: open.len() })
    }

    /// Asks for items in batches, by as many workers as the score allows.
    fn ask(&mut self, score: &dyn Score, items: &DataFrame) -> Result<()> {
        if items.height() == 0 {
            return Ok(());
        }
        if score.waits() {
            return self.take_told(score, items);
        }
        let mut items = items.clone();
        for part in self.answers.known_parts(&schema::u64s(&items, DB_IDX)?, &score.parts()) {
            items.with_column(part).doing("known parts of the score")?;
        }
        let size = score.batch_size().clamp(1, items.height());
        let batches = items.height().div_ceil(size);
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let (interrupt, on_error) = (self.interrupt.clone(), self.on_error);
        self.open.store(items.height(), Ordering::Relaxed);
        let shared = Mutex::new(&mut *self);
        let work = || {
            while failed.lock().is_ok_and(|failed| failed.is_none()) {
                let batch = next.fetch_add(1, Ordering::Relaxed);
                if batch >= batches {
                    break;
                }
                let outcome = if interrupt.as_ref().is_some_and(|interrupt| interrupt.load(Ordering::Relaxed)) {
                    Err(Error::Interrupted)
                } else {
                    let batch = items.slice((batch * size) as i64, size);
                    ask_batch(score, &batch, on_error, &shared)
                };
                if let Err(error) = outcome {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        };
        match score.workers().clamp(1, batches) {
            1 => work(),
            workers => std::thread::scope(|scope| {
                for _ in 0..workers {
                    scope.spawn(work);
                }
            }),
        }
        self.open.store(0, Ordering::Relaxed);
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Makes answers durable, then takes them.
    fn keep(&mut self, answers: &DataFrame, durable: bool) -> Result<()> {
        if let (true, Some(batches)) = (durable, &mut self.batches) {
            let ordinals: Vec<Option<u64>> =
                schema::u64s(answers, DB_IDX)?.iter().map(|item| self.asked.get(item).copied()).collect();
            let mut columns = vec![Column::new(EVALUATION.into(), ordinals)];
            columns.extend(answers.columns().iter().cloned());
            batches.write(&DataFrame::new(answers.height(), columns).doing("writing the ledger")?)?;
        }
        self.answers.record(answers)
    }

    /// Adds what came back to a results frame, and `evaluation`.
    fn annotate(&self, results: DataFrame) -> Result<DataFrame> {
        let items = schema::u64s(&results, DB_IDX)?;
        let mut scored = self.answers.annotate(results, self.minimize)?;
        let ordinals: Vec<Option<u64>> = items.iter().map(|item| self.asked.get(item).copied()).collect();
        scored.with_column(Column::new(EVALUATION.into(), ordinals)).doing("adding scores")?;
        Ok(scored)
    }
}

/// Rows of a results frame as a score is asked for them.
fn items_of(results: &DataFrame, rows: &[u32]) -> Result<DataFrame> {
    Ok(bridge::gather(results, rows)?.drop_many([QUERY_IDX, DISTANCE]))
}

/// Asks for one batch, and makes what comes back durable as it comes.
fn ask_batch(score: &dyn Score, batch: &DataFrame, on_error: OnError, ledger: &Mutex<&mut Ledger>) -> Result<()> {
    let lock = || -> MutexGuard<'_, &mut Ledger> { ledger.lock().unwrap_or_else(PoisonError::into_inner) };
    let mut ticket = match &mut lock().batches {
        Some(batches) if score.is_paid() => Some(batches.ticket(batch.height())?),
        _ => None,
    };
    let mut failure = None;
    let asked = ask(score, batch, &mut |answers| {
        let done = outcomes(&answers)?.iter().filter(|outcome| outcome.is_some()).count();
        let answers = match on_error {
            OnError::Null => answers,
            OnError::Stop => {
                let (others, failed) = without_failures(answers)?;
                failure = failure.take().or(failed);
                others
            }
        };
        let mut ledger = lock();
        let left = |open: usize| Some(open.saturating_sub(done));
        let _ = ledger.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        if answers.height() > 0 {
            ledger.keep(&answers, score.is_paid())?;
        }
        drop(ledger);
        ticket.as_mut().map_or(Ok(()), |ticket| ticket.answered(done))
    });
    // Nobody works on what is left.
    if let (Ok(()) | Err(Error::Away { .. } | Error::Score { .. }), Some(ticket)) = (&asked, ticket) {
        ticket.close()?;
    }
    asked.and(failure.map_or(Ok(()), Err))
}
