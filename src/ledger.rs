//! The ledger: a cache of the scores of a run, so that each item is evaluated once.
//!
//! The ledger alone chooses which items are requested from the scorer (distinct, not requested before, within the budget),
//! and in which requests. It makes answers durable before the worker that scored them receives more items. Update rules do
//! not read it.
//!
//! *Requested* items have an outcome or are being scored. *Decided* items have an outcome: scored, rejected or failed.

mod answers;
mod audit;
mod dispatcher;
mod folder;
mod manual;
mod store;

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use polars::prelude::*;

use self::answers::outcomes;
use self::dispatcher::{DispatchContext, Dispatcher};
use self::folder::LedgerFolder;
use self::store::{AnswerStore, Ordinals};
use crate::database::VectorDatabase;
use crate::error::{Result, WrapErr};
use crate::frame::convert;
use crate::frame::outcome::Outcome;
use crate::frame::schema::{self, DB_IDX, DISTANCE, EVALUATION, QUERY_IDX, SCORE};
use crate::panics::lock;
use crate::prediction;
use crate::score::{OnError, ReusedScores, Score, SumScore};

/// All requests and answers of a run so far.
#[derive(Default)]
pub(crate) struct Ledger {
    /// The items that have an outcome in this run, or are being scored.
    requested: HashSet<u64>,
    /// The ordinal of the evaluation of each requested item that costs one, in the order of the search.
    evaluation_of: PlHashMap<u64, u64>,
    /// The number of evaluated items with a score.
    scored_count: u64,
    /// The number of decided items with a reused score.
    reused_count: u64,
    /// The decided items that failed.
    failed: PlHashSet<u64>,
    /// The number of decided items that were rejected.
    rejected_count: u64,
    store: Arc<Mutex<AnswerStore>>,
    /// Scores items while the search continues.
    dispatcher: Option<Dispatcher>,
    /// The names of the parts of the score, if it is a sum.
    parts: Vec<String>,
    /// Scores of earlier runs and files.
    pub(crate) reused_scores: ReusedScores,
    /// Whether a smaller raw score is better.
    pub(crate) minimize: bool,
    /// Whether a failed item stops the run.
    pub(crate) on_error: OnError,
    /// Items that need manual scores.
    pub(crate) manual_items: Option<DataFrame>,
    /// The number of items that are scored again, because an earlier process requested them without storing an answer.
    pub(crate) scored_again: u64,
    /// The number of retries in earlier processes.
    pub(crate) retries_before: u64,
    /// The flag that stops scoring when it is set.
    pub(crate) interrupt: Option<Arc<AtomicBool>>,
    /// The number of pending items, for observers.
    pub(crate) pending: Arc<AtomicUsize>,
}

impl Ledger {
    /// The number of evaluated items, each counted once: the cost.
    pub(crate) fn evaluations(&self) -> u64 {
        self.evaluation_of.len() as u64
    }

    /// The number of evaluated items with a score.
    pub(crate) fn scored(&self) -> u64 {
        self.scored_count
    }

    /// The items of the library that have a reused score, best first.
    pub(crate) fn reused_items(&self, database: &dyn VectorDatabase) -> Result<Vec<u64>> {
        self.reused_scores.scored_items(database, self.minimize)
    }

    /// The number of decided items with a reused score.
    pub(crate) fn reused(&self) -> u64 {
        self.reused_count
    }

