//! Frames as tables that fit a terminal: one line per row, no line wider than the terminal.

use polars::prelude::*;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::flatten::flatten;
use super::terminal::escape_controls;
use crate::frame::schema::SCORE;
use crate::frame::text::format_number;

/// Maximum number of rows shown.
const MAX_ROWS: usize = 50;
/// Maximum width of a text.
const MAX_TEXT_WIDTH: usize = 48;
/// Width to which texts are shortened before columns are hidden.
const MIN_TEXT_WIDTH: usize = 20;
/// Space before each column.
const GAP_WIDTH: usize = 2;

/// The first rows of a frame as text. With a `width`, texts are shortened and columns hidden until the table fits. Empty
/// columns are hidden first, then columns with one value in all rows, then the others from the last. The first column and
/// the score are never hidden.
pub fn table(frame: &DataFrame, width: Option<usize>) -> PolarsResult<String> {
    let shown = flatten(&frame.head(Some(MAX_ROWS)), Some(format_number))?;
    let mut columns = shown.columns().iter().enumerate().map(TableColumn::new).collect::<PolarsResult<Vec<_>>>()?;
    let mut hidden = Vec::new();
    if let Some(width) = width {
        while let Some(column) = column_to_hide(&columns, width) {
            hidden.push(columns.remove(column));
        }
        shrink(&mut columns, width);
    }
    let mut lines = vec![line(&columns, |column| &column.name)];
    lines.push(columns.iter().map(|column| " ".repeat(GAP_WIDTH) + &"─".repeat(column.width)).collect());
    lines.extend((0..shown.height()).map(|row| line(&columns, |column| &column.cells[row])));
    if !hidden.is_empty() {
        hidden.sort_by_key(|column| column.position);
        let names = hidden.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let (number, what) = (hidden.len(), if hidden.len() == 1 { "column" } else { "columns" });
        lines.push(format!("  … {number} more {what} (--format csv shows all): {names}"));
    }
    if frame.height() > MAX_ROWS {
        lines.push(format!("  … {} more rows (--format csv shows all)", frame.height() - MAX_ROWS));
    }
    let lines = lines.iter().map(|line| shorten(line.trim_end(), width.unwrap_or(usize::MAX)));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// A column of the table.
struct TableColumn {
    name: String,
    /// Position among all columns of the frame.
    position: usize,
    cells: Vec<String>,
    /// Numbers are aligned to the right and never shortened.
    is_number: bool,
    /// Whether all rows have the same value.
    is_constant: bool,
    width: usize,
}

impl TableColumn {
    fn new((position, column): (usize, &Column)) -> PolarsResult<Self> {
        let name = escape_controls(column.name());
        let cells = (0..column.len()).map(|row| Ok(cell(&column.get(row)?))).collect::<PolarsResult<Vec<_>>>()?;
        let width = cells.iter().map(|cell| cell.width()).chain([name.width()]).max().unwrap_or(0);
        let is_number = column.dtype().is_primitive_numeric();
        let is_constant = column.len() > 1 && column.n_unique().is_ok_and(|values| values == 1);
        Ok(TableColumn { name, position, cells, is_number, is_constant, width })
    }

    fn min_width(&self) -> usize {
        if self.is_number { self.width } else { self.width.min(MIN_TEXT_WIDTH) }
    }

    fn is_empty(&self) -> bool {
        self.cells.iter().all(String::is_empty)
    }

    /// Whether the column is never hidden.
    fn is_required(&self) -> bool {
        self.position == 0 || self.name == SCORE || self.name.starts_with("score (")
    }
}

/// The index of the next column to hide, if the columns do not fit.
fn column_to_hide(columns: &[TableColumn], width: usize) -> Option<usize> {
    let min_width: usize = columns.iter().map(|column| column.min_width() + GAP_WIDTH).sum();
    if min_width <= width {
        return None;
    }
    let hideable = || (0..columns.len()).rev().filter(|column| !columns[*column].is_required());
    let empty = hideable().find(|column| columns[*column].is_empty());
    empty.or_else(|| hideable().find(|column| columns[*column].is_constant)).or_else(|| hideable().next())
}

/// Shortens the widest texts until all columns fit.
fn shrink(columns: &mut [TableColumn], width: usize) {
    while columns.iter().map(|column| column.width + GAP_WIDTH).sum::<usize>() > width {
        let texts = columns.iter_mut().filter(|column| column.width > column.min_width());
        let Some(widest) = texts.max_by_key(|column| column.width) else { return };
        widest.width -= 1;
    }
}

fn line<'a>(columns: &'a [TableColumn], text: impl Fn(&'a TableColumn) -> &'a str) -> String {
    let cells = columns.iter().map(|column| {
        let text = shorten(text(column), column.width);
        let space = " ".repeat(column.width - text.width());
        let gap = " ".repeat(GAP_WIDTH);
        if column.is_number { format!("{gap}{space}{text}") } else { format!("{gap}{text}{space}") }
    });
    cells.collect()
}

fn cell(value: &AnyValue<'_>) -> String {
    match value {
        AnyValue::Null => String::new(),
        AnyValue::Float64(value) => format_number(*value),
        AnyValue::Float32(value) => format_number(f64::from(*value)),
        AnyValue::String(text) => shorten(&escape_controls(text), MAX_TEXT_WIDTH),
        AnyValue::StringOwned(text) => shorten(&escape_controls(text), MAX_TEXT_WIDTH),
        other => escape_controls(&other.to_string()),
    }
}

/// Shortens text to a width and marks this with `…`.
fn shorten(text: &str, width: usize) -> String {
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
