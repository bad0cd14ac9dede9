//! The crate's one error type: what went wrong, where, both values, what to do.

use std::error::Error as StdError;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. `Display` is the whole message, on one line; what lies beneath it, where there is something, is its
/// `source`, and said in the message too.
///
/// A stage of the caller's own makes an error of its own by [`Error::custom`]:
///
/// ```
/// use std::error::Error as _;
/// let dock = |item: &str| -> uphill::Result<f64> { item.parse().map_err(uphill::Error::custom) };
/// let error = dock("no number").unwrap_err();
/// assert_eq!(error.to_string(), "invalid float literal");
/// assert!(error.source().is_some_and(|cause| cause.is::<std::num::ParseFloatError>()));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A frame that user code gave back breaks the contract between stages.
    #[error("{stage}{}: column `{column}`: expected {expected}, found {found}", iteration_suffix(.iteration))]
    Contract {
        /// The stage that gave the frame: `queries`, `database`, `filter`, `score`, `update`.
        stage: &'static str,
        /// The iteration it happened in, when known.
        iteration: Option<u32>,
        /// The column (or `rows`).
        column: String,
        /// What the contract asks for.
        expected: String,
        /// What was there.
        found: String,
    },
    /// An option or a run file that asks for something that cannot be. Exit code 2.
    #[error("{0}")]
    Config(String),
    /// Input data that cannot be used: a file, a dataset, a run folder.
    #[error("{}: {reason}", path.display())]
    Input {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Another process writes to this folder. Exit code 4.
    #[error("{}: in use by another process; wait for it to end, or stop it", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The operating system said no.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The score could not be had, and the run is set to stop for that.
    #[error("score{}: {reason}", iteration_suffix(.iteration))]
    Score {
        /// The iteration it happened in, when known.
        iteration: Option<u32>,
        /// Why.
        reason: String,
    },
    /// Nobody answers for the items: they have not been asked, and are when the run goes on. Exit code 75.
    #[error("score: {reason}; the scorer is away for longer than score.patience: go on with --resume when it is back")]
    Unavailable {
        /// What was tried last.
        reason: String,
    },
    /// Items wait to be scored by hand.
    #[error("{items} items wait for their scores; tell them")]
    Pending {
        /// How many.
        items: usize,
    },
    /// A signal asked the run to stop; what was finished is kept.
    #[error("interrupted")]
    Interrupted,
    /// What a stage of the caller's own says: made by [`Error::custom`].
    #[error("{}{cause}", iteration_prefix(.iteration))]
    Custom {
        /// The iteration it happened in, when known.
        iteration: Option<u32>,
        /// What it says.
        #[source]
        cause: Box<dyn StdError + Send + Sync>,
    },
    /// A library underneath failed.
    #[error("{context}: {message}")]
    Library {
        /// What this crate was doing.
        context: String,
        /// What the library said, on one line.
        message: String,
        /// What it gave, where it gave something.
        #[source]
        cause: Option<Box<dyn StdError + Send + Sync>>,
    },
}

fn iteration_suffix(iteration: &Option<u32>) -> String {
    iteration.map_or(String::new(), |iteration| format!(" in iteration {iteration}"))
}

fn iteration_prefix(iteration: &Option<u32>) -> String {
    iteration.map_or(String::new(), |iteration| format!("iteration {iteration}: "))
}

impl Error {
    /// An error of a stage of the caller's own, of any other error or of a text; it keeps its cause.
    pub fn custom(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Error::Custom { iteration: None, cause: cause.into() }
    }

    /// Adds the iteration to an error that has a place for it.
    pub(crate) fn in_iteration(mut self, now: u32) -> Self {
        if let Error::Contract { iteration, .. } | Error::Score { iteration, .. } | Error::Custom { iteration, .. } =
            &mut self
        {
            iteration.get_or_insert(now);
        }
        self
    }

    /// Names the file or the dataset that a library's error is about.
    pub(crate) fn with_path(self, path: impl AsRef<Path>) -> Self {
        match self {
            Error::Library { context, message, .. } => Error::input(path, format!("{context}: {message}")),
            other => other,
        }
    }

    pub(crate) fn input(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Error::Input { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }

    /// Of what a library gave, or said.
    pub(crate) fn library(context: impl Display, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let cause = cause.into();
        Error::Library { context: context.to_string(), message: first_line(&cause.to_string()), cause: Some(cause) }
    }

    pub(crate) fn contract(
        stage: &'static str,
        column: impl Into<String>,
        expected: impl Display,
        found: impl Display,
    ) -> Self {
        Error::Contract {
            stage,
            iteration: None,
            column: column.into(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

/// So that stages of the caller's own can use `?` on Polars' results.
impl From<polars::prelude::PolarsError> for Error {
    fn from(error: polars::prelude::PolarsError) -> Self {
        Error::library("polars", error)
    }
}

/// Adds to another library's error what this crate was doing.
pub(crate) trait WrapErr<T> {
    /// For errors of Lance, Polars, Arrow and Parquet.
    fn wrap_err(self, what: impl Display) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> WrapErr<T> for std::result::Result<T, E> {
    fn wrap_err(self, what: impl Display) -> Result<T> {
        self.map_err(|error| Error::library(what, error))
    }
}

/// Adds the path to an error of the operating system.
pub(crate) trait AtPath<T> {
    /// For `std::io` results.
    fn at_path(self, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> AtPath<T> for std::io::Result<T> {
    fn at_path(self, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|cause| Error::Io { path: path.as_ref().to_path_buf(), cause })
    }
}

/// Keeps the first, telling line of a library's message: Lance and Polars append
/// their source locations and query plans.
pub(crate) fn first_line(message: &str) -> String {
    let message = message.split(", /").next().unwrap_or(message);
    let first = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no message");
    let mut line: String = first.chars().take(400).collect();
    if line.len() < first.len() {
        line.push('…');
    }
    line
}
