//! Scores that are told by hand: taken like those that a scorer gives; items without one wait.

use std::collections::HashSet;

use polars::prelude::*;

use super::Ledger;
use crate::error::{Error, Result};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX, OUTCOME, SCORE};
use crate::score::{Score, ask, items_told, number};

impl Ledger {
    /// Takes what was told of the items; the others wait.
    pub(super) fn take_told(&mut self, score: &dyn Score, items: &DataFrame) -> Result<()> {
        // What was asked with the items and comes back is no part of the score.
        let asked_with = schema::names(items).into_iter().filter(|name| *name != DB_IDX);
        let told = score.score(items)?.drop_many(asked_with.map(str::to_string));
        // Told again what is known already: no harm, if it is the same.
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
        Err(Error::Waiting { items: open.len() })
    }

    fn is_known(&self, item: u64) -> bool {
        self.store().answers.outcome(item).is_some()
    }

    /// The items of told scores that this run has no outcome of.
    pub(crate) fn told_in_vain(&self, told: &DataFrame) -> Result<Vec<u64>> {
        let (ids, news) = items_told(told, |item| self.is_known(item))?;
        self.name_other_scores(&ids, told);
        Ok(news.into_iter().map(|row| ids[row as usize]).collect())
    }

    /// Names a score that was told of an item whose outcome is another one.
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
                "{} items were told before, with another score or none, which stands: item {item} has {stands}, not {told}; a \
                 new run takes corrected scores by score.reuse",
                others.len()
            );
        }
    }
}
