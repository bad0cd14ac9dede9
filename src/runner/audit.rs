//! Random audits of a run: scores random items that the search has not judged, to bound the hits that it has missed.
//!
//! Each item of the library has a random key, which depends only on the seed and the item. An audit of n items scores the n
//! unscored items with the smallest keys. So a repeated or larger audit continues with the same items, and if the search
//! continues in between, the items that it has scored meanwhile are replaced by the next ones. The search does not read the keys,
//! so the drawn items are a uniform sample of the unscored ones at any time.

use std::path::Path;

use polars::prelude::{Column, DataFrame};

use super::Runner;
use crate::audit::{Audit, DrawnOutcomes};
use crate::database::local_path;
use crate::error::{Error, Result, WrapErr};
use crate::frame::outcome::Outcome;
use crate::frame::schema::{self, EMBEDDING, OUTCOME, SCORE};
use crate::hits::min_score;
use crate::log::{SearchLog, collect};
use crate::score::without_unavailable;

/// The state of an audit.
pub enum AuditState {
    /// The audit needs manual scores of these items: `db_idx`, `embedding`, attributes.
    Pending(DataFrame),
    /// All drawn items are scored.
    Complete {
        /// The hits and the bounds.
        audit: Audit,
        /// The drawn items in the order of their draws: `draw` u64 from 1, `db_idx`, attributes, and the columns of scores as in
        /// the log, without `evaluation`.
        items: DataFrame,
    },
}

impl Runner {
    /// Audits a run: draws `n` random items out of those that the run neither scored, nor rejected, nor failed to score, and that
    /// pass the filter. Scores them with the scorer of the run, and computes from their hits ([`StopConditions::hit`]) how many
    /// hits the run may have missed ([`Audit`]).
    ///
    /// The audit is no part of the search: the iterations of the run stay as they are, and its rule does not observe the scores.
    /// The drawn items and the result are written to the run folder (`audit/` and run.json). Paid scores are durable in the
    /// ledger as soon as they arrive, so an audit that was killed continues when it is called again, as does one of more items.
    /// If the search selects a drawn item later, it uses the score.
    ///
    /// [`StopConditions::hit`]: crate::StopConditions::hit
    ///
    /// # Errors
    /// No threshold of a hit; a run that another process writes to; as [`Runner::resume`].
    pub fn audit(&mut self, path: impl AsRef<Path>, n: u64) -> Result<AuditState> {
        let path = &local_path(path)?;
        self.stop.check_hits()?;
        let Some(threshold) = self.stop.hit else {
            let reason = "audit: the run has no threshold of a hit; pass --hit, or set stop.hit in the run file";
            return Err(Error::Config(reason.into()));
        };
        if n == 0 {
            return Err(Error::Config("audit: expected at least 1 item to draw, found 0".into()));
        }
        let mut log = SearchLog::resume(path)?;
        self.check_compatible(&log)?;
        self.check_scorer_files(&log)?;
        if log.iterations().is_empty() {
            return Err(Error::input(path, "has no complete iteration to audit; resume the run first"));
        }
        self.check_stages(&log.queries(0)?)?;
        self.begin(&log)?;
        log.record_scorer_files(&self.scorer_files.hashes)?;
        for iteration in log.iterations().to_vec() {
            self.ledger.replay(iteration, log.results(iteration)?)?;
        }
        let unscored = self.unscored_items()?;
        let drawn = draw(&unscored, self.seed, n);
        let items = self.database.take(&drawn)?;
        let scored = match self.ledger.score_audit(&self.score, items) {
            Err(Error::Pending { .. }) => {
                return Ok(AuditState::Pending(self.ledger.manual_items.take().unwrap_or_default()));
            }
            scored => scored?,
        };
        let min_score = min_score(threshold, self.ledger.minimize);
        let outcomes = schema::column("audit", &scored, OUTCOME)?.str().wrap_err("audit")?;
        let outcomes = DrawnOutcomes {
            drawn: drawn.len() as u64,
            failed: outcomes.iter().filter(|outcome| *outcome == Some(Outcome::Failed.name())).count() as u64,
            hits: hit_count(&scored, min_score)?,
        };
        let found = hit_count(&collect(log.compile_results()?)?, min_score)?;
        let audit = Audit::new(threshold, self.ledger.evaluations(), found, unscored.len() as u64, outcomes);
        let mut items = scored.drop_many([EMBEDDING]);
        let draws: Vec<u64> = (1..=drawn.len() as u64).collect();
        items.insert_column(0, Column::new("draw".into(), draws)).wrap_err("audit")?;
        log.record_audit(audit, &items)?;
        Ok(AuditState::Complete { audit, items })
    }

    /// As [`Runner::audit`], with manual scores of some or all drawn items: `db_idx` and `score`, as for [`Runner::tell`].
    ///
    /// # Errors
    /// As [`Runner::audit`]; a score other than [`ManualScore`](crate::ManualScore).
    pub fn tell_audit(&mut self, path: impl AsRef<Path>, n: u64, scores: &DataFrame) -> Result<AuditState> {
        if !self.score.tell(&without_unavailable(scores)?) {
            let reason = "audit: this run has a scorer, so it takes no manual scores; call the audit without scores";
            return Err(Error::Config(reason.into()));
        }
        self.audit(path, n)
    }
}

/// The `n` items with the smallest random keys, in the order of their keys.
fn draw(items: &[u64], seed: u64, n: u64) -> Vec<u64> {
    let key = |item: u64| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(b"audit").update(&item.to_le_bytes());
        let hash = hasher.finalize();
        hash.as_bytes()[..8].iter().fold(0, |key, byte| key << 8 | u64::from(*byte))
    };
    let mut keyed: Vec<(u64, u64)> = items.iter().map(|item| (key(*item), *item)).collect();
    keyed.sort_unstable();
    keyed.truncate(usize::try_from(n).unwrap_or(usize::MAX));
    keyed.into_iter().map(|(_, item)| item).collect()
}

/// The number of rows whose score is a hit.
fn hit_count(scored: &DataFrame, min_score: f64) -> Result<u64> {
    let scores = schema::nullable_f64s(scored, SCORE)?;
    Ok(scores.iter().filter(|score| score.is_some_and(|score| score >= min_score)).count() as u64)
}
