//! Builds a Lance dataset and its ANN index from Parquet: streamed, validated, and published atomically.

mod build;
mod calibrate;
mod columns;
mod content_hash;
mod embeddings;
mod files;
mod hints;
mod kind;
mod options;
mod row_source;
mod supertype;
mod training;
mod unified_schema;
mod valid_rows;

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatchReader;
use lance::Dataset;
use lance::dataset::{WriteMode, WriteParams};
use lance::session::Session;

use self::calibrate::calibrate;
pub use self::embeddings::InvalidRows;
pub(crate) use self::files::find_files;
pub use self::kind::{AUTO_INDEX_MIN_ROWS, AUTO_RQ_MIN_ROWS, IndexKind};
pub use self::options::{IndexOptions, IndexProgress};
use self::row_source::RowSource;
use self::valid_rows::ValidRows;
use crate::database::{
    self, LanceDatabase, LocalPath, META_LIBRARY, META_METRIC, META_STATE, Metric, RecallTable, block_on, check_uri,
    dataset_exists, is_remote, library_state, local_path,
};
use crate::error::{Error, Result, WrapErr};
use crate::interrupt::Interrupt;
use crate::io::atomic;
use crate::panics::catch_at_path;

/// The size of Lance's index cache and metadata cache during a build. They are small, because nothing is read twice.
const BUILD_CACHE_BYTES: usize = 64 << 20;

/// The result of an index build.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct IndexReport {
    /// The number of items in the dataset.
    pub rows: u64,
    /// The number of components of an embedding.
    pub dim: usize,
    /// The kind of index that was built, never `Auto`.
    pub index: IndexKind,
    /// The number of IVF partitions, if an index was built.
    pub partitions: Option<usize>,
    /// The measured recall of the index, if one was built.
    pub recall: Option<RecallTable>,
    /// The invalid rows that were dropped.
    pub invalid: InvalidRows,
}

/// Builds a Lance dataset from Parquet files: one file, a glob, or a folder (all
/// `.parquet` files below it), in the order of their sorted paths.
///
/// Memory use does not grow with the number of rows. `db_idx` is the position among the
/// valid rows. Embeddings (fixed-size lists, lists or large lists of numbers)
/// become fixed-size lists of f32 in a column named `embedding`. The dataset appears
/// under its name only when it is complete.
///
/// Items and dataset may be on an object store (`s3://bucket/…`). Items are first copied to the folder for temporary files.
/// A dataset is built there and then copied, its manifest last.
///
/// # Errors
/// A file that does not exist; files with different columns (different types are widened to a common one); a reserved column
/// name; invalid rows (unless `skip_invalid`); a dataset that exists (unless `overwrite`).
pub fn index(items: impl AsRef<Path>, dataset: impl AsRef<Path>, options: &IndexOptions) -> Result<IndexReport> {
    let items = items.as_ref();
    build_and_publish(dataset.as_ref(), options, |metric| {
        let local = LocalPath::fetch_until(items, &Interrupt::new(options.stop.clone()))?;
        let files = find_files(local.path())?;
        Ok((catch_at_path(items, || ValidRows::open(RowSource::files(files, options)?, metric, options))?, Some(local)))
    })
}

/// As [`index`], from a table: batches in memory, or an Arrow stream of another library. The table is read once, in order, and
/// is not copied as a whole.
///
/// # Errors
/// As [`index`].
pub fn index_table(
    table: impl RecordBatchReader + Send + 'static,
    dataset: impl AsRef<Path>,
    options: &IndexOptions,
) -> Result<IndexReport> {
    build_and_publish(dataset.as_ref(), options, |metric| {
        Ok((ValidRows::open(RowSource::table(Box::new(table), options)?, metric, options)?, None))
    })
}

