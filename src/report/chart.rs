//! Charts of lines, bands and dots: layout, axis ticks and SVG paths.

use serde::Serialize;

use crate::frame::text::format_number;

/// The data of a chart.
#[derive(Default)]
pub(super) struct Chart {
    pub title: &'static str,
    /// The explanation below the chart.
    pub caption: String,
    pub x_label: &'static str,
    pub y_label: String,
    pub bands: Vec<Band>,
    pub lines: Vec<Line>,
    /// Points that no line joins.
    pub dots: Vec<Dots>,
    /// Whether both axes have the same range, with a line where `x` and `y` are equal. Otherwise the horizontal axis has
    /// counts, from 0.
    pub is_parity: bool,
    /// Whether lines are steps: a value holds until the next point.
    pub is_stepped: bool,
    /// A range that the vertical axis includes.
    pub y_range: Option<(f64, f64)>,
}

/// The area between a low and a high value at each `x`.
pub(super) struct Band {
    pub class: String,
    /// `(x, low, high)`.
    pub points: Vec<(f64, f64, f64)>,
}

pub(super) struct Line {
    pub class: String,
    pub label: String,
    pub points: Vec<(f64, f64)>,
}

/// Points of one kind.
pub(super) struct Dots {
    pub class: String,
    pub label: String,
    /// Whether they are crosses.
    pub are_crosses: bool,
    pub points: Vec<Dot>,
}

pub(super) struct Dot {
    pub x: f64,
    pub y: f64,
    /// What the tooltip says.
    pub text: String,
}

/// A chart as the template and the script read it, in coordinates of the drawing.
#[derive(Serialize)]
pub(super) struct ChartDrawing {
    pub title: &'static str,
    pub caption: String,
    x_label: &'static str,
    y_label: String,
    width: f64,
    height: f64,
    plot: PlotArea,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    bands: Vec<PathDrawing>,
    lines: Vec<PathDrawing>,
    dots: Vec<PathDrawing>,
    /// The line where `x` and `y` are equal.
    diagonal: Option<String>,
    /// The coordinates and the text of each dot.
    #[serde(skip)]
    dot_tooltips: Vec<(f64, f64, String)>,
    /// A description for screen readers.
    pub aria_label: String,
}

/// The area of a drawing in which data is drawn.
#[derive(Clone, Copy, Serialize)]
struct PlotArea {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

#[derive(Serialize)]
struct Tick {
    at: f64,
    label: String,
}

#[derive(Serialize)]
struct PathDrawing {
    class: String,
    d: String,
    label: String,
    #[serde(skip)]
    points: Vec<TooltipPoint>,
}

/// The coordinates of a point in the drawing, and its `x` and `y` values as text.
type TooltipPoint = (f64, f64, String, String);

/// The values that the tooltip of a chart shows.
#[derive(Serialize)]
pub(super) struct Tooltip<'a> {
    top: f64,
    bottom: f64,
    lines: Vec<TooltipLine<'a>>,
    dots: &'a [(f64, f64, String)],
}

#[derive(Serialize)]
struct TooltipLine<'a> {
    label: &'a str,
    points: &'a [TooltipPoint],
}

impl ChartDrawing {
    pub fn tooltip(&self) -> Tooltip<'_> {
        let lines = self.lines.iter().map(|line| TooltipLine { label: &line.label, points: &line.points });
        Tooltip { top: self.plot.top, bottom: self.plot.bottom, lines: lines.collect(), dots: &self.dot_tooltips }
    }
}

pub(super) const WIDTH: f64 = 440.0;
pub(super) const HEIGHT: f64 = 300.0;
const PLOT: PlotArea = PlotArea { left: 70.0, top: 14.0, right: 416.0, bottom: 252.0 };

