//! What makes a dataset the one a run started with: its version, its rows, its index.

use std::collections::HashSet;
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
    /// Items: rows with an embedding, without deleted ones.
    pub rows: u64,
    /// Rows that have no embedding and so are no items.
    #[serde(default)]
    pub without_embedding: u64,
    /// Components of an embedding.
    pub dim: usize,
    /// What `distance` means.
    pub metric: Metric,
    /// A hash of every column, where `uphill index` built it; of what others changed since, another.
    pub library_id: Option<String>,
    /// Where `db_idx` comes from: `row id`, `row address` or the name of a column.
    pub ids: String,
    /// The index on the embeddings, if there is one.
    pub index: Option<IndexInfo>,
}

impl Identity {
    /// Bytes of all embeddings.
    pub(super) fn embedding_bytes(&self) -> usize {
        (self.rows as usize).saturating_mul(self.dim * size_of::<f32>())
    }

    /// What differs, one phrase each, with both values. Where the dataset is does not count.
    pub fn differences(&self, now: &Identity) -> Vec<String> {
        let index = |identity: &Identity| match &identity.index {
            Some(index) => format!("{} {} ({})", index.kind, index.name, index.uuids.join(", ")),
            None => "none".to_string(),
        };
        let library = |identity: &Identity| identity.library_id.clone().unwrap_or_else(|| "none".into());
        // All of them: runs of earlier versions took rows without an embedding for items.
        let rows = |identity: &Identity| (identity.rows + identity.without_embedding).to_string();
        // The same content, built again, is the same library; where the content has no hash, the time tells.
        let committed = |identity: &Identity| match (&self.library_id, &now.library_id, identity.committed) {
            (None, None, Some(at)) if self.committed.is_some() && now.committed.is_some() => at.to_string(),
            _ => "unknown".into(),
        };
        let pairs = [
            ("version", self.version.to_string(), now.version.to_string()),
            ("rows", rows(self), rows(now)),
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

impl IndexInfo {
    /// Whether it keeps codes instead of vectors.
    pub(crate) fn has_codes(&self) -> bool {
        !self.kind.ends_with("FLAT")
    }
}

/// What an index covers.
#[derive(Default)]
pub(super) struct Coverage {
    /// Fragments that it does not cover.
    pub(super) uncovered: Vec<u64>,
    /// Whether it surely holds every row of the others: so every row of them has an embedding.
    pub(super) is_complete: bool,
    /// Bytes of its files, if the dataset says.
    pub(super) bytes: Option<u64>,
}

/// The IVF index on a column, if there is one, and what it covers.
pub(super) fn index_info(dataset: &Arc<Dataset>, column: &str) -> Result<Option<(IndexInfo, Coverage)>> {
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
    let (inside, outside): (Vec<_>, Vec<_>) = dataset.fragments().iter().partition(|fragment| covered(fragment.id));
    let uncovered = outside.iter().map(|fragment| fragment.id).collect();
    // As many entries as rows, deleted ones too, and none of a fragment that is gone.
    let rows: Option<u64> = inside.iter().map(|fragment| Some(fragment.physical_rows? as u64)).sum();
    let partitions = statistics["indices"].as_array().into_iter().flatten();
    let partitions = partitions.flat_map(|segment| segment["partitions"].as_array().into_iter().flatten());
    let entries: Option<u64> = partitions.map(|partition| partition["size"].as_u64()).sum();
    let there: HashSet<u64> = inside.iter().map(|fragment| fragment.id).collect();
    let mut indexed = segments.iter().filter_map(|segment| segment.fragment_bitmap.as_ref()).flatten();
    let all_there = indexed.all(|fragment| there.contains(&u64::from(fragment)));
    let bytes =
        segments.iter().map(|segment| Some(segment.files.as_ref()?.iter().map(|file| file.size_bytes).sum::<u64>()));
    let bytes = bytes.sum();
    let coverage = Coverage { uncovered, is_complete: rows.is_some() && rows == entries && all_there, bytes };
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
