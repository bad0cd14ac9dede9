//! From a run file to a search that is about to start.

use std::path::Path;

use polars::prelude::DataFrame;

use super::{Config, FilterConfig, ScoreConfig};
use crate::database::{LanceDatabase, VectorDatabase, is_remote};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::frame::convert;
use crate::frame::schema::EMBEDDING;
use crate::log::SearchLog;
use crate::runner::Runner;
use crate::score::Score;

/// Brings the stages that a run file names by `call`: functions of the program that runs it.
pub trait Calls {
    /// The score that a section, or a part of a sum, calls; how it is asked stands beside its name.
    ///
    /// # Errors
    /// No score of that name.
    fn score(&self, section: &ScoreConfig) -> Result<Box<dyn Score>>;

    /// The filter that a section calls.
    ///
    /// # Errors
    /// No filter of that name.
    fn filter(&self, section: &FilterConfig) -> Result<Box<dyn Filter>>;
}

/// Of a program that brings none.
pub(super) struct NoCalls;

impl Calls for NoCalls {
    fn score(&self, section: &ScoreConfig) -> Result<Box<dyn Score>> {
        Err(not_here("score", section.call.as_deref()))
    }
    fn filter(&self, section: &FilterConfig) -> Result<Box<dyn Filter>> {
        Err(not_here("filter", section.call.as_deref()))
    }
}

fn not_here(section: &str, name: Option<&str>) -> Error {
    let name = name.unwrap_or_default();
    Error::Config(format!(
        "{section}.call: `{name}` is a function of a program, which is not this one; go on with the run in that program"
    ))
}

impl Config {
    /// The runner and the starting queries of this run file, for a new run or to go on with one, with the version of the
    /// dataset that it reads.
    ///
    /// # Errors
    /// As [`Config::database`], [`Config::queries`] and [`Config::runner`]; settings that a run which goes on must share and
    /// does not: the message names them with both values.
    pub fn start(&self, resume: Option<&Path>) -> Result<(Runner, DataFrame)> {
        self.start_calling(resume, &NoCalls)
    }

    /// As [`Config::start`], with the functions that it calls.
    ///
    /// # Errors
    /// As [`Config::start`], and those of `calls`.
    pub fn start_calling(&self, resume: Option<&Path>, calls: &dyn Calls) -> Result<(Runner, DataFrame)> {
        let log = resume.map(SearchLog::open).transpose()?;
        let database = self.library(log.as_ref())?;
        let queries = self.starting_queries(&database, log.as_ref())?;
        let runner = self.runner_calling(database, calls)?;
        if log.is_none() {
            self.unused().into_iter().for_each(|unused| log::warn!("{unused}"));
        }
        Ok((runner, queries))
    }

    /// The starting queries; those of a run that has begun, whatever became of the file that they were in.
    pub(crate) fn starting_queries(&self, database: &LanceDatabase, log: Option<&SearchLog>) -> Result<DataFrame> {
        let Some(log) = log.filter(|log| log.has_queries(0)) else { return self.queries(database) };
        let begun = log.queries(0)?;
        let is_there = self.queries.path.as_ref().is_some_and(|path| is_remote(path) || path.exists());
        let vectors =
            |queries: &DataFrame| -> Result<_> { Ok(convert::matrix::<f64>(queries, EMBEDDING)?.view().to_owned()) };
        if (is_there || self.queries.table.is_some()) && vectors(&self.queries(database)?)? != vectors(&begun)? {
            let what = self.queries.path.as_ref().map_or("the table".into(), |path| path.display().to_string());
            let reason =
                format!("--resume: queries: {what} is not what the run began at; leave it as it was, or start anew");
            return Err(Error::Config(reason));
        }
        Ok(begun)
    }

    /// The library of this run file, as a run that is gone on with reads it.
    pub(crate) fn library(&self, log: Option<&SearchLog>) -> Result<LanceDatabase> {
        let Some(log) = log else { return self.database(None) };
        let differences = self.differences(&log.manifest().config);
        if !differences.is_empty() {
            let reason = format!(
                "--resume: only stop conditions and how scorers are asked may change, but {}",
                differences.join("; ")
            );
            return Err(Error::Config(reason));
        }
        let opened = self.database(log.manifest().dataset.as_ref().map(|dataset| dataset.version));
        let database = opened.map_err(|error| match error {
            Error::Input { path, reason }
                if path == Path::new(&self.database.path) && !is_remote(&path) && !path.exists() =>
            {
                let reason = format!("{reason}; if it was moved, say where it is: --set database.path=…");
                Error::Input { path, reason }
            }
            other => other,
        })?;
        log.check_dataset(database.identity())?;
        Ok(database)
    }
}
