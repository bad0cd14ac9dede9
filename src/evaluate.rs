//! How much of the best a run found, and at what cost, where the scores of all items are known.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use polars::prelude::*;

use crate::bridge;
use crate::database::Local;
use crate::error::{Doing, Error, Result};
use crate::index::find_files;
use crate::log::{SearchLog, collect};
use crate::near::no_column;
use crate::schema::{self, DB_IDX, EVALUATION, ITERATION, RAW_SCORE, SCORE, SOURCE_ROW};

/// Where the true scores are, and how its rows are matched with items.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Truth {
    /// A Parquet file, a glob, or a folder of .parquet files, here or on an object store: what was indexed, or with a key
    /// any other.
    pub items: PathBuf,
    /// The column of the true score, in the scorer's own direction.
    pub score_column: String,
    /// A column of unique values that both the file and the run have. Where `None`, items are matched by
    /// `source_row` if the run has it, else by row number: that is `db_idx`.
    pub key: Option<String>,
}

impl Truth {
    /// A file, a glob or a folder of what was indexed, and the column of the true score.
    pub fn new(items: impl Into<PathBuf>, score_column: impl Into<String>) -> Self {
        Truth { items: items.into(), score_column: score_column.into(), key: None }
    }

    /// The column by which items are matched.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
}

/// What a run had found after each item that it paid for. Made by [`evaluate`].
#[derive(Clone, Debug)]
pub struct Evaluation {
    rows: u64,
    top: usize,
    /// By the number of items paid for, ascending; from 0.
    states: Vec<(u64, Reached)>,
}

/// What was found so far; scores in the scorer's own terms.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reached {
    pub(crate) found: usize,
    pub(crate) best: Option<f64>,
    pub(crate) top_sum: Option<f64>,
    /// The items in the sum.
    pub(crate) summed: usize,
}

/// Judges a run by the true scores: which of the true `top` items it found, after how many it had paid for.
///
/// - An item is found if it was scored and its true score reaches the `top`-th best: items that tie there are as good
///   as each other, and at most `top` count.
/// - The cost is `evaluation`. Failed items cost and are not found; scores that an earlier run paid for cost nothing,
///   and are found when the items of the iterations before are paid for.
/// - Nulls, NaN and infinite values among the true scores are no scores.
///
/// # Errors
/// A file that is not the one that was indexed (another number of rows, other values in a column that the run kept);
/// a missing column; a key that is not unique or that the file lacks; fewer than `top` true scores.
pub fn evaluate(log: &SearchLog, truth: &Truth, top: usize) -> Result<Evaluation> {
    let met = collect(log.compile_results()?)?;
    let minimize = minimizes(log, &met);
    let known = truth.read(&met)?;
    let rows = truth.rows_of(log, &met, &known)?;
    let scores = truth.scores(&known, minimize)?;
    let cut = kth_best(&scores, top)
        .ok_or_else(|| truth.refuse(format!("top: expected 1 to {}, the scores there, found {top}", count(&scores))))?;

    let scored = schema::scores(&met, SCORE)?;
    let scores = scored.into_iter().zip(&rows).map(|(score, row)| score.and(scores[*row as usize]));
    let states = states(&costs(&met)?, scores, cut, top, minimize);
    // Rows without an embedding are no items of the library.
    let dataset = log.manifest().dataset.as_ref().filter(|_| truth.key.is_none());
    let without = dataset.map_or(0, |dataset| dataset.without_embedding);
    Ok(Evaluation { rows: known.height() as u64 - without, top, states })
}

/// What a run had found after each item that it paid for by its own scores, where nobody knows the true ones: nothing
/// counts as found. `met` has `evaluation`, `iteration` and `score` of each item.
pub(crate) fn progress(met: &DataFrame, top: usize, minimize: bool) -> Result<Evaluation> {
    let scores = schema::scores(met, SCORE)?;
    let states = states(&costs(met)?, scores.into_iter(), f64::INFINITY, top, minimize);
    Ok(Evaluation { rows: 0, top, states })
}

