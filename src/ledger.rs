//! Pays for each item once: who was asked, what came back, what is durable.
//!
//! The ledger is a cache under `Score`; no strategy reads it. It alone decides which
//! items are asked (distinct, unseen, within the budget), in which batches, and it makes
//! each finished batch durable before the worker that scored it gets another.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use polars::prelude::*;

use crate::bridge;
use crate::error::{AtPath, Doing, Error, Result};
use crate::folder;
use crate::log::write_parquet;
use crate::schema::{self, DB_IDX, DISTANCE, EVALUATION, QUERY_IDX, RAW_SCORE, REASON, SCORE};
use crate::score::{OnError, Reusable, Score, check_answers, without_failures};
use crate::untrusted::read_parquet;

/// What came back for an item.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// As the scorer gave it.
    score: Option<f64>,
    reason: Option<String>,
    parts: Vec<Option<f64>>,
}

/// Everything asked and answered in a run so far.
#[derive(Default)]
pub(crate) struct Ledger {
    /// The items met in this run.
    met: HashSet<u64>,
    /// Those of them that were asked, and their ordinals in the strategy's order; the others' scores
    /// were paid for before.
    asked: PlHashMap<u64, u64>,
    /// Those of them that have no score.
    failed: PlHashSet<u64>,
    /// Scores that were paid for before.
    pub(crate) reusable: Reusable,
    /// Answers of the items asked, and of some that a killed process paid for
    /// and the strategy has not come to again yet.
    answers: PlHashMap<u64, Answer>,
    /// The score's parts and their places in [`Answer::parts`]. By name, so that the order in which batches
    /// come back does not show: a batch whose items all failed has no parts.
    parts: BTreeMap<String, usize>,
    /// Where finished batches are kept.
    folder: Option<Folder>,
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
    pub(crate) interrupt: Option<std::sync::Arc<AtomicBool>>,
}

struct Folder {
    tmp: PathBuf,
    path: PathBuf,
    next: usize,
    tickets: usize,
}

impl Folder {
    /// Notes that so many items are being asked, so that a later process can tell how many may be paid twice.
    /// Not fsynced: it is a figure for people, and outlives the process.
    fn ticket(&mut self, items: usize) -> Result<PathBuf> {
        let path = self.path.join(format!("asked-{:06}", self.tickets));
        self.tickets += 1;
        folder::note(&path, &items.to_string())?;
        Ok(path)
    }
}

impl Ledger {
    /// Items asked so far, each counted once: the cost.
    pub(crate) fn evaluations(&self) -> u64 {
        self.asked.len() as u64
    }

    /// Items met whose score was paid for before.
    pub(crate) fn reused(&self) -> u64 {
        self.met.len().saturating_sub(self.asked.len()) as u64
    }

    /// Items met in this run.
    pub(crate) fn met(&self) -> &HashSet<u64> {
        &self.met
    }

    /// Forgets who was asked: another run begins.
    pub(crate) fn clear(&mut self) {
        let (minimize, on_error) = (self.minimize, self.on_error);
        let (interrupt, reusable) = (self.interrupt.take(), std::mem::take(&mut self.reusable));
        *self = Ledger { minimize, on_error, interrupt, reusable, ..Ledger::default() };
    }

    /// From now on keeps finished batches in `path`, and takes what is there already.
    pub(crate) fn keep_in(&mut self, path: &Path, tmp: &Path) -> Result<()> {
        let (mut files, mut tickets, mut next) = (Vec::new(), 0, 0);
        for entry in fs::read_dir(path).at_path(path)? {
            let file = entry.at_path(path)?.path();
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if let Some(number) = name.strip_prefix("asked-") {
                tickets = number.parse::<usize>().map_or(tickets, |number| tickets.max(number + 1));
                let items = fs::read_to_string(&file).at_path(&file)?;
                self.asked_again += items.parse::<u64>().unwrap_or(0);
            } else if let Some(number) = name.strip_prefix("batch-").and_then(|name| name.strip_suffix(".parquet")) {
                // Not the number of files: one may be gone, and none is to be written over.
                next = number.parse::<usize>().map_or(next, |number| next.max(number + 1));
                files.push(file);
            }
        }
        files.sort();
        for file in &files {
            let batch = read_parquet(file)?;
            self.record(&batch).map_err(|error| Error::input(file, error.to_string()))?;
        }
        self.folder = Some(Folder { tmp: tmp.into(), path: path.into(), next, tickets });
        Ok(())
    }

