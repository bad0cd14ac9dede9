//! What makes a dataset the one a run started with: its version, its rows, its index.

use std::sync::Arc;

use lance::Dataset;
use lance::index::DatasetIndexExt;
use serde::{Deserialize, Serialize};

use crate::database::Metric;
use crate::database::runtime::on_runtime;
use crate::error::{Doing, Result};

/// What makes a dataset the one a run started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Where it is.
    pub uri: String,
    /// The Lance version, which a run pins.
    pub version: u64,
    /// When that version was committed, in microseconds since 1970.
    #[serde(default)]
    pub committed: Option<i64>,
    /// Items, without deleted ones.
    pub rows: u64,
    /// Components of an embedding.
    pub dim: usize,
    /// What `distance` means.
    pub metric: Metric,
    /// A hash of the content, where `uphill index` built it.
    pub library_id: Option<String>,
    /// Where `db_idx` comes from: `row id`, `row address` or the name of a column.
    pub ids: String,
    /// The index on the embeddings, if there is one.
    pub index: Option<IndexInfo>,
}

impl Identity {
    /// What differs, one phrase each, with both values. Where the dataset is does not count.
    pub fn differences(&self, now: &Identity) -> Vec<String> {
        let index = |identity: &Identity| match &identity.index {
            Some(index) => format!("{} {} ({})", index.kind, index.name, index.uuids.join(", ")),
            None => "none".to_string(),
        };
        let library = |identity: &Identity| identity.library_id.clone().unwrap_or_else(|| "none".into());
        // The same content, built again, is the same library; where the content has no hash, the time tells.
        let committed = |identity: &Identity| match (&self.library_id, &now.library_id, identity.committed) {
            (None, None, Some(at)) if self.committed.is_some() && now.committed.is_some() => at.to_string(),
            _ => "unknown".into(),
        };
        let pairs = [
            ("version", self.version.to_string(), now.version.to_string()),
            ("rows", self.rows.to_string(), now.rows.to_string()),
            ("dim", self.dim.to_string(), now.dim.to_string()),
            ("metric", self.metric.to_string(), now.metric.to_string()),
            ("library id", library(self), library(now)),
            ("commit time", committed(self), committed(now)),
            ("ids", self.ids.clone(), now.ids.clone()),
            ("index", index(self), index(now)),
        ];
        let differing = pairs.into_iter().filter(|(_, then, now)| then != now);
        differing.map(|(what, then, now)| format!("{what} was {then}, is {now}")).collect()
    }
}

/// The ANN index on the embeddings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexInfo {
    /// Its name in the dataset.
    pub name: String,
    /// `IVF_FLAT`, `IVF_SQ`, …
    pub kind: String,
    /// The metric it was built for.
    pub metric: Metric,
    /// IVF partitions.
    pub partitions: usize,
    /// Rows that were appended after it was built; they are searched exactly.
    pub unindexed_rows: u64,
    /// Its identities, one per segment.
    pub uuids: Vec<String>,
}

/// The IVF index on a column, if there is one, and the fragments that it does not cover.
pub(super) fn index_info(dataset: &Arc<Dataset>, column: &str) -> Result<Option<(IndexInfo, Vec<u64>)>> {
    let Some(field) = dataset.schema().field(column).map(|field| field.id) else { return Ok(None) };
    let owned = dataset.clone();
    let indices = on_runtime(async move { owned.load_indices().await })?.doing("reading the indices")?;
    let Some(name) = indices.iter().find(|index| index.fields.first() == Some(&field)).map(|index| index.name.clone())
    else {
        return Ok(None);
    };
    let segments: Vec<_> = indices.iter().filter(|index| index.name == name).collect();
    let (owned, asked) = (dataset.clone(), name.clone());
    let statistics = on_runtime(async move { owned.index_statistics(&asked).await })?.doing("reading the index")?;
    let statistics: serde_json::Value = serde_json::from_str(&statistics).doing("reading the index")?;
    let kind = statistics["index_type"].as_str().unwrap_or_default();
    if !kind.starts_with("IVF") {
        return Ok(None);
    }
    let first = &statistics["indices"][0];
    let covered = |fragment: u64| {
        let mut bitmaps = segments.iter().filter_map(|segment| segment.fragment_bitmap.as_ref());
        bitmaps.any(|bitmap| bitmap.contains(fragment as u32))
    };
    let uncovered = dataset.fragments().iter().map(|fragment| fragment.id).filter(|id| !covered(*id)).collect();
    let info = IndexInfo {
        kind: kind.to_string(),
        metric: first["metric_type"].as_str().unwrap_or("l2").parse()?,
        partitions: first["num_partitions"].as_u64().unwrap_or(1) as usize,
        unindexed_rows: statistics["num_unindexed_rows"].as_u64().unwrap_or(0),
        uuids: segments.iter().map(|segment| segment.uuid.to_string()).collect(),
        name,
    };
    Ok(Some((info, uncovered)))
}
