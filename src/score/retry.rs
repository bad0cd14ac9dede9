//! When a batch is asked again, and when its items are given up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use polars::prelude::DataFrame;

use super::answers::{Answers, Attempt};
use crate::error::{Error, Result};

/// How often a batch is asked again, and how long the waits are: the first, then twice as
/// long each time. Without jitter, so that runs are alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retries {
    pub(super) count: u32,
    pub(super) first: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Retries { count: 2, first: Duration::from_secs(1) }
    }
}

impl Retries {
    /// No wait is longer, whatever a server asks for.
    pub(super) const LONGEST: Duration = Duration::from_secs(60);

    /// The wait before the retry of that number, from 0. A server may ask for a longer one.
    fn wait(&self, retry: u32, asked: Option<Duration>) -> Duration {
        let own = self.first.saturating_mul(1 << retry.min(16));
        own.max(asked.unwrap_or_default()).min(Self::LONGEST)
    }
}

/// What kept an attempt from answering each item.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Items are without an answer.
    Unanswered(Unanswered),
    /// The run has to stop.
    Stop(Error),
}

/// Why items are without an answer, and what follows from it.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) reason: String,
    /// Whether nothing that this attempt answered counts.
    void: bool,
    /// Whether asking again may help.
    again: bool,
    /// How long the other side asks to be left alone.
    after: Option<Duration>,
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

/// Asks until each item of a batch is answered or the retries are used up. Only items without
/// an answer are asked again; in the end they are failures with the last attempt's reason.
/// `again` counts the items asked again.
pub(super) fn ask_until_answered(
    batch: &DataFrame,
    retries: &Retries,
    again: &AtomicU64,
    mut ask: impl FnMut(&DataFrame, &mut Attempt) -> Result<(), Trouble>,
) -> Result<DataFrame> {
    let mut answers = Answers::new(batch)?;
    let mut rest = batch.clone();
    for retry in 0.. {
        let mut attempt = answers.attempt();
        let outcome = match ask(&rest, &mut attempt) {
            Ok(()) => None,
            Err(Trouble::Unanswered(unanswered)) => Some(unanswered),
            Err(Trouble::Stop(error)) => return Err(error),
        };
        if outcome.as_ref().is_none_or(|outcome| !outcome.void) {
            answers.take(attempt);
        }
        let left = answers.unanswered();
        let unanswered =
            outcome.unwrap_or_else(|| Unanswered { reason: "no answer".into(), void: false, again: true, after: None });
        if left.is_empty() {
            if unanswered.reason != "no answer" {
                log::warn!("score: {} (all {} items are answered)", unanswered.reason, rest.height());
            }
            break;
        }
        if !unanswered.again || retry >= retries.count {
            log::warn!("score: {}; {} of {} items failed", unanswered.reason, left.len(), batch.height());
            answers.fail(&unanswered.reason);
            break;
        }
        let wait = retries.wait(retry, unanswered.after);
        log::warn!(
            "score: {}; asking again for {} of {} items in {wait:?}",
            unanswered.reason,
            left.len(),
            batch.height()
        );
        again.fetch_add(left.len() as u64, Ordering::Relaxed);
        rest = answers.rows(batch, left)?;
        std::thread::sleep(wait);
    }
    answers.into_frame()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_a_server_may_lengthen_them() {
        let retries = Retries { count: 9, first: Duration::from_secs(1) };
        let own: Vec<u64> = (0..8).map(|retry| retries.wait(retry, None).as_secs()).collect();
        assert_eq!(own, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(retries.wait(0, Some(Duration::from_secs(7))).as_secs(), 7);
        assert_eq!(retries.wait(4, Some(Duration::from_secs(7))).as_secs(), 16);
        assert_eq!(retries.wait(0, Some(Duration::from_secs(86400))), Retries::LONGEST);
    }
}
