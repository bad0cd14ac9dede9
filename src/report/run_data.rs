//! The data of one run that a report shows: its items, its curves, and counts of outcomes.

use std::collections::BTreeSet;
use std::path::Path;

use polars::prelude::*;

use super::ReportOptions;
use super::reasons::{Reason, group_reasons};
use crate::config::Config;
use crate::error::{Result, WrapErr};
use crate::evaluate::{RecallCurve, evaluate, minimizes, own_curve};
use crate::frame::outcome::Outcome;
use crate::frame::schema::{self, DB_IDX, EVALUATION, ITERATION, OUTCOME, RAW_SCORE, REASON, SCORE};
use crate::log::{SearchLog, collect};

/// A run and what a report derives from it.
pub(super) struct RunData {
    /// The name of the run folder.
    pub name: String,
    pub log: SearchLog,
    /// Each item found, once, best first: `db_idx`, `score`, `evaluation`, `iteration`, and `raw_score`, `outcome` and
    /// `reason` if the run has them.
    pub items: DataFrame,
    /// Whether smaller scores of the scorer are better.
    pub minimize: bool,
    /// The curve by the run's own scores. Its `top` is the number of items in the sum of the best.
    pub own_curve: RecallCurve,
    /// The curve by the true scores, if they are given.
    pub true_curve: Option<RecallCurve>,
    pub counts: OutcomeCounts,
}

/// Numbers of items by outcome.
#[derive(Clone, Debug, Default)]
pub(super) struct OutcomeCounts {
    pub evaluations: u64,
    pub scored: u64,
    pub rejected: u64,
    pub failed: u64,
    /// Scored items without an evaluation: their score was reused.
    pub reused: u64,
    /// Why items were rejected or failed, most frequent first.
    pub reasons: Vec<Reason>,
}

/// A run as read from its folder: the log, its items, and their counts.
pub(super) struct LoadedRun {
    log: SearchLog,
    items: DataFrame,
    counts: OutcomeCounts,
}

impl LoadedRun {
    /// Reads a run folder.
    ///
    /// # Errors
    /// A path that is not a run folder; damaged files.
    pub fn open(path: &Path) -> Result<Self> {
        let log = SearchLog::open(path)?;
        let mut query = log.compile_results()?;
        let schema = query.collect_schema().wrap_err(path.display())?;
        let wanted = [DB_IDX, SCORE, RAW_SCORE, OUTCOME, REASON, EVALUATION, ITERATION];
        let wanted: Vec<Expr> = wanted.into_iter().filter(|name| schema.contains(name)).map(col).collect();
        let columns = schema.iter_names().map(|name| name.to_string());
        let parts = log.manifest().config["score"]["sum"].as_array();
        let parts = parts.into_iter().flatten().filter_map(|part| Some(part["name"].as_str()?.to_string()));
        let fixed_words = columns.chain(parts).collect();
        let items = collect(query.select(wanted))?;
        let counts = OutcomeCounts::count(&items, &fixed_words)?;
        Ok(LoadedRun { log, items, counts })
    }

    /// The number of items with a score.
    pub fn scored(&self) -> u64 {
        self.counts.scored
    }
}

