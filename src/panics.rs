//! Catching panics, and locking mutexes that a panic may have poisoned.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result, first_line};

/// The payload of a panic.
pub(crate) type Panic = Box<dyn Any + Send>;

/// Locks a mutex and ignores poisoning. The data is consistent even after a panic: code that may panic runs before the
/// shared data changes.
pub(crate) fn lock<T: ?Sized>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on a condition variable and ignores poisoning.
pub(crate) fn wait<'a, T>(changed: &Condvar, locked: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    changed.wait(locked).unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` and returns the payload if it panics. Do not use data that `work` may have left half changed.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> std::result::Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(work))
}

/// Runs `work` and returns the message if it panics. Do not use data that `work` may have left half changed.
pub(crate) fn catch_message<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch(work).map_err(|panic| message(&*panic))
}

/// Runs `work`, which reads `path`. A panic becomes an error about that path.
pub(crate) fn catch_at_path<T>(path: impl AsRef<Path>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_message(work)
        .unwrap_or_else(|message| Err(Error::input(path, format!("damaged, or not supported: {message}"))))
}

/// The message of a panic, on one line.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    first_line(text.unwrap_or("no message"))
}
