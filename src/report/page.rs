//! Rendering of the templates. All text is escaped, whatever the name of the template.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use super::chart::{ChartDrawing, HEIGHT, Tooltip, WIDTH};
use super::configuration::Configuration;
use super::curves::{LegendEntry, RunGroup};
use super::items::ItemsTable;
use super::map::LibraryMap;
use super::predictions::{self, Predictions};
use super::run_data::RunData;
use super::tables::{self, Table};
use crate::error::{Result, WrapErr};
use crate::frame::text::format_number;

const PAGE: &str = include_str!("page.html");
const CHARTS: &str = include_str!("charts.html");
const TABLE: &str = include_str!("table.html");
const CHART: &str = include_str!("chart.svg");
const MAP: &str = include_str!("map.svg");
const PLOT: &str = include_str!("plot.svg");
const THEME: &str = include_str!("theme.css");
const CHART_STYLE: &str = include_str!("chart.css");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("script.js");
const DRAWER: &str = include_str!("smiles-drawer/smiles-drawer.min.js");
const LICENCES: [&str; 2] = [include_str!("smiles-drawer/LICENSE"), include_str!("smiles-drawer/LICENSE-chroma-js")];

/// SHA-256 hashes of the scripts, in base64. The page allows no other scripts. A test compares them.
const SCRIPT_HASH: &str = "sha256-apBTWWfuMH2SFlxq9vzwUAjEqiTIOlKVRYQQFVZvE0s=";
const DRAWER_HASH: &str = "sha256-MltE7LrTHq578adLmWZXcPoyPZg8qvgOb5l6ywwfYP4=";

/// The content of a page.
pub(super) struct PageContext<'a> {
    pub runs: &'a [RunData],
    pub charts: Vec<ChartDrawing>,
    pub groups: &'a [RunGroup<'a>],
    /// Whether the predictions can be trusted. `None` without predictions, and if several runs are compared.
    pub predictions: Option<Predictions>,
    /// The map, or the reason why it cannot be drawn. `None` if several runs are compared.
    pub map: Option<Result<LibraryMap, String>>,
    pub items: ItemsTable,
    pub score: String,
}

/// A key figure of a run.
#[derive(Serialize)]
struct KeyFigure {
    label: String,
    value: String,
    note: String,
}

#[derive(Serialize)]
struct Page<'a> {
    title: String,
    heading: String,
    subtitle: String,
    policy: String,
    styles: Value,
    script: Value,
    drawer: Option<Value>,
    licences: [&'static str; 2],
    figures: Vec<KeyFigure>,
    legend: Vec<LegendEntry>,
    charts: Option<Value>,
    predictions: Option<PredictionsSection>,
    map: Option<Drawing<'a>>,
    scale: &'a [String],
    minimize: bool,
    map_error: Option<&'a str>,
    items: &'a ItemsTable,
    comparisons: Vec<Value>,
    tables: Vec<Value>,
    configurations: Vec<Configuration>,
    data: Value,
    score: &'a str,
}

/// The section on predictions.
#[derive(Serialize)]
struct PredictionsSection {
    title: &'static str,
    sentences: Vec<String>,
    /// Whether the first sentence is a warning.
    is_warning: bool,
    charts: Value,
}

/// A drawing as SVG, with its title, caption and description.
#[derive(Serialize)]
struct Drawing<'a> {
    title: &'a str,
    caption: &'a str,
    aria_label: &'a str,
    svg: Value,
}

/// The data of the tooltips, for the script.
#[derive(Serialize)]
struct TooltipData<'a> {
    charts: Vec<Tooltip<'a>>,
    marks: &'a [(f64, f64, u64, String, u32)],
}

