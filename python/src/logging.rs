//! Forwards the library's warnings to Python's `logging`.

use log::{Level, LevelFilter, Log, Metadata, Record};
use pyo3::prelude::*;

struct PythonLogger;

impl Log for PythonLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn && metadata.target().starts_with("uphill")
    }
    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string();
        // Python may be shutting down. A failure to log has nowhere to go.
        let _ = Python::try_attach(|py| {
            let logger = py.import("logging")?.call_method1("getLogger", ("uphill",))?;
            logger.call_method1("warning", ("%s", message)).map(drop)
        });
    }
    fn flush(&self) {}
}

/// Sends warnings to the Python logger `uphill` from now on.
pub fn install() {
    if log::set_logger(&PythonLogger).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}
