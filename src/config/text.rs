//! The text of a run file: what is overridden, what is written down for it, and what its mistakes are called.

use serde_json::Value;

use super::update::UpdateConfig;
use crate::error::{Error, Result};
use crate::suggest::closest_name;

/// Without a rule, `[update]` is of the default one. Says whether that had to be written down.
pub(super) fn name_the_rule(table: &mut toml::Table) -> bool {
    match table.get_mut("update").and_then(toml::Value::as_table_mut) {
        Some(update) if !update.contains_key("rule") => {
            update.insert("rule".into(), UpdateConfig::DEFAULT_RULE.into());
            true
        }
        _ => false,
    }
}

/// The same, of JSON.
pub(super) fn name_the_rule_of(config: &mut Value) {
    if let Some(update) = config.get_mut("update").and_then(Value::as_object_mut) {
        update.entry("rule").or_insert_with(|| UpdateConfig::DEFAULT_RULE.into());
    }
}

/// Null means that nothing is said.
pub(super) fn forget_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(forget_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(forget_nulls),
        _ => {}
    }
}

/// JSON as TOML, which has no nulls: what is not there is not set.
///
/// # Errors
/// What TOML cannot say: a null in a list, a whole number from 2^63 on.
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

/// Applies `section.key=value`.
pub(super) fn set(table: &mut toml::Table, change: &str) -> Result<()> {
    let Some((key, text)) = change.split_once('=') else {
        return Err(Error::Config(format!("--set {change}: expected section.key=value")));
    };
    let value = format!("value = {text}").parse::<toml::Table>().ok().and_then(|mut parsed| parsed.remove("value"));
    let value = value.unwrap_or_else(|| toml::Value::String(text.into()));
    let mut steps: Vec<&str> = key.trim().split('.').collect();
    let last = steps.pop().unwrap_or_default();
    let mut section = table;
    for step in steps {
        let next = section.entry(step).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        section =
            next.as_table_mut().ok_or_else(|| Error::Config(format!("--set {change}: `{step}` is not a section")))?;
    }
    section.insert(last.into(), value);
    Ok(())
}

/// Refuses numbers that are none, wherever they stand.
pub(super) fn refuse_nan(place: &str, value: &toml::Value) -> Result<()> {
    match value {
        toml::Value::Float(number) if number.is_nan() => {
            Err(Error::Config(format!("{place}: expected a number, found nan")))
        }
        toml::Value::Table(table) => {
            table.iter().try_for_each(|(key, value)| refuse_nan(&format!("{place}.{key}"), value))
        }
        toml::Value::Array(values) => values.iter().try_for_each(|value| refuse_nan(place, value)),
        _ => Ok(()),
    }
}

/// A TOML error with its line, on one line.
pub(super) fn located(text: &str, error: &toml::de::Error) -> Error {
    let message = suggest(error.message());
    match error.span() {
        Some(span) => {
            let line = text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
            // The key alone: the value may be a secret.
            let key = text.lines().nth(line).and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
            let is_key = |key: &&str| key.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
            let of_value = error.message().starts_with("invalid") || error.message().starts_with("unknown variant");
            let key = key.filter(is_key).filter(|_| of_value).map_or(String::new(), |key| format!("`{key}`: "));
            Error::Config(format!("line {}: {key}{message}", line + 1))
        }
        None => Error::Config(message),
    }
}

/// A TOML error of a table, whose key toml tells below its message.
pub(super) fn placed(error: &toml::de::Error) -> Error {
    let said = error.to_string();
    let key = said.lines().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'));
    Error::Config(key.map_or(String::new(), |key| format!("{key}: ")) + &suggest(error.message()))
}

/// What serde says of types, in words of a run file.
const WORDS: [(&str, &str); 9] = [
    ("expected u64", "expected a whole number"),
    ("expected u32", "expected a whole number"),
    ("expected usize", "expected a whole number"),
    ("expected f64", "expected a number"),
    ("expected f32", "expected a number"),
    ("expected a sequence", "expected a list"),
    ("expected a map", "expected a section"),
    ("invalid type: sequence", "invalid type: list"),
    ("invalid type: map", "invalid type: section"),
];

/// Adds to serde's "unknown field" the key, and to its "unknown variant" the value, that was most likely meant.
pub(super) fn suggest(message: &str) -> String {
    let message = message.lines().next().unwrap_or(message);
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let Some((wrong, known)) = quoted.split_first().filter(|_| message.starts_with("unknown")) else {
        // Whatever type of this program a section is.
        let message =
            match message.split_once(", expected struct ").or(message.split_once(", expected internally tagged")) {
                Some((found, _)) => format!("{found}, expected a section"),
                None => message.to_string(),
            };
        return WORDS.iter().fold(message, |message, (rust, plain)| message.replace(rust, plain));
    };
    let what = if message.starts_with("unknown variant") { "value" } else { "key" };
    match closest_name(wrong, known.iter().copied()) {
        Some(nearest) => format!("unknown {what} `{wrong}`; did you mean `{nearest}`?"),
        None => format!("unknown {what} `{wrong}`; there are {}", known.join(", ")),
    }
}
