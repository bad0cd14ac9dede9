//! How much of the best a run found, and at what cost, where the scores of all items are known.

mod truth;

use std::collections::BTreeMap;

use polars::prelude::*;

pub use self::truth::Truth;
use crate::error::{Result, WrapErr};
use crate::frame::schema::{self, EVALUATION, ITERATION, RAW_SCORE, SCORE};
use crate::log::{SearchLog, collect};

/// How many items are the best, where nothing is said and there are so many.
pub(crate) const TOP: usize = 100;

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

/// Judges a run by the true scores: which of the true `top` items it found, after how many it had paid for. Where `top` is
/// `None` they are 100, or as many as have a true score, if those are fewer ([`Evaluation::top`]).
///
/// - An item is found if it was scored and its true score reaches the `top`-th best: items that tie there are as good
///   as each other, and at most `top` count.
/// - The cost is `evaluation`. Failed items cost and are not found; scores that an earlier run paid for cost nothing,
///   and are found when the items of the iterations before are paid for.
/// - Nulls, NaN and infinite values among the true scores are no scores.
///
/// # Errors
/// A file that is not the one that was indexed (another number of rows, other values in a column that the run kept);
/// a missing column; a key that is not unique or that the file lacks; no true score, or fewer than the `top` that was
/// given.
pub fn evaluate(log: &SearchLog, truth: &Truth, top: impl Into<Option<usize>>) -> Result<Evaluation> {
    let met = collect(log.compile_results()?)?;
    let minimize = minimizes(log, &met);
    let known = truth.read(&met)?;
    let rows = truth.rows_of(log, &met, &known)?;
    let scores = truth.scores(&known, minimize)?;
    let there = scores.iter().flatten().count();
    if there == 0 {
        return Err(
            truth.refuse(format!("column `{}`: no row has a score that is a finite number", truth.score_column))
        );
    }
    let top = top.into().unwrap_or(TOP.min(there));
    let cut = kth_best(&scores, top)
        .ok_or_else(|| truth.refuse(format!("top: expected 1 to {there}, the scores there, found {top}")))?;

    let scored = schema::nullable_f64s(&met, SCORE)?;
    let scores = scored.into_iter().zip(&rows).map(|(score, row)| score.and(scores[*row as usize]));
    let states = states(&costs(&met)?, scores, cut, top, minimize);
    // What the file has beside the library's items is no part of the library.
    let dataset = log.manifest().dataset.as_ref();
    Ok(Evaluation { rows: dataset.map_or(known.height() as u64, |dataset| dataset.rows), top, states })
}

/// What a run had found after each item that it paid for by its own scores, where nobody knows the true ones: nothing
/// counts as found. `met` has `evaluation`, `iteration` and `score` of each item.
pub(crate) fn progress(met: &DataFrame, top: usize, minimize: bool) -> Result<Evaluation> {
    let scores = schema::nullable_f64s(met, SCORE)?;
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
    /// How many items are the best.
    pub fn top(&self) -> usize {
        self.top
    }

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
    /// run paid for: `share`, `budget` and the columns of [`Evaluation::curve`]. Budgets that the run did not reach, and
    /// those of less than one item, are left out.
    ///
    /// # Errors
    /// No memory for it.
    pub fn at(&self, shares: &[f64]) -> Result<DataFrame> {
        let all = self.cost();
        let budgets = shares.iter().map(|share| (*share, self.budget(*share)));
        let reached = budgets.filter(|(share, budget)| *budget <= all && (*budget > 0 || *share == 0.0));
        let whole = if self.rows == 0 { 0.0 } else { all as f64 / self.rows as f64 };
        let (shares, budgets): (Vec<f64>, Vec<u64>) = reached.chain([(whole, all)]).unzip();
        let columns = vec![Column::new("share".into(), shares), Column::new("budget".into(), budgets.clone())];
        self.frame(budgets, columns)
    }

    /// A share of the library in whole items.
    pub(crate) fn budget(&self, share: f64) -> u64 {
        (share * self.rows as f64).round() as u64
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
        DataFrame::new(states.len(), columns).wrap_err("evaluate")
    }
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