    /// Takes the items of a committed iteration, as a resumed run replays them.
    pub(crate) fn replay(&mut self, scored: &DataFrame) -> Result<()> {
        let (items, ordinals) = (schema::u64s(scored, DB_IDX)?, schema::nullable_u64s(scored, EVALUATION)?);
        for ((item, ordinal), score) in items.into_iter().zip(ordinals).zip(schema::scores(scored, SCORE)?) {
            self.met.insert(item);
            self.asked.extend(ordinal.map(|ordinal| (item, ordinal)));
            self.count_failure(item, score.is_none());
        }
        let mut answers = scored.clone();
        if scored.column(RAW_SCORE).is_ok() {
            answers = answers.drop(SCORE).doing("replaying")?;
            answers.rename(RAW_SCORE, SCORE.into()).doing("replaying")?;
        }
        let first: Vec<&str> = schema::names(&answers);
        let parts: Vec<&str> = match first.iter().position(|name| *name == REASON) {
            Some(position) => first[position + 1..].iter().copied().filter(|name| *name != EVALUATION).collect(),
            None => Vec::new(),
        };
        let columns: Vec<&str> = [DB_IDX, SCORE, REASON].into_iter().chain(parts).collect();
        self.record(&answers.select(columns).doing("replaying")?)
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
        let earlier = self.reusable.of(&results)?;
        let mut left = budget.map_or(u64::MAX, |budget| budget.saturating_sub(self.evaluations()));
        let (mut ask, mut fresh): (Vec<u32>, Vec<u64>) = (Vec::new(), Vec::new());
        let mut kept: Vec<u32> = Vec::with_capacity(items.len());
        let mut open = HashSet::new();
        for (row, item) in (0u32..).zip(&items) {
            if !self.met.contains(item) {
                match earlier[row as usize] {
                    None if left == 0 => continue,
                    None => {
                        left -= 1;
                        self.asked.insert(*item, self.evaluations() + 1);
                    }
                    score => {
                        self.answers.insert(*item, Answer { score, reason: None, parts: Vec::new() });
                    }
                }
                self.met.insert(*item);
                fresh.push(*item);
            }
            // Not only new items: also those whose failure is to be tried again.
            if !self.answers.contains_key(item) && open.insert(*item) {
                ask.push(row);
            }
            kept.push(row);
        }
        let wanted = bridge::gather(&results, &ask)?.drop_many([QUERY_IDX, DISTANCE]);
        if let Err(error) = self.ask(score, &wanted) {
            // What was answered stays answered; the iteration never happened.
            for item in fresh {
                self.met.remove(&item);
                self.asked.remove(&item);
            }
            return Err(error);
        }
        for item in fresh.iter().chain(&open) {
            self.count_failure(*item, self.answers.get(item).is_some_and(|answer| answer.score.is_none()));
        }
        let results = match kept.len() == items.len() {
            true => results,
            false => bridge::gather(&results, &kept)?,
        };
        Ok((self.annotate(results)?, fresh.len() as u64))
    }

    /// Forgets failures, so that the items are asked again when they are met; their evaluation was counted.
    pub(crate) fn retry_failed(&mut self) {
        self.answers.retain(|_, answer| answer.score.is_some());
        self.failed.clear();
    }

