//! The table of the best items, with numbers, texts, molecular structures and images.

use std::collections::HashSet;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use polars::prelude::*;
use serde::Serialize;

use super::ReportOptions;
use super::run_data::RunData;
use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::{self, DB_IDX, EVALUATION, ITERATION, OUTCOME, PREDICTIONS, RAW_SCORE, REASON, SCORE};
use crate::frame::text::{format_number, to_json_types};
use crate::log::collect;
use crate::suggest::unknown_column;

/// Maximum number of rows.
const ROWS: usize = 200;
/// Maximum number of attribute columns.
const COLUMNS: usize = 24;
/// Maximum length of a text in characters. Longer texts are cut.
const TEXT: usize = 120;
/// Maximum length of a SMILES. Longer molecules do not fit a small drawing.
const SMILES: usize = 400;
/// Maximum size of one image and of all images, in bytes.
const PICTURE: usize = 64 << 10;
const PICTURES: usize = 4 << 20;

/// The best items, as the template reads them.
#[derive(Default, Serialize)]
pub(super) struct ItemsTable {
    pub columns: Vec<Heading>,
    pub rows: Vec<Vec<Cell>>,
    pub caption: String,
    /// Whether there are structures to draw.
    pub has_structures: bool,
}

#[derive(Serialize)]
pub(super) struct Heading {
    name: String,
    /// Whether the cells are numbers.
    is_numeric: bool,
}

#[derive(Default, Serialize)]
pub(super) struct Cell {
    /// The text of the cell, or the description of its image.
    text: String,
    /// The number to sort by, if the text does not have all digits.
    number: Option<f64>,
    /// Whether the text is a SMILES to draw.
    is_smiles: bool,
    /// The data of an SVG image, in base64.
    picture: Option<String>,
}

/// The best items of all runs. An item that several runs of one library have is shown once, for the first run.
///
/// # Errors
/// No run has the column of structures or images.
pub(super) fn items(runs: &[RunData], options: &ReportOptions) -> Result<ItemsTable> {
    let best = |run: &RunData| collect(run.log.compile_results()?.filter(col(SCORE).is_not_null()).limit(ROWS as u32));
    let frames = runs.iter().map(best).collect::<Result<Vec<_>>>()?;
    let (names, omitted) = attribute_columns(&frames);
    let is_text =
        |name: &String| frames.iter().any(|frame| frame.column(name).is_ok_and(|column| column.dtype().is_string()));
    for (option, name) in [("--smiles", &options.smiles), ("--picture", &options.picture)] {
        if let Some(name) = name.as_ref().filter(|name| is_scored(&frames) && !is_text(name)) {
            let text_columns = names.iter().filter(|name| is_text(name)).map(String::as_str);
            return Err(Error::Config(format!(
                "{option}: {}",
                unknown_column(name, " of text among the items", text_columns)
            )));
        }
    }
    let is_smiles_column = |name: &&String| name.to_lowercase().contains("smiles") && is_text(name);
    let is_name_column = |name: &&String| ["name", "title"].contains(&name.to_lowercase().as_str()) && is_text(name);
    let name_column = names.iter().find(is_name_column).filter(|name| options.picture.as_ref() != Some(*name));
    let smiles = options.smiles.as_ref().or_else(|| names.iter().find(is_smiles_column));

    let several = runs.len() > 1;
    let mut columns = Vec::new();
    let mut add_heading = |name: &str, is_numeric| columns.push(Heading { name: name.into(), is_numeric });
    add_heading("rank", true);
    if several {
        add_heading("run", false);
    }
    add_heading(DB_IDX, true);
    add_heading(SCORE, true);
    for name in &names {
        let mut existing = frames.iter().filter_map(|frame| frame.column(name).ok());
        add_heading(name, existing.all(|column| column.dtype().is_primitive_numeric()));
    }
    add_heading(EVALUATION, true);
    add_heading(ITERATION, true);

    let text_frames = frames.iter().map(to_json_types).collect::<Result<Vec<_>>>()?;
    let mut bytes_left = PICTURES;
    let mut rows = Vec::new();
    for (rank, best) in rank_items(runs, &frames)?.into_iter().enumerate() {
        let (run, frame) = (&runs[best.run], &text_frames[best.run]);
        let mut cells = vec![Cell::number(rank as f64 + 1.0)];
        if several {
            cells.push(Cell::text(&run.name));
        }
        cells.extend([Cell::text(&best.item.to_string()), Cell::number(run.raw(best.score))]);
        let text_at = |name: &String| frame.column(name).ok().and_then(|column| column.str().ok()?.get(best.row));
        let suffix = name_column.and_then(text_at).map_or(String::new(), |name| format!(", {name}"));
        for name in &names {
            cells.push(match text_at(name) {
                Some(text) if Some(name) == options.picture.as_ref() => {
                    Cell::picture(text, &format!("picture of item {}{suffix}", best.item), &mut bytes_left)
                }
                Some(text) if Some(name) == smiles => Cell::structure(text),
                _ => Cell::from_frame(frame, name, best.row)?,
            });
        }
        cells.extend([Cell::from_frame(frame, EVALUATION, best.row)?, Cell::from_frame(frame, ITERATION, best.row)?]);
        rows.push(cells);
    }
    let scored: u64 = runs.iter().map(|run| run.counts.scored).sum();
    let mut caption = match rows.len() as u64 {
        rows if several => format!("The {rows} best items of all runs."),
        rows if rows < scored => format!("The {rows} best of {scored} items with a score."),
        rows => format!("All {rows} items with a score."),
    };
    if let [run] = runs
        && let Some(tied) = run.log.tied_for_best()?
    {
        caption.push_str(&format!(" {tied} items share the best score."));
    }
    if omitted > 0 {
        caption.push_str(&format!(" {omitted} more columns are not shown."));
    }
    let has_structures = rows.iter().flatten().any(|cell| cell.is_smiles);
    Ok(ItemsTable { columns, rows, caption, has_structures })
}

