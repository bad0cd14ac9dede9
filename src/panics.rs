//! Panics, and the locks that they poison: what they mean to whoever is left, in one place.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::one_line;

/// What a thread panicked with.
pub(crate) type Panic = Box<dyn Any + Send>;

/// Locks what threads share. One that panicked while it held the lock has left it whole: whatever may panic is done before
/// what is shared changes.
pub(crate) fn lock<T: ?Sized>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a change of what is locked.
pub(crate) fn wait<'a, T>(changed: &Condvar, locked: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    changed.wait(locked).unwrap_or_else(PoisonError::into_inner)
}

/// Does what may panic; gives what it panicked with. What was half done must not be used any more.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(work))
}

/// What a panic said, on one line.
pub(crate) fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    one_line(text.unwrap_or("no message"))
}
