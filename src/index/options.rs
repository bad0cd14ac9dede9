//! What to build: the options of [`index`](super::index) and what it tells.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::ann::IndexKind;
use crate::database::Metric;

/// How to read the items and what to build.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct IndexOptions {
    /// The column of embeddings; found by itself where only one has lists of floats or, without any, of integers.
    pub embedding_column: Option<String>,
    /// What `distance` means (default L2).
    pub metric: Option<Metric>,
    /// The index (default [`IndexKind::Auto`]).
    pub index: IndexKind,
    /// IVF partitions; about sqrt(rows) where `None`, for `IvfPq` at most a partition for every 256
    /// rows, for `IvfHnswSq` one for every million. Half or twice as many change recall and time little:
    /// see [`LanceDatabase::nprobes`](crate::LanceDatabase::nprobes).
    pub partitions: Option<usize>,
    /// Attribute columns to rename, from and to.
    pub rename: Vec<(String, String)>,
    /// Drop invalid rows and report them, instead of refusing the input.
    pub skip_invalid: bool,
    /// Replace a dataset that is there.
    pub overwrite: bool,
    /// Told after each batch and phase.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    /// Set from outside to stop, as long as the dataset does not have its name; nothing is left behind then.
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

    /// What `distance` means.
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metric = Some(metric);
        self
    }

    /// The index.
    pub fn index(mut self, index: IndexKind) -> Self {
        self.index = index;
        self
    }

    /// IVF partitions.
    pub fn partitions(mut self, partitions: usize) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Renames an attribute column.
    pub fn rename(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.rename.push((from.into(), to.into()));
        self
    }

    /// Whether invalid rows are dropped.
    pub fn skip_invalid(mut self, skip_invalid: bool) -> Self {
        self.skip_invalid = skip_invalid;
        self
    }

    /// Whether a dataset that is there is replaced.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// What is told after each batch and phase.
    pub fn progress(mut self, progress: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// What stops it when it is set.
    pub fn stop(mut self, flag: Arc<AtomicBool>) -> Self {
        self.stop = Some(flag);
        self
    }
}

/// How far an index build is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress {
    /// Rows read, of how many.
    Rows(u64, u64),
    /// All rows are written; the index of so many partitions is being built.
    Building(usize),
}
