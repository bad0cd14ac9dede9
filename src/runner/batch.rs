//! An iteration from when its items are chosen to when the rule has seen their scores.

use polars::prelude::DataFrame;

use super::stop::Summary;
use crate::database::VectorDatabase;
use crate::error::Result;
use crate::ledger::{ScoreRequest, without_scores};
use crate::step::Step;

/// An iteration whose items are chosen.
pub(super) struct Batch {
    pub(super) iteration: u32,
    pub(super) queries: DataFrame,
    pub(super) scores: Scores,
    /// As far as it is known.
    pub(super) summary: Summary,
    /// Whether an earlier process committed it.
    pub(super) is_of_earlier: bool,
}

/// Where the scores of a batch are.
pub(super) enum Scores {
    /// Asked for.
    Out(ScoreRequest),
    /// In the log, but the rule does not know of them yet: to it they are out.
    Logged(DataFrame),
    /// Known to the rule.
    Seen(DataFrame),
}

impl Batch {
    /// What the rule may see of it: the scored frame, or what was chosen while its scores are out.
    pub(super) fn frame(&self) -> Result<DataFrame> {
        match &self.scores {
            Scores::Out(order) => Ok(order.results.clone()),
            Scores::Logged(scored) => without_scores(scored),
            Scores::Seen(scored) => Ok(scored.clone()),
        }
    }

    pub(super) fn step<'a>(
        &'a self,
        results: &'a DataFrame,
        out: &'a [DataFrame],
        database: &'a dyn VectorDatabase,
        seed: u64,
    ) -> Step<'a> {
        let (iteration, queries, is_replay) = (self.iteration, &self.queries, self.is_of_earlier);
        Step { iteration, queries, results, pending: out, database, seed, is_replay }
    }
}
