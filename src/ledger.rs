//! Pays for each item once: who was asked, what came back, what is durable.
//!
//! The ledger is a cache under `Score`; no strategy reads it. It alone decides which
//! items are asked (distinct, unseen, within the budget), in which batches, and it makes
//! each finished batch durable before the worker that scored it gets another.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use polars::prelude::*;

use crate::bridge;
use crate::error::{AtPath, Doing, Error, Result};
use crate::log::write_parquet;
use crate::schema::{self, DB_IDX, DISTANCE, EVALUATION, QUERY_IDX, RAW_SCORE, REASON, SCORE};
use crate::score::{OnError, Reusable, Score};
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
    /// The items met in this run and their ordinals, in the strategy's order; none for those
    /// whose score was paid for before.
    asked: HashMap<u64, Option<u64>>,
    /// Items asked, each counted once.
    evaluations: u64,
    /// Scores that were paid for before.
    pub(crate) reusable: Reusable,
    /// Answers of the items asked, and of some that a killed process paid for
    /// and the strategy has not come to again yet.
    answers: HashMap<u64, Answer>,
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
    /// Set from outside to stop asking.
    pub(crate) interrupt: Option<std::sync::Arc<AtomicBool>>,
}

struct Folder {
    tmp: PathBuf,
    path: PathBuf,
    next: usize,
}

impl Ledger {
    /// Items asked so far, each counted once: the cost.
    pub(crate) fn evaluations(&self) -> u64 {
        self.evaluations
    }

    /// Items met whose score was paid for before.
    pub(crate) fn reused(&self) -> u64 {
        (self.asked.len() as u64).saturating_sub(self.evaluations)
    }

    /// Forgets who was asked: another run begins.
    pub(crate) fn clear(&mut self) {
        let (minimize, on_error) = (self.minimize, self.on_error);
        let (interrupt, reusable) = (self.interrupt.take(), std::mem::take(&mut self.reusable));
        *self = Ledger { minimize, on_error, interrupt, reusable, ..Ledger::default() };
    }

    /// From now on keeps finished batches in `path`, and takes what is there already.
    pub(crate) fn keep_in(&mut self, path: &Path, tmp: &Path) -> Result<()> {
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(path).at_path(path)? {
            let file = entry.at_path(path)?.path();
            if file.extension().is_some_and(|extension| extension == "parquet") {
                files.push(file);
            }
        }
        files.sort();
        for file in &files {
            let batch = read_parquet(file)?;
            self.record(&batch).map_err(|error| Error::input(file, error.to_string()))?;
        }
        self.folder = Some(Folder { tmp: tmp.into(), path: path.into(), next: files.len() });
        Ok(())
    }

    /// Takes the items of a committed iteration, as a resumed run replays them.
    pub(crate) fn replay(&mut self, scored: &DataFrame) -> Result<()> {
        let (items, ordinals) = (schema::u64s(scored, DB_IDX)?, schema::nullable_u64s(scored, EVALUATION)?);
        self.evaluations = ordinals.iter().copied().flatten().fold(self.evaluations, u64::max);
        self.asked.extend(items.into_iter().zip(ordinals));
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
        let mut wanted = HashSet::new();
        for (row, item) in items.iter().enumerate() {
            match self.asked.entry(*item) {
                Entry::Vacant(unseen) if earlier[row].is_some() => {
                    unseen.insert(None);
                    fresh.push(*item);
                    let answer = Answer { score: earlier[row], reason: None, parts: Vec::new() };
                    self.answers.insert(*item, answer);
                }
                Entry::Vacant(_) if left == 0 => continue,
                Entry::Vacant(unseen) => {
                    left -= 1;
                    self.evaluations += 1;
                    unseen.insert(Some(self.evaluations));
                    fresh.push(*item);
                }
                Entry::Occupied(_) => {}
            }
            // Not only new items: also those whose failure is to be tried again.
            if !self.answers.contains_key(item) && wanted.insert(*item) {
                ask.push(row as u32);
            }
            kept.push(row as u32);
        }
        let cut = items.len() - kept.len();
        let wanted = bridge::gather(&results, &ask)?;
        let wanted = wanted.drop_many([QUERY_IDX, DISTANCE]);
        if let Err(error) = self.ask(score, &wanted) {
            // What was answered stays answered; the iteration never happened.
            for item in fresh {
                if self.asked.remove(&item).flatten().is_some() {
                    self.evaluations -= 1;
                }
            }
            return Err(error);
        }
        let results = match cut {
            0 => results,
            _ => bridge::gather(&results, &kept)?,
        };
        Ok((self.annotate(results)?, fresh.len() as u64))
    }

    /// Forgets failures, so that the items are asked again when they are met; their evaluation was counted.
    pub(crate) fn retry_failed(&mut self) {
        self.answers.retain(|_, answer| answer.score.is_some());
    }

    /// Items asked that have no score, and the reason of one of them.
    pub(crate) fn failures(&self) -> (u64, Option<&str>) {
        let answers = self.asked.keys().filter_map(|item| self.answers.get(item));
        let failed: Vec<&Answer> = answers.filter(|answer| answer.score.is_none()).collect();
        (failed.len() as u64, failed.iter().filter_map(|answer| answer.reason.as_deref()).min())
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
                    score.score(&batch).and_then(|answers| check_answers(&batch, answers)).and_then(|answers| {
                        let (answers, failure) = match on_error {
                            OnError::Null => (answers, None),
                            OnError::Stop => without_failures(answers)?,
                        };
                        let mut ledger = shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                        ledger.keep(&answers, score.is_paid())?;
                        failure.map_or(Ok(()), Err)
                    })
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
                schema::u64s(answers, DB_IDX)?.iter().map(|item| self.asked.get(item).copied().flatten()).collect();
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
        let ordinals =
            items.iter().map(|item| self.asked.get(item).copied().ok_or_else(missing)).collect::<Result<Vec<_>>>()?;
        add(Column::new(EVALUATION.into(), ordinals))?;
        Ok(results)
    }
}

