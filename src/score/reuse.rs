//! Scores that were paid for before: taken from earlier runs and files, at no cost.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use polars::prelude::*;

use crate::database::{Local, VectorDatabase};
use crate::error::{Doing, Error, Result};
use crate::log::{SearchLog, collect};
use crate::near::no_column;
use crate::schema::{self, DB_IDX, EVALUATION, ITERATION, RAW_SCORE, REASON, SCORE};
use crate::untrusted::{caught, read_parquet};

/// Where to take earlier scores from, and what makes them the same.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Reuse {
    /// Run folders, and Parquet files with a `score` as the scorer gave it, here or on an object store. Later ones win.
    pub sources: Vec<PathBuf>,
    /// The column that names items in the sources and in the library. Where `None`, items are matched by
    /// `db_idx`, which is for runs of the same library only.
    pub key: Option<String>,
    /// What the score is; sources of another version are refused. Runs state it in their run file, files in
    /// a column `score_version`.
    pub version: String,
    /// Takes scores whatever their version.
    pub trust: bool,
}

impl Reuse {
    /// Scores of that version, from run folders and Parquet files.
    pub fn new(sources: impl IntoIterator<Item = impl Into<PathBuf>>, version: impl Into<String>) -> Self {
        let sources = sources.into_iter().map(Into::into).collect();
        Reuse { sources, version: version.into(), ..Default::default() }
    }

    /// The column that names items.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Takes scores whatever their version.
    pub fn trust(mut self, trust: bool) -> Self {
        self.trust = trust;
        self
    }
}

/// Earlier scores, as the scorer gave them, by item or by key. Failures are not taken, nor are parts.
#[derive(Default)]
pub(crate) struct Reusable {
    key: Option<String>,
    by_item: HashMap<u64, f64>,
    by_key: HashMap<String, f64>,
}

impl Reusable {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_item.is_empty() && self.by_key.is_empty()
    }

    /// Reads all sources. `version_of` tells the score's version from a run's configuration.
    pub(crate) fn read(
        reuse: &Reuse,
        library_id: Option<&str>,
        version_of: &dyn Fn(&serde_json::Value) -> Option<String>,
    ) -> Result<Self> {
        let mut found = Reusable { key: reuse.key.clone(), ..Default::default() };
        for source in &reuse.sources {
            let local = Local::of(source)?;
            if !local.path().exists() {
                return Err(Error::input(source, "no such run folder or Parquet file (score.reuse)"));
            }
            let (scores, version) = caught(source, || match local.path().join("run.json").exists() {
                true => {
                    let log = SearchLog::open(local.path())?;
                    let theirs = log.manifest().dataset.as_ref().and_then(|dataset| dataset.library_id.clone());
                    if reuse.key.is_none() {
                        same_library(source, theirs.as_deref(), library_id)?;
                    }
                    Ok((of_run(&log)?, version_of(&log.manifest().config)))
                }
                false => of_file(source, local.path(), reuse.key.is_some()),
            })
            .map_err(|error| error.of(source))?;
            if !reuse.trust && version.as_deref() != Some(reuse.version.as_str()) {
                let theirs = version.unwrap_or_else(|| "unknown".into());
                let reason = format!(
                    "its scores are of version {theirs}, not {}; take them all the same with --trust-scores",
                    reuse.version
                );
                return Err(Error::input(source, reason));
            }
            let values =
                schema::scores(&scores, SCORE)?.into_iter().map(|score| score.filter(|score| score.is_finite()));
            match &reuse.key {
                Some(key) => {
                    let keys = keys(&source.display().to_string(), &scores, key)?.into_iter().zip(values);
                    found.by_key.extend(keys.filter_map(|(key, score)| Some((key?, score?))));
                }
                None => {
                    let items = schema::u64s(&scores, DB_IDX)?.into_iter().zip(values);
                    found.by_item.extend(items.filter_map(|(item, score)| Some((item, score?))));
                }
            }
        }
        Ok(found)
    }

    /// The items of a library of which there is an earlier score, the best first: the lowest where that is better.
    pub(crate) fn known(&self, database: &dyn VectorDatabase, minimize: bool) -> Result<Vec<u64>> {
        let mut known: Vec<(f64, u64)> = Vec::new();
        if !self.is_empty() {
            let key: Vec<String> = self.key.iter().cloned().collect();
            database.visit_columns(&key, &mut |items| {
                let scores = self.of(&items)?.into_iter();
                let items = schema::u64s(&items, DB_IDX)?.into_iter();
                known.extend(scores.zip(items).filter_map(|(score, item)| Some((score?, item))));
                Ok(())
            })?;
        }
        let sign = if minimize { -1.0 } else { 1.0 };
        known.sort_by(|a, b| (sign * b.0).total_cmp(&(sign * a.0)).then(a.1.cmp(&b.1)));
        Ok(known.into_iter().map(|(_, item)| item).collect())
    }

    /// The earlier score of each row of a frame of items.
    pub(crate) fn of(&self, items: &DataFrame) -> Result<Vec<Option<f64>>> {
        match &self.key {
            None => Ok(schema::u64s(items, DB_IDX)?.iter().map(|item| self.by_item.get(item).copied()).collect()),
            Some(key) => {
                let keys = keys("the library's attributes", items, key)?.into_iter();
                Ok(keys.map(|key| key.and_then(|key| self.by_key.get(&key).copied())).collect())
            }
        }
    }
}

