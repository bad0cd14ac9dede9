//! Counts hits: scores that reach the threshold `stop.hit`, in the order of the evaluations.

use std::collections::{HashSet, VecDeque};
use std::fmt;

use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::frame::schema::{self, DB_IDX, EVALUATION, SCORE};

/// The number of latest scores whose hits are counted.
const RECENT: usize = 100;

/// The hits of a run: items whose score reaches the threshold of [`StopConditions::hit`](crate::StopConditions::hit).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hits {
    /// The threshold, in the scorer's own direction.
    pub threshold: f64,
    /// The number of items that are hits, including those with a reused score.
    pub found: u64,
    /// The number of latest scores that `recent_hits` counts: 100, or all if there are fewer. Without reused scores.
    pub recent_scores: u64,
    /// The number of hits among the latest scores.
    pub recent_hits: u64,
    /// The number of scores since the last hit, or of all scores if none is a hit. Without reused scores.
    pub scores_since_hit: u64,
}

/// Writes `12 hits; 3 of them in the last 100 scores; 45 scores since the last hit`.
impl fmt::Display for Hits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        let Hits { found, recent_scores, recent_hits, scores_since_hit, .. } = *self;
        if found == 0 {
            return write!(f, "no hit in {scores_since_hit} score{}", plural(scores_since_hit));
        }
        write!(
            f,
            "{found} hit{}; {recent_hits} in the last {recent_scores} score{}; {scores_since_hit} score{} since the last hit",
            plural(found),
            plural(recent_scores),
            plural(scores_since_hit)
        )
    }
}

/// Counts the hits in the scored frames of a run, which it observes in the order of iterations.
#[derive(Clone, Debug)]
pub(crate) struct HitCounter {
    hits: Hits,
    /// The smallest `score` that is a hit.
    min_score: f64,
    /// The ordinal of the last observed evaluation.
    last_evaluation: u64,
    /// The hits with a reused score, which several iterations may contain.
    reused: HashSet<u64>,
    /// Whether each of the latest scores is a hit.
    recent: VecDeque<bool>,
}

impl HitCounter {
    /// Counts from the start of a run. The threshold is in the scorer's own direction.
    pub fn new(threshold: f64, minimize: bool) -> Self {
        HitCounter {
            hits: Hits { threshold, found: 0, recent_scores: 0, recent_hits: 0, scores_since_hit: 0 },
            min_score: min_score(threshold, minimize),
            last_evaluation: 0,
            reused: HashSet::new(),
            recent: VecDeque::new(),
        }
    }

    /// The hits so far.
    pub fn hits(&self) -> Hits {
        self.hits
    }

    /// Adds the scored frame of an iteration.
    ///
    /// # Errors
    /// A frame without `db_idx`, `score` or `evaluation`.
    pub fn observe(&mut self, scored: &DataFrame) -> Result<()> {
        let (items, scores) = (schema::u64s(scored, DB_IDX)?, schema::nullable_f64s(scored, SCORE)?);
        let mut evaluated = Vec::new();
        for ((item, score), evaluation) in items.into_iter().zip(scores).zip(schema::nullable_u64s(scored, EVALUATION)?)
        {
            let is_hit = score.map(|score| score >= self.min_score);
            match evaluation {
                Some(evaluation) if evaluation > self.last_evaluation => evaluated.push((evaluation, is_hit)),
                // An earlier iteration has the item, too.
                Some(_) => {}
                None => self.hits.found += u64::from(is_hit == Some(true) && self.reused.insert(item)),
            }
        }
        evaluated.sort_unstable_by_key(|(evaluation, _)| *evaluation);
        evaluated.dedup_by_key(|(evaluation, _)| *evaluation);
        for (evaluation, is_hit) in evaluated {
            self.last_evaluation = evaluation;
            // Rejected and failed items have no score.
            is_hit.into_iter().for_each(|is_hit| self.add(is_hit));
        }
        Ok(())
    }

    /// Adds a score.
    fn add(&mut self, is_hit: bool) {
        self.recent.push_back(is_hit);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.hits.found += u64::from(is_hit);
        self.hits.scores_since_hit = if is_hit { 0 } else { self.hits.scores_since_hit + 1 };
        self.hits.recent_scores = self.recent.len() as u64;
        self.hits.recent_hits = self.recent.iter().filter(|is_hit| **is_hit).count() as u64;
    }
}

/// The smallest `score` that is a hit, given the threshold in the scorer's own direction.
pub(crate) fn min_score(threshold: f64, minimize: bool) -> f64 {
    if minimize { -threshold } else { threshold }
}
