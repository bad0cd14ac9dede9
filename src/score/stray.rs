//! What a scorer's libraries print between its answers: kept with its errors, and said once.

use std::sync::atomic::{AtomicBool, Ordering};

use super::answers::excerpt;
use super::process::Capture;
use super::trouble::{Trouble, Unanswered};

/// The most that is read of it in one batch.
const MOST: usize = 64 << 20;

/// The stray output of one batch.
pub(super) struct Stray<'a> {
    capture: Option<&'a Capture>,
    /// Whether the user knows of it.
    is_said: &'a AtomicBool,
    /// What came first, as it is shown.
    first: Option<String>,
    bytes: usize,
}

impl<'a> Stray<'a> {
    pub(super) fn new(capture: Option<&'a Capture>, is_said: &'a AtomicBool) -> Self {
        Stray { capture, is_said, first: None, bytes: 0 }
    }

    /// Takes some of it.
    ///
    /// # Errors
    /// More than any library prints.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        if let Some(capture) = self.capture {
            capture.write(bytes);
        }
        self.bytes += bytes.len();
        if self.first.is_none() && !bytes.trim_ascii().is_empty() {
            let first = excerpt(bytes);
            if !self.is_said.swap(true, Ordering::Relaxed) {
                let kept = if self.capture.is_some() { ", and kept with its standard error" } else { "" };
                log::warn!(
                    "score: the scorer prints what is no answer, such as {first}; such lines are left out{kept}"
                );
            }
            self.first = Some(first);
        }
        match self.bytes > MOST {
            true => {
                Err(self.explain(Trouble::broken(format!("printed more than {} MiB that is no answer", MOST >> 20))))
            }
            false => Ok(()),
        }
    }

    /// Adds to the reason for no answer what came instead.
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
