//! Builds a run from a run file: opens the dataset, and creates the starting queries and the runner.

use std::path::Path;

use polars::prelude::DataFrame;

use super::functions::{FiltersOnly, FunctionRegistry, NoFunctions, UncalledFunctions};
use super::{Config, Direction, ScoreConfig, UpdateConfig};
use crate::database::{GradientColumn, GradientDatabase, LanceDatabase, VectorDatabase, is_remote};
use crate::error::{Error, Result};
use crate::frame::convert;
use crate::frame::schema::EMBEDDING;
use crate::log::SearchLog;
use crate::runner::Runner;
use crate::score::{Score, SumScore};

impl Config {
    /// Builds the runner and the starting queries of this run file, for a new run or to `resume` the run in a folder. A
    /// resumed run reads the dataset version that it was started with.
    ///
    /// # Errors
    /// As [`Config::database`], [`Config::queries`] and [`Config::runner`]; settings that a resumed run cannot change. The
    /// message lists these with both values.
    pub fn build(&self, resume: Option<&Path>) -> Result<(Runner, DataFrame)> {
        self.build_with(resume, &NoFunctions)
    }

    /// As [`Config::build`], with the functions that the run file names.
    ///
    /// # Errors
    /// As [`Config::build`]; a function that is not in `functions`.
    pub fn build_with(&self, resume: Option<&Path>, functions: &dyn FunctionRegistry) -> Result<(Runner, DataFrame)> {
        let log = resume.map(SearchLog::open).transpose()?;
        let database = self.open_dataset(log.as_ref())?;
        let queries = self.starting_queries(&database, log.as_ref())?;
        let runner = self.runner_for(database, functions, log.as_ref())?;
        if log.is_none() {
            self.unused_keys().into_iter().for_each(|unused| log::warn!("{unused}"));
        }
        Ok((runner, queries))
    }

    /// Builds the runner of this run file for an open library.
    ///
    /// # Errors
    /// Settings that contradict each other.
    pub fn runner(&self, database: LanceDatabase) -> Result<Runner> {
        self.runner_with(database, &NoFunctions)
    }

    /// As [`Config::runner`], with the functions that the run file names.
    ///
    /// # Errors
    /// As [`Config::runner`]; a function that is not in `functions`.
    pub fn runner_with(&self, database: LanceDatabase, functions: &dyn FunctionRegistry) -> Result<Runner> {
        self.runner_for(database, functions, None)
    }

    /// As [`Config::runner_with`], for a new run or to resume the run in `log`.
    fn runner_for(
        &self,
        database: LanceDatabase,
        functions: &dyn FunctionRegistry,
        log: Option<&SearchLog>,
    ) -> Result<Runner> {
        let score = self.score.scorer(functions)?;
        self.update.warn_about_idle_workers(score.as_sum().map_or(score.workers(), SumScore::max_workers));
        if self.update.batches_in_flight() > 0 && score.is_manual() {
            let reason = "update.behind: asynchronous batches do not work with manual scores (score.by_hand); remove update.behind";
            return Err(Error::Config(reason.into()));
        }
        self.check_sections()?;
        self.check_forecasts()?;
        let files = self.score.hash_scorer_files()?;
        let runner = self.runner_with_score(database, score)?.scorer_files(files.clone());
        let runner = match self.score.reuse.is_empty() {
            true => runner,
            false => {
                let files = log.map_or(files.hashes, |log| log.manifest().first_scorer_files());
                runner.reuse(&self.score.reuse(files), |config| config.get("score").map(ScoreConfig::version_of))?
            }
        };
        let runner = match self.update.examples() {
            None => runner,
            Some(examples) => runner.examples(examples)?,
        };
        self.filter.add_to(runner, functions)
    }

    /// Builds a runner that replays the run in a folder and scores nothing: for [`Runner::explain`]. It needs neither a scorer,
    /// nor the functions that the run file names, nor the sources of reused scores.
    ///
    /// # Errors
    /// As [`Config::build`].
    pub fn explainer(&self, run: &Path) -> Result<Runner> {
        self.replayer(run, &UncalledFunctions)
    }

    /// Builds a runner that replays the run in a folder and scores nothing, but applies its filter: for
    /// [`Runner::rank_unscored`]. It needs neither a scorer nor the sources of reused scores. A filter that is a function must be
    /// in `functions`.
    ///
    /// # Errors
    /// As [`Config::build_with`].
    pub fn ranker_with(&self, run: &Path, functions: &dyn FunctionRegistry) -> Result<Runner> {
        self.replayer(run, &FiltersOnly(functions))
    }

    /// As [`Config::ranker_with`], without functions.
    ///
    /// # Errors
    /// As [`Config::ranker_with`].
    pub fn ranker(&self, run: &Path) -> Result<Runner> {
        self.ranker_with(run, &NoFunctions)
    }

