//! The part of the projection plane that the map shows, and its scale.

use super::chart::round_to_tenth;

pub(super) const WIDTH: f64 = 900.0;
pub(super) const HEIGHT: f64 = 560.0;
pub(super) const MARGIN: f64 = 16.0;

/// Maps points of the plane to coordinates of the drawing, with the same scale in both directions.
pub(super) struct Viewport {
    centre: (f64, f64),
    scale: f64,
}

impl Viewport {
    /// The viewport in which all points fit.
    pub fn fit<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> Self {
        let (mut low, mut high) = ((f64::INFINITY, f64::INFINITY), (f64::NEG_INFINITY, f64::NEG_INFINITY));
        for (x, y) in points {
            (low, high) = ((low.0.min(*x), low.1.min(*y)), (high.0.max(*x), high.1.max(*y)));
        }
        let max_scale = |low: f64, high: f64, size: f64| (size - 2.0 * MARGIN) / (high - low);
        let scale = max_scale(low.0, high.0, WIDTH).min(max_scale(low.1, high.1, HEIGHT));
        let centre = ((low.0 + high.0) / 2.0, (low.1 + high.1) / 2.0);
        match scale.is_finite() && centre.0.is_finite() && centre.1.is_finite() {
            true => Viewport { centre, scale },
            false => Viewport { centre: (0.0, 0.0), scale: 1.0 },
        }
    }

    /// The coordinates of a point in the drawing. Points far outside are moved to just outside.
    pub fn to_drawing(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let across = WIDTH / 2.0 + (x - self.centre.0) * self.scale;
        let down = HEIGHT / 2.0 - (y - self.centre.1) * self.scale;
        (round_to_tenth(across.clamp(-WIDTH, 2.0 * WIDTH)), round_to_tenth(down.clamp(-HEIGHT, 2.0 * HEIGHT)))
    }
}
