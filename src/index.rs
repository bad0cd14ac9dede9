//! Parquet ⇒ Lance dataset + ANN index: streamed, validated, all or nothing.

mod ann;
mod build;
mod calibrate;
mod columns;
mod content;
mod files;
mod learn;
mod options;
mod remedy;
mod rows;
mod shape;
mod source;
mod vectors;
mod widen;

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatchReader;
use lance::Dataset;
use lance::dataset::{WriteMode, WriteParams};
use lance::session::Session;

pub use self::ann::{EXACT_BELOW, IndexKind, RQ_FROM};
use self::calibrate::calibrate;
pub(crate) use self::files::find_files;
pub use self::options::{IndexOptions, Progress};
use self::rows::Rows;
use self::source::Source;
pub use self::vectors::Invalid;
use crate::database::{
    self, LanceDatabase, LocalPath, META_LIBRARY, META_METRIC, META_STATE, Metric, RecallTable, block_on, check_uri,
    dataset_exists, is_remote, library_state, local_path,
};
use crate::error::{Error, Result, WrapErr};
use crate::interrupt::Interrupt;
use crate::io::atomic;
use crate::panics::catch_at_path;

/// Lance's caches while it builds, of index and of metadata: nothing is read twice.
const BUILD_CACHE_BYTES: usize = 64 << 20;

/// What was built.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct IndexReport {
    /// Items in the dataset.
    pub rows: u64,
    /// Components of an embedding.
    pub dim: usize,
    /// What was built: never `Auto`.
    pub index: IndexKind,
    /// IVF partitions, if an index was built.
    pub partitions: Option<usize>,
    /// What the index finds for how much looking, if one was built.
    pub recall: Option<RecallTable>,
    /// Rows that were left out.
    pub invalid: Invalid,
}

/// Builds a Lance dataset from Parquet files: one file, a glob, or a folder (all
/// `.parquet` files below it), in the order of their sorted paths.
///
/// Memory does not grow with the number of rows. `db_idx` is the position among the
/// kept rows. Embeddings (fixed-size lists, lists or large lists of numbers)
/// become fixed-size lists of f32 in a column named `embedding`. The dataset appears
/// under its name when it is complete, or not at all.
///
/// Items and dataset may be on an object store (`s3://bucket/…`): items are copied to the folder for temporary files
/// first; a dataset is built there and then copied, its manifest last.
///
/// # Errors
/// No such file, files of different columns (types are widened, where one holds the values of all), a reserved column name, invalid rows
/// (unless `skip_invalid`), a dataset that is there already (unless `overwrite`).
pub fn index(items: impl AsRef<Path>, dataset: impl AsRef<Path>, options: &IndexOptions) -> Result<IndexReport> {
    let items = items.as_ref();
    publish(dataset.as_ref(), options, |metric| {
        let local = LocalPath::fetch_until(items, &Interrupt::new(options.stop.clone()))?;
        let files = find_files(local.path())?;
        Ok((catch_at_path(items, || Rows::open(Source::files(files, options)?, metric, options))?, Some(local)))
    })
}

/// As [`index`], of a table, which is read once, in order, and not copied as a whole: of batches in memory, of what another
/// library hands over as an Arrow stream.
///
/// # Errors
/// As [`index`].
pub fn index_table(
    table: impl RecordBatchReader + Send + 'static,
    dataset: impl AsRef<Path>,
    options: &IndexOptions,
) -> Result<IndexReport> {
    publish(dataset.as_ref(), options, |metric| {
        Ok((Rows::open(Source::table(Box::new(table), options)?, metric, options)?, None))
    })
}

