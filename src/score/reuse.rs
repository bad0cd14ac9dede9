//! Scores that were paid for before: taken from earlier runs and files, at no cost.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use polars::prelude::*;

use super::number;
use crate::database::{Local, VectorDatabase};
use crate::error::{Doing, Error, Result};
use crate::frame::keys::{ByKey, Keys};
use crate::frame::schema::{self, DB_IDX, EVALUATION, ITERATION, RAW_SCORE, REASON, SCORE};
use crate::io::table::Table;
use crate::log::{SearchLog, collect};
use crate::panics::catch_at_path;
use crate::suggest::no_column;

/// Where to take earlier scores from, and what makes them the same.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Reuse {
    /// Run folders, and files (Parquet, CSV, JSON) with a `score` as the scorer gave it, here or on an object store. Later
    /// ones win.
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
    /// Scores of that version, from run folders and files.
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

/// Earlier scores, as the scorer gave them. Failures are not taken, nor are parts.
#[derive(Default)]
pub(crate) struct Reusable {
    key: Option<String>,
    /// In the order they were named.
    sources: Vec<Known>,
}

/// The scores of a source.
struct Known {
    source: PathBuf,
    scores: Scores,
}

enum Scores {
    ByItem(HashMap<u64, f64>),
    ByKey(ByKey<f64>),
}

impl Scores {
    fn is_empty(&self) -> bool {
        match self {
            Scores::ByItem(scores) => scores.is_empty(),
            Scores::ByKey(scores) => scores.len() == 0,
        }
    }
}

impl Reusable {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.sources.iter().all(|known| known.scores.is_empty())
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
                return Err(Error::input(source, "no such run folder or file (score.reuse)"));
            }
            let (rows, version) = catch_at_path(source, || match local.path().join("run.json").exists() {
                true => {
                    let log = SearchLog::open(local.path())?;
                    let theirs = log.manifest().dataset.as_ref().and_then(|dataset| dataset.library_id.clone());
                    if reuse.key.is_none() {
                        same_library(source, theirs.as_deref(), library_id)?;
                    }
                    Ok((of_run(&log)?, version_of(&log.manifest().config)))
                }
                false => of_file(source, local.path(), reuse.key.as_deref()),
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
            let values = schema::scores(&rows, SCORE)?.into_iter().map(|score| score.filter(|score| score.is_finite()));
            let scores = match &reuse.key {
                Some(key) => Scores::ByKey(ByKey::new(keys(&there(source), &rows, key)?, values)),
                None => {
                    let items = schema::u64s(&rows, DB_IDX)?.into_iter().zip(values);
                    Scores::ByItem(items.filter_map(|(item, score)| Some((item, score?))).collect())
                }
            };
            if scores.is_empty() {
                let with = reuse.key.as_ref().map_or(String::new(), |key| format!(" and a `{key}`"));
                let rows = rows.height();
                log::warn!(
                    "score.reuse: {}: none of its {rows} rows has a score{with}; nothing is taken",
                    source.display()
                );
            }
            found.sources.push(Known { source: source.clone(), scores });
        }
        Ok(found)
    }

    /// Names the sources whose scores are of no item of a library, with what there is on both sides.
    ///
    /// # Errors
    /// A library without the key; keys that have lost digits.
    pub(crate) fn name_strangers(&self, database: &dyn VectorDatabase) -> Result<()> {
        let Some(key) = &self.key else { return Ok(()) };
        keys(HERE, &database.take(&[])?, key)?;
        let mut strangers: Vec<&Known> = self.sources.iter().filter(|known| !known.scores.is_empty()).collect();
        let mut here = String::from("no items");
        let columns = [key.clone()];
        let mut looked = || {
            database.visit_columns(&columns, &mut |items| {
                let ours = keys(HERE, &items, key)?;
                here = ours.describe();
                let mut all = std::mem::take(&mut strangers).into_iter();
                let left = all.try_fold(Vec::new(), |mut left, known| {
                    if known.of(&items, Some(&ours))?.iter().all(Option::is_none) {
                        left.push(known);
                    }
                    Ok::<_, Error>(left)
                });
                strangers = left?;
                // Whoever has found all of them need not look on.
                if strangers.is_empty() { Err(Error::Interrupted) } else { Ok(()) }
            })
        };
        match looked() {
            Err(Error::Interrupted) if strangers.is_empty() => return Ok(()),
            looked => looked?,
        }
        for Known { source, scores } in strangers {
            if let Scores::ByKey(scores) = scores {
                log::warn!(
                    "score.reuse: {}: none of its {} scores is of an item of this library, by `{key}`: there it is {}, here {here}; \
                     nothing is taken",
                    source.display(),
                    scores.len(),
                    scores.describe()
                );
            }
        }
        Ok(())
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

    /// The earlier score of each row of a frame of items; of several sources that of the last.
    pub(crate) fn of(&self, items: &DataFrame) -> Result<Vec<Option<f64>>> {
        let ours = self.key.as_ref().map(|key| keys(HERE, items, key)).transpose()?;
        let mut scores = vec![None; items.height()];
        for known in &self.sources {
            for (score, found) in scores.iter_mut().zip(known.of(items, ours.as_ref())?) {
                *score = found.or(*score);
            }
        }
        Ok(scores)
    }
}

impl Known {
    /// Its score of each row of a frame of items, whose keys are `ours`.
    fn of(&self, items: &DataFrame, ours: Option<&Keys>) -> Result<Vec<Option<f64>>> {
        match (&self.scores, ours) {
            (Scores::ByKey(scores), Some(ours)) => scores.of(ours, HERE, &there(&self.source)),
            (Scores::ByItem(scores), _) => {
                Ok(schema::u64s(items, DB_IDX)?.iter().map(|item| scores.get(item).copied()).collect())
            }
            _ => Ok(vec![None; items.height()]),
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
fn of_file(path: &Path, local: &Path, key: Option<&str>) -> Result<(DataFrame, Option<String>)> {
    let Some(key) = key else {
        let reason =
            "does not say of which library its items are; name a column that both have: score.reuse_key = \"…\"";
        return Err(Error::input(path, reason));
    };
    let mut scores = Table::new(path).at(local).keys(&[key]).numbers(&[SCORE]).texts(&["score_version"]).read()?;
    if scores.column(SCORE).is_err() {
        let there = schema::names(&scores).join(", ");
        return Err(Error::input(path, format!("no column `score` (there are: {there})")));
    }
    let score =
        Column::new(SCORE.into(), number(&scores, SCORE).map_err(|error| Error::input(path, error.to_string()))?);
    scores.with_column(score).doing("score.reuse")?;
    let versions = scores.column("score_version").ok().and_then(|column| column.cast(&DataType::String).ok());
    let version = versions.and_then(|versions| {
        let versions = versions.str().ok()?;
        let first = versions.get(0)?.to_string();
        versions.iter().all(|version| version == Some(&first)).then_some(first)
    });
    Ok((scores, version))
}

/// What messages call the library, and a source.
const HERE: &str = "the library's attributes";

fn there(source: &Path) -> String {
    source.display().to_string()
}

fn keys(place: &str, frame: &DataFrame, key: &str) -> Result<Keys> {
    let missing = || no_column(key, &format!(" in {place}"), schema::names(frame));
    let column = frame.column(key).map_err(|_| Error::Config(format!("score.reuse_key: {}", missing())))?;
    Keys::of(column)
}
