//! The templates, and what they are filled with. All text is escaped, whatever a template's name.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use super::chart::{Drawn, HEIGHT, ReadOff, WIDTH};
use super::curves::{Group, Legend};
use super::items::Items;
use super::map::Map;
use super::recipe::Recipe;
use super::tables::{self, Table};
use crate::error::{Result, WrapErr};
use crate::frame::text::format_number;

const PAGE: &str = include_str!("page.html");
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

/// SHA-256 of the scripts, in base64: no other runs. A test compares.
const SCRIPT_HASH: &str = "sha256-D19ilFNJYwImg+Ewo4/hWhks6/kdf/wd48g+ZnJDFnk=";
const DRAWER_HASH: &str = "sha256-MltE7LrTHq578adLmWZXcPoyPZg8qvgOb5l6ywwfYP4=";

/// What a page is made of.
pub(super) struct Told<'a> {
    pub runs: &'a [super::Told],
    pub charts: Vec<Drawn>,
    pub groups: &'a [Group<'a>],
    /// The map, or why there is none; `None` where several runs are compared.
    pub map: Option<Result<Map, String>>,
    pub items: Items,
    pub score: String,
}

/// A number that says how it went.
#[derive(Serialize)]
struct Figure {
    label: String,
    value: String,
    beside: String,
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
    figures: Vec<Figure>,
    legend: Vec<Legend>,
    charts: Vec<Shown<'a>>,
    map: Option<Shown<'a>>,
    scale: &'a [String],
    minimize: bool,
    without_map: Option<&'a str>,
    items: &'a Items,
    comparisons: Vec<Value>,
    tables: Vec<Value>,
    recipes: Vec<Recipe>,
    data: Value,
    score: &'a str,
}

/// A drawing and what is said about it.
#[derive(Serialize)]
struct Shown<'a> {
    title: &'a str,
    caption: &'a str,
    says: &'a str,
    svg: Value,
}

/// What the script reads values off from.
#[derive(Serialize)]
struct Data<'a> {
    charts: Vec<ReadOff<'a>>,
    marks: &'a [(f64, f64, u64, String, u32)],
}

pub(super) fn report(told: Told<'_>) -> Result<String> {
    let runs = told.runs;
    let charts = told.charts.iter().map(|chart| {
        Ok(Shown {
            title: chart.title,
            caption: &chart.caption,
            says: &chart.says,
            svg: Value::from_safe_string(fill("chart.svg", CHART, chart)?),
        })
    });
    let map = match &told.map {
        Some(Ok(map)) => Some(Shown {
            title: "Map",
            caption: &map.caption,
            says: &map.says,
            svg: Value::from_safe_string(fill("map.svg", MAP, map)?),
        }),
        _ => None,
    };
    let drawn = told.map.as_ref().and_then(|map| map.as_ref().ok());
    let data =
        Data { charts: told.charts.iter().map(Drawn::read_off).collect(), marks: drawn.map_or(&[], |map| &map.marks) };
    // Nothing in it ends the element that it is in.
    let data = serde_json::to_string(&data).wrap_err("report")?.replace('<', "\\u003c");
    let structures = told.items.structures;
    let drawer = if structures { format!(" '{DRAWER_HASH}'") } else { String::new() };
    let policy = format!(
        "default-src 'none'; script-src '{SCRIPT_HASH}'{drawer}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    );
    let heading = heading(runs);
    let page = Page {
        title: heading.chars().take(70).collect(),
        heading,
        subtitle: subtitle(&told),
        policy,
        styles: Value::from_safe_string(format!("{THEME}{CHART_STYLE}{STYLE}")),
        script: Value::from_safe_string(SCRIPT.into()),
        drawer: structures.then(|| Value::from_safe_string(DRAWER.into())),
        licences: LICENCES,
        figures: figures(runs)?,
        legend: told.groups.iter().map(Group::legend).collect(),
        charts: charts.collect::<Result<_>>()?,
        map,
        scale: drawn.map_or(&[], |map| &map.scale),
        minimize: runs.iter().any(|run| run.minimize),
        without_map: told.map.as_ref().and_then(|map| map.as_ref().err()).map(String::as_str),
        items: &told.items,
        comparisons: shown(tables::comparing(runs))?,
        tables: shown(tables::telling(runs))?,
        recipes: told.groups.iter().map(|group| Recipe::of(&group.runs)).collect(),
        data: Value::from_safe_string(data),
        score: &told.score,
    };
    fill("page.html", PAGE, &page)
}

pub(super) fn plot(charts: Vec<Drawn>, legend: Vec<Legend>) -> Result<String> {
    #[derive(Serialize)]
    struct Plot<'a> {
        width: f64,
        height: f64,
        line: f64,
        panel: f64,
        style: Value,
        charts: Vec<Shown<'a>>,
        legend: Vec<Legend>,
    }
    const LINE: f64 = 20.0;
    let legend = if legend.len() > 1 { legend } else { Vec::new() };
    let panels = charts.iter().map(|chart| {
        Ok(Shown {
            title: chart.title,
            caption: &chart.caption,
            says: &chart.says,
            svg: Value::from_safe_string(fill("chart.svg", CHART, chart)?),
        })
    });
    let plot = Plot {
        width: WIDTH * charts.len() as f64,
        height: HEIGHT + LINE * legend.len() as f64 + 8.0,
        line: LINE,
        panel: WIDTH,
        style: Value::from_safe_string(as_light(CHART_STYLE)),
        charts: panels.collect::<Result<_>>()?,
        legend,
    };
    fill("plot.svg", PLOT, &plot)
}

