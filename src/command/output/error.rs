//! Errors as the command prints them: chains of causes, failed writes, panics.

use crate::error::Error;
use crate::panics;

/// Why rows were not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The reader of standard output closed it, which is not a failure.
    #[error("standard output is closed")]
    ClosedPipe,
    /// The file or standard output cannot be written.
    #[error("{}", error_chain(.0))]
    Output(anyhow::Error),
    /// The rows cannot be computed, or not in this format.
    #[error("{}", error_chain(.0))]
    Rows(anyhow::Error),
}

/// The message of an error and of its causes. Errors of this crate already include their causes.
pub fn error_chain(error: &anyhow::Error) -> String {
    let mut messages = Vec::new();
    for cause in error.chain() {
        messages.push(cause.to_string());
        if cause.is::<Error>() || cause.is::<WriteError>() {
            break;
        }
    }
    messages.join(": ")
}

/// Disables the default panic message unless `RUST_BACKTRACE` is set, as [`catch_panic`] reports panics on one line.
pub fn silence_panics() {
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

/// Runs `work` and returns a panic as an error.
pub fn catch_panic<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    panics::catch(work).unwrap_or_else(|panic| {
        let message = panics::message(&*panic);
        Err(anyhow::anyhow!("stopped by a bug (set RUST_BACKTRACE=1 for a backtrace): {message}"))
    })
}
