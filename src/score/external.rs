//! External scorers (commands and HTTP services): requests, workers, timeouts, retries and outages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use polars::prelude::DataFrame;

use super::answers::{Attempt, RequestAnswers};
use super::deadline::Deadline;
use super::fault::{AttemptFault, FaultKind, ScorerFault};
use super::outage::OutageTracker;
use super::{AnswerSink, Score, Session};
use crate::error::{Error, Result};
use crate::frame::convert;
use crate::frame::schema::EMBEDDING;

/// A client for one kind of scorer: a command's pipes, or HTTP.
pub trait ScorerClient: Send + Sync {
    /// Sends items once, and records answers until the deadline.
    fn request(&self, items: &DataFrame, attempt: &mut Attempt, deadline: &Deadline) -> Result<(), ScorerFault>;

    /// Checks that items with these columns can be sent.
    fn check(&self, items: &DataFrame) -> Result<()>;

    /// Prepares for a run.
    fn begin(&mut self, session: &Session);

    /// Whether this process starts the scorer. If such a scorer never answers, it is broken: waiting for it does not help.
    fn is_started_here(&self) -> bool {
        false
    }
}

/// The number of consecutive timeouts of items scored alone after which the scorer counts as unavailable, if no item of the
/// request has an answer.
const TIMEOUTS_WITHOUT_ANSWERS: usize = 2;

/// The same, if some items of the request have answers.
const TIMEOUTS_WITH_ANSWERS: usize = 4;

/// A scorer outside of this process: a [`CommandScore`](super::CommandScore) or an [`HttpScore`](super::HttpScore). Request
/// sizes, workers, timeouts, retries and outages are the same for both. A batch of the search may need several requests.
///
/// # What happens to an item
/// - *Answer*: a finite number is the item's score. Null (with an optional `reason`), NaN, an infinity or text is a
///   failure. `"outcome": "rejected"` is a rejection. Failures and rejections have a reason and are not retried. Other numbers
///   and texts are stored as parts of the score, except for columns that were sent to the scorer.
/// - *Not looked at*: `"outcome": "unavailable"` is no answer. The other answers of the request are kept, and the item is requested
///   again as after an outage, at the earliest after the seconds in `"retry_after"`.
/// - *Outage*: the scorer is unavailable and did not process the item, or a command exits with status 75. The run waits up to
///   [`patience`](Self::patience), then stops with [`Error::Unavailable`]. The item is not evaluated. A scorer that accepts
///   items but lets all of them time out is unavailable too: `patience` counts from the first such request. A few items are
///   then scored alone, as a single item may block the others. A command that has never answered stops the run instead.
/// - *No answer*, though the scorer may have processed the item: other answers of the same request are kept. Items without an
///   answer are retried up to [`retries`](Self::retries) times with exponential backoff, finally each item alone. If other
///   items of the request have answers, items still without one fail with the last reason. If none have, the scorer is at
///   fault: one that has never answered stops the run at once, any other counts as unavailable.
/// - *Wrong ids* (an item that was not requested, or one item twice): all answers of that attempt are discarded and the request
///   is retried.
/// - *In flight when the run is interrupted*: answers that have arrived are kept. The other items count as not evaluated. A
///   resumed run scores them.
///
/// In a request of one item, there are no other answers to show whether the item or the scorer is at fault. The item fails if
/// the scorer has answered before. On a timeout, it fails if the scorer has answered since its last timeout.
pub struct ExternalScore<C> {
    pub(super) client: C,
    batch_size: usize,
    workers: usize,
    timeout: Option<Duration>,
    retries: u32,
    backoff: Duration,
    outage: OutageTracker,
    embeddings: bool,
    retry_count: AtomicU64,
    interrupt: Option<Arc<AtomicBool>>,
}

