//! What to build: the options of [`index`](super::index) and what it tells.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::ann::IndexKind;
use crate::database::Metric;

/// How to read the items and what to build.
#[derive(Clone, Default)]
pub struct IndexOptions {
    /// The column of embeddings; found by itself where only one is a list of floats.
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
    /// Set from outside to stop; nothing is left behind.
    pub stop: Option<Arc<AtomicBool>>,
}

/// How far an index build is.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// Rows read, of how many.
    Rows(u64, u64),
    /// All rows are written; the index of so many partitions is being built.
    Building(usize),
}