    fn replayer(&self, run: &Path, functions: &dyn FunctionRegistry) -> Result<Runner> {
        let database = self.open_dataset(Some(&SearchLog::open(run)?))?;
        // The rule does not read the columns that the score and the filter read.
        let score = self.score.scorer(functions)?;
        self.filter.add_to(self.runner_with_score(database, score)?, functions)
    }

    /// The runner of this run file, without a filter and reused scores.
    fn runner_with_score(&self, database: LanceDatabase, score: Box<dyn Score>) -> Result<Runner> {
        let sections = (self.prune.as_ref(), self.restart.as_ref(), self.gradient.as_ref());
        let update = self.update.rule(sections, self.announces_few_values());
        Ok(Runner::from_parts(self.with_gradient(database)?, score, update)
            .seed(self.seed)
            .stop(self.stop.conditions()?)
            .minimize(self.score.direction == Direction::Minimize)
            .on_error(self.score.on_error)
            .config(self.to_json()?))
    }

    /// Whether the settings say that scores are yes or no, or grades. A random start can then be short.
    pub(super) fn announces_few_values(&self) -> bool {
        self.update.examples().is_some()
    }

    /// Fails if a section does not work with the rule.
    fn check_sections(&self) -> Result<()> {
        let sections = [
            ("prune", self.prune.is_some()),
            ("restart", self.restart.is_some()),
            ("gradient", self.gradient.is_some()),
        ];
        match (&self.update, sections.iter().find(|(_, is_set)| *is_set)) {
            (UpdateConfig::Surrogate { .. }, Some((section, _))) => Err(Error::Config(format!(
                "{section}: does not work with the rule `surrogate`, which chooses its own queries; remove [{section}], or set \
                 update.rule to `rl`, `top-k` or `top-k-discrete`"
            ))),
            _ => Ok(()),
        }
    }

    /// Fails if `stop.scores_per_entry` is set, but the rule makes no forecasts: the limit would never end the search.
    fn check_forecasts(&self) -> Result<()> {
        if self.stop.scores_per_entry.is_none() || self.update.has_model() {
            return Ok(());
        }
        let reason = format!(
            "stop.scores_per_entry: does not work with the rule `{}`, which has no model that forecasts scores; remove \
             stop.scores_per_entry, or set update.rule to `surrogate`",
            self.update.rule_name()
        );
        Err(Error::Config(reason))
    }

    /// Wraps the library in a [`GradientDatabase`] if `[gradient]` is set.
    fn with_gradient(&self, database: LanceDatabase) -> Result<Box<dyn VectorDatabase>> {
        match &self.gradient {
            None => Ok(Box::new(database)),
            Some(gradient) if gradient.scales.is_empty() => {
                Err(Error::Config("gradient.scales: expected at least one number, found an empty list".into()))
            }
            Some(gradient) => Ok(Box::new(GradientDatabase::new(database, GradientColumn, gradient.scales.clone()))),
        }
    }

    /// The starting queries. Those of a run that has started are read from its log, so that their file is not needed any more.
    pub(crate) fn starting_queries(&self, database: &LanceDatabase, log: Option<&SearchLog>) -> Result<DataFrame> {
        let Some(log) = log.filter(|log| log.has_queries(0)) else { return self.queries(database) };
        let logged = log.queries(0)?;
        let file_exists = self.queries.path.as_ref().is_some_and(|path| is_remote(path) || path.exists());
        let vectors =
            |queries: &DataFrame| -> Result<_> { Ok(convert::matrix::<f64>(queries, EMBEDDING)?.view().to_owned()) };
        if (file_exists || self.queries.table.is_some()) && vectors(&self.queries(database)?)? != vectors(&logged)? {
            let source = self.queries.path.as_ref().map_or("the table".into(), |path| path.display().to_string());
            let reason =
                format!("queries: {source} has changed since the run was started; restore it, or start a new run");
            return Err(Error::Config(reason));
        }
        Ok(logged)
    }

    /// Opens the dataset at its latest version. For a resumed run, at the version that the run reads.
    pub(crate) fn open_dataset(&self, log: Option<&SearchLog>) -> Result<LanceDatabase> {
        let Some(log) = log else { return self.database(None) };
        let differences = self.differences(&log.manifest().config);
        if !differences.is_empty() {
            let reason = format!(
                "a resumed run can change only stop conditions and how the scorer is called, but {}; restore the \
                 setting, or start a new run",
                differences.join("; ")
            );
            return Err(Error::Config(reason));
        }
        let opened = self.database(log.manifest().dataset.as_ref().map(|dataset| dataset.version));
        let database = opened.map_err(|error| match error {
            Error::Input { path, reason }
                if path == Path::new(&self.database.path) && !is_remote(&path) && !path.exists() =>
            {
                let reason = format!("{reason}; if it was moved, set its new path: --set database.path=…");
                Error::Input { path, reason }
            }
            other => other,
        })?;
        log.check_dataset(database.identity())?;
        Ok(database)
    }
}
