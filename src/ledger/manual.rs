//! Manual scores in the ledger. They are recorded like those of a scorer. Items without a score stay pending.

use std::collections::HashSet;

use polars::prelude::*;

use super::Ledger;
use crate::error::{Error, Result};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX, OUTCOME, SCORE};
use crate::score::{Score, given_items, numbers, score_request};

impl Ledger {
    /// Records the given scores of the items.
    ///
    /// # Errors
    /// [`Error::Pending`] if some items have no given score.
    pub(super) fn record_manual_scores(&mut self, score: &dyn Score, items: &DataFrame) -> Result<()> {
        // Remove the columns of the items, so that they do not count as parts of the score.
        let sent_columns = schema::column_names(items).into_iter().filter(|name| *name != DB_IDX);
        let given = score.score(items)?.drop_many(sent_columns.map(str::to_string));
        // Scores of items with an outcome are skipped. A warning lists those that differ.
        let (ids, new_rows) = given_items(&given, |item| self.has_outcome(item))?;
        self.warn_conflicting_scores(&ids, &given);
        let given_ids: HashSet<u64> = ids.into_iter().collect();
        let (mut rows, mut pending) = (Vec::new(), Vec::new());
        for (row, item) in (0u32..).zip(schema::u64s(items, DB_IDX)?) {
            if given_ids.contains(&item) { rows.push(row) } else { pending.push(row) }
        }
        if !new_rows.is_empty() {
            let given = convert::gather(&given, &new_rows)?;
            let given = |_: &DataFrame| Ok(given.clone());
            let ordinals = self.ordinals(items)?;
            score_request(&given, &convert::gather(items, &rows)?, &mut |answers| {
                self.store().write(&answers, &ordinals, true)
            })?;
        }
        if pending.is_empty() {
            return Ok(());
        }
        self.manual_items = Some(convert::gather(items, &pending)?);
        Err(Error::Pending { items: pending.len() })
    }

    fn has_outcome(&self, item: u64) -> bool {
        self.store().answers.outcome(item).is_some()
    }

    /// The items of given scores that have no outcome in this run.
    pub(crate) fn unrequested_items(&self, given: &DataFrame) -> Result<Vec<u64>> {
        let (ids, new_rows) = given_items(given, |item| self.has_outcome(item))?;
        self.warn_conflicting_scores(&ids, given);
        Ok(new_rows.into_iter().map(|row| ids[row as usize]).collect())
    }

    /// Warns about given scores of items that have a different outcome.
    fn warn_conflicting_scores(&self, ids: &[u64], given: &DataFrame) {
        let Ok(scores) = numbers(given, SCORE) else { return };
        let (store, outcomes) = (self.store(), given.column(OUTCOME).and_then(|outcomes| outcomes.str()).ok());
        let conflict = |(row, (item, given)): (usize, (&u64, Option<f64>))| {
            let (outcome, given) = (store.answers.outcome(*item)?, given.filter(|given| given.is_finite())?);
            let score = store.answers.score(*item);
            let is_same =
                score == Some(given) || outcomes.and_then(|outcomes| outcomes.get(row)) == Some(outcome.name());
            (!is_same).then(|| (*item, score.map_or(outcome.name().into(), |score| score.to_string()), given))
        };
        let conflicts: Vec<(u64, String, f64)> = ids.iter().zip(scores).enumerate().filter_map(conflict).collect();
        if let Some((item, kept, given)) = conflicts.first() {
            log::warn!(
                "{} items already have another score or none, which is kept: item {item} has {kept}, not {given}; to use corrected \
                 scores, start a new run with score.reuse",
                conflicts.len()
            );
        }
    }
}
