//! The best items as a table: numbers, texts, structures, pictures.

use std::collections::HashSet;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use polars::prelude::*;
use serde::Serialize;

use super::ReportOptions;
use super::told::Told;
use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::{self, DB_IDX, EVALUATION, ITERATION, OUTCOME, RAW_SCORE, REASON, SCORE};
use crate::frame::text::{format_number, to_json_types};
use crate::log::collect;
use crate::suggest::unknown_column;

/// Rows.
const ROWS: usize = 200;
/// Columns of attributes.
const COLUMNS: usize = 24;
/// Characters of a text; what is longer is cut.
const TEXT: usize = 120;
/// Characters of a SMILES; what is longer is no molecule that a small drawing could show.
const SMILES: usize = 400;
/// Bytes of a picture, and of all of them.
const PICTURE: usize = 64 << 10;
const PICTURES: usize = 4 << 20;

/// The best items, as the template shows them.
#[derive(Default, Serialize)]
pub(super) struct Items {
    pub columns: Vec<Heading>,
    pub rows: Vec<Vec<Cell>>,
    pub caption: String,
    /// Whether structures are to be drawn.
    pub structures: bool,
}

#[derive(Serialize)]
pub(super) struct Heading {
    name: String,
    /// Whether it is sorted by the numbers that its cells have.
    numeric: bool,
}

#[derive(Default, Serialize)]
pub(super) struct Cell {
    /// What is shown; of a picture, what it is of.
    text: String,
    /// To sort by, where the text has not all of its digits.
    number: Option<f64>,
    /// To be drawn.
    smiles: bool,
    /// An image's data, in base64.
    picture: Option<String>,
}

/// The best items of all runs: each once, with the first run that has it, where they read the same library.
///
/// # Errors
/// No run has the column that structures or pictures are to come from.
pub(super) fn items(runs: &[Told], options: &ReportOptions) -> Result<Items> {
    let best = |run: &Told| collect(run.log.compile_results()?.filter(col(SCORE).is_not_null()).limit(ROWS as u32));
    let frames = runs.iter().map(best).collect::<Result<Vec<_>>>()?;
    let (names, left_out) = attributes(&frames);
    let is_text =
        |name: &String| frames.iter().any(|frame| frame.column(name).is_ok_and(|column| column.dtype().is_string()));
    for (option, name) in [("--smiles", &options.smiles), ("--picture", &options.picture)] {
        if let Some(name) = name.as_ref().filter(|name| is_scored(&frames) && !is_text(name)) {
            let there = names.iter().filter(|name| is_text(name)).map(String::as_str);
            return Err(Error::Config(format!(
                "{option}: {}",
                unknown_column(name, " of text among the items", there)
            )));
        }
    }
    let named_so = |name: &&String| name.to_lowercase().contains("smiles") && is_text(name);
    let is_name = |name: &&String| ["name", "title"].contains(&name.to_lowercase().as_str()) && is_text(name);
    let named = names.iter().find(is_name).filter(|name| options.picture.as_ref() != Some(*name));
    let smiles = options.smiles.as_ref().or_else(|| names.iter().find(named_so));

    let several = runs.len() > 1;
    let mut columns = Vec::new();
    let mut head = |name: &str, numeric| columns.push(Heading { name: name.into(), numeric });
    head("rank", true);
    if several {
        head("run", false);
    }
    head(DB_IDX, true);
    head(SCORE, true);
    for name in &names {
        let mut there = frames.iter().filter_map(|frame| frame.column(name).ok());
        head(name, there.all(|column| column.dtype().is_primitive_numeric()));
    }
    head(EVALUATION, true);
    head(ITERATION, true);

    let plain = frames.iter().map(to_json_types).collect::<Result<Vec<_>>>()?;
    let mut room = PICTURES;
    let mut rows = Vec::new();
    for (rank, best) in merged(runs, &frames)?.into_iter().enumerate() {
        let (run, frame) = (&runs[best.run], &plain[best.run]);
        let mut cells = vec![Cell::number(rank as f64 + 1.0)];
        if several {
            cells.push(Cell::text(&run.name));
        }
        cells.extend([Cell::text(&best.item.to_string()), Cell::number(run.raw(best.score))]);
        let text_of = |name: &String| frame.column(name).ok().and_then(|column| column.str().ok()?.get(best.row));
        let whose = named.and_then(text_of).map_or(String::new(), |name| format!(", {name}"));
        for name in &names {
            cells.push(match text_of(name) {
                Some(text) if Some(name) == options.picture.as_ref() => {
                    Cell::picture(text, &format!("picture of item {}{whose}", best.item), &mut room)
                }
                Some(text) if Some(name) == smiles => Cell::structure(text),
                _ => Cell::of(frame, name, best.row)?,
            });
        }
        cells.extend([Cell::of(frame, EVALUATION, best.row)?, Cell::of(frame, ITERATION, best.row)?]);
        rows.push(cells);
    }
    let scored: u64 = runs.iter().map(|run| run.counts.scored).sum();
    let mut caption = match rows.len() as u64 {
        rows if several => format!("The {rows} best items of all runs."),
        rows if rows < scored => format!("The {rows} best of {scored} items that have a score."),
        rows => format!("All {rows} items that have a score."),
    };
    if left_out > 0 {
        caption.push_str(&format!(" {left_out} more columns are left out."));
    }
    let structures = rows.iter().flatten().any(|cell| cell.smiles);
    Ok(Items { columns, rows, caption, structures })
}

