//! The run folder: plain Parquet, an iteration at a time, that any engine reads.
//!
//! ```text
//! RUN/
//!   run.json                                      what was asked, and how it ended
//!   queries/iteration=000000/part-0000.parquet    the queries frame
//!   results/iteration=000000/part-0000.parquet    the scored frame, without embeddings
//!   ledger/batch-000000.parquet                   what was paid for, batch by batch
//!   lock  tmp/
//! ```
//!
//! The rename of `results/iteration=t` is the only commit: an iteration exists if and only
//! if that folder does. Everything is written and fsynced in `tmp/`, then renamed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use polars::prelude::*;
use serde::{Deserialize, Serialize};

use crate::bridge;
use crate::database::Identity;
use crate::error::{AtPath, Doing, Error, Result};
use crate::folder;
use crate::schema::{DB_IDX, DISTANCE, EMBEDDING, ITERATION, QUERY_IDX, SCORE};
use crate::untrusted::{caught, check_counts, read_parquet};

/// The layout described above. A folder of a later one is refused with a message.
pub const FORMAT_VERSION: u32 = 1;

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
    pub dataset: Option<Identity>,
    /// The resolved run file; null for runs started through the Rust API.
    pub config: serde_json::Value,
    /// Seconds since 1970.
    pub started: u64,
    /// Absent while the run goes on, or was killed.
    pub ended: Option<Ended>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Why.
    pub reason: StopReason,
    /// Committed iterations.
    pub iterations: u32,
    /// Distinct items asked.
    pub evaluations: u64,
    /// Items met whose score was paid for before.
    #[serde(default)]
    pub reused: u64,
    /// Items that have no score.
    #[serde(default)]
    pub failed: u64,
    /// How often an item was asked again, as its first answer did not come.
    #[serde(default)]
    pub asked_again: u64,
    /// Seconds since 1970.
    pub at: u64,
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// As many iterations as asked.
    Iterations,
    /// As many items as the budget allows.
    Evaluations,
    /// No new item for as many iterations as asked.
    NothingNew,
    /// As long as asked.
    Seconds,
    /// The score asked for was reached.
    Score,
    /// A signal.
    Interrupted,
}

/// A run folder, open for appending by one process or for reading by any.
pub struct SearchLog {
    path: PathBuf,
    manifest: Manifest,
    iterations: Vec<u32>,
    columns: Option<SchemaRef>,
    lock: Option<File>,
    temporary: Option<tempfile::TempDir>,
}

impl SearchLog {
    /// Starts a run in a folder that does not exist yet, or is empty.
    ///
    /// # Errors
    /// A folder with something in it.
    pub fn create(path: impl AsRef<Path>, manifest: Manifest) -> Result<Self> {
        let path = path.as_ref();
        fs::create_dir_all(path).at_path(path)?;
        if fs::read_dir(path).at_path(path)?.next().is_some() {
            let reason = match path.join("run.json").exists() {
                true => "already holds a run; go on with it (--resume), or choose another folder",
                false => "is not empty and not a run folder; choose another",
            };
            return Err(Error::input(path, reason));
        }
        let lock = folder::lock(path)?;
        for name in ["tmp", "queries", "results", "ledger"] {
            fs::create_dir(path.join(name)).at_path(path.join(name))?;
        }
        let log = SearchLog {
            path: path.into(),
            manifest,
            iterations: Vec::new(),
            columns: None,
            lock: Some(lock),
            temporary: None,
        };
        log.write_manifest()?;
        folder::sync_dir(path)?;
        folder::sync_dir(folder::parent(path))?;
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

    /// Opens a run folder for reading; another process may be writing it.
    ///
    /// # Errors
    /// No run folder there, or one of a later format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let manifest = read_manifest(path)?;
        let iterations = committed(&path.join("results"))?;
        Ok(SearchLog { path: path.into(), manifest, iterations, columns: None, lock: None, temporary: None })
    }

