//! The run file: TOML ⇒ the parts of a [`Runner`]. Unknown keys are errors.

mod differences;
mod most;
mod queries;
mod score;
mod start;
mod text;
mod unused;
mod update;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::differences::forget_where_and_how;
pub use self::queries::{QueriesConfig, queries_at};
pub use self::score::ScoreConfig;
pub use self::start::Calls;
use self::start::NoCalls;
pub(crate) use self::text::as_toml;
use self::text::{forget_nulls, located, name_the_rule, name_the_rule_of, placed, refuse_nan, set, suggest};
pub use self::update::{GradientConfig, LearningRates, PruneConfig, RestartConfig, UpdateConfig};
use crate::database::{
    GradientColumn, GradientQuery, LanceDatabase, Metric, OpenOptions, VectorDatabase, is_remote, local_path,
};
use crate::error::{AtPath, Error, Result};
use crate::filter::SqlFilter;
use crate::log::SearchLog;
use crate::runner::{Runner, Stop};
use crate::score::{Score, SumScore};

/// A run file, resolved: what `run.json` keeps.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// Of everything random.
    #[serde(default)]
    pub seed: u64,
    /// `[database]`
    pub database: DatabaseConfig,
    /// `[queries]`
    #[serde(default)]
    pub queries: QueriesConfig,
    /// `[filter]`
    #[serde(default)]
    pub filter: FilterConfig,
    /// `[score]`
    pub score: ScoreConfig,
    /// `[update]`
    #[serde(default)]
    pub update: UpdateConfig,
    /// `[prune]`
    pub prune: Option<PruneConfig>,
    /// `[restart]`
    pub restart: Option<RestartConfig>,
    /// `[gradient]`
    pub gradient: Option<GradientConfig>,
    /// `[stop]`
    #[serde(default)]
    pub stop: StopConfig,
}

/// `[database]`: the library and how it is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DatabaseConfig {
    /// Path of the Lance dataset, or its URI on an object store: `s3://bucket/molecules.lance`.
    pub path: String,
    /// The column of embeddings, where there are several.
    pub embedding_column: Option<String>,
    /// A unique integer column to use as `db_idx`, for datasets without stable row ids.
    pub id_column: Option<String>,
    /// What `distance` means, where the dataset does not say.
    pub metric: Option<Metric>,
    /// Attribute columns that ride along; all that are not nested by default.
    pub columns: Option<Vec<String>>,
    /// Neighbours per query. The surrogate decides that itself.
    #[serde(default = "ten")]
    pub k: usize,
    /// The share of its nearest items that a query is to find in the mean (0.99, if nothing is said); 1 looks at all.
    pub recall: Option<f64>,
    /// Index partitions to look into per query, instead of a recall.
    pub nprobes: Option<usize>,
    /// Looks at every item, whatever the index.
    #[serde(default)]
    pub exact: bool,
    /// SQL pushed into the vector search.
    pub prefilter: Option<String>,
    /// Leaves out neighbours farther than this from their query. The queries of the surrogate are at the best items so far.
    pub max_distance: Option<f32>,
    /// Megabytes of index kept in memory, or of embeddings where searches are exact; a larger index, or library, is
    /// read again in every iteration. It changes how fast a search is, never what it finds. The embeddings of a
    /// small library stay in memory where they fit; attributes that take a sixteenth of it too, once they were read again and again.
    #[serde(default = "index_cache_mb")]
    pub index_cache_mb: usize,
    /// Megabytes of the dataset's metadata kept in memory.
    #[serde(default = "metadata_cache_mb")]
    pub metadata_cache_mb: usize,
}

/// `[filter]`: what may be scored.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FilterConfig {
    /// A Polars SQL expression over the results frame.
    pub sql: Option<String>,
    /// A function of the program that runs this, by its name ([`Calls`]).
    pub call: Option<String>,
}

/// Whether a larger or a smaller score is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Larger is better.
    #[default]
    Maximize,
    /// Smaller is better: `score` is the negative, `raw_score` is kept.
    Minimize,
}

/// `[stop]`: when the search ends, whichever comes first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct StopConfig {
    /// Iterations in all. Where it is not set: 20, or as many as it takes if something else stops the search.
    pub iterations: Option<u32>,
    /// Items asked, each counted once; never exceeded.
    pub evaluations: Option<u64>,
    /// So many iterations in a row without a new item (20, where `iterations` is not set).
    pub nothing_new: Option<u32>,
    /// Wall time, looked at between iterations.
    pub seconds: Option<f64>,
    /// A score that is good enough, in the scorer's own terms.
    pub score: Option<f64>,
    /// The share of items that may fail, once a hundred were asked and when the run ends; beyond it the run stops with an error.
    #[serde(default = "half")]
    pub failed_share: f64,
}

impl StopConfig {
    /// Iterations in all: as set; else 20, or no limit if something else stops the search.
    pub fn most_iterations(&self) -> u32 {
        let others = self.evaluations.is_some() || self.nothing_new.is_some() || self.seconds.is_some();
        self.iterations.unwrap_or(if others || self.score.is_some() { u32::MAX } else { 20 })
    }

