//! The recall of a run against its cost: how many of the library's best items it found, given the scores of all items.

mod ground_truth;

use std::collections::BTreeMap;

use polars::prelude::*;

pub use self::ground_truth::GroundTruth;
use crate::error::{Result, WrapErr};
use crate::frame::schema::{self, EVALUATION, ITERATION, RAW_SCORE, SCORE};
use crate::log::{SearchLog, collect};

/// The default number of best items. Fewer if fewer items have a score.
pub(crate) const DEFAULT_TOP: usize = 100;

/// The recall of a run as a function of its cost in evaluations. Returned by [`evaluate`].
#[derive(Clone, Debug)]
pub struct RecallCurve {
    rows: u64,
    top: usize,
    /// The points of the curve, each with its cost in evaluations, ascending from 0.
    points: Vec<(u64, CurvePoint)>,
}

/// The results of a run at some cost. Scores are in the scorer's own direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CurvePoint {
    /// The number of best items that are found.
    pub(crate) found: usize,
    /// The best score.
    pub(crate) best: Option<f64>,
    /// The sum of the best `top` scores.
    pub(crate) top_sum: Option<f64>,
    /// The number of items in `top_sum`.
    pub(crate) top_count: usize,
}

/// Computes how many of the `top` best items a run found after each evaluation, given the true scores. With `None`, `top` is
/// 100, or the number of items with a true score if that is smaller ([`RecallCurve::top`]).
///
/// - An item is found if it was scored and its true score is at least the `top`-th best true score. With ties there, at most
///   `top` items count as found.
/// - The cost of an item is its `evaluation`. Failed items cost an evaluation and are not found. Reused scores cost nothing:
///   their items are found at the cost of the earlier iterations.
/// - Nulls, NaN and infinite values among the true scores are ignored.
///
/// # Errors
/// A file that is not the one that was indexed (another number of rows, other values in a column that the run logged);
/// a missing column; a key that is missing or not unique; no true score, or fewer than `top`.
pub fn evaluate(log: &SearchLog, truth: &GroundTruth, top: impl Into<Option<usize>>) -> Result<RecallCurve> {
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
    let threshold = kth_best(&scores, top).ok_or_else(|| {
        truth.error(format!("top: expected 1 to {score_count}, the number of scores in this file, found {top}"))
    })?;

    let run_scores = schema::nullable_f64s(&results, SCORE)?;
    let scores = run_scores.into_iter().zip(&rows).map(|(score, row)| score.and(scores[*row as usize]));
    let points = curve_points(&item_costs(&results)?, scores, threshold, top, minimize);
    // Prefer the size of the dataset: the file may have rows that are not in the library.
    let dataset = log.manifest().dataset.as_ref();
    Ok(RecallCurve { rows: dataset.map_or(table.height() as u64, |dataset| dataset.rows), top, points })
}

/// The curve of a run from its own scores, without true scores: no item counts as found. `results` contains `evaluation`,
/// `iteration` and `score` of each item.
pub(crate) fn own_curve(results: &DataFrame, top: usize, minimize: bool) -> Result<RecallCurve> {
    let scores = schema::nullable_f64s(results, SCORE)?;
    let points = curve_points(&item_costs(results)?, scores.into_iter(), f64::INFINITY, top, minimize);
    Ok(RecallCurve { rows: 0, top, points })
}

/// Whether smaller scores are better in the scorer's own direction.
pub(crate) fn minimizes(log: &SearchLog, results: &DataFrame) -> bool {
    log.manifest().config["score"]["direction"] == "minimize" || results.column(RAW_SCORE).is_ok()
}

/// The points of the curve: at cost 0, and at each cost at which items were scored. An item is found if its score is at least
/// `threshold`.
fn curve_points(
    costs: &[u64],
    scores: impl Iterator<Item = Option<f64>>,
    threshold: f64,
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
            hits += usize::from(score >= threshold);
            if best.len() == top {
                if score <= best[0] {
                    continue;
                }
                best.remove(0);
            }
            best.insert(best.partition_point(|other| *other < score), score);
            point.best = best.last().copied();
            // Summed from scratch, because a running sum accumulates rounding errors.
            point.top_sum = Some(best.iter().sum());
            point.top_count = best.len();
        }
        let sign = if minimize { -1.0 } else { 1.0 };
        let own_direction = |value: Option<f64>| value.map(|value| sign * value);
        let (best, top_sum) = (own_direction(point.best), own_direction(point.top_sum));
        (cost, CurvePoint { found: hits.min(top), best, top_sum, top_count: point.top_count })
    });
    points.collect()
}

