//! The outcome of an item: scored, rejected or failed.

use std::fmt;

/// The outcome of an item: the column `outcome`. While the scorer is unavailable, items get no outcome and cost nothing. They
/// are requested again when the scorer is available.
///
/// | outcome | meaning | counts as evaluation | counts as failure | requested again |
/// |---|---|---|---|---|
/// | scored | the score is a finite number | yes | no | never |
/// | rejected | a gate or the scorer rejected the item | yes, unless only free parts of the score were computed | no | never |
/// | failed | the scorer tried to score the item and failed | yes | yes | with `retry_failed` |
/// | *no outcome* | the scorer was unavailable | no | no | always |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The item has a score.
    Scored,
    /// A gate or the scorer rejected the item. `reason` says why.
    Rejected,
    /// The scorer could not score the item. `reason` says why.
    Failed,
}

/// The value of `outcome` in an answer for an item that the scorer did not look at. The item gets no outcome.
pub(crate) const UNAVAILABLE: &str = "unavailable";

/// The value of `outcome` in the ledger while some parts of an item's score are pending.
pub(crate) const PENDING: &str = "open";

impl Outcome {
    const ALL: [Outcome; 3] = [Outcome::Scored, Outcome::Rejected, Outcome::Failed];

    /// The value in frames: `scored`, `rejected` or `failed`.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Scored => "scored",
            Outcome::Rejected => "rejected",
            Outcome::Failed => "failed",
        }
    }

    /// The outcome with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }

    /// The outcome of a row of format 1, which has only a score.
    pub(crate) fn from_score(score: Option<f64>) -> Self {
        if score.is_some() { Outcome::Scored } else { Outcome::Failed }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