    fn check(&self) -> Result<()> {
        let share = self.failed_share;
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::Config(format!("stop.failed_share: expected a share from 0 to 1, found {share}")));
        }
        match self.seconds {
            Some(seconds) if seconds < 0.0 => {
                Err(Error::Config(format!("stop.seconds: expected 0 or more, found {seconds}")))
            }
            _ => Ok(()),
        }
    }
}

impl Default for StopConfig {
    fn default() -> Self {
        StopConfig {
            iterations: None,
            evaluations: None,
            nothing_new: None,
            seconds: None,
            score: None,
            failed_share: half(),
        }
    }
}

fn ten() -> usize {
    10
}
fn three() -> usize {
    3
}
fn thousand() -> usize {
    1000
}
fn half() -> f64 {
    0.5
}
fn yes() -> bool {
    true
}
fn index_cache_mb() -> usize {
    384
}
fn metadata_cache_mb() -> usize {
    128
}

impl Config {
    /// Reads a run file; `overrides` are `section.key=value`, the value as TOML or as plain text.
    /// Relative paths in it are relative to the file.
    ///
    /// # Errors
    /// Not TOML, a key that is unknown, missing or of the wrong type: the message names it.
    pub fn read(path: impl AsRef<Path>, overrides: &[String]) -> Result<Self> {
        let path = &local_path(path)?;
        let text = std::fs::read_to_string(path).at_path(path)?;
        let mut config =
            Self::parse(&text, overrides).map_err(|error| Error::Config(format!("{}: {error}", path.display())))?;
        config.relative_to(crate::io::atomic::parent_dir(path));
        Ok(config)
    }

