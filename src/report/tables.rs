//! Tables of a report: comparison of runs, reasons of failures, times, versions.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::predictions;
use super::run_data::RunData;
use crate::database::DatasetIdentity;
use crate::error::Result;
use crate::evaluate::RecallCurve;
use crate::frame::text::{format_number, format_timestamp};
use crate::log::StageTimes;

/// A table as the template reads it. The first cell of a row is its name.
#[derive(Serialize)]
pub(super) struct Table {
    pub id: &'static str,
    pub title: &'static str,
    pub caption: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// The tables that compare several runs.
///
/// # Errors
/// Files of a run that cannot be read.
pub(super) fn comparison_tables(runs: &[RunData]) -> Result<Vec<Table>> {
    if runs.len() < 2 {
        return Ok(Vec::new());
    }
    Ok([comparison(runs)].into_iter().chain(differences(runs)).chain(predictions::table(runs)?).collect())
}

/// The tables of reasons, times and versions.
pub(super) fn detail_tables(runs: &[RunData]) -> Vec<Table> {
    reasons(runs).into_iter().chain(times(runs)).chain([versions(runs)]).collect()
}

/// The name of a row, and its value for a run.
type Row<'a> = (String, Box<dyn Fn(&RunData) -> String + 'a>);

fn row<'a>(name: impl Into<String>, value: impl Fn(&RunData) -> String + 'a) -> Row<'a> {
    (name.into(), Box::new(value))
}

/// A table with a column for each run.
fn by_run(id: &'static str, title: &'static str, caption: &str, runs: &[RunData], rows: Vec<Row<'_>>) -> Table {
    let rows = rows.iter().map(|(name, value)| [name.clone()].into_iter().chain(runs.iter().map(value)).collect());
    let columns = [String::new()].into_iter().chain(runs.iter().map(|run| run.name.clone())).collect();
    Table { id, title, caption: caption.into(), columns, rows: rows.collect() }
}

/// Results and cost of each run.
fn comparison(runs: &[RunData]) -> Table {
    let or_none = |value: Option<f64>| value.map_or_else(none, format_number);
    let last = |run: &RunData| run.own_curve.point_at(u64::MAX);
    let mut rows = vec![
        row("rule", RunData::rule),
        row("evaluations", |run| run.counts.evaluations.to_string()),
        row("items scored", |run| run.counts.newly_scored().to_string()),
        row("best score", |run| or_none(last(run).best)),
    ];
    if let Some(summed) = runs.first().map(|run| run.own_curve.top()) {
        let sum = move |run: &RunData| last(run).top_sum.filter(|_| last(run).top_count == summed);
        rows.push(row(format!("sum of the best {summed}"), move |run| or_none(sum(run))));
    }
    if let Some(top) = runs.iter().find_map(|run| Some(run.true_curve.as_ref()?.top())) {
        let share = |curve: &RecallCurve| curve.point_at(u64::MAX).found as f64 / curve.top() as f64;
        rows.push(row(format!("share of the true best {top}"), move |run| or_none(run.true_curve.as_ref().map(share))));
    }
    let hits = |run: &RunData| run.log.manifest().ended.as_ref().and_then(|ended| ended.hits);
    if runs.iter().any(|run| hits(run).is_some()) {
        rows.push(row("hits", move |run| hits(run).map_or_else(none, |hits| hits.found.to_string())));
    }
    rows.extend([
        row("iterations", |run| run.log.iterations().len().to_string()),
        row("reused", |run| run.counts.reused.to_string()),
        row("rejected", |run| run.counts.rejected.to_string()),
        row("failed", |run| run.counts.failed.to_string()),
    ]);
    by_run("compared", "The runs", "Results and cost of each run.", runs, rows)
}

/// The settings in which the runs differ, or `None` if there are none.
fn differences(runs: &[RunData]) -> Option<Table> {
    let settings: Vec<_> = runs.iter().map(|run| settings(&run.log.manifest().config)).collect();
    let names: BTreeSet<&String> = settings.iter().flat_map(BTreeMap::keys).collect();
    let differs = |name: &&String| settings.iter().any(|of_run| of_run.get(*name) != settings[0].get(*name));
    let rows: Vec<Row<'_>> = names
        .into_iter()
        .filter(differs)
        .map(|name| {
            let value = |run: &RunData| self::settings(&run.log.manifest().config).remove(name);
            row(name.as_str(), move |run| value(run).unwrap_or_else(|| "not set".into()))
        })
        .collect();
    let caption = "Settings that differ between the runs.";
    (!rows.is_empty()).then(|| by_run("differences", "Different settings", caption, runs, rows))
}

