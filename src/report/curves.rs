//! Charts of best scores and recall against cost, and of the scores of each iteration. Runs that differ only in their
//! seeds form a group: one line with a band.

use polars::prelude::*;
use serde::Serialize;
use serde_json::Value;

use super::chart::{Band, Chart, Line};
use super::run_data::RunData;
use crate::config::remove_execution_keys;
use crate::error::{Result, WrapErr};
use crate::frame::schema::{ITERATION, SCORE};
use crate::log::collect;

/// Maximum number of points of a line.
const MAX_POINTS: u64 = 400;

/// Maximum number of points of the chart of iterations.
const MAX_STEPS: u32 = 200;

/// Runs that differ only in their seeds.
pub(super) struct RunGroup<'a> {
    pub label: String,
    pub runs: Vec<&'a RunData>,
    class: String,
}

#[derive(Serialize)]
pub(super) struct LegendEntry {
    pub label: String,
    pub class: String,
}

/// Groups runs by library and configuration, except the seed, in the order given.
pub(super) fn group_runs(runs: &[RunData]) -> Vec<RunGroup<'_>> {
    let mut groups: Vec<((String, Value), Vec<&RunData>)> = Vec::new();
    for run in runs {
        let mut config = run.log.manifest().config.clone();
        // Runs without a run file cannot be compared, so each is a group.
        match config.as_object_mut() {
            Some(sections) => drop(sections.remove("seed")),
            None => config = Value::from(run.log.path().to_string_lossy()),
        }
        remove_execution_keys(&mut config);
        let key = (run.library_key(), config);
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, same)) => same.push(run),
            None => groups.push((key, vec![run])),
        }
    }
    let groups = groups.into_iter().enumerate().map(|(position, (_, runs))| {
        let label = match runs.as_slice() {
            [run] => run.name.clone(),
            runs => format!("{} and {} more seeds", runs[0].name, runs.len() - 1),
        };
        // Six colours, then the same colours with dashed lines.
        let class = format!("s{}{}", position % 6, if position % 12 < 6 { "" } else { " dashed" });
        RunGroup { label, runs, class }
    });
    groups.collect()
}

impl RunGroup<'_> {
    pub fn legend_entry(&self) -> LegendEntry {
        LegendEntry { label: self.label.clone(), class: self.class.clone() }
    }

    /// The line of `value` against cost (the median of several runs) and, for several runs, the band from minimum to
    /// maximum. A run keeps its last value after its end.
    fn line(&self, value: &dyn Fn(&RunData, u64) -> Option<f64>) -> (Line, Option<Band>) {
        let (last, mut points, mut band) = (self.last_cost(), Vec::new(), Vec::new());
        let count = last.clamp(1, MAX_POINTS);
        let mut costs: Vec<u64> =
            (0..=count).map(|point| (last as u128 * point as u128 / count as u128) as u64).collect();
        costs.dedup();
        for cost in costs {
            let mut values: Vec<f64> = self.runs.iter().filter_map(|run| value(run, cost)).collect();
            values.sort_by(f64::total_cmp);
            let Some((min, max)) = values.first().zip(values.last()) else { continue };
            points.push((cost as f64, median(&values)));
            band.push((cost as f64, *min, *max));
        }
        let line = Line { class: self.class.clone(), label: self.label.clone(), points };
        let band = Band { class: self.class.clone(), points: band };
        (line, (self.runs.len() > 1).then_some(band))
    }

    /// The largest cost of the runs.
    fn last_cost(&self) -> u64 {
        self.runs.iter().map(|run| run.own_curve.cost()).max().unwrap_or(0)
    }
}

fn median(ascending: &[f64]) -> f64 {
    let middle = ascending.len() / 2;
    match ascending.len() % 2 {
        1 => ascending[middle],
        // Halved first: their sum may overflow.
        _ => ascending[middle - 1] / 2.0 + ascending[middle] / 2.0,
    }
}

