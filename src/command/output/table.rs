//! A frame as a table that a terminal has room for: a line for each row, no line wider than the terminal.

use polars::prelude::*;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::screen::inert;
use super::text::flat;
use crate::frame::schema::SCORE;
use crate::frame::text::format_number;

/// Rows that are shown, at most.
const ROWS: usize = 50;
/// Characters of a text that are shown where there is room for more.
const LONGEST: usize = 48;
/// Characters that a text is cut down to before a column is left out.
const SHORTEST: usize = 20;
/// Between columns, and before the first.
const GAP: usize = 2;

/// A frame as text, its first rows; where the screen is so many columns wide, texts are cut and columns left out until it
/// fits: first those without a value, then those that say the same of all rows, then from the last on, but never the first
/// and the score.
pub fn table(frame: &DataFrame, width: Option<usize>) -> PolarsResult<String> {
    let shown = flat(&frame.head(Some(ROWS)), Some(format_number))?;
    let mut columns = shown.columns().iter().enumerate().map(Shown::of).collect::<PolarsResult<Vec<_>>>()?;
    let mut left_out = Vec::new();
    if let Some(width) = width {
        while let Some(column) = too_many(&columns, width) {
            left_out.push(columns.remove(column));
        }
        squeeze(&mut columns, width);
    }
    let mut lines = vec![line(&columns, |column| &column.name)];
    lines.push(columns.iter().map(|column| " ".repeat(GAP) + &"─".repeat(column.width)).collect());
    lines.extend((0..shown.height()).map(|row| line(&columns, |column| &column.cells[row])));
    if !left_out.is_empty() {
        left_out.sort_by_key(|column| column.position);
        let names = left_out.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let (number, what) = (left_out.len(), if left_out.len() == 1 { "column" } else { "columns" });
        lines.push(format!("  … and {number} {what} more (--format csv shows all): {names}"));
    }
    if frame.height() > ROWS {
        lines.push(format!("  … and {} rows more (--format csv shows all)", frame.height() - ROWS));
    }
    let lines = lines.iter().map(|line| cut(line.trim_end(), width.unwrap_or(usize::MAX)));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// A column as it is shown.
struct Shown {
    name: String,
    /// Among all columns.
    position: usize,
    cells: Vec<String>,
    /// Numbers stand under their last digits, and are not cut.
    is_number: bool,
    /// Whether it says the same of all rows.
    is_the_same: bool,
    width: usize,
}

impl Shown {
    fn of((position, column): (usize, &Column)) -> PolarsResult<Self> {
        let name = inert(column.name());
        let cells = (0..column.len()).map(|row| Ok(cell(&column.get(row)?))).collect::<PolarsResult<Vec<_>>>()?;
        let width = cells.iter().map(|cell| cell.width()).chain([name.width()]).max().unwrap_or(0);
        let is_number = column.dtype().is_primitive_numeric();
        let is_the_same = column.len() > 1 && column.n_unique().is_ok_and(|values| values == 1);
        Ok(Shown { name, position, cells, is_number, is_the_same, width })
    }

    fn least(&self) -> usize {
        if self.is_number { self.width } else { self.width.min(SHORTEST) }
    }

    fn is_empty(&self) -> bool {
        self.cells.iter().all(String::is_empty)
    }

    /// Whether it is shown however narrow the screen is.
    fn stays(&self) -> bool {
        self.position == 0 || self.name == SCORE || self.name.starts_with("score (")
    }
}

/// The column to leave out, if they cannot all be shown.
fn too_many(columns: &[Shown], width: usize) -> Option<usize> {
    let least: usize = columns.iter().map(|column| column.least() + GAP).sum();
    if least <= width {
        return None;
    }
    let may_go = || (0..columns.len()).rev().filter(|at| !columns[*at].stays());
    let empty = may_go().find(|at| columns[*at].is_empty());
    empty.or_else(|| may_go().find(|at| columns[*at].is_the_same)).or_else(|| may_go().next())
}

/// Cuts the widest texts until all columns have room.
fn squeeze(columns: &mut [Shown], width: usize) {
    while columns.iter().map(|column| column.width + GAP).sum::<usize>() > width {
        let texts = columns.iter_mut().filter(|column| column.width > column.least());
        let Some(widest) = texts.max_by_key(|column| column.width) else { return };
        widest.width -= 1;
    }
}

fn line<'a>(columns: &'a [Shown], text: impl Fn(&'a Shown) -> &'a str) -> String {
    let cells = columns.iter().map(|column| {
        let text = cut(text(column), column.width);
        let space = " ".repeat(column.width - text.width());
        let gap = " ".repeat(GAP);
        if column.is_number { format!("{gap}{space}{text}") } else { format!("{gap}{text}{space}") }
    });
    cells.collect()
}

fn cell(value: &AnyValue<'_>) -> String {
    match value {
        AnyValue::Null => String::new(),
        AnyValue::Float64(value) => format_number(*value),
        AnyValue::Float32(value) => format_number(f64::from(*value)),
        AnyValue::String(text) => cut(&inert(text), LONGEST),
        AnyValue::StringOwned(text) => cut(&inert(text), LONGEST),
        other => inert(&other.to_string()),
    }
}

/// Text of so many columns of a screen at most, with `…` where something is missing.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.into();
    }
    let mut used = 0;
    let fits = text.chars().take_while(|c| {
        used += c.width().unwrap_or(0);
        used < width
    });
    fits.collect::<String>() + if width > 0 { "…" } else { "" }
}
