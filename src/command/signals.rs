//! Signals. The first SIGINT or SIGTERM requests the run to stop, the second ends the process. SIGXFSZ (a file-size
//! limit) is caught, so that the write fails as on a full disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use super::output;
use crate::error::Error;

/// How often signals are checked during interruptible work.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// How long interrupted work may take to discard its unfinished file.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(1);

/// Stack size of the thread in bytes: the usual size of a main thread.
const STACK_SIZE: usize = 8 << 20;

/// The handlers of the process, and what they received.
pub struct Signals {
    is_interrupted: Arc<AtomicBool>,
    /// 128 + the number of the first signal, or 0.
    exit_code: Arc<AtomicUsize>,
}

impl Signals {
    /// Installs the signal handlers.
    pub fn install() -> io::Result<Self> {
        let (is_interrupted, exit_code) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for (signal, code) in [(SIGINT, 130), (SIGTERM, 143)] {
            // The order matters: at the first signal, the shutdown must find the flag unset, and the code must be set before
            // the flag.
            flag::register_conditional_shutdown(signal, code, is_interrupted.clone())?;
            flag::register_usize(signal, exit_code.clone(), code as usize)?;
            flag::register(signal, is_interrupted.clone())?;
        }
        // A handler, because scorers would inherit an ignored signal.
        flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
        Ok(Signals { is_interrupted, exit_code })
    }

    /// A flag that the first signal sets.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.is_interrupted.clone()
    }

    /// Runs work that can be abandoned. The first signal ends it and discards the file that it was writing.
    ///
    /// # Errors
    /// As `work`; [`Error::Interrupted`] if a signal came first.
    pub fn run_interruptible(&self, work: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<()> {
        let (sender, receiver) = sync_channel(1);
        let work = move || sender.send(output::catch_panic(work));
        thread::Builder::new().stack_size(STACK_SIZE).spawn(work)?;
        let mut interrupted: Option<Instant> = None;
        loop {
            match receiver.recv_timeout(CHECK_INTERVAL) {
                Ok(Err(_)) if interrupted.is_some() => return Err(Error::Interrupted.into()),
                Ok(done) => return done,
                Err(RecvTimeoutError::Timeout)
                    if interrupted.is_some_and(|since| since.elapsed() < CLEANUP_TIMEOUT) => {}
                Err(RecvTimeoutError::Timeout)
                    if interrupted.is_none() && !self.is_interrupted.load(Ordering::Relaxed) => {}
                Err(RecvTimeoutError::Timeout) if interrupted.is_none() => {
                    output::cancel_writes();
                    interrupted = Some(Instant::now());
                }
                Err(_) => return Err(Error::Interrupted.into()),
            }
        }
    }

    /// 128 + the number of the first signal, or 0 if there was none.
    pub fn exit_code(&self) -> u8 {
        self.exit_code.load(Ordering::Relaxed) as u8
    }
}