impl RunData {
    /// The data of a run that was loaded from `path`. `top` is the number of items in the sum of the best.
    ///
    /// # Errors
    /// True scores that do not match the run.
    pub fn new(run: LoadedRun, path: &Path, options: &ReportOptions, top: usize) -> Result<Self> {
        let LoadedRun { log, items, counts } = run;
        let minimize = minimizes(&log, &items);
        let own_curve = own_curve(&items, top, minimize)?;
        let true_curve = options.truth.as_ref().map(|truth| evaluate(&log, truth, options.top)).transpose()?;
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
        let name = absolute.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy());
        Ok(RunData { name: name.into_owned(), log, items, minimize, own_curve, true_curve, counts })
    }

    /// A score in the direction of the scorer.
    pub fn raw(&self, score: f64) -> f64 {
        // Not -0.
        if self.minimize { 0.0 - score } else { score }
    }

    /// The best score, in the direction of the scorer.
    pub fn best(&self) -> Result<Option<f64>> {
        Ok(self.scores()?.first().copied().flatten().map(|best| self.raw(best)))
    }

    /// The scores of the items, best first. Larger is better.
    pub fn scores(&self) -> Result<Vec<Option<f64>>> {
        schema::nullable_f64s(&self.items, SCORE)
    }

    /// The configuration, if the run has a run file.
    pub fn config(&self) -> Option<Config> {
        Config::from_run(&self.log, &[]).ok()
    }

    /// The name of the dataset.
    pub fn dataset_name(&self) -> String {
        let uri = self.log.manifest().dataset.as_ref().map(|dataset| dataset.uri.trim_end_matches('/'));
        uri.and_then(|uri| uri.rsplit('/').next()).unwrap_or("a library").to_string()
    }

    /// A key that is equal for two runs if the same `db_idx` names the same item.
    pub fn library_key(&self) -> String {
        let dataset = self.log.manifest().dataset.as_ref();
        dataset.map_or_else(String::new, |dataset| match &dataset.library_id {
            Some(id) => id.clone(),
            None => format!("{} {}", dataset.uri, dataset.version),
        })
    }

    /// The name of the rule.
    pub fn rule(&self) -> String {
        self.log.manifest().config["update"]["rule"].as_str().unwrap_or("custom rule").to_string()
    }

    /// A short name of the score: its SQL, URL, function or command.
    pub fn score(&self) -> String {
        let score = &self.log.manifest().config["score"];
        let text = |key: &str| score[key].as_str().map(str::to_string);
        let parts = || {
            let parts = score["sum"].as_array().filter(|parts| !parts.is_empty())?;
            let names = parts.iter().map(|part| part["name"].as_str().unwrap_or("a part"));
            Some(format!("the sum of {}", names.collect::<Vec<_>>().join(", ")))
        };
        let command = || {
            let words = score["command"].as_array().filter(|words| !words.is_empty())?;
            Some(words.iter().filter_map(|word| word.as_str()).collect::<Vec<_>>().join(" "))
        };
        let by_hand = || score["by_hand"].as_bool()?.then(|| "scores given by hand".to_string());
        let called = || text("url").or_else(|| text("call").map(|call| function_name(&call)));
        text("sql").or_else(called).or_else(parts).or_else(command).or_else(by_hand).unwrap_or("score".into())
    }
}

/// The name of a function without the names of its module, class and outer functions.
fn function_name(call: &str) -> String {
    match call.rsplit('.').next() {
        Some(name) if !name.starts_with('<') => name.into(),
        // A lambda has no name.
        _ => "score".into(),
    }
}

impl OutcomeCounts {
    /// Number of evaluations that gave a score.
    pub fn newly_scored(&self) -> u64 {
        self.scored - self.reused
    }

    /// Counts the outcomes of items. `fixed_words` are not replaced when reasons are grouped.
    fn count(items: &DataFrame, fixed_words: &BTreeSet<String>) -> Result<Self> {
        let scores = schema::nullable_f64s(items, SCORE)?;
        let text = |name: &str| -> Vec<Option<String>> {
            let column = items.column(name).and_then(|column| column.str());
            column.map_or_else(
                |_| vec![None; scores.len()],
                |texts| texts.iter().map(|text| text.map(Into::into)).collect(),
            )
        };
        let evaluations = match items.column(EVALUATION) {
            Ok(_) => schema::nullable_u64s(items, EVALUATION)?,
            Err(_) => vec![None; scores.len()],
        };
        let mut counts = OutcomeCounts {
            evaluations: evaluations.iter().flatten().max().copied().unwrap_or(0),
            ..OutcomeCounts::default()
        };
        let mut reasons: std::collections::BTreeMap<(&str, String), u64> = Default::default();
        for (((score, outcome), reason), evaluation) in
            scores.iter().zip(text(OUTCOME)).zip(text(REASON)).zip(evaluations)
        {
            let outcome = outcome.as_deref().and_then(Outcome::from_name).unwrap_or(Outcome::from_score(*score));
            match outcome {
                Outcome::Scored => counts.scored += 1,
                Outcome::Rejected => counts.rejected += 1,
                Outcome::Failed => counts.failed += 1,
            }
            if outcome == Outcome::Scored {
                counts.reused += u64::from(evaluation.is_none());
            } else {
                *reasons.entry((outcome.name(), reason.unwrap_or("no reason given".into()))).or_default() += 1;
            }
        }
        let reasons = reasons.into_iter().map(|((outcome, reason), items)| (outcome, reason, items));
        counts.reasons = group_reasons(reasons, fixed_words);
        Ok(counts)
    }
}
