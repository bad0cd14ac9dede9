//! The stages of an iteration. Each stage checks the frame that user code returns.

use std::time::Instant;

use polars::prelude::DataFrame;

use super::{Batch, Runner};
use crate::candidates;
use crate::database::QueryOptions;
use crate::error::Result;
use crate::filter::check_subset;
use crate::frame::schema::{self, DB_IDX};
use crate::ledger::ScoreJob;
use crate::prediction;
use crate::select::Selector;
use crate::step::Step;

/// The selected rows, and their predictions if the selector has a model.
type Selection = (DataFrame, Option<DataFrame>);

impl Runner {
    /// The neighbours of the queries, and the candidates that the rule adds to them.
    pub(super) fn query(&self, queries: &DataFrame) -> Result<DataFrame> {
        let database = &*self.database;
        let exclude = (!self.rule.revisits()).then(|| self.ledger.requested());
        let columns = self.candidate_columns();
        let options = QueryOptions { k: self.rule.k(queries.height()), exclude, columns: columns.as_deref() };
        let neighbours = database.query(queries, options)?;
        let results = candidates::merge_candidates(neighbours, self.rule.candidates(), queries, options, database)?;
        schema::check_results("database", &results, database.dim())?;
        Ok(results)
    }

    /// The candidates that pass the filter.
    pub(super) fn apply_filter(&self, candidates: &DataFrame) -> Result<DataFrame> {
        let passed = self.filter.filter(candidates.clone())?;
        check_subset("filter", candidates, &passed)?;
        Ok(passed)
    }

    /// The candidates to score, with all their attributes, and the selector's predictions.
    pub(super) fn apply_select(&self, iteration: u32, queries: &DataFrame, passed: DataFrame) -> Result<Selection> {
        let Some(selector) = self.selector() else { return Ok((passed, None)) };
        let (database, seed) = (&*self.database, self.seed);
        let step = Step { iteration, queries, results: &passed, pending: &[], database, seed, is_replay: false };
        let (selected, predictions) = prediction::split_predictions(selector.select(&step)?)?;
        check_subset("select", &passed, &selected)?;
        let selected = match self.candidate_columns() {
            Some(_) => candidates::fetch_attributes(&selected, queries, database)?,
            None => selected,
        };
        Ok((selected, predictions))
    }

    /// Reserves the items in the ledger and requests their scores. Waits for the scores unless `is_async`.
    pub(super) fn request_scores(&mut self, iteration: u32, selected: DataFrame, is_async: bool) -> Result<ScoreJob> {
        let job = self.ledger.plan(&*self.score, selected, self.stop.evaluations)?;
        if let Err(error) = self.ledger.submit(&self.score, iteration, &job, is_async) {
            self.ledger.cancel(&job);
            return Err(error);
        }
        Ok(job)
    }

    /// Whether each row of a selected batch is within the budget.
    pub(super) fn rows_within_budget(&self, batch: &Batch) -> Result<Vec<bool>> {
        let items = schema::u64s(&batch.visible_results()?, DB_IDX)?;
        Ok(self.ledger.within_budget(&items, self.stop.evaluations))
    }

    /// Passes the scores of a batch to the rule.
    pub(super) fn observe(&mut self, batch: &mut Batch) -> Result<()> {
        let mut seconds = 0.0;
        let (frame, database) = (batch.visible_results()?, &*self.database);
        timed(&mut seconds, || self.rule.observe(&batch.step(&frame, &[], database, self.seed)))?;
        batch.summary.times.update += seconds;
        Ok(())
    }

    /// The rule's queries for the iteration after a batch. The `pending` frames have no scores yet.
    pub(super) fn update(&mut self, batch: &mut Batch, pending: &[DataFrame]) -> Result<DataFrame> {
        let mut seconds = 0.0;
        let (frame, database) = (batch.visible_results()?, &*self.database);
        let queries = timed(&mut seconds, || self.rule.update(&batch.step(&frame, pending, database, self.seed)))?;
        schema::check_queries(&queries, database.dim())?;
        batch.summary.times.update += seconds;
        Ok(queries)
    }

    /// The configured selector, or else that of the rule.
    fn selector(&self) -> Option<&dyn Selector> {
        self.selector.as_deref().or_else(|| self.rule.selector())
    }

    /// The attributes that the filter and the selector read. The other attributes are fetched only for the selected items.
    /// `None`: all attributes of all candidates are fetched.
    fn candidate_columns(&self) -> Option<Vec<String>> {
        self.selector().and_then(|selector| Some([self.filter.columns_read()?, selector.columns_read()?].concat()))
    }
}

/// Runs a stage and adds the time it takes to `seconds`.
pub(super) fn timed<T>(seconds: &mut f64, stage: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = stage();
    *seconds += start.elapsed().as_secs_f64();
    result
}