/// Builds a dataset of rows, under its name when it is complete. What the rows are read from stays until then.
fn publish(
    dataset: &Path,
    options: &IndexOptions,
    rows: impl FnOnce(Metric) -> Result<(Rows, Option<LocalPath>)>,
) -> Result<IndexReport> {
    let metric = options.metric.unwrap_or(Metric::L2);
    let interrupt = Interrupt::new(options.stop.clone());
    let dataset = &local_path(dataset)?;
    let is_remote = is_remote(dataset);
    if is_remote {
        check_free(dataset, options)?;
    }
    let (rows, _items) = rows(metric)?;
    options.index.check_dim(rows.dim)?;
    if is_remote {
        // Built here, then copied: nobody sees it before it is whole.
        let folder = tempfile::tempdir().wrap_err("a folder to build in")?;
        let target = folder.path().join("dataset.lance");
        let report = build(rows, &target, metric, options, &interrupt)?;
        database::publish_dataset(&target, &dataset.to_string_lossy(), &interrupt)?;
        return Ok(report);
    }

    let partial = atomic::StagingDir::create(dataset)?;
    // Under the lock: another process may just have built it.
    if dataset.exists() && !options.overwrite {
        return Err(Error::input(dataset, "already exists; choose another name, or replace it with --overwrite"));
    }
    if dataset.exists() && !dataset.join("_versions").is_dir() {
        let reason = "is not a Lance dataset, and --overwrite replaces no other; choose another name";
        return Err(Error::input(dataset, reason));
    }
    let target = partial.path().join("dataset.lance");
    let report = build(rows, &target, metric, options, &interrupt)?;
    partial.publish(&target, &|| interrupt.check())?;
    Ok(report)
}

/// Refuses a place on an object store where a dataset is.
fn check_free(dataset: &Path, options: &IndexOptions) -> Result<()> {
    check_uri(dataset)?;
    if !dataset_exists(&dataset.to_string_lossy()).map_err(|error| error.with_path(dataset))? {
        return Ok(());
    }
    let reason = match options.overwrite {
        true => "already exists, and --overwrite replaces none on an object store, where runs may have pinned it",
        false => "already exists",
    };
    Err(Error::input(dataset, format!("{reason}; choose another name")))
}

fn build(
    rows: Rows,
    target: &Path,
    metric: Metric,
    options: &IndexOptions,
    interrupt: &Interrupt,
) -> Result<IndexReport> {
    let (outcome, dim) = (rows.outcome.clone(), rows.dim);
    let session = Some(Arc::new(Session::new(BUILD_CACHE_BYTES, BUILD_CACHE_BYTES, Arc::default())));
    let params = WriteParams { mode: WriteMode::Create, enable_stable_row_ids: true, session, ..Default::default() };
    let uri = target.to_string_lossy().into_owned();
    let written = block_on(async move { Dataset::write(rows, uri.as_str(), Some(params)).await })?;
    let outcome = std::mem::take(&mut *outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    if let Some(error) = outcome.error {
        return Err(error);
    }
    let mut dataset = written.wrap_err(target.display())?;
    interrupt.check()?;

    let index = options.index.plan(outcome.kept, dim, options.partitions)?;
    let partitions = index.map(|index| index.partitions);
    if let (Some(partitions), Some(progress)) = (partitions, &options.progress) {
        progress(Progress::Building(partitions));
    }
    let (library_id, state) = (outcome.library_id, library_state(&dataset));
    let metadata = [(META_METRIC, metric.to_string()), (META_LIBRARY, library_id), (META_STATE, state)];
    let dataset = block_on(async move {
        dataset.update_metadata(metadata.iter().map(|(key, value)| (*key, value.as_str()))).await?;
        Ok::<_, lance::Error>(dataset)
    })?
    .wrap_err(target.display())?;
    let mut recall = None;
    if let Some(index) = index {
        index.build(dataset, target, metric, outcome.kept, dim, interrupt)?;
        let path = target.to_path_buf();
        recall = interrupt.run(move || calibrate(&path))?;
    }
    let uri = target.to_string_lossy().into_owned();
    interrupt.run(move || LanceDatabase::open(uri)?.compute_features())?;
    let index = index.map_or(IndexKind::None, |index| index.kind);
    Ok(IndexReport { rows: outcome.kept, dim, index, partitions, recall, invalid: outcome.invalid })
}
