//! The run folder: plain Parquet files per iteration, which any engine reads.
//!
//! ```text
//! RUN/
//!   run.json                                      the configuration, and how the run ended
//!   queries/iteration=000000/part-0000.parquet    the queries frame
//!   results/iteration=000000/part-0000.parquet    the scored frame, without embeddings
//!   ledger/batch-000000.parquet                   the answers of the scorer: a row per item, some hundred rows per file
//!   audit/part-0000.parquet                       the random items that an audit scored
//!   times.jsonl                                   seconds per stage of each iteration
//!   lock  tmp/
//! ```
//!
//! Everything is written and fsynced in `tmp/`, then renamed. The rename of `results/iteration=t` commits an iteration: the
//! iteration exists if and only if this folder does.

mod append;
mod compile;
mod manifest;
mod paths;
mod record;
mod remove;
mod run_summary;
mod stage_times;
mod trajectories;

use std::fs;
use std::path::{Path, PathBuf};

use polars::prelude::*;

use self::append::Rewrite;
pub use self::compile::collect;
pub(crate) use self::manifest::TAG_PREFIX;
pub use self::manifest::{FORMAT_VERSION, Manifest};
use self::manifest::{is_unused, read_manifest};
pub use self::remove::{remove, remove_from};
pub(crate) use self::run_summary::now;
pub use self::run_summary::{RunSummary, StopReason};
pub use self::stage_times::StageTimes;
use crate::database::{DatasetIdentity, is_remote, local_path};
use crate::error::{AtPath, Error, Result};
use crate::frame::schema::{CHOSEN_BY, ITERATION};
use crate::io::atomic;
use crate::io::parquet::{check_counts, read_parquet};

/// A run folder. One process may append to it, while any number of processes read it.
///
/// # Example
///
/// ```
/// use uphill::{IndexOptions, LanceDatabase, RlUpdate, Runner, SearchLog, SqlScore, polars::prelude::*};
/// # fn main() -> uphill::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("molecules.lance");
/// # uphill::index("data/molecules.parquet", &path, &IndexOptions::default())?;
/// let library = LanceDatabase::open(path.to_string_lossy())?;
/// let queries = uphill::queries_at(&library, &[17])?;
/// let run = folder.path().join("run");
/// Runner::new(library, SqlScore::new("qed"), RlUpdate::new(0.5)).search_into(&run, &queries, 3)?;
///
/// let log = SearchLog::open(&run)?;
/// let best = uphill::collect(log.compile_results()?.limit(1))?;
/// // Other engines read the same Parquet files, one folder per iteration.
/// let files = run.join("results/*/*.parquet");
/// let all = LazyFrame::scan_parquet(PlRefPath::new(files.to_string_lossy()), ScanArgsParquet::default())?;
/// let highest = all.select([col("score").max()]).collect()?;
/// assert_eq!(best.column("score")?.f64()?.get(0), highest.column("score")?.f64()?.get(0));
/// # Ok(())
/// # }
/// ```
pub struct SearchLog {
    path: PathBuf,
    manifest: Manifest,
    iterations: Vec<u32>,
    /// The columns of the last iteration, if the log is open for appending.
    columns: Option<SchemaRef>,
    rewrite: Option<Rewrite>,
    lock: Option<atomic::Lock>,
    temporary: Option<tempfile::TempDir>,
}

impl SearchLog {
    /// Starts a run in an unused folder ([`SearchLog::is_unused`]).
    ///
    /// # Errors
    /// A folder with other content, which stays as it is; another process that writes to the folder.
    pub fn create(path: impl AsRef<Path>, manifest: Manifest) -> Result<Self> {
        let path = &run_path(path.as_ref())?;
        if path.symlink_metadata().is_ok() && !path.is_dir() {
            return Err(Error::input(path, "is not a folder; choose another name"));
        }
        let has_run = || path.join("run.json").exists();
        atomic::create_dir_all(path)?;
        if !has_run() && !is_unused(path)? {
            return Err(Error::input(path, "is neither empty nor a run folder; choose another folder"));
        }
        let lock = atomic::lock(path);
        // Checked under the lock: another process may have started a run in the meantime.
        if has_run() && !matches!(lock, Err(Error::Locked { .. })) {
            let reason = "already holds a run; resume it with --resume, or choose another folder";
            return Err(Error::input(path, reason));
        }
        let lock = lock?;
        for name in ["tmp", "queries", "results", "ledger"] {
            atomic::create_dir(&path.join(name))?;
        }
        let log = SearchLog {
            path: path.into(),
            manifest: manifest.with_run_id(),
            iterations: Vec::new(),
            columns: None,
            rewrite: None,
            lock: Some(lock),
            temporary: None,
        };
        atomic::sync_dir(atomic::parent_dir(path))?;
        log.write_manifest()?;
        Ok(log)
    }