/// The HTML page of a report.
pub(super) fn report(context: PageContext<'_>) -> Result<String> {
    let runs = context.runs;
    let first = context.charts.len();
    let prediction_charts = context.predictions.as_ref().map_or(&[][..], |section| &section.charts);
    let section = match &context.predictions {
        Some(Predictions { sentences, is_warning, charts }) => Some(PredictionsSection {
            title: predictions::TITLE,
            sentences: sentences.clone(),
            is_warning: *is_warning,
            charts: render_charts(charts, first)?,
        }),
        None => None,
    };
    let map = match &context.map {
        Some(Ok(map)) => Some(Drawing {
            title: "Map",
            caption: &map.caption,
            aria_label: &map.aria_label,
            svg: Value::from_safe_string(render("map.svg", MAP, map)?),
        }),
        _ => None,
    };
    let drawn_map = context.map.as_ref().and_then(|map| map.as_ref().ok());
    let data = TooltipData {
        charts: context.charts.iter().chain(prediction_charts).map(ChartDrawing::tooltip).collect(),
        marks: drawn_map.map_or(&[], |map| &map.marks),
    };
    // Escaped, so that no text can end the script element.
    let data = serde_json::to_string(&data).wrap_err("report")?.replace('<', "\\u003c");
    let has_structures = context.items.has_structures;
    let drawer = if has_structures { format!(" '{DRAWER_HASH}'") } else { String::new() };
    let policy = format!(
        "default-src 'none'; script-src '{SCRIPT_HASH}'{drawer}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    );
    let heading = heading(runs);
    let page = Page {
        title: heading.chars().take(70).collect(),
        heading,
        subtitle: subtitle(&context),
        policy,
        styles: Value::from_safe_string(format!("{THEME}{CHART_STYLE}{STYLE}")),
        script: Value::from_safe_string(SCRIPT.into()),
        drawer: has_structures.then(|| Value::from_safe_string(DRAWER.into())),
        licences: LICENCES,
        figures: figures(runs)?,
        legend: context.groups.iter().map(RunGroup::legend_entry).collect(),
        charts: (first > 0).then(|| render_charts(&context.charts, 0)).transpose()?,
        predictions: section,
        map,
        scale: drawn_map.map_or(&[], |map| &map.scale),
        minimize: runs.iter().any(|run| run.minimize),
        map_error: context.map.as_ref().and_then(|map| map.as_ref().err()).map(String::as_str),
        items: &context.items,
        comparisons: render_tables(tables::comparison_tables(runs)?)?,
        tables: render_tables(tables::detail_tables(runs))?,
        configurations: context.groups.iter().map(|group| Configuration::new(&group.runs)).collect(),
        data: Value::from_safe_string(data),
        score: &context.score,
    };
    render("page.html", PAGE, &page)
}

/// The SVG of a plot.
pub(super) fn plot(charts: Vec<ChartDrawing>, legend: Vec<LegendEntry>) -> Result<String> {
    #[derive(Serialize)]
    struct Plot<'a> {
        width: f64,
        height: f64,
        line: f64,
        panel: f64,
        style: Value,
        charts: Vec<Drawing<'a>>,
        legend: Vec<LegendEntry>,
    }
    const LINE: f64 = 20.0;
    let legend = if legend.len() > 1 { legend } else { Vec::new() };
    let plot = Plot {
        width: WIDTH * charts.len() as f64,
        height: HEIGHT + LINE * legend.len() as f64 + 8.0,
        line: LINE,
        panel: WIDTH,
        style: Value::from_safe_string(with_light_colours(CHART_STYLE)),
        charts: draw_charts(&charts)?,
        legend,
    };
    render("plot.svg", PLOT, &plot)
}

/// The drawings of charts.
fn draw_charts(charts: &[ChartDrawing]) -> Result<Vec<Drawing<'_>>> {
    let drawings = charts.iter().map(|chart| {
        Ok(Drawing {
            title: chart.title,
            caption: &chart.caption,
            aria_label: &chart.aria_label,
            svg: Value::from_safe_string(render("chart.svg", CHART, chart)?),
        })
    });
    drawings.collect()
}

/// The HTML of charts. `first` is the position of the first one among all charts of the page.
fn render_charts(charts: &[ChartDrawing], first: usize) -> Result<Value> {
    #[derive(Serialize)]
    struct Charts<'a> {
        charts: Vec<Drawing<'a>>,
        first: usize,
    }
    let charts = Charts { charts: draw_charts(charts)?, first };
    Ok(Value::from_safe_string(render("charts.html", CHARTS, charts)?))
}

/// Renders a template.
fn render(name: &'static str, template: &'static str, context: impl Serialize) -> Result<String> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().wrap_err(name)?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_template(name, template).wrap_err(name)?;
    environment.get_template(name).and_then(|template| template.render(Value::from(Serde(context)))).wrap_err(name)
}

