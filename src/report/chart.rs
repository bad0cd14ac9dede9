//! Charts of lines and bands: where the axes' ticks are, and the paths as SVG writes them.

use serde::Serialize;

use crate::frame::text::format_number;

/// What a chart shows.
#[derive(Default)]
pub(super) struct Chart {
    pub title: &'static str,
    /// What is to be known to read it.
    pub caption: String,
    pub x_label: &'static str,
    pub y_label: String,
    pub bands: Vec<Band>,
    pub lines: Vec<Line>,
    /// Whether values hold until the next, as what was found so far does.
    pub steps: bool,
    /// The least and the greatest that the vertical axis shows at least.
    pub at_least: Option<(f64, f64)>,
}

/// The area between two values at each place.
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

/// A chart as the template draws it and the script reads it; coordinates are those of the drawing.
#[derive(Serialize)]
pub(super) struct Drawn {
    pub title: &'static str,
    pub caption: String,
    x_label: &'static str,
    y_label: String,
    width: f64,
    height: f64,
    plot: Frame,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    bands: Vec<DrawnPath>,
    lines: Vec<DrawnPath>,
    /// A sentence for who does not see it.
    pub says: String,
}

/// The part of a drawing that data may be in.
#[derive(Clone, Copy, Serialize)]
struct Frame {
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
struct DrawnPath {
    class: String,
    d: String,
    label: String,
    #[serde(skip)]
    places: Vec<Place>,
}

/// Where a point is in the drawing, `x` and `y`, and what it is, as text.
type Place = (f64, f64, String, String);

/// What a chart's values are read off from.
#[derive(Serialize)]
pub(super) struct ReadOff<'a> {
    top: f64,
    bottom: f64,
    lines: Vec<Labelled<'a>>,
}

#[derive(Serialize)]
struct Labelled<'a> {
    label: &'a str,
    places: &'a [Place],
}

impl Drawn {
    pub fn read_off(&self) -> ReadOff<'_> {
        let lines = self.lines.iter().map(|line| Labelled { label: &line.label, places: &line.places });
        ReadOff { top: self.plot.top, bottom: self.plot.bottom, lines: lines.collect() }
    }
}

pub(super) const WIDTH: f64 = 440.0;
pub(super) const HEIGHT: f64 = 300.0;
const PLOT: Frame = Frame { left: 70.0, top: 14.0, right: 416.0, bottom: 252.0 };

impl Chart {
    /// Lays it out. Numbers that cannot be drawn (a sum that overflows) are left out.
    pub fn draw(self) -> Drawn {
        let drawable = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
        let of_lines = self.lines.iter().flat_map(|line| line.points.iter().copied());
        let of_bands = self.bands.iter().flat_map(|band| &band.points).flat_map(|at| [(at.0, at.1), (at.0, at.2)]);
        let all: Vec<(f64, f64)> = of_lines.chain(of_bands).filter(drawable).collect();
        let least = self.at_least.into_iter().flat_map(|(low, high)| [low, high]);
        let x = Axis::of_counts(all.iter().map(|point| point.0), 5);
        let y = Axis::to_ticks(all.iter().map(|point| point.1).chain(least), 5);
        let place =
            |point: (f64, f64)| (x.place(point.0, PLOT.left, PLOT.right), y.place(point.1, PLOT.bottom, PLOT.top));

        let bands = self.bands.iter().map(|band| {
            let finite = |at: &&(f64, f64, f64)| [at.0, at.1, at.2].iter().all(|value| value.is_finite());
            let points: Vec<_> = band.points.iter().filter(finite).collect();
            let mut upper = self.outline(&points.iter().map(|at| place((at.0, at.2))).collect::<Vec<_>>());
            let lower = self.outline(&points.iter().map(|at| place((at.0, at.1))).collect::<Vec<_>>());
            upper.extend(lower.into_iter().rev());
            if let [(x, high), (_, low)] = upper[..] {
                // It has no width of its own.
                upper = vec![(x - LONE, high), (x + LONE, high), (x + LONE, low), (x - LONE, low)];
            }
            let d = path(&upper) + if upper.is_empty() { "" } else { "z" };
            DrawnPath { class: band.class.clone(), d, label: String::new(), places: Vec::new() }
        });
        let lines = self.lines.iter().map(|line| {
            let points: Vec<(f64, f64)> = line.points.iter().copied().filter(drawable).collect();
            let places: Vec<(f64, f64)> = points.iter().map(|point| place(*point)).collect();
            let told = points
                .iter()
                .zip(&places)
                .map(|(point, at)| (at.0, at.1, format_number(point.0), format_number(point.1)));
            let mut d = path(&self.outline(&places));
            let mut class = line.class.clone();
            if places.len() == 1 {
                d.push_str("h0");
                class.push_str(" lone");
            }
            DrawnPath { class, d, label: line.label.clone(), places: told.collect() }
        });
        let (bands, lines): (Vec<_>, Vec<_>) = (bands.collect(), lines.collect());
        let ends = lines.iter().filter_map(|line| {
            let (_, _, x, y) = line.places.last()?;
            Some(format!("{}: {y} at {x}", line.label))
        });
        let says = format!(
            "{}, {} against {}. {}",
            self.title,
            self.y_label,
            self.x_label,
            ends.collect::<Vec<_>>().join("; ")
        );
        Drawn {
            says,
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
        }
    }

