//! External scorers (commands and HTTP services): batches, workers, timeouts, retries and outages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use polars::prelude::DataFrame;

use super::answers::{Answers, Attempt};
use super::patience::Patience;
use super::trouble::{Kind, Trouble, Unanswered};
use super::wait::Wait;
use super::{Keep, Score, Session};
use crate::error::{Error, Result};
use crate::frame::convert;
use crate::frame::schema::EMBEDDING;

/// A client for one kind of scorer: a command's pipes, or HTTP.
pub trait Ask: Send + Sync {
    /// Sends items once, and records answers until the deadline.
    fn ask(&self, items: &DataFrame, attempt: &mut Attempt, wait: &Wait) -> Result<(), Trouble>;

    /// Checks that items with these columns can be sent.
    fn check(&self, items: &DataFrame) -> Result<()>;

    /// Prepares for a run.
    fn begin(&mut self, session: &Session);

    /// Whether this process starts the scorer. If such a scorer never answers, it is broken: waiting for it does not help.
    fn is_started_here(&self) -> bool {
        false
    }
}

/// The number of items scored alone, with consecutive timeouts, after which the scorer counts as unavailable: if no item of the
/// batch has an answer, and if some have.
const SILENT: [usize; 2] = [2, 4];

/// A [`CommandScore`](super::CommandScore) or [`HttpScore`](super::HttpScore): batching, workers, timeouts, retries and outages
/// are the same for both.
///
/// # What happens to an item
/// - *Answer*: a finite number is the item's score. Null (with an optional `reason`), NaN, an infinity or text is a
///   failure. `"outcome": "rejected"` is a rejection. Failures and rejections have a reason and are not retried. Other numbers
///   are stored as parts of the score, except for columns that were sent to the scorer.
/// - *Outage*: the scorer is unavailable and did not process the item. The run waits up to [`patience`](Self::patience), then
///   stops with [`Error::Unavailable`]. The item is not evaluated. A scorer that accepts items but lets all of them time out is
///   unavailable too: `patience` counts from the first such batch. A few items are then scored alone, as a single item may
///   block the others. A command that has never answered stops the run instead.
/// - *No answer*, though the scorer may have processed the item: other answers of the same batch are kept. The rest is retried
///   up to [`retries`](Self::retries) times with exponential backoff, finally each item alone. If other items of the
///   batch have answers, items still without one fail with the last reason. If none have, the scorer is at
///   fault: one that has never answered stops the run at once, any other counts as unavailable.
/// - *Wrong ids* (an item that was not requested, or one item twice): all answers of that attempt are discarded and the batch
///   is retried.
/// - *In flight when the run is interrupted*: answers that have arrived are kept. The rest counts as not evaluated; `--resume`
///   scores it.
///
/// In a batch of one item, nothing else shows whether the item or the scorer is at fault. The item fails
/// if the scorer has answered before; on a timeout, if it has answered since its last timeout.
pub struct ExternalScore<A> {
    pub(super) scorer: A,
    batch_size: usize,
    workers: usize,
    timeout: Option<Duration>,
    retries: u32,
    backoff: Duration,
    patience: Patience,
    embeddings: bool,
    retried: AtomicU64,
    interrupt: Option<Arc<AtomicBool>>,
}

impl<A> ExternalScore<A> {
    pub(super) fn of(scorer: A, batch_size: usize, timeout: Option<Duration>) -> Self {
        ExternalScore {
            scorer,
            batch_size,
            workers: 1,
            timeout,
            retries: 2,
            backoff: Duration::from_secs(1),
            patience: Patience::new(Duration::from_secs(300)),
            embeddings: false,
            retried: AtomicU64::new(0),
            interrupt: None,
        }
    }

    /// Sets the maximum number of items in one batch (default 64 for a command, 32 for a service). Larger batches have less
    /// overhead per item. But batches in flight are scored again if the run is killed, so use small batches for expensive scores.
    /// If there are too few items for full batches on all workers, they are spread evenly.
    pub fn batch_size(mut self, items: usize) -> Self {
        self.batch_size = items;
        self
    }

    /// Sets the number of batches in flight: processes of a command, requests to a service (default 1).
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets the time limit of a batch. After it, the process is killed or the request is cancelled
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
        self.patience.limit(patience);
        self
    }

    /// Sends embeddings to the scorer (default no).
    pub fn embeddings(mut self, embeddings: bool) -> Self {
        self.embeddings = embeddings;
        self
    }

    /// Selects the columns to send.
    fn sent(&self, items: &DataFrame) -> DataFrame {
        if self.embeddings { items.clone() } else { items.drop_many([EMBEDDING]) }
    }

    fn wait(&self, limit: Option<Duration>) -> Wait {
        Wait::new(limit, self.interrupt.clone())
    }
}

