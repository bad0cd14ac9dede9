//! Manual scores in the ledger: recorded like those of a scorer; items without a score stay pending.

use std::collections::HashSet;

use polars::prelude::*;

use super::Ledger;
use crate::error::{Error, Result};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX, OUTCOME, SCORE};
use crate::score::{Score, ask, items_told, number};

impl Ledger {
    /// Records the scores that were given for the items; the others stay pending.
    pub(super) fn take_told(&mut self, score: &dyn Score, items: &DataFrame) -> Result<()> {
        // Columns that were sent with the items are not parts of the score.
        let asked_with = schema::column_names(items).into_iter().filter(|name| *name != DB_IDX);
        let told = score.score(items)?.drop_many(asked_with.map(str::to_string));
        // Scores of items that have an outcome are skipped, which is harmless if they are equal.
        let (ids, news) = items_told(&told, |item| self.is_known(item))?;
        self.name_other_scores(&ids, &told);
        let known: HashSet<u64> = ids.into_iter().collect();
        let (mut rows, mut open) = (Vec::new(), Vec::new());
        for (row, item) in (0u32..).zip(schema::u64s(items, DB_IDX)?) {
            if known.contains(&item) { rows.push(row) } else { open.push(row) }
        }
        if !news.is_empty() {
            let told = convert::gather(&told, &news)?;
            let told = |_: &DataFrame| Ok(told.clone());
            let ordinals = self.ordinals(items)?;
            ask(&told, &convert::gather(items, &rows)?, &mut |answers| self.store().keep(&answers, &ordinals, true))?;
        }
        if open.is_empty() {
            return Ok(());
        }
        self.waiting = Some(convert::gather(items, &open)?);
        Err(Error::Pending { items: open.len() })
    }

    fn is_known(&self, item: u64) -> bool {
        self.store().answers.outcome(item).is_some()
    }

    /// The items of given scores that have no outcome in this run.
    pub(crate) fn told_in_vain(&self, told: &DataFrame) -> Result<Vec<u64>> {
        let (ids, news) = items_told(told, |item| self.is_known(item))?;
        self.name_other_scores(&ids, told);
        Ok(news.into_iter().map(|row| ids[row as usize]).collect())
    }

    /// Warns about given scores of items that have a different outcome.
    fn name_other_scores(&self, ids: &[u64], told: &DataFrame) {
        let Ok(scores) = number(told, SCORE) else { return };
        let (store, said) = (self.store(), told.column(OUTCOME).and_then(|said| said.str()).ok());
        let other = |(row, (item, told)): (usize, (&u64, Option<f64>))| {
            let (stands, told) = (store.answers.outcome(*item)?, told.filter(|told| told.is_finite())?);
            let score = store.answers.score(*item);
            let is_same = score == Some(told) || said.and_then(|said| said.get(row)) == Some(stands.name());
            (!is_same).then(|| (*item, score.map_or(stands.name().into(), |score| score.to_string()), told))
        };
        let others: Vec<(u64, String, f64)> = ids.iter().zip(scores).enumerate().filter_map(other).collect();
        if let Some((item, stands, told)) = others.first() {
            log::warn!(
                "{} items already have another score or none, which is kept: item {item} has {stands}, not {told}; to use corrected \
                 scores, start a new run with score.reuse",
                others.len()
            );
        }
    }
}
