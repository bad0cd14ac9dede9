//! Manual scores: given by people, labs or queues, through ask and tell.

use std::sync::Mutex;

use polars::prelude::DataFrame;

use super::Score;
use crate::error::Result;
use crate::frame::schema::DB_IDX;
use crate::panics::lock;

/// Scores that are given manually: by people, a lab or a queue. See [`Runner::ask`](crate::Runner::ask) and
/// [`Runner::tell`](crate::Runner::tell).
#[derive(Debug, Default)]
pub struct ManualScore {
    scores: Mutex<Option<DataFrame>>,
}

impl ManualScore {
    /// Starts without scores.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Score for ManualScore {
    fn score(&self, items: &DataFrame) -> Result<DataFrame> {
        let scores = lock(&self.scores).take();
        Ok(scores.unwrap_or_else(|| items.head(Some(0)).select([DB_IDX]).unwrap_or_default()))
    }

    fn is_manual(&self) -> bool {
        true
    }

    fn tell(&self, scores: &DataFrame) -> bool {
        *lock(&self.scores) = Some(scores.clone());
        true
    }
}