impl<A: Ask> ExternalScore<A> {
    /// Scores a batch with retries until each item has an answer or has failed. `answers` keeps what arrived, even on an error.
    fn until_answered(&self, batch: &DataFrame, answers: &mut Answers, keep: &mut Keep<'_>) -> Result<()> {
        let mut rest = batch.clone();
        let (mut retry, mut waits, mut apart, mut alone) = (0, 0, false, false);
        loop {
            let trouble = self.attempt(&rest, apart, answers)?;
            let open = answers.unanswered();
            let progressed = open.len() < rest.height();
            if progressed {
                alone |= apart;
                waits = 0;
            }
            if open.is_empty() {
                if let Some(trouble) = trouble {
                    log::warn!("score: {} (all {} items have answers)", trouble.reason, rest.height());
                }
                return Ok(());
            }
            let trouble = trouble.unwrap_or_else(Unanswered::left_out);
            self.stop_if_interrupted()?;
            let silent = trouble.kind == Kind::Slow && !progressed;
            let again = match trouble.kind {
                Kind::Away => None,
                Kind::Unusable if !apart => self.give_up(&trouble, batch.height(), false, answers)?,
                // The scorer may have recovered in the meantime: score items alone as long as others get answers.
                _ if apart && progressed => Some(pause(self.backoff, 0)),
                _ if silent && !answers.has_any() && self.patience.is_given_up() => {
                    self.give_up(&trouble, batch.height(), true, answers)?
                }
                _ if retry >= self.retries => self.give_up(&trouble, batch.height(), apart && !alone, answers)?,
                _ if silent => Some(pause(self.backoff, retry).min(tenths(self.patience.remaining()))),
                _ => Some(pause(self.backoff, retry)),
            };
            if answers.unanswered().is_empty() {
                return Ok(());
            }
            // Store answers before the delay, so that a kill during it loses nothing.
            answers.hand_over(keep)?;
            rest = convert::gather(batch, &open)?;
            let pause = match again {
                Some(pause) => {
                    // No time is left for the whole batch. Scoring items alone shows whether one of them is at fault.
                    let hurry = silent && self.patience.remaining().is_zero();
                    retry = if hurry { self.retries } else { (retry + 1).min(self.retries) };
                    // An item that breaks the scorer must fail alone.
                    apart = retry == self.retries && trouble.kind != Kind::LeftOut;
                    let (reason, left) = (&trouble.reason, open.len());
                    let soon = if pause.is_zero() { "now".into() } else { format!("in {pause:?}") };
                    log::warn!("score: {reason}; retrying {left} of {} items {soon}", batch.height());
                    self.retried.fetch_add(open.len() as u64, Ordering::Relaxed);
                    pause
                }
                None => {
                    let away = || Error::Unavailable { reason: trouble.reason.clone() };
                    let left = self.patience.left(&trouble.reason).ok_or_else(away)?;
                    (retry, apart) = (0, false);
                    waits += 1;
                    pause(self.backoff, waits - 1).max(trouble.after.unwrap_or_default()).min(left)
                }
            };
            self.wait(Some(pause)).sleep();
            self.stop_if_interrupted()?;
        }
    }

    /// Sends items once: together, or one by one.
    fn attempt(&self, items: &DataFrame, apart: bool, answers: &mut Answers) -> Result<Option<Unanswered>> {
        if !apart {
            return self.ask_once(items, answers);
        }
        let (mut trouble, mut silent) = (None, 0);
        let enough = SILENT[usize::from(answers.has_any())];
        for row in 0..items.height() {
            let said = self.ask_once(&items.slice(row as i64, 1), answers)?;
            let kind = said.as_ref().map(|said| said.kind);
            silent = if kind == Some(Kind::Slow) { silent + 1 } else { 0 };
            trouble = said.or(trouble);
            if kind == Some(Kind::Away) || self.wait(None).is_interrupted() {
                break;
            }
            if silent >= enough && self.never_answers() {
                break;
            }
            if silent >= enough && self.patience.remaining().is_zero() {
                return Ok(trouble.map(|trouble: Unanswered| Unanswered { kind: Kind::Away, ..trouble }));
            }
        }
        Ok(trouble)
    }

