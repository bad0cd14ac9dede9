//! What a terminal is shown: tables, numbers of a length that can be read, and text that does nothing to the terminal.

use crate::number;
use comfy_table::{Table, presets};
use polars::prelude::*;

use super::text::flat;

/// Text on one line in which every character is to be seen: what moves the cursor, ends the line, starts a command of
/// the terminal or turns the direction of writing is escaped.
pub fn inert(text: &str) -> String {
    text.chars().map(|c| if acts(c) { c.escape_default().to_string() } else { c.into() }).collect()
}

/// JSON that means the same, with such characters escaped as JSON escapes them: they stand in its strings alone, but
/// for the ends of lines.
pub fn inert_json(json: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(json);
    let escaped = |c: char| if acts(c) && c != '\n' { format!("\\u{:04x}", u32::from(c)) } else { c.into() };
    text.chars().map(escaped).collect::<String>().into_bytes()
}

/// A flat frame of inert text and names.
pub fn inert_frame(frame: DataFrame) -> PolarsResult<DataFrame> {
    let inert_column = |column: &Column| {
        let name = inert(column.name()).into();
        Ok(match column.dtype() {
            DataType::String => column
                .str()?
                .iter()
                .map(|text| text.map(inert))
                .collect::<StringChunked>()
                .with_name(name)
                .into_column(),
            _ => column.clone().with_name(name),
        })
    };
    let columns = frame.columns().iter().map(inert_column).collect::<PolarsResult<_>>()?;
    DataFrame::new(frame.height(), columns)
}

/// Control characters (C0, DEL, C1), the ends of lines and paragraphs, and what overrides the direction of writing.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A frame as text, at most 50 rows of it.
pub fn table(frame: &DataFrame) -> PolarsResult<String> {
    const MOST: usize = 50;
    let shown = flat(&frame.head(Some(MOST)), Some(number))?;
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(shown.columns().iter().map(|column| inert(column.name())));
    for row in 0..shown.height() {
        let cells = shown.columns().iter().map(|column| column.get(row).map(|value| cell(&value)));
        table.add_row(cells.collect::<PolarsResult<Vec<_>>>()?);
    }
    let mut text = table.to_string();
    if frame.height() > MOST {
        text.push_str(&format!("\n… and {} rows more (--format csv shows all)", frame.height() - MOST));
    }
    Ok(text)
}

fn cell(value: &AnyValue<'_>) -> String {
    match value {
        AnyValue::Null => String::new(),
        AnyValue::Float64(value) => number(*value),
        AnyValue::Float32(value) => number(f64::from(*value)),
        AnyValue::String(text) => inert(&shorten(text)),
        AnyValue::StringOwned(text) => inert(&shorten(text)),
        other => other.to_string(),
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(48) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}