    /// The number of decided items that were rejected.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected_count
    }

    /// The number of decided items that failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.len() as u64
    }

    /// The reason of one of the failures.
    pub(crate) fn failure_reason(&self) -> Option<String> {
        let store = self.store();
        self.failed.iter().filter_map(|item| store.answers.reason(*item)).min().map(str::to_string)
    }

    fn store(&self) -> MutexGuard<'_, AnswerStore> {
        lock(&self.store)
    }

    /// The items that have an outcome in this run, or are being scored.
    pub(crate) fn requested(&self) -> &HashSet<u64> {
        &self.requested
    }

    /// Resets everything except the options, for another run.
    pub(crate) fn clear(&mut self) {
        let (minimize, on_error) = (self.minimize, self.on_error);
        let (interrupt, pending) = (self.interrupt.take(), self.pending.clone());
        let reused_scores = std::mem::take(&mut self.reused_scores);
        *self = Ledger { minimize, on_error, interrupt, pending, reused_scores, ..Ledger::default() };
    }

    /// Opens the ledger folder `path`: loads its answers, and stores further ones there. Returns whether it contains answers.
    pub(crate) fn open_folder(&mut self, path: &Path, tmp: &Path) -> Result<bool> {
        let mut store = self.store();
        let (folder, contents) = LedgerFolder::open(path, tmp, |answers| {
            let before = store.answers.len();
            store.answers.record(answers)?;
            Ok(answers.height() - (store.answers.len() - before))
        })?;
        store.folder = Some(folder);
        drop(store);
        self.scored_again += contents.unanswered;
        Ok(contents.has_answers)
    }

    /// Adds the items of a committed iteration when a run is resumed.
    pub(crate) fn replay(&mut self, iteration: u32, scored: DataFrame) -> Result<ReplayedIteration> {
        let items = schema::u64s(&scored, DB_IDX)?;
        let mut store = self.store();
        let is_stale = |(item, logged): (&u64, &Option<Outcome>)| {
            let current = store.answers.outcome(*item);
            *logged == Some(Outcome::Failed) && current.is_some_and(|current| current != Outcome::Failed)
        };
        let logged_outcomes = outcomes(&scored)?;
        let stale: Vec<bool> = items.iter().zip(&logged_outcomes).map(is_stale).collect();
        let is_amended = stale.contains(&true);
        let valid: BooleanChunked = stale.iter().map(|stale| Some(!stale)).collect();
        store.answers.record_logged(
            iteration,
            &if is_amended { scored.filter(&valid).wrap_err("replaying")? } else { scored.clone() },
        )?;
        // A newer answer may contain a part of the score that earlier answers lacked.
        store.answers.show_parts(iteration, &items, &[]);
        let has_new_columns = store.answers.visible_parts(iteration).any(|name| scored.column(name).is_err());
        drop(store);
        let mut new_items = 0;
        for (item, ordinal) in items.into_iter().zip(schema::nullable_u64s(&scored, EVALUATION)?) {
            self.evaluation_of.extend(ordinal.map(|ordinal| (item, ordinal)));
            if self.requested.insert(item) {
                new_items += 1;
                self.count(item);
            }
        }
        let scored =
            if is_amended || has_new_columns { self.with_current_answers(iteration, &scored)? } else { scored };
        Ok(ReplayedIteration { scored, new_items, is_amended, has_new_columns })
    }

    /// The scored frame of a committed iteration with the current answers.
    pub(crate) fn with_current_answers(&self, iteration: u32, scored: &DataFrame) -> Result<DataFrame> {
        let answered = self.add_scores(iteration, without_scores(scored)?)?;
        if prediction::has_predictions(scored) { prediction::join_predictions(answered, scored) } else { Ok(answered) }
    }

    /// Counts the outcome of a new item.
    fn count(&mut self, item: u64) {
        let outcome = self.store().answers.outcome(item);
        if outcome == Some(Outcome::Failed) {
            self.failed.insert(item);
        }
        self.rejected_count += u64::from(outcome == Some(Outcome::Rejected));
        if outcome == Some(Outcome::Scored) {
            let count =
                if self.evaluation_of.contains_key(&item) { &mut self.scored_count } else { &mut self.reused_count };
            *count += 1;
        }
    }

    /// Plans the scoring of the items of a results frame. Each item is requested once, even if several queries found it.
    /// Reserves the budget for the items to evaluate. Rows of items beyond the budget are removed.
    pub(crate) fn plan(&mut self, score: &dyn Score, results: DataFrame, budget: Option<u64>) -> Result<ScoreJob> {
        self.parts = score.as_sum().map(SumScore::names).unwrap_or_default();
        let items = schema::u64s(&results, DB_IDX)?;
        let free = self.take_free(score, &items, &results)?;
        let mut remaining = budget.map_or(u64::MAX, |budget| budget.saturating_sub(self.evaluations()));
        let (mut items_to_score, mut rows, mut new_items) = (Vec::new(), Vec::with_capacity(items.len()), Vec::new());
        for (row, item) in (0u32..).zip(&items) {
            if !self.requested.contains(item) {
                if !free.contains(item) {
                    if remaining == 0 {
                        continue;
                    }
                    remaining -= 1;
                    self.evaluation_of.insert(*item, self.evaluations() + 1);
                }
                self.requested.insert(*item);
                new_items.push(*item);
                // A process that was killed may have stored an answer already.
                if self.store().answers.outcome(*item).is_none() {
                    items_to_score.push(row);
                }
            }
            rows.push(row);
        }
        let items_to_score = columns_to_score(&results, &items_to_score)?;
        let results = if rows.len() == items.len() { results } else { convert::gather(&results, &rows)? };
        Ok(ScoreJob { results, items_to_score, new_items })
    }

    /// Whether each of these items is within the budget, if they are requested in this order. Items that a job finds to cost
    /// nothing count as if they were evaluated.
    pub(crate) fn within_budget(&self, items: &[u64], budget: Option<u64>) -> Vec<bool> {
        let mut remaining = budget.map_or(u64::MAX, |budget| budget.saturating_sub(self.evaluations()));
        let mut planned = HashSet::new();
        let is_within = |item: &u64| {
            if self.requested.contains(item) || planned.contains(item) {
                return true;
            }
            let is_within = remaining > 0;
            if is_within {
                remaining -= 1;
                planned.insert(*item);
            }
            is_within
        };
        items.iter().map(is_within).collect()
    }

    /// Scores the items of a job. With `in_background`, background workers score them. Otherwise waits for the answers.
    pub(crate) fn submit(
        &mut self,
        score: &Arc<dyn Score>,
        iteration: u32,
        job: &ScoreJob,
        in_background: bool,
    ) -> Result<()> {
        if !in_background {
            return self.score_now(score, &job.items_to_score);
        }
        let dispatcher = match self.dispatcher.take() {
            Some(dispatcher) => dispatcher,
            None => Dispatcher::start(self.dispatch_context(score))?,
        };
        self.pending.fetch_add(job.items_to_score.height(), Ordering::Relaxed);
        dispatcher.send(Some(iteration), &job.items_to_score, self.ordinals(&job.items_to_score)?)?;
        self.dispatcher = Some(dispatcher);
        Ok(())
    }

    /// Waits for the answers of a job. Returns its scored frame, and the number of new items.
    pub(crate) fn finish(&mut self, iteration: u32, job: &ScoreJob) -> Result<(DataFrame, u64)> {
        // On an error, the dispatcher is dropped: it waits for the requests in flight, and starts no others.
        if let Some(dispatcher) = self.dispatcher.take() {
            dispatcher.wait(Some(iteration))?;
            self.dispatcher = Some(dispatcher);
        }
        job.new_items.iter().for_each(|item| self.count(*item));
        let items = schema::u64s(&job.results, DB_IDX)?;
        let mut store = self.store();
        store.folder.as_mut().map_or(Ok(()), LedgerFolder::create_first_file)?;
        store.answers.show_parts(iteration, &items, &self.parts);
        drop(store);
        Ok((self.add_scores(iteration, job.results.clone())?, job.new_items.len() as u64))
    }

    /// Cancels a job whose iteration is not committed. Keeps the answers that have arrived.
    pub(crate) fn cancel(&mut self, job: &ScoreJob) {
        for item in &job.new_items {
            self.requested.remove(item);
            self.evaluation_of.remove(item);
        }
    }

    /// Waits for the requests in flight, and starts no others.
    pub(crate) fn close(&mut self) {
        self.dispatcher = None;
    }

    /// Records the answers of new items that cost no evaluation, and returns their ids. These are the items with a reused score
    /// and the items that a free gate of the score rejects.
    fn take_free(&mut self, score: &dyn Score, items: &[u64], results: &DataFrame) -> Result<HashSet<u64>> {
        let (mut free, mut others, mut seen) = (HashSet::new(), Vec::new(), HashSet::new());
        let sum = score.as_sum();
        if self.reused_scores.is_empty() && sum.is_none() {
            return Ok(free);
        }
        let reused = self.reused_scores.scores_of(results)?;
        for (row, item) in items.iter().enumerate() {
            if self.requested.contains(item) || !seen.insert(*item) {
                continue;
            }
            match reused[row] {
                Some(score) => {
                    self.store().answers.record_reused(*item, score);
                    free.insert(*item);
                }
                None => others.push(row as u32),
            }
        }
        if let Some(sum) = sum
            && let Some(rejected) = sum.reject_by_free_gates(&columns_to_score(results, &others)?)?
        {
            self.store().answers.record(&rejected)?;
            free.extend(schema::u64s(&rejected, DB_IDX)?);
        }
        Ok(free)
    }

    /// Adds the items that failed in a logged iteration to `failed`, except those that have another outcome by now.
    pub(crate) fn collect_failed(&mut self, scored: &DataFrame, failed: &mut BTreeSet<u64>) -> Result<()> {
        let ordinals = schema::nullable_u64s(scored, EVALUATION)?;
        let items = schema::u64s(scored, DB_IDX)?.into_iter().zip(ordinals);
        for ((item, ordinal), outcome) in items.zip(outcomes(scored)?) {
            let has_outcome = self.store().answers.outcome(item).is_some_and(|current| current != Outcome::Failed);
            if outcome == Some(Outcome::Failed) && !has_outcome {
                failed.insert(item);
                self.evaluation_of.extend(ordinal.map(|ordinal| (item, ordinal)));
            }
        }
        Ok(())
    }

    /// Retries failed items without counting them again. `items` contains `db_idx`, `embedding` and attributes.
    pub(crate) fn retry(&mut self, score: &Arc<dyn Score>, items: &DataFrame) -> Result<()> {
        schema::u64s(items, DB_IDX)?.into_iter().for_each(|item| self.store().answers.clear_failure(item));
        self.score_now(score, items)
    }

    /// Scores items, and waits for the answers.
    fn score_now(&mut self, score: &Arc<dyn Score>, items: &DataFrame) -> Result<()> {
        if items.height() == 0 {
            return Ok(());
        }
        if score.is_manual() {
            return self.record_manual_scores(&**score, items);
        }
        self.pending.store(items.height(), Ordering::Relaxed);
        let result = Dispatcher::score(self.dispatch_context(score), items, self.ordinals(items)?);
        self.pending.store(0, Ordering::Relaxed);
        result
    }

    fn dispatch_context(&self, score: &Arc<dyn Score>) -> DispatchContext {
        let (interrupt, on_error) = (self.interrupt.clone(), self.on_error);
        DispatchContext {
            score: score.clone(),
            store: self.store.clone(),
            on_error,
            interrupt,
            pending: self.pending.clone(),
        }
    }

    fn ordinals(&self, items: &DataFrame) -> Result<Ordinals> {
        let ordinal = |item: u64| (item, self.evaluation_of.get(&item).copied());
        Ok(schema::u64s(items, DB_IDX)?.into_iter().map(ordinal).collect())
    }

    /// Adds the answers and `evaluation` to a results frame.
    fn add_scores(&self, iteration: u32, results: DataFrame) -> Result<DataFrame> {
        let items = schema::u64s(&results, DB_IDX)?;
        let mut scored = self.store().answers.add_scores(iteration, results, self.minimize)?;
        let ordinals: Vec<Option<u64>> = items.iter().map(|item| self.evaluation_of.get(item).copied()).collect();
        scored.with_column(Column::new(EVALUATION.into(), ordinals)).wrap_err("adding scores")?;
        Ok(scored)
    }
}

