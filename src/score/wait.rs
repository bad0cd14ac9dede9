//! Waiting for an answer: up to a time limit, and no longer once the run is interrupted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::trouble::{Kind, Trouble};
use crate::error::{Error, Result};

/// How often a wait looks whether the run is interrupted.
const LOOK: Duration = Duration::from_millis(50);

/// One wait, from now on.
#[derive(Clone)]
pub struct Wait {
    since: Instant,
    limit: Option<Duration>,
    interrupt: Option<Arc<AtomicBool>>,
}

impl Wait {
    /// Up to a limit, if there is one, or until the flag is set.
    pub(super) fn new(limit: Option<Duration>, interrupt: Option<Arc<AtomicBool>>) -> Self {
        Wait { since: Instant::now(), limit, interrupt }
    }

    /// Up to a limit, interrupted or not.
    pub(super) fn up_to(limit: Duration) -> Self {
        Self::new(Some(limit), None)
    }

    /// The time limit, from the beginning of the wait.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only services need it"))]
    pub(super) fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// Moves the limit to so much from now, unless it is closer.
    pub(super) fn hurry(&mut self, left: Duration) {
        let soon = self.since.elapsed() + left;
        self.limit = Some(self.limit.map_or(soon, |limit| limit.min(soon)));
    }

    /// Whether the run is interrupted.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|interrupt| interrupt.load(Ordering::Relaxed))
    }

    /// Whether there is nothing more to wait for.
    pub(super) fn is_over(&self) -> bool {
        self.is_interrupted() || self.limit.is_some_and(|limit| self.since.elapsed() >= limit)
    }

    /// How long may pass until the next look at [`Wait::is_over`].
    pub(super) fn nap(&self) -> Duration {
        self.limit.map_or(LOOK, |limit| limit.saturating_sub(self.since.elapsed()).min(LOOK))
    }

    /// Waits to the end.
    pub(super) fn sleep(&self) {
        while !self.is_over() {
            thread::sleep(self.nap());
        }
    }

    /// Waits for a message. What is there already is taken, even when the wait is over.
    pub(super) fn receive<T>(&self, messages: &Receiver<T>) -> Result<T, RecvTimeoutError> {
        loop {
            match messages.recv_timeout(self.nap()) {
                Err(RecvTimeoutError::Timeout) if !self.is_over() => {}
                outcome => return outcome,
            }
        }
    }

    /// Waits for work that cannot be told to stop. Once the wait is over (`None`), it is left to itself.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only services need it"))]
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<Option<T>> {
        let (done, results) = channel();
        start_thread(move || {
            // Nobody may be waiting any more.
            let _ = done.send(work());
        })?;
        Ok(self.receive(&results).ok())
    }

    /// The trouble of an answer that did not come within the limit.
    pub(super) fn timed_out(&self) -> Trouble {
        let reason = format!("timeout after {} s", self.limit.unwrap_or_default().as_secs_f64());
        Trouble::unanswered(Kind::Slow, reason)
    }
}

/// Starts a thread that ends by itself.
pub(super) fn start_thread(work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = thread::Builder::new().name("uphill-scorer".into()).spawn(work);
    started
        .map(|_| ())
        .map_err(|error| Error::Score { iteration: None, reason: format!("cannot start a thread: {error}") })
}