/// The values of a configuration by their dotted path, without nulls.
fn settings(config: &Value) -> BTreeMap<String, String> {
    fn collect(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
        match value {
            Value::Null => {}
            Value::Object(fields) => {
                for (name, value) in fields {
                    collect(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, value, found);
                }
            }
            value => drop(found.insert(path.into(), value.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    collect("", config, &mut found);
    found
}

/// Why items have no score, or `None` if all have one.
fn reasons(runs: &[RunData]) -> Option<Table> {
    const ROWS: usize = 20;
    const TEXT: usize = 300;
    let [run] = runs else { return None };
    let reasons = &run.counts.reasons;
    let rows = reasons.iter().take(ROWS).map(|(outcome, reason, items)| {
        vec![outcome.to_string(), reason.chars().take(TEXT).collect(), items.to_string()]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let caption = match reasons.len().saturating_sub(ROWS) {
        0 => "Why items have no score.".to_string(),
        more => format!("Why items have no score. {more} rarer reasons are not shown."),
    };
    let columns = ["outcome", "reason", "items"].map(String::from).to_vec();
    (!rows.is_empty()).then_some(Table { id: "reasons", title: "Items without a score", caption, columns, rows })
}

/// The time of each stage, or `None` if no run recorded it.
fn times(runs: &[RunData]) -> Option<Table> {
    runs.iter().find_map(|run| run.log.times())?;
    let rounded = |value: f64, parts: f64| format_number((value * parts).round() / parts);
    let rows = StageTimes::default().stages().into_iter().enumerate().map(|(at, (name, _))| {
        row(name, move |run| {
            let Some(times) = run.log.times() else { return "not recorded".into() };
            let stages = times.stages();
            let (seconds, total) = (stages[at].1, stages.iter().map(|(_, seconds)| seconds).sum::<f64>());
            format!("{} s ({} %)", rounded(seconds, 1000.0), rounded(100.0 * seconds / total.max(1e-9), 10.0))
        })
    });
    let caption = "Time of each stage, summed over all iterations.";
    Some(by_run("times", "Time per stage", caption, runs, rows.collect()))
}

/// The program versions, dataset and dates of each run.
fn versions(runs: &[RunData]) -> Table {
    let rows = vec![
        row("uphill", |run| run.log.manifest().uphill_version.clone()),
        row("run folder format", |run| run.log.manifest().format_version.to_string()),
        row("seed", |run| run.log.manifest().seed.to_string()),
        dataset_row("dataset", |dataset| dataset.uri.clone()),
        dataset_row("dataset version", |dataset| dataset.version.to_string()),
        row("dataset tag", |run| run.log.manifest().version_tag.clone().unwrap_or_else(none)),
        dataset_row("items", |dataset| dataset.rows.to_string()),
        dataset_row("dimensions", |dataset| dataset.dim.to_string()),
        dataset_row("metric", |dataset| dataset.metric.to_string()),
        dataset_row("index", |dataset| dataset.index.as_ref().map_or_else(none, |index| index.kind.clone())),
        dataset_row("library id", |dataset| dataset.library_id.clone().unwrap_or_else(none)),
        row("started", |run| format_timestamp(run.log.manifest().started)),
        row("ended", |run| match &run.log.manifest().ended {
            Some(ended) => format!("{}: {ended}", format_timestamp(ended.at)),
            None => run.log.manifest().status(),
        }),
    ];
    by_run("versions", "Versions", "Program, dataset and dates.", runs, rows)
}

fn none() -> String {
    "none".into()
}

/// A row with a property of the dataset.
fn dataset_row(name: &str, value: impl Fn(&DatasetIdentity) -> String + 'static) -> Row<'_> {
    row(name, move |run| run.log.manifest().dataset.as_ref().map_or_else(none, &value))
}