/// A replayed iteration.
pub(crate) struct ReplayedIteration {
    /// The scored frame, with the newer answers of items that failed at first and were retried later.
    pub(crate) scored: DataFrame,
    /// The number of new items.
    pub(crate) new_items: u64,
    /// Whether the frame differs from the logged one, because of retried items.
    pub(crate) is_amended: bool,
    /// Whether the frame has columns that the logged one lacks.
    pub(crate) has_new_columns: bool,
}

/// The scoring of the items of one iteration.
pub(crate) struct ScoreJob {
    /// The results frame, without items beyond the budget.
    pub(crate) results: DataFrame,
    /// The items to score.
    items_to_score: DataFrame,
    /// The items that no earlier iteration requested.
    new_items: Vec<u64>,
}

/// Rows of a results frame with the columns that a score receives.
fn columns_to_score(results: &DataFrame, rows: &[u32]) -> Result<DataFrame> {
    Ok(convert::gather(results, rows)?.drop_many([QUERY_IDX, DISTANCE]))
}

/// The results frame of a scored frame, without the columns that scoring added.
pub(crate) fn without_scores(scored: &DataFrame) -> Result<DataFrame> {
    let columns = schema::column_names(scored);
    let first = columns.iter().position(|name| *name == SCORE).unwrap_or(columns.len());
    scored.select(columns[..first].iter().copied()).wrap_err("replaying")
}
