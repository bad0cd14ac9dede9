//! Scores of items that are not part of the search: those that an audit draws.

use std::sync::Arc;

use polars::prelude::DataFrame;

use super::folder::LedgerFolder;
use super::{Ledger, columns_to_score};
use crate::error::Result;
use crate::frame::schema::{self, DB_IDX};
use crate::score::{Score, SumScore};

/// The iteration whose frame shows the parts of an audit's scores: after all iterations of a run.
const AFTER_ALL: u32 = u32::MAX;

impl Ledger {
    /// Scores items (`db_idx`, `embedding`, attributes) that the search has not requested, and returns them with their answers. The
    /// answers to paid scores are durable in the ledger folder, without an ordinal. If the search requests an item later, it uses
    /// this answer. Items with a stored answer or a reused score are not scored again.
    ///
    /// # Errors
    /// As for the items of a search. [`Error::Pending`](crate::Error::Pending) if items need manual scores.
    pub(crate) fn score_audit(&mut self, score: &Arc<dyn Score>, items: DataFrame) -> Result<DataFrame> {
        let parts = score.as_sum().map(SumScore::names).unwrap_or_default();
        let ids = schema::u64s(&items, DB_IDX)?;
        let free = self.take_free(&**score, &ids, &items)?;
        let is_unknown = |id: &u64| !free.contains(id) && self.store().answers.outcome(*id).is_none();
        let unknown: Vec<u32> = (0..).zip(&ids).filter(|(_, id)| is_unknown(id)).map(|(row, _)| row).collect();
        self.score_now(score, &columns_to_score(&items, &unknown)?)?;
        let mut store = self.store();
        store.folder.as_mut().map_or(Ok(()), LedgerFolder::create_first_file)?;
        store.answers.show_parts(AFTER_ALL, &ids, &parts);
        store.answers.add_scores(AFTER_ALL, items, self.minimize)
    }
}