/// A style sheet with its variables replaced by the colours of the light theme, as typesetting programs support no variables.
fn with_light_colours(style: &str) -> String {
    let light = THEME.split('}').next().unwrap_or_default();
    let mut style = style.to_string();
    for (name, value) in light.lines().filter_map(|line| line.trim().trim_end_matches(';').split_once(':')) {
        style = style.replace(&format!("var({name})"), value.trim());
    }
    style
}

fn heading(runs: &[RunData]) -> String {
    match runs {
        [run] => format!("{}: {}", run.dataset_name(), run.rule()),
        runs => {
            let common = |value: &dyn Fn(&RunData) -> String| {
                runs.iter()
                    .map(value)
                    .reduce(|a, b| if a == b { a } else { String::new() })
                    .filter(|value| !value.is_empty())
            };
            let dataset = common(&RunData::dataset_name).unwrap_or("several libraries".into());
            let rule = common(&RunData::rule).unwrap_or("several rules".into());
            format!("{dataset}: {rule}, {} runs", runs.len())
        }
    }
}

fn subtitle(context: &PageContext<'_>) -> String {
    let better = if context.runs.iter().any(|run| run.minimize) { "smaller is better" } else { "larger is better" };
    let status = |run: &RunData| {
        let manifest = run.log.manifest();
        manifest.ended.as_ref().map_or_else(|| manifest.status(), |ended| format!("ended: {ended}"))
    };
    match context.runs {
        [run] => format!(
            "Run {}, seed {}. Score: {} ({better}). {}.",
            run.name,
            run.log.manifest().seed,
            run.score(),
            capitalize(&status(run))
        ),
        _ => format!("Score: {} ({better}).", context.score),
    }
}

fn capitalize(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The key figures of one run: its results and cost.
fn figures(runs: &[RunData]) -> Result<Vec<KeyFigure>> {
    let [run] = runs else { return Ok(Vec::new()) };
    let mut figures = Vec::new();
    let mut figure =
        |label: &str, value: String, note: String| figures.push(KeyFigure { label: label.into(), value, note });
    let (evaluations, scored) = (run.counts.evaluations, run.counts.newly_scored());
    let rows = run.log.manifest().dataset.as_ref().map(|dataset| dataset.rows).filter(|rows| *rows > 0);
    let share = rows.map_or(String::new(), |rows| format!("{} % of {rows}", percent(evaluations as f64 / rows as f64)));
    figure("Best score", run.best()?.map_or("none".into(), format_number), String::new());
    if let Some(curve) = &run.true_curve {
        let found = curve.point_at(u64::MAX).found;
        figure("True best found", format!("{found} of {}", curve.top()), String::new());
    }
    if evaluations == scored {
        figure("Items scored", scored.to_string(), share);
    } else {
        figure("Evaluations", evaluations.to_string(), share);
        figure("Items scored", scored.to_string(), String::new());
    }
    if let Some(hits) = run.log.manifest().ended.as_ref().and_then(|ended| ended.hits) {
        figure(
            "Hits",
            hits.found.to_string(),
            format!("{} in the last {} scores", hits.recent_hits, hits.recent_scores),
        );
    }
    if let Some(audit) = &run.log.manifest().audit {
        figure("Hits missing", format!("at most {}", audit.missing), format!("audit of {} items", audit.drawn));
    }
    figure("Iterations", run.log.iterations().len().to_string(), String::new());
    figure("Reused", run.counts.reused.to_string(), String::new());
    figure("Rejected", run.counts.rejected.to_string(), String::new());
    figure("Failed", run.counts.failed.to_string(), String::new());
    if let Some(ended) = &run.log.manifest().ended {
        let seconds = ended.at.saturating_sub(run.log.manifest().started);
        figure("Elapsed time", duration(seconds), String::new());
        for (items, label) in [(ended.retries, "Retried"), (ended.scored_again, "Scored again after a kill")] {
            if items > 0 {
                figure(label, items.to_string(), String::new());
            }
        }
    }
    Ok(figures)
}

/// A fraction in percent, rounded to a tenth, but never rounded to 0.
fn percent(fraction: f64) -> String {
    let percent = 100.0 * fraction;
    format_number(match percent < 0.1 {
        true => format!("{percent:.0e}").parse().unwrap_or(percent),
        false => (10.0 * percent).round() / 10.0,
    })
}

fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// The HTML of tables.
fn render_tables(tables: Vec<Table>) -> Result<Vec<Value>> {
    tables.iter().map(|table| Ok(Value::from_safe_string(render("table.html", TABLE, table)?))).collect()
}