/// Builds a dataset from rows, and publishes it under its name when it is complete. Temporary copies of the input are kept until
/// then.
fn build_and_publish(
    dataset: &Path,
    options: &IndexOptions,
    rows: impl FnOnce(Metric) -> Result<(ValidRows, Option<LocalPath>)>,
) -> Result<IndexReport> {
    let metric = options.metric.unwrap_or(Metric::L2);
    let interrupt = Interrupt::new(options.stop.clone());
    let dataset = &local_path(dataset)?;
    let is_remote = is_remote(dataset);
    if is_remote {
        check_vacant(dataset, options)?;
    }
    let (rows, _items) = rows(metric)?;
    options.index.check_dim(rows.dim)?;
    if is_remote {
        // Build locally, then copy, so that no process opens an incomplete dataset.
        let folder = tempfile::tempdir().wrap_err("creating a temporary folder")?;
        let target = folder.path().join("dataset.lance");
        let report = build(rows, &target, metric, options, &interrupt)?;
        database::publish_dataset(&target, &dataset.to_string_lossy(), &interrupt)?;
        return Ok(report);
    }

    let partial = atomic::StagingDir::create(dataset)?;
    // Check under the lock, because another process may have built the dataset.
    if dataset.exists() && !options.overwrite {
        return Err(Error::input(dataset, "already exists; choose another name, or replace it with --overwrite"));
    }
    if dataset.exists() && !dataset.join("_versions").is_dir() {
        let reason = "is not a Lance dataset, and --overwrite replaces only Lance datasets; choose another name";
        return Err(Error::input(dataset, reason));
    }
    let target = partial.path().join("dataset.lance");
    let report = build(rows, &target, metric, options, &interrupt)?;
    partial.publish(&target, &|| interrupt.check())?;
    Ok(report)
}

/// Rejects a location on an object store that contains a dataset.
fn check_vacant(dataset: &Path, options: &IndexOptions) -> Result<()> {
    check_uri(dataset)?;
    if !dataset_exists(&dataset.to_string_lossy()).map_err(|error| error.with_path(dataset))? {
        return Ok(());
    }
    let reason = match options.overwrite {
        true => {
            "already exists, and --overwrite does not replace datasets on an object store, because runs may have pinned them"
        }
        false => "already exists",
    };
    Err(Error::input(dataset, format!("{reason}; choose another name")))
}

/// Writes the rows, builds the index, measures its recall and computes features, at a local path.
fn build(
    rows: ValidRows,
    target: &Path,
    metric: Metric,
    options: &IndexOptions,
    interrupt: &Interrupt,
) -> Result<IndexReport> {
    let (summary, dim) = (rows.summary.clone(), rows.dim);
    let session = Some(Arc::new(Session::new(BUILD_CACHE_BYTES, BUILD_CACHE_BYTES, Arc::default())));
    let params = WriteParams { mode: WriteMode::Create, enable_stable_row_ids: true, session, ..Default::default() };
    let uri = target.to_string_lossy().into_owned();
    let written = block_on(async move { Dataset::write(rows, uri.as_str(), Some(params)).await })?;
    let summary = std::mem::take(&mut *summary.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    if let Some(error) = summary.error {
        return Err(error);
    }
    let mut dataset = written.wrap_err(target.display())?;
    interrupt.check()?;

    let index = options.index.plan(summary.valid, dim, options.partitions)?;
    let partitions = index.map(|index| index.partitions);
    if let (Some(partitions), Some(progress)) = (partitions, &options.progress) {
        progress(IndexProgress::Building(partitions));
    }
    let (library_id, state) = (summary.library_id, library_state(&dataset));
    let metadata = [(META_METRIC, metric.to_string()), (META_LIBRARY, library_id), (META_STATE, state)];
    let dataset = block_on(async move {
        dataset.update_metadata(metadata.iter().map(|(key, value)| (*key, value.as_str()))).await?;
        Ok::<_, lance::Error>(dataset)
    })?
    .wrap_err(target.display())?;
    let mut recall = None;
    if let Some(index) = index {
        index.build(dataset, target, metric, summary.valid, dim, interrupt)?;
        let path = target.to_path_buf();
        recall = interrupt.run(move || calibrate(&path))?;
    }
    let uri = target.to_string_lossy().into_owned();
    interrupt.run(move || LanceDatabase::open(uri)?.compute_features())?;
    let index = index.map_or(IndexKind::None, |index| index.kind);
    Ok(IndexReport { rows: summary.valid, dim, index, partitions, recall, invalid: summary.invalid })
}
