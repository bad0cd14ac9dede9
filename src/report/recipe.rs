//! What a run was asked: its run file, what made it, how runs differ.

use serde::Serialize;
use serde_json::Value;

use super::told::Told;
use crate::plain::{instant, number};

/// Names, and a value of each for each run.
#[derive(Serialize)]
pub(super) struct Table {
    pub id: &'static str,
    pub title: &'static str,
    pub caption: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// How a run is made again.
#[derive(Serialize)]
pub(super) struct Recipe {
    name: String,
    /// Of the runs that are alike but for them.
    seeds: String,
    /// The run file; as JSON, where TOML cannot say it.
    file: Option<String>,
    file_name: &'static str,
    command: &'static str,
}

impl Recipe {
    /// Of runs that differ in their seeds.
    pub fn of(runs: &[&Told]) -> Self {
        let run = runs[0];
        let seeds: Vec<String> = runs[1..].iter().map(|run| run.log.manifest().seed.to_string()).collect();
        let config = &run.log.manifest().config;
        let toml = || toml::to_string_pretty(&without_nulls(config)?).ok();
        let (file, file_name) = match config {
            Value::Null => (None, "run.toml"),
            config => match toml() {
                Some(text) => (Some(text), "run.toml"),
                None => (serde_json::to_string_pretty(config).ok(), "run.json"),
            },
        };
        let by_hand = config["score"]["by_hand"] == true;
        let command = if by_hand { "uphill ask run.toml --out again" } else { "uphill search run.toml --out again" };
        Recipe { name: run.name.clone(), seeds: seeds.join(", "), file, file_name, command }
    }
}

/// TOML has no nulls: what is not there is not set.
fn without_nulls(value: &Value) -> Option<toml::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(truth) => (*truth).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().filter(|_| number.is_f64())?.into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => toml::Value::Array(values.iter().filter_map(without_nulls).collect()),
        Value::Object(fields) => {
            let fields = fields.iter().filter_map(|(name, value)| Some((name.clone(), without_nulls(value)?)));
            let fields: toml::Table = fields.collect();
            // A section without a key says nothing.
            return (!fields.is_empty()).then_some(toml::Value::Table(fields));
        }
    })
}

/// What made each run: programs, dataset, times.
pub(super) fn versions(runs: &[Told]) -> Table {
    let rows: [(&str, &dyn Fn(&Told) -> String); 13] = [
        ("uphill", &|run| run.log.manifest().uphill_version.clone()),
        ("format of the run folder", &|run| run.log.manifest().format_version.to_string()),
        ("seed", &|run| run.log.manifest().seed.to_string()),
        ("dataset", &|run| of_dataset(run, |dataset| dataset.uri.clone())),
        ("version of it", &|run| of_dataset(run, |dataset| dataset.version.to_string())),
        ("kept under the tag", &|run| run.log.manifest().version_tag.clone().unwrap_or_else(none)),
        ("items", &|run| of_dataset(run, |dataset| dataset.rows.to_string())),
        ("dimensions", &|run| of_dataset(run, |dataset| dataset.dim.to_string())),
        ("metric", &|run| of_dataset(run, |dataset| dataset.metric.to_string())),
        ("index", &|run| {
            of_dataset(run, |dataset| {
                dataset.index.as_ref().map_or("none: searches are exact".into(), |index| index.kind.clone())
            })
        }),
        ("library id", &|run| of_dataset(run, |dataset| dataset.library_id.clone().unwrap_or_else(none))),
        ("started", &|run| instant(run.log.manifest().started)),
        ("ended", &|run| {
            run.log
                .manifest()
                .ended
                .as_ref()
                .map_or_else(|| NOT_ENDED.into(), |ended| format!("{}: {}", instant(ended.at), ended.reason))
        }),
    ];
    let rows = rows.iter().map(|(name, value)| [name.to_string()].into_iter().chain(runs.iter().map(value)).collect());
    Table {
        id: "versions",
        title: "Versions",
        caption: "What made it.".into(),
        columns: heads("", runs),
        rows: rows.collect(),
    }
}

pub(super) const NOT_ENDED: &str = "not ended: it goes on, or was killed";

fn none() -> String {
    "none".into()
}

fn of_dataset(run: &Told, value: impl Fn(&crate::database::Identity) -> String) -> String {
    run.log.manifest().dataset.as_ref().map_or_else(none, value)
}

fn heads(first: &str, runs: &[Told]) -> Vec<String> {
    [first.to_string()].into_iter().chain(runs.iter().map(|run| run.name.clone())).collect()
}

/// What was found in each run.
pub(super) fn comparison(runs: &[Told], top: usize) -> Table {
    let or_none = |value: Option<f64>| value.map_or_else(none, number);
    let last = |run: &Told| run.progress.reached(u64::MAX);
    let rows: Vec<(String, Box<dyn Fn(&Told) -> String>)> = vec![
        ("rule".into(), Box::new(|run| run.rule())),
        ("items scored".into(), Box::new(|run| run.counts.paid.to_string())),
        ("best score".into(), Box::new(move |run| or_none(last(run).best))),
        (format!("sum of the best {top}"), Box::new(move |run| or_none(last(run).top_sum))),
        (
            format!("share of the true best {top}"),
            Box::new(move |run| {
                or_none(run.found.as_ref().map(|found| found.reached(u64::MAX).found as f64 / top as f64))
            }),
        ),
        ("iterations".into(), Box::new(|run| run.log.iterations().len().to_string())),
        ("reused".into(), Box::new(|run| run.counts.reused.to_string())),
        ("rejected".into(), Box::new(|run| run.counts.rejected.to_string())),
        ("failed".into(), Box::new(|run| run.counts.failed.to_string())),
    ];
    let told = rows.iter().filter(|(name, _)| !name.starts_with("share") || runs.iter().any(|run| run.found.is_some()));
    let rows = told.map(|(name, value)| [name.clone()].into_iter().chain(runs.iter().map(value)).collect());
    Table {
        id: "compared",
        title: "The runs",
        caption: "What each run found, and what it cost.".into(),
        columns: heads("", runs),
        rows: rows.collect(),
    }
}

/// The settings in which runs differ; `None` if they do not.
pub(super) fn differences(runs: &[Told]) -> Option<Table> {
    let mut names: Vec<String> = Vec::new();
    let settings: Vec<_> = runs
        .iter()
        .map(|run| {
            let mut found = Vec::new();
            flatten("", &run.log.manifest().config, &mut found);
            for (name, _) in &found {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
            found
        })
        .collect();
    let value = |of: &[(String, String)], name: &String| {
        of.iter().find(|(other, _)| other == name).map_or("not set".into(), |(_, value)| value.clone())
    };
    let rows = names.iter().map(|name| settings.iter().map(|of| value(of, name)).collect::<Vec<String>>());
    let differing = names.iter().zip(rows).filter(|(_, values)| values.iter().any(|value| *value != values[0]));
    let rows: Vec<Vec<String>> =
        differing.map(|(name, values)| [name.clone()].into_iter().chain(values).collect()).collect();
    (!rows.is_empty()).then(|| Table {
        id: "differences",
        title: "What differs",
        caption: "Settings that are not the same in all runs.".into(),
        columns: heads("setting", runs),
        rows,
    })
}

/// The values of a configuration that are set, by their path.
fn flatten(path: &str, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                flatten(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, value, found);
            }
        }
        value => found.push((path.into(), value.to_string())),
    }
}