fn same_library(source: &Path, theirs: Option<&str>, ours: Option<&str>) -> Result<()> {
    if theirs.is_some() && theirs == ours {
        return Ok(());
    }
    let (theirs, ours) = (theirs.unwrap_or("unknown"), ours.unwrap_or("unknown"));
    let reason =
        format!("scored the library {theirs}, not {ours}; name a column that both have: score.reuse_key = \"…\"");
    Err(Error::input(source, reason))
}

/// The items of a run, with `score` as the scorer gave it.
fn of_run(log: &SearchLog) -> Result<DataFrame> {
    let mut scores = collect(log.compile_results()?)?.drop_many([EVALUATION, ITERATION, REASON]);
    if scores.column(RAW_SCORE).is_ok() {
        scores = scores.drop(SCORE).doing("score.reuse")?;
        scores.rename(RAW_SCORE, SCORE.into()).doing("score.reuse")?;
    }
    Ok(scores)
}

/// The items of a file, at a path of this machine, and the version it states.
fn of_file(path: &Path, local: &Path, by_key: bool) -> Result<(DataFrame, Option<String>)> {
    if !by_key {
        let reason =
            "does not say of which library its items are; name a column that both have: score.reuse_key = \"…\"";
        return Err(Error::input(path, reason));
    }
    let mut scores = read_parquet(local)?;
    let Ok(score) = scores.column(SCORE) else {
        return Err(Error::input(
            path,
            format!("no column `score` (there are: {})", schema::names(&scores).join(", ")),
        ));
    };
    let score = score.cast(&DataType::Float64).doing("score.reuse")?;
    scores.with_column(score).doing("score.reuse")?;
    let versions = scores.column("score_version").ok().and_then(|column| column.cast(&DataType::String).ok());
    let version = versions.and_then(|versions| {
        let versions = versions.str().ok()?;
        let first = versions.get(0)?.to_string();
        versions.iter().all(|version| version == Some(&first)).then_some(first)
    });
    Ok((scores, version))
}

fn keys(source: &str, frame: &DataFrame, key: &str) -> Result<Vec<Option<String>>> {
    let missing = || no_column(key, &format!(" in {source}"), schema::names(frame));
    let missing = |_| Error::Config(format!("score.reuse_key: {}", missing()));
    let text = frame.column(key).map_err(missing)?.cast(&DataType::String).doing("score.reuse_key")?;
    Ok(text.str().doing("score.reuse_key")?.iter().map(|key| key.map(str::to_string)).collect())
}
