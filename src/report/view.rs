//! The part of the plane that the map shows.

use super::chart::tenth;

pub(super) const WIDTH: f64 = 900.0;
pub(super) const HEIGHT: f64 = 560.0;
pub(super) const MARGIN: f64 = 16.0;

/// From places in the plane to places in the drawing, alike in both directions.
pub(super) struct View {
    centre: (f64, f64),
    scale: f64,
}

impl View {
    pub fn of<'a>(places: impl Iterator<Item = &'a (f64, f64)>) -> Self {
        let (mut low, mut high) = ((f64::INFINITY, f64::INFINITY), (f64::NEG_INFINITY, f64::NEG_INFINITY));
        for (x, y) in places {
            (low, high) = ((low.0.min(*x), low.1.min(*y)), (high.0.max(*x), high.1.max(*y)));
        }
        let room = |low: f64, high: f64, size: f64| (size - 2.0 * MARGIN) / (high - low);
        let scale = room(low.0, high.0, WIDTH).min(room(low.1, high.1, HEIGHT));
        let centre = ((low.0 + high.0) / 2.0, (low.1 + high.1) / 2.0);
        match scale.is_finite() && centre.0.is_finite() && centre.1.is_finite() {
            true => View { centre, scale },
            false => View { centre: (0.0, 0.0), scale: 1.0 },
        }
    }

    /// What is far outside stays a little outside.
    pub fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let across = WIDTH / 2.0 + (x - self.centre.0) * self.scale;
        let down = HEIGHT / 2.0 - (y - self.centre.1) * self.scale;
        (tenth(across.clamp(-WIDTH, 2.0 * WIDTH)), tenth(down.clamp(-HEIGHT, 2.0 * HEIGHT)))
    }
}
