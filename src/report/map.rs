//! The map of a report: a sample of the library in two dimensions, scored items by colour, and the paths of the queries.

use std::collections::HashSet;
use std::path::Path;

use ndarray::Array2;
use serde::Serialize;

use super::paths::{PathsDrawing, QueryPaths};
use super::projection::Projection;
use super::run_data::RunData;
use super::viewport::{HEIGHT, Viewport, WIDTH};
use crate::database::{LanceDatabase, Metric, OpenOptions, VectorDatabase, is_remote};
use crate::error::{Error, Result};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX, EMBEDDING, ITERATION};
use crate::frame::text::format_number;
use crate::random::random_stream;

/// Maximum number of items in the sample.
const SAMPLE: usize = 5000;
/// Maximum number of values in the embeddings of the sample.
const SAMPLE_VALUES: usize = 16 << 20;
/// Maximum number of scored items that are marked.
const MARKS: usize = 2000;
/// Number of these marks that are the best items.
const BEST_MARKS: usize = 500;
/// Number of colours.
const COLOURS: usize = 8;

/// The map as the template and the script read it.
#[derive(Serialize)]
pub(super) struct LibraryMap {
    width: f64,
    height: f64,
    pub caption: String,
    background: String,
    /// SVG paths of dots, one for each colour, the worst scores first.
    colours: Vec<String>,
    /// The scores at which the colour changes, as text.
    pub scale: Vec<String>,
    query_paths: PathsDrawing,
    /// `(x, y, db_idx, score, iteration)` of each mark, best first.
    pub marks: Vec<(f64, f64, u64, String, u32)>,
    /// A description for screen readers.
    pub aria_label: String,
}

/// Draws the map of a run. `library` is the new path of the dataset, if it was moved.
///
/// # Errors
/// The dataset does not exist, or is not the one of the run.
pub(super) fn map(run: &RunData, library: Option<&str>) -> Result<LibraryMap> {
    let database = open(run, library)?;
    let vectors = |ids: &[u64]| -> Result<Array2<f64>> {
        Ok(convert::matrix::<f32>(&database.take(ids)?, EMBEDDING)?.view().mapv(f64::from))
    };
    let sample_size = SAMPLE.min((SAMPLE_VALUES / database.dim().max(1)).max(100));
    let sample = vectors(&database.sample(sample_size, &mut random_stream(0, "report", 0, 0))?)?;
    let projection =
        Projection::fit(sample.view(), database.metric() == Metric::Cosine, &mut random_stream(0, "report", 0, 1));
    let background = projection.project(sample.view());
    drop(sample);

    let marks = choose_marks(run)?;
    let mut points = Vec::with_capacity(marks.len());
    // In chunks, so that this needs no more memory than the sample.
    for chunk in marks.chunks(sample_size) {
        points.extend(projection.project(vectors(&chunk.iter().map(|mark| mark.item).collect::<Vec<_>>())?.view()));
    }
    let viewport = Viewport::fit(background.iter().chain(&points));
    // The queries of this rule have no paths: each iteration has new query points.
    let query_paths = match run.rule().as_str() {
        "surrogate" => PathsDrawing::default(),
        _ => QueryPaths::read(run, &projection, &viewport)?.draw(),
    };

    let scores: Vec<f64> = marks.iter().map(|mark| mark.score).collect();
    let thresholds = colour_thresholds(&scores);
    let mut colours = vec![String::new(); COLOURS];
    for (mark, point) in marks.iter().zip(&points).rev() {
        colours[thresholds.iter().filter(|threshold| mark.score >= **threshold).count()]
            .push_str(&dot(viewport.to_drawing(*point)));
    }
    let positions = marks.iter().zip(&points).map(|(mark, point)| {
        let (x, y) = viewport.to_drawing(*point);
        (x, y, mark.item, format_number(run.raw(mark.score)), mark.iteration)
    });
    let caption = caption(run, &database, &projection, background.len(), marks.len(), &query_paths);
    let aria_label = format!(
        "Map of {} items of the library and of {} scored items, coloured by score.",
        background.len(),
        marks.len()
    );
    Ok(LibraryMap {
        width: WIDTH,
        height: HEIGHT,
        caption,
        background: background.into_iter().map(|point| dot(viewport.to_drawing(point))).collect(),
        colours,
        // A single score has no scale.
        scale: thresholds
            .iter()
            .filter(|_| thresholds.first() < thresholds.last())
            .map(|threshold| format_number(run.raw(*threshold)))
            .collect(),
        marks: positions.collect(),
        query_paths,
        aria_label,
    })
}

