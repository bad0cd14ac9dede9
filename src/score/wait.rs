//! Deadlines: waiting up to a time limit, or until the run is interrupted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::trouble::{Kind, Trouble};
use crate::error::{Error, Result};

/// How often to check whether the run is interrupted.
const LOOK: Duration = Duration::from_millis(50);

/// A time limit that starts now.
#[derive(Clone)]
pub struct Wait {
    since: Instant,
    limit: Option<Duration>,
    interrupt: Option<Arc<AtomicBool>>,
}

impl Wait {
    /// Ends after a limit, if there is one, or when the flag is set.
    pub(super) fn new(limit: Option<Duration>, interrupt: Option<Arc<AtomicBool>>) -> Self {
        Wait { since: Instant::now(), limit, interrupt }
    }

    /// Ends after a limit, whether the run is interrupted or not.
    pub(super) fn up_to(limit: Duration) -> Self {
        Self::new(Some(limit), None)
    }

    /// The time limit, from the start.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only services need it"))]
    pub(super) fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// Moves the deadline to `left` from now, unless it is earlier.
    pub(super) fn hurry(&mut self, left: Duration) {
        let soon = self.since.elapsed() + left;
        self.limit = Some(self.limit.map_or(soon, |limit| limit.min(soon)));
    }

    /// Whether the run is interrupted.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|interrupt| interrupt.load(Ordering::Relaxed))
    }

    /// Whether the deadline has passed or the run is interrupted.
    pub(super) fn is_over(&self) -> bool {
        self.is_interrupted() || self.limit.is_some_and(|limit| self.since.elapsed() >= limit)
    }

    /// How long to sleep before checking [`Wait::is_over`] again.
    pub(super) fn nap(&self) -> Duration {
        self.limit.map_or(LOOK, |limit| limit.saturating_sub(self.since.elapsed()).min(LOOK))
    }

    /// Sleeps until the deadline.
    pub(super) fn sleep(&self) {
        while !self.is_over() {
            thread::sleep(self.nap());
        }
    }

    /// Waits for a message. Messages that have arrived are returned even after the deadline.
    pub(super) fn receive<T>(&self, messages: &Receiver<T>) -> Result<T, RecvTimeoutError> {
        loop {
            match messages.recv_timeout(self.nap()) {
                Err(RecvTimeoutError::Timeout) if !self.is_over() => {}
                outcome => return outcome,
            }
        }
    }

    /// Runs work that cannot be cancelled on a thread. At the deadline it is abandoned, and the result is `None`.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only services need it"))]
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<Option<T>> {
        let (done, results) = channel();
        start_thread(move || {
            // The receiver may be gone.
            let _ = done.send(work());
        })?;
        Ok(self.receive(&results).ok())
    }

    /// The fault of an answer that missed the deadline.
    pub(super) fn timed_out(&self) -> Trouble {
        let reason = format!("timeout after {} s", self.limit.unwrap_or_default().as_secs_f64());
        Trouble::unanswered(Kind::Slow, reason)
    }
}

/// Starts a detached thread.
pub(super) fn start_thread(work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = thread::Builder::new().name("uphill-scorer".into()).spawn(work);
    started
        .map(|_| ())
        .map_err(|error| Error::Score { iteration: None, reason: format!("cannot start a thread: {error}") })
}