/// Whether smaller scores are the better ones in the scorer's own terms.
pub(crate) fn minimizes(log: &SearchLog, met: &DataFrame) -> bool {
    log.manifest().config["score"]["direction"] == "minimize" || met.column(RAW_SCORE).is_ok()
}

/// By the number of items paid for, where something came of it; from 0. An item is found if its score reaches the `cut`.
fn states(
    costs: &[u64],
    scores: impl Iterator<Item = Option<f64>>,
    cut: f64,
    top: usize,
    minimize: bool,
) -> Vec<(u64, Reached)> {
    let mut events: BTreeMap<u64, Vec<f64>> = BTreeMap::from([(0, Vec::new())]);
    for (cost, score) in costs.iter().zip(scores) {
        events.entry(*cost).or_default().extend(score);
    }
    let (mut hits, mut state) = (0, Reached::default());
    // Ascending, at most `top` of them.
    let mut best: Vec<f64> = Vec::new();
    let states = events.into_iter().map(|(cost, scores)| {
        for score in scores {
            hits += usize::from(score >= cut);
            if best.len() == top {
                if score <= best[0] {
                    continue;
                }
                best.remove(0);
            }
            best.insert(best.partition_point(|other| *other < score), score);
            state.best = best.last().copied();
            // Added anew: a running sum would keep the rounding of what has left it.
            state.top_sum = Some(best.iter().sum());
            state.summed = best.len();
        }
        let sign = if minimize { -1.0 } else { 1.0 };
        let scorers_own = |value: Option<f64>| value.map(|value| sign * value);
        let (best, top_sum) = (scorers_own(state.best), scorers_own(state.top_sum));
        (cost, Reached { found: hits.min(top), best, top_sum, summed: state.summed })
    });
    states.collect()
}

impl Evaluation {
    /// Items of the library, where that is known.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Items paid for.
    pub(crate) fn cost(&self) -> u64 {
        self.states.last().map_or(0, |(cost, _)| *cost)
    }

    /// What was found for so much, or with all that was paid if that is less.
    pub(crate) fn reached(&self, cost: u64) -> Reached {
        let after = self.states.partition_point(|(paid, _)| *paid <= cost);
        self.states[..after].last().map_or(Reached::default(), |(_, reached)| *reached)
    }

    /// One row for each number of items paid for, from 0: `scored` u64, `found` u64, `recall` (the share of the true
    /// top found), `best` (true score, so far; null if none), `top_sum` (of the best `top` so far), in f64.
    ///
    /// # Errors
    /// No memory for it.
    pub fn curve(&self) -> Result<DataFrame> {
        self.frame((0..=self.cost()).collect(), Vec::new())
    }

    /// What was found within budgets, given as shares of the library (rounded to whole items), and with all that the
    /// run paid for: `share`, `budget` and the columns of [`Evaluation::curve`]. `scored` is less than `budget` if the
    /// run ended before.
    ///
    /// # Errors
    /// No memory for it.
    pub fn at(&self, shares: &[f64]) -> Result<DataFrame> {
        let all = self.cost();
        let budgets: Vec<u64> = shares.iter().map(|share| (share * self.rows as f64).round() as u64).collect();
        let budgets: Vec<u64> = budgets.into_iter().chain([all]).collect();
        let shares: Vec<f64> = shares.iter().copied().chain([all as f64 / self.rows as f64]).collect();
        let scored = budgets.iter().map(|budget| (*budget).min(all)).collect();
        self.frame(scored, vec![Column::new("share".into(), shares), Column::new("budget".into(), budgets)])
    }

