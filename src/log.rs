//! The run folder: plain Parquet, an iteration at a time, that any engine reads.
//!
//! ```text
//! RUN/
//!   run.json                                      what the run goes on with, and how it ended
//!   queries/iteration=000000/part-0000.parquet    the queries frame
//!   results/iteration=000000/part-0000.parquet    the scored frame, without embeddings
//!   ledger/batch-000000.parquet                   what was paid for: a row an item, some hundred a file
//!   times.jsonl                                   seconds that the stages of each iteration took
//!   lock  tmp/
//! ```
//!
//! The rename of `results/iteration=t` is the only commit: an iteration exists if and only
//! if that folder does. Everything is written and fsynced in `tmp/`, then renamed.

mod compile;
mod manifest;
mod paths;
mod remove;
mod times;
mod trajectories;

use std::fs;
use std::path::{Path, PathBuf};

use arrow::datatypes::DataType as ArrowType;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use polars::prelude::*;

pub use self::compile::collect;
pub use self::manifest::{Ended, FORMAT_VERSION, Manifest, StopReason};
pub(crate) use self::manifest::{TAG, now};
use self::manifest::{is_unused, read_manifest};
pub use self::remove::{remove, remove_from};
pub use self::times::Times;
use crate::database::{DatasetIdentity, is_remote, local_path};
use crate::error::{AtPath, Error, Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::{self, EMBEDDING, ITERATION, OUTCOME};
use crate::io::atomic;
use crate::io::parquet::{check_counts, read_parquet};

/// A run folder, open for appending by one process or for reading by any.
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
/// // The files are Parquet, a folder an iteration, which Polars and DuckDB read as they are.
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
    columns: Option<SchemaRef>,
    /// The last iteration, if it is to be written anew, as it was cut by a budget, with the queries after it.
    reopened: Option<Reopened>,
    lock: Option<atomic::Lock>,
    temporary: Option<tempfile::TempDir>,
}

/// An iteration that is written anew, and whether its results and the queries after it are.
struct Reopened {
    iteration: u32,
    results: bool,
    queries: bool,
}

impl SearchLog {
    /// Starts a run in a folder that does not exist yet, or is empty, or holds no more than what a
    /// process left that was killed before it wrote run.json.
    ///
    /// # Errors
    /// A folder with something else in it, which is left as it is; another process that writes to it.
    pub fn create(path: impl AsRef<Path>, manifest: Manifest) -> Result<Self> {
        let path = &on_a_disk(path.as_ref())?;
        if path.symlink_metadata().is_ok() && !path.is_dir() {
            return Err(Error::input(path, "is no folder; choose another name"));
        }
        let holds_a_run = || path.join("run.json").exists();
        atomic::create_dir_all(path)?;
        if !holds_a_run() && !is_unused(path)? {
            return Err(Error::input(path, "is not empty and not a run folder; choose another"));
        }
        let lock = atomic::lock(path);
        // Under the lock: another process may have been a little faster.
        if holds_a_run() && !matches!(lock, Err(Error::Locked { .. })) {
            let reason = "already holds a run; go on with it (--resume), or choose another folder";
            return Err(Error::input(path, reason));
        }
        let lock = lock?;
        for name in ["tmp", "queries", "results", "ledger"] {
            atomic::create_dir(&path.join(name))?;
        }
        let log = SearchLog {
            path: path.into(),
            manifest: manifest.named(),
            iterations: Vec::new(),
            columns: None,
            reopened: None,
            lock: Some(lock),
            temporary: None,
        };
        atomic::sync_dir(atomic::parent_dir(path))?;
        log.write_manifest()?;
        Ok(log)
    }

