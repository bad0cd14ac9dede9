//! What the library warns of, to Python's `logging`.

use log::{Level, LevelFilter, Log, Metadata, Record};
use pyo3::prelude::*;

struct Logging;

impl Log for Logging {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn && metadata.target().starts_with("uphill")
    }
    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let said = record.args().to_string();
        // Python may be gone already; who cannot log has nobody to tell.
        let _ = Python::try_attach(|py| {
            let logger = py.import("logging")?.call_method1("getLogger", ("uphill",))?;
            logger.call_method1("warning", ("%s", said)).map(drop)
        });
    }
    fn flush(&self) {}
}

/// From now on warnings go to the logger `uphill`.
pub fn listen() {
    if log::set_logger(&Logging).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}
