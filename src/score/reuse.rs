//! Score reuse: free scores from earlier runs and files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use polars::prelude::*;

use super::numbers;
use super::score_version::{SourceVersion, check_version};
use crate::database::{LocalPath, VectorDatabase};
use crate::error::{Error, Result, WrapErr};
use crate::frame::convert;
use crate::frame::keys::{KeyMap, Keys};
use crate::frame::schema::{self, DB_IDX, EVALUATION, ITERATION, PREDICTIONS, RAW_SCORE, REASON, SCORE};
use crate::log::{SearchLog, collect};
use crate::panics::catch_at_path;
use crate::suggest::unknown_column;
use crate::table::TableReader;

/// The sources of earlier scores, and how to match their items.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReuseOptions {
    /// Run folders, and files (Parquet, CSV, JSON) with a column `score` as the scorer returned it, local or on an object store.
    /// Later sources take precedence.
    pub sources: Vec<PathBuf>,
    /// The column that identifies items in the sources and in the library. If `None`, items are matched by
    /// `db_idx`, which is only allowed for runs on the same library.
    pub key: Option<String>,
    /// The version of the score. Sources with another version are rejected. Runs state it in their run file, files in
    /// a column `score_version`.
    pub version: String,
    /// The content hashes of the files of the scorer, by name, if `version` is a hash of the score's definition. Runs with other
    /// contents of these files are rejected.
    pub files: Option<BTreeMap<String, String>>,
    /// Whether to reuse scores of any version.
    pub trust: bool,
}

impl ReuseOptions {
    /// Reuses scores of this version from run folders and files.
    pub fn new(sources: impl IntoIterator<Item = impl Into<PathBuf>>, version: impl Into<String>) -> Self {
        let sources = sources.into_iter().map(Into::into).collect();
        ReuseOptions { sources, version: version.into(), ..Default::default() }
    }

    /// Sets the column that identifies items.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets whether to reuse scores of any version.
    pub fn trust(mut self, trust: bool) -> Self {
        self.trust = trust;
        self
    }
}

/// Reused scores, as the scorer returned them. Failures and parts of scores are not reused.
#[derive(Default)]
pub(crate) struct ReusedScores {
    /// In the order of the configuration. Later sources take precedence.
    sources: Vec<SourceScores>,
}

/// The scores of a source.
struct SourceScores {
    source: PathBuf,
    /// The key in run files that names the source.
    setting: &'static str,
    /// The column that identifies items in the source and in the library. `None`: `db_idx`, of the same library.
    key: Option<String>,
    scores: ScoreIndex,
}

enum ScoreIndex {
    ByItem(HashMap<u64, f64>),
    ByKey(KeyMap<f64>),
}

impl ScoreIndex {
    fn is_empty(&self) -> bool {
        match self {
            ScoreIndex::ByItem(scores) => scores.is_empty(),
            ScoreIndex::ByKey(scores) => scores.len() == 0,
        }
    }
}

impl ReusedScores {
    /// Whether there are no scores.
    pub(crate) fn is_empty(&self) -> bool {
        self.sources.iter().all(|source| source.scores.is_empty())
    }