    /// Opens a run folder for appending.
    ///
    /// # Errors
    /// As [`SearchLog::open`]; another process that writes to it.
    pub fn resume(path: impl AsRef<Path>) -> Result<Self> {
        let mut log = Self::open(&path)?;
        log.lock = Some(folder::lock(path.as_ref())?);
        // Whatever a killed process was writing. The committed is read again under the lock.
        let tmp = log.path.join("tmp");
        fs::remove_dir_all(&tmp)
            .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
            .at_path(&tmp)?;
        fs::create_dir(&tmp).at_path(&tmp)?;
        log.iterations = committed(&log.path.join("results"))?;
        if let Some(first) = log.iterations.first() {
            log.columns = Some(log.results(*first)?.schema().clone());
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
    pub fn check_dataset(&self, now: Option<&Identity>) -> Result<()> {
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

    pub(crate) fn update_manifest(&mut self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        change(&mut self.manifest);
        self.write_manifest()
    }

    fn write_manifest(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.manifest).doing("run.json")?;
        let path = self.path.join("run.json");
        folder::publish_file(&self.tmp(), &path, |file| {
            use std::io::Write;
            writeln!(file, "{text}").at_path(&path)
        })
    }

    /// Publishes the queries of an iteration, unless they are there already.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn append_queries(&mut self, iteration: u32, queries: &DataFrame) -> Result<()> {
        if self.partition("queries", iteration).exists() {
            return Ok(());
        }
        self.publish("queries", iteration, queries)
    }

    /// Commits an iteration: its scored frame, without embeddings.
    ///
    /// # Errors
    /// An iteration that is not after the last one; other columns than the first one's; a folder
    /// that cannot be written.
    pub fn append(&mut self, iteration: u32, scored: &DataFrame) -> Result<()> {
        if let Some(last) = self.iterations.last().filter(|last| **last >= iteration) {
            return Err(Error::input(
                &self.path,
                format!("iteration {iteration} comes after {last}, which is committed"),
            ));
        }
        let scored = scored.drop(EMBEDDING).doing("log")?;
        let columns = scored.schema();
        let first = self.columns.get_or_insert_with(|| columns.clone());
        if first != columns {
            let describe = |schema: &SchemaRef| {
                schema.iter().map(|(name, dtype)| format!("{name} {dtype}")).collect::<Vec<_>>().join(", ")
            };
            return Err(Error::contract("log", "columns", describe(first), describe(columns)).at(iteration));
        }
        self.publish("results", iteration, &scored)?;
        self.iterations.push(iteration);
        Ok(())
    }

    fn partition(&self, kind: &str, iteration: u32) -> PathBuf {
        self.path.join(kind).join(format!("{ITERATION}={iteration:06}"))
    }

    fn publish(&self, kind: &str, iteration: u32, frame: &DataFrame) -> Result<()> {
        if self.lock.is_none() {
            return Err(Error::input(&self.path, "is open for reading only"));
        }
        let aside = self.tmp().join(format!("{kind}-{iteration:06}"));
        fs::create_dir_all(&aside).at_path(&aside)?;
        write_parquet(&aside, &aside.join("part-0000.parquet"), frame)?;
        let target = self.partition(kind, iteration);
        fs::rename(&aside, &target).at_path(&target)?;
        folder::sync_dir(&self.path.join(kind))
    }

    /// The queries frame of an iteration.
    ///
    /// # Errors
    /// No such iteration.
    pub fn queries(&self, iteration: u32) -> Result<DataFrame> {
        read_parquet(self.partition("queries", iteration).join("part-0000.parquet"))
    }

    pub(crate) fn has_queries(&self, iteration: u32) -> bool {
        self.partition("queries", iteration).exists()
    }

    /// The scored frame of an iteration, without embeddings.
    ///
    /// # Errors
    /// No such iteration.
    pub fn results(&self, iteration: u32) -> Result<DataFrame> {
        read_parquet(self.partition("results", iteration).join("part-0000.parquet"))
    }

    /// Everything that was met, as logged: the scored frames of all iterations, with `iteration`.
    /// `None` while no iteration is committed.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn scan_results(&self) -> Result<Option<LazyFrame>> {
        self.scan("results")
    }

