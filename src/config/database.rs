//! The `[database]` section: the library, and the settings of the vector search.

use serde::{Deserialize, Serialize};

use super::Config;
use crate::database::{LanceDatabase, Metric, OpenOptions, VectorDatabase};
use crate::error::{Error, Result};

/// The `[database]` section: the library, and the settings of the vector search.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DatabaseConfig {
    /// Path of the Lance dataset, or its URI on an object store: `s3://bucket/molecules.lance`.
    pub path: String,
    /// The column of embeddings, if there are several.
    pub embedding_column: Option<String>,
    /// A unique integer column to use as `db_idx`, for datasets without stable row ids.
    pub id_column: Option<String>,
    /// The distance metric, if the dataset does not record one.
    pub metric: Option<Metric>,
    /// The attribute columns to read (default: all that are not nested).
    pub columns: Option<Vec<String>>,
    /// Neighbours per query. The rule `surrogate` chooses the number itself.
    #[serde(default = "default_k")]
    pub k: usize,
    /// The target recall: the mean share of its nearest items that a query finds (default 0.99). 1 searches all items.
    pub recall: Option<f64>,
    /// The number of index partitions to search per query, in place of `recall`.
    pub nprobes: Option<usize>,
    /// Searches all items, without the index.
    #[serde(default)]
    pub exact: bool,
    /// A SQL condition that the vector search applies.
    pub prefilter: Option<String>,
    /// Drops neighbours with a larger distance from their query. The queries of the rule `surrogate` are at the best items so
    /// far.
    pub max_distance: Option<f32>,
    /// Megabytes of memory for the index, or for the embeddings if searches are exact. An index or a library that does not fit
    /// is read again in every iteration. The embeddings of a small library are cached if they fit. Attributes that are read
    /// repeatedly are cached, too, in up to a sixteenth of the memory. The size changes the speed of a search, not its results.
    #[serde(default = "default_index_cache_mb")]
    pub index_cache_mb: usize,
    /// Megabytes of memory for the dataset's metadata.
    #[serde(default = "default_metadata_cache_mb")]
    pub metadata_cache_mb: usize,
}

/// The default of `database.k`.
pub(super) const DEFAULT_K: usize = 10;

fn default_k() -> usize {
    DEFAULT_K
}

fn default_index_cache_mb() -> usize {
    384
}

fn default_metadata_cache_mb() -> usize {
    128
}

impl Config {
    /// Opens the dataset, at its latest version or at the given one.
    ///
    /// # Errors
    /// As [`LanceDatabase::open_with`].
    pub fn database(&self, version: Option<u64>) -> Result<LanceDatabase> {
        let config = &self.database;
        let options = OpenOptions {
            embedding_column: config.embedding_column.clone(),
            id_column: config.id_column.clone(),
            metric: config.metric,
            version,
            index_cache_bytes: config.index_cache_mb.saturating_mul(1 << 20),
            metadata_cache_bytes: config.metadata_cache_mb.saturating_mul(1 << 20),
            ..OpenOptions::default()
        };
        let mut database = LanceDatabase::open_with(&config.path, &options)?.k(config.k).exact(config.exact);
        if let Some(columns) = &config.columns {
            database = database.columns(columns)?;
        }
        if let Some(recall) = config.recall {
            if !(recall > 0.0 && recall <= 1.0) {
                let expected = "expected a share above 0 and up to 1";
                return Err(Error::Config(format!("database.recall: {expected}, found {recall}")));
            }
            database = database.recall(recall);
        }
        if let Some(nprobes) = config.nprobes {
            database = database.nprobes(nprobes);
        }
        if let Some(sql) = &config.prefilter {
            database = database.prefilter(sql);
        }
        if let Some(limit) = config.max_distance {
            let metric = database.metric();
            if limit.is_nan() || (limit < 0.0 && metric != Metric::Dot) {
                let expected = format!("expected a distance of at least 0 (the dataset's metric is {metric})");
                return Err(Error::Config(format!("database.max_distance: {expected}, found {limit}")));
            }
            database = database.max_distance(limit);
        }
        Ok(database)
    }
}
