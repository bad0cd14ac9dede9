//! The library in two dimensions: a sample of it in grey, the items scored by their score, the queries' paths.

use std::collections::HashSet;
use std::path::Path;

use ndarray::Array2;
use serde::Serialize;

use super::plane::Plane;
use super::told::Told;
use super::view::{HEIGHT, View, WIDTH};
use super::walks::{Drawn, Walks};
use crate::database::{LanceDatabase, Metric, OpenOptions, VectorDatabase, is_remote};
use crate::error::{Error, Result};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX, EMBEDDING, ITERATION};
use crate::frame::text::format_number;
use crate::random::random_stream;

/// Items of the sample, at most.
const SAMPLE: usize = 5000;
/// Numbers of the sample's embeddings, at most.
const NUMBERS: usize = 16 << 20;
/// Items scored that are marked, at most.
const MARKS: usize = 2000;
/// Of these, the best.
const BEST: usize = 500;
/// Colours.
const COLOURS: usize = 8;

/// The map as the template draws it and the script reads it.
#[derive(Serialize)]
pub(super) struct Map {
    width: f64,
    height: f64,
    pub caption: String,
    background: String,
    /// Paths of dots, one for each colour, the worst first.
    colours: Vec<String>,
    /// The scores at which colours change, as text.
    pub scale: Vec<String>,
    walks: Drawn,
    /// `(x, y, db_idx, score, iteration)`, the best first.
    pub marks: Vec<(f64, f64, u64, String, u32)>,
    pub says: String,
}

/// Draws the map of a run; what it needs the dataset for, wherever that is now.
///
/// # Errors
/// The dataset is gone, or is another one now.
pub(super) fn map(run: &Told, library: Option<&str>) -> Result<Map> {
    let database = open(run, library)?;
    let vectors = |ids: &[u64]| -> Result<Array2<f64>> {
        Ok(convert::matrix::<f32>(&database.take(ids)?, EMBEDDING)?.view().mapv(f64::from))
    };
    let most = SAMPLE.min((NUMBERS / database.dim().max(1)).max(100));
    let sample = vectors(&database.sample(most, &mut random_stream(0, "report", 0, 0))?)?;
    let plane = Plane::of(sample.view(), database.metric() == Metric::Cosine, &mut random_stream(0, "report", 0, 1));
    let background = plane.places(sample.view());
    drop(sample);

    let chosen = chosen(run)?;
    let mut places = Vec::with_capacity(chosen.len());
    // So that wide embeddings take no more room than the sample does.
    for some in chosen.chunks(most) {
        places.extend(plane.places(vectors(&some.iter().map(|mark| mark.item).collect::<Vec<_>>())?.view()));
    }
    let view = View::of(background.iter().chain(&places));
    // Its queries have no path: each iteration's are new places.
    let walks = match run.rule().as_str() {
        "surrogate" => Drawn::default(),
        _ => Walks::read(run, &plane, &view)?.drawn(),
    };

    let scores: Vec<f64> = chosen.iter().map(|mark| mark.score).collect();
    let cuts = cuts(&scores);
    let mut colours = vec![String::new(); COLOURS];
    for (mark, place) in chosen.iter().zip(&places).rev() {
        colours[cuts.iter().filter(|cut| mark.score >= **cut).count()].push_str(&dot(view.place(*place)));
    }
    let marks = chosen.iter().zip(&places).map(|(mark, place)| {
        let (x, y) = view.place(*place);
        (x, y, mark.item, format_number(run.raw(mark.score)), mark.iteration)
    });
    let caption = caption(run, &database, &plane, background.len(), chosen.len(), &walks);
    let says = format!(
        "Map of {} items of the library and of {} items that were scored, by score.",
        background.len(),
        chosen.len()
    );
    Ok(Map {
        width: WIDTH,
        height: HEIGHT,
        caption,
        background: background.into_iter().map(|place| dot(view.place(place))).collect(),
        colours,
        // Of one score there is none.
        scale: cuts.iter().filter(|_| cuts.first() < cuts.last()).map(|cut| format_number(run.raw(*cut))).collect(),
        marks: marks.collect(),
        walks,
        says,
    })
}

