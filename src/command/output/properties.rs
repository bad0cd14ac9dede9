//! Named values, as aligned lines or as a JSON object.

use std::io::Write;

use serde_json::Value;

use super::error::WriteError;
use super::terminal;
use super::writer::to_stdout;
use crate::frame::text::format_number;

/// Width of the names.
const NAME_WIDTH: usize = 16;
/// Width of the space between a name and its value.
const GAP_WIDTH: usize = 2;

/// Prints a JSON object on standard output, as aligned lines or as JSON.
pub fn print_properties(properties: &Value, as_json: bool) -> Result<(), WriteError> {
    to_stdout(|mut out, is_terminal| {
        if as_json {
            let text = serde_json::to_string_pretty(properties)?.into_bytes();
            let text = if is_terminal { terminal::escape_controls_in_json(&text) } else { text };
            out.write_all(&text)?;
            return Ok(writeln!(out)?);
        }
        let width = if is_terminal { terminal::stdout_width() } else { None };
        for (name, value) in properties.as_object().into_iter().flatten() {
            let value = terminal::escape_controls(&text(value));
            let value = terminal::wrap(&value, NAME_WIDTH + GAP_WIDTH, width);
            writeln!(out, "{name:<NAME_WIDTH$}{:GAP_WIDTH$}{value}", "")?;
        }
        Ok(())
    })
}

/// A value on one line. Objects have numbers as values.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            items.iter().map(|item| item.as_str().unwrap_or_default()).collect::<Vec<_>>().join(", ")
        }
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{name} {:.3}", value.as_f64().unwrap_or_default());
            fields.iter().map(field).collect::<Vec<_>>().join(", ")
        }
        Value::Number(float) if float.is_f64() => float.as_f64().map_or("-".into(), format_number),
        other => other.to_string(),
    }
}
