//! `run.json`: the configuration of a run, the dataset that it reads, and how it ended.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::run_summary::RunSummary;
use crate::audit::Audit;
use crate::database::DatasetIdentity;
use crate::error::{AtPath, Error, Result};
use crate::io::exact_json::parse_exact;

/// The version of the run folder's layout. Later versions are rejected with an error. Format 1 has no column `outcome`,
/// format 2 no predictions (`predicted`, `deviation`, `chosen_by`).
pub const FORMAT_VERSION: u32 = 3;

/// `run.json`: the configuration of a run, the dataset that it reads, and how it ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the run folder's layout ([`FORMAT_VERSION`]).
    pub format_version: u32,
    /// The version of the program that started the run.
    pub uphill_version: String,
    /// The seed of all random numbers.
    pub seed: u64,
    /// The dataset that the run reads, and its version. `None` for other implementations of `VectorDatabase`.
    pub dataset: Option<DatasetIdentity>,
    /// The tag that protects this version of the dataset from clean-ups. `None` for logs in temporary folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_tag: Option<String>,
    /// The id of the run, which resumed processes share: a hash of the start time, the seed, the library and the
    /// configuration.
    #[serde(default)]
    pub run_id: String,
    /// The resolved run file of the last process that ran the search. Null for runs started through the Rust API.
    pub config: serde_json::Value,
    /// The content hashes of the files of the scorer, by their names in the run file. If a content changed while the run scored
    /// items, all its hashes, separated by spaces. Empty if `score.version` names the score.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scorer_files: BTreeMap<String, String>,
    /// Whether failed items were retried, and their new scores replaced the failures in the results.
    #[serde(default, rename = "amended")]
    pub has_retried_items: bool,
    /// The evaluation budget that the run was started with. Rules derive their batch sizes from it. Changing the budget
    /// later does not change it.
    #[serde(default, rename = "planned")]
    pub planned_budget: Option<u64>,
    /// The threshold of a hit that the run was started with. From it, a rule knows that scores may be yes or no. Changing the
    /// threshold later does not change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_hit: Option<f64>,
    /// The evaluation budget that an earlier process spent. The last iteration may lack items that exceeded it.
    #[serde(default, rename = "cut")]
    pub spent_budget: Option<u64>,
    /// When the run was started, in seconds since 1970.
    pub started: u64,
    /// The last random audit of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// How the run ended. `None` while it is running or waits for manual scores, or if it was killed.
    pub ended: Option<RunSummary>,
}

impl Manifest {
    /// Sets the run id if it is missing: of a new run, or of a run that an earlier version of this program started. Its first
    /// configuration is still recorded.
    pub(super) fn with_run_id(mut self) -> Self {
        if self.run_id.is_empty() {
            let library = self.dataset.as_ref().and_then(|dataset| dataset.library_id.as_deref()).unwrap_or_default();
            let text = format!("{} {} {library} {}", self.started, self.seed, self.config);
            self.run_id = blake3::hash(text.as_bytes()).to_hex()[..32].to_string();
        }
        self
    }

    /// The path or address of the dataset, as in the run file, where it is absolute. For a run without a run file, the address
    /// that was opened.
    pub(crate) fn dataset_path(&self) -> Option<&str> {
        let opened = self.dataset.as_ref().map(|dataset| dataset.uri.as_str());
        self.config["database"]["path"].as_str().or(opened)
    }

    /// Sets the configuration, unless the new one is null. Returns whether it has changed.
    pub(super) fn set_config(&mut self, config: &serde_json::Value) -> bool {
        let is_new = !config.is_null() && *config != self.config;
        if is_new {
            self.config = config.clone();
        }
        is_new
    }

    /// Sets the content hashes of the files of the scorer in a resumed run. Files that the run did not record stay unrecorded. If
    /// items `have_scores`, their contents are kept too. Returns whether something has changed.
    pub(super) fn set_scorer_files(&mut self, files: &BTreeMap<String, String>, have_scores: bool) -> bool {
        let before = self.scorer_files.clone();
        for (name, contents) in &mut self.scorer_files {
            match files.get(name).filter(|content| Self::last_content(contents) != content.as_str()) {
                Some(content) if have_scores => *contents = format!("{contents} {content}"),
                Some(content) => *contents = content.clone(),
                None => {}
            }
        }
        before != self.scorer_files
    }

    /// The last of the content hashes of a file.
    pub(crate) fn last_content(contents: &str) -> &str {
        contents.rsplit(' ').next().unwrap_or(contents)
    }

    /// The content hashes of the scorer's files when the run was started.
    pub(crate) fn first_scorer_files(&self) -> BTreeMap<String, String> {
        let first = |contents: &String| contents.split(' ').next().unwrap_or_default().to_string();
        self.scorer_files.iter().map(|(name, contents)| (name.clone(), first(contents))).collect()
    }

    /// The content hashes of a file, for messages.
    pub(crate) fn describe_contents(contents: &str) -> String {
        contents.replace(' ', ", then ")
    }

    /// Sets the path or address of the dataset. Returns whether it has changed.
    pub(super) fn set_dataset_path(&mut self, new: &str) -> bool {
        let is_new = self.dataset_path().is_some_and(|before| before != new);
        if is_new {
            if let Some(path) = self.config.pointer_mut("/database/path") {
                *path = new.into();
            }
            if let Some(dataset) = &mut self.dataset {
                dataset.uri = new.into();
            }
        }
        is_new
    }

    /// A text that says how the run ended, or why it has not ended.
    pub(crate) fn status(&self) -> String {
        match &self.ended {
            Some(ended) => ended.to_string(),
            None if self.config["score"]["by_hand"] == true => "not ended: items wait for their scores".into(),
            None => "not ended: it is running, or was killed".into(),
        }
    }
}

/// The prefix of the dataset tags that protect the versions that runs read.
pub(crate) const TAG_PREFIX: &str = "uphill-run-";

/// The name of run.json while its run is being removed.
pub(super) const REMOVED_MANIFEST: &str = "removed.json";

/// Reads the run.json of a run folder.
pub(super) fn read_manifest(path: &Path) -> Result<Manifest> {
    read_manifest_at(path, &path.join("run.json"))
}

/// Reads the run.json of a run folder from a file that may have another name.
pub(super) fn read_manifest_at(path: &Path, file: &Path) -> Result<Manifest> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let reason = match path.is_dir() && is_unused(path)? {
                true => "holds no run yet (it has no run.json); start one, without --resume",
                false if path.join(REMOVED_MANIFEST).exists() => {
                    "its run is being removed; `uphill remove` finishes that"
                }
                false => "is not a run folder (it has no run.json)",
            };
            return Err(Error::input(path, reason));
        }
        Err(error) => return Err(error).at_path(file),
    };
    let version: serde_json::Value =
        parse_exact(&text).map_err(|error| Error::input(file, format!("damaged: {error}")))?;
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
    Ok(manifest.with_run_id())
}

/// Whether a folder contains only files that are created before run.json.
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
