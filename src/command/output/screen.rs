//! What a terminal is shown: text that does nothing to it, numbers of a length that can be read; and how wide it is.

use std::io;

use polars::prelude::*;
use terminal_size::{Width, terminal_size_of};
use unicode_width::UnicodeWidthStr;

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

/// The columns of the terminal that standard output is, if it is one.
pub fn columns_of_stdout() -> Option<usize> {
    terminal_size_of(io::stdout()).map(|(Width(columns), _)| usize::from(columns))
}

/// The columns of the terminal that standard error is, if it is one.
pub fn columns_of_stderr() -> Option<usize> {
    terminal_size_of(io::stderr()).map(|(Width(columns), _)| usize::from(columns))
}

/// Text that begins so far from the left, its further lines below its first, where the screen is so many columns wide.
pub fn wrapped(text: &str, indent: usize, width: Option<usize>) -> String {
    let Some(room) = width.and_then(|width| width.checked_sub(indent)).filter(|room| *room > 0) else {
        return text.into();
    };
    let (mut wrapped, mut used) = (String::new(), 0);
    for word in text.split(' ') {
        let long = word.width();
        if used > 0 && used + 1 + long > room {
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(indent));
            used = 0;
        } else if used > 0 {
            wrapped.push(' ');
            used += 1;
        }
        wrapped.push_str(word);
        used += long;
    }
    wrapped
}

/// A whole number, its thousands apart: `1,204`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let apart = |(at, digit): (usize, char)| {
        let comma = at > 0 && (digits.len() - at).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit]).collect::<String>()
    };
    digits.chars().enumerate().map(apart).collect()
}

/// A time as people say it: `0.2 s`, `21 s`, `4 min 10 s`, `2 h 5 min`.
pub fn seconds(seconds: f64) -> String {
    match seconds.max(0.0) {
        few if few < 9.95 => format!("{few:.1} s"),
        some if some < 59.5 => format!("{some:.0} s"),
        some if some < 3599.5 => {
            let whole = some.round() as u64;
            format!("{} min {} s", whole / 60, whole % 60)
        }
        many => {
            let minutes = (many / 60.0).round() as u64;
            format!("{} h {} min", count(minutes / 60), minutes % 60)
        }
    }
}

/// Numbers as a row of bars, at most so many: of each stretch, the last one.
pub fn spark(numbers: &[f64], cells: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let (least, most) =
        numbers.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), n| (least.min(*n), most.max(*n)));
    let bar = |number: f64| {
        let height = if most > least { (number - least) / (most - least) } else { 0.0 };
        BARS[((height * 7.0).round() as usize).min(7)]
    };
    let cells = cells.min(numbers.len());
    (1..=cells).map(|cell| bar(numbers[cell * numbers.len() / cells - 1])).collect()
}