    fn frame(&self, scored: Vec<u64>, mut columns: Vec<Column>) -> Result<DataFrame> {
        let states: Vec<Reached> = scored.iter().map(|scored| self.reached(*scored)).collect();
        let found: Vec<u64> = states.iter().map(|state| state.found as u64).collect();
        let recall: Vec<f64> = states.iter().map(|state| state.found as f64 / self.top as f64).collect();
        columns.push(Column::new("scored".into(), scored));
        columns.push(Column::new("found".into(), found));
        columns.push(Column::new("recall".into(), recall));
        columns.push(Column::new("best".into(), states.iter().map(|state| state.best).collect::<Vec<_>>()));
        columns.push(Column::new("top_sum".into(), states.iter().map(|state| state.top_sum).collect::<Vec<_>>()));
        DataFrame::new(states.len(), columns).doing("evaluate")
    }
}

impl Truth {
    fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::input(&self.items, reason)
    }

    /// The score, the key, and the columns that the run kept too.
    fn read(&self, met: &DataFrame) -> Result<DataFrame> {
        let (mut frames, local) = (Vec::new(), Local::of(&self.items)?);
        for file in find_files(local.path())? {
            let args = ScanArgsParquet {
                glob: false,
                hive_options: HiveOptions { enabled: Some(false), ..Default::default() },
                ..Default::default()
            };
            let mut frame = LazyFrame::scan_parquet(PlRefPath::new(file.to_string_lossy()), args)
                .doing(format!("reading {}", file.display()))?;
            let columns = frame.collect_schema().doing(format!("reading {}", file.display()))?;
            for name in [Some(&self.score_column), self.key.as_ref()].into_iter().flatten() {
                if !columns.contains(name) {
                    let there = columns.iter_names().map(|name| name.as_str());
                    return Err(Error::input(&file, no_column(name, "", there)));
                }
            }
            let wanted = columns.iter().filter(|(name, dtype)| {
                let kept = met.column(name).is_ok() && !schema::is_reserved(name) && !dtype.is_nested();
                **name == self.score_column || Some(name.as_str()) == self.key.as_deref() || kept
            });
            frames.push(frame.select(wanted.map(|(name, _)| col(name.clone())).collect::<Vec<_>>()));
        }
        collect(concat(frames, UnionArgs::default()).doing(self.items.display())?)
    }

    /// The row of each item that was met.
    fn rows_of(&self, log: &SearchLog, met: &DataFrame, known: &DataFrame) -> Result<Vec<u32>> {
        if let Some(key) = &self.key {
            return self.rows_by_key(key, met, known);
        }
        let dataset = log.manifest().dataset.as_ref();
        let there = known.height() as u64;
        let skipped = met.column(SOURCE_ROW).is_ok();
        if let Some(dataset) = dataset {
            if !skipped && dataset.ids != "row id" {
                let reason = format!("the run's db_idx are not row numbers but of {}; match by a --key", dataset.ids);
                return Err(self.refuse(reason));
            }
            let rows = dataset.rows + dataset.without_embedding;
            if rows > there || rows < there && !skipped {
                let reason = format!("is not what was indexed: it has {there} rows, the dataset {rows}");
                return Err(self.refuse(format!("{reason}; match another file by a --key")));
            }
        }
        let rows = schema::u64s(met, if skipped { SOURCE_ROW } else { DB_IDX })?;
        if let Some(beyond) = rows.iter().find(|row| **row >= there) {
            let reason = format!("is not what was indexed: it has {there} rows, the run met row {beyond}");
            return Err(self.refuse(reason));
        }
        let rows: Vec<u32> = rows.into_iter().map(|row| row as u32).collect();
        self.compare(met, &bridge::gather(known, &rows)?, &rows)?;
        Ok(rows)
    }

    fn rows_by_key(&self, key: &str, met: &DataFrame, known: &DataFrame) -> Result<Vec<u32>> {
        let texts = |frame: &DataFrame, place: &str| -> Result<Vec<Option<String>>> {
            let missing = || no_column(key, &format!(" in {place}"), schema::names(frame));
            let column = frame.column(key).map_err(|_| Error::Config(format!("--key: {}", missing())))?;
            let text = column.cast(&DataType::String).doing("--key")?;
            Ok(text.str().doing("--key")?.iter().map(|text| text.map(str::to_string)).collect())
        };
        let mut row_of: HashMap<String, u32> = HashMap::new();
        for (row, text) in texts(known, &self.items.to_string_lossy())?.into_iter().enumerate() {
            let Some(text) = text else { continue };
            if let Some(first) = row_of.insert(text.clone(), row as u32) {
                let reason = format!("column `{key}` is no key: {text} is in row {first} and in row {row}");
                return Err(self.refuse(reason));
            }
        }
        let items = schema::u64s(met, DB_IDX)?;
        let found = texts(met, "the run")?.into_iter().zip(items).map(|(text, item)| {
            let row = text.as_ref().and_then(|text| row_of.get(text)).copied();
            let text = text.as_deref().unwrap_or("null");
            row.ok_or_else(|| self.refuse(format!("no row whose `{key}` is {text}, as item {item} of the run has")))
        });
        found.collect()
    }

    /// Refuses a file whose values are not those that the run met.
    fn compare(&self, met: &DataFrame, truth: &DataFrame, rows: &[u32]) -> Result<()> {
        for theirs in truth.columns() {
            let Ok(ours) = met.column(theirs.name()) else { continue };
            if schema::is_reserved(theirs.name()) {
                continue;
            }
            let theirs = theirs.cast(ours.dtype()).doing(format!("column `{}`", theirs.name()))?;
            let differs = ours.not_equal_missing(&theirs).doing(format!("column `{}`", theirs.name()))?;
            let Some(row) = differs.iter().position(|differs| differs == Some(true)) else { continue };
            let (found, expected) = (theirs.get(row).doing("evaluate")?, ours.get(row).doing("evaluate")?);
            let (name, row) = (theirs.name(), rows[row]);
            let reason = format!("is not what was indexed: `{name}` in row {row} is {found}, the run met {expected}");
            return Err(self.refuse(format!("{reason}; match another file by a --key")));
        }
        Ok(())
    }

    /// The true scores, such that more is better.
    fn scores(&self, known: &DataFrame, minimize: bool) -> Result<Vec<Option<f64>>> {
        let column = known.column(&self.score_column).doing("evaluate")?;
        if !column.dtype().is_primitive_numeric() {
            let reason = format!("column `{}`: expected numbers, found {}", self.score_column, column.dtype());
            return Err(self.refuse(reason));
        }
        let scores = column.cast(&DataType::Float64).doing("evaluate")?;
        let sign = if minimize { -1.0 } else { 1.0 };
        let scores = scores.f64().doing("evaluate")?.iter();
        Ok(scores.map(|score| score.filter(|score| score.is_finite()).map(|score| sign * score)).collect())
    }
}