/// The charts against cost: the best score, the sum of the best scores and, with true scores, the share of the best items
/// found.
pub(super) fn charts(groups: &[RunGroup<'_>], score: &str) -> Vec<Chart> {
    let runs = || groups.iter().flat_map(|group| &group.runs);
    let all_scored = runs().all(|run| run.counts.evaluations == run.counts.newly_scored());
    let x_label = if all_scored { "items scored" } else { "evaluations" };
    let chart = |title, y_label: String, caption: String, value: &dyn Fn(&RunData, u64) -> Option<f64>| {
        let curves = groups.iter().map(|group| group.line(value));
        let (lines, bands): (Vec<_>, Vec<_>) = curves.unzip();
        let bands = bands.into_iter().flatten().collect();
        Chart { title, caption, x_label, y_label, bands, lines, is_stepped: true, ..Chart::default() }
    };
    let seeds = match groups.iter().any(|group| group.runs.len() > 1) {
        true => " Lines are the median over the seeds, bands the range.",
        false => "",
    };
    let best = |run: &RunData, cost| run.own_curve.point_at(cost).best;
    let mut charts = vec![chart("Best score", score.into(), format!("Best {score} so far.{seeds}"), &best)];
    // A sum of fewer items would only show their number.
    let sum = |run: &RunData, cost| {
        let reached = run.own_curve.point_at(cost);
        reached.top_sum.filter(|_| reached.top_count == run.own_curve.top())
    };
    let summed = runs().next().map_or(0, |run| run.own_curve.top());
    // The sum of one item is the best score.
    if summed > 1 && runs().any(|run| sum(run, u64::MAX).is_some()) {
        charts.push(chart(
            "Sum of the best",
            format!("sum of the best {summed}"),
            format!("Sum of the best {summed} scores so far. The line starts when {summed} items have a score.{seeds}"),
            &sum,
        ));
    } else if summed > 1 {
        charts[0].caption.push_str(&format!(" There is no sum of the best {summed}: no run has {summed} scores."));
    }
    let Some((rows, top)) = runs().find_map(|run| run.true_curve.as_ref()).map(|found| (found.rows(), found.top()))
    else {
        return charts;
    };
    let share = |run: &RunData, cost| Some(run.true_curve.as_ref()?.point_at(cost).found as f64 / top as f64);
    let caption =
        format!("Share of the true best {top} items of the library that was found.{seeds} Dashed: random search.");
    let mut recall = chart("Share of the true best", format!("share of the true best {top}"), caption, &share);
    recall.y_range = Some((0.0, 1.0));
    let last = groups.iter().map(RunGroup::last_cost).max().unwrap_or(0) as f64;
    let at_random = vec![(0.0, 0.0), (last, last / rows.max(1) as f64)];
    recall.lines.push(Line { class: "random".into(), label: "random search".into(), points: at_random });
    // Random search is a straight line, and the other lines have enough points.
    recall.is_stepped = false;
    charts.push(recall);
    charts
}

/// The chart of the scores of each iteration: median, quartiles and range. If there are many iterations, several share a
/// point.
pub(super) fn iterations(run: &RunData, score: &str) -> Result<Option<Chart>> {
    let (Some(results), Some(last)) = (run.log.scan_results()?, run.log.iterations().last().copied()) else {
        return Ok(None);
    };
    let width = last / MAX_STEPS + 1;
    let quantile = |share: f64, name: &str| col(SCORE).quantile(lit(share), QuantileMethod::Linear).alias(name);
    let query = results
        .filter(col(SCORE).is_not_null())
        .select([(col(ITERATION) / lit(width)).alias("step"), col(SCORE)])
        .group_by([col("step")])
        .agg([
            col(SCORE).min().alias("min"),
            quantile(0.25, "low"),
            quantile(0.5, "middle"),
            quantile(0.75, "high"),
            col(SCORE).max().alias("max"),
        ])
        .sort(["step"], SortMultipleOptions::default());
    let bands = collect(query)?;
    if bands.height() == 0 {
        return Ok(None);
    }
    let values = |name: &str| -> Result<Vec<f64>> {
        let column = bands.column(name).and_then(|column| column.cast(&DataType::Float64)).wrap_err(name)?;
        Ok(column.f64().wrap_err(name)?.iter().map(|value| value.unwrap_or(f64::NAN)).collect())
    };
    let at: Vec<f64> = values("step")?.into_iter().map(|step| step * f64::from(width)).collect();
    let raw = |name: &str| -> Result<Vec<f64>> { Ok(values(name)?.into_iter().map(|score| run.raw(score)).collect()) };
    let band = |class: &str, low: &str, high: &str| -> Result<Band> {
        let points = at.iter().zip(raw(low)?).zip(raw(high)?).map(|((at, low), high)| (*at, low, high));
        Ok(Band { class: class.into(), points: points.collect() })
    };
    let points = at.iter().copied().zip(raw("middle")?).collect();
    let steps = if width > 1 { format!(" Each point is {width} iterations.") } else { String::new() };
    Ok(Some(Chart {
        title: "Scores of each iteration",
        caption: format!("Scores of the items of each iteration: median, middle half and range.{steps}"),
        x_label: "iteration",
        y_label: score.into(),
        bands: vec![band("s0 range", "min", "max")?, band("s0", "low", "high")?],
        lines: vec![Line { class: "s0".into(), label: "median".into(), points }],
        ..Chart::default()
    }))
}
