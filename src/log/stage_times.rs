//! `times.jsonl`: the seconds that each stage of each iteration took. Times are not reproducible, so the frames do not contain
//! them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::SearchLog;
use crate::error::Result;
use crate::io::atomic;

const FILE: &str = "times.jsonl";

/// The seconds that each stage of an iteration, or of a run, took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct StageTimes {
    /// The vector search.
    #[serde(rename = "vector search", alias = "query")]
    pub query: f64,
    /// The filter.
    pub filter: f64,
    /// The selector: choosing the items to score.
    #[serde(rename = "choice", alias = "select")]
    pub select: f64,
    /// The scorer, and writing its scores to the ledger.
    pub score: f64,
    /// Writing the log.
    pub log: f64,
    /// The update rule.
    #[serde(rename = "rule", alias = "update")]
    pub update: f64,
}

impl StageTimes {
    /// The stages with their names. The same names are used on screen, in reports and in `times.jsonl`.
    pub(crate) fn stages(&self) -> [(&'static str, f64); 6] {
        [
            ("vector search", self.query),
            ("filter", self.filter),
            ("choice", self.select),
            ("score", self.score),
            ("log", self.log),
            ("rule", self.update),
        ]
    }
}

/// A line of the file. Earlier versions of this program wrote no iteration.
#[derive(Serialize)]
struct Line<'a> {
    iteration: u32,
    #[serde(flatten)]
    times: &'a StageTimes,
}

impl SearchLog {
    /// Appends the times of an iteration. The line is not fsynced and may be lost, because nothing depends on it.
    pub(crate) fn append_times(&self, iteration: u32, times: &StageTimes) {
        if let Ok(line) = serde_json::to_string(&Line { iteration, times }) {
            atomic::append_best_effort(&self.path.join(FILE), &line);
        }
    }

    /// The recorded times of all iterations, including repeated ones. `None` if the file is missing, as in runs of earlier
    /// versions of this program.
    pub fn times(&self) -> Option<StageTimes> {
        let text = std::fs::read_to_string(self.path.join(FILE)).ok()?;
        // A process that was killed may have written half a line.
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.reduce(|a: StageTimes, b: StageTimes| StageTimes {
            query: a.query + b.query,
            filter: a.filter + b.filter,
            select: a.select + b.select,
            score: a.score + b.score,
            log: a.log + b.log,
            update: a.update + b.update,
        })
    }
}

/// Removes the file, if it exists.
pub(super) fn remove(run: &Path) -> Result<()> {
    let file = run.join(FILE);
    if file.exists() { atomic::remove_file(&file) } else { Ok(()) }
}
