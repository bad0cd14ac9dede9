//! Runs work on its own thread while the caller's thread checks for signals.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;

/// How often signals are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Requests work to stop, and interrupts its calls of Python functions.
#[derive(Clone, Default)]
pub struct Interrupt {
    is_requested: Arc<AtomicBool>,
    /// Python ids of the threads that run Python functions.
    calling_threads: Arc<Mutex<Vec<u64>>>,
}

impl Interrupt {
    /// A flag that the first signal sets.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.is_requested.clone()
    }

    /// Calls a Python function. A second signal interrupts the call.
    pub fn call<T>(&self, py: Python<'_>, call: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        let thread: u64 = py.import("threading")?.call_method0("get_ident")?.extract()?;
        self.with_threads(|threads| threads.push(thread));
        let result = call();
        self.with_threads(|threads| threads.retain(|other| *other != thread));
        result
    }

    fn with_threads<T>(&self, work: impl FnOnce(&mut Vec<u64>) -> T) -> T {
        work(&mut self.calling_threads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Raises KeyboardInterrupt in running Python functions, at their next line of Python code.
    fn interrupt_calls(&self, py: Python<'_>) {
        let exception = py.get_type::<PyKeyboardInterrupt>();
        self.with_threads(|threads| {
            for thread in threads {
                // SAFETY: this thread holds the GIL. The id of a thread that has ended has no effect.
                unsafe { ffi::PyThreadState_SetAsyncExc(*thread as _, exception.as_ptr()) };
            }
        });
    }
}

/// Runs work on its own thread and waits for it. A signal requests it to stop, and the exception of the signal handler is
/// raised when the work has ended, so that no thread outlives the interpreter. A second signal also interrupts running
/// Python functions.
///
/// # Errors
/// The exception of a signal handler; a panic.
pub fn run_interruptible<T: Send>(
    py: Python<'_>,
    interrupt: &Interrupt,
    work: impl FnOnce() -> T + Send,
) -> PyResult<T> {
    let (caller, done) = (thread::current(), AtomicBool::new(false));
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Wakes the caller even if the work panics.
            let _wake = WakeOnDrop(&done, caller);
            work()
        });
        let mut raised = None;
        while !done.load(Ordering::Acquire) {
            py.detach(|| thread::park_timeout(CHECK_INTERVAL));
            if let Err(signal) = py.check_signals() {
                if interrupt.is_requested.swap(true, Ordering::Relaxed) {
                    interrupt.interrupt_calls(py);
                }
                raised.get_or_insert(signal);
            }
        }
        let result = py.detach(|| thread.join());
        match raised {
            Some(signal) => Err(signal),
            None => result.map_err(|_| PyRuntimeError::new_err("stopped by a bug; the scores so far are kept")),
        }
    })
}

/// Wakes the waiting thread when it is dropped.
struct WakeOnDrop<'a>(&'a AtomicBool, Thread);

impl Drop for WakeOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        self.1.unpark();
    }
}