    /// Reads all sources. `version_of` extracts the version of the score from a run's configuration.
    pub(crate) fn read(
        reuse: &ReuseOptions,
        library_id: Option<&str>,
        version_of: &dyn Fn(&serde_json::Value) -> Option<String>,
    ) -> Result<Self> {
        let mut reused = ReusedScores::default();
        for source in &reuse.sources {
            let local = LocalPath::fetch(source)?;
            if !local.path().exists() {
                return Err(Error::input(source, "no such run folder or file (score.reuse)"));
            }
            let (rows, version) = catch_at_path(source, || match local.path().join("run.json").exists() {
                true => {
                    let log = SearchLog::open(local.path())?;
                    let run_library = log.manifest().dataset.as_ref().and_then(|dataset| dataset.library_id.clone());
                    if reuse.key.is_none() {
                        check_same_library(source, run_library.as_deref(), library_id)?;
                    }
                    let manifest = log.manifest();
                    let (version, files) = (version_of(&manifest.config), manifest.scorer_files.clone());
                    Ok((read_run(&log)?, SourceVersion { version, files }))
                }
                false => {
                    let (rows, version) = read_file(source, local.path(), reuse.key.as_deref())?;
                    Ok((rows, SourceVersion { version, files: BTreeMap::new() }))
                }
            })
            .map_err(|error| error.with_path(source))?;
            if !reuse.trust {
                check_version(source, &reuse.version, reuse.files.as_ref(), version)?;
            }
            reused.sources.push(SourceScores::new(source, "score.reuse", reuse.key.as_deref(), &rows)?);
        }
        Ok(reused)
    }

    /// Adds the scores of a file with examples. Items are matched by the column `db_idx` of the file, or by its only other column
    /// that is an attribute of the library.
    ///
    /// # Errors
    /// A file that cannot be read, or has no such column.
    pub(crate) fn add_examples(&mut self, source: &Path, database: &dyn VectorDatabase) -> Result<()> {
        let local = LocalPath::fetch(source)?;
        if !local.path().exists() {
            return Err(Error::input(source, "no such file (update.examples)"));
        }
        let columns = TableReader::new(source).local_copy(local.path()).read()?;
        let library = database.take(&[])?;
        let attributes = schema::column_names(&library);
        let is_key = |name: &&str| *name != SCORE && attributes.contains(name);
        let mut keys: Vec<&str> = schema::column_names(&columns).into_iter().filter(is_key).collect();
        if keys.contains(&DB_IDX) {
            keys = vec![DB_IDX];
        }
        let [key] = keys[..] else {
            let found = if keys.is_empty() { "none".into() } else { keys.join(", ") };
            let reason = format!(
                "update.examples: expected a column `db_idx`, or one other column of the library, to find the items by; found {found}"
            );
            return Err(Error::input(source, reason));
        };
        let (rows, _) = read_file(source, local.path(), Some(key)).map_err(|error| error.with_path(source))?;
        let source = SourceScores::new(source, "update.examples", Some(key), &rows)?;
        self.sources.push(source);
        Ok(())
    }

    /// Warns about sources whose scores match no item of the library, with example keys of both sides.
    ///
    /// # Errors
    /// The library has no key column; keys have lost digits.
    pub(crate) fn warn_unmatched_sources(&self, database: &dyn VectorDatabase) -> Result<()> {
        self.keys().iter().try_for_each(|key| self.warn_unmatched_sources_of(key, database))
    }

