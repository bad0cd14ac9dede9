//! Which settings of a run file are others than those a run was started with.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Config;
use super::score::forget_how_asked;

impl Config {
    /// Says which settings differ from a run's that a resumed run must share.
    /// Stop conditions may differ, how scorers are asked, and where the library and the starting queries are: what they
    /// are is looked at when they are read.
    pub fn differences(&self, then: &Value) -> Vec<String> {
        // Through text, as what is compared with was: numbers are then read alike.
        let now = serde_json::to_string(&self.absolute()).and_then(|text| serde_json::from_str(&text));
        let (mut then, mut now): (Value, Value) = (then.clone(), now.unwrap_or_default());
        [&mut then, &mut now].into_iter().for_each(forget_what_may_change);
        if [&then, &now].into_iter().all(|config| config["queries"]["path"].is_string()) {
            then["queries"]["path"] = now["queries"]["path"].clone();
        }
        let mut found = Vec::new();
        compare("", &then, &now, &mut found);
        found
    }
}

/// Takes out of a configuration, as JSON, what a resumed run may change.
fn forget_what_may_change(config: &mut Value) {
    config.as_object_mut().map(|sections| sections.remove("stop"));
    forget_where_and_how(config);
}

/// Takes out of a configuration, as JSON, what changes nothing of what is found: where the library is (that it is the same
/// is for [`SearchLog::check_dataset`](crate::SearchLog::check_dataset)), what is kept in memory, how scorers are asked.
pub(crate) fn forget_where_and_how(config: &mut Value) {
    if let Some(database) = config.get_mut("database").and_then(Value::as_object_mut) {
        database.retain(|key, _| !["path", "index_cache_mb", "metadata_cache_mb"].contains(&key.as_str()));
    }
    config.get_mut("score").map(forget_how_asked);
}

/// Finds the keys whose values differ; in lists of tables, such as `score.sum`, those of each table.
fn compare(path: &str, then: &Value, now: &Value, found: &mut Vec<String>) {
    if then == now {
        return;
    }
    match (then, now) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&path, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() && a.iter().chain(b).all(Value::is_object) => {
            for (position, (a, b)) in a.iter().zip(b).enumerate() {
                let label = a["name"].as_str().map_or_else(|| position.to_string(), str::to_string);
                compare(&format!("{path}[{label}]"), a, b, found);
            }
        }
        _ => found.push(format!("{path} was {then}, is {now}")),
    }
}
