//! Explanations of predictions: the observations that contribute most to the posterior mean of an item, and how the feature
//! groups share the distances to them.
//!
//! The posterior mean at a point p is a weighted sum of the targets z of the observations. The weights are large where an
//! observation is near and few others are near it:
//!
//! ```text
//! mean(p) = sum_i c_i         c = z * (K + diag N)^-1 k(p)         share_i = |c_i| / sum_j |c_j|
//! ```
//!
//! The mean is linear in the targets, so these sums are the whole explanation. The other form of the mean, kernels times
//! `(K + diag N)^-1 z`, has large terms of opposite signs: its five largest are 6 % of the sum instead of 17 % (500 items).

use ndarray::{ArrayView1, Axis};
use polars::prelude::{Column, DataFrame};

use super::acquisition::ChosenBy;
use super::embeddings::finite_embeddings;
use super::observations::Observations;
use super::posterior::{FittedGp, Posterior};
use super::ranks::argsort_descending;
use super::vectorizer::Vectorizer;
use crate::error::{Result, WrapErr};
use crate::frame::schema::{
    self, CHOSEN_BY, CONTRIBUTION, DB_IDX, DEVIATION, DISTANCE, DISTANCE_SHARE, NEIGHBOUR_IDX, NEIGHBOUR_SCORE,
    POSTERIOR_MEAN, PREDICTED, SHARE,
};

/// The number of observations that an explanation names. The others are one row together.
const NEIGHBOURS: usize = 5;

/// Explains items by a model, or says with a row of nulls that there is none yet. `groups` are the names of the feature groups.
///
/// # Errors
/// Embeddings that are not finite.
pub(super) fn explain(
    model: Option<(&Posterior, &Vectorizer)>,
    groups: &[String],
    observations: &Observations,
    items: &DataFrame,
) -> Result<DataFrame> {
    let ids = schema::u64s(items, DB_IDX)?;
    let Some((posterior, vectorizer)) = model else {
        return into_frame(&ids.iter().map(|id| Row { db_idx: *id, ..Row::default() }).collect::<Vec<_>>(), groups);
    };
    let chosen_by = schema::column("explain", items, CHOSEN_BY)?.str().wrap_err("explain")?;
    let points = posterior.points(vectorizer.vectors(&ids, finite_embeddings(items)?.view()).view()).mapv(f64::from);
    let group_of_component = posterior.groups(&vectorizer.groups());
    // Pending evaluations come after the observations. Their fantasies are sums of the observations, so the mean is the same
    // without them.
    let with_observed = |process| -> Result<_> { Ok((process, FittedGp::without_pending(process)?)) };
    let all = with_observed(&posterior.all)?;
    let outside = posterior.outside.as_ref().map(with_observed).transpose()?;
    let mut rows = Vec::new();
    for ((id, point), chosen_by) in ids.iter().zip(points.rows()).zip(chosen_by.iter()) {
        let is_outside = chosen_by == Some(ChosenBy::Outside.name());
        let (process, observed) = outside.as_ref().filter(|_| is_outside).unwrap_or(&all);
        let group_shares = |other: ArrayView1<'_, f64>| group_shares(point, other, &group_of_component, groups.len());
        let at = point.insert_axis(Axis(0));
        let (mean, covariance) = process.gp.posterior(at);
        let prediction = process.predict(mean[0], covariance[[0, 0]]);
        let item = Row {
            db_idx: *id,
            predicted: prediction.map(|prediction| prediction.mean),
            deviation: prediction.map(|prediction| prediction.deviation),
            posterior_mean: Some(mean[0]),
            ..Row::default()
        };
        let contributions = observed.contributions(at);
        let sizes: Vec<f64> = contributions.iter().map(|contribution| contribution.abs()).collect();
        let total = Some(sizes.iter().sum::<f64>()).filter(|total| *total > 0.0);
        let share = |size: f64| total.map(|total| size / total);
        let mut order = argsort_descending(&sizes);
        let others = order.split_off(order.len().min(NEIGHBOURS));
        for position in order {
            let (distance, distance_shares) = group_shares(process.gp.points().row(position));
            rows.push(Row {
                neighbour_idx: Some(process.ids[position]),
                neighbour_score: observations.score(process.ids[position]),
                distance: Some(distance),
                contribution: Some(contributions[position]),
                share: share(sizes[position]),
                distance_shares,
                ..item.clone()
            });
        }
        if !others.is_empty() {
            let contribution = Some(others.iter().map(|position| contributions[*position]).sum());
            let share = share(others.iter().map(|position| sizes[*position]).sum());
            rows.push(Row { contribution, share, ..item });
        }
    }
    into_frame(&rows, groups)
}

/// The squared distance of two points, and the share of each feature group in it. No shares if the points are the same.
fn group_shares(
    a: ArrayView1<'_, f64>,
    b: ArrayView1<'_, f64>,
    group_of_component: &[usize],
    groups: usize,
) -> (f64, Option<Vec<f64>>) {
    let mut squared = vec![0.0; groups];
    for ((a, b), group) in a.iter().zip(b).zip(group_of_component) {
        squared[*group] += (a - b) * (a - b);
    }
    let distance: f64 = squared.iter().sum();
    squared.iter_mut().for_each(|squared| *squared /= distance);
    (distance, Some(squared).filter(|_| distance > 0.0))
}

/// A row of an explanation: an item, and what an observation contributes to its prediction.
#[derive(Clone, Default)]
struct Row {
    db_idx: u64,
    predicted: Option<f64>,
    deviation: Option<f64>,
    posterior_mean: Option<f64>,
    /// `None` for all other observations together.
    neighbour_idx: Option<u64>,
    neighbour_score: Option<f64>,
    distance: Option<f64>,
    contribution: Option<f64>,
    share: Option<f64>,
    distance_shares: Option<Vec<f64>>,
}

fn into_frame(rows: &[Row], groups: &[String]) -> Result<DataFrame> {
    let numbers = |name: &str, number: &dyn Fn(&Row) -> Option<f64>| {
        Column::new(name.into(), rows.iter().map(number).collect::<Vec<_>>())
    };
    let mut columns = vec![
        Column::new(DB_IDX.into(), rows.iter().map(|row| row.db_idx).collect::<Vec<_>>()),
        numbers(PREDICTED, &|row| row.predicted),
        numbers(DEVIATION, &|row| row.deviation),
        numbers(POSTERIOR_MEAN, &|row| row.posterior_mean),
        Column::new(NEIGHBOUR_IDX.into(), rows.iter().map(|row| row.neighbour_idx).collect::<Vec<_>>()),
        numbers(NEIGHBOUR_SCORE, &|row| row.neighbour_score),
        numbers(CONTRIBUTION, &|row| row.contribution),
        numbers(SHARE, &|row| row.share),
        numbers(DISTANCE, &|row| row.distance),
    ];
    columns.extend(groups.iter().enumerate().map(|(group, name)| {
        let share = |row: &Row| row.distance_shares.as_ref().map(|shares| shares[group]);
        numbers(&format!("{DISTANCE_SHARE}{name}"), &share)
    }));
    DataFrame::new(rows.len(), columns).wrap_err("explain")
}
