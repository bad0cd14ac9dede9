//! The options and the progress events of [`index`](super::index).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::kind::IndexKind;
use crate::database::Metric;

/// Options for reading the items and building the index.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct IndexOptions {
    /// The column of embeddings. By default, the only column with lists of floats or, if there is none, of integers.
    pub embedding_column: Option<String>,
    /// The metric of `distance` (default L2).
    pub metric: Option<Metric>,
    /// The kind of index (default [`IndexKind::Auto`]).
    pub index: IndexKind,
    /// The number of IVF partitions. The default is about sqrt(rows), for `IvfPq` at most one per 256
    /// rows, for `IvfHnswSq` one per million. Half or twice as many change recall and time little: see
    /// [`LanceDatabase::nprobes`](crate::LanceDatabase::nprobes).
    pub partitions: Option<usize>,
    /// Attribute columns to rename, as pairs of old and new name.
    pub rename: Vec<(String, String)>,
    /// Whether to drop and report invalid rows. By default they are an error.
    pub skip_invalid: bool,
    /// Whether to replace a dataset that exists.
    pub overwrite: bool,
    /// A callback that is called after each batch and phase.
    pub progress: Option<Arc<dyn Fn(IndexProgress) + Send + Sync>>,
    /// A flag that cancels the build when it is set. A cancelled build leaves no files. The flag is ignored once the dataset is
    /// published.
    pub stop: Option<Arc<AtomicBool>>,
}

impl IndexOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The column of embeddings.
    pub fn embedding_column(mut self, embedding_column: impl Into<String>) -> Self {
        self.embedding_column = Some(embedding_column.into());
        self
    }

    /// The metric of `distance`.
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metric = Some(metric);
        self
    }

    /// The kind of index.
    pub fn index(mut self, index: IndexKind) -> Self {
        self.index = index;
        self
    }

    /// The number of IVF partitions.
    pub fn partitions(mut self, partitions: usize) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Renames an attribute column.
    pub fn rename(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.rename.push((from.into(), to.into()));
        self
    }

    /// Whether to drop invalid rows.
    pub fn skip_invalid(mut self, skip_invalid: bool) -> Self {
        self.skip_invalid = skip_invalid;
        self
    }

    /// Whether to replace a dataset that exists.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// A callback that is called after each batch and phase.
    pub fn progress(mut self, progress: impl Fn(IndexProgress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// A flag that cancels the build when it is set.
    pub fn stop(mut self, flag: Arc<AtomicBool>) -> Self {
        self.stop = Some(flag);
        self
    }
}

/// The progress of an index build.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum IndexProgress {
    /// The number of rows read, and the number of all rows.
    Rows(u64, u64),
    /// All rows are written. The index with this number of partitions is being built.
    Building(usize),
}
