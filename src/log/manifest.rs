//! `run.json`: what was asked of a run, and how it ended.

use std::path::Path;
use std::{fmt, fs};

use serde::{Deserialize, Serialize};

use crate::database::DatasetIdentity;
use crate::error::{AtPath, Error, Result};

/// The layout of a run folder. One of a later one is refused with a message; those of format 1 have no column `outcome`.
pub const FORMAT_VERSION: u32 = 2;

/// `run.json`: what was asked and how it ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Of the run folder.
    pub format_version: u32,
    /// Of the program that started the run.
    pub uphill_version: String,
    /// The run's seed.
    pub seed: u64,
    /// The library and the version of it that the run reads; absent for databases of the caller's own.
    pub dataset: Option<DatasetIdentity>,
    /// The tag under which the dataset keeps that version, if it could be tagged. `None` for logs in temporary folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_tag: Option<String>,
    /// Names the run, the same for all processes that go on with it: a hash of what it was started with.
    #[serde(default)]
    pub run_id: String,
    /// The resolved run file that the run goes on with: that of the last process that did. Null for runs started through
    /// the Rust API.
    pub config: serde_json::Value,
    /// Whether failed items were asked again, and their answers stand where they failed.
    #[serde(default)]
    pub amended: bool,
    /// The budget that the run was started with, for rules that plan with it: a budget that is raised later changes no plan.
    #[serde(default)]
    pub planned: Option<u64>,
    /// The budget that may have cut the last iteration, as it was spent in it.
    #[serde(default)]
    pub cut: Option<u64>,
    /// Seconds since 1970.
    pub started: u64,
    /// Absent while the run goes on, waits for scores by hand, or was killed.
    pub ended: Option<Ended>,
}

impl Manifest {
    /// With a name, if it has none: of a run that begins, or of one of an earlier version, whose run file is still the first.
    pub(super) fn named(mut self) -> Self {
        if self.run_id.is_empty() {
            let library = self.dataset.as_ref().and_then(|dataset| dataset.library_id.as_deref()).unwrap_or_default();
            let what = format!("{} {} {library} {}", self.started, self.seed, self.config);
            self.run_id = blake3::hash(what.as_bytes()).to_hex()[..32].to_string();
        }
        self
    }

    /// Where the library is, as far as the run knows: as its run file says, whose path holds from any working directory,
    /// or as it was opened.
    pub(crate) fn library(&self) -> Option<&str> {
        let opened = self.dataset.as_ref().map(|dataset| dataset.uri.as_str());
        self.config["database"]["path"].as_str().or(opened)
    }

    /// Notes the run file that the run goes on with, if there is one. Says whether it is another one.
    pub(super) fn goes_on_with(&mut self, config: &serde_json::Value) -> bool {
        let is_new = !config.is_null() && *config != self.config;
        if is_new {
            self.config = config.clone();
        }
        is_new
    }

    /// Notes where the library is now. Says whether that is another place.
    pub(super) fn moved_to(&mut self, library: &str) -> bool {
        let is_new = self.library().is_some_and(|before| before != library);
        if is_new {
            if let Some(path) = self.config.pointer_mut("/database/path") {
                *path = library.into();
            }
            if let Some(dataset) = &mut self.dataset {
                dataset.uri = library.into();
            }
        }
        is_new
    }

    /// How far the run is, in words.
    pub(crate) fn state(&self) -> String {
        match &self.ended {
            Some(ended) => ended.to_string(),
            None if self.config["score"]["by_hand"] == true => "not ended: items wait for their scores".into(),
            None => "not ended: it goes on, or was killed".into(),
        }
    }
}

/// How a run ended, by itself or by an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ended {
    /// Why.
    pub reason: StopReason,
    /// What went wrong, if that ended it: the line that was said. Gone when the run goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Committed iterations.
    pub iterations: u32,
    /// Distinct items paid for.
    pub evaluations: u64,
    /// Those of them that have a score; `None` where that was not noted yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scored: Option<u64>,
    /// Items booked whose score was paid for before.
    #[serde(default)]
    pub reused: u64,
    /// Items that were rejected.
    #[serde(default)]
    pub rejected: u64,
    /// Items that failed.
    #[serde(default)]
    pub failed: u64,
    /// Items that had been asked when the process was killed or stopped, without an answer that is durable:
    /// the most that may have been paid twice.
    #[serde(default)]
    pub asked_again: u64,
    /// How often a scorer was tried again for an item, as its answer did not come.
    #[serde(default)]
    pub retries: u64,
    /// How much each column that the rule reads says about the score, as it learned: shares that sum to 1, the largest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learned: Vec<(String, f32)>,
    /// Seconds since 1970.
    pub at: u64,
}

