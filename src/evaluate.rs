//! Recall against cost: how many of the library's best items a run found, if the scores of all items are known.

mod ground_truth;

use std::collections::BTreeMap;

use polars::prelude::*;

pub use self::ground_truth::GroundTruth;
use crate::error::{Result, WrapErr};
use crate::frame::schema::{self, EVALUATION, ITERATION, RAW_SCORE, SCORE};
use crate::log::{SearchLog, collect};

/// The default number of best items, if so many items have a score.
pub(crate) const DEFAULT_TOP: usize = 100;

/// The recall of a run after each evaluation. Returned by [`evaluate`].
#[derive(Clone, Debug)]
pub struct Evaluation {
    rows: u64,
    top: usize,
    /// The curve by cost in evaluations, ascending, from 0.
    points: Vec<(u64, CurvePoint)>,
}

/// What a run has found at some cost. Scores are in the scorer's own direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CurvePoint {
    pub(crate) found: usize,
    pub(crate) best: Option<f64>,
    pub(crate) top_sum: Option<f64>,
    /// The number of items in `top_sum`.
    pub(crate) summed: usize,
}

/// Compares a run with the true scores: how many of the `top` best items it found, after each evaluation. `None` stands for
/// 100, or for all items with a true score if those are fewer ([`Evaluation::top`]).
///
/// - An item is found if it was scored and its true score reaches the `top`-th best score. Items that tie there are
///   equally good, and at most `top` of them count.
/// - The cost is `evaluation`. Failed items cost an evaluation and are not found. Reused scores cost nothing: their items
///   are found at the cost of the iterations before.
/// - Nulls, NaN and infinite values among the true scores are ignored.
///
/// # Errors
/// A file that is not the one that was indexed (another number of rows, other values in a column that the run logged);
/// a missing column; a key that is missing or not unique; no true score, or fewer than `top`.
pub fn evaluate(log: &SearchLog, truth: &GroundTruth, top: impl Into<Option<usize>>) -> Result<Evaluation> {
    let results = collect(log.compile_results()?)?;
    let minimize = minimizes(log, &results);
    let table = truth.read(&results)?;
    let rows = truth.match_rows(log, &results, &table)?;
    let scores = truth.scores(&table, minimize)?;
    let score_count = scores.iter().flatten().count();
    if score_count == 0 {
        return Err(truth.error(format!("column `{}`: no row has a finite score", truth.score_column)));
    }
    let top = top.into().unwrap_or(DEFAULT_TOP.min(score_count));
    let cut = kth_best(&scores, top).ok_or_else(|| {
        truth.error(format!("top: expected 1 to {score_count}, the number of scores in this file, found {top}"))
    })?;

    let run_scores = schema::nullable_f64s(&results, SCORE)?;
    let scores = run_scores.into_iter().zip(&rows).map(|(score, row)| score.and(scores[*row as usize]));
    let points = curve_points(&item_costs(&results)?, scores, cut, top, minimize);
    // The file may have rows that are not in the library.
    let dataset = log.manifest().dataset.as_ref();
    Ok(Evaluation { rows: dataset.map_or(table.height() as u64, |dataset| dataset.rows), top, points })
}

/// The curve of a run by its own scores, without true scores: no item counts as found. `results` has `evaluation`,
/// `iteration` and `score` of each item.
pub(crate) fn own_curve(results: &DataFrame, top: usize, minimize: bool) -> Result<Evaluation> {
    let scores = schema::nullable_f64s(results, SCORE)?;
    let points = curve_points(&item_costs(results)?, scores.into_iter(), f64::INFINITY, top, minimize);
    Ok(Evaluation { rows: 0, top, points })
}

/// Whether smaller scores are better in the scorer's own direction.
pub(crate) fn minimizes(log: &SearchLog, results: &DataFrame) -> bool {
    log.manifest().config["score"]["direction"] == "minimize" || results.column(RAW_SCORE).is_ok()
}

/// The points of the curve at the costs at which items were scored, and at 0. An item is found if its score reaches `cut`.
fn curve_points(
    costs: &[u64],
    scores: impl Iterator<Item = Option<f64>>,
    cut: f64,
    top: usize,
    minimize: bool,
) -> Vec<(u64, CurvePoint)> {
    let mut events: BTreeMap<u64, Vec<f64>> = BTreeMap::from([(0, Vec::new())]);
    for (cost, score) in costs.iter().zip(scores) {
        events.entry(*cost).or_default().extend(score);
    }
    let (mut hits, mut point) = (0, CurvePoint::default());
    // The best scores so far, ascending, at most `top`.
    let mut best: Vec<f64> = Vec::new();
    let points = events.into_iter().map(|(cost, scores)| {
        for score in scores {
            hits += usize::from(score >= cut);
            if best.len() == top {
                if score <= best[0] {
                    continue;
                }
                best.remove(0);
            }
            best.insert(best.partition_point(|other| *other < score), score);
            point.best = best.last().copied();
            // Summed again: a running sum would keep the rounding errors of scores that have left it.
            point.top_sum = Some(best.iter().sum());
            point.summed = best.len();
        }
        let sign = if minimize { -1.0 } else { 1.0 };
        let own_direction = |value: Option<f64>| value.map(|value| sign * value);
        let (best, top_sum) = (own_direction(point.best), own_direction(point.top_sum));
        (cost, CurvePoint { found: hits.min(top), best, top_sum, summed: point.summed })
    });
    points.collect()
}

