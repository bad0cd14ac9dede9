//! `uphill._uphill`: what the Python package calls. The package itself, in `uphill/`, has the names and the words.
//!
//! Tables come and go as Arrow streams ([`table`]); a search runs on a thread of its own while the caller's looks for
//! signals ([`watch`]); functions of the caller are stages ([`functions`]).
//!
//! A thread that holds Python never waits for another of ours, and never works in this library: it lets go of Python
//! first. So nothing that our threads wait for each other with can lock up with Python's own lock.

mod errors;
mod functions;
mod said;
mod stages;
mod table;
mod watch;

use pyo3::prelude::*;

#[pymodule]
mod _uphill {
    #[pymodule_export]
    use super::errors::{AwayError, ConfigError, Error, LockedError};
    #[pymodule_export]
    use super::functions::{
        Library, ask, command, evaluate, index, plot, queries, remove, report, results, search, tell, trajectories,
    };
    #[pymodule_export]
    use super::table::Table;
}
