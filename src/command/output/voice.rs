//! What is said on standard error: how much of it, and as what; above the block that shows progress, if there is one.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard};

use clap::ValueEnum;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::Unwritten;
use super::screen::{inert, inert_json};
use crate::panics;

/// How much is said on standard error, and as what.
#[derive(Clone, Copy, Default, clap::Args)]
pub struct Voice {
    /// Say nothing but warnings and errors.
    #[arg(long, short, global = true, conflicts_with = "verbose", help_heading = "Messages")]
    quiet: bool,
    /// Say more: a line for each iteration of a search, with the time its stages took.
    #[arg(long, short, global = true, help_heading = "Messages")]
    verbose: bool,
    /// Progress and messages on standard error: text, or json: an object on each line, one for each iteration.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", hide_default_value = true)]
    #[arg(help_heading = "Messages", hide_possible_values = true)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    #[default]
    Text,
    Json,
}

/// What all of the process speaks with.
struct Speaker {
    voice: Voice,
    /// What is drawn below whatever is said.
    block: Option<ProgressBar>,
}

static SPEAKER: Mutex<Speaker> = Mutex::new(Speaker { voice: Voice::TEXT, block: None });

fn speaker() -> MutexGuard<'static, Speaker> {
    panics::lock(&SPEAKER)
}

impl Voice {
    const TEXT: Voice = Voice { quiet: false, verbose: false, log_format: LogFormat::Text };

    /// From now on speaks so.
    pub fn take(self) {
        *speaker() = Speaker { voice: self, block: None };
    }

    /// How the process speaks.
    pub fn now() -> Self {
        speaker().voice
    }

    pub fn is_quiet(self) -> bool {
        self.quiet
    }

    pub fn is_verbose(self) -> bool {
        self.verbose
    }

    pub fn is_json(self) -> bool {
        self.log_format == LogFormat::Json
    }

    /// Whether somebody looks at a screen that may be drawn on.
    pub fn draws(self) -> bool {
        !self.quiet && !self.is_json() && io::stderr().is_terminal()
    }
}

/// Draws this below whatever is said, or nothing any more.
pub fn draw_below(block: Option<ProgressBar>) {
    speaker().block = block;
}

/// A message on one line of standard error, whatever the names in it are made of; unless nothing but warnings is wanted.
pub fn say(message: impl Display) {
    if !Voice::now().is_quiet() {
        speak("message", message);
    }
}

/// As [`say`], of what should not be missed.
pub fn warn(message: impl Display) {
    speak("warning", message);
}

/// As [`say`], of what ends the command.
pub fn fail(message: impl Display) {
    speak("error", message);
}

fn speak(event: &str, message: impl Display) {
    let message = message.to_string();
    match Voice::now().is_json() {
        true => note(&json!({ "event": event, "message": message })),
        false => put(&inert(&message)),
    }
}

/// An object on a line of standard error, in place of messages; unless nothing but warnings is wanted.
pub fn report(event: &Value) {
    if !Voice::now().is_quiet() {
        note(event);
    }
}

fn note(event: &Value) {
    put(&String::from_utf8_lossy(&inert_json(event.to_string().as_bytes())));
}

/// If nobody takes it, there is nobody to tell that either.
fn put(line: &str) {
    let write = || drop(writeln!(io::stderr(), "{line}"));
    let block = speaker().block.clone();
    match block {
        Some(block) => block.suspend(write),
        None => write(),
    }
}

/// An error and what lies beneath it, as far as it does not say that itself.
pub fn told(error: &anyhow::Error) -> String {
    let mut said = Vec::new();
    for cause in error.chain() {
        said.push(cause.to_string());
        if cause.is::<crate::error::Error>() || cause.is::<Unwritten>() {
            break;
        }
    }
    said.join(": ")
}

/// Says this crate's warnings.
pub fn log_warnings() {
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

/// A panic is told by whoever catches it, on one line; its place and backtrace only if `RUST_BACKTRACE` is set.
pub fn quiet_panics() {
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

/// Does what should not panic; a panic becomes an error.
pub fn caught<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    panics::catch(work).unwrap_or_else(|panic| {
        Err(anyhow::anyhow!("stopped by a bug (RUST_BACKTRACE=1 tells more): {}", panics::message(&*panic)))
    })
}