    /// The columns that identify items, each once.
    fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.sources.iter().filter_map(|source| source.key.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn warn_unmatched_sources_of(&self, key: &str, database: &dyn VectorDatabase) -> Result<()> {
        read_keys(LIBRARY, &database.take(&[])?, key)?;
        let has_key = |source: &&SourceScores| source.key.as_deref() == Some(key) && !source.scores.is_empty();
        let mut unmatched: Vec<&SourceScores> = self.sources.iter().filter(has_key).collect();
        let mut example = String::from("no items");
        let columns = key_attributes(&[key.to_string()]);
        let mut scan = || {
            database.visit_columns(&columns, &mut |items| {
                let keys = read_keys(LIBRARY, &items, key)?;
                example = keys.describe();
                let mut all = std::mem::take(&mut unmatched).into_iter();
                let left = all.try_fold(Vec::new(), |mut left, source| {
                    if source.scores_of(&items, Some(&keys))?.iter().all(Option::is_none) {
                        left.push(source);
                    }
                    Ok::<_, Error>(left)
                });
                unmatched = left?;
                // Stop the scan once every source has a match.
                if unmatched.is_empty() { Err(Error::Interrupted) } else { Ok(()) }
            })
        };
        match scan() {
            Err(Error::Interrupted) if unmatched.is_empty() => return Ok(()),
            result => result?,
        }
        for SourceScores { source, setting, scores, .. } in unmatched {
            if let ScoreIndex::ByKey(scores) = scores {
                log::warn!(
                    "{setting}: {}: none of its {} scores matches an item of this library by `{key}`: the source has {}, the library has \
                     {example}; no score is reused",
                    source.display(),
                    scores.len(),
                    scores.describe()
                );
            }
        }
        Ok(())
    }

    /// The items of a library that have a reused score, best first (lowest first if `minimize`).
    pub(crate) fn scored_items(&self, database: &dyn VectorDatabase, minimize: bool) -> Result<Vec<u64>> {
        let mut scored: Vec<(f64, u64)> = Vec::new();
        if !self.is_empty() {
            database.visit_columns(&key_attributes(&self.keys()), &mut |items| {
                let scores = self.scores_of(&items)?.into_iter();
                let items = schema::u64s(&items, DB_IDX)?.into_iter();
                scored.extend(scores.zip(items).filter_map(|(score, item)| Some((score?, item))));
                Ok(())
            })?;
        }
        let sign = if minimize { -1.0 } else { 1.0 };
        scored.sort_by(|a, b| (sign * b.0).total_cmp(&(sign * a.0)).then(a.1.cmp(&b.1)));
        Ok(scored.into_iter().map(|(_, item)| item).collect())
    }

    /// The reused score of each row of a frame of items. Later sources take precedence.
    pub(crate) fn scores_of(&self, items: &DataFrame) -> Result<Vec<Option<f64>>> {
        let read = |key: String| Ok((key.clone(), read_keys(LIBRARY, items, &key)?));
        let keys = self.keys().into_iter().map(read).collect::<Result<HashMap<String, Keys>>>()?;
        let mut scores = vec![None; items.height()];
        for source in &self.sources {
            let keys = source.key.as_ref().and_then(|key| keys.get(key));
            for (score, found) in scores.iter_mut().zip(source.scores_of(items, keys)?) {
                *score = found.or(*score);
            }
        }
        Ok(scores)
    }
}

impl SourceScores {
    /// The scores in the rows of a source.
    fn new(source: &Path, setting: &'static str, key: Option<&str>, rows: &DataFrame) -> Result<Self> {
        let values =
            schema::nullable_f64s(rows, SCORE)?.into_iter().map(|score| score.filter(|score| score.is_finite()));
        let scores = match key {
            Some(key) => ScoreIndex::ByKey(KeyMap::new(read_keys(&source_name(source), rows, key)?, values)),
            None => {
                let items = schema::u64s(rows, DB_IDX)?.into_iter().zip(values);
                ScoreIndex::ByItem(items.filter_map(|(item, score)| Some((item, score?))).collect())
            }
        };
        if scores.is_empty() {
            let with = key.map_or(String::new(), |key| format!(" and a `{key}`"));
            let rows = rows.height();
            log::warn!(
                "{setting}: {}: none of its {rows} rows has a score{with}; no score is reused",
                source.display()
            );
        }
        Ok(SourceScores { source: source.into(), setting, key: key.map(str::to_string), scores })
    }