    /// Starts a run in a temporary folder, which is removed when the log is dropped.
    ///
    /// # Errors
    /// A temporary folder that cannot be created.
    pub fn temporary(manifest: Manifest) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("uphill-").tempdir().at_path(std::env::temp_dir())?;
        let mut log = Self::create(folder.path(), manifest)?;
        log.temporary = Some(folder);
        Ok(log)
    }

    /// Whether a folder can take a new run: it does not exist, is empty, or contains only the files of a process that was killed
    /// before it wrote run.json.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn is_unused(path: impl AsRef<Path>) -> Result<bool> {
        let path = &run_path(path.as_ref())?;
        Ok(!path.exists() || path.is_dir() && is_unused(path)?)
    }

    /// Opens a run folder for reading. Another process may be writing it.
    ///
    /// # Errors
    /// No run folder, or one of a later format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = &run_path(path.as_ref())?;
        let manifest = read_manifest(path)?;
        let iterations = committed_iterations(&path.join("results"))?;
        let path = path.into();
        Ok(SearchLog { path, manifest, iterations, columns: None, rewrite: None, lock: None, temporary: None })
    }

    /// Opens a run folder for appending.
    ///
    /// # Errors
    /// As [`SearchLog::open`]; another process that writes to the folder.
    pub fn resume(path: impl AsRef<Path>) -> Result<Self> {
        let path = &run_path(path.as_ref())?;
        // Checked first, so that only run folders get a lock file.
        read_manifest(path)?;
        let lock = atomic::lock(path)?;
        let mut log = Self::open(path)?;
        log.lock = Some(lock);
        // Remove the unfinished files of a killed process.
        atomic::remove_dir_all(&log.tmp())?;
        atomic::create_dir(&log.tmp())?;
        if let Some(last) = log.iterations.last() {
            log.columns = Some(log.results(*last)?.schema().clone());
        }
        Ok(log)
    }

    /// The path of the run folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content of run.json: the configuration, and how the run ended.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Fails if a dataset differs from the one that the run reads. The message lists the differences.
    ///
    /// # Errors
    /// Another version, content, metric or index.
    pub fn check_dataset(&self, opened: Option<&DatasetIdentity>) -> Result<()> {
        let (Some(recorded), Some(opened)) = (&self.manifest.dataset, opened) else { return Ok(()) };
        let differences = recorded.differences(opened);
        if differences.is_empty() {
            return Ok(());
        }
        let reason = format!("this is not the dataset that the run read: {}", differences.join("; "));
        Err(Error::input(&self.path, reason))
    }

    /// The committed iterations, in order.
    pub fn iterations(&self) -> &[u32] {
        &self.iterations
    }

    /// Whether the log is open for appending.
    pub(crate) fn is_writable(&self) -> bool {
        self.lock.is_some()
    }

    /// Whether the next iteration may be logged with predictions. True for the first iteration, and if the last one has them.
    pub(crate) fn has_predictions(&self) -> bool {
        self.columns.as_ref().is_none_or(|columns| columns.contains(CHOSEN_BY))
    }

    /// Keeps the folder of a temporary log and returns its path.
    pub fn keep(mut self) -> PathBuf {
        match self.temporary.take() {
            Some(folder) => folder.keep(),
            None => self.path.clone(),
        }
    }

    /// The queries frame of an iteration.
    ///
    /// # Errors
    /// No such iteration.
    pub fn queries(&self, iteration: u32) -> Result<DataFrame> {
        read_parquet(self.file("queries", iteration))
    }

    pub(crate) fn has_queries(&self, iteration: u32) -> bool {
        self.partition("queries", iteration).exists()
    }

    /// The scored frame of an iteration, without embeddings.
    ///
    /// # Errors
    /// No such iteration.
    pub fn results(&self, iteration: u32) -> Result<DataFrame> {
        let file = self.file("results", iteration);
        check_counts(&file)?;
        read_parquet(file)
    }

    /// The items that an audit drew, with their scores: see [`AuditState`](crate::AuditState). `None` if the run was not audited.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn audited_items(&self) -> Result<Option<DataFrame>> {
        let file = self.audit_file();
        if file.exists() { read_parquet(file).map(Some) } else { Ok(None) }
    }

    fn audit_file(&self) -> PathBuf {
        self.path.join("audit/part-0000.parquet")
    }

    pub(crate) fn ledger_folder(&self) -> PathBuf {
        self.path.join("ledger")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.path.join("tmp")
    }

    fn partition(&self, kind: &str, iteration: u32) -> PathBuf {
        self.path.join(kind).join(format!("{ITERATION}={iteration:06}"))
    }

    /// The file of a partition. Each partition has one file.
    fn file(&self, kind: &str, iteration: u32) -> PathBuf {
        self.partition(kind, iteration).join("part-0000.parquet")
    }
}

/// The local path of a run folder. Fails for an object store, which lacks atomic renames of folders and locks that end with
/// their process.
fn run_path(path: &Path) -> Result<PathBuf> {
    match is_remote(path) {
        true => Err(Error::input(
            path,
            "a run folder is on a disk, local or shared; choose a local path, and copy the folder to the store when the run \
             has ended",
        )),
        false => local_path(path),
    }
}

/// The iterations whose partitions are in a folder, in order.
fn committed_iterations(folder: &Path) -> Result<Vec<u32>> {
    let mut iterations = Vec::new();
    for entry in fs::read_dir(folder).at_path(folder)? {
        let name = entry.at_path(folder)?.file_name();
        let iteration: Option<u32> =
            name.to_str().and_then(|name| name.strip_prefix("iteration=")).and_then(|digits| digits.parse().ok());
        iterations.extend(iteration);
    }
    iterations.sort_unstable();
    Ok(iterations)
}
