//! Reports of runs: one HTML file that needs no network, or the curves alone as SVG.
//!
//! The data is collected into plain structs (`run_data`, `curves`, `predictions`, `map`, `items`, `configuration`), and templates
//! render them (`page`). The page is complete without scripts. The script adds tooltips, sorting, filtering and drawings of structures.
//! The size of the page is bounded: it shows a limited number of points, marks and rows, however large the run is.

mod chart;
mod configuration;
mod curves;
mod items;
mod map;
mod page;
mod paths;
mod predictions;
mod projection;
mod reasons;
mod run_data;
mod tables;
mod viewport;

use std::path::Path;

use self::chart::Chart;
use self::run_data::{LoadedRun, RunData};
use crate::error::{Error, Result};
use crate::evaluate::{DEFAULT_TOP, GroundTruth};

/// Options of [`report`] and [`plot`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReportOptions {
    /// The true scores of all items. With them, the report shows the share of the best items that was found.
    pub truth: Option<GroundTruth>,
    /// Number of best items. The default for the true best items is 100, or all items with a true score if those are fewer. The
    /// default for the sum of the best is 100, or half of the items with a score if there are fewer than 200.
    pub top: Option<usize>,
    /// The column of SMILES that are drawn. The default is a column with `smiles` in its name.
    pub smiles: Option<String>,
    /// A column of SVG texts that are shown as images. Scripts in them do not run, and references are not fetched.
    pub picture: Option<String>,
    /// The new path of the dataset, if it was moved. The map is drawn from it.
    pub library: Option<String>,
}

impl ReportOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the true scores of all items.
    pub fn truth(mut self, truth: GroundTruth) -> Self {
        self.truth = Some(truth);
        self
    }

    /// Sets the number of best items.
    pub fn top(mut self, top: usize) -> Self {
        self.top = Some(top);
        self
    }

    /// Sets the column of SMILES that are drawn.
    pub fn smiles(mut self, smiles: impl Into<String>) -> Self {
        self.smiles = Some(smiles.into());
        self
    }

    /// Sets the column of SVG texts that are shown as images.
    pub fn picture(mut self, picture: impl Into<String>) -> Self {
        self.picture = Some(picture.into());
        self
    }

    /// Sets the new path of a moved dataset.
    pub fn library(mut self, library: impl Into<String>) -> Self {
        self.library = Some(library.into());
        self
    }
}

/// Returns an HTML page of a run, or of several runs to compare them. Runs that differ only in their seeds are one line with
/// a band. The same runs give the same page.
///
/// A run may be running, killed or empty. If its dataset does not exist, the page has a message instead of the map.
///
/// # Errors
/// A path that is not a run folder; a damaged run; true scores or columns that do not match the run; runs of which some
/// maximize and some minimize; `library` with several runs, which have no map.
pub fn report<P: AsRef<Path>>(runs: &[P], options: &ReportOptions) -> Result<String> {
    let runs = load(runs, options)?;
    let groups = curves::group_runs(&runs);
    let score = score_label(&runs);
    let mut charts = if has_scores(&runs) { curves::charts(&groups, &score) } else { Vec::new() };
    let (mut map, mut predictions) = (None, None);
    if let [run] = runs.as_slice() {
        predictions = predictions::predictions(run, &score)?;
        charts.extend(curves::iterations(run, &score)?);
        map = Some(map::map(run, options.library.as_deref()).map_err(|error| error.to_string()));
    } else if options.library.is_some() {
        return Err(Error::Config(
            "library: only the report of a single run has a map; remove this option or report one run".into(),
        ));
    }
    page::report(page::PageContext {
        charts: charts.into_iter().map(Chart::draw).collect(),
        groups: &groups,
        predictions,
        map,
        items: items::items(&runs, options)?,
        score,
        runs: &runs,
    })
}

/// Returns the curves of one or several runs as SVG, for a paper. They are those of [`report`]: the best score and the sum of
/// the best scores against cost, and, with true scores, the share of the best items found.
///
/// # Errors
/// As [`report`]; no run has a score.
pub fn plot<P: AsRef<Path>>(runs: &[P], options: &ReportOptions) -> Result<String> {
    let runs = load(runs, options)?;
    if let Some(run) = runs.first().filter(|_| !has_scores(&runs)) {
        return Err(Error::input(run.log.path(), "nothing to draw: no item has a score"));
    }
    let groups = curves::group_runs(&runs);
    let charts = curves::charts(&groups, &score_label(&runs));
    page::plot(
        charts.into_iter().map(Chart::draw).collect(),
        groups.iter().map(curves::RunGroup::legend_entry).collect(),
    )
}

fn load<P: AsRef<Path>>(runs: &[P], options: &ReportOptions) -> Result<Vec<RunData>> {
    if options.top == Some(0) {
        return Err(Error::Config("top: expected at least 1, found 0".into()));
    }
    let loaded = runs.iter().map(|run| LoadedRun::open(run.as_ref())).collect::<Result<Vec<_>>>()?;
    let top = options.top.unwrap_or_else(|| default_top(&loaded));
    let data = loaded.into_iter().zip(runs).map(|(loaded, path)| RunData::new(loaded, path.as_ref(), options, top));
    let runs = data.collect::<Result<Vec<_>>>()?;
    let Some(first) = runs.first() else {
        return Err(Error::Config("expected at least one run, found none".into()));
    };
    if let Some(other) = runs.iter().find(|run| run.minimize != first.minimize) {
        let verb = |run: &RunData| if run.minimize { "minimizes" } else { "maximizes" };
        let first_path = first.log.path().display();
        let reason = format!("{} the score, but {first_path} {} it; they cannot be compared", verb(other), verb(first));
        return Err(Error::input(other.log.path(), reason));
    }
    Ok(runs)
}

/// The default number of items in the sum of the best. Each run reaches it before half of its scored items.
fn default_top(runs: &[LoadedRun]) -> usize {
    let scored = runs.iter().map(LoadedRun::scored).filter(|scored| *scored > 0).min().unwrap_or_default();
    (scored.div_ceil(2) as usize).clamp(1, DEFAULT_TOP)
}

fn has_scores(runs: &[RunData]) -> bool {
    runs.iter().any(|run| run.counts.scored > 0)
}

/// The label of the vertical axes: the score of the runs, if it is the same and short.
fn score_label(runs: &[RunData]) -> String {
    const MAX_LENGTH: usize = 40;
    let first = runs.first().map(RunData::score).unwrap_or_default();
    match runs.iter().all(|run| run.score() == first) && first.chars().count() <= MAX_LENGTH {
        true => first,
        false => "score".into(),
    }
}
