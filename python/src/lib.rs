//! The extension module `uphill._uphill`. The Python package in `uphill/` is the public interface and wraps it.
//!
//! Tables are passed as Arrow streams ([`table`]). A search runs on its own thread while the caller's thread checks for
//! signals ([`signals`]). Python functions are stages of the search ([`stages`]).
//!
//! A thread that holds the GIL never waits for another thread of this module and never works in this library: it releases
//! the GIL first. So the locks of our threads cannot deadlock with the GIL.

mod errors;
mod functions;
mod logging;
mod signals;
mod stages;
mod table;

use pyo3::prelude::*;

#[pymodule]
mod _uphill {
    #[pymodule_export]
    use super::errors::{ConfigError, Error, LockedError, UnavailableError};
    #[pymodule_export]
    use super::functions::{
        Library, ask, audit, command, evaluate, explain, index, plot, queries, remove, report, results, search, tell,
        trajectories, unscored,
    };
    #[pymodule_export]
    use super::table::Table;
}