/// What is to be known to read it.
fn caption(
    run: &Told,
    database: &LanceDatabase,
    plane: &Plane,
    sampled: usize,
    marked: usize,
    walks: &Drawn,
) -> String {
    let shown = match (run.counts.scored as usize).saturating_sub(marked) {
        0 if marked == 0 => "nothing, as no item has a score".into(),
        0 => format!("all {marked} items that have a score"),
        more => {
            format!("the best {BEST} items and {} of the others that have a score ({more} are left out)", marked - BEST)
        }
    };
    let percent = plane.explained.map(|share| format!("{} %", format_number((1000.0 * share).round() / 10.0)));
    let mut caption = format!(
        "Grey: {sampled} of the library's {} items, at random; coloured: {shown}. The plane is that of the sample's first \
         two principal components, which explain {} and {} of its variance.",
        database.len(),
        percent[0],
        percent[1],
    );
    if !walks.paths.is_empty() {
        caption
            .push_str(" Lines are the paths of the queries: a ring where one began, a cross where one was given up.");
    }
    if walks.left_out > 0 {
        caption.push_str(&format!(" Those of {} starting queries are left out.", walks.left_out));
    }
    caption
}

/// The dataset, at the version that the run reads, without attributes.
fn open(run: &Told, library: Option<&str>) -> Result<LanceDatabase> {
    let manifest = run.log.manifest();
    let (Some(dataset), Some(known)) = (&manifest.dataset, manifest.library()) else {
        return Err(Error::input(run.log.path(), "its library is not a dataset"));
    };
    let (place, version) = (library.unwrap_or(known), Some(dataset.version));
    let opened = match run.config() {
        Some(mut config) => {
            config.database.path = place.into();
            config.database(version)
        }
        None => LanceDatabase::open_with(
            place,
            &OpenOptions { version, metric: Some(dataset.metric), ..Default::default() },
        ),
    };
    let database =
        opened.map_err(|error| match library.is_none() && !is_remote(place) && !Path::new(place).exists() {
            true => Error::input(place, "is not there; if it was moved, say where it is: --library DATASET"),
            false => error,
        })?;
    run.log.check_dataset(database.identity())?;
    database.columns::<&str>(&[])
}

/// An item to be marked.
struct Mark {
    item: u64,
    score: f64,
    iteration: u32,
}

/// The best items, and an even choice of the others; the best first.
fn chosen(run: &Told) -> Result<Vec<Mark>> {
    let (items, scores) = (schema::u64s(&run.met, DB_IDX)?, run.scores()?);
    let iterations = schema::u32s(&run.met, ITERATION)?;
    let marks = items.into_iter().zip(scores).zip(iterations);
    let all: Vec<Mark> =
        marks.filter_map(|((item, score), iteration)| Some(Mark { item, score: score?, iteration })).collect();
    if all.len() <= MARKS {
        return Ok(all);
    }
    let (others, rest) = (MARKS - BEST, all.len() - BEST);
    let taken: HashSet<usize> = (0..others).map(|at| BEST + at * rest / others).chain(0..BEST).collect();
    Ok(all.into_iter().enumerate().filter(|(at, _)| taken.contains(at)).map(|(_, mark)| mark).collect())
}

/// The scores at which colours change: evenly between those of the 5 % best and worst, so that single ones do not decide,
/// unless all others are alike.
fn cuts(descending: &[f64]) -> Vec<f64> {
    let quantile = |share: f64| descending.get((share * descending.len() as f64) as usize).copied();
    let between = quantile(0.05).zip(quantile(0.95)).filter(|(high, low)| high > low);
    let (high, low) = between.or(descending.first().copied().zip(descending.last().copied())).unwrap_or_default();
    let at = |share: f64| low * (1.0 - share) + high * share;
    (1..COLOURS).map(|cut| at((cut as f64 - 0.5) / (COLOURS - 1) as f64)).collect()
}

fn dot((x, y): (f64, f64)) -> String {
    format!("M{x} {y}h0")
}
