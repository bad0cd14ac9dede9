//! The items that a run has not judged, and their ranking by the model after the last iteration.

use std::collections::VecDeque;
use std::path::Path;

use ndarray::Axis;
use polars::prelude::{Column, DataFrame, DataType};

use super::Runner;
use super::explain::LoggedItems;
use crate::error::{Error, Result, WrapErr};
use crate::filter::check_subset;
use crate::frame::convert;
use crate::frame::schema::{self, CHOSEN_BY, DB_IDX, DEVIATION, DISTANCE, EMBEDDING, PREDICTED, QUERY_IDX};
use crate::log::SearchLog;
use crate::random::random_stream;

/// The number of items that are filtered or ranked at a time.
const BLOCK: usize = 4096;

impl Runner {
    /// Ranks the items of the library that the run neither scored, nor rejected, nor failed to score, and that pass the filter:
    /// the `n` items of the highest posterior mean, the best first. For this, the run is replayed, and the model after the last
    /// iteration predicts every such item of the library, however large it is. Nothing is scored or written, and another process
    /// may continue the run.
    ///
    /// The columns are `db_idx`, the attributes, and `predicted` and `deviation` as in the log. These are null for items whose
    /// expected score is too low for the model to quantify, but the items are ranked all the same.
    ///
    /// # Errors
    /// A rule without a model; a run that is still in the start of its rule and has no model yet; a run with another seed or
    /// library.
    pub fn rank_unscored(&mut self, path: impl AsRef<Path>, n: usize) -> Result<DataFrame> {
        let log = &mut SearchLog::open(path)?;
        self.check_compatible(log)?;
        self.begin_replay(log, &LoggedItems::read(log)?)?;
        self.check_has_model()?;
        let iterations = log.iterations().to_vec();
        let (mut progress, mut in_flight) = (self.progress(0), VecDeque::new());
        self.replay_iterations(&iterations, log, &mut progress, &mut in_flight)?;
        // With asynchronous batches, the model has not observed the last batches yet.
        let mut last = None;
        while let Some(batch) = self.complete_oldest(&mut in_flight, None)? {
            last = Some(batch);
        }
        if let Some(batch) = &mut last {
            self.next_queries(batch, &[], None)?;
        }
        let ranked = self.rank(&self.unscored_items()?, n)?;
        self.with_predictions(&ranked)
    }

    /// Fails if the rule has no model.
    fn check_has_model(&self) -> Result<()> {
        let no_items = self.database.take_columns(&[], &[])?;
        let no_items =
            no_items.hstack(&[Column::full_null(CHOSEN_BY.into(), 0, &DataType::String)]).wrap_err("items")?;
        match self.rule.explain(&no_items)? {
            Some(_) => Ok(()),
            None => Err(Error::Config(
                "unscored items: the rule of this run has no model of the scores; only runs of the rule `surrogate` rank them"
                    .into(),
            )),
        }
    }

    /// The ids of the items that have no outcome in the replayed run and that pass the filter, ascending.
    pub(super) fn unscored_items(&self) -> Result<Vec<u64>> {
        // All items, in any order.
        let mut items = self.database.sample(usize::MAX, &mut random_stream(self.seed, "all", 0, 0))?;
        items.retain(|item| !self.ledger.requested().contains(item));
        items.sort_unstable();
        let columns = self.filter.columns_read();
        if columns.as_ref().is_some_and(Vec::is_empty) {
            return Ok(items);
        }
        let is_of_query = |name: &&String| [QUERY_IDX, DISTANCE].contains(&name.as_str());
        if let Some(name) = columns.iter().flatten().find(is_of_query) {
            let reason = format!(
                "filter.sql reads `{name}`, which only the neighbours of a query have, so it cannot be applied to all items"
            );
            return Err(Error::Config(reason));
        }
        let mut passed = Vec::with_capacity(items.len());
        for block in items.chunks(BLOCK) {
            let candidates = self.as_candidates(block, columns.as_deref())?;
            let kept = self.filter.filter(candidates.clone())?;
            check_subset("filter", &candidates, &kept)?;
            passed.extend(schema::u64s(&kept, DB_IDX)?);
        }
        passed.sort_unstable();
        Ok(passed)
    }

    /// Items as a filter receives them: with these attributes, or with all of them.
    fn as_candidates(&self, items: &[u64], columns: Option<&[String]>) -> Result<DataFrame> {
        let mut frame = match columns {
            Some(columns) => self.database.take_columns(items, columns)?,
            None => self.database.take(items)?,
        };
        frame.insert_column(0, Column::new(QUERY_IDX.into(), vec![0u32; items.len()])).wrap_err("filter")?;
        frame.insert_column(2, Column::new(DISTANCE.into(), vec![0f32; items.len()])).wrap_err("filter")?;
        Ok(frame)
    }

    /// The `n` items of the highest posterior mean, the best first, of these items in ascending order.
    fn rank(&self, items: &[u64], n: usize) -> Result<Vec<u64>> {
        let mut best: Vec<(f64, u64)> = Vec::new();
        let keep_best = |best: &mut Vec<(f64, u64)>| {
            best.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            best.truncate(n);
        };
        self.database.scan(&mut |ids, embeddings| {
            let rows: Vec<usize> = (0..ids.len()).filter(|row| items.binary_search(&ids[*row]).is_ok()).collect();
            for rows in rows.chunks(BLOCK) {
                let ids: Vec<u64> = rows.iter().map(|row| ids[*row]).collect();
                let means = self
                    .rule
                    .posterior_means(&ids, embeddings.select(Axis(0), rows).view())?
                    .ok_or_else(no_model_yet)?;
                // Embeddings that are not finite have no mean. A search does not find them either.
                best.extend(means.into_iter().zip(ids).filter(|(mean, _)| mean.is_finite()));
                if best.len() > n.saturating_mul(2).saturating_add(BLOCK) {
                    keep_best(&mut best);
                }
            }
            Ok(())
        })?;
        keep_best(&mut best);
        Ok(best.into_iter().map(|(_, item)| item).collect())
    }

    /// Items with their attributes and predictions.
    fn with_predictions(&self, items: &[u64]) -> Result<DataFrame> {
        let mut frame = self.database.take(items)?;
        let unexplained = frame.select([DB_IDX, EMBEDDING]).wrap_err("items")?;
        let nulls = Column::full_null(CHOSEN_BY.into(), items.len(), &DataType::String);
        let explained =
            self.rule.explain(&unexplained.hstack(&[nulls]).wrap_err("items")?)?.ok_or_else(no_model_yet)?;
        // An explanation has several rows for an item.
        let ids = schema::u64s(&explained, DB_IDX)?;
        let first_rows: Vec<u32> =
            (0..ids.len()).filter(|row| *row == 0 || ids[*row] != ids[row - 1]).map(|row| row as u32).collect();
        let predictions = convert::gather(&explained, &first_rows)?;
        for name in [PREDICTED, DEVIATION] {
            frame.with_column(schema::column("explain", &predictions, name)?.clone()).wrap_err("items")?;
        }
        Ok(frame.drop_many([EMBEDDING]))
    }
}

fn no_model_yet() -> Error {
    let reason = "unscored items: the run has no model yet, because it is still in its random start; resume it with a larger \
                  budget, then rank them";
    Error::Config(reason.into())
}