    /// The score of this source for each row of a frame of items, which have these keys.
    fn scores_of(&self, items: &DataFrame, keys: Option<&Keys>) -> Result<Vec<Option<f64>>> {
        match (&self.scores, keys) {
            (ScoreIndex::ByKey(scores), Some(keys)) => scores.lookup(keys, LIBRARY, &source_name(&self.source)),
            (ScoreIndex::ByItem(scores), _) => {
                Ok(schema::u64s(items, DB_IDX)?.iter().map(|item| scores.get(item).copied()).collect())
            }
            _ => Ok(vec![None; items.height()]),
        }
    }
}

/// The key columns that are attributes of the library. Every frame of items has `db_idx`.
fn key_attributes(keys: &[String]) -> Vec<String> {
    keys.iter().filter(|key| *key != DB_IDX).cloned().collect()
}

fn check_same_library(source: &Path, source_library: Option<&str>, library: Option<&str>) -> Result<()> {
    if source_library.is_some() && source_library == library {
        return Ok(());
    }
    let (source_library, library) = (source_library.unwrap_or("unknown"), library.unwrap_or("unknown"));
    let reason =
        format!("scored the library {source_library}, not {library}; set score.reuse_key = \"…\" to a column of both");
    Err(Error::input(source, reason))
}

/// The items of a run and those of its audit, with `score` as the scorer returned it.
fn read_run(log: &SearchLog) -> Result<DataFrame> {
    let as_returned = |mut scores: DataFrame| -> Result<DataFrame> {
        if scores.column(RAW_SCORE).is_ok() {
            scores = scores.drop(SCORE).wrap_err("score.reuse")?;
            scores.rename(RAW_SCORE, SCORE.into()).wrap_err("score.reuse")?;
        }
        Ok(scores)
    };
    let scores = collect(log.compile_results()?)?.drop_many([EVALUATION, ITERATION, REASON]).drop_many(PREDICTIONS);
    let scores = as_returned(scores)?;
    let Some(audited) = log.audited_items()? else { return Ok(scores) };
    let audited = as_returned(audited)?;
    // The search may have selected an item after the audit.
    let known: HashSet<u64> = schema::u64s(&scores, DB_IDX)?.into_iter().collect();
    let rows = (0u32..).zip(schema::u64s(&audited, DB_IDX)?);
    let new: Vec<u32> = rows.filter(|(_, item)| !known.contains(item)).map(|(row, _)| row).collect();
    let shared: Vec<&str> =
        schema::column_names(&scores).into_iter().filter(|name| audited.column(name).is_ok()).collect();
    let new = convert::gather(&audited, &new)?.select(shared.iter().copied()).wrap_err("score.reuse")?;
    scores.select(shared).and_then(|scores| scores.vstack(&new)).wrap_err("score.reuse")
}

/// The items of a file at a local path, and its score version.
fn read_file(path: &Path, local: &Path, key: Option<&str>) -> Result<(DataFrame, Option<String>)> {
    let Some(key) = key else {
        let reason = "does not name the library of its items; set score.reuse_key = \"…\" to a column of both";
        return Err(Error::input(path, reason));
    };
    let mut scores =
        TableReader::new(path).local_copy(local).keys(&[key]).numbers(&[SCORE]).texts(&["score_version"]).read()?;
    if scores.column(SCORE).is_err() {
        let names = schema::column_names(&scores).join(", ");
        return Err(Error::input(path, format!("no column `score` (there are: {names})")));
    }
    let score =
        Column::new(SCORE.into(), numbers(&scores, SCORE).map_err(|error| Error::input(path, error.to_string()))?);
    scores.with_column(score).wrap_err("score.reuse")?;
    let versions = scores.column("score_version").ok().and_then(|column| column.cast(&DataType::String).ok());
    let version = versions.and_then(|versions| {
        let versions = versions.str().ok()?;
        let first = versions.get(0)?.to_string();
        versions.iter().all(|version| version == Some(&first)).then_some(first)
    });
    Ok((scores, version))
}

/// The name of the library in messages.
const LIBRARY: &str = "the library's attributes";

/// The name of a source in messages.
fn source_name(source: &Path) -> String {
    source.display().to_string()
}

fn read_keys(place: &str, frame: &DataFrame, key: &str) -> Result<Keys> {
    let missing = || unknown_column(key, &format!(" in {place}"), schema::column_names(frame));
    let column = frame.column(key).map_err(|_| Error::Config(format!("score.reuse_key: {}", missing())))?;
    Keys::from_column(column)
}
