//! JSON tables: a list of objects, or an object per line.

use polars::prelude::*;
use serde_json::{Map, Value};

use crate::io::exact_json::parse_exact;

/// Parses a JSON text into a frame. The error says what is wrong, and in which line.
pub(super) fn read(text: &str) -> Result<DataFrame, String> {
    let rows = rows(text)?;
    let mut names: Vec<&String> = Vec::new();
    for name in rows.iter().flat_map(Map::keys) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let columns = names.into_iter().map(|name| {
        let values: Vec<&Value> = rows.iter().map(|row| row.get(name).unwrap_or(&Value::Null)).collect();
        column(name, &values)
    });
    DataFrame::new(rows.len(), columns.collect()).map_err(|error| error.to_string())
}

fn rows(text: &str) -> Result<Vec<Map<String, Value>>, String> {
    let expected = "expected a list of objects, or an object per line";
    if text.trim_start().starts_with('[') {
        return parse_exact(text).map_err(|error| format!("cannot read it as JSON: {expected}: {error}"));
    }
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let row = |(number, line): (usize, &str)| {
        parse_exact(line).map_err(|error| format!("line {number}: cannot read it as JSON: {expected}: {error}"))
    };
    lines.map(row).collect()
}

fn column(name: &str, values: &[&Value]) -> Column {
    let all = |is: fn(&Value) -> bool| values.iter().all(|value| value.is_null() || is(value));
    let name = || name.into();
    if all(Value::is_null) {
        return Column::full_null(name(), values.len(), &DataType::Null);
    }
    if all(Value::is_boolean) {
        return Column::new(name(), values.iter().map(|value| value.as_bool()).collect::<Vec<_>>());
    }
    if all(Value::is_i64) {
        return Column::new(name(), values.iter().map(|value| value.as_i64()).collect::<Vec<_>>());
    }
    if all(Value::is_u64) {
        return Column::new(name(), values.iter().map(|value| value.as_u64()).collect::<Vec<_>>());
    }
    if all(Value::is_number) {
        return Column::new(name(), values.iter().map(|value| value.as_f64()).collect::<Vec<_>>());
    }
    if let Some(lists) = lists(values) {
        return Series::new(name(), lists).into_column();
    }
    // Any other mix of values becomes text.
    let text = |value: &&Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    Column::new(name(), values.iter().map(text).collect::<Vec<_>>())
}

/// The values as lists of numbers; `None` if any value is neither null nor a list of numbers.
fn lists(values: &[&Value]) -> Option<Vec<Option<Series>>> {
    let list = |value: &&Value| match value {
        Value::Null => Some(None),
        Value::Array(list) => {
            let numbers = list.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>()?;
            Some(Some(Series::new("".into(), numbers)))
        }
        _ => None,
    };
    values.iter().map(list).collect()
}
