//! Interrupts long work when a flag is set: between steps, and during steps that do not check the flag.

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

/// How often the flag is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The stack size of a worker thread, in bytes.
const STACK_SIZE: usize = 16 << 20;

/// An optional flag that interrupts work when it is set.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    flag: Option<Arc<AtomicBool>>,
}

impl Interrupt {
    pub(crate) fn new(flag: Option<Arc<AtomicBool>>) -> Self {
        Interrupt { flag }
    }

    /// Checks the flag. Call this between two steps.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the flag is set.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.flag {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }

    /// Runs `work` on another thread and returns [`Error::Interrupted`] as soon as the flag is set. The thread continues in
    /// the background, so `work` must not create files or anything else that needs a cleanup.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        self.check()?;
        if self.flag.is_none() {
            return work();
        }
        let (sender, receiver) = sync_channel(1);
        let work = move || {
            let failed = |message| Err(Error::Dependency { context: "stopped by a bug".into(), message, cause: None });
            let _ = sender.send(catch_message(work).unwrap_or_else(failed));
        };
        thread::Builder::new().stack_size(STACK_SIZE).spawn(work).wrap_err("starting a thread")?;
        loop {
            match receiver.recv_timeout(CHECK_INTERVAL) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => self.check()?,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Interrupted),
            }
        }
    }

    /// Awaits a future. If the flag is set, the future is dropped.
    pub(crate) async fn run_async<T>(&self, future: impl Future<Output = T>) -> Result<T> {
        let Some(flag) = self.flag.clone() else { return Ok(future.await) };
        self.check()?;
        let (sender, set) = oneshot::channel::<()>();
        let watch = move || {
            while !sender.is_canceled() && !flag.load(Ordering::Relaxed) {
                thread::sleep(CHECK_INTERVAL);
            }
            // Sending fails if the future has completed, which is harmless.
            let _ = sender.send(());
        };
        thread::Builder::new().spawn(watch).wrap_err("starting a thread")?;
        match select(pin!(future), set).await {
            Either::Left((output, _)) => Ok(output),
            Either::Right(_) => Err(Error::Interrupted),
        }
    }
}