impl RecallCurve {
    /// The number of best items that the recall refers to.
    pub fn top(&self) -> usize {
        self.top
    }

    /// The number of items in the library; 0 if unknown.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The number of evaluations of the run.
    pub(crate) fn cost(&self) -> u64 {
        self.points.last().map_or(0, |(cost, _)| *cost)
    }

    /// The point of the curve at a cost, or the last one if the run cost less.
    pub(crate) fn point_at(&self, cost: u64) -> CurvePoint {
        let end = self.points.partition_point(|(paid, _)| *paid <= cost);
        self.points[..end].last().map_or(CurvePoint::default(), |(_, point)| *point)
    }

    /// The curve as a frame, with a row for each number of evaluations, from 0:
    ///
    /// - `scored` u64: the number of evaluations. Includes failed items, in spite of its name.
    /// - `found` u64: the number of best items found.
    /// - `recall` f64: the share of the best items found.
    /// - `best` f64: the best true score so far. Null if there is none.
    /// - `top_sum` f64: the sum of the best `top` true scores so far. Null if there is none.
    ///
    /// # Errors
    /// A frame that Polars cannot build.
    pub fn to_frame(&self) -> Result<DataFrame> {
        self.frame((0..=self.cost()).collect(), Vec::new())
    }

    /// The curve at budgets given as shares of the library, and at the total cost of the run: `share`, `budget` and the columns
    /// of [`RecallCurve::to_frame`]. Budgets are rounded to whole items. Omits budgets that the run did not reach, and those that
    /// round to 0 items, except a share of 0. If the total cost equals one of the budgets, both share a row.
    ///
    /// # Errors
    /// A frame that Polars cannot build.
    pub fn at_shares(&self, shares: &[f64]) -> Result<DataFrame> {
        let cost = self.cost();
        let budgets = shares.iter().map(|share| (*share, self.budget(*share)));
        let reached = budgets.filter(|(share, budget)| *budget <= cost && (*budget > 0 || *share == 0.0));
        let (mut shares, mut budgets): (Vec<f64>, Vec<u64>) = reached.unzip();
        // If the run ended at a budget, that row already shows the whole run.
        if !budgets.contains(&cost) {
            shares.push(if self.rows == 0 { 0.0 } else { cost as f64 / self.rows as f64 });
            budgets.push(cost);
        }
        let columns = vec![Column::new("share".into(), shares), Column::new("budget".into(), budgets.clone())];
        self.frame(budgets, columns)
    }

    /// The number of items in a share of the library, rounded.
    pub(crate) fn budget(&self, share: f64) -> u64 {
        (share * self.rows as f64).round() as u64
    }

    /// The rows of the curve at some costs, after other columns.
    fn frame(&self, costs: Vec<u64>, mut columns: Vec<Column>) -> Result<DataFrame> {
        let points: Vec<CurvePoint> = costs.iter().map(|cost| self.point_at(*cost)).collect();
        let found: Vec<u64> = points.iter().map(|point| point.found as u64).collect();
        let recall: Vec<f64> = points.iter().map(|point| point.found as f64 / self.top as f64).collect();
        columns.push(Column::new("scored".into(), costs));
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
    let (_, kth, _) = present.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    Some(*kth)
}

/// The cost of the run, in evaluations, at which each item was scored. Items with a reused score get the cost of the earlier
/// iterations.
fn item_costs(results: &DataFrame) -> Result<Vec<u64>> {
    if results.height() == 0 {
        return Ok(Vec::new());
    }
    let evaluations = schema::nullable_u64s(results, EVALUATION)?;
    let iterations = schema::u32s(results, ITERATION)?;
    let mut largest_evaluation: BTreeMap<u32, u64> = BTreeMap::new();
    for (iteration, evaluation) in iterations.iter().zip(&evaluations) {
        let largest = largest_evaluation.entry(*iteration).or_default();
        *largest = (*largest).max(evaluation.unwrap_or(0));
    }
    let mut cost_before = BTreeMap::new();
    let mut cost_so_far = 0;
    for (iteration, largest) in largest_evaluation {
        cost_before.insert(iteration, cost_so_far);
        cost_so_far = cost_so_far.max(largest);
    }
    let cost =
        |(evaluation, iteration): (Option<u64>, u32)| evaluation.or(cost_before.get(&iteration).copied()).unwrap_or(0);
    Ok(evaluations.into_iter().zip(iterations).map(cost).collect())
}
