//! The text of a run file: what is overridden, what is written down for it, and what its mistakes are called.

use super::update::UpdateConfig;
use crate::error::{Error, Result};
use crate::near::nearest;

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

/// A TOML error with its line, on one line.
pub(super) fn located(text: &str, error: &toml::de::Error) -> Error {
    let message = suggest(error.message());
    match error.span() {
        Some(span) => {
            let line = text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1;
            Error::Config(format!("line {line}: {message}"))
        }
        None => Error::Config(message),
    }
}

/// Adds to serde's "unknown field" the key that was most likely meant.
pub(super) fn suggest(message: &str) -> String {
    let message = message.lines().next().unwrap_or(message);
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let Some((wrong, known)) = quoted.split_first().filter(|_| message.starts_with("unknown")) else {
        return message.into();
    };
    match nearest(wrong, known.iter().copied()) {
        Some(nearest) => format!("unknown key `{wrong}`; did you mean `{nearest}`?"),
        None => format!("unknown key `{wrong}`; there are {}", known.join(", ")),
    }
}
