//! The registry of functions that a run file can name with `call`.

use polars::prelude::DataFrame;

use super::{FilterConfig, ScoreConfig};
use crate::error::{Error, Result};
use crate::filter::{Filter, PassThroughFilter};
use crate::score::Score;

/// The functions of a program that a run file can name with `call`.
pub trait FunctionRegistry {
    /// The score that a section, or a part of a sum, names. The other keys of the section are the settings for calling it.
    ///
    /// # Errors
    /// No score of that name.
    fn score(&self, section: &ScoreConfig) -> Result<Box<dyn Score>>;

    /// The filter that a section names.
    ///
    /// # Errors
    /// No filter of that name.
    fn filter(&self, section: &FilterConfig) -> Result<Box<dyn Filter>>;
}

/// The registry of a program without functions, such as the command line.
pub(super) struct NoFunctions;

impl FunctionRegistry for NoFunctions {
    fn score(&self, section: &ScoreConfig) -> Result<Box<dyn Score>> {
        Err(no_function("score", section.call.as_deref()))
    }
    fn filter(&self, section: &FilterConfig) -> Result<Box<dyn Filter>> {
        Err(no_function("filter", section.call.as_deref()))
    }
}

/// A registry that accepts every name, to build a runner that calls no function.
pub(super) struct UncalledFunctions;

impl FunctionRegistry for UncalledFunctions {
    fn score(&self, section: &ScoreConfig) -> Result<Box<dyn Score>> {
        let name = section.call.clone();
        Ok(Box::new(move |_: &DataFrame| Err::<Vec<f64>, _>(no_function("score", name.as_deref()))))
    }
    fn filter(&self, _section: &FilterConfig) -> Result<Box<dyn Filter>> {
        Ok(Box::new(PassThroughFilter))
    }
}

/// The filters of a registry, where its scores are not called.
pub(super) struct FiltersOnly<'a>(pub(super) &'a dyn FunctionRegistry);

impl FunctionRegistry for FiltersOnly<'_> {
    fn score(&self, section: &ScoreConfig) -> Result<Box<dyn Score>> {
        UncalledFunctions.score(section)
    }
    fn filter(&self, section: &FilterConfig) -> Result<Box<dyn Filter>> {
        self.0.filter(section)
    }
}

fn no_function(section: &str, name: Option<&str>) -> Error {
    let name = name.unwrap_or_default();
    Error::Config(format!(
        "{section}.call: this program has no function `{name}`; run or resume the search in the program that defines it"
    ))
}
