//! The `[filter]` section: a condition for the candidates to score.

use serde::{Deserialize, Serialize};

use super::functions::FunctionRegistry;
use crate::error::{Error, Result};
use crate::filter::SqlFilter;
use crate::runner::Runner;

/// The `[filter]` section: a condition for the candidates to score. Without `sql` and `call`, all candidates pass.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FilterConfig {
    /// A Polars SQL expression over the results frame.
    pub sql: Option<String>,
    /// The name of a function in the program that runs the search ([`FunctionRegistry`]).
    pub call: Option<String>,
}

impl FilterConfig {
    /// Sets the filter of a runner.
    pub(super) fn add_to(&self, runner: Runner, functions: &dyn FunctionRegistry) -> Result<Runner> {
        Ok(match (&self.sql, &self.call) {
            (None, None) => runner,
            (Some(sql), None) => runner.filter(SqlFilter::new(sql)),
            (None, Some(_)) => runner.filter(functions.filter(self)?),
            (Some(_), Some(_)) => {
                return Err(Error::Config("filter: set `sql` or `call`, not both".into()));
            }
        })
    }
}
