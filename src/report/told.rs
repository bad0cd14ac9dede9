//! What is told of one run: its items in the columns that charts need, how much of the best it found, its counts.

use std::collections::BTreeSet;
use std::path::Path;

use polars::prelude::*;

use super::ReportOptions;
use super::reasons::{Reason, grouped};
use crate::config::Config;
use crate::error::{Result, WrapErr};
use crate::evaluate::{Evaluation, evaluate, minimizes, own_curve};
use crate::frame::outcome::Outcome;
use crate::frame::schema::{self, DB_IDX, EVALUATION, ITERATION, OUTCOME, RAW_SCORE, REASON, SCORE};
use crate::log::{SearchLog, collect};

/// A run, as it is told.
pub(super) struct Told {
    /// The folder's name.
    pub name: String,
    pub log: SearchLog,
    /// Each item met once, the best first: `db_idx`, `score`, `outcome` and `reason` if there are such,
    /// `evaluation`, `iteration`.
    pub met: DataFrame,
    /// Whether smaller scores are better in the scorer's own terms.
    pub minimize: bool,
    /// By the run's own scores: its top are the items in the sum of the best.
    pub progress: Evaluation,
    /// By the true ones.
    pub found: Option<Evaluation>,
    pub counts: Counts,
}

/// Items by what became of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub paid: u64,
    pub scored: u64,
    pub rejected: u64,
    pub failed: u64,
    /// Without an evaluation: their score was paid for before.
    pub reused: u64,
    /// Why items were rejected or failed, the most frequent first.
    pub reasons: Vec<Reason>,
}

/// A run as it was read: its log, what it met, its counts.
pub(super) struct Read(SearchLog, DataFrame, Counts);

impl Read {
    pub fn of(path: &Path) -> Result<Self> {
        let log = SearchLog::open(path)?;
        let mut query = log.compile_results()?;
        let there = query.collect_schema().wrap_err(path.display())?;
        let wanted = [DB_IDX, SCORE, RAW_SCORE, OUTCOME, REASON, EVALUATION, ITERATION];
        let wanted: Vec<Expr> = wanted.into_iter().filter(|name| there.contains(name)).map(col).collect();
        let known = there.iter_names().map(|name| name.to_string());
        let parts = log.manifest().config["score"]["sum"].as_array();
        let parts = parts.into_iter().flatten().filter_map(|part| Some(part["name"].as_str()?.to_string()));
        let known = known.chain(parts).collect();
        let met = collect(query.select(wanted))?;
        let counts = Counts::of(&met, &known)?;
        Ok(Read(log, met, counts))
    }

    /// Items that have a score.
    pub fn scored(&self) -> u64 {
        self.2.scored
    }
}

impl Told {
    /// A run at a path, whose best so many items are summed.
    pub fn of(read: Read, path: &Path, options: &ReportOptions, summed: usize) -> Result<Self> {
        let Read(log, met, counts) = read;
        let minimize = minimizes(&log, &met);
        let progress = own_curve(&met, summed, minimize)?;
        let found = options.truth.as_ref().map(|truth| evaluate(&log, truth, options.top)).transpose()?;
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
        let name = absolute.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy());
        Ok(Told { name: name.into_owned(), log, met, minimize, progress, found, counts })
    }

    /// A score in the scorer's own terms.
    pub fn raw(&self, score: f64) -> f64 {
        // Not -0.
        if self.minimize { 0.0 - score } else { score }
    }

    /// The best score, in the scorer's own terms.
    pub fn best(&self) -> Result<Option<f64>> {
        Ok(self.scores()?.first().copied().flatten().map(|best| self.raw(best)))
    }

    /// The items' scores, more is better, the best first.
    pub fn scores(&self) -> Result<Vec<Option<f64>>> {
        schema::nullable_f64s(&self.met, SCORE)
    }

    /// The run file, of a run that has one.
    pub fn config(&self) -> Option<Config> {
        Config::from_run(&self.log, &[]).ok()
    }

    /// What is searched, by its name.
    pub fn library(&self) -> String {
        let uri = self.log.manifest().dataset.as_ref().map(|dataset| dataset.uri.trim_end_matches('/'));
        uri.and_then(|uri| uri.rsplit('/').next()).unwrap_or("a library").to_string()
    }

    /// What makes two runs' `db_idx` name the same items.
    pub fn library_key(&self) -> String {
        let dataset = self.log.manifest().dataset.as_ref();
        dataset.map_or_else(String::new, |dataset| match &dataset.library_id {
            Some(id) => id.clone(),
            None => format!("{} {}", dataset.uri, dataset.version),
        })
    }

    /// The rule's name.
    pub fn rule(&self) -> String {
        self.log.manifest().config["update"]["rule"].as_str().unwrap_or("a rule of its own").to_string()
    }

    /// What is asked for a score, in a word.
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
        let called = || text("url").or_else(|| text("call").map(|call| function(&call)));
        text("sql").or_else(called).or_else(parts).or_else(command).or_else(by_hand).unwrap_or("score".into())
    }
}

/// A function as its program calls it: without the module and whatever else it is in.
fn function(call: &str) -> String {
    match call.rsplit('.').next() {
        Some(name) if !name.starts_with('<') => name.into(),
        // It has no name.
        _ => "score".into(),
    }
}

impl Counts {
    /// Items paid for that have a score.
    pub fn scored_anew(&self) -> u64 {
        self.scored - self.reused
    }

    fn of(met: &DataFrame, known: &BTreeSet<String>) -> Result<Self> {
        let scores = schema::nullable_f64s(met, SCORE)?;
        let text = |name: &str| -> Vec<Option<String>> {
            let column = met.column(name).and_then(|column| column.str());
            column.map_or_else(
                |_| vec![None; scores.len()],
                |texts| texts.iter().map(|text| text.map(Into::into)).collect(),
            )
        };
        let paid = match met.column(EVALUATION) {
            Ok(_) => schema::nullable_u64s(met, EVALUATION)?,
            Err(_) => vec![None; scores.len()],
        };
        let mut counts = Counts { paid: paid.iter().flatten().max().copied().unwrap_or(0), ..Counts::default() };
        let mut reasons: std::collections::BTreeMap<(&str, String), u64> = Default::default();
        for (((score, outcome), reason), paid) in scores.iter().zip(text(OUTCOME)).zip(text(REASON)).zip(paid) {
            let outcome = outcome.as_deref().and_then(Outcome::from_name).unwrap_or(Outcome::from_score(*score));
            match outcome {
                Outcome::Scored => counts.scored += 1,
                Outcome::Rejected => counts.rejected += 1,
                Outcome::Failed => counts.failed += 1,
            }
            if outcome == Outcome::Scored {
                counts.reused += u64::from(paid.is_none());
            } else {
                *reasons.entry((outcome.name(), reason.unwrap_or("no reason given".into()))).or_default() += 1;
            }
        }
        let reasons = reasons.into_iter().map(|((outcome, reason), items)| (outcome, reason, items));
        counts.reasons = grouped(reasons, known);
        Ok(counts)
    }
}
