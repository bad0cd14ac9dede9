//! Scorers outside of this process: asked in batches, asked again where no answer comes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use polars::prelude::DataFrame;

use super::Score;
use super::answers::{Answers, Attempt};
use super::trouble::{Trouble, Unanswered};
use super::wait::Wait;
use crate::bridge;
use crate::error::{Error, Result};
use crate::schema::EMBEDDING;

/// One way to reach a scorer: by a command's pipes, by HTTP.
pub trait Ask: Send + Sync {
    /// Asks for items once, and takes what is answered until the wait is over.
    fn ask(&self, items: &DataFrame, attempt: &mut Attempt, wait: &Wait) -> Result<(), Trouble>;

    /// Whether items with these columns can be asked for.
    fn check(&self, items: &DataFrame) -> Result<()>;

    /// Told where a run keeps what scorers write to standard error.
    fn stderr_in(&self, _folder: &Path) {}
}

/// A [`CommandScore`](super::CommandScore) or [`HttpScore`](super::HttpScore): how the scorer is asked, whatever it is.
///
/// # What happens to an item
/// - *Answered*: a finite number is its score. Null (with `reason`, if given), NaN, an infinity or text is a
///   failure, with a reason. Either way it is not asked again. Other numbers are kept as parts of the score,
///   but for columns that it was sent and sends back.
/// - *Not answered*: what was answered in the same batch counts, and the rest is asked again, up to
///   [`retries`](Self::retries) times, with a longer wait each time. After that the rest are failures with the last reason.
/// - *Wrong ids*, one that was not asked or one twice: the scorer mixes items up, so nothing of that attempt counts;
///   the batch is asked again, and then fails with that reason.
/// - *In flight when the run is interrupted*: the answer is not waited for, and the batch counts as not asked; `--resume`
///   asks for it. Batches that were finished are kept.
pub struct ExternalScore<A> {
    pub(super) scorer: A,
    batch_size: usize,
    workers: usize,
    timeout: Option<Duration>,
    retries: u32,
    backoff: Duration,
    embeddings: bool,
    again: AtomicU64,
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
            embeddings: false,
            again: AtomicU64::new(0),
            interrupt: None,
        }
    }

    /// The most items in one batch (default 64 for a command, 32 for a service). Larger ones cost less each; but
    /// what is in flight when the run ends early is asked again, so dear scores want small ones.
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

    /// The wait before the first retry, doubled for each further one, up to a minute (default 1 s).
    pub fn backoff(mut self, first: Duration) -> Self {
        self.backoff = first;
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

impl<A: Ask> Score for ExternalScore<A> {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let batch = self.sent(batch);
        let mut answers = Answers::new(&batch)?;
        let mut rest = batch.clone();
        for retry in 0.. {
            let wait = self.wait(self.timeout);
            let mut attempt = answers.attempt();
            let trouble = match self.scorer.ask(&rest, &mut attempt, &wait) {
                Ok(()) => None,
                Err(Trouble::Unanswered(trouble)) => Some(trouble),
                Err(Trouble::Stop(error)) => return Err(error),
            };
            if trouble.as_ref().is_none_or(|trouble| !trouble.void) {
                answers.take(attempt);
            }
            let left = answers.unanswered();
            if left.is_empty() {
                if let Some(trouble) = trouble {
                    log::warn!("score: {} (all {} items are answered)", trouble.reason, rest.height());
                }
                break;
            }
            if wait.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let trouble = trouble.unwrap_or_else(Unanswered::silence);
            if !trouble.again || retry >= self.retries {
                log::warn!("score: {}; {} of {} items failed", trouble.reason, left.len(), batch.height());
                answers.fail(&trouble.reason);
                break;
            }
            let pause = pause(self.backoff, retry, trouble.after);
            log::warn!(
                "score: {}; asking again for {} of {} items in {pause:?}",
                trouble.reason,
                left.len(),
                batch.height()
            );
            self.wait(Some(pause)).sleep();
            if wait.is_interrupted() {
                return Err(Error::Interrupted);
            }
            self.again.fetch_add(left.len() as u64, Ordering::Relaxed);
            rest = bridge::gather(&batch, &left)?;
        }
        answers.into_frame()
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

    fn asked_again(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }

    fn stderr_in(&self, folder: &Path) {
        self.scorer.stderr_in(folder);
    }

    fn interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.interrupt = Some(flag);
    }
}

impl<A: std::fmt::Debug> std::fmt::Debug for ExternalScore<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.scorer.fmt(f)
    }
}

/// The wait before the retry of that number, from 0: the first, then twice as long each time, without
/// jitter, so that runs are alike. A server may ask for a longer one; none is longer than a minute.
fn pause(first: Duration, retry: u32, asked: Option<Duration>) -> Duration {
    const LONGEST: Duration = Duration::from_secs(60);
    let own = first.saturating_mul(1 << retry.min(16));
    own.max(asked.unwrap_or_default()).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_a_server_may_lengthen_them() {
        let first = Duration::from_secs(1);
        let seconds = |retry, asked| pause(first, retry, asked).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(|retry| seconds(retry, None)), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(seconds(0, Some(Duration::from_secs(7))), 7);
        assert_eq!(seconds(4, Some(Duration::from_secs(7))), 16);
        assert_eq!(seconds(0, Some(Duration::from_secs(86400))), 60);
    }
}
