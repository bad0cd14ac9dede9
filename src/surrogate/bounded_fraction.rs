//! A number of items as a fraction of a count, with bounds.

/// One in `one_in` of a count, at least `min` and at most `max`.
pub(super) struct BoundedFraction {
    pub one_in: u64,
    pub min: u64,
    pub max: u64,
}

impl BoundedFraction {
    /// The fraction of a count.
    pub fn of(&self, count: u64) -> u64 {
        (count / self.one_in).clamp(self.min, self.max)
    }
}