    fn ask_once(&self, items: &DataFrame, answers: &mut Answers) -> Result<Option<Unanswered>> {
        let (begun, mut attempt) = (Instant::now(), answers.attempt(items)?);
        let trouble = match self.scorer.ask(items, &mut attempt, &self.wait(self.timeout)) {
            Ok(()) => attempt.unusable(),
            Err(Trouble::Unanswered(trouble)) => Some(trouble),
            Err(Trouble::Stop(error)) => {
                answers.take(attempt);
                return Err(error);
            }
        };
        let counts = trouble.as_ref().is_none_or(|trouble| !trouble.void);
        match trouble.as_ref().map(|trouble| trouble.kind) {
            _ if counts && attempt.has_any() => self.patience.heard(),
            Some(Kind::Slow) => self.patience.silent(begun),
            _ => {}
        }
        if counts {
            answers.take(attempt);
        }
        Ok(trouble)
    }

    /// Decides what follows when retries did not help. The items fail if other items of the batch have answers, which shows
    /// that the items are at fault (if all items were scored alone and timed out, most others must have answers). Otherwise
    /// there is an outage, or the run stops. Returns the reason for waiting as `None`.
    fn give_up(
        &self,
        trouble: &Unanswered,
        asked: usize,
        silence: bool,
        answers: &mut Answers,
    ) -> Result<Option<Duration>> {
        let (reason, open) = (&trouble.reason, answers.unanswered().len());
        let others = if silence { 2 * open <= asked } else { open < asked };
        if others || asked == 1 && self.patience.blames_the_item(trouble.kind) {
            log::warn!("score: {reason}; {open} of {asked} items failed");
            answers.fail(reason);
            return Ok(None);
        }
        match trouble.kind {
            Kind::Slow if self.never_answers() => {
                self.patience.give_up();
                Err(Error::Score {
                    iteration: None,
                    reason: format!(
                        "{reason}, and none of {asked} items was scored; fix the scorer or raise score.timeout, then resume with \
                         --resume"
                    ),
                })
            }
            Kind::Away | Kind::Slow => Ok(None),
            Kind::Broken | Kind::LeftOut | Kind::Unusable if self.patience.has_answered() && asked > 1 => Ok(None),
            _ => Err(Error::Score {
                iteration: None,
                reason: format!("{reason}, for each of {asked} items; fix the scorer, then resume with --resume"),
            }),
        }
    }

    /// Whether the scorer is our own process and has never answered in this run.
    fn never_answers(&self) -> bool {
        self.scorer.is_started_here() && !self.patience.has_answered()
    }

    fn stop_if_interrupted(&self) -> Result<()> {
        if self.wait(None).is_interrupted() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

impl<A: Ask> Score for ExternalScore<A> {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let mut answers = Answers::new(&self.sent(batch))?;
        self.until_answered(&self.sent(batch), &mut answers, &mut |_| Ok(()))?;
        answers.frame()
    }

    fn score_into(&self, batch: &DataFrame, keep: &mut Keep<'_>) -> Result<()> {
        let batch = self.sent(batch);
        let mut answers = Answers::new(&batch)?;
        let ended = self.until_answered(&batch, &mut answers, keep);
        answers.hand_over(keep)?;
        ended
    }

    fn check(&self, items: &DataFrame) -> Result<()> {
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::Config("score.timeout: expected more than 0 seconds, found 0".into()));
        }
        self.scorer.check(&self.sent(items).head(Some(0)))
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn workers(&self) -> usize {
        self.workers
    }

    fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    fn begin(&mut self, session: &Session) {
        self.interrupt = session.interrupt.clone();
        self.retried.store(0, Ordering::Relaxed);
        self.patience.begin(session.answered);
        self.scorer.begin(session);
    }
}

impl<A: std::fmt::Debug> std::fmt::Debug for ExternalScore<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.scorer.fmt(f)
    }
}

/// The delay before retry number `retry`, from 0: `first`, doubled each time, up to 30 s. There is no jitter, so that runs
/// are reproducible.
fn pause(first: Duration, retry: u32) -> Duration {
    const LONGEST: Duration = Duration::from_secs(30);
    first.saturating_mul(1 << retry.min(16)).min(LONGEST)
}

/// Rounds a duration down to tenths of a second.
fn tenths(duration: Duration) -> Duration {
    const TENTH: Duration = Duration::from_millis(100);
    TENTH.saturating_mul(u32::try_from(duration.as_millis() / TENTH.as_millis()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        let seconds = |retry| pause(Duration::from_secs(1), retry).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 5, 60].map(seconds), [1, 2, 4, 8, 16, 30, 30]);
    }
}
