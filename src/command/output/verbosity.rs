//! Verbosity and format of the messages on standard error: `--quiet`, `--verbose`, `--log-format`.

use std::io::{self, IsTerminal};

use clap::ValueEnum;

/// How much the command prints on standard error, and in which format.
#[derive(Clone, Copy, Default, clap::Args)]
pub struct Verbosity {
    /// Print only warnings and errors.
    #[arg(long, short, global = true, conflicts_with = "verbose", help_heading = "Messages")]
    quiet: bool,
    /// Print a line for each iteration of a search, with the time of each stage.
    #[arg(long, short, global = true, help_heading = "Messages")]
    verbose: bool,
    /// Format of progress and messages on standard error: text, or json (one object per line).
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

impl Verbosity {
    /// Messages as text, neither quiet nor verbose.
    pub const DEFAULT: Verbosity = Verbosity { quiet: false, verbose: false, log_format: LogFormat::Text };

    pub fn is_quiet(self) -> bool {
        self.quiet
    }

    pub fn is_verbose(self) -> bool {
        self.verbose
    }

    pub fn is_json(self) -> bool {
        self.log_format == LogFormat::Json
    }

    /// Whether to draw progress: standard error is a terminal, and messages are wanted as text.
    pub fn shows_progress(self) -> bool {
        !self.quiet && !self.is_json() && io::stderr().is_terminal()
    }
}
