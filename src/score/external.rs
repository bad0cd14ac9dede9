//! Scorers outside of this process: asked in batches, asked again where no answer comes, waited for while they are away.

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

/// One way to reach a scorer: by a command's pipes, by HTTP.
pub trait Ask: Send + Sync {
    /// Asks for items once, and takes what is answered until the wait is over.
    fn ask(&self, items: &DataFrame, attempt: &mut Attempt, wait: &Wait) -> Result<(), Trouble>;

    /// Whether items with these columns can be asked for.
    fn check(&self, items: &DataFrame) -> Result<()>;

    /// Told of the run that is going to ask.
    fn begin(&mut self, session: &Session);

    /// Whether this process starts it. Then one that never answers is broken: there is nobody to come back.
    fn is_started_here(&self) -> bool {
        false
    }
}

/// Items asked alone, one after the other in silence, after which nobody seems to be there: where nothing of the batch was
/// answered, and where something was.
const SILENT: [usize; 2] = [2, 4];

/// A [`CommandScore`](super::CommandScore) or [`HttpScore`](super::HttpScore): how the scorer is asked, whatever it is.
///
/// # What happens to an item
/// - *Answered*: a finite number is its score. Null (with `reason`, if given), NaN, an infinity or text is a
///   failure, and with `"outcome": "rejected"` a rejection, both with a reason. It is not asked again. Other numbers are
///   kept as parts of the score, but for columns that it was sent and sends back.
/// - *The scorer is away*, so that nobody looked: it is waited for, up to [`patience`](Self::patience), and then
///   the run stops with [`Error::Away`]. The item has not been asked. A scorer that takes items and answers none in time is
///   away, too: patience counts from the first such batch, and a few items are asked alone, as one may hold up the others. A
///   command that has never answered stops the run instead.
/// - *No answer*, though somebody may have looked: what was answered in the same batch counts, and the rest is asked again, up to
///   [`retries`](Self::retries) times, with a longer wait each time, and at last each item alone. Items that are
///   still without an answer fail with the last reason, if others of the batch were answered. If none was, it is the
///   scorer that fails: one that has never answered stops the run at once, another counts as away.
/// - *Wrong ids*, one that was not asked or one twice: the scorer mixes items up, so nothing of that attempt counts;
///   the batch is asked again.
/// - *In flight when the run is interrupted*: what was answered is kept, and the rest counts as not asked; `--resume`
///   asks for it.
///
/// In a batch of a single item nothing else shows whether the item or the scorer is at fault. Then the item fails
/// if the scorer has answered before; for a time-out, if it has answered since it last timed out.
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

    /// The most items in one batch (default 64 for a command, 32 for a service). Larger ones cost less each; but
    /// what is in flight when the run is killed is asked again, so dear scores want small ones. Items that are too few
    /// for all workers to get so many are spread evenly over them.
    pub fn batch_size(mut self, items: usize) -> Self {
        self.batch_size = items;
        self
    }

    /// How many batches are in flight at a time: processes of a command, requests to a service (default 1).
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// The longest that a batch may take; then its process is killed, its request given up
    /// (default: no limit for a command, 60 s for a service).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How often items without an answer are asked again (default 2).
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// The wait before the first retry, doubled for each further one, up to half a minute (default 1 s).
    pub fn backoff(mut self, first: Duration) -> Self {
        self.backoff = first;
        self
    }

    /// How long a scorer that is away is waited for (default 5 minutes).
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience.limit(patience);
        self
    }

    /// Sends embeddings too (default no).
    pub fn embeddings(mut self, embeddings: bool) -> Self {
        self.embeddings = embeddings;
        self
    }

    /// The columns that the scorer gets.
    fn sent(&self, items: &DataFrame) -> DataFrame {
        if self.embeddings { items.clone() } else { items.drop_many([EMBEDDING]) }
    }

    fn wait(&self, limit: Option<Duration>) -> Wait {
        Wait::new(limit, self.interrupt.clone())
    }
}

impl<A: Ask> ExternalScore<A> {
    /// Asks until each item is answered or given up. What was answered stands in `answers`, whatever ends the asking.
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
                    log::warn!("score: {} (all {} items are answered)", trouble.reason, rest.height());
                }
                return Ok(());
            }
            let trouble = trouble.unwrap_or_else(Unanswered::left_out);
            self.stop_if_interrupted()?;
            let silent = trouble.kind == Kind::Slow && !progressed;
            let again = match trouble.kind {
                Kind::Away => None,
                Kind::Unusable if !apart => self.give_up(&trouble, batch.height(), false, answers)?,
                // It may have come back while it was asked: each is asked alone while others are answered.
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
            // What is durable before the wait, a kill in it does not cost.
            answers.hand_over(keep)?;
            rest = convert::gather(batch, &open)?;
            let pause = match again {
                Some(pause) => {
                    // No time is left for the whole batch: items alone show whether one of them is to blame.
                    let hurry = silent && self.patience.remaining().is_zero();
                    retry = if hurry { self.retries } else { (retry + 1).min(self.retries) };
                    // One item that breaks the scorer is to fail alone.
                    apart = retry == self.retries && trouble.kind != Kind::LeftOut;
                    let (reason, left) = (&trouble.reason, open.len());
                    let soon = if pause.is_zero() { "now".into() } else { format!("in {pause:?}") };
                    log::warn!("score: {reason}; asking again for {left} of {} items {soon}", batch.height());
                    self.retried.fetch_add(open.len() as u64, Ordering::Relaxed);
                    pause
                }
                None => {
                    let away = || Error::Away { reason: trouble.reason.clone() };
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

    /// Asks once for items, or once for each of them.
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

    /// What follows when asking again has not helped: the items fail, if it is clear that they are to blame, as others
    /// were answered (where all were asked alone in `silence`, most of the batch). Else the scorer is away, or the run stops.
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
                        "{reason}, and none of {asked} items was answered; mend the scorer or raise score.timeout, then go on \
                         with --resume"
                    ),
                })
            }
            Kind::Away | Kind::Slow => Ok(None),
            Kind::Broken | Kind::LeftOut | Kind::Unusable if self.patience.has_answered() && asked > 1 => Ok(None),
            _ => Err(Error::Score {
                iteration: None,
                reason: format!("{reason}, for each of {asked} items; mend the scorer, then go on with --resume"),
            }),
        }
    }

    /// Whether it is a process of ours that has never answered in this run.
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

/// The wait before the retry of that number, from 0: the first, then twice as long each time up to half a minute,
/// without jitter, so that runs are alike.
fn pause(first: Duration, retry: u32) -> Duration {
    const LONGEST: Duration = Duration::from_secs(30);
    first.saturating_mul(1 << retry.min(16)).min(LONGEST)
}

/// A duration without what is less than a tenth of a second.
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