/// The explanation below the map.
fn caption(
    run: &RunData,
    database: &LanceDatabase,
    projection: &Projection,
    sampled: usize,
    marked: usize,
    paths: &PathsDrawing,
) -> String {
    let shown = match (run.counts.scored as usize).saturating_sub(marked) {
        0 if marked == 0 => "none, as no item has a score".into(),
        0 => format!("all {marked} items with a score"),
        more => {
            format!(
                "the best {BEST_MARKS} items and {} others with a score ({more} are not shown)",
                marked - BEST_MARKS
            )
        }
    };
    let percent = projection
        .explained_variance
        .map(|fraction| format!("{} %", format_number((1000.0 * fraction).round() / 10.0)));
    let mut caption = format!(
        "Grey: a random sample of {sampled} of the {} items in the library. Coloured: {shown}. The axes are the first two \
         principal components of the sample, which explain {} and {} of its variance.",
        database.len(),
        percent[0],
        percent[1],
    );
    if !paths.paths.is_empty() {
        caption.push_str(
            " Lines are the paths of the queries: a ring marks a start, a cross an end before the end of the search.",
        );
    }
    if paths.omitted > 0 {
        caption.push_str(&format!(" The paths of {} starting queries are not shown.", paths.omitted));
    }
    caption
}

/// Opens the dataset at the version that the run reads, without attributes.
fn open(run: &RunData, library: Option<&str>) -> Result<LanceDatabase> {
    let manifest = run.log.manifest();
    let (Some(dataset), Some(recorded)) = (&manifest.dataset, manifest.dataset_path()) else {
        return Err(Error::input(run.log.path(), "the library of the run is not a Lance dataset"));
    };
    let (path, version) = (library.unwrap_or(recorded), Some(dataset.version));
    let opened = match run.config() {
        Some(mut config) => {
            config.database.path = path.into();
            config.database(version)
        }
        None => {
            LanceDatabase::open_with(path, &OpenOptions { version, metric: Some(dataset.metric), ..Default::default() })
        }
    };
    let database =
        opened.map_err(|error| match library.is_none() && !is_remote(path) && !Path::new(path).exists() {
            true => Error::input(path, "does not exist; if it was moved, pass its new path with --library DATASET"),
            false => error,
        })?;
    run.log.check_dataset(database.identity())?;
    database.columns::<&str>(&[])
}

/// A scored item to mark.
struct Mark {
    item: u64,
    score: f64,
    iteration: u32,
}

/// The best items and an even selection of the others, best first.
fn choose_marks(run: &RunData) -> Result<Vec<Mark>> {
    let (items, scores) = (schema::u64s(&run.items, DB_IDX)?, run.scores()?);
    let iterations = schema::u32s(&run.items, ITERATION)?;
    let marks = items.into_iter().zip(scores).zip(iterations);
    let all: Vec<Mark> =
        marks.filter_map(|((item, score), iteration)| Some(Mark { item, score: score?, iteration })).collect();
    if all.len() <= MARKS {
        return Ok(all);
    }
    let (others, rest) = (MARKS - BEST_MARKS, all.len() - BEST_MARKS);
    let selected: HashSet<usize> = (0..others).map(|at| BEST_MARKS + at * rest / others).chain(0..BEST_MARKS).collect();
    Ok(all.into_iter().enumerate().filter(|(at, _)| selected.contains(at)).map(|(_, mark)| mark).collect())
}

/// The scores at which the colour changes, evenly spaced between the 5 % and 95 % quantiles, so that outliers do not decide.
/// If these are equal, between the worst and the best score.
fn colour_thresholds(descending: &[f64]) -> Vec<f64> {
    let quantile = |fraction: f64| descending.get((fraction * descending.len() as f64) as usize).copied();
    let between = quantile(0.05).zip(quantile(0.95)).filter(|(high, low)| high > low);
    let (high, low) = between.or(descending.first().copied().zip(descending.last().copied())).unwrap_or_default();
    let at = |fraction: f64| low * (1.0 - fraction) + high * fraction;
    (1..COLOURS).map(|colour| at((colour as f64 - 0.5) / (COLOURS - 1) as f64)).collect()
}

/// A dot as part of an SVG path.
fn dot((x, y): (f64, f64)) -> String {
    format!("M{x} {y}h0")
}
