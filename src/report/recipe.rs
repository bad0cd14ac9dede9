//! What a run was asked: its run file, and the command that makes it again.

use serde::Serialize;
use serde_json::Value;

use super::told::Told;
use crate::config::as_toml;

/// How a run is made again.
#[derive(Serialize)]
pub(super) struct Recipe {
    name: String,
    /// Of the runs that are alike but for them.
    seeds: String,
    /// The run file; as JSON, where TOML cannot say it.
    file: Option<String>,
    file_name: &'static str,
    /// Or two, in their order.
    command: String,
    /// What the rule learned of how much each column says about the score: names and percentages, the largest first.
    learned: Vec<(String, String)>,
}

impl Recipe {
    /// Of runs that differ in their seeds.
    pub fn of(runs: &[&Told]) -> Self {
        let run = runs[0];
        let seeds: Vec<String> = runs[1..].iter().map(|run| run.log.manifest().seed.to_string()).collect();
        let manifest = run.log.manifest();
        let config = &manifest.config;
        let toml = as_toml(&without_empty_sections(config)).ok().and_then(|toml| toml::to_string_pretty(&toml).ok());
        let (file, file_name, commands) = match (config, toml) {
            (Value::Null, _) => (None, "run.toml", Vec::new()),
            (_, Some(text)) => (Some(text), "run.toml", commands(config, manifest.planned)),
            (_, None) => {
                let by = "by a program, as a run file cannot say all of it".to_string();
                (serde_json::to_string_pretty(config).ok(), "run.json", vec![by])
            }
        };
        let learned = manifest.ended.iter().flat_map(|ended| &ended.learned);
        let learned = learned.map(|(column, share)| (column.clone(), format!("{:.1} %", 100.0 * share))).collect();
        Recipe {
            name: run.name.clone(),
            seeds: seeds.join(", "),
            file,
            file_name,
            command: commands.join("\n"),
            learned,
        }
    }
}

/// The commands that make a run again of its run file, which has the last budget, where it planned with the first.
fn commands(config: &Value, planned: Option<u64>) -> Vec<String> {
    let calls = |section: &Value| section["call"].is_string();
    let parts = config["score"]["sum"].as_array();
    if calls(&config["filter"]) || calls(&config["score"]) || parts.is_some_and(|sum| sum.iter().any(calls)) {
        return vec!["by the program whose functions it calls".into()];
    }
    let (begin, go_on) = match config["score"]["by_hand"] == true {
        true => ("uphill ask run.toml --out again", "uphill ask run.toml --out again"),
        false => ("uphill search run.toml --out again", "uphill search run.toml --out again --resume"),
    };
    let plans = config["update"]["rule"] == "surrogate" && planned != config["stop"]["evaluations"].as_u64();
    match planned.filter(|_| plans) {
        Some(first) => vec![format!("{begin} --set stop.evaluations={first}"), go_on.into()],
        None => vec![begin.into()],
    }
}

/// A section without a key says nothing.
fn without_empty_sections(config: &Value) -> Value {
    let mut config = config.clone();
    if let Some(sections) = config.as_object_mut() {
        let says = |section: &Value| section.as_object().is_none_or(|keys| keys.values().any(|value| !value.is_null()));
        sections.retain(|_, section| says(section));
    }
    config
}
