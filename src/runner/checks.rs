//! Checks before a search, which find mistakes before the first evaluation.

use polars::prelude::DataFrame;

use super::Runner;
use crate::database::QueryOptions;
use crate::error::Result;
use crate::frame::schema;
use crate::update::SearchContext;

impl Runner {
    /// Checks the settings of all stages with frames without rows. Returns two such frames: the one that the filter receives,
    /// and the one that the score receives. Writes no files and calls no scorer.
    ///
    /// # Errors
    /// Any error that would stop the search before its first iteration.
    pub fn check_stages(&self, queries: &DataFrame) -> Result<[DataFrame; 2]> {
        schema::check_queries(queries, self.database.dim())?;
        self.stop.check_hits()?;
        self.rule.check()?;
        let results = self.database.query(&queries.head(Some(0)), QueryOptions::default())?;
        self.filter.check(&results)?;
        let items = results.drop_many([schema::QUERY_IDX, schema::DISTANCE]);
        self.score.check(&items)?;
        Ok([results, items])
    }

    /// The attributes that the filter and the score read, as far as these are known.
    pub(crate) fn columns_read(&self) -> Vec<String> {
        self.filter.columns_read().unwrap_or_default().into_iter().chain(self.score.columns_read()).collect()
    }

    /// Checks the stages and prepares the rule for a search that was started with this budget and this threshold of a hit.
    pub(super) fn prepare(
        &mut self,
        queries: &DataFrame,
        planned_budget: Option<u64>,
        planned_hit: Option<f64>,
    ) -> Result<()> {
        self.check_stages(queries)?;
        let (database, columns_read) = (&*self.database, self.columns_read());
        let reused = self.ledger.reused_items(database)?;
        let context =
            SearchContext { database, columns_read: &columns_read, reused: &reused, planned_budget, planned_hit };
        self.rule.begin(&context)
    }
}
