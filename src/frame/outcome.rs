//! What became of an item that a run asked about.

use std::fmt;

/// What became of an item. An item that nobody looked at, as the scorer was away, has no outcome: it is not booked, costs
/// nothing, and is asked for when the scorer is back.
///
/// | outcome | means | an evaluation | a failure | asked again |
/// |---|---|---|---|---|
/// | scored | a finite number | yes | no | never |
/// | rejected | a gate or the scorer says that it is not worth a score | yes, unless only free parts of the score were asked | no | never |
/// | failed | the scorer looked at it and could not | yes | yes | by `retry_failed` |
/// | *not answered* | nobody looked | no | no | always |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It has a score.
    Scored,
    /// It was found not to be worth a score; `reason` says why.
    Rejected,
    /// It could not be scored; `reason` says why.
    Failed,
}

/// What stands in the place of an outcome while only parts of an item's score are known.
pub(crate) const PENDING: &str = "open";

impl Outcome {
    const ALL: [Outcome; 3] = [Outcome::Scored, Outcome::Rejected, Outcome::Failed];

    /// As it stands in the frames: `scored`, `rejected` or `failed`.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Scored => "scored",
            Outcome::Rejected => "rejected",
            Outcome::Failed => "failed",
        }
    }

    /// The outcome of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }

    /// What a row of format 1, which has no outcomes, says by its score.
    pub(crate) fn from_score(score: Option<f64>) -> Self {
        if score.is_some() { Outcome::Scored } else { Outcome::Failed }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
