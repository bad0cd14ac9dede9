//! A run as a page that one can see, explain and hand on: one file of HTML without a network, or the curves alone as SVG.
//!
//! What is told is gathered into plain structs (`told`, `curves`, `map`, `items`, `recipe`), which templates show
//! (`page`). Everything is there without scripts; the script adds reading values off, sorting, filtering, structures.
//! However large a run is, its page is not: at most so many points, marks and rows of it are shown.

mod chart;
mod curves;
mod items;
mod map;
mod page;
mod plane;
mod reasons;
mod recipe;
mod tables;
mod told;
mod view;
mod walks;

use std::path::Path;

use self::chart::Chart;
use self::told::{Read, Told};
use crate::error::{Error, Result};
use crate::evaluate::{DEFAULT_TOP, GroundTruth};

/// What a report shows beside the runs themselves.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReportOptions {
    /// Where the true scores of all items are: the share of the best that was found is shown then.
    pub truth: Option<GroundTruth>,
    /// How many items are the best. Where `None`, the true best are 100, or as many as have a true score, if those are fewer;
    /// and those in the sum of the best are 100, or half of what has a score, where that is fewer than 200.
    pub top: Option<usize>,
    /// The column whose SMILES are drawn; one that is named so, where nothing is said.
    pub smiles: Option<String>,
    /// A column of SVG, each shown as an image: what scripts it has do not run, what it refers to is not fetched.
    pub picture: Option<String>,
    /// Where the library of the run is now, if it was moved since: the map is drawn of it.
    pub library: Option<String>,
}

impl ReportOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the true scores of all items are.
    pub fn truth(mut self, truth: GroundTruth) -> Self {
        self.truth = Some(truth);
        self
    }

    /// How many items are the best.
    pub fn top(mut self, top: usize) -> Self {
        self.top = Some(top);
        self
    }

    /// The column whose SMILES are drawn.
    pub fn smiles(mut self, smiles: impl Into<String>) -> Self {
        self.smiles = Some(smiles.into());
        self
    }

    /// A column of SVG, each shown as an image.
    pub fn picture(mut self, picture: impl Into<String>) -> Self {
        self.picture = Some(picture.into());
        self
    }

    /// Where the library of the run is now.
    pub fn library(mut self, library: impl Into<String>) -> Self {
        self.library = Some(library.into());
        self
    }
}

/// Makes a page of HTML of a run, or of several to compare them: runs of one recipe that differ in their seeds are one
/// line with a band. The same runs give the same page.
///
/// A run may go on meanwhile, may have been killed, may be empty; where its dataset is gone the page says so, in place
/// of the map.
///
/// # Errors
/// What is not a run folder, or is damaged; a truth or a column that does not fit; runs of which some maximise and some
/// minimise; a library of several runs, which have no map.
pub fn report<P: AsRef<Path>>(runs: &[P], options: &ReportOptions) -> Result<String> {
    let runs = read(runs, options)?;
    let groups = curves::groups(&runs);
    let score = score_of(&runs);
    let mut charts = if is_any_scored(&runs) { curves::charts(&groups, &score) } else { Vec::new() };
    let mut map = None;
    if let [run] = runs.as_slice() {
        charts.extend(curves::iterations(run, &score)?);
        map = Some(map::map(run, options.library.as_deref()).map_err(|error| error.to_string()));
    } else if options.library.is_some() {
        return Err(Error::Config("library: the map of one run is drawn of it; several runs have none".into()));
    }
    page::report(page::Told {
        charts: charts.into_iter().map(Chart::draw).collect(),
        groups: &groups,
        map,
        items: items::items(&runs, options)?,
        score,
        runs: &runs,
    })
}

/// Draws the curves of a run, or of several, as SVG for a paper: as in [`report`], the best score and the sum of the
/// best against items scored, and the share found where the truth is known.
///
/// # Errors
/// As [`report`]; no run with a score.
pub fn plot<P: AsRef<Path>>(runs: &[P], options: &ReportOptions) -> Result<String> {
    let runs = read(runs, options)?;
    if let Some(run) = runs.first().filter(|_| !is_any_scored(&runs)) {
        return Err(Error::input(run.log.path(), "nothing to draw: no item has a score"));
    }
    let groups = curves::groups(&runs);
    let charts = curves::charts(&groups, &score_of(&runs));
    page::plot(charts.into_iter().map(Chart::draw).collect(), groups.iter().map(curves::Group::legend).collect())
}

fn read<P: AsRef<Path>>(runs: &[P], options: &ReportOptions) -> Result<Vec<Told>> {
    if options.top == Some(0) {
        return Err(Error::Config("top: expected at least 1, found 0".into()));
    }
    let read = runs.iter().map(|run| Read::of(run.as_ref())).collect::<Result<Vec<_>>>()?;
    let summed = options.top.unwrap_or_else(|| summed(&read));
    let told = read.into_iter().zip(runs).map(|(read, run)| Told::of(read, run.as_ref(), options, summed));
    let runs = told.collect::<Result<Vec<_>>>()?;
    let Some(first) = runs.first() else {
        return Err(Error::Config("expected at least one run, found none".into()));
    };
    if let Some(other) = runs.iter().find(|run| run.minimize != first.minimize) {
        let does = |run: &Told| if run.minimize { "minimises" } else { "maximises" };
        let (first, other) = ((first, does(first)), (other, does(other)));
        let reason = format!("{}, but {} {}: they cannot be compared", other.1, first.0.log.path().display(), first.1);
        return Err(Error::input(other.0.log.path(), reason));
    }
    Ok(runs)
}

/// How many are in the sum of the best, where nothing is said: so many that each run has as many before it is half over.
fn summed(runs: &[Read]) -> usize {
    let scored = runs.iter().map(Read::scored).filter(|scored| *scored > 0).min().unwrap_or_default();
    (scored.div_ceil(2) as usize).clamp(1, DEFAULT_TOP)
}

fn is_any_scored(runs: &[Told]) -> bool {
    runs.iter().any(|run| run.counts.scored > 0)
}

/// What the vertical axes are of.
fn score_of(runs: &[Told]) -> String {
    const MOST: usize = 40;
    let first = runs.first().map(Told::score).unwrap_or_default();
    match runs.iter().all(|run| run.score() == first) && first.chars().count() <= MOST {
        true => first,
        false => "score".into(),
    }
}
