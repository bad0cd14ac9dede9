//! What an index finds for how much looking: measured when it was built, kept with the dataset.

use lance::Dataset;
use serde::{Deserialize, Serialize};

use super::centroids::Probes;
use super::identity::IndexInfo;
use crate::database::META_RECALL;

/// How much of the index a search looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Effort {
    /// Partitions for each query.
    pub(crate) probes: Probes,
    /// Candidates for each neighbour asked for.
    pub(crate) overfetch: usize,
}

/// What `uphill index` measured of the index: how much looking finds which share of the nearest items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecallTable {
    /// The index that was measured: its identities, one per segment.
    pub index: Vec<String>,
    /// Its partitions.
    pub partitions: usize,
    /// Queries that it was measured with.
    pub queries: usize,
    /// By `k`, then by `recall`, ascending.
    pub levels: Vec<RecallLevel>,
}

/// A recall that was to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecallLevel {
    /// Neighbours for each query.
    pub k: usize,
    /// The share of the k nearest that was to be found.
    pub recall: f64,
    /// Partitions that a query searches in the mean.
    pub nprobes: usize,
    /// A query searches the partitions whose centroid is no farther than this share of the way from the nearest to the
    /// median one. Tables of earlier versions have none: there every query searches `nprobes` partitions.
    #[serde(default)]
    pub margin: Option<f32>,
    /// Candidates for each neighbour; they are measured again.
    pub overfetch: usize,
    /// What was found with that; less than `recall` where no looking reached it.
    pub measured: f64,
}

impl RecallTable {
    /// The table of the index, if the dataset has one of it: none of an index that has taken its place since.
    pub(super) fn read(dataset: &Dataset, index: &IndexInfo) -> Option<Self> {
        let damaged = |why: String| {
            log::warn!("{META_RECALL} of the dataset is damaged: {why}; `uphill index` measures it anew");
        };
        let text = dataset.metadata().get(META_RECALL)?;
        let table: RecallTable = serde_json::from_str(text).map_err(|error| damaged(error.to_string())).ok()?;
        if table.index != index.uuids || table.levels.is_empty() {
            return None;
        }
        // Otherwise less would be looked at than it takes.
        let is_sound = |level: &RecallLevel| {
            level.k > 0 && level.nprobes > 0 && level.overfetch > 0 && (0.0..=1.0).contains(&level.recall)
        };
        let place = |level: &RecallLevel| (level.k, level.recall);
        match table.levels.iter().all(is_sound) && table.levels.is_sorted_by(|a, b| place(a) < place(b)) {
            true => Some(table),
            false => {
                damaged("its levels are no measurements, by k and by recall".into());
                None
            }
        }
    }

    /// What it takes to find that share of the k nearest. Between two measured k it is what the larger takes; beyond, the
    /// margin grows with the logarithm of k as it did from one measured k to the next, and so do partitions, of which each
    /// query then searches as many at least.
    pub(super) fn effort(&self, recall: f64, k: usize) -> Option<Effort> {
        let mut measured: Vec<usize> = self.levels.iter().map(|level| level.k).collect();
        measured.dedup();
        let at = |k: usize| {
            let mut levels = self.levels.iter().filter(|level| level.k == k);
            // What was not reached takes the most that was looked at.
            levels.clone().find(|level| level.recall >= recall).or_else(|| levels.next_back()).copied()
        };
        let upto = measured.partition_point(|of| *of < k).min(measured.len() - 1);
        let levels: Option<Vec<RecallLevel>> = measured[..=upto].iter().map(|of| at(*of)).collect();
        let safer = |a: RecallLevel, b: RecallLevel| RecallLevel {
            nprobes: a.nprobes.max(b.nprobes),
            margin: a.margin.zip(b.margin).map(|(a, b)| a.max(b)),
            overfetch: a.overfetch.max(b.overfetch),
            ..b
        };
        let RecallLevel { mut nprobes, mut margin, overfetch, .. } = levels?.into_iter().reduce(safer)?;
        let (first, last) = (measured[0], measured[measured.len() - 1]);
        if k > last && last > first {
            let beyond = (k as f64 / last as f64).ln() / (last as f64 / first as f64).ln();
            let before = at(first)?;
            nprobes = (nprobes as f64 * (nprobes as f64 / before.nprobes as f64).powf(beyond)).ceil() as usize;
            let grown = |(margin, before): (f32, f32)| margin + (margin - before) * beyond as f32;
            margin = margin.zip(before.margin).map(grown);
        }
        let at_least = if margin.is_some() && k <= last { 1 } else { nprobes };
        Some(Effort { probes: Probes { at_least, margin }, overfetch })
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
            let reached = level.recall.min(level.measured);
            write!(f, "{} with {}", (reached * 1000.0).floor() / 1000.0, level.nprobes)?;
            if is_first {
                write!(f, " of {} partitions", self.partitions)?;
            }
            if level.overfetch > 1 {
                write!(f, " and {} candidates each", level.overfetch)?;
            }
        }
        Ok(())
    }
}
