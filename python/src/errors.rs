//! What goes wrong, as Python's exceptions.

use std::error::Error as StdError;

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyKeyboardInterrupt};
use pyo3::prelude::*;

create_exception!(uphill, Error, PyException, "What can go wrong; the message says what, where, and what to do.");
create_exception!(uphill, ConfigError, Error, "An option that asks for something that cannot be.");
create_exception!(uphill, LockedError, Error, "Another process writes to this folder.");
create_exception!(uphill, AwayError, Error, "Nobody answers for the items; the run goes on when the scorer is back.");

/// An error as the exception to raise: the one that a function of the caller raised, with its traceback, if that is what
/// lies beneath.
pub fn exception(py: Python<'_>, error: uphill::Error) -> PyErr {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(one) = cause {
        if let Some(raised) = one.downcast_ref::<PyErr>() {
            return raised.clone_ref(py);
        }
        cause = one.source();
    }
    let said = with_arguments(&error.to_string());
    match error {
        uphill::Error::Config(_) => ConfigError::new_err(said),
        uphill::Error::Locked { .. } => LockedError::new_err(said),
        uphill::Error::Away { .. } => AwayError::new_err(said),
        uphill::Error::Interrupted => PyKeyboardInterrupt::new_err(()),
        _ => Error::new_err(said),
    }
}

/// A message whose options are called as here: `--skip-invalid` is `skip_invalid`.
fn with_arguments(said: &str) -> String {
    let renamed = said.split_inclusive(' ').map(|word| match word.strip_prefix("--") {
        Some(option) if option.starts_with(|first: char| first.is_ascii_lowercase()) => {
            let end = option.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(option.len());
            option[..end].replace('-', "_") + &option[end..]
        }
        _ => word.to_string(),
    });
    renamed.collect()
}