impl Evaluation {
    /// The number of best items that the recall is of.
    pub fn top(&self) -> usize {
        self.top
    }

    /// The number of items in the library; 0 if unknown.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The evaluations of the run.
    pub(crate) fn cost(&self) -> u64 {
        self.points.last().map_or(0, |(cost, _)| *cost)
    }

    /// The point of the curve at a cost, or the last one if the run cost less.
    pub(crate) fn point_at(&self, cost: u64) -> CurvePoint {
        let end = self.points.partition_point(|(paid, _)| *paid <= cost);
        self.points[..end].last().map_or(CurvePoint::default(), |(_, point)| *point)
    }

    /// One row per number of evaluations, from 0: `scored` u64 (the evaluations), `found` u64, `recall` f64 (the share of
    /// the best items that are found), `best` f64 (the best true score so far; null if none), `top_sum` f64 (the sum of the
    /// best `top` true scores so far).
    ///
    /// # Errors
    /// A frame that Polars cannot build.
    pub fn curve(&self) -> Result<DataFrame> {
        self.frame((0..=self.cost()).collect(), Vec::new())
    }

    /// The curve at budgets that are shares of the library, rounded to whole items, and at the whole cost of the run:
    /// `share`, `budget` and the columns of [`Evaluation::curve`]. Omits budgets that the run did not reach, and those of less
    /// than one item. If the run ended exactly at one of the budgets, the whole run has no row of its own.
    ///
    /// # Errors
    /// A frame that Polars cannot build.
    pub fn at(&self, shares: &[f64]) -> Result<DataFrame> {
        let all = self.cost();
        let budgets = shares.iter().map(|share| (*share, self.budget(*share)));
        let reached = budgets.filter(|(share, budget)| *budget <= all && (*budget > 0 || *share == 0.0));
        let (mut shares, mut budgets): (Vec<f64>, Vec<u64>) = reached.unzip();
        // If the run ended at a budget, that row already shows the whole run.
        if !budgets.contains(&all) {
            shares.push(if self.rows == 0 { 0.0 } else { all as f64 / self.rows as f64 });
            budgets.push(all);
        }
        let columns = vec![Column::new("share".into(), shares), Column::new("budget".into(), budgets.clone())];
        self.frame(budgets, columns)
    }

    /// A share of the library as a number of items.
    pub(crate) fn budget(&self, share: f64) -> u64 {
        (share * self.rows as f64).round() as u64
    }

    fn frame(&self, scored: Vec<u64>, mut columns: Vec<Column>) -> Result<DataFrame> {
        let points: Vec<CurvePoint> = scored.iter().map(|cost| self.point_at(*cost)).collect();
        let found: Vec<u64> = points.iter().map(|point| point.found as u64).collect();
        let recall: Vec<f64> = points.iter().map(|point| point.found as f64 / self.top as f64).collect();
        columns.push(Column::new("scored".into(), scored));
        columns.push(Column::new("found".into(), found));
        columns.push(Column::new("recall".into(), recall));
        columns.push(Column::new("best".into(), points.iter().map(|point| point.best).collect::<Vec<_>>()));
        columns.push(Column::new("top_sum".into(), points.iter().map(|point| point.top_sum).collect::<Vec<_>>()));
        DataFrame::new(points.len(), columns).wrap_err("evaluate")
    }
}

/// The `k`-th best score. `None` if there are fewer.
fn kth_best(scores: &[Option<f64>], k: usize) -> Option<f64> {
    let mut present: Vec<f64> = scores.iter().copied().flatten().collect();
    if k == 0 || k > present.len() {
        return None;
    }
    let (_, cut, _) = present.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    Some(*cut)
}

/// The evaluations of the run when each item's score arrived.
fn item_costs(results: &DataFrame) -> Result<Vec<u64>> {
    if results.height() == 0 {
        return Ok(Vec::new());
    }
    let evaluations = schema::nullable_u64s(results, EVALUATION)?;
    let iterations = schema::u32s(results, ITERATION)?;
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