/// Why, in words, and what went wrong.
impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "an error: {error}"),
            None => self.reason.fmt(f),
        }
    }
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// As many iterations as asked.
    Iterations,
    /// As many items as the budget allows.
    Evaluations,
    /// No new item for as many iterations as asked.
    NothingNew,
    /// No item was met at all.
    NothingMet,
    /// Nothing that was met passes the filter.
    NothingPasses,
    /// As long as asked.
    Seconds,
    /// The score asked for was reached.
    Score,
    /// A signal.
    Interrupted,
    /// An error: nobody answered for the items for longer than the scorer is waited for.
    Away,
    /// Another error.
    Error,
}

/// In words.
impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            StopReason::Iterations => "as many iterations as asked",
            StopReason::Evaluations => "the budget is spent",
            StopReason::NothingNew => "nothing new was met",
            StopReason::NothingMet => "no item was met",
            StopReason::NothingPasses => "nothing that was met passes the filter",
            StopReason::Seconds => "the time is over",
            StopReason::Score => "the score is good enough",
            StopReason::Interrupted => "interrupted",
            StopReason::Away => "the scorer is away",
            StopReason::Error => "an error",
        })
    }
}

/// How the tags begin that keep the versions of runs.
pub(crate) const TAG: &str = "uphill-run-";

/// The name of run.json while its run is being removed.
pub(super) const REMOVED: &str = "removed.json";

/// Reads the run.json of a run folder.
pub(super) fn read_manifest(path: &Path) -> Result<Manifest> {
    read_manifest_at(path, &path.join("run.json"))
}

/// Reads a run.json that may be under another name.
pub(super) fn read_manifest_at(path: &Path, file: &Path) -> Result<Manifest> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let reason = match path.is_dir() && is_unused(path)? {
                true => "holds no run yet (it has no run.json); start it, without --resume",
                false if path.join(REMOVED).exists() => "its run is being removed; `uphill remove` finishes that",
                false => "is not a run folder (it has no run.json)",
            };
            return Err(Error::input(path, reason));
        }
        Err(error) => return Err(error).at_path(file),
    };
    let version: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| Error::input(file, format!("damaged: {error}")))?;
    match (&version["format_version"], version["format_version"].as_u64()) {
        (_, Some(version)) if (1..=u64::from(FORMAT_VERSION)).contains(&version) => {}
        (_, Some(version)) if version > u64::from(FORMAT_VERSION) => {
            let reason =
                format!("has format version {version}; this program reads up to {FORMAT_VERSION}: use a later uphill");
            return Err(Error::input(path, reason));
        }
        (serde_json::Value::Null, _) => {
            return Err(Error::input(file, "damaged: no format_version, or not a file of this program"));
        }
        (other, _) => {
            let reason = format!("damaged: expected a format_version from 1 to {FORMAT_VERSION}, found {other}");
            return Err(Error::input(file, reason));
        }
    }
    let manifest: Manifest =
        serde_json::from_value(version).map_err(|error| Error::input(file, format!("damaged: {error}")))?;
    Ok(manifest.named())
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether a folder holds nothing but what is there before run.json is.
pub(super) fn is_unused(path: &Path) -> Result<bool> {
    let holds_only = |folder: &Path, names: &[&str]| -> Result<bool> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(!folder.exists()) };
        for entry in entries {
            let name = entry.at_path(folder)?.file_name();
            if !names.iter().any(|expected| name == *expected) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    Ok(holds_only(path, &["lock", "tmp", "queries", "results", "ledger"])?
        && !path.join("lock").is_dir()
        && holds_only(&path.join("tmp"), &["run.json"])?
        && holds_only(&path.join("queries"), &[])?
        && holds_only(&path.join("results"), &[])?
        && holds_only(&path.join("ledger"), &[])?)
}
