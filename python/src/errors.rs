//! Errors as Python exceptions.

use std::error::Error as StdError;

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyKeyboardInterrupt};
use pyo3::prelude::*;

create_exception!(
    uphill,
    Error,
    PyException,
    "Base class of all errors; the message says what, where, and what to do."
);
create_exception!(uphill, ConfigError, Error, "An option is invalid.");
create_exception!(uphill, LockedError, Error, "Another process is writing to this folder.");
create_exception!(uphill, UnavailableError, Error, "The scorer is unavailable; resume the run when it is back.");

/// The exception to raise for an error. If a Python function caused it, that is its own exception with its traceback.
pub fn exception(py: Python<'_>, error: uphill::Error) -> PyErr {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(raised) = current.downcast_ref::<PyErr>() {
            return raised.clone_ref(py);
        }
        cause = current.source();
    }
    let message = with_argument_names(&error.to_string());
    match error {
        uphill::Error::Config(_) => ConfigError::new_err(message),
        uphill::Error::Locked { .. } => LockedError::new_err(message),
        uphill::Error::Unavailable { .. } => UnavailableError::new_err(message),
        uphill::Error::Interrupted => PyKeyboardInterrupt::new_err(()),
        _ => Error::new_err(message),
    }
}

/// A message with options of the command as Python arguments: `--skip-invalid` becomes `skip_invalid`.
fn with_argument_names(message: &str) -> String {
    let renamed = message.split_inclusive(' ').map(|word| match word.strip_prefix("--") {
        Some(option) if option.starts_with(|first: char| first.is_ascii_lowercase()) => {
            let end = option.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(option.len());
            option[..end].replace('-', "_") + &option[end..]
        }
        _ => word.to_string(),
    });
    renamed.collect()
}
