//! Faults of scorers: why items have no answer, and who is at fault.

use std::time::Duration;

use crate::error::Error;

/// Why an attempt did not answer every item.
#[derive(Debug)]
pub enum Trouble {
    /// Some items have no answer.
    Unanswered(Unanswered),
    /// The run must stop.
    Stop(Error),
}

/// Why some items have no answer.
#[derive(Debug)]
pub struct Unanswered {
    pub(super) reason: String,
    pub(super) kind: Kind,
    /// Whether all answers of the attempt are discarded.
    pub(super) void: bool,
    /// The delay that the service requests.
    pub(super) after: Option<Duration>,
}

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The scorer did not process the items: no connection, too busy, or no process can be started.
    Away,
    /// A timeout: an item takes too long, or the scorer hangs.
    Slow,
    /// The scorer failed while processing the items: it exited, returned invalid output, or mixed up ids.
    Broken,
    /// The answer is unusable, and a retry would cost the same and return the same.
    Unusable,
    /// The scorer ended its answers but left items out.
    LeftOut,
}

impl Unanswered {
    fn new(kind: Kind, reason: impl Into<String>) -> Self {
        Unanswered { reason: reason.into(), kind, void: false, after: None }
    }

    /// The answer is unusable, and a retry would cost the same.
    pub(super) fn unusable(reason: impl Into<String>) -> Self {
        Unanswered { void: true, ..Self::new(Kind::Unusable, reason) }
    }

    /// The scorer ended its answers but left items out.
    pub(super) fn left_out() -> Self {
        Self::new(Kind::LeftOut, "no answer")
    }
}

impl Trouble {
    /// Keeps the answers of the attempt; the other items have none.
    pub(super) fn unanswered(kind: Kind, reason: impl Into<String>) -> Self {
        Trouble::Unanswered(Unanswered::new(kind, reason))
    }

    /// The scorer failed.
    pub(super) fn broken(reason: impl Into<String>) -> Self {
        Self::unanswered(Kind::Broken, reason)
    }

    /// The ids are wrong, so all answers of the attempt are discarded.
    pub(super) fn void(reason: impl Into<String>) -> Self {
        Trouble::Unanswered(Unanswered { void: true, ..Unanswered::new(Kind::Broken, reason) })
    }

    /// The scorer is unavailable; the service may request a delay.
    pub(super) fn away(reason: impl Into<String>, after: Option<Duration>) -> Self {
        Trouble::Unanswered(Unanswered { after, ..Unanswered::new(Kind::Away, reason) })
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Stop(error)
    }
}