    /// All query vectors of the committed iterations, with `iteration`.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn scan_queries(&self) -> Result<Option<LazyFrame>> {
        self.scan("queries")
    }

    fn scan(&self, kind: &str) -> Result<Option<LazyFrame>> {
        if self.iterations.is_empty() {
            return Ok(None);
        }
        let ahead =
            self.iterations.last().map(|last| last + 1).filter(|next| kind == "queries" && self.has_queries(*next));
        for iteration in self.iterations.iter().copied().chain(ahead) {
            check_counts(&self.partition(kind, iteration).join("part-0000.parquet"))?;
        }
        let partition = Schema::from_iter([Field::new(ITERATION.into(), DataType::UInt32)]);
        let hive_options = HiveOptions { enabled: Some(true), schema: Some(partition.into()), ..Default::default() };
        let args = ScanArgsParquet { hive_options, glob: false, ..Default::default() };
        // The folder, not its files: a `key=value` in the path to the run is then not taken for a column.
        let folder = PlRefPath::new(format!("{}/", self.path.join(kind).display()));
        let frame = LazyFrame::scan_parquet(folder, args).doing(self.path.display())?;
        // Queries are published before their results are.
        let last = self.iterations.last().copied().unwrap_or_default();
        let frame = frame.filter(col(ITERATION).lt_eq(lit(last)));
        Ok(Some(frame))
    }

    /// One row per item, as it was first met, best score first (nulls last, ties by `db_idx`):
    /// `db_idx`, attributes, `score`, `reason`, `evaluation`, `iteration`. Without `query_idx` and `distance`.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn compile_results(&self) -> Result<LazyFrame> {
        let Some(results) = self.scan_results()? else { return Ok(empty(&[DB_IDX, SCORE, ITERATION])) };
        // The scored before the failed: an item that failed first may have been tried again.
        let failed = results.clone().filter(col(SCORE).is_null());
        let results =
            concat([results.filter(col(SCORE).is_not_null()), failed], UnionArgs::default()).doing("results")?;
        Ok(results
            .unique_stable(Some(by_name([DB_IDX], true, false)), UniqueKeepStrategy::First)
            .drop(by_name([QUERY_IDX, DISTANCE], true, false))
            .sort(
                [SCORE, DB_IDX],
                SortMultipleOptions::default().with_order_descending_multi([true, false]).with_nulls_last(true),
            ))
    }

    /// The path of each query: `iteration`, `query_idx`, `parent_idx`, `collection_idx`, `embedding` and the
    /// lists `db_idx` and `score` of what it met there, in the order of the results (empty if nothing).
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn compile_trajectories(&self) -> Result<LazyFrame> {
        let (Some(queries), Some(results)) = (self.scan_queries()?, self.scan_results()?) else {
            return Ok(empty(&[QUERY_IDX, ITERATION]));
        };
        let keys = [col(ITERATION), col(QUERY_IDX)];
        let met = results.group_by_stable(keys.clone()).agg([col(DB_IDX), col(SCORE)]);
        let nothing = |name: &str, dtype: DataType| {
            let none = Series::new_empty(name.into(), &dtype).implode().map(|list| lit(list.into_series()).first());
            none.map(|none| col(name).fill_null(none)).doing("trajectories")
        };
        Ok(queries
            .join(met, keys.clone(), keys, JoinArgs::new(JoinType::Left))
            .with_columns([nothing(DB_IDX, DataType::UInt64)?, nothing(SCORE, DataType::Float64)?])
            .sort([QUERY_IDX, ITERATION], SortMultipleOptions::default()))
    }
}

/// Runs a query on Polars' streaming engine, which keeps memory low.
///
/// # Errors
/// Whatever the query runs into.
pub fn collect(query: LazyFrame) -> Result<DataFrame> {
    caught("running the query", || {
        query.collect_with_engine(Engine::Streaming).map(|result| result.unwrap_single()).doing("running the query")
    })
}

fn empty(names: &[&str]) -> LazyFrame {
    let columns = names.iter().map(|name| {
        let dtype = match *name {
            DB_IDX => DataType::UInt64,
            SCORE => DataType::Float64,
            _ => DataType::UInt32,
        };
        Column::new_empty((*name).into(), &dtype)
    });
    DataFrame::new(0, columns.collect()).unwrap_or_default().lazy()
}

fn read_manifest(path: &Path) -> Result<Manifest> {
    let file = path.join("run.json");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::input(path, "is not a run folder (it has no run.json)"));
        }
        Err(error) => return Err(error).at_path(&file),
    };
    let version: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| Error::input(&file, format!("damaged: {error}")))?;
    match (&version["format_version"], version["format_version"].as_u64()) {
        (_, Some(version)) if (1..=u64::from(FORMAT_VERSION)).contains(&version) => {}
        (_, Some(version)) if version > u64::from(FORMAT_VERSION) => {
            let reason =
                format!("has format version {version}; this program reads up to {FORMAT_VERSION}: use a later uphill");
            return Err(Error::input(path, reason));
        }
        (serde_json::Value::Null, _) => {
            return Err(Error::input(&file, "damaged: no format_version, or not a file of this program"));
        }
        (other, _) => {
            let reason = format!("damaged: expected a format_version from 1 to {FORMAT_VERSION}, found {other}");
            return Err(Error::input(&file, reason));
        }
    }
    serde_json::from_value(version).map_err(|error| Error::input(&file, format!("damaged: {error}")))
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
    let batch = bridge::to_arrow(frame)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(concat!("uphill ", env!("CARGO_PKG_VERSION")).into())
        .build();
    folder::publish_file(tmp, target, |file| {
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
