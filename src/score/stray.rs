//! Unexpected output of scorers, such as library messages between answers: saved, with one warning.

use std::sync::atomic::{AtomicBool, Ordering};

use super::answers::excerpt;
use super::process::Capture;
use super::trouble::{Trouble, Unanswered};

/// The maximum size of unexpected output in one batch.
const MOST: usize = 64 << 20;

/// The unexpected output of one batch.
pub(super) struct Stray<'a> {
    capture: Option<&'a Capture>,
    /// Whether the user was warned in this run.
    is_said: &'a AtomicBool,
    /// An excerpt of the first output.
    first: Option<String>,
    bytes: usize,
}

impl<'a> Stray<'a> {
    pub(super) fn new(capture: Option<&'a Capture>, is_said: &'a AtomicBool) -> Self {
        Stray { capture, is_said, first: None, bytes: 0 }
    }

    /// Records output.
    ///
    /// # Errors
    /// The output exceeds the maximum size.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        if let Some(capture) = self.capture {
            capture.write(bytes);
        }
        self.bytes += bytes.len();
        if self.first.is_none() && !bytes.trim_ascii().is_empty() {
            let first = excerpt(bytes);
            if !self.is_said.swap(true, Ordering::Relaxed) {
                let kept = if self.capture.is_some() { " (saved with its standard error)" } else { "" };
                log::warn!("score: ignoring output of the scorer that is not an answer, such as {first}{kept}");
            }
            self.first = Some(first);
        }
        match self.bytes > MOST {
            true => Err(self.explain(Trouble::broken(format!(
                "printed more than {} MiB of output that is not an answer",
                MOST >> 20
            )))),
            false => Ok(()),
        }
    }

    /// Adds an excerpt of the output to the reason of a fault.
    pub(super) fn explain(&self, trouble: Trouble) -> Trouble {
        match (trouble, &self.first) {
            (Trouble::Unanswered(trouble), Some(first)) => {
                let reason = format!("{} (it printed {first})", trouble.reason);
                Trouble::Unanswered(Unanswered { reason, ..trouble })
            }
            (trouble, _) => trouble,
        }
    }
}