fn is_scored(frames: &[DataFrame]) -> bool {
    frames.iter().any(|frame| frame.height() > 0)
}

/// An item with its run and its row in the frame of the run.
struct RankedItem {
    run: usize,
    row: usize,
    item: u64,
    score: f64,
}

/// The items of all frames, best first, each item once.
fn rank_items(runs: &[RunData], frames: &[DataFrame]) -> Result<Vec<RankedItem>> {
    let mut all = Vec::new();
    for (run, frame) in frames.iter().enumerate() {
        let items = schema::u64s(frame, DB_IDX)?.into_iter().zip(schema::nullable_f64s(frame, SCORE)?).enumerate();
        all.extend(items.filter_map(|(row, (item, score))| Some(RankedItem { run, row, item, score: score? })));
    }
    // A stable sort: items with equal scores keep the order of runs and of `db_idx`.
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut seen = HashSet::new();
    all.retain(|best| seen.insert((runs[best.run].library_key(), best.item)));
    all.truncate(ROWS);
    Ok(all)
}

/// The names of the attributes and score parts to show, and the number of those that are omitted.
fn attribute_columns(frames: &[DataFrame]) -> (Vec<String>, usize) {
    let mut names: Vec<String> = Vec::new();
    for name in frames.iter().flat_map(schema::column_names) {
        let has_own_column = [DB_IDX, SCORE, RAW_SCORE, OUTCOME, REASON, EVALUATION, ITERATION].contains(&name);
        if !has_own_column && !PREDICTIONS.contains(&name) && !names.iter().any(|other| other == name) {
            names.push(name.into());
        }
    }
    let omitted = names.len().saturating_sub(COLUMNS);
    names.truncate(COLUMNS);
    (names, omitted)
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

    /// A structure to draw, or text if it is empty or too long.
    fn structure(text: &str) -> Self {
        match (1..=SMILES).contains(&text.len()) {
            true => Cell { text: text.into(), is_smiles: true, ..Cell::default() },
            false => Cell::text(text),
        }
    }

    /// An image with this description, or text if it is no SVG or too large.
    fn picture(text: &str, description: &str, bytes_left: &mut usize) -> Self {
        if !text.contains("<svg") || text.len() > PICTURE.min(*bytes_left) {
            return Cell::text(text);
        }
        *bytes_left -= text.len();
        Cell { picture: Some(BASE64_STANDARD.encode(text)), ..Cell::text(description) }
    }

    fn from_frame(frame: &DataFrame, name: &str, row: usize) -> Result<Self> {
        let Ok(column) = frame.column(name) else { return Ok(Cell::default()) };
        Ok(match column.get(row).wrap_err(name)? {
            AnyValue::Null => Cell::default(),
            AnyValue::String(text) => Cell::text(text),
            // As floats, large integers would lose digits.
            value @ (AnyValue::Int64(_) | AnyValue::UInt64(_)) => Cell::text(&value.to_string()),
            value if value.is_primitive_numeric() => value.extract().map_or_else(Cell::default, Cell::number),
            value => Cell::text(&value.to_string()),
        })
    }
}
