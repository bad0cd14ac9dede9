//! The error type of this crate. Messages say what failed, where, the expected and the found value, and what to do.

use std::error::Error as StdError;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error type of this crate. `Display` writes the whole message on one line, including the text of the underlying error.
/// `source` returns the underlying error, if there is one.
///
/// Stages that you write return their own errors with [`Error::custom`]:
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
    /// A stage returned a frame that breaks the contract between stages.
    #[error("{stage}{}: column `{column}`: expected {expected}, found {found}", iteration_suffix(.iteration))]
    Contract {
        /// The stage that returned the frame: `queries`, `database`, `filter`, `score`, `update`.
        stage: &'static str,
        /// The iteration, if known.
        iteration: Option<u32>,
        /// The column, or `rows`.
        column: String,
        /// The value that the contract requires.
        expected: String,
        /// The value in the frame.
        found: String,
    },
    /// An option or a key of a run file is invalid. Exit code 2.
    #[error("{0}")]
    Config(String),
    /// A file, a dataset or a run folder cannot be used.
    #[error("{}: {reason}", path.display())]
    Input {
        /// The file or folder.
        path: PathBuf,
        /// The problem and what to do.
        reason: String,
    },
    /// Another process is writing to this folder. Exit code 4.
    #[error("{}: in use by another process; wait for it to end, or stop it", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The operating system returned an error.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        cause: std::io::Error,
    },
    /// The scorer failed, and the run is configured to stop in that case.
    #[error("score{}: {reason}", iteration_suffix(.iteration))]
    Score {
        /// The iteration, if known.
        iteration: Option<u32>,
        /// The reason.
        reason: String,
    },
    /// The scorer is unavailable. The items have no outcome, and the resumed run requests them again. Exit code 75.
    #[error(
        "score: {reason}; the scorer was unavailable for longer than score.patience; resume with --resume when it is back"
    )]
    Unavailable {
        /// The error of the last attempt.
        reason: String,
    },
    /// Items have no manual score yet.
    #[error("{items} items have no score yet; give their scores with `tell`")]
    Pending {
        /// The number of items.
        items: usize,
    },
    /// A signal stopped the run. Finished work is saved.
    #[error("interrupted")]
    Interrupted,
    /// An error of a stage that you wrote, made with [`Error::custom`].
    #[error("{}{cause}", iteration_prefix(.iteration))]
    Custom {
        /// The iteration, if known.
        iteration: Option<u32>,
        /// The error itself.
        #[source]
        cause: Box<dyn StdError + Send + Sync>,
    },
    /// A crate that this one depends on failed (Lance, Polars, Arrow, Parquet), or a thread did.
    #[error("{context}: {message}")]
    Dependency {
        /// The operation that failed.
        context: String,
        /// The message of that crate, on one line.
        message: String,
        /// The error of that crate, if it returned one.
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
    /// Wraps an error of a stage that you wrote: any error type, or a text. The cause is kept as `source`.
    pub fn custom(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Error::Custom { iteration: None, cause: cause.into() }
    }

    /// Adds the iteration to a `Contract`, `Score` or `Custom` error that has none.
    pub(crate) fn in_iteration(mut self, current: u32) -> Self {
        if let Error::Contract { iteration, .. } | Error::Score { iteration, .. } | Error::Custom { iteration, .. } =
            &mut self
        {
            iteration.get_or_insert(current);
        }
        self
    }

    /// Adds the path of the file or dataset to an error of a dependency.
    pub(crate) fn with_path(self, path: impl AsRef<Path>) -> Self {
        match self {
            Error::Dependency { context, message, .. } => Error::input(path, format!("{context}: {message}")),
            other => other,
        }
    }

    pub(crate) fn input(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Error::Input { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }

    /// Wraps an error or a message of a dependency.
    pub(crate) fn dependency(context: impl Display, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let cause = cause.into();
        Error::Dependency { context: context.to_string(), message: first_line(&cause.to_string()), cause: Some(cause) }
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

/// Lets stages that you write use `?` on Polars results.
impl From<polars::prelude::PolarsError> for Error {
    fn from(error: polars::prelude::PolarsError) -> Self {
        Error::dependency("polars", error)
    }
}

/// Adds the failed operation to an error of a dependency.
pub(crate) trait WrapErr<T> {
    /// Converts errors of Lance, Polars, Arrow and Parquet.
    fn wrap_err(self, operation: impl Display) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> WrapErr<T> for std::result::Result<T, E> {
    fn wrap_err(self, operation: impl Display) -> Result<T> {
        self.map_err(|error| Error::dependency(operation, error))
    }
}

/// Adds the path to an I/O error.
pub(crate) trait AtPath<T> {
    /// Converts `std::io` errors.
    fn at_path(self, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> AtPath<T> for std::io::Result<T> {
    fn at_path(self, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|cause| Error::Io { path: path.as_ref().to_path_buf(), cause })
    }
}

/// The first line of a dependency's message, at most 400 characters: Lance and Polars append source locations and query plans.
pub(crate) fn first_line(message: &str) -> String {
    let message = message.split(", /").next().unwrap_or(message);
    let first = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no message");
    let mut line: String = first.chars().take(400).collect();
    if line.len() < first.len() {
        line.push('…');
    }
    line
}
