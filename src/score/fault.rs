//! Faults of scorers: why items have no answer, and who is at fault.

use std::time::Duration;

use crate::error::Error;

/// Why an attempt did not answer every item.
#[derive(Debug)]
pub enum ScorerFault {
    /// Some items have no answer.
    Attempt(AttemptFault),
    /// The run must stop.
    Fatal(Error),
}

/// Why some items have no answer.
#[derive(Debug)]
pub struct AttemptFault {
    pub(super) kind: FaultKind,
    pub(super) reason: String,
    /// Whether all answers of the attempt are discarded.
    pub(super) discards_answers: bool,
    /// The delay that the service requested (`Retry-After`).
    pub(super) retry_after: Option<Duration>,
}

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The scorer did not process the items: no connection, too busy, or no process can be started.
    Outage,
    /// A timeout: an item takes too long, or the scorer hangs.
    Timeout,
    /// The scorer failed while processing the items: it exited, returned invalid output, or mixed up ids.
    Malfunction,
    /// The answer is unusable, and a retry would cost the same and return the same.
    InvalidAnswer,
    /// The scorer ended its answers but left items out.
    MissingAnswer,
}

impl AttemptFault {
    pub(super) fn new(kind: FaultKind, reason: impl Into<String>) -> Self {
        AttemptFault { kind, reason: reason.into(), discards_answers: false, retry_after: None }
    }

    /// The answer is unusable, and a retry would cost the same.
    pub(super) fn invalid_answer(reason: impl Into<String>) -> Self {
        AttemptFault { discards_answers: true, ..Self::new(FaultKind::InvalidAnswer, reason) }
    }

    /// The scorer ended its answers but left items out.
    pub(super) fn missing_answer() -> Self {
        Self::new(FaultKind::MissingAnswer, "no answer")
    }
}

impl ScorerFault {
    /// A fault that keeps the answers of the attempt.
    pub(super) fn new(kind: FaultKind, reason: impl Into<String>) -> Self {
        ScorerFault::Attempt(AttemptFault::new(kind, reason))
    }

    /// The scorer failed.
    pub(super) fn malfunction(reason: impl Into<String>) -> Self {
        Self::new(FaultKind::Malfunction, reason)
    }

    /// The ids are wrong, so all answers of the attempt are discarded.
    pub(super) fn wrong_ids(reason: impl Into<String>) -> Self {
        ScorerFault::Attempt(AttemptFault {
            discards_answers: true,
            ..AttemptFault::new(FaultKind::Malfunction, reason)
        })
    }

    /// The scorer is unavailable. A service may request a delay before the next attempt.
    pub(super) fn outage(reason: impl Into<String>, retry_after: Option<Duration>) -> Self {
        ScorerFault::Attempt(AttemptFault { retry_after, ..AttemptFault::new(FaultKind::Outage, reason) })
    }
}

impl From<Error> for ScorerFault {
    fn from(error: Error) -> Self {
        ScorerFault::Fatal(error)
    }
}