fn is_scored(frames: &[DataFrame]) -> bool {
    frames.iter().any(|frame| frame.height() > 0)
}

/// A row of a run's frame.
struct Best {
    run: usize,
    row: usize,
    item: u64,
    score: f64,
}

/// The rows of all frames, the best first, each item once.
fn merged(runs: &[Told], frames: &[DataFrame]) -> Result<Vec<Best>> {
    let mut all = Vec::new();
    for (run, frame) in frames.iter().enumerate() {
        let items = schema::u64s(frame, DB_IDX)?.into_iter().zip(schema::nullable_f64s(frame, SCORE)?).enumerate();
        all.extend(items.filter_map(|(row, (item, score))| Some(Best { run, row, item, score: score? })));
    }
    // Stable: of one score, the first run's come first, in the order of `db_idx`.
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut seen = HashSet::new();
    all.retain(|best| seen.insert((runs[best.run].library_key(), best.item)));
    all.truncate(ROWS);
    Ok(all)
}

/// The names of the attributes and parts of the score that are shown, and how many are not.
fn attributes(frames: &[DataFrame]) -> (Vec<String>, usize) {
    let mut names: Vec<String> = Vec::new();
    for name in frames.iter().flat_map(schema::column_names) {
        let told_otherwise = [DB_IDX, SCORE, RAW_SCORE, OUTCOME, REASON, EVALUATION, ITERATION].contains(&name);
        if !told_otherwise && !names.iter().any(|other| other == name) {
            names.push(name.into());
        }
    }
    let left_out = names.len().saturating_sub(COLUMNS);
    names.truncate(COLUMNS);
    (names, left_out)
}

impl Cell {
    fn text(text: &str) -> Self {
        let text = match text.char_indices().nth(TEXT) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.into(),
        };
        Cell { text, ..Cell::default() }
    }

    fn number(value: f64) -> Self {
        let text = format_number(value);
        let number = Some(value).filter(|value| value.is_finite() && text.parse() != Ok(*value));
        Cell { text, number, ..Cell::default() }
    }

    /// A structure to be drawn, or text if it is none that a small drawing could show.
    fn structure(text: &str) -> Self {
        match (1..=SMILES).contains(&text.len()) {
            true => Cell { text: text.into(), smiles: true, ..Cell::default() },
            false => Cell::text(text),
        }
    }

    /// An image of what is said, or text if it is none or if there is no room for it.
    fn picture(text: &str, of: &str, room: &mut usize) -> Self {
        if !text.contains("<svg") || text.len() > PICTURE.min(*room) {
            return Cell::text(text);
        }
        *room -= text.len();
        Cell { picture: Some(BASE64_STANDARD.encode(text)), ..Cell::text(of) }
    }

    fn of(frame: &DataFrame, name: &str, row: usize) -> Result<Self> {
        let Ok(column) = frame.column(name) else { return Ok(Cell::default()) };
        Ok(match column.get(row).wrap_err(name)? {
            AnyValue::Null => Cell::default(),
            AnyValue::String(text) => Cell::text(text),
            // As floats they may lose digits.
            value @ (AnyValue::Int64(_) | AnyValue::UInt64(_)) => Cell::text(&value.to_string()),
            value if value.is_primitive_numeric() => value.extract().map_or_else(Cell::default, Cell::number),
            value => Cell::text(&value.to_string()),
        })
    }
}
