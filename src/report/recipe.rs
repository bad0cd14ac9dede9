//! What a run was asked: its run file, and the command that makes it again.

use serde::Serialize;
use serde_json::Value;

use super::told::Told;

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
    /// What the rule learned of how much each column says about the score: names and percentages, the largest first.
    learned: Vec<(String, String)>,
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
        let learned = run.log.manifest().ended.iter().flat_map(|ended| &ended.learned);
        let learned = learned.map(|(column, share)| (column.clone(), format!("{:.1} %", 100.0 * share))).collect();
        let calls = |section: &Value| section["call"].is_string();
        let parts = config["score"]["sum"].as_array();
        let command =
            if calls(&config["filter"]) || calls(&config["score"]) || parts.is_some_and(|sum| sum.iter().any(calls)) {
                "by the program whose functions it calls"
            } else if config["score"]["by_hand"] == true {
                "uphill ask run.toml --out again"
            } else {
                "uphill search run.toml --out again"
            };
        Recipe { name: run.name.clone(), seeds: seeds.join(", "), file, file_name, command, learned }
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
