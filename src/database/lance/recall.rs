//! What an index finds for how much looking: measured when it was built, kept with the dataset.

use lance::Dataset;
use serde::{Deserialize, Serialize};

use super::identity::IndexInfo;
use crate::database::META_RECALL;

/// How much of the index a search looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effort {
    /// Partitions for each query.
    pub(crate) nprobes: usize,
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
    /// Partitions to look into for each query.
    pub nprobes: usize,
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

    /// What it takes to find that share of the k nearest. Between two measured k it is what the larger takes; beyond,
    /// partitions are added as they were from one measured k to the next.
    pub(super) fn effort(&self, recall: f64, k: usize) -> Option<Effort> {
        let mut measured: Vec<usize> = self.levels.iter().map(|level| level.k).collect();
        measured.dedup();
        let at = |k: usize| {
            let mut levels = self.levels.iter().filter(|level| level.k == k);
            // What was not reached takes the most that was looked at.
            let level = levels.clone().find(|level| level.recall >= recall).or_else(|| levels.next_back())?;
            Some(Effort { nprobes: level.nprobes, overfetch: level.overfetch })
        };
        let upto = measured.partition_point(|of| *of < k).min(measured.len() - 1);
        let efforts: Option<Vec<Effort>> = measured[..=upto].iter().map(|of| at(*of)).collect();
        let safer = |a: Effort, b: Effort| Effort {
            nprobes: a.nprobes.max(b.nprobes),
            overfetch: a.overfetch.max(b.overfetch),
        };
        let mut effort = efforts?.into_iter().reduce(safer)?;
        let (first, last) = (measured[0], measured[measured.len() - 1]);
        if k > last && last > first {
            let growth = (effort.nprobes as f64 / at(first)?.nprobes as f64).ln() / (last as f64 / first as f64).ln();
            let more = (k as f64 / last as f64).powf(growth);
            effort.nprobes = (effort.nprobes as f64 * more).ceil() as usize;
        }
        Some(effort)
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
