//! Deadlines: waiting up to a time limit, or until the run is interrupted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::fault::{FaultKind, ScorerFault};
use crate::error::{Error, Result};

/// How often to check whether the run is interrupted.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A time limit that starts now.
#[derive(Clone)]
pub struct Deadline {
    start: Instant,
    limit: Option<Duration>,
    interrupt: Option<Arc<AtomicBool>>,
}

impl Deadline {
    /// Ends after a limit, if there is one, or when the flag is set.
    pub(super) fn new(limit: Option<Duration>, interrupt: Option<Arc<AtomicBool>>) -> Self {
        Deadline { start: Instant::now(), limit, interrupt }
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

    /// Moves the deadline to `left` from now. An earlier deadline stays.
    pub(super) fn shorten(&mut self, left: Duration) {
        let new_limit = self.start.elapsed() + left;
        self.limit = Some(self.limit.map_or(new_limit, |limit| limit.min(new_limit)));
    }

    /// Whether the run is interrupted.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|interrupt| interrupt.load(Ordering::Relaxed))
    }

    /// Whether the deadline has passed or the run is interrupted.
    pub(super) fn is_over(&self) -> bool {
        self.is_interrupted() || self.limit.is_some_and(|limit| self.start.elapsed() >= limit)
    }

    /// How long to sleep before checking [`Deadline::is_over`] again.
    pub(super) fn poll_interval(&self) -> Duration {
        self.limit.map_or(POLL_INTERVAL, |limit| limit.saturating_sub(self.start.elapsed()).min(POLL_INTERVAL))
    }

    /// Sleeps until the deadline.
    pub(super) fn sleep(&self) {
        while !self.is_over() {
            thread::sleep(self.poll_interval());
        }
    }

    /// Waits for a message. Messages that have arrived are returned even after the deadline.
    pub(super) fn receive<T>(&self, messages: &Receiver<T>) -> Result<T, RecvTimeoutError> {
        loop {
            match messages.recv_timeout(self.poll_interval()) {
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

    /// The fault of a scorer that missed the deadline.
    pub(super) fn timeout_fault(&self) -> ScorerFault {
        let reason = format!("timeout after {} s", self.limit.unwrap_or_default().as_secs_f64());
        ScorerFault::new(FaultKind::Timeout, reason)
    }
}

/// Starts a detached thread.
pub(super) fn start_thread(work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = thread::Builder::new().name("uphill-scorer".into()).spawn(work);
    started
        .map(|_| ())
        .map_err(|error| Error::Score { iteration: None, reason: format!("cannot start a thread: {error}") })
}