impl Chart {
    /// Lays out the chart. Infinite numbers (a sum that overflows) are omitted.
    pub fn draw(self) -> ChartDrawing {
        let drawable = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
        let line_points = self.lines.iter().flat_map(|line| line.points.iter().copied());
        let band_points = self.bands.iter().flat_map(|band| &band.points).flat_map(|at| [(at.0, at.1), (at.0, at.2)]);
        let dot_points = self.dots.iter().flat_map(|dots| &dots.points).map(|dot| (dot.x, dot.y));
        let all: Vec<(f64, f64)> = line_points.chain(band_points).chain(dot_points).filter(drawable).collect();
        let y_range = self.y_range.into_iter().flat_map(|(low, high)| [low, high]);
        let both = || Axis::between_ticks(all.iter().flat_map(|point| [point.0, point.1]), 5);
        let (x, y) = match self.is_parity {
            true => (both(), both()),
            false => (
                Axis::counts(all.iter().map(|point| point.0), 5),
                Axis::between_ticks(all.iter().map(|point| point.1).chain(y_range), 5),
            ),
        };
        let to_drawing = |point: (f64, f64)| {
            (x.position(point.0, PLOT.left, PLOT.right), y.position(point.1, PLOT.bottom, PLOT.top))
        };

        let bands = self.bands.iter().map(|band| {
            let finite = |at: &&(f64, f64, f64)| [at.0, at.1, at.2].iter().all(|value| value.is_finite());
            let points: Vec<_> = band.points.iter().filter(finite).collect();
            let mut upper = self.outline(&points.iter().map(|at| to_drawing((at.0, at.2))).collect::<Vec<_>>());
            let lower = self.outline(&points.iter().map(|at| to_drawing((at.0, at.1))).collect::<Vec<_>>());
            upper.extend(lower.into_iter().rev());
            if let [(x, high), (_, low)] = upper[..] {
                // A single point has no width.
                upper =
                    vec![(x - HALF_WIDTH, high), (x + HALF_WIDTH, high), (x + HALF_WIDTH, low), (x - HALF_WIDTH, low)];
            }
            let d = svg_path(&upper) + if upper.is_empty() { "" } else { "z" };
            PathDrawing { class: band.class.clone(), d, label: String::new(), points: Vec::new() }
        });
        let lines = self.lines.iter().map(|line| {
            let points: Vec<(f64, f64)> = line.points.iter().copied().filter(drawable).collect();
            let coordinates: Vec<(f64, f64)> = points.iter().map(|point| to_drawing(*point)).collect();
            let tooltip = points
                .iter()
                .zip(&coordinates)
                .map(|(point, at)| (at.0, at.1, format_number(point.0), format_number(point.1)));
            let mut d = svg_path(&self.outline(&coordinates));
            let mut class = line.class.clone();
            if coordinates.len() == 1 {
                d.push_str("h0");
                class.push_str(" single");
            }
            PathDrawing { class, d, label: line.label.clone(), points: tooltip.collect() }
        });
        let (bands, lines): (Vec<_>, Vec<_>) = (bands.collect(), lines.collect());
        let diagonal = self.is_parity.then(|| svg_path(&[to_drawing((x.low, x.low)), to_drawing((x.high, x.high))]));
        let mut dot_tooltips = Vec::new();
        let dots = self.dots.into_iter().map(|Dots { class, label, are_crosses, points }| {
            let mut d = String::new();
            for dot in points.into_iter().filter(|dot| drawable(&(dot.x, dot.y))) {
                let (x, y) = to_drawing((dot.x, dot.y));
                d.push_str(&format!("M{x} {y}{}", if are_crosses { CROSS } else { "h0" }));
                dot_tooltips.push((x, y, dot.text));
            }
            PathDrawing { class, d, label, points: Vec::new() }
        });
        let dots: Vec<_> = dots.collect();
        let ends = lines.iter().filter_map(|line| {
            let (_, _, x, y) = line.points.last()?;
            Some(format!("{}: {y} at {x}", line.label))
        });
        let ends = ends.chain(dots.iter().map(|dots| format!("{}: {}", dots.label, dots.d.matches('M').count())));
        let aria_label = format!(
            "{}, {} against {}. {}",
            self.title,
            self.y_label,
            self.x_label,
            ends.collect::<Vec<_>>().join("; ")
        );
        ChartDrawing {
            aria_label,
            title: self.title,
            caption: self.caption,
            x_label: self.x_label,
            y_label: self.y_label,
            width: WIDTH,
            height: HEIGHT,
            plot: PLOT,
            x_ticks: x.ticks(PLOT.left, PLOT.right),
            y_ticks: y.ticks(PLOT.bottom, PLOT.top),
            bands,
            lines,
            dots,
            diagonal,
            dot_tooltips,
        }
    }

