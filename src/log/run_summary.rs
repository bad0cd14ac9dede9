//! The summary of a run in run.json: why it ended, and its costs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::forecast::Forecast;
use crate::hits::Hits;

/// The reason for the end of a run, and its costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunSummary {
    /// Why the run ended.
    pub reason: StopReason,
    /// The first line of the error that ended the run. `None` after the run is resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The number of committed iterations.
    pub iterations: u32,
    /// The number of evaluations: distinct items that were requested from the scorer.
    pub evaluations: u64,
    /// The number of evaluated items with a score. `None` in runs of earlier versions of this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scored: Option<u64>,
    /// The number of items with a reused score. These cost no evaluation.
    #[serde(default)]
    pub reused: u64,
    /// The number of items that were rejected.
    #[serde(default)]
    pub rejected: u64,
    /// The number of items that failed.
    #[serde(default)]
    pub failed: u64,
    /// The number of items that were scored again after a kill or a stop, because their first scores were not durable yet. At
    /// most this number of items was paid for twice.
    #[serde(default, rename = "asked_again")]
    pub scored_again: u64,
    /// The number of times that an item was retried because it had no answer.
    #[serde(default)]
    pub retries: u64,
    /// The relevance weight that the rule learned for each column that it reads. The weights sum to 1, the largest first.
    #[serde(default, rename = "learned", skip_serializing_if = "Vec::is_empty")]
    pub relevance: Vec<(String, f32)>,
    /// The forecast for the next 100 scores when the run ended, as if they were of batches like the last one. For
    /// [`StopReason::ScoresPerEntry`], the forecast that exceeded the limit: for the next batch and the latest ones. `None`
    /// for rules without a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// The hits of the run. `None` without `stop.hit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits: Option<Hits>,
    /// When the run ended, in seconds since 1970.
    pub at: u64,
}

/// Writes the error, or else the reason.
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
    /// The expected number of scores per entry exceeds the limit (`stop.scores_per_entry`).
    ScoresPerEntry,
    /// Too many scores in a row have no hit (`stop.no_hit`).
    NoHit,
    /// A signal stopped the run.
    Interrupted,
    /// An outage: the scorer was unavailable for longer than `score.patience`.
    #[serde(rename = "away")]
    Outage,
    /// Another error.
    Error,
}

/// Writes the reason as a text.
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
            StopReason::NoHit => "too many scores in a row without a hit",
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
