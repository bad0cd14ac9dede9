//! Giving up when a flag is set: between steps, and while a step that cannot look for itself is under way.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{Either, select};

use crate::error::{Error, Result, WrapErr};
use crate::panics::catch_message;

/// How often the flag is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// Bytes of stack of a step.
const STACK: usize = 16 << 20;

/// A flag that is set to stop, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    flag: Option<Arc<AtomicBool>>,
}

impl Interrupt {
    pub(crate) fn new(flag: Option<Arc<AtomicBool>>) -> Self {
        Interrupt { flag }
    }

    /// Between two steps.
    ///
    /// # Errors
    /// [`Error::Interrupted`], if the flag is set.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.flag {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }

    /// Does a step on a thread of its own, which is left to itself when the flag is set: the step must not make what it would
    /// leave behind.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        self.check()?;
        if self.flag.is_none() {
            return work();
        }
        let (sender, receiver) = sync_channel(1);
        let work = move || {
            let failed = |message| Err(Error::Library { context: "stopped by a bug".into(), message, cause: None });
            let _ = sender.send(catch_message(work).unwrap_or_else(failed));
        };
        thread::Builder::new().stack_size(STACK).spawn(work).wrap_err("starting a thread")?;
        loop {
            match receiver.recv_timeout(EVERY) {
                Ok(done) => return done,
                Err(RecvTimeoutError::Timeout) => self.check()?,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Interrupted),
            }
        }
    }

    /// Waits for a future, which is dropped when the flag is set.
    pub(crate) async fn run_async<T>(&self, future: impl Future<Output = T>) -> Result<T> {
        let Some(flag) = self.flag.clone() else { return Ok(future.await) };
        self.check()?;
        let (sender, set) = oneshot::channel::<()>();
        let watch = move || {
            while !sender.is_canceled() && !flag.load(Ordering::Relaxed) {
                thread::sleep(EVERY);
            }
            // The future may have ended meanwhile.
            let _ = sender.send(());
        };
        thread::Builder::new().spawn(watch).wrap_err("starting a thread")?;
        match select(pin!(future), set).await {
            Either::Left((done, _)) => Ok(done),
            Either::Right(_) => Err(Error::Interrupted),
        }
    }
}