    /// Starts a run in a temporary folder, which goes when the log is dropped.
    ///
    /// # Errors
    /// No room, or no permission, for it.
    pub fn temporary(manifest: Manifest) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("uphill-").tempdir().at_path(std::env::temp_dir())?;
        let mut log = Self::create(folder.path(), manifest)?;
        log.temporary = Some(folder);
        Ok(log)
    }

    /// Whether a run would start in this folder: there is none, or no more in it than a process left that was killed
    /// before it wrote run.json.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn is_to_start(path: impl AsRef<Path>) -> Result<bool> {
        let path = &on_a_disk(path.as_ref())?;
        Ok(!path.exists() || path.is_dir() && is_unused(path)?)
    }

    /// Opens a run folder for reading; another process may be writing it.
    ///
    /// # Errors
    /// No run folder there, or one of a later format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = &on_a_disk(path.as_ref())?;
        let manifest = read_manifest(path)?;
        let iterations = committed(&path.join("results"))?;
        let path = path.into();
        Ok(SearchLog { path, manifest, iterations, columns: None, reopened: None, lock: None, temporary: None })
    }

    /// Opens a run folder for appending.
    ///
    /// # Errors
    /// As [`SearchLog::open`]; another process that writes to it.
    pub fn resume(path: impl AsRef<Path>) -> Result<Self> {
        let path = &on_a_disk(path.as_ref())?;
        // A folder that is not a run's gets no lock file.
        read_manifest(path)?;
        let lock = atomic::lock(path)?;
        let mut log = Self::open(path)?;
        log.lock = Some(lock);
        // Whatever a killed process was writing.
        atomic::remove_dir_all(&log.tmp())?;
        atomic::create_dir(&log.tmp())?;
        if let Some(last) = log.iterations.last() {
            log.columns = Some(log.results(*last)?.schema().clone());
        }
        Ok(log)
    }

    /// Where the run is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was asked and how it ended.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Refuses a dataset that is not the one the run reads; the message says what differs.
    ///
    /// # Errors
    /// Another version, content, metric or index.
    pub fn check_dataset(&self, now: Option<&DatasetIdentity>) -> Result<()> {
        let (Some(then), Some(now)) = (&self.manifest.dataset, now) else { return Ok(()) };
        let differences = then.differences(now);
        if differences.is_empty() {
            return Ok(());
        }
        let reason = format!("cannot go on, the dataset is not the one it was: {}", differences.join("; "));
        Err(Error::input(&self.path, reason))
    }

    /// The committed iterations, in order.
    pub fn iterations(&self) -> &[u32] {
        &self.iterations
    }

    /// Keeps a log in a temporary folder from going when it is dropped, and says where it is.
    pub fn keep(mut self) -> PathBuf {
        match self.temporary.take() {
            Some(folder) => folder.keep(),
            None => self.path.clone(),
        }
    }

    pub(crate) fn ledger_folder(&self) -> PathBuf {
        self.path.join("ledger")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// Notes where the library is, if it was moved: readers need it also where the run goes no further.
    pub(crate) fn library_is_at(&mut self, library: &str) -> Result<()> {
        if self.manifest.moved_to(library) { self.write_manifest() } else { Ok(()) }
    }

    /// Notes the run file that the run goes on with, before anything is asked.
    pub(crate) fn goes_on_with(&mut self, config: &serde_json::Value) -> Result<()> {
        if self.manifest.goes_on_with(config) { self.write_manifest() } else { Ok(()) }
    }

    /// Notes that the run goes on, and with which run file. One whose last iteration is written anew is cut until that is done.
    pub(crate) fn goes_on(&mut self, config: &serde_json::Value) -> Result<()> {
        let cut = self.manifest.cut.filter(|_| self.reopened.is_some());
        let had_ended = self.manifest.ended.take().is_some() || self.manifest.cut != cut;
        self.manifest.cut = cut;
        if !self.manifest.goes_on_with(config) && !had_ended {
            return Ok(());
        }
        self.manifest.format_version = FORMAT_VERSION;
        self.write_manifest()
    }

    /// Notes how the run ended, with which run file, and whether the budget is spent, unless it had ended so before.
    pub(crate) fn end(&mut self, ended: Ended, config: &serde_json::Value, is_spent: bool) -> Result<()> {
        if self.manifest.ended.as_ref().is_some_and(|before| *before == Ended { at: before.at, ..ended.clone() }) {
            return Ok(());
        }
        self.manifest.goes_on_with(config);
        // One that was to be written anew, and was not, is still cut; so is one that an error kept from going on.
        if self.reopened.is_none() && (is_spent || ended.error.is_none()) {
            self.manifest.cut = is_spent.then_some(ended.evaluations);
        }
        self.manifest.ended = Some(ended);
        self.manifest.format_version = FORMAT_VERSION;
        self.write_manifest()
    }

    /// The last iteration is to be written anew, with the queries that follow from it.
    pub(crate) fn reopen(&mut self) {
        self.reopened = self.iterations.pop().map(|iteration| Reopened { iteration, results: false, queries: false });
    }

    /// Replaces the results of a committed iteration, at once for all who read it.
    pub(crate) fn amend(&mut self, iteration: u32, scored: &DataFrame) -> Result<()> {
        if !self.manifest.amended {
            self.manifest.amended = true;
            self.write_manifest()?;
        }
        let before = self.results(iteration)?;
        let is_last = self.iterations.last() == Some(&iteration);
        let last = self.columns.clone().unwrap_or_default();
        // Columns that the last iteration does not have would be in the way of reading them together; it may get parts.
        let may_be = |name: &&str| before.column(name).is_ok() || last.contains(name) || is_last && *name != OUTCOME;
        let columns = schema::column_names(scored).into_iter().filter(may_be).map(str::to_string);
        let scored = scored.select(columns).wrap_err("log")?;
        write_parquet(&self.tmp(), &self.file("results", iteration), &scored)?;
        if is_last {
            self.columns = Some(scored.schema().clone());
        }
        Ok(())
    }

    fn write_manifest(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.manifest).wrap_err("run.json")?;
        let path = self.path.join("run.json");
        atomic::publish_file(&self.tmp(), &path, |file| {
            use std::io::Write;
            writeln!(file, "{text}").at_path(&path)
        })
    }

    /// Publishes the queries of an iteration, unless they are there already.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn append_queries(&mut self, iteration: u32, queries: &DataFrame) -> Result<()> {
        let is_anew = |reopened: &Reopened| reopened.iteration < iteration && !reopened.queries;
        if self.reopened.as_ref().is_some_and(is_anew) || !self.has_queries(iteration) {
            self.publish("queries", iteration, queries)?;
            self.is_anew(|reopened| reopened.queries |= reopened.iteration < iteration);
        }
        Ok(())
    }

    /// Notes what is written anew.
    fn is_anew(&mut self, note: impl FnOnce(&mut Reopened)) {
        if let Some(reopened) = &mut self.reopened {
            note(reopened);
        }
        self.reopened = self.reopened.take().filter(|reopened| !(reopened.results && reopened.queries));
    }

    /// Commits an iteration: its scored frame, without embeddings.
    ///
    /// # Errors
    /// An iteration that is not after the last one; other columns than the one before has, but for parts of
    /// the score that show for the first time; a folder that cannot be written.
    pub fn append(&mut self, iteration: u32, scored: &DataFrame) -> Result<()> {
        if let Some(last) = self.iterations.last().filter(|last| **last >= iteration) {
            return Err(Error::input(
                &self.path,
                format!("iteration {iteration} comes after {last}, which is committed"),
            ));
        }
        let scored = scored.drop(EMBEDDING).wrap_err("log")?;
        let columns = scored.schema();
        if let Some(before) = self.columns.as_ref().filter(|before| !continues(before, columns)) {
            let describe = |schema: &SchemaRef| {
                schema.iter().map(|(name, dtype)| format!("{name} {dtype}")).collect::<Vec<_>>().join(", ")
            };
            return Err(Error::contract("log", "columns", describe(before), describe(columns)).in_iteration(iteration));
        }
        self.publish("results", iteration, &scored)?;
        self.is_anew(|reopened| reopened.results |= reopened.iteration == iteration);
        self.columns = Some(columns.clone());
        self.iterations.push(iteration);
        Ok(())
    }

    fn partition(&self, kind: &str, iteration: u32) -> PathBuf {
        self.path.join(kind).join(format!("{ITERATION}={iteration:06}"))
    }

    /// The one file of a partition.
    fn file(&self, kind: &str, iteration: u32) -> PathBuf {
        self.partition(kind, iteration).join("part-0000.parquet")
    }

    fn publish(&self, kind: &str, iteration: u32, frame: &DataFrame) -> Result<()> {
        if self.lock.is_none() {
            return Err(Error::input(&self.path, "is open for reading only"));
        }
        if self.reopened.is_some() && self.partition(kind, iteration).exists() {
            return write_parquet(&self.tmp(), &self.file(kind, iteration), frame);
        }
        let aside = self.tmp().join(format!("{kind}-{iteration:06}"));
        atomic::create_dir(&aside)?;
        write_parquet(&self.tmp(), &aside.join("part-0000.parquet"), frame)?;
        atomic::publish(&aside, &self.partition(kind, iteration))
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
}