impl<C> ExternalScore<C> {
    pub(super) fn with_client(client: C, batch_size: usize, timeout: Option<Duration>) -> Self {
        ExternalScore {
            client,
            batch_size,
            workers: 1,
            timeout,
            retries: 2,
            backoff: Duration::from_secs(1),
            outage: OutageTracker::new(Duration::from_secs(300)),
            embeddings: false,
            retry_count: AtomicU64::new(0),
            interrupt: None,
        }
    }

    /// Sets the maximum number of items in one request (default 64 for a command, 32 for a service). Larger requests have less
    /// overhead per item. But requests in flight are repeated if the run is killed, so use small ones for expensive scores.
    /// If there are too few items for full requests to all workers, they are spread evenly.
    pub fn batch_size(mut self, items: usize) -> Self {
        self.batch_size = items;
        self
    }

    /// Sets the number of concurrent requests, which is the number of processes of a command (default 1).
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets the time limit of a request. After it, the process is killed or the request is cancelled
    /// (default: no limit for a command, 60 s for a service).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets how often items without an answer are retried (default 2).
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Sets the delay before the first retry. It doubles for each further retry, up to 30 s (default 1 s).
    pub fn backoff(mut self, first: Duration) -> Self {
        self.backoff = first;
        self
    }

    /// Sets how long the run waits for an unavailable scorer (default 5 minutes).
    pub fn patience(mut self, patience: Duration) -> Self {
        self.outage.set_limit(patience);
        self
    }

    /// Sends embeddings to the scorer (default no).
    pub fn embeddings(mut self, embeddings: bool) -> Self {
        self.embeddings = embeddings;
        self
    }

    /// Selects the columns to send.
    fn select_columns(&self, items: &DataFrame) -> DataFrame {
        if self.embeddings { items.clone() } else { items.drop_many([EMBEDDING]) }
    }

    fn deadline(&self, limit: Option<Duration>) -> Deadline {
        Deadline::new(limit, self.interrupt.clone())
    }
}

impl<C: ScorerClient> ExternalScore<C> {
    /// Scores the items of a request with retries until each item has an answer or has failed. Even on an error, `answers` has
    /// all answers that arrived.
    fn score_with_retries(
        &self,
        items: &DataFrame,
        answers: &mut RequestAnswers,
        sink: &mut AnswerSink<'_>,
    ) -> Result<()> {
        let mut remaining = items.clone();
        let (mut retry, mut outage_waits, mut one_by_one, mut answered_alone) = (0, 0, false, false);
        loop {
            let fault = self.attempt(&remaining, one_by_one, answers)?;
            let unanswered = answers.unanswered();
            let has_progress = unanswered.len() < remaining.height();
            if has_progress {
                answered_alone |= one_by_one;
                outage_waits = 0;
            }
            if unanswered.is_empty() {
                if let Some(fault) = fault {
                    log::warn!("score: {} (all {} items have answers)", fault.reason, remaining.height());
                }
                return Ok(());
            }
            let fault = fault.unwrap_or_else(AttemptFault::missing_answer);
            self.stop_if_interrupted()?;
            let timed_out = fault.kind == FaultKind::Timeout && !has_progress;
            // Without a retry, all items have failed or there is an outage.
            let retry_in = match fault.kind {
                FaultKind::Outage => None,
                FaultKind::InvalidAnswer if !one_by_one => {
                    self.give_up(&fault, items.height(), false, answers)?;
                    None
                }
                // The scorer may have recovered in the meantime: score items alone as long as others get answers.
                _ if one_by_one && has_progress => Some(retry_delay(self.backoff, 0)),
                _ if timed_out && !answers.has_any() && self.outage.has_given_up() => {
                    self.give_up(&fault, items.height(), true, answers)?;
                    None
                }
                _ if retry >= self.retries => {
                    self.give_up(&fault, items.height(), one_by_one && !answered_alone, answers)?;
                    None
                }
                _ if timed_out => Some(retry_delay(self.backoff, retry).min(round_to_tenths(self.outage.remaining()))),
                _ => Some(retry_delay(self.backoff, retry)),
            };
            if answers.unanswered().is_empty() {
                return Ok(());
            }
            // Store answers before the delay, so that a kill during it loses nothing.
            answers.emit(sink)?;
            remaining = convert::gather(items, &unanswered)?;
            let delay = match retry_in {
                Some(delay) => {
                    // No time is left for the whole request. Scoring items alone shows whether one of them is at fault.
                    let no_time_left = timed_out && self.outage.remaining().is_zero();
                    retry = if no_time_left { self.retries } else { (retry + 1).min(self.retries) };
                    // An item that breaks the scorer must fail alone.
                    one_by_one = retry == self.retries && fault.kind != FaultKind::MissingAnswer;
                    let (reason, left) = (&fault.reason, unanswered.len());
                    let when = if delay.is_zero() { "now".into() } else { format!("in {delay:?}") };
                    log::warn!("score: {reason}; retrying {left} of {} items {when}", items.height());
                    self.retry_count.fetch_add(unanswered.len() as u64, Ordering::Relaxed);
                    delay
                }
                None => {
                    let outage = || Error::Unavailable { reason: fault.reason.clone() };
                    // A scorer that leaves out some items is busy: that is no news until it answers none.
                    let left = self.outage.wait_left(&fault.reason, has_progress).ok_or_else(outage)?;
                    (retry, one_by_one) = (0, false);
                    outage_waits += 1;
                    retry_delay(self.backoff, outage_waits - 1).max(fault.retry_after.unwrap_or_default()).min(left)
                }
            };
            self.deadline(Some(delay)).sleep();
            self.stop_if_interrupted()?;
        }
    }