    /// As [`Config::read`], of a text.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| located(text, &error))?;
        if overrides.is_empty() && !name_the_rule(&mut table) {
            table.iter().try_for_each(|(section, value)| refuse_nan(section, value))?;
            // From the text itself, so that messages can name the line.
            let config: Self = toml::from_str(text).map_err(|error| located(text, &error))?;
            return config.on_disk();
        }
        Self::of_table(table, overrides)
    }

    fn of_table(mut table: toml::Table, overrides: &[String]) -> Result<Self> {
        overrides.iter().try_for_each(|change| set(&mut table, change))?;
        name_the_rule(&mut table);
        table.iter().try_for_each(|(section, value)| refuse_nan(section, value))?;
        let config: Self = table.try_into().map_err(|error: toml::de::Error| placed(&error))?;
        config.on_disk()
    }

    /// As [`Config::read`], of JSON, as a run.json keeps it; null means that nothing is said. Relative paths are relative to
    /// the working directory.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn of_json(text: &str) -> Result<Self> {
        let value = serde_json::from_str(text).map_err(|error| Error::Config(suggest(&error.to_string())))?;
        Self::of_value(value)
    }

    fn of_value(mut value: Value) -> Result<Self> {
        forget_nulls(&mut value);
        name_the_rule_of(&mut value);
        // Messages are those of the same TOML, which name the section. A seed may be larger than TOML can say.
        let of_toml = || as_toml(&value).ok()?.try_into::<Config>().err();
        let config = Self::deserialize(&value).map_err(|error| {
            of_toml().map_or_else(|| Error::Config(suggest(&error.to_string())), |error| placed(&error))
        })?;
        config.on_disk()
    }

    /// The run file that a run goes on with, as its run.json keeps it; `overrides` as in [`Config::read`], where relative
    /// paths are relative to the working directory.
    ///
    /// # Errors
    /// A run that was started through the Rust API and has none, or a damaged one; as [`Config::read`].
    pub fn of_run(log: &SearchLog, overrides: &[String]) -> Result<Self> {
        let no_file = |error| Error::input(log.path().join("run.json"), format!("no run file in it: {error}"));
        let config = Self::of_value(log.manifest().config.clone()).map_err(no_file)?;
        if overrides.is_empty() {
            return Ok(config);
        }
        let table = toml::Table::try_from(&config).map_err(|error| Error::Config(format!("--set: {error}")))?;
        Self::of_table(table, overrides)
    }

    /// With paths in place of `file://` addresses.
    fn on_disk(mut self) -> Result<Self> {
        self.database.path = local_path(&self.database.path)?.to_string_lossy().into_owned();
        self.queries.path = self.queries.path.map(local_path).transpose()?;
        self.score.reuse = self.score.reuse.into_iter().map(local_path).collect::<Result<_>>()?;
        Ok(self)
    }

    fn relative_to(&mut self, folder: &Path) {
        if !is_remote(&self.database.path) {
            self.database.path = folder.join(&self.database.path).to_string_lossy().into_owned();
        }
        if let Some(path) = self.queries.path.as_mut().filter(|path| !is_remote(path)) {
            *path = folder.join(&*path);
        }
        self.score.relative_to(folder);
    }

    /// With paths that hold from any working directory, as `run.json` keeps them.
    fn absolute(&self) -> Self {
        let mut config = self.clone();
        let absolute = |path: &Path| match is_remote(path) {
            true => path.into(),
            false => std::path::absolute(path).unwrap_or_else(|_| path.into()),
        };
        if !is_remote(&config.database.path) {
            config.database.path = absolute(Path::new(&config.database.path)).to_string_lossy().into_owned();
        }
        config.queries.path = config.queries.path.as_deref().map(absolute);
        config.score.reuse = config.score.reuse.iter().map(|path| absolute(path)).collect();
        config
    }

    /// As a run.json has it: by way of text, so that numbers are those that are read from there.
    fn recorded(&self) -> Result<Value> {
        let text = serde_json::to_string(&self.absolute());
        text.and_then(|text| serde_json::from_str(&text)).map_err(|error| Error::Config(error.to_string()))
    }

    /// Opens the library, at a version if given.
    ///
    /// # Errors
    /// As [`LanceDatabase::open_with`].
    pub fn database(&self, version: Option<u64>) -> Result<LanceDatabase> {
        let config = &self.database;
        let options = OpenOptions {
            embedding_column: config.embedding_column.clone(),
            id_column: config.id_column.clone(),
            metric: config.metric,
            version,
            index_cache_bytes: config.index_cache_mb.saturating_mul(1 << 20),
            metadata_cache_bytes: config.metadata_cache_mb.saturating_mul(1 << 20),
            ..OpenOptions::default()
        };
        let mut database = LanceDatabase::open_with(&config.path, &options)?.k(config.k).exact(config.exact);
        if let Some(columns) = &config.columns {
            database = database.columns(columns)?;
        }
        if let Some(recall) = config.recall {
            if !(recall > 0.0 && recall <= 1.0) {
                let expected = "expected a share above 0, and 1 at most";
                return Err(Error::Config(format!("database.recall: {expected}, found {recall}")));
            }
            database = database.recall(recall);
        }
        if let Some(nprobes) = config.nprobes {
            database = database.nprobes(nprobes);
        }
        if let Some(sql) = &config.prefilter {
            database = database.prefilter(sql);
        }
        if let Some(limit) = config.max_distance {
            database = database.max_distance(limit);
        }
        Ok(database)
    }

    /// The search that this run file describes, over a library it opened.
    ///
    /// # Errors
    /// A section that contradicts itself.
    pub fn runner(&self, database: LanceDatabase) -> Result<Runner> {
        self.runner_calling(database, &NoCalls)
    }

    /// As [`Config::runner`], with the functions that it calls.
    ///
    /// # Errors
    /// As [`Config::runner`], and those of `calls`.
    pub fn runner_calling(&self, database: LanceDatabase, calls: &dyn Calls) -> Result<Runner> {
        let score = self.score.scorer(calls)?;
        self.update.note_idle(score.as_sum().map_or(score.workers(), SumScore::max_workers));
        if self.update.behind() > 0 && score.is_manual() {
            let reason = "update.behind: nothing is chosen ahead where scores come by hand; leave it out";
            return Err(Error::Config(reason.into()));
        }
        let sections = [
            ("prune", self.prune.is_some()),
            ("restart", self.restart.is_some()),
            ("gradient", self.gradient.is_some()),
        ];
        let section = sections.iter().find(|(_, is_there)| *is_there).map(|(section, _)| section);
        if let (UpdateConfig::Surrogate { .. }, Some(section)) = (&self.update, section) {
            let rules = "rl, top-k or top-k-discrete";
            return Err(Error::Config(format!(
                "{section}: the rule `surrogate` places its queries itself; set update.rule to {rules}"
            )));
        }
        let update = self.update.rule(self.prune.as_ref(), self.restart.as_ref(), self.gradient.as_ref());
        let database: Box<dyn VectorDatabase> = match &self.gradient {
            None => Box::new(database),
            Some(gradient) if gradient.scales.is_empty() => {
                return Err(Error::Config("gradient.scales: expected at least one, found none".into()));
            }
            Some(gradient) => Box::new(GradientQuery::new(database, GradientColumn, gradient.scales.clone())),
        };
        self.stop.check()?;
        let stop = Stop {
            evaluations: self.stop.evaluations,
            nothing_new: self.stop.nothing_new.or(self.stop.iterations.is_none().then_some(20)),
            seconds: self.stop.seconds,
            score: self.stop.score,
            failed_share: Some(self.stop.failed_share),
        };
        let config = self.recorded()?;
        let mut runner = Runner::from_parts(database, score, update)
            .seed(self.seed)
            .stop(stop)
            .minimize(self.score.direction == Direction::Minimize)
            .on_error(self.score.on_error)
            .describe(config);
        if !self.score.reuse.is_empty() {
            runner = runner.reuse(&self.score.reuse(), |config| config.get("score").map(ScoreConfig::version_of))?;
        }
        Ok(match (&self.filter.sql, &self.filter.call) {
            (None, None) => runner,
            (Some(sql), None) => runner.filter(SqlFilter::new(sql)),
            (None, Some(_)) => runner.filter(calls.filter(&self.filter)?),
            (Some(_), Some(_)) => return Err(Error::Config("filter: give `sql` or `call`, not both".into())),
        })
    }
}
