//! Messages on standard error, as text or as JSON, printed above the progress bar if there is one.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard};

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::terminal::{escape_controls, escape_controls_in_json};
use super::verbosity::Verbosity;
use crate::panics;

/// The state of all messages of the process.
struct Logger {
    verbosity: Verbosity,
    /// Drawn below the messages.
    bar: Option<ProgressBar>,
}

static LOGGER: Mutex<Logger> = Mutex::new(Logger { verbosity: Verbosity::DEFAULT, bar: None });

fn logger() -> MutexGuard<'static, Logger> {
    panics::lock(&LOGGER)
}

/// Sets the verbosity of the process.
pub fn set_verbosity(verbosity: Verbosity) {
    *logger() = Logger { verbosity, bar: None };
}

/// The verbosity of the process.
pub fn verbosity() -> Verbosity {
    logger().verbosity
}

/// Sets the progress bar that is drawn below the messages.
pub fn set_progress_bar(bar: Option<ProgressBar>) {
    logger().bar = bar;
}

/// Prints a message on one line, unless the verbosity is quiet. Control characters are escaped.
pub fn info(message: impl Display) {
    if !verbosity().is_quiet() {
        log("message", message);
    }
}

/// Prints a warning on one line, whatever the verbosity.
pub fn warn(message: impl Display) {
    log("warning", message);
}

/// Prints the error that ends the command on one line, whatever the verbosity.
pub fn error(message: impl Display) {
    log("error", message);
}

fn log(event: &str, message: impl Display) {
    let message = message.to_string();
    match verbosity().is_json() {
        true => write_json(&json!({ "event": event, "message": message })),
        false => write_line(&escape_controls(&message)),
    }
}

/// Prints an event as JSON on one line, unless the verbosity is quiet.
pub fn json_event(event: &Value) {
    if !verbosity().is_quiet() {
        write_json(event);
    }
}

fn write_json(event: &Value) {
    write_line(&String::from_utf8_lossy(&escape_controls_in_json(event.to_string().as_bytes())));
}

/// Writes a line. Errors are ignored, as there is no other place to report them.
fn write_line(line: &str) {
    let write = || drop(writeln!(io::stderr(), "{line}"));
    let bar = logger().bar.clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Installs a [`log`] logger that prints the warnings of this crate.
pub fn install() {
    struct Warnings;
    impl log::Log for Warnings {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.level() <= log::Level::Warn && metadata.target().starts_with("uphill")
        }
        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                warn(format_args!("uphill: {}", record.args()));
            }
        }
        fn flush(&self) {}
    }
    if log::set_logger(&Warnings).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
}