    /// Sends items once: together, or one by one.
    fn attempt(
        &self,
        items: &DataFrame,
        one_by_one: bool,
        answers: &mut RequestAnswers,
    ) -> Result<Option<AttemptFault>> {
        if !one_by_one {
            return self.request_once(items, answers);
        }
        let (mut fault, mut timeouts) = (None, 0);
        let limit = if answers.has_any() { TIMEOUTS_WITH_ANSWERS } else { TIMEOUTS_WITHOUT_ANSWERS };
        for row in 0..items.height() {
            let item_fault = self.request_once(&items.slice(row as i64, 1), answers)?;
            let kind = item_fault.as_ref().map(|fault| fault.kind);
            timeouts = if kind == Some(FaultKind::Timeout) { timeouts + 1 } else { 0 };
            fault = item_fault.or(fault);
            if kind == Some(FaultKind::Outage) || self.deadline(None).is_interrupted() {
                break;
            }
            if timeouts >= limit && self.is_broken_process() {
                break;
            }
            if timeouts >= limit && self.outage.remaining().is_zero() {
                return Ok(fault.map(|fault: AttemptFault| AttemptFault { kind: FaultKind::Outage, ..fault }));
            }
        }
        Ok(fault)
    }

    fn request_once(&self, items: &DataFrame, answers: &mut RequestAnswers) -> Result<Option<AttemptFault>> {
        let (start, mut attempt) = (Instant::now(), answers.attempt(items)?);
        let fault = match self.client.request(items, &mut attempt, &self.deadline(self.timeout)) {
            Ok(()) => attempt.invalid_answer().or_else(|| attempt.outage()),
            Err(ScorerFault::Attempt(fault)) => Some(fault),
            Err(ScorerFault::Fatal(error)) => {
                answers.merge(attempt);
                return Err(error);
            }
        };
        let is_valid = fault.as_ref().is_none_or(|fault| !fault.discards_answers);
        match fault.as_ref().map(|fault| fault.kind) {
            _ if is_valid && attempt.has_answers() => self.outage.record_answer(),
            Some(FaultKind::Timeout) => self.outage.record_timeout(start),
            _ => {}
        }
        if is_valid {
            answers.merge(attempt);
        }
        Ok(fault)
    }

