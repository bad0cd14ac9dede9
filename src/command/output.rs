//! Output of the command: rows and properties on standard output or in files, messages and progress on standard error.

mod error;
mod flatten;
mod forecast;
mod hits;
mod logger;
mod numbers;
mod progress;
mod progress_state;
mod properties;
mod rows;
mod shell;
mod summary;
mod table;
mod terminal;
mod verbosity;
mod writer;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

pub use self::error::{WriteError, catch_panic, error_chain, silence_panics};
pub use self::forecast::{final_forecast, forecast_json};
pub use self::hits::{final_hits, print_audit};
pub use self::logger::{error, info, install as install_logger, set_verbosity, warn};
pub use self::numbers::{count, duration};
pub use self::progress::{SearchProgress, row_progress_bar};
pub use self::properties::print_properties;
pub use self::rows::{Format, Rows};
pub use self::shell::quote;
pub use self::summary::{print_next_steps, print_summary, print_times};
pub use self::verbosity::Verbosity;
pub use self::writer::{cancel_writes, to_file, to_stdout};
use crate::error::{Error, Result};

/// The destination and format of rows.
#[derive(clap::Args)]
pub struct OutputOptions {
    /// Output format: table, csv, json or parquet [default: table on a terminal, else csv].
    #[arg(long, hide_possible_values = true)]
    format: Option<Format>,
    /// Write to this file instead of standard output. The extension sets the format: .csv, .json or .parquet.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl OutputOptions {
    /// Writes rows.
    pub fn write<'a>(&self, rows: impl Into<Rows<'a>>) -> std::result::Result<(), WriteError> {
        let (rows, format) = (rows.into(), self.format().map_err(|error| WriteError::Rows(error.into()))?);
        match &self.output {
            Some(path) => to_file(path, |out| rows::write(rows, format, out, false)),
            None => to_stdout(|out, is_terminal| rows::write(rows, format, out, is_terminal)),
        }
    }

    /// Rejects an unsupported extension, so that this fails before anything is computed.
    pub fn check(&self) -> Result<()> {
        self.format().map(drop)
    }

    /// Whether the format is a table.
    pub fn is_table(&self) -> bool {
        matches!(self.format(), Ok(Format::Table))
    }

    /// Whether the format is JSON.
    pub fn is_json(&self) -> bool {
        matches!(self.format(), Ok(Format::Json))
    }

    fn format(&self) -> Result<Format> {
        const NAMES: [(&str, Format); 3] = [("csv", Format::Csv), ("json", Format::Json), ("parquet", Format::Parquet)];
        Ok(match (self.format, &self.output) {
            (Some(format), _) => format,
            (None, Some(path)) => match extension(path, &NAMES.map(|(name, _)| name), " or set --format")? {
                Some(position) => NAMES[position].1,
                None => Format::Csv,
            },
            (None, None) if io::stdout().is_terminal() => Format::Table,
            (None, None) => Format::Csv,
        })
    }
}

/// The position of a file's extension in `supported`, or `None` if the file has no extension. The error for an unsupported
/// extension ends with `hint`.
pub fn extension(path: &Path, supported: &[&str], hint: &str) -> Result<Option<usize>> {
    let Some(found) = path.extension() else { return Ok(None) };
    let position = supported.iter().position(|name| found.eq_ignore_ascii_case(name));
    position.map(Some).ok_or_else(|| {
        let (file, found) = (path.display(), found.display());
        let supported = supported.iter().map(|name| format!(".{name}")).collect::<Vec<_>>().join(", ");
        Error::Config(format!("{file}: unsupported extension .{found}; use {supported}{hint}"))
    })
}
