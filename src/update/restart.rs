//! Random restarts: queries that find no new items restart at random items.

use std::collections::{HashMap, HashSet};

use polars::prelude::{Column, DataFrame};

use super::{SearchContext, UpdateRule};
use crate::error::{Error, Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX, EMBEDDING, PARENT_IDX, QUERY_IDX};
use crate::step::Step;

/// A rule with random restarts. A query restarts at a random item of the library after a number of iterations in a row in
/// which it and its ancestors found no new item. An item is new if no query of the run has found it before.
///
/// A restarted query keeps its `query_idx` and `collection_idx`, but has no parent, because it starts a new path.
/// A local search ends at the nearest local maximum. Restarts let it find others.
pub struct RestartUpdate {
    max_idle: u32,
    rule: Box<dyn UpdateRule>,
    /// The items that any query of the run has found.
    found: HashSet<u64>,
    /// For each query of the last committed iteration, the number of iterations in a row without a new item.
    idle_iterations: HashMap<u32, u32>,
}

impl RestartUpdate {
    /// Restarts the queries of a rule after a number of iterations without a new item.
    pub fn new(after: u32, rule: impl UpdateRule + 'static) -> Self {
        RestartUpdate { max_idle: after, rule: Box::new(rule), found: HashSet::new(), idle_iterations: HashMap::new() }
    }

    /// The value of `idle_iterations` after a step.
    fn idle_after(&self, step: &Step<'_>) -> Result<HashMap<u32, u32>> {
        let results = schema::u32s(step.results, QUERY_IDX)?.into_iter().zip(schema::u64s(step.results, DB_IDX)?);
        let active: HashSet<u32> =
            results.filter(|(_, item)| !self.found.contains(item)).map(|(query, _)| query).collect();
        let parents = schema::nullable_u32s(step.queries, PARENT_IDX)?;
        let idle = schema::u32s(step.queries, QUERY_IDX)?.into_iter().zip(parents).map(|(query, parent)| {
            let before = parent.and_then(|parent| self.idle_iterations.get(&parent)).copied().unwrap_or(0);
            (query, if active.contains(&query) { 0 } else { before + 1 })
        });
        Ok(idle.collect())
    }
}

impl UpdateRule for RestartUpdate {
    fn inner(&self) -> Option<&dyn UpdateRule> {
        Some(&*self.rule)
    }

    fn check(&self) -> Result<()> {
        match self.max_idle {
            0 => Err(Error::Config("restart.after: expected at least 1, found 0".into())),
            _ => self.rule.check(),
        }
    }

    fn begin(&mut self, context: &SearchContext<'_>) -> Result<()> {
        self.found.clear();
        self.idle_iterations.clear();
        self.rule.begin(context)
    }

    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        self.idle_iterations = self.idle_after(step)?;
        self.found.extend(schema::u64s(step.results, DB_IDX)?);
        self.rule.observe(step)
    }

    fn observes_embeddings(&self) -> bool {
        self.rule.observes_embeddings()
    }

    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        self.check()?;
        let next = self.rule.update(step)?;
        let mut parents = schema::nullable_u32s(&next, PARENT_IDX)?;
        let is_idle = |parent: &Option<u32>| {
            parent.is_some_and(|parent| self.idle_iterations.get(&parent) >= Some(&self.max_idle))
        };
        let idle_rows: Vec<usize> = (0..parents.len()).filter(|row| is_idle(&parents[*row])).collect();
        if idle_rows.is_empty() {
            return Ok(next);
        }
        let items = step.database.sample(idle_rows.len(), &mut step.rng("restart", 0))?;
        let items = step.database.take_columns(&items, &[])?;
        let embeddings = convert::matrix::<f32>(&items, EMBEDDING)?;
        let mut vectors = convert::matrix::<f64>(&next, EMBEDDING)?.view().to_owned();
        // If the library has fewer items than there are idle queries, the remaining queries stay.
        for (row, embedding) in idle_rows.into_iter().zip(embeddings.view().rows()) {
            vectors.row_mut(row).assign(&embedding.mapv(f64::from));
            parents[row] = None;
        }
        let mut restarted = next;
        restarted.with_column(convert::embedding_column(vectors.view())?).wrap_err("restart")?;
        restarted.with_column(Column::new(PARENT_IDX.into(), parents)).wrap_err("restart")?;
        Ok(restarted)
    }
}
