//! The configuration of a run: its run file, and the commands that reproduce it.

use serde::Serialize;
use serde_json::Value;

use super::run_data::RunData;
use crate::config::as_toml;

/// The configuration of a run, or of runs that differ only in their seeds.
#[derive(Serialize)]
pub(super) struct Configuration {
    name: String,
    /// The seeds of the other runs.
    seeds: String,
    /// The run file as TOML, or as JSON if TOML cannot represent it.
    file: Option<String>,
    file_name: &'static str,
    /// One or two commands, one per line.
    command: String,
    /// The learned relevance weight of each feature column, in percent, largest first.
    relevance: Vec<(String, String)>,
}

impl Configuration {
    /// The configuration of runs that differ only in their seeds.
    pub fn new(runs: &[&RunData]) -> Self {
        let run = runs[0];
        let seeds: Vec<String> = runs[1..].iter().map(|run| run.log.manifest().seed.to_string()).collect();
        let manifest = run.log.manifest();
        let config = &manifest.config;
        let toml = as_toml(&without_empty_sections(config)).ok().and_then(|toml| toml::to_string_pretty(&toml).ok());
        let (file, file_name, commands) = match (config, toml) {
            (Value::Null, _) => (None, "run.toml", Vec::new()),
            (_, Some(text)) => (Some(text), "run.toml", commands(config, manifest.planned_budget)),
            (_, None) => {
                let note = "# started by a program: a run file cannot represent this configuration".to_string();
                (serde_json::to_string_pretty(config).ok(), "run.json", vec![note])
            }
        };
        let relevance = manifest.ended.iter().flat_map(|ended| &ended.relevance);
        let relevance =
            relevance.map(|(column, weight)| (column.clone(), format!("{:.1} %", 100.0 * weight))).collect();
        Configuration {
            name: run.name.clone(),
            seeds: seeds.join(", "),
            file,
            file_name,
            command: commands.join("\n"),
            relevance,
        }
    }
}

/// The commands that reproduce a run from its run file. The file has the last budget. If the rule derives its batch sizes from
/// the first budget, the first command sets that.
fn commands(config: &Value, planned_budget: Option<u64>) -> Vec<String> {
    let calls = |section: &Value| section["call"].is_string();
    let parts = config["score"]["sum"].as_array();
    if calls(&config["filter"]) || calls(&config["score"]) || parts.is_some_and(|sum| sum.iter().any(calls)) {
        return vec!["# started by the program whose functions it calls".into()];
    }
    let (start, resume) = match config["score"]["by_hand"] == true {
        true => ("uphill ask run.toml --out again", "uphill ask run.toml --out again"),
        false => ("uphill search run.toml --out again", "uphill search run.toml --out again --resume"),
    };
    let reads_budget =
        config["update"]["rule"] == "surrogate" && planned_budget != config["stop"]["evaluations"].as_u64();
    match planned_budget.filter(|_| reads_budget) {
        Some(first) => vec![format!("{start} --set stop.evaluations={first}"), resume.into()],
        None => vec![start.into()],
    }
}

/// The configuration without sections that have no value.
fn without_empty_sections(config: &Value) -> Value {
    let mut config = config.clone();
    if let Some(sections) = config.as_object_mut() {
        let has_value =
            |section: &Value| section.as_object().is_none_or(|keys| keys.values().any(|value| !value.is_null()));
        sections.retain(|_, section| has_value(section));
    }
    config
}
