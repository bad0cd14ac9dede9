//! Work on a thread of its own, while the caller's thread looks for signals.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;

/// How often signals are looked for.
const EVERY: Duration = Duration::from_millis(20);

/// What tells work that it should stop.
#[derive(Clone, Default)]
pub struct Stopping {
    asked: Arc<AtomicBool>,
    /// Threads that are in functions of the caller, as Python numbers them.
    in_functions: Arc<Mutex<Vec<u64>>>,
}

impl Stopping {
    /// Set when a signal came.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.asked.clone()
    }

    /// Calls a function of the caller, which a second signal interrupts.
    pub fn around<T>(&self, py: Python<'_>, call: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        let thread: u64 = py.import("threading")?.call_method0("get_ident")?.extract()?;
        self.threads(|threads| threads.push(thread));
        let called = call();
        self.threads(|threads| threads.retain(|other| *other != thread));
        called
    }

    fn threads<T>(&self, work: impl FnOnce(&mut Vec<u64>) -> T) -> T {
        work(&mut self.in_functions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has functions that are running raise KeyboardInterrupt, once they are back in Python code.
    fn interrupt_functions(&self, py: Python<'_>) {
        let interrupt = py.get_type::<PyKeyboardInterrupt>();
        self.threads(|threads| {
            for thread in threads {
                // SAFETY: this thread holds Python; a number that is no thread's any more changes nothing.
                unsafe { ffi::PyThreadState_SetAsyncExc(*thread as _, interrupt.as_ptr()) };
            }
        });
    }
}

/// Does work on a thread of its own, and waits for it. A signal asks it to stop; it is waited for then, so that nothing is
/// left that could outlive Python, and what the signal's handler raised is raised. A second one interrupts functions of
/// the caller, too.
///
/// # Errors
/// What the handler of a signal raised; a panic.
pub fn watched<T: Send>(py: Python<'_>, stopping: &Stopping, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    let (waiting, done) = (thread::current(), AtomicBool::new(false));
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Also where the work panics.
            let _end = End(&done, waiting);
            work()
        });
        let mut raised = None;
        while !done.load(Ordering::Acquire) {
            py.detach(|| thread::park_timeout(EVERY));
            if let Err(signal) = py.check_signals() {
                if stopping.asked.swap(true, Ordering::Relaxed) {
                    stopping.interrupt_functions(py);
                }
                raised.get_or_insert(signal);
            }
        }
        let worked = py.detach(|| thread.join());
        match raised {
            Some(signal) => Err(signal),
            None => worked.map_err(|_| PyRuntimeError::new_err("stopped by a bug; what was finished is kept")),
        }
    })
}

/// Wakes who waits, when it goes.
struct End<'a>(&'a AtomicBool, Thread);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        self.1.unpark();
    }
}
