//! Scores that are told by hand: taken like those that a scorer gives; items without one wait.

use std::collections::HashSet;

use polars::prelude::*;

use super::Ledger;
use crate::bridge;
use crate::error::{Error, Result};
use crate::schema::{self, DB_IDX, SCORE};
use crate::score::{Score, ask, items_told, number};

impl Ledger {
    /// Takes what was told of the items; the others wait.
    pub(super) fn take_told(&mut self, score: &dyn Score, items: &DataFrame) -> Result<()> {
        // What was asked with the items and comes back is no part of the score.
        let asked_with = schema::names(items).into_iter().filter(|name| *name != DB_IDX);
        let told = score.score(items)?.drop_many(asked_with.map(str::to_string));
        // Told again what is known already: no harm, if it is the same.
        let (ids, news) = items_told(&told, |item| self.store().answers.outcome(item).is_some())?;
        self.name_other_scores(&ids, &told);
        let known: HashSet<u64> = ids.into_iter().collect();
        let (mut rows, mut open) = (Vec::new(), Vec::new());
        for (row, item) in (0u32..).zip(schema::u64s(items, DB_IDX)?) {
            if known.contains(&item) { rows.push(row) } else { open.push(row) }
        }
        if !news.is_empty() {
            let told = bridge::gather(&told, &news)?;
            let told = |_: &DataFrame| Ok(told.clone());
            let ordinals = self.ordinals(items)?;
            ask(&told, &bridge::gather(items, &rows)?, &mut |answers| self.store().keep(&answers, &ordinals, true))?;
        }
        if open.is_empty() {
            return Ok(());
        }
        self.waiting = Some(bridge::gather(items, &open)?);
        Err(Error::Waiting { items: open.len() })
    }

    /// Names a score that was told of an item whose score is another one.
    fn name_other_scores(&self, ids: &[u64], told: &DataFrame) {
        let Ok(scores) = number(told, SCORE) else { return };
        let store = self.store();
        let other = |(item, told): (&u64, Option<f64>)| {
            let (stands, told) = (store.answers.score(*item)?, told?);
            (stands != told).then_some((*item, stands, told))
        };
        let others: Vec<(u64, f64, f64)> = ids.iter().zip(scores).filter_map(other).collect();
        if let Some((item, stands, told)) = others.first() {
            log::warn!(
                "{} items were told before, with another score, which stands: item {item} has {stands}, not {told}; a new run \
                 takes corrected scores by score.reuse",
                others.len()
            );
        }
    }
}
