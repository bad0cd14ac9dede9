//! Helpers to parse run files: overrides, the default rule, nulls, and conversion from JSON to TOML.

use serde_json::Value;

use super::update::UpdateConfig;
use crate::error::{Error, Result};

/// Sets the default rule in an `[update]` section without one. Returns whether it changed the table.
pub(super) fn set_default_rule(table: &mut toml::Table) -> bool {
    match table.get_mut("update").and_then(toml::Value::as_table_mut) {
        Some(update) if !update.contains_key("rule") => {
            update.insert("rule".into(), UpdateConfig::DEFAULT_RULE.into());
            true
        }
        _ => false,
    }
}

/// As [`set_default_rule`], in JSON.
pub(super) fn set_default_rule_in_json(config: &mut Value) {
    if let Some(update) = config.get_mut("update").and_then(Value::as_object_mut) {
        update.entry("rule").or_insert_with(|| UpdateConfig::DEFAULT_RULE.into());
    }
}

/// Removes keys whose value is null, which are equivalent to missing keys.
pub(super) fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

/// Converts JSON to TOML, without keys that are null.
///
/// # Errors
/// Values that TOML cannot represent: a null in a list, a whole number of 2^63 or more.
pub(crate) fn as_toml(value: &Value) -> Result<toml::Value, ()> {
    Ok(match value {
        Value::Null => return Err(()),
        Value::Bool(truth) => (*truth).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().filter(|_| number.is_f64()).ok_or(())?.into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => toml::Value::Array(values.iter().map(as_toml).collect::<Result<_, _>>()?),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            let fields = fields.map(|(name, value)| Ok((name.clone(), as_toml(value)?)));
            toml::Value::Table(fields.collect::<Result<_, ()>>()?)
        }
    })
}

/// Applies an override `section.key=value`.
pub(super) fn set_key(table: &mut toml::Table, change: &str) -> Result<()> {
    let Some((key, text)) = change.split_once('=') else {
        return Err(Error::Config(format!("--set {change}: expected section.key=value")));
    };
    let value = format!("value = {text}").parse::<toml::Table>().ok().and_then(|mut parsed| parsed.remove("value"));
    let value = value.unwrap_or_else(|| toml::Value::String(text.into()));
    let mut sections: Vec<&str> = key.trim().split('.').collect();
    let last = sections.pop().unwrap_or_default();
    let mut section = table;
    for name in sections {
        let next = section.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        section =
            next.as_table_mut().ok_or_else(|| Error::Config(format!("--set {change}: `{name}` is not a section")))?;
    }
    section.insert(last.into(), value);
    Ok(())
}

/// Fails if a number is NaN, at any depth.
pub(super) fn check_not_nan(place: &str, value: &toml::Value) -> Result<()> {
    match value {
        toml::Value::Float(number) if number.is_nan() => {
            Err(Error::Config(format!("{place}: expected a number, found nan")))
        }
        toml::Value::Table(table) => {
            table.iter().try_for_each(|(key, value)| check_not_nan(&format!("{place}.{key}"), value))
        }
        toml::Value::Array(values) => values.iter().try_for_each(|value| check_not_nan(place, value)),
        _ => Ok(()),
    }
}