    /// The corners of a line through places.
    fn outline(&self, places: &[(f64, f64)]) -> Vec<(f64, f64)> {
        if !self.steps {
            return places.to_vec();
        }
        let corners = places.windows(2).flat_map(|pair| [pair[0], (pair[1].0, pair[0].1)]);
        corners.chain(places.last().copied()).collect()
    }
}

/// Half the width of a band at a single place.
const LONE: f64 = 6.0;

/// The numbers of one direction, and its ticks at round ones.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// Of whole numbers from 0.
    fn of_counts(values: impl Iterator<Item = f64>, ticks: usize) -> Self {
        let axis = Axis::over(values.chain([0.0, 1.0]), ticks);
        Axis { step: axis.step.max(1.0), ..axis }
    }

    /// From a tick to a tick.
    fn to_ticks(values: impl Iterator<Item = f64>, ticks: usize) -> Self {
        let Axis { low, high, step } = Axis::over(values, ticks);
        Axis { low: (low / step).floor() * step, high: (high / step).ceil() * step, step }
    }

    /// That shows all values, with about so many ticks.
    fn over(values: impl Iterator<Item = f64>, ticks: usize) -> Self {
        // Beyond it, differences overflow.
        const MOST: f64 = 1e300;
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.map(|value| value.clamp(-MOST, MOST)) {
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

    fn place(&self, value: f64, from: f64, to: f64) -> f64 {
        let share = (value.clamp(self.low, self.high) - self.low) / (self.high - self.low);
        tenth(from + share * (to - from))
    }

    fn ticks(&self, from: f64, to: f64) -> Vec<Tick> {
        // A hair of room for rounding.
        let first = (self.low / self.step - 1e-6).ceil();
        let count = (self.high / self.step + 1e-6).floor() - first;
        let values = (0..=(count as usize).min(20)).map(|tick| (first + tick as f64) * self.step);
        let values: Vec<f64> = values.collect();
        // As short as they are told apart.
        let are_short = values.windows(2).all(|pair| format_number(pair[0]) != format_number(pair[1]));
        let decimals = (-self.step.log10().floor()).clamp(0.0, 17.0) as usize;
        let label = |value: f64| if are_short { format_number(value) } else { format!("{value:.decimals$}") };
        values.into_iter().map(|value| Tick { at: self.place(value, from, to), label: label(value) }).collect()
    }
}

pub(super) fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// A line through places.
pub(super) fn path(places: &[(f64, f64)]) -> String {
    let mut d = String::new();
    for (position, (x, y)) in places.iter().enumerate() {
        d.push_str(&format!("{}{x} {y}", if position == 0 { "M" } else { "L" }));
    }
    d
}
