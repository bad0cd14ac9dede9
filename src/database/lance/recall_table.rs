//! The recall table of an index: the search parameters that each recall requires, measured at build time and stored in the dataset.

use lance::Dataset;
use serde::{Deserialize, Serialize};

use super::centroids::Probes;
use super::identity::IndexInfo;
use crate::database::META_RECALL;

/// The parameters of a search through the index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SearchParams {
    /// The partitions that each query searches.
    pub(crate) probes: Probes,
    /// The number of candidates per requested neighbour. Their distances are recomputed from their embeddings.
    pub(crate) refine_factor: usize,
}

/// The recall of an index, measured by `uphill index`: the search parameters that find a share of the nearest items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecallTable {
    /// The UUID of each segment of the measured index.
    pub index: Vec<String>,
    /// The number of partitions of the index.
    pub partitions: usize,
    /// The number of queries in the measurement.
    pub queries: usize,
    /// The levels, by `k`, then by `recall`, ascending.
    pub levels: Vec<RecallLevel>,
}

/// The search parameters for one target recall.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecallLevel {
    /// The number of neighbours per query.
    pub k: usize,
    /// The target: the share of the k nearest items that a query finds.
    pub recall: f64,
    /// The mean number of partitions that a query searches.
    pub nprobes: usize,
    /// A query searches the partitions up to this relative distance: 0 is the distance of the nearest centroid, 1 that of the
    /// median one. `None` in tables of earlier versions: every query searches `nprobes` partitions. Stored as `margin`.
    #[serde(default, rename = "margin")]
    pub relative_distance: Option<f32>,
    /// The number of candidates per requested neighbour. Their distances are recomputed from their embeddings. Stored as
    /// `overfetch`.
    #[serde(rename = "overfetch")]
    pub refine_factor: usize,
    /// The measured recall. It is less than `recall` if no search parameters reached the target. Stored
    /// as `measured`.
    #[serde(rename = "measured")]
    pub measured_recall: f64,
}

impl RecallTable {
    /// Reads the table of this index from a dataset. `None` if there is no table, or if it belongs to another index.
    pub(super) fn read(dataset: &Dataset, index: &IndexInfo) -> Option<Self> {
        let warn_damaged = |reason: String| {
            log::warn!(
                "{META_RECALL} of the dataset is damaged: {reason}; build the dataset again with `uphill index` to measure it"
            );
        };
        let text = dataset.metadata().get(META_RECALL)?;
        let table: RecallTable = serde_json::from_str(text).map_err(|error| warn_damaged(error.to_string())).ok()?;
        if table.index != index.uuids || table.levels.is_empty() {
            return None;
        }
        // An invalid level would let searches read too little of the index.
        let is_valid = |level: &RecallLevel| {
            level.k > 0 && level.nprobes > 0 && level.refine_factor > 0 && (0.0..=1.0).contains(&level.recall)
        };
        let order = |level: &RecallLevel| (level.k, level.recall);
        match table.levels.iter().all(is_valid) && table.levels.is_sorted_by(|a, b| order(a) < order(b)) {
            true => Some(table),
            false => {
                warn_damaged("its levels are invalid, or not ordered by k and recall".into());
                None
            }
        }
    }

    /// The search parameters that find this share of the k nearest items. Between two measured k, they are those of the larger one.
    /// Above the largest measured k, the relative distance and the logarithm of the number of partitions are extrapolated linearly
    /// in the logarithm of k, and each query searches at least this number of partitions.
    pub(super) fn search_params(&self, recall: f64, k: usize) -> Option<SearchParams> {
        let mut measured_ks: Vec<usize> = self.levels.iter().map(|level| level.k).collect();
        measured_ks.dedup();
        let level_at = |k: usize| {
            let mut levels = self.levels.iter().filter(|level| level.k == k);
            // For a recall that was not reached, use the largest measured parameters.
            levels.clone().find(|level| level.recall >= recall).or_else(|| levels.next_back()).copied()
        };
        let last_used = measured_ks.partition_point(|measured| *measured < k).min(measured_ks.len() - 1);
        let levels: Option<Vec<RecallLevel>> = measured_ks[..=last_used].iter().map(|k| level_at(*k)).collect();
        let larger_params = |a: RecallLevel, b: RecallLevel| RecallLevel {
            nprobes: a.nprobes.max(b.nprobes),
            relative_distance: a.relative_distance.zip(b.relative_distance).map(|(a, b)| a.max(b)),
            refine_factor: a.refine_factor.max(b.refine_factor),
            ..b
        };
        let RecallLevel { mut nprobes, mut relative_distance, refine_factor, .. } =
            levels?.into_iter().reduce(larger_params)?;
        let (first, last) = (measured_ks[0], measured_ks[measured_ks.len() - 1]);
        if k > last && last > first {
            let beyond = (k as f64 / last as f64).ln() / (last as f64 / first as f64).ln();
            let at_first = level_at(first)?;
            nprobes = (nprobes as f64 * (nprobes as f64 / at_first.nprobes as f64).powf(beyond)).ceil() as usize;
            let extrapolate = |(relative_distance, first): (f32, f32)| {
                relative_distance + (relative_distance - first) * beyond as f32
            };
            relative_distance = relative_distance.zip(at_first.relative_distance).map(extrapolate);
        }
        let min_partitions = if relative_distance.is_some() && k <= last { 1 } else { nprobes };
        Some(SearchParams {
            probes: Probes { min_partitions, max_relative_distance: relative_distance },
            refine_factor,
        })
    }
}

impl std::fmt::Display for RecallTable {
    /// A line for each k: `recall@10: 0.9 with 2 of 547 partitions, 0.99 with 4, …`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, level) in self.levels.iter().enumerate() {
            let is_first = at == 0 || self.levels[at - 1].k != level.k;
            match (is_first, at) {
                (true, 0) => write!(f, "recall@{}: ", level.k)?,
                (true, _) => write!(f, "\nrecall@{}: ", level.k)?,
                _ => f.write_str(", ")?,
            }
            let reached = level.recall.min(level.measured_recall);
            write!(f, "{} with {}", (reached * 1000.0).floor() / 1000.0, level.nprobes)?;
            if is_first {
                write!(f, " of {} partitions", self.partitions)?;
            }
            if level.refine_factor > 1 {
                write!(f, " and {} candidates each", level.refine_factor)?;
            }
        }
        Ok(())
    }
}