    /// The corners of a line through points.
    fn outline(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        if !self.is_stepped {
            return points.to_vec();
        }
        let corners = points.windows(2).flat_map(|pair| [pair[0], (pair[1].0, pair[0].1)]);
        corners.chain(points.last().copied()).collect()
    }
}

/// A cross as part of an SVG path, from its centre.
const CROSS: &str = "m-3-3l6 6m0-6l-6 6";

/// Half the width of a band with a single point.
const HALF_WIDTH: f64 = 6.0;

/// The range of an axis, and the distance of its ticks at round numbers.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// An axis of whole numbers that starts at 0.
    fn counts(values: impl Iterator<Item = f64>, ticks: usize) -> Self {
        let axis = Axis::over(values.chain([0.0, 1.0]), ticks);
        Axis { step: axis.step.max(1.0), ..axis }
    }

    /// An axis whose ends are ticks.
    fn between_ticks(values: impl Iterator<Item = f64>, ticks: usize) -> Self {
        let Axis { low, high, step } = Axis::over(values, ticks);
        Axis { low: (low / step).floor() * step, high: (high / step).ceil() * step, step }
    }

    /// An axis that includes all values and has about `ticks` ticks.
    fn over(values: impl Iterator<Item = f64>, ticks: usize) -> Self {
        // Differences of larger values may overflow.
        const MAX: f64 = 1e300;
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.map(|value| value.clamp(-MAX, MAX)) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let size = low.abs().max(high.abs());
        if high - low <= 1e-9 * size {
            let room = if size == 0.0 { 0.5 } else { 0.05 * size };
            (low, high) = (low - room, high + room);
        }
        let rough = (high - low) / ticks as f64;
        let magnitude = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * magnitude).into_iter().find(|step| *step >= rough);
        Axis { low, high, step: step.unwrap_or(rough) }
    }

    fn position(&self, value: f64, from: f64, to: f64) -> f64 {
        let fraction = (value.clamp(self.low, self.high) - self.low) / (self.high - self.low);
        round_to_tenth(from + fraction * (to - from))
    }

    fn ticks(&self, from: f64, to: f64) -> Vec<Tick> {
        // A tolerance for rounding errors.
        let first = (self.low / self.step - 1e-6).ceil();
        let count = (self.high / self.step + 1e-6).floor() - first;
        let values = (0..=(count as usize).min(20)).map(|tick| (first + tick as f64) * self.step);
        let values: Vec<f64> = values.collect();
        // Short labels, if they are distinct.
        let are_distinct = values.windows(2).all(|pair| format_number(pair[0]) != format_number(pair[1]));
        let decimals = (-self.step.log10().floor()).clamp(0.0, 17.0) as usize;
        let label = |value: f64| if are_distinct { format_number(value) } else { format!("{value:.decimals$}") };
        values.into_iter().map(|value| Tick { at: self.position(value, from, to), label: label(value) }).collect()
    }
}

pub(super) fn round_to_tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// A line through points, as the `d` attribute of an SVG path.
pub(super) fn svg_path(points: &[(f64, f64)]) -> String {
    let mut d = String::new();
    for (position, (x, y)) in points.iter().enumerate() {
        d.push_str(&format!("{}{x} {y}", if position == 0 { "M" } else { "L" }));
    }
    d
}
