//! Text for terminals: escaping of control characters, wrapping, and the width of the screen.

use std::io;

use polars::prelude::*;
use terminal_size::{Width, terminal_size_of};
use unicode_width::UnicodeWidthStr;

/// Text on one line with control characters escaped: those that move the cursor, end the line, start a terminal command
/// or change the direction of writing.
pub fn escape_controls(text: &str) -> String {
    text.chars().map(|c| if is_control(c) { c.escape_default().to_string() } else { c.into() }).collect()
}

/// Equivalent JSON with control characters escaped as JSON escapes them. Outside of strings, where this would not be
/// valid, JSON has no control characters but line feeds, which are kept.
pub fn escape_controls_in_json(json: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(json);
    let escaped = |c: char| if is_control(c) && c != '\n' { format!("\\u{:04x}", u32::from(c)) } else { c.into() };
    text.chars().map(escaped).collect::<String>().into_bytes()
}

/// A flat frame with control characters escaped in its texts and column names.
pub fn escape_controls_in_frame(frame: DataFrame) -> PolarsResult<DataFrame> {
    let escape_column = |column: &Column| {
        let name = escape_controls(column.name()).into();
        Ok(match column.dtype() {
            DataType::String => column
                .str()?
                .iter()
                .map(|text| text.map(escape_controls))
                .collect::<StringChunked>()
                .with_name(name)
                .into_column(),
            _ => column.clone().with_name(name),
        })
    };
    let columns = frame.columns().iter().map(escape_column).collect::<PolarsResult<_>>()?;
    DataFrame::new(frame.height(), columns)
}

/// Whether this is a control character (C0, DEL, C1), a line or paragraph separator, or a character that changes the direction
/// of writing.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The width of standard output in columns, if it is a terminal.
pub fn stdout_width() -> Option<usize> {
    terminal_size_of(io::stdout()).map(|(Width(columns), _)| usize::from(columns))
}

/// The width of standard error in columns, if it is a terminal.
pub fn stderr_width() -> Option<usize> {
    terminal_size_of(io::stderr()).map(|(Width(columns), _)| usize::from(columns))
}

/// Wraps text that starts at column `indent` of a screen of `width` columns. Further lines are indented to that column.
pub fn wrap(text: &str, indent: usize, width: Option<usize>) -> String {
    let Some(room) = width.and_then(|width| width.checked_sub(indent)).filter(|room| *room > 0) else {
        return text.into();
    };
    let (mut wrapped, mut used) = (String::new(), 0);
    for word in text.split(' ') {
        let word_width = word.width();
        if used > 0 && used + 1 + word_width > room {
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(indent));
            used = 0;
        } else if used > 0 {
            wrapped.push(' ');
            used += 1;
        }
        wrapped.push_str(word);
        used += word_width;
    }
    wrapped
}

/// The first `width` characters of a text.
pub fn truncate(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some((end, _)) => text[..end].into(),
        None => text.into(),
    }
}