    /// Handles the unanswered items when retries did not help. They fail if other items of the request have answers, which
    /// shows that the items are at fault. If all of them were scored alone without success (`each_alone`), at least half of
    /// the request must have answers. Otherwise there is an outage, or the run stops.
    ///
    /// # Errors
    /// The scorer is at fault and waiting does not help.
    fn give_up(
        &self,
        fault: &AttemptFault,
        item_count: usize,
        each_alone: bool,
        answers: &mut RequestAnswers,
    ) -> Result<()> {
        let (reason, unanswered) = (&fault.reason, answers.unanswered().len());
        let others_answered = if each_alone { 2 * unanswered <= item_count } else { unanswered < item_count };
        if others_answered || item_count == 1 && self.outage.is_item_at_fault(fault.kind) {
            log::warn!("score: {reason}; {unanswered} of {item_count} items failed");
            answers.fail_unanswered(reason);
            return Ok(());
        }
        match fault.kind {
            FaultKind::Timeout if self.is_broken_process() => {
                self.outage.give_up();
                Err(Error::Score {
                    iteration: None,
                    reason: format!(
                        "{reason}, and none of {item_count} items was scored; fix the scorer or raise score.timeout, then resume with \
                         --resume"
                    ),
                })
            }
            FaultKind::Outage | FaultKind::Timeout => Ok(()),
            FaultKind::Malfunction | FaultKind::MissingAnswer | FaultKind::InvalidAnswer
                if self.outage.has_answered() && item_count > 1 =>
            {
                Ok(())
            }
            _ => Err(Error::Score {
                iteration: None,
                reason: format!("{reason}, for each of {item_count} items; fix the scorer, then resume with --resume"),
            }),
        }
    }

    /// Whether the scorer is our own process and has never answered in this run.
    fn is_broken_process(&self) -> bool {
        self.client.is_started_here() && !self.outage.has_answered()
    }

    fn stop_if_interrupted(&self) -> Result<()> {
        if self.deadline(None).is_interrupted() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

impl<C: ScorerClient> Score for ExternalScore<C> {
    fn score(&self, items: &DataFrame) -> Result<DataFrame> {
        let mut answers = RequestAnswers::new(&self.select_columns(items))?;
        self.score_with_retries(&self.select_columns(items), &mut answers, &mut |_| Ok(()))?;
        answers.frame()
    }

    fn score_into(&self, items: &DataFrame, sink: &mut AnswerSink<'_>) -> Result<()> {
        let items = self.select_columns(items);
        let mut answers = RequestAnswers::new(&items)?;
        let result = self.score_with_retries(&items, &mut answers, sink);
        answers.emit(sink)?;
        result
    }

    fn check(&self, items: &DataFrame) -> Result<()> {
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::Config("score.timeout: expected more than 0 seconds, found 0".into()));
        }
        self.client.check(&self.select_columns(items).head(Some(0)))
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn workers(&self) -> usize {
        self.workers
    }

    fn retry_count(&self) -> u64 {
        self.retry_count.load(Ordering::Relaxed)
    }

    fn begin(&mut self, session: &Session) {
        self.interrupt = session.interrupt.clone();
        self.retry_count.store(0, Ordering::Relaxed);
        self.outage.reset(session.has_answers);
        self.client.begin(session);
    }
}

impl<C: std::fmt::Debug> std::fmt::Debug for ExternalScore<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.client.fmt(f)
    }
}

/// The delay before retry number `retry`, from 0: `first`, doubled each time, up to 30 s. There is no jitter, so that runs
/// are reproducible.
fn retry_delay(first: Duration, retry: u32) -> Duration {
    const MAX_DELAY: Duration = Duration::from_secs(30);
    first.saturating_mul(1 << retry.min(16)).min(MAX_DELAY)
}

/// Rounds a duration down to tenths of a second.
fn round_to_tenths(duration: Duration) -> Duration {
    const TENTH: Duration = Duration::from_millis(100);
    TENTH.saturating_mul(u32::try_from(duration.as_millis() / TENTH.as_millis()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit() {
        let seconds = |retry| retry_delay(Duration::from_secs(1), retry).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 5, 60].map(seconds), [1, 2, 4, 8, 16, 30, 30]);
    }
}