fn count(scores: &[Option<f64>]) -> usize {
    scores.iter().flatten().count()
}

/// `None` if there are not so many.
fn kth_best(scores: &[Option<f64>], k: usize) -> Option<f64> {
    let mut known: Vec<f64> = scores.iter().copied().flatten().collect();
    if k == 0 || k > known.len() {
        return None;
    }
    let (_, cut, _) = known.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    Some(*cut)
}

/// What had been paid when each item's score was known.
fn costs(met: &DataFrame) -> Result<Vec<u64>> {
    if met.height() == 0 {
        return Ok(Vec::new());
    }
    let evaluations = schema::nullable_u64s(met, EVALUATION)?;
    let iterations = schema::u32s(met, ITERATION)?;
    let mut paid: BTreeMap<u32, u64> = BTreeMap::new();
    for (iteration, evaluation) in iterations.iter().zip(&evaluations) {
        let most = paid.entry(*iteration).or_default();
        *most = (*most).max(evaluation.unwrap_or(0));
    }
    let mut before = BTreeMap::new();
    let mut most = 0;
    for (iteration, paid) in paid {
        before.insert(iteration, most);
        most = most.max(paid);
    }
    let cost =
        |(evaluation, iteration): (Option<u64>, u32)| evaluation.or(before.get(&iteration).copied()).unwrap_or(0);
    Ok(evaluations.into_iter().zip(iterations).map(cost).collect())
}
