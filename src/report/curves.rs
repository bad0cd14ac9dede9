//! What was found against items scored, and the scores of each iteration. Runs of one recipe that differ in their seeds
//! are one line with a band.

use polars::prelude::*;
use serde::Serialize;
use serde_json::Value;

use super::chart::{Band, Chart, Line};
use super::told::Told;
use crate::config::remove_execution_keys;
use crate::error::{Result, WrapErr};
use crate::frame::schema::{ITERATION, SCORE};
use crate::log::collect;

/// Places at which a line has a point.
const PLACES: u64 = 400;

/// Iterations that the bands tell apart.
const STEPS: u32 = 200;

/// Runs of one recipe.
pub(super) struct Group<'a> {
    pub label: String,
    pub runs: Vec<&'a Told>,
    class: String,
}

#[derive(Serialize)]
pub(super) struct Legend {
    pub label: String,
    pub class: String,
}

/// The runs by recipe, in the order given.
pub(super) fn groups(runs: &[Told]) -> Vec<Group<'_>> {
    let mut groups: Vec<((String, Value), Vec<&Told>)> = Vec::new();
    for run in runs {
        let mut recipe = run.log.manifest().config.clone();
        // Runs without a run file may be anything.
        match recipe.as_object_mut() {
            Some(sections) => drop(sections.remove("seed")),
            None => recipe = Value::from(run.log.path().to_string_lossy()),
        }
        remove_execution_keys(&mut recipe);
        let recipe = (run.library_key(), recipe);
        match groups.iter_mut().find(|(other, _)| *other == recipe) {
            Some((_, same)) => same.push(run),
            None => groups.push((recipe, vec![run])),
        }
    }
    let groups = groups.into_iter().enumerate().map(|(position, (_, runs))| {
        let label = match runs.as_slice() {
            [run] => run.name.clone(),
            runs => format!("{} and {} more seeds", runs[0].name, runs.len() - 1),
        };
        // Six colours, then the same as dashes.
        let class = format!("s{}{}", position % 6, if position % 12 < 6 { "" } else { " dashed" });
        Group { label, runs, class }
    });
    groups.collect()
}

impl Group<'_> {
    pub fn legend(&self) -> Legend {
        Legend { label: self.label.clone(), class: self.class.clone() }
    }

    /// The line and, of several runs, the band of what `value` says was reached at each cost. A run that has ended stays
    /// where it ended.
    fn line(&self, value: &dyn Fn(&Told, u64) -> Option<f64>) -> (Line, Option<Band>) {
        let (last, mut points, mut band) = (self.last(), Vec::new(), Vec::new());
        let places = last.clamp(1, PLACES);
        let mut costs: Vec<u64> =
            (0..=places).map(|place| (last as u128 * place as u128 / places as u128) as u64).collect();
        costs.dedup();
        for cost in costs {
            let mut values: Vec<f64> = self.runs.iter().filter_map(|run| value(run, cost)).collect();
            values.sort_by(f64::total_cmp);
            let Some((least, most)) = values.first().zip(values.last()) else { continue };
            points.push((cost as f64, median(&values)));
            band.push((cost as f64, *least, *most));
        }
        let line = Line { class: self.class.clone(), label: self.label.clone(), points };
        let band = Band { class: self.class.clone(), points: band };
        (line, (self.runs.len() > 1).then_some(band))
    }

    fn last(&self) -> u64 {
        self.runs.iter().map(|run| run.progress.cost()).max().unwrap_or(0)
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

/// The best score, the sum of the best, and the share found where the truth is known, against items scored.
pub(super) fn charts(groups: &[Group<'_>], score: &str) -> Vec<Chart> {
    let runs = || groups.iter().flat_map(|group| &group.runs);
    let all_scored = runs().all(|run| run.counts.paid == run.counts.scored_anew());
    let x_label = if all_scored { "items scored" } else { "evaluations" };
    let chart = |title, y_label: String, caption: String, value: &dyn Fn(&Told, u64) -> Option<f64>| {
        let drawn = groups.iter().map(|group| group.line(value));
        let (lines, bands): (Vec<_>, Vec<_>) = drawn.unzip();
        let bands = bands.into_iter().flatten().collect();
        Chart { title, caption, x_label, y_label, bands, lines, steps: true, at_least: None }
    };
    let seeds = match groups.iter().any(|group| group.runs.len() > 1) {
        true => " The line is the median of the seeds, the band goes from the least to the most of them.",
        false => "",
    };
    let best = |run: &Told, cost| run.progress.point_at(cost).best;
    let mut charts = vec![chart("Best score", score.into(), format!("The best {score} so far.{seeds}"), &best)];
    // Of fewer items a sum says how many there are.
    let sum = |run: &Told, cost| {
        let reached = run.progress.point_at(cost);
        reached.top_sum.filter(|_| reached.summed == run.progress.top())
    };
    let summed = runs().next().map_or(0, |run| run.progress.top());
    // Of one it is the best score.
    if summed > 1 && runs().any(|run| sum(run, u64::MAX).is_some()) {
        charts.push(chart(
            "Sum of the best",
            format!("sum of the best {summed}"),
            format!("The sum of the best {summed} so far, once there are so many.{seeds}"),
            &sum,
        ));
    } else if summed > 1 {
        charts[0].caption.push_str(&format!(" There is no sum of the best {summed}: no run has so many scores."));
    }
    let Some((rows, top)) = runs().find_map(|run| run.found.as_ref()).map(|found| (found.rows(), found.top())) else {
        return charts;
    };
    let share = |run: &Told, cost| Some(run.found.as_ref()?.point_at(cost).found as f64 / top as f64);
    let caption =
        format!("The share of the library's true best {top} that was found.{seeds} Dashed: scoring at random.");
    let mut found = chart("Share of the true best", format!("share of the true best {top}"), caption, &share);
    found.at_least = Some((0.0, 1.0));
    let last = groups.iter().map(Group::last).max().unwrap_or(0) as f64;
    let at_random = vec![(0.0, 0.0), (last, last / rows.max(1) as f64)];
    found.lines.push(Line { class: "chance".into(), label: "at random".into(), points: at_random });
    // Chance is no stairs, and there are points enough to see no difference for the others.
    found.steps = false;
    charts.push(found);
    charts
}

/// The scores of what each iteration met: all, the middle half, the median. Many iterations share a step.
pub(super) fn iterations(run: &Told, score: &str) -> Result<Option<Chart>> {
    let (Some(results), Some(last)) = (run.log.scan_results()?, run.log.iterations().last().copied()) else {
        return Ok(None);
    };
    let width = last / STEPS + 1;
    let quantile = |share: f64, name: &str| col(SCORE).quantile(lit(share), QuantileMethod::Linear).alias(name);
    let query = results
        .filter(col(SCORE).is_not_null())
        .select([(col(ITERATION) / lit(width)).alias("step"), col(SCORE)])
        .group_by([col("step")])
        .agg([
            col(SCORE).min().alias("least"),
            quantile(0.25, "low"),
            quantile(0.5, "middle"),
            quantile(0.75, "high"),
            col(SCORE).max().alias("most"),
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
        caption: format!("What each iteration met: the median, the middle half and all of it.{steps}"),
        x_label: "iteration",
        y_label: score.into(),
        bands: vec![band("s0 wide", "least", "most")?, band("s0", "low", "high")?],
        lines: vec![Line { class: "s0".into(), label: "median".into(), points }],
        ..Chart::default()
    }))
}