/// Fills a template.
fn fill(name: &'static str, template: &'static str, with: impl Serialize) -> Result<String> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().wrap_err(name)?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_template(name, template).wrap_err(name)?;
    environment.get_template(name).and_then(|template| template.render(Value::from(Serde(with)))).wrap_err(name)
}

/// A style with the colours that it names as they are in the light: programs that set papers know no variables.
fn as_light(style: &str) -> String {
    let light = THEME.split('}').next().unwrap_or_default();
    let mut style = style.to_string();
    for (name, value) in light.lines().filter_map(|line| line.trim().trim_end_matches(';').split_once(':')) {
        style = style.replace(&format!("var({name})"), value.trim());
    }
    style
}

fn heading(runs: &[super::Told]) -> String {
    match runs {
        [run] => format!("{}: {}", run.library(), run.rule()),
        runs => {
            let all_alike = |value: &dyn Fn(&super::Told) -> String| {
                runs.iter()
                    .map(value)
                    .reduce(|a, b| if a == b { a } else { String::new() })
                    .filter(|value| !value.is_empty())
            };
            let library = all_alike(&super::Told::library).unwrap_or("several libraries".into());
            let rule = all_alike(&super::Told::rule).unwrap_or("several rules".into());
            format!("{library}: {rule}, {} runs", runs.len())
        }
    }
}

fn subtitle(told: &Told<'_>) -> String {
    let better = if told.runs.iter().any(|run| run.minimize) { "smaller is better" } else { "larger is better" };
    let ended = |run: &super::Told| {
        let manifest = run.log.manifest();
        manifest.ended.as_ref().map_or_else(|| manifest.status(), |ended| format!("ended: {ended}"))
    };
    match told.runs {
        [run] => format!(
            "Run {}, seed {}. Score: {} ({better}). {}.",
            run.name,
            run.log.manifest().seed,
            run.score(),
            capital(&ended(run))
        ),
        _ => format!("Score: {} ({better}).", told.score),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// What was found and what it cost, of one run.
fn figures(runs: &[super::Told]) -> Result<Vec<Figure>> {
    let [run] = runs else { return Ok(Vec::new()) };
    let mut figures = Vec::new();
    let mut figure =
        |label: &str, value: String, beside: String| figures.push(Figure { label: label.into(), value, beside });
    let (paid, scored) = (run.counts.paid, run.counts.scored_anew());
    let rows = run.log.manifest().dataset.as_ref().map(|dataset| dataset.rows).filter(|rows| *rows > 0);
    let share = rows.map_or(String::new(), |rows| format!("{} % of {rows}", percent(paid as f64 / rows as f64)));
    figure("Best score", run.best()?.map_or("none".into(), format_number), String::new());
    if let Some(found) = &run.found {
        let reached = found.point_at(u64::MAX).found;
        figure("Of the true best", format!("{reached} of {}", found.top()), String::new());
    }
    if paid == scored {
        figure("Items scored", scored.to_string(), share);
    } else {
        figure("Evaluations", paid.to_string(), share);
        figure("Items scored", scored.to_string(), String::new());
    }
    figure("Iterations", run.log.iterations().len().to_string(), String::new());
    figure("Reused", run.counts.reused.to_string(), String::new());
    figure("Rejected", run.counts.rejected.to_string(), String::new());
    figure("Failed", run.counts.failed.to_string(), String::new());
    if let Some(ended) = &run.log.manifest().ended {
        let seconds = ended.at.saturating_sub(run.log.manifest().started);
        figure("Start to end", duration(seconds), String::new());
        for (items, label) in [(ended.retries, "Retried"), (ended.asked_again, "Asked again after a stop")] {
            if items > 0 {
                figure(label, items.to_string(), String::new());
            }
        }
    }
    Ok(figures)
}

/// A share in percent, to a tenth, but that some is never none.
fn percent(share: f64) -> String {
    let percent = 100.0 * share;
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

/// Tables as they are shown.
fn shown(tables: Vec<Table>) -> Result<Vec<Value>> {
    tables.iter().map(|table| Ok(Value::from_safe_string(fill("table.html", TABLE, table)?))).collect()
}