/// Sets failed items aside: where they stop the run they are not recorded, so that they are asked
/// again when it goes on. Gives the error for the first.
fn without_failures(answers: DataFrame) -> Result<(DataFrame, Option<Error>)> {
    let scores = answers.column(SCORE).doing("score")?;
    let Some(row) = schema::scores(&answers, SCORE)?.iter().position(Option::is_none) else {
        return Ok((answers, None));
    };
    let reason =
        answers.column(REASON).doing("score")?.str().doing("score")?.get(row).unwrap_or("no score").to_string();
    let item = schema::u64s(&answers, DB_IDX)?[row];
    let scored = answers.filter(&scores.is_not_null()).doing("score")?;
    Ok((scored, Some(Error::Score { iteration: None, reason: format!("item {item} failed: {reason}") })))
}

/// Puts what a score gave into the order asked, as `db_idx`, `score`, `reason`, parts.
/// NaN and infinite scores become failures with that reason.
pub(crate) fn check_answers(batch: &DataFrame, answers: DataFrame) -> Result<DataFrame> {
    let asked = schema::u64s(batch, DB_IDX)?;
    let answers = match answers.column(DB_IDX) {
        Ok(_) => in_order(&asked, answers)?,
        Err(_) if answers.height() == asked.len() => answers,
        Err(_) => {
            let found =
                format!("{} (with a `db_idx` column they may come in any order, or fail to come)", answers.height());
            return Err(Error::contract("score", "rows", format!("{} scores, one for each item", asked.len()), found));
        }
    };
    let mut columns = vec![Column::new(DB_IDX.into(), asked)];
    let score = number(&answers, SCORE)?;
    let reasons = match answers.column(REASON) {
        Ok(column) => column
            .cast(&DataType::String)
            .doing("score: column `reason`")?
            .str()
            .doing("score: column `reason`")?
            .clone(),
        Err(_) => StringChunked::full_null(REASON.into(), answers.height()),
    };
    let failure = |score: Option<f64>| match score {
        None => Some("no score"),
        Some(score) if score.is_nan() => Some("NaN"),
        Some(score) if score.is_infinite() => Some("infinite"),
        Some(_) => None,
    };
    let reasons: StringChunked = score
        .iter()
        .zip(reasons.iter())
        .map(|(score, reason)| failure(*score).map(|failure| reason.unwrap_or(failure)))
        .collect();
    let finite: Vec<Option<f64>> = score.iter().map(|score| score.filter(|score| score.is_finite())).collect();
    columns.push(Column::new(SCORE.into(), finite));
    columns.push(reasons.with_name(REASON.into()).into_column());
    for name in schema::names(&answers) {
        if [DB_IDX, SCORE, REASON].contains(&name) {
            continue;
        }
        if schema::is_reserved(name) || batch.column(name).is_ok() {
            return Err(Error::contract("score", name, "another name for a part of the score", "a name that is taken"));
        }
        columns.push(Column::new(name.into(), number(&answers, name)?));
    }
    DataFrame::new(columns[0].len(), columns).doing("score")
}

/// A numeric column as nullable f64.
fn number(answers: &DataFrame, name: &str) -> Result<Vec<Option<f64>>> {
    let Ok(column) = answers.column(name) else {
        let names = schema::names(answers).join(", ");
        return Err(Error::contract("score", name, "a number", format!("no such column (there are: {names})")));
    };
    let dtype = column.dtype();
    if !(dtype.is_primitive_numeric() || dtype.is_decimal() || matches!(dtype, DataType::Boolean | DataType::Null)) {
        return Err(Error::contract("score", name, "a number", dtype));
    }
    let column = column.cast(&DataType::Float64).doing("score")?;
    Ok(column.f64().doing("score")?.iter().collect())
}

/// Matches answers to the items asked by `db_idx`; an item without an answer has a null score.
fn in_order(asked: &[u64], answers: DataFrame) -> Result<DataFrame> {
    let ids = answers.column(DB_IDX).doing("score")?.cast(&DataType::UInt64).doing("score: column `db_idx`")?;
    let ids = ids.u64().doing("score")?.clone();
    let position: HashMap<u64, usize> = asked.iter().copied().zip(0..).collect();
    let mut row_of: Vec<Option<u32>> = vec![None; asked.len()];
    for (row, id) in ids.iter().enumerate() {
        let Some(at) = id.and_then(|id| position.get(&id)) else {
            let found = id.map_or("null".to_string(), |id| format!("{id}, which was not"));
            return Err(Error::contract("score", DB_IDX, "items that were asked", found));
        };
        if row_of[*at].replace(row as u32).is_some() {
            return Err(Error::contract("score", DB_IDX, "each item once", format!("{} twice", asked[*at])));
        }
    }
    let rows: IdxCa = row_of.into_iter().collect();
    answers.take(&rows.with_name("rows".into())).doing("score")
}
