//! Run files: parses the TOML that describes a search into a [`Config`]. Unknown keys are errors.

mod bound;
mod build;
mod database;
mod differences;
mod explain;
mod filter;
mod functions;
mod parse;
mod paths;
mod queries;
mod score;
mod scorer;
mod scorer_files;
mod stop;
mod unused_keys;
mod update;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::database::DatabaseConfig;
pub(crate) use self::differences::remove_execution_keys;
use self::explain::{error_with_key, error_with_line, explain};
pub use self::filter::FilterConfig;
pub use self::functions::FunctionRegistry;
pub(crate) use self::parse::as_toml;
use self::parse::{check_not_nan, remove_nulls, set_default_rule, set_default_rule_in_json, set_key};
pub use self::queries::{QueriesConfig, queries_at};
pub use self::score::{Direction, ScoreConfig};
pub use self::stop::StopConfig;
pub use self::update::{GradientConfig, LearningRates, PruneConfig, RestartConfig, UpdateConfig};
use crate::database::local_path;
use crate::error::{AtPath, Error, Result};
use crate::log::SearchLog;

/// The settings of a run file. `run.json` records them with absolute paths.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The seed of all random numbers.
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

impl Config {
    /// Reads a run file. `overrides` are `section.key=value`, with the value as TOML or as plain text. Relative paths in the
    /// file are relative to its folder.
    ///
    /// # Errors
    /// A file that is not TOML; a key that is unknown, missing or of the wrong type. The message names the key.
    pub fn read(path: impl AsRef<Path>, overrides: &[String]) -> Result<Self> {
        let path = &local_path(path)?;
        let text = std::fs::read_to_string(path).at_path(path)?;
        let mut config =
            Self::parse(&text, overrides).map_err(|error| Error::Config(format!("{}: {error}", path.display())))?;
        config.resolve_paths(crate::io::atomic::parent_dir(path));
        Ok(config)
    }

    /// As [`Config::read`], from a text.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| error_with_line(text, &error))?;
        if overrides.is_empty() && !set_default_rule(&mut table) {
            table.iter().try_for_each(|(section, value)| check_not_nan(section, value))?;
            // Parse the text instead of the table, so that messages name the line.
            let config: Self = toml::from_str(text).map_err(|error| error_with_line(text, &error))?;
            return config.with_local_paths();
        }
        Self::from_table(table, overrides)
    }

    fn from_table(mut table: toml::Table, overrides: &[String]) -> Result<Self> {
        overrides.iter().try_for_each(|change| set_key(&mut table, change))?;
        set_default_rule(&mut table);
        table.iter().try_for_each(|(section, value)| check_not_nan(section, value))?;
        let config: Self = table.try_into().map_err(|error: toml::de::Error| error_with_key(&error))?;
        config.with_local_paths()
    }

    /// As [`Config::read`], from JSON as in run.json. A null is a missing key. Relative paths are relative to the working
    /// directory.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn from_json(text: &str) -> Result<Self> {
        let value = serde_json::from_str(text).map_err(|error| Error::Config(explain(&error.to_string())))?;
        Self::from_value(value)
    }

    fn from_value(mut value: Value) -> Result<Self> {
        remove_nulls(&mut value);
        set_default_rule_in_json(&mut value);
        // Use the messages for the same TOML, which name the section. The value itself is read from JSON, because a seed may
        // exceed the integers of TOML.
        let toml_error = || as_toml(&value).ok()?.try_into::<Config>().err();
        let config = Self::deserialize(&value).map_err(|error| {
            toml_error().map_or_else(|| Error::Config(explain(&error.to_string())), |error| error_with_key(&error))
        })?;
        config.with_local_paths()
    }

    /// The run file of a run, from its run.json. `overrides` are as in [`Config::read`], with paths relative to the working
    /// directory.
    ///
    /// # Errors
    /// As [`Config::read`]; a run without a run file, because it was started through the Rust API.
    pub fn from_run(log: &SearchLog, overrides: &[String]) -> Result<Self> {
        let manifest = log.path().join("run.json");
        if log.manifest().config.is_null() {
            let reason = "has no run file, because the run was started through the Rust API; resume it in that program";
            return Err(Error::input(manifest, reason));
        }
        let invalid = |error| Error::input(&manifest, format!("its run file is invalid: {error}"));
        let config = Self::from_value(log.manifest().config.clone()).map_err(invalid)?;
        if overrides.is_empty() {
            return Ok(config);
        }
        let table = toml::Table::try_from(&config).map_err(|error| Error::Config(format!("--set: {error}")))?;
        Self::from_table(table, overrides)
    }
}