/// The path of a folder. Refuses one on an object store: no lock there dies with its process, and no rename is whole.
fn on_a_disk(path: &Path) -> Result<PathBuf> {
    match is_remote(path) {
        true => Err(Error::input(
            path,
            "a run folder is on a disk, local or shared; copy it to the store when the run has ended",
        )),
        false => local_path(path),
    }
}

/// Whether one iteration's columns may follow another's: the same, or with more parts of the score. (A scorer
/// shows its parts with the first item that does not fail; format 1 has no outcomes.)
fn continues(before: &Schema, columns: &Schema) -> bool {
    let mut old = before.iter().peekable();
    let may_come = |(name, dtype): (&PlSmallStr, &DataType)| *dtype == DataType::Float64 || name == OUTCOME;
    columns.iter().all(|column| old.next_if_eq(&column).is_some() || may_come(column)) && old.next().is_none()
}

/// The numbers of the partitions in a folder, in order.
fn committed(folder: &Path) -> Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).at_path(folder)? {
        let name = entry.at_path(folder)?.file_name();
        let number: Option<u32> =
            name.to_str().and_then(|name| name.strip_prefix("iteration=")).and_then(|digits| digits.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Writes a frame as one durable Parquet file, through `tmp`.
pub(crate) fn write_parquet(tmp: &Path, target: &Path, frame: &DataFrame) -> Result<()> {
    let batch = convert::to_arrow(frame)?;
    let compression = match batch.num_rows() {
        // In small files, of which there may be very many, most of the time goes into what zstd sets up for each column,
        // when they are written and whenever they are read.
        0..1024 => Compression::SNAPPY,
        _ => Compression::ZSTD(ZstdLevel::default()),
    };
    let mut properties = WriterProperties::builder()
        .set_compression(compression)
        // Numbers seldom repeat: looking for those that do costs more than it saves.
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(concat!("uphill ", env!("CARGO_PKG_VERSION")).into());
    for field in batch.schema().fields() {
        let name = field.name().clone();
        properties = match field.data_type() {
            ArrowType::LargeUtf8 => properties.set_column_dictionary_enabled(vec![name].into(), true),
            // Vectors do not compress.
            ArrowType::FixedSizeList(inner, _) => {
                let path = ColumnPath::new(vec![name, "list".into(), inner.name().clone()]);
                properties.set_column_compression(path, Compression::UNCOMPRESSED)
            }
            _ => properties,
        };
    }
    let properties = properties.build();
    atomic::publish_file(tmp, target, |file| {
        let failed = |error: parquet::errors::ParquetError| match error {
            parquet::errors::ParquetError::External(source) => match source.downcast::<std::io::Error>() {
                Ok(cause) => Error::Io { path: target.into(), cause: *cause },
                Err(other) => Error::input(target, other.to_string()),
            },
            other => Error::input(target, other.to_string()),
        };
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).map_err(failed)?;
        writer.write(&batch).map_err(failed)?;
        writer.close().map_err(failed)?;
        Ok(())
    })
}
