//! Unexpected output of scorers, such as messages of imported packages between answers: saved, with one warning.

use std::sync::atomic::{AtomicBool, Ordering};

use super::answer::excerpt;
use super::fault::{AttemptFault, ScorerFault};
use super::process::OutputLog;

/// The maximum size of unexpected output in one request.
const MAX_BYTES: usize = 64 << 20;

/// The unexpected output of one request.
pub(super) struct UnexpectedOutput<'a> {
    log: Option<&'a OutputLog>,
    /// Whether this run has warned about such output.
    has_warned: &'a AtomicBool,
    /// An excerpt of the first output.
    first_excerpt: Option<String>,
    bytes: usize,
}

impl<'a> UnexpectedOutput<'a> {
    pub(super) fn new(log: Option<&'a OutputLog>, has_warned: &'a AtomicBool) -> Self {
        UnexpectedOutput { log, has_warned, first_excerpt: None, bytes: 0 }
    }

    /// Records output.
    ///
    /// # Errors
    /// The output exceeds the maximum size.
    pub(super) fn record(&mut self, bytes: &[u8]) -> Result<(), ScorerFault> {
        if let Some(log) = self.log {
            log.write(bytes);
        }
        self.bytes += bytes.len();
        if self.first_excerpt.is_none() && !bytes.trim_ascii().is_empty() {
            let first = excerpt(bytes);
            if !self.has_warned.swap(true, Ordering::Relaxed) {
                let saved = if self.log.is_some() { " (saved with its standard error)" } else { "" };
                log::warn!("score: ignoring output of the scorer that is not an answer, such as {first}{saved}");
            }
            self.first_excerpt = Some(first);
        }
        match self.bytes > MAX_BYTES {
            true => Err(self.explain(ScorerFault::malfunction(format!(
                "printed more than {} MiB of output that is not an answer",
                MAX_BYTES >> 20
            )))),
            false => Ok(()),
        }
    }

    /// Adds an excerpt of the output to the reason of a fault.
    pub(super) fn explain(&self, fault: ScorerFault) -> ScorerFault {
        match (fault, &self.first_excerpt) {
            (ScorerFault::Attempt(fault), Some(first)) => {
                let reason = format!("{} (it printed {first})", fault.reason);
                ScorerFault::Attempt(AttemptFault { reason, ..fault })
            }
            (fault, _) => fault,
        }
    }
}
