//! The identity of a dataset: its version, rows and index. A run stores it, and checks it when it resumes.

use std::collections::HashSet;
use std::sync::Arc;

use lance::Dataset;
use lance::index::DatasetIndexExt;
use serde::{Deserialize, Serialize};

use crate::database::Metric;
use crate::database::runtime::block_on;
use crate::error::{Result, WrapErr};

/// The identity of an open dataset. A run stores it, and a resumed run checks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetIdentity {
    /// The path or URI.
    pub uri: String,
    /// The Lance version. A run pins it.
    pub version: u64,
    /// The time at which that version was committed, in microseconds since 1970.
    #[serde(default, rename = "committed")]
    pub commit_time: Option<i64>,
    /// The number of items: rows with an embedding, without deleted rows.
    pub rows: u64,
    /// The number of rows without an embedding, which are not items.
    #[serde(default)]
    pub without_embedding: u64,
    /// The number of components of an embedding.
    pub dim: usize,
    /// The metric of `distance`.
    pub metric: Metric,
    /// A hash of the content, if `uphill index` built the dataset. It changes if rows, columns or values change.
    pub library_id: Option<String>,
    /// The source of `db_idx`: `row id`, `row address` or the name of a column.
    pub ids: String,
    /// The ANN index on the embeddings, if there is one.
    pub index: Option<IndexInfo>,
}

impl DatasetIdentity {
    /// The size of all embeddings as f32, in bytes.
    pub(super) fn embedding_bytes(&self) -> usize {
        (self.rows as usize).saturating_mul(self.dim * size_of::<f32>())
    }

    /// The differences from this stored identity to the current one, a phrase for each, with both values. URIs are not compared.
    pub fn differences(&self, current: &DatasetIdentity) -> Vec<String> {
        let index = |identity: &DatasetIdentity| match &identity.index {
            Some(index) => format!("{} {} ({})", index.kind, index.name, index.uuids.join(", ")),
            None => "none".to_string(),
        };
        let library = |identity: &DatasetIdentity| identity.library_id.clone().unwrap_or_else(|| "none".into());
        // All rows: runs of earlier versions counted rows without an embedding as items.
        let rows = |identity: &DatasetIdentity| (identity.rows + identity.without_embedding).to_string();
        // A dataset that was built again from the same content is the same library. Without a content hash, the commit times are
        // compared.
        let commit_time =
            |identity: &DatasetIdentity| match (&self.library_id, &current.library_id, identity.commit_time) {
                (None, None, Some(time)) if self.commit_time.is_some() && current.commit_time.is_some() => {
                    time.to_string()
                }
                _ => "unknown".into(),
            };
        let pairs = [
            ("version", self.version.to_string(), current.version.to_string()),
            ("rows", rows(self), rows(current)),
            ("dim", self.dim.to_string(), current.dim.to_string()),
            ("metric", self.metric.to_string(), current.metric.to_string()),
            ("library id", library(self), library(current)),
            ("commit time", commit_time(self), commit_time(current)),
            ("ids", self.ids.clone(), current.ids.clone()),
            ("index", index(self), index(current)),
        ];
        let differing = pairs.into_iter().filter(|(_, stored, current)| stored != current);
        differing.map(|(name, stored, current)| format!("{name} was {stored}, is {current}")).collect()
    }
}

/// The ANN index on the embeddings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexInfo {
    /// The name in the dataset.
    pub name: String,
    /// The type: `IVF_FLAT`, `IVF_SQ`, …
    pub kind: String,
    /// The metric that it was built for.
    pub metric: Metric,
    /// The number of IVF partitions.
    pub partitions: usize,
    /// The number of rows that were added after the index was built. They are searched exactly.
    pub unindexed_rows: u64,
    /// The UUID of each segment.
    pub uuids: Vec<String>,
}

impl IndexInfo {
    /// Whether the index stores quantised codes, not vectors.
    pub(crate) fn has_codes(&self) -> bool {
        !self.kind.ends_with("FLAT")
    }
}

/// The part of a dataset that an index covers.
#[derive(Default)]
pub(super) struct IndexCoverage {
    /// The fragments that are not indexed.
    pub(super) unindexed_fragments: Vec<u64>,
    /// Whether the index contains every row of the other fragments. Then each of these rows has an embedding.
    pub(super) is_complete: bool,
    /// The size of the index files in bytes, if the dataset records it.
    pub(super) bytes: Option<u64>,
}

/// The IVF index on a column, if there is one, and its coverage.
pub(super) fn index_info(dataset: &Arc<Dataset>, column: &str) -> Result<Option<(IndexInfo, IndexCoverage)>> {
    let Some(field) = dataset.schema().field(column).map(|field| field.id) else { return Ok(None) };
    let owned = dataset.clone();
    let indices = block_on(async move { owned.load_indices().await })?.wrap_err("reading the indices")?;
    let Some(name) = indices.iter().find(|index| index.fields.first() == Some(&field)).map(|index| index.name.clone())
    else {
        return Ok(None);
    };
    let segments: Vec<_> = indices.iter().filter(|index| index.name == name).collect();
    let (owned, index_name) = (dataset.clone(), name.clone());
    let statistics =
        block_on(async move { owned.index_statistics(&index_name).await })?.wrap_err("reading the index")?;
    let statistics: serde_json::Value = serde_json::from_str(&statistics).wrap_err("reading the index")?;
    let kind = statistics["index_type"].as_str().unwrap_or_default();
    if !kind.starts_with("IVF") {
        return Ok(None);
    }
    let first = &statistics["indices"][0];
    let is_indexed = |fragment: u64| {
        let mut bitmaps = segments.iter().filter_map(|segment| segment.fragment_bitmap.as_ref());
        bitmaps.any(|bitmap| bitmap.contains(fragment as u32))
    };
    let (indexed, unindexed): (Vec<_>, Vec<_>) =
        dataset.fragments().iter().partition(|fragment| is_indexed(fragment.id));
    let unindexed_fragments = unindexed.iter().map(|fragment| fragment.id).collect();
    // An index is complete if it has an entry for each row, including deleted rows, and no entry of a deleted fragment.
    let rows: Option<u64> = indexed.iter().map(|fragment| Some(fragment.physical_rows? as u64)).sum();
    let partitions = statistics["indices"].as_array().into_iter().flatten();
    let partitions = partitions.flat_map(|segment| segment["partitions"].as_array().into_iter().flatten());
    let entries: Option<u64> = partitions.map(|partition| partition["size"].as_u64()).sum();
    let present: HashSet<u64> = indexed.iter().map(|fragment| fragment.id).collect();
    let mut indexed_fragments = segments.iter().filter_map(|segment| segment.fragment_bitmap.as_ref()).flatten();
    let all_present = indexed_fragments.all(|fragment| present.contains(&u64::from(fragment)));
    let bytes =
        segments.iter().map(|segment| Some(segment.files.as_ref()?.iter().map(|file| file.size_bytes).sum::<u64>()));
    let bytes = bytes.sum();
    let coverage =
        IndexCoverage { unindexed_fragments, is_complete: rows.is_some() && rows == entries && all_present, bytes };
    let info = IndexInfo {
        kind: kind.to_string(),
        metric: first["metric_type"].as_str().unwrap_or("l2").parse()?,
        partitions: first["num_partitions"].as_u64().unwrap_or(1) as usize,
        unindexed_rows: statistics["num_unindexed_rows"].as_u64().unwrap_or(0),
        uuids: segments.iter().map(|segment| segment.uuid.to_string()).collect(),
        name,
    };
    Ok(Some((info, coverage)))
}
