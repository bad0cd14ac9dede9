//! The `[score]` section: its keys, and the version of the score that they determine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::database::is_remote;
use crate::score::{CommandFormat, CommandMode, OnError, ReuseOptions};

/// The `[score]` section: the scorer, as one of `sql`, `command`, `url`, `call`, `by_hand` and `sum`. The other keys are settings
/// for calling the scorer and for reusing scores.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ScoreConfig {
    /// A column, or a Polars SQL expression over the items.
    pub sql: Option<String>,
    /// A program and its arguments: [`CommandScore`](crate::CommandScore). It runs in the folder of the run file.
    pub command: Option<Vec<String>>,
    /// Files that determine the score, besides those that `command` names: prompts, models. Their contents are part of the version.
    pub files: Option<Vec<PathBuf>>,
    /// The address of an HTTP service: [`HttpScore`](crate::HttpScore).
    pub url: Option<String>,
    /// The name of a function in the program that runs the search ([`FunctionRegistry`](crate::FunctionRegistry)).
    pub call: Option<String>,
    /// Manual scores: [`ManualScore`](crate::ManualScore), with `uphill ask` and `uphill tell`.
    #[serde(default)]
    pub by_hand: bool,
    /// A weighted sum of scores: [`SumScore`](crate::SumScore). Each part is a `[[score.sum]]` table with `name`, `weight`
    /// (default 1) and, for a gate, `at_least`.
    pub sum: Option<Vec<ScoreConfig>>,
    /// The name of a part of a sum.
    pub name: Option<String>,
    /// The weight of a part of a sum.
    pub weight: Option<f64>,
    /// The lowest accepted score of a part. Items below it are rejected, and later parts do not score them.
    pub at_least: Option<f64>,
    /// Run folders and Parquet files with scores to reuse.
    #[serde(default)]
    pub reuse: Vec<PathBuf>,
    /// The column that identifies items in reused scores and in the library. The default is `db_idx`, which works only for runs
    /// of the same library.
    pub reuse_key: Option<String>,
    /// The version of the score, for later runs that reuse it (default: a hash of this section and of the contents of its files).
    pub version: Option<String>,
    /// Whether to reuse scores of any version.
    #[serde(default)]
    pub trust_scores: bool,
    /// Whether a larger or a smaller score is better.
    #[serde(default)]
    pub direction: Direction,
    /// `stream` or `batch` (for `command`).
    pub mode: Option<CommandMode>,
    /// `jsonl` or `arrow` (for `command`).
    pub format: Option<CommandFormat>,
    /// The largest number of items per request.
    pub batch_size: Option<usize>,
    /// The number of processes (for `command`) or of concurrent calls (for `call`).
    pub workers: Option<usize>,
    /// The number of concurrent requests (for `url`).
    pub concurrency: Option<usize>,
    /// HTTP headers, with the environment variables that hold their values (for `url`).
    pub headers: Option<BTreeMap<String, String>>,
    /// Timeout of a request, in seconds.
    pub timeout: Option<f64>,
    /// The number of retries of items without an answer.
    pub retries: Option<u32>,
    /// The longest outage of the scorer to wait for, in seconds.
    pub patience: Option<f64>,
    /// Whether to send embeddings to the scorer.
    pub embeddings: Option<bool>,
    /// Whether a failed item stops the run.
    #[serde(default)]
    pub on_error: OnError,
    /// The working directory of a command.
    #[serde(skip)]
    pub directory: Option<PathBuf>,
}

/// Whether a larger or a smaller score is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Larger is better.
    #[default]
    Maximize,
    /// Smaller is better: `score` is the negative of the scorer's score, which is kept as `raw_score`.
    Minimize,
}

impl ScoreConfig {
    /// Resolves relative paths against the folder of the run file. Commands run in that folder, too.
    pub(super) fn resolve_paths(&mut self, folder: &Path) {
        self.directory = Some(folder.to_path_buf());
        self.reuse.iter_mut().filter(|source| !is_remote(source)).for_each(|source| *source = folder.join(&*source));
        self.sum.iter_mut().flatten().for_each(|part| part.resolve_paths(folder));
    }

    /// The version of the score: `version`, or a hash of the keys that determine the score.
    pub(super) fn version(&self) -> String {
        // Converted through text, so that numbers equal those that are read from run.json.
        let section = serde_json::to_string(self).and_then(|text| serde_json::from_str(&text));
        Self::version_of(&section.unwrap_or_default())
    }

    /// As [`ScoreConfig::version`], for a section in run.json.
    pub(super) fn version_of(section: &Value) -> String {
        if let Some(version) = section["version"].as_str() {
            return version.into();
        }
        let mut definition = section.clone();
        remove_execution_keys_of_score(&mut definition);
        if let Some(keys) = definition.as_object_mut() {
            keys.retain(|key, _| !["direction", "reuse", "reuse_key"].contains(&key.as_str()));
        }
        blake3::hash(definition.to_string().as_bytes()).to_hex()[..16].to_string()
    }

    /// Whether a program or a service scores items, for the whole score or a part of it.
    fn is_external(&self) -> bool {
        let part = self.sum.iter().flatten().any(Self::is_external);
        part || self.command.is_some() || self.url.is_some() || self.call.is_some()
    }

    /// The options for reusing scores, with the content hashes of the scorer's files.
    pub(super) fn reuse(&self, files: BTreeMap<String, String>) -> ReuseOptions {
        ReuseOptions {
            sources: self.reuse.clone(),
            key: self.reuse_key.clone(),
            version: self.version(),
            // An SQL expression is its own definition.
            files: (self.version.is_none() && self.is_external()).then_some(files),
            trust: self.trust_scores,
        }
    }
}

/// Removes the settings for calling scorers from a section in JSON and from its parts. They do not change the scores, and a
/// resumed run may change them.
pub(super) fn remove_execution_keys_of_score(section: &mut Value) {
    const EXECUTION_KEYS: [&str; 8] =
        ["batch_size", "workers", "concurrency", "timeout", "retries", "patience", "on_error", "trust_scores"];
    let Some(keys) = section.as_object_mut() else { return };
    keys.retain(|key, value| !EXECUTION_KEYS.contains(&key.as_str()) && !value.is_null());
    keys.get_mut("sum").and_then(Value::as_array_mut).into_iter().flatten().for_each(remove_execution_keys_of_score);
}
