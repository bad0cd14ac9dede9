//! Why items are without an answer, and what follows from it.

use std::time::Duration;

use crate::error::Error;

/// What kept an attempt from answering each item.
#[derive(Debug)]
pub enum Trouble {
    /// Items are without an answer.
    Unanswered(Unanswered),
    /// The run has to stop.
    Stop(Error),
}

/// Why items are without an answer.
#[derive(Debug)]
pub struct Unanswered {
    pub(super) reason: String,
    pub(super) kind: Kind,
    /// Whether nothing that this attempt answered counts.
    pub(super) void: bool,
    /// How long the other side asks to be left alone.
    pub(super) after: Option<Duration>,
}

/// Who is to be blamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody looked at the items: no connection, too busy, no process can be started.
    Away,
    /// Nothing came in time: an item takes too long, or the scorer hangs.
    Slow,
    /// The scorer broke over the items: it exited, said what is no answer, mixed up ids.
    Broken,
    /// It answered, and asking again would only cost the same answer again.
    Unusable,
    /// It ended its answers, and left items out.
    LeftOut,
}

impl Unanswered {
    fn new(kind: Kind, reason: impl Into<String>) -> Self {
        Unanswered { reason: reason.into(), kind, void: false, after: None }
    }

    /// What the scorer answered is of no use, and would cost the same again.
    pub(super) fn unusable(reason: impl Into<String>) -> Self {
        Unanswered { void: true, ..Self::new(Kind::Unusable, reason) }
    }

    /// The scorer ended its answers, and left items out.
    pub(super) fn left_out() -> Self {
        Self::new(Kind::LeftOut, "no answer")
    }
}

impl Trouble {
    /// What was answered counts; the rest is without an answer.
    pub(super) fn unanswered(kind: Kind, reason: impl Into<String>) -> Self {
        Trouble::Unanswered(Unanswered::new(kind, reason))
    }

    /// The scorer broke.
    pub(super) fn broken(reason: impl Into<String>) -> Self {
        Self::unanswered(Kind::Broken, reason)
    }

    /// The ids are wrong, so none of the attempt's scores can be trusted.
    pub(super) fn void(reason: impl Into<String>) -> Self {
        Trouble::Unanswered(Unanswered { void: true, ..Unanswered::new(Kind::Broken, reason) })
    }

    /// Nobody looked; the other side may say for how long.
    pub(super) fn away(reason: impl Into<String>, after: Option<Duration>) -> Self {
        Trouble::Unanswered(Unanswered { after, ..Unanswered::new(Kind::Away, reason) })
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Stop(error)
    }
}
