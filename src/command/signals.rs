//! Ctrl-C and SIGTERM: the first asks the run to stop, the second stops at once. A file that grows
//! beyond a limit is an error like a full disk, not the end of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use super::output;
use crate::error::Error;

/// How often a command that is left at once looks for signals.
const EVERY: Duration = Duration::from_millis(20);

/// How long it may take to take away the file that it was writing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of stack, as the main thread has.
const STACK: usize = 8 << 20;

pub struct Signals {
    asked: Arc<AtomicBool>,
    code: Arc<AtomicUsize>,
}

impl Signals {
    pub fn install() -> io::Result<Self> {
        let (asked, code) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for (signal, exit_code) in [(SIGINT, 130), (SIGTERM, 143)] {
            // In this order: the flag is still unset when the first signal comes, and who sees it set finds the code.
            flag::register_conditional_shutdown(signal, exit_code, asked.clone())?;
            flag::register_usize(signal, code.clone(), exit_code as usize)?;
            flag::register(signal, asked.clone())?;
        }
        // Caught, not ignored, as scorers would inherit that.
        flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
        Ok(Signals { asked, code })
    }

    /// Set by the first signal.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.asked.clone()
    }

    /// Does what has nothing to finish: at the first signal it is left where it is, and no file has its name yet.
    ///
    /// # Errors
    /// As `work`; [`Error::Interrupted`] if a signal came first.
    pub fn at_once(&self, work: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<()> {
        let (sender, receiver) = sync_channel(1);
        let work = move || sender.send(output::caught(work));
        thread::Builder::new().stack_size(STACK).spawn(work)?;
        let mut since: Option<Instant> = None;
        loop {
            match receiver.recv_timeout(EVERY) {
                Ok(Err(_)) if since.is_some() => return Err(Error::Interrupted.into()),
                Ok(done) => return done,
                Err(RecvTimeoutError::Timeout) if since.is_some_and(|since| since.elapsed() < PATIENCE) => {}
                Err(RecvTimeoutError::Timeout) if since.is_none() && !self.asked.load(Ordering::Relaxed) => {}
                Err(RecvTimeoutError::Timeout) if since.is_none() => {
                    output::write_no_more();
                    since = Some(Instant::now());
                }
                Err(_) => return Err(Error::Interrupted.into()),
            }
        }
    }

    /// 0, or 128 + the signal.
    pub fn exit_code(&self) -> u8 {
        self.code.load(Ordering::Relaxed) as u8
    }
}
