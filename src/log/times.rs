//! How long the stages of each iteration took: beside the frames, which are the same run by run.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::SearchLog;
use crate::error::Result;
use crate::io::atomic;

const FILE: &str = "times.jsonl";

/// Seconds that each stage of an iteration took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Times {
    /// The vector search.
    #[serde(rename = "vector search", alias = "query")]
    pub query: f64,
    /// The filter.
    pub filter: f64,
    /// The choice of what is worth a score.
    #[serde(rename = "choice", alias = "select")]
    pub select: f64,
    /// The scorer, and keeping what it says.
    pub score: f64,
    /// Writing the log.
    pub log: f64,
    /// The rule.
    #[serde(rename = "rule", alias = "update")]
    pub update: f64,
}

impl Times {
    /// The stages by their names, which are the same on screen, in reports and in `times.jsonl`.
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

/// A line of the file. Those of earlier versions name no iteration.
#[derive(Serialize)]
struct Line<'a> {
    iteration: u32,
    #[serde(flatten)]
    times: &'a Times,
}

impl SearchLog {
    /// Notes how long an iteration took. Nothing depends on it: it is not synced, and may be missing.
    pub(crate) fn note_times(&self, iteration: u32, times: &Times) {
        if let Ok(line) = serde_json::to_string(&Line { iteration, times }) {
            atomic::append_best_effort(&self.path.join(FILE), &line);
        }
    }

    /// How long the stages took in all iterations, those that were made again included, as far as that was noted;
    /// `None` if nothing was. Runs of earlier versions have not noted it.
    pub fn times(&self) -> Option<Times> {
        let text = std::fs::read_to_string(self.path.join(FILE)).ok()?;
        // A line may be cut where a process was killed.
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.reduce(|a: Times, b: Times| Times {
            query: a.query + b.query,
            filter: a.filter + b.filter,
            select: a.select + b.select,
            score: a.score + b.score,
            log: a.log + b.log,
            update: a.update + b.update,
        })
    }
}

/// Removes what was noted, if it was.
pub(super) fn remove(run: &Path) -> Result<()> {
    let file = run.join(FILE);
    if file.exists() { atomic::remove_file(&file) } else { Ok(()) }
}