    /// Items met that have no score.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.len() as u64
    }

    /// Why one of them failed.
    pub(crate) fn a_failure(&self) -> Option<&str> {
        self.failed.iter().filter_map(|item| self.answers.get(item)?.reason.as_deref()).min()
    }

    fn count_failure(&mut self, item: u64, failed: bool) {
        match failed {
            true => self.failed.insert(item),
            false => self.failed.remove(&item),
        };
    }

    /// Takes what was told of the items; the others wait.
    fn take_told(&mut self, score: &dyn Score, items: &DataFrame) -> Result<()> {
        // What was asked with the items and comes back is no part of the score.
        let asked_with = schema::names(items).into_iter().filter(|name| *name != DB_IDX);
        let told = score.score(items)?.drop_many(asked_with.map(str::to_string));
        let asked = schema::u64s(items, DB_IDX)?;
        let ids = told.column(DB_IDX).doing("told scores")?.cast(&DataType::UInt64).doing("told scores: db_idx")?;
        let ids: Vec<Option<u64>> = ids.u64().doing("told scores")?.iter().collect();
        // Told again what is known already: no harm.
        let news: Vec<u32> = (0..)
            .zip(&ids)
            .filter(|(_, id)| id.is_none_or(|id| !self.answers.contains_key(&id)))
            .map(|(row, _)| row)
            .collect();
        let known: HashSet<u64> = ids.into_iter().flatten().collect();
        let (mut rows, mut open) = (Vec::new(), Vec::new());
        for (row, item) in (0u32..).zip(&asked) {
            if known.contains(item) { rows.push(row) } else { open.push(row) }
        }
        if !news.is_empty() {
            let answers = check_answers(&bridge::gather(items, &rows)?, bridge::gather(&told, &news)?)?;
            self.keep(&answers, true)?;
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
        let size = score.batch_size().clamp(1, items.height());
        let batches = items.height().div_ceil(size);
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let (interrupt, on_error) = (self.interrupt.clone(), self.on_error);
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
                    failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(error);
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
        failed.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).map_or(Ok(()), Err)
    }

    /// Makes a batch of answers durable, then takes it.
    fn keep(&mut self, answers: &DataFrame, durable: bool) -> Result<()> {
        if let (true, Some(folder)) = (durable, &mut self.folder) {
            let ordinals: Vec<Option<u64>> =
                schema::u64s(answers, DB_IDX)?.iter().map(|item| self.asked.get(item).copied()).collect();
            let mut columns = vec![Column::new(EVALUATION.into(), ordinals)];
            columns.extend(answers.columns().iter().cloned());
            let batch = DataFrame::new(answers.height(), columns).doing("writing the ledger")?;
            write_parquet(&folder.tmp, &folder.path.join(format!("batch-{:06}.parquet", folder.next)), &batch)?;
            folder.next += 1;
        }
        self.record(answers)
    }

    /// Takes answers: `db_idx`, `score`, `reason`, then parts.
    fn record(&mut self, answers: &DataFrame) -> Result<()> {
        let part_columns: Vec<&Column> = answers
            .columns()
            .iter()
            .filter(|column| ![DB_IDX, SCORE, REASON, EVALUATION].contains(&column.name().as_str()))
            .collect();
        let mut parts = Vec::with_capacity(part_columns.len());
        for column in part_columns {
            let next = self.parts.len();
            let place = *self.parts.entry(column.name().to_string()).or_insert(next);
            parts.push((place, schema::scores(answers, column.name())?));
        }
        let scores = schema::scores(answers, SCORE)?;
        let reasons = answers.column(REASON).doing("answers")?.str().doing("answers")?.clone();
        for (row, item) in schema::u64s(answers, DB_IDX)?.into_iter().enumerate() {
            let mut values = vec![None; if parts.is_empty() { 0 } else { self.parts.len() }];
            for (place, part) in &parts {
                values[*place] = part[row];
            }
            let answer = Answer { score: scores[row], reason: reasons.get(row).map(str::to_string), parts: values };
            self.answers.insert(item, answer);
        }
        Ok(())
    }

    /// Adds `score`, `raw_score` if it differs, `reason`, the parts and `evaluation` to a results frame.
    fn annotate(&self, mut results: DataFrame) -> Result<DataFrame> {
        let items = schema::u64s(&results, DB_IDX)?;
        let missing = || Error::contract("score", DB_IDX, "an answer for each item", "none");
        let answers =
            items.iter().map(|item| self.answers.get(item).ok_or_else(missing)).collect::<Result<Vec<_>>>()?;
        let raw: Vec<Option<f64>> = answers.iter().map(|answer| answer.score).collect();
        let mut add = |column: Column| results.with_column(column).map(|_| ()).doing("adding scores");
        if self.minimize {
            add(Column::new(SCORE.into(), raw.iter().map(|score| score.map(|score| -score)).collect::<Vec<_>>()))?;
            add(Column::new(RAW_SCORE.into(), raw))?;
        } else {
            add(Column::new(SCORE.into(), raw))?;
        }
        let reasons: StringChunked = answers.iter().map(|answer| answer.reason.as_deref()).collect();
        add(reasons.with_name(REASON.into()).into_column())?;
        for (name, part) in &self.parts {
            let values: Vec<Option<f64>> =
                answers.iter().map(|answer| answer.parts.get(*part).copied().flatten()).collect();
            add(Column::new(name.as_str().into(), values))?;
        }
        let ordinals: Vec<Option<u64>> = items.iter().map(|item| self.asked.get(item).copied()).collect();
        add(Column::new(EVALUATION.into(), ordinals))?;
        Ok(results)
    }
}

/// Asks for one batch, and makes what comes back durable.
fn ask_batch(score: &dyn Score, batch: &DataFrame, on_error: OnError, ledger: &Mutex<&mut Ledger>) -> Result<()> {
    let ledger = || ledger.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let ticket = match &mut ledger().folder {
        Some(folder) if score.is_paid() => Some(folder.ticket(batch.height())?),
        _ => None,
    };
    let answers = check_answers(batch, score.score(batch)?)?;
    let (answers, failure) = match on_error {
        OnError::Null => (answers, None),
        OnError::Stop => without_failures(answers)?,
    };
    ledger().keep(&answers, score.is_paid())?;
    if let Some(ticket) = ticket {
        folder::remove_file(&ticket)?;
    }
    failure.map_or(Ok(()), Err)
}
