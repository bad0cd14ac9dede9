//! Where the time of an iteration goes.

use std::time::Instant;

/// Measures one stage after the other.
pub(super) struct Watch(Instant);

impl Watch {
    pub(super) fn start() -> Self {
        Watch(Instant::now())
    }

    /// Adds what has passed since the last stage ended.
    pub(super) fn lap(&mut self, stage: &mut f64) {
        let now = Instant::now();
        *stage += (now - self.0).as_secs_f64();
        self.0 = now;
    }
}
