//! Ctrl-C and SIGTERM: the first asks the run to stop, the second stops at once. A file that grows
//! beyond a limit is an error like a full disk, not the end of the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

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

    /// 0, or 128 + the signal.
    pub fn exit_code(&self) -> u8 {
        self.code.load(Ordering::Relaxed) as u8
    }
}
