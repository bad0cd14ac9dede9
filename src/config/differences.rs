//! Compares a run file with the settings of the run that it resumes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Config;
use super::score::remove_execution_keys_of_score;

impl Config {
    /// Lists the settings that differ from the `recorded` ones and that a resumed run cannot change, each with both values. A
    /// resumed run may change stop conditions, the settings for calling scorers, and the paths of the dataset and of the starting
    /// queries. The contents of the library and the queries are compared when they are read.
    pub fn differences(&self, recorded: &Value) -> Vec<String> {
        let (mut recorded, mut current) = (recorded.clone(), self.to_json().unwrap_or_default());
        [&mut recorded, &mut current].into_iter().for_each(remove_changeable_keys);
        if [&recorded, &current].into_iter().all(|config| config["queries"]["path"].is_string()) {
            recorded["queries"]["path"] = current["queries"]["path"].clone();
        }
        let mut differences = Vec::new();
        compare("", &recorded, &current, &mut differences);
        differences
    }
}

/// Removes the keys that a resumed run may change.
fn remove_changeable_keys(config: &mut Value) {
    config.as_object_mut().map(|sections| sections.remove("stop"));
    remove_execution_keys(config);
}

/// Removes the keys that do not change the results of a search: the path of the dataset
/// ([`SearchLog::check_dataset`](crate::SearchLog::check_dataset) compares the library itself), cache sizes, and the settings
/// for calling scorers.
pub(crate) fn remove_execution_keys(config: &mut Value) {
    if let Some(database) = config.get_mut("database").and_then(Value::as_object_mut) {
        database.retain(|key, _| !["path", "index_cache_mb", "metadata_cache_mb"].contains(&key.as_str()));
    }
    config.get_mut("score").map(remove_execution_keys_of_score);
}

/// Lists the keys whose values differ. In lists of tables, such as `score.sum`, it lists the keys of each table.
fn compare(path: &str, recorded: &Value, current: &Value, differences: &mut Vec<String>) {
    if recorded == current {
        return;
    }
    match (recorded, current) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&path, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), differences);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() && a.iter().chain(b).all(Value::is_object) => {
            for (position, (a, b)) in a.iter().zip(b).enumerate() {
                let label = a["name"].as_str().map_or_else(|| position.to_string(), str::to_string);
                compare(&format!("{path}[{label}]"), a, b, differences);
            }
        }
        _ => {
            let describe = |value: &Value| if value.is_null() { "not set".into() } else { value.to_string() };
            differences.push(format!("{path} was {}, is {}", describe(recorded), describe(current)));
        }
    }
}
