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

/// Why items are without an answer, and what follows from it.
#[derive(Debug)]
pub struct Unanswered {
    pub(super) reason: String,
    /// Whether nothing that this attempt answered counts.
    pub(super) void: bool,
    /// Whether asking again may help.
    pub(super) again: bool,
    /// How long the other side asks to be left alone.
    pub(super) after: Option<Duration>,
}

impl Unanswered {
    /// The scorer ended its answers, and left items out.
    pub(super) fn silence() -> Self {
        Unanswered { reason: "no answer".into(), void: false, again: true, after: None }
    }
}

impl Trouble {
    /// What was answered counts; the rest is asked again.
    pub(super) fn unanswered(reason: impl Into<String>) -> Self {
        Trouble::Unanswered(Unanswered { reason: reason.into(), void: false, again: true, after: None })
    }

    /// The ids are wrong, so none of the attempt's scores can be trusted; all is asked again.
    pub(super) fn void(reason: impl Into<String>) -> Self {
        Trouble::Unanswered(Unanswered { reason: reason.into(), void: true, again: true, after: None })
    }

    /// Asking again would give the same.
    pub(super) fn last(reason: impl Into<String>) -> Self {
        Trouble::Unanswered(Unanswered { reason: reason.into(), void: true, again: false, after: None })
    }

    /// The other side asks for a wait.
    pub(super) fn after(mut self, wait: Option<Duration>) -> Self {
        if let Trouble::Unanswered(unanswered) = &mut self {
            unanswered.after = wait;
        }
        self
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Stop(error)
    }
}
