//! Explaining items of a run: replays it, without scoring or writing anything, up to the model that chose each item.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::Path;

use polars::prelude::{Column, DataFrame, DataType, IdxCa, by_name};

use super::Runner;
use crate::error::{Error, Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::{self, CHOSEN_BY, DB_IDX, DEVIATION, EVALUATION, ITERATION, PREDICTED, SCORE};
use crate::log::{SearchLog, collect};
use crate::update::SearchContext;

/// How far a replayed prediction may be from the logged one, in deviations: much more than rounding.
const TOLERANCE: f64 = 1e-6;

impl Runner {
    /// Explains what the model of the rule predicts of items: the scored items and the feature groups that the prediction comes
    /// from. An item of the run is explained by the model that chose it, any other item of the library by the model after the
    /// last iteration. For this, the run is replayed. Nothing is scored or written, and another process may continue the run.
    ///
    /// The rows of an item are the five scored items that contribute most to its prediction, and then one row for all the others
    /// together. An item that no model chose, such as those of the random start, has one row without a prediction.
    ///
    /// | column | |
    /// |---|---|
    /// | `db_idx` u64 | the item |
    /// | `iteration` u32, `chosen_by` string, `score` f64 | as in the log; null for an item that has no score yet |
    /// | `predicted` f64, `deviation` f64 | the expected score and its standard deviation, as in the log |
    /// | `posterior_mean` f64 | the prediction in standard deviations of the model's targets: the sum of the contributions |
    /// | `neighbour_idx` u64, `neighbour_score` f64 | the scored item; null for all the others together |
    /// | `contribution` f64 | its target times its weight in `posterior_mean`, which is large if it is near the item and few others are |
    /// | `share` f64 | the absolute contribution, as a share of those of all scored items |
    /// | `distance` f64 | its squared distance from the item, as the model measures it; 1 is the median of two scored items |
    /// | `distance_share_…` f64 | the share of a feature group in that distance: of the `embedding`, and of each column |
    ///
    /// # Errors
    /// A rule without a model; items that the library does not have; a run with another seed or library.
    pub fn explain(&mut self, path: impl AsRef<Path>, items: &[u64]) -> Result<DataFrame> {
        let log = &mut SearchLog::open(path)?;
        self.check_compatible(log)?;
        let logged = LoggedItems::read(log)?;
        self.begin_replay(log, &logged)?;
        let iterations = log.iterations().to_vec();
        // An item is explained when the iterations before its own are replayed, or all of them.
        let mut items_by_end: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        let mut position_of_item = HashMap::new();
        for item in items {
            let next = position_of_item.len();
            if position_of_item.insert(*item, next).is_none() {
                let own = logged.iteration(*item).unwrap_or(u32::MAX);
                items_by_end.entry(iterations.partition_point(|earlier| *earlier < own)).or_default().push(*item);
            }
        }
        // Without items at first: a rule without a model fails before the replay.
        let mut explained = self.explain_now(&[], &logged)?;
        let (mut progress, mut in_flight, mut replayed) = (self.progress(0), VecDeque::new(), 0);
        for (end, items) in items_by_end {
            self.replay_iterations(&iterations[replayed..end], log, &mut progress, &mut in_flight)?;
            replayed = end;
            explained.vstack_mut(&self.explain_now(&items, &logged)?).wrap_err("explain")?;
        }
        logged.check_predictions(log, &explained)?;
        let items = schema::u64s(&explained, DB_IDX)?;
        let mut order: Vec<u32> = (0..explained.height() as u32).collect();
        order.sort_by_key(|row| position_of_item.get(&items[*row as usize]));
        convert::gather(&explained, &order)
    }

    /// Resets the ledger and the rule, without the ledger folder and the scorer.
    pub(super) fn begin_replay(&mut self, log: &SearchLog, logged: &LoggedItems) -> Result<()> {
        self.ledger.clear();
        self.rule.check()?;
        let (database, columns_read) = (&*self.database, self.columns_read());
        let (reused, manifest) = (logged.reused()?, log.manifest());
        let (planned_budget, planned_hit) = (manifest.planned_budget, manifest.planned_hit);
        let context =
            SearchContext { database, columns_read: &columns_read, reused: &reused, planned_budget, planned_hit };
        self.rule.begin(&context)
    }

    /// Explains items by the model as it is now.
    fn explain_now(&self, items: &[u64], logged: &LoggedItems) -> Result<DataFrame> {
        let mut unexplained = self.database.take_columns(items, &[])?;
        unexplained.with_column(logged.column(CHOSEN_BY, items)?).wrap_err("explain")?;
        let no_model = || {
            let reason = "explain: the rule of this run has no model of the scores; only items of the rule `surrogate` have an \
                          explanation";
            Error::Config(reason.into())
        };
        let mut explained = self.rule.explain(&unexplained)?.ok_or_else(no_model)?;
        let items = schema::u64s(&explained, DB_IDX)?;
        for (position, name) in [ITERATION, CHOSEN_BY, SCORE].into_iter().enumerate() {
            explained.insert_column(1 + position, logged.column(name, &items)?).wrap_err("explain")?;
        }
        Ok(explained)
    }
}

/// The items of a log, each once, with the columns that an explanation needs.
pub(super) struct LoggedItems {
    frame: DataFrame,
    row_of_item: HashMap<u64, u32>,
    iterations: Vec<u32>,
}

impl LoggedItems {
    pub(super) fn read(log: &SearchLog) -> Result<Self> {
        // Runs of earlier formats have no predictions, and a run without an iteration has no columns.
        let columns = [
            (DB_IDX, DataType::UInt64),
            (ITERATION, DataType::UInt32),
            (SCORE, DataType::Float64),
            (EVALUATION, DataType::UInt64),
            (PREDICTED, DataType::Float64),
            (DEVIATION, DataType::Float64),
            (CHOSEN_BY, DataType::String),
        ];
        let names = by_name(columns.iter().map(|(name, _)| *name), false, false);
        let found = collect(log.compile_results()?.select([names.as_expr()]))?;
        let column = |(name, dtype): &(&str, DataType)| match found.column(name) {
            Ok(column) => column.cast(dtype).wrap_err(log.path().display()),
            Err(_) => Ok(Column::full_null((*name).into(), found.height(), dtype)),
        };
        let columns = columns.iter().map(column).collect::<Result<Vec<_>>>()?;
        let frame = DataFrame::new(found.height(), columns).wrap_err(log.path().display())?;
        let row_of_item = schema::u64s(&frame, DB_IDX)?.into_iter().zip(0..).collect();
        let iterations = schema::u32s(&frame, ITERATION)?;
        Ok(LoggedItems { frame, row_of_item, iterations })
    }

    /// The iteration of an item.
    fn iteration(&self, item: u64) -> Option<u32> {
        self.row_of_item.get(&item).map(|row| self.iterations[*row as usize])
    }

    /// The values of a column for items. Null for those that the log does not have.
    fn column(&self, name: &str, items: &[u64]) -> Result<Column> {
        let rows: IdxCa = items.iter().map(|item| self.row_of_item.get(item).copied()).collect();
        schema::column("explain", &self.frame, name)?.take(&rows).wrap_err("explain")
    }

    /// The items with a reused score: the ones with a score that cost nothing. Their sources may be gone.
    fn reused(&self) -> Result<Vec<u64>> {
        let items = schema::u64s(&self.frame, DB_IDX)?.into_iter();
        let costs = schema::nullable_u64s(&self.frame, EVALUATION)?.into_iter();
        let scores = schema::nullable_f64s(&self.frame, SCORE)?.into_iter();
        let is_reused = |(cost, score): (Option<u64>, Option<f64>)| cost.is_none() && score.is_some();
        Ok(items.zip(costs.zip(scores)).filter(|(_, row)| is_reused(*row)).map(|(item, _)| item).collect())
    }

    /// Warns if the replayed model predicts something else than the model that chose the items.
    fn check_predictions(&self, log: &SearchLog, explained: &DataFrame) -> Result<()> {
        let items = schema::u64s(explained, DB_IDX)?;
        let logged = schema::nullable_f64s(&self.frame, PREDICTED)?;
        let deviations = schema::nullable_f64s(&self.frame, DEVIATION)?;
        let differs = |(item, now): (&u64, Option<f64>)| {
            let row = *self.row_of_item.get(item)? as usize;
            let (now, then, deviation) = (now?, logged[row]?, deviations[row]?);
            ((now - then).abs() > TOLERANCE * deviation).then_some((*item, now, then))
        };
        let differences: Vec<(u64, f64, f64)> =
            items.iter().zip(schema::nullable_f64s(explained, PREDICTED)?).filter_map(differs).collect();
        if let Some((item, now, then)) = differences.first() {
            let count = differences.iter().map(|(item, ..)| item).collect::<HashSet<_>>().len();
            let why = match log.manifest().has_retried_items {
                true => "failed items have got a score since".into(),
                false => format!("uphill {} made this run", log.manifest().uphill_version),
            };
            log::warn!(
                "the explanations of {count} items are not of the model that chose them: it predicted {then} for item {item}, the \
                 replayed model {now}; {why}"
            );
        }
        Ok(())
    }
}
