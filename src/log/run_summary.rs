//! How a run ended: the reason and the costs, as run.json records them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::forecast::Forecast;

/// How a run ended, and what it cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunSummary {
    /// Why the run ended.
    pub reason: StopReason,
    /// The first line of the error that ended the run. `None` after the run is resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Committed iterations.
    pub iterations: u32,
    /// Distinct items paid for.
    pub evaluations: u64,
    /// Items paid for that have a score. `None` in runs of earlier versions of this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scored: Option<u64>,
    /// Items with a reused score, which was paid for by an earlier run.
    #[serde(default)]
    pub reused: u64,
    /// Items that were rejected.
    #[serde(default)]
    pub rejected: u64,
    /// Items that failed.
    #[serde(default)]
    pub failed: u64,
    /// Items that were evaluated again, because the process was killed or stopped before their scores were durable: the most
    /// items that may have been paid for twice.
    #[serde(default)]
    pub asked_again: u64,
    /// How often the evaluation of an item was retried, because no answer came.
    #[serde(default)]
    pub retries: u64,
    /// The relevance weight of each column that the rule reads, as it learned them: they sum to 1, the largest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learned: Vec<(String, f32)>,
    /// What the next scores were expected to bring when the run ended. If it was the reason, the rate that exceeded the limit.
    /// `None` for rules without a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// When the run ended, in seconds since 1970.
    pub at: u64,
}

/// The reason in words, and the error.
impl fmt::Display for RunSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "an error: {error}"),
            None => self.reason.fmt(f),
        }
    }
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// All iterations are done.
    Iterations,
    /// The evaluation budget is spent.
    Evaluations,
    /// No new item for a number of iterations in a row.
    NothingNew,
    /// The library returned no candidate at all.
    #[serde(rename = "nothing_met")]
    NoCandidates,
    /// No candidate passes the filter.
    NothingPasses,
    /// The time limit is reached.
    Seconds,
    /// The target score is reached.
    Score,
    /// An entry into the best scores is expected to cost more scores than the limit.
    ScoresPerEntry,
    /// A signal.
    Interrupted,
    /// An outage: the scorer was unavailable for longer than `score.patience`.
    #[serde(rename = "away")]
    Outage,
    /// Another error.
    Error,
}

/// In words.
impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            StopReason::Iterations => "as many iterations as asked",
            StopReason::Evaluations => "the budget is spent",
            StopReason::NothingNew => "no new items",
            StopReason::NoCandidates => "no candidates",
            StopReason::NothingPasses => "no candidate passes the filter",
            StopReason::Seconds => "the time limit is reached",
            StopReason::Score => "the target score is reached",
            StopReason::ScoresPerEntry => "an entry into the best scores is expected to cost too much",
            StopReason::Interrupted => "interrupted",
            StopReason::Outage => "the scorer is unavailable",
            StopReason::Error => "an error",
        })
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
