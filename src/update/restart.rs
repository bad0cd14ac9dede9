//! Queries that find nothing new any more begin again elsewhere.

use std::collections::{HashMap, HashSet};

use polars::prelude::{Column, DataFrame};

use super::{QueryUpdate, Start};
use crate::error::{Doing, Error, Result};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX, EMBEDDING, PARENT_IDX, QUERY_IDX};
use crate::step::Step;

/// A rule whose queries begin again, each at a random item of the library, once they and the queries that they come
/// from met nothing new for some iterations in a row. New is what no query of the run has met.
///
/// Such a query keeps its `query_idx` and `collection_idx`, but has no parent: another path begins.
/// Walks end on the nearest hill; this lets them look for another.
pub struct Restarting {
    after: u32,
    rule: Box<dyn QueryUpdate>,
    seen: HashSet<u64>,
    /// For each query of the last committed iteration, the iterations in a row without a new item.
    quiet: HashMap<u32, u32>,
}

impl Restarting {
    /// Queries of the rule begin again after so many iterations without a new item.
    pub fn new(after: u32, rule: impl QueryUpdate + 'static) -> Self {
        Restarting { after, rule: Box::new(rule), seen: HashSet::new(), quiet: HashMap::new() }
    }

    /// As [`Restarting::quiet`], after a step.
    fn quiet_after(&self, step: &Step<'_>) -> Result<HashMap<u32, u32>> {
        let met = schema::u32s(step.results, QUERY_IDX)?.into_iter().zip(schema::u64s(step.results, DB_IDX)?);
        let lively: HashSet<u32> = met.filter(|(_, item)| !self.seen.contains(item)).map(|(query, _)| query).collect();
        let parents = schema::nullable_u32s(step.queries, PARENT_IDX)?;
        let quiet = schema::u32s(step.queries, QUERY_IDX)?.into_iter().zip(parents).map(|(query, parent)| {
            let before = parent.and_then(|parent| self.quiet.get(&parent)).copied().unwrap_or(0);
            (query, if lively.contains(&query) { 0 } else { before + 1 })
        });
        Ok(quiet.collect())
    }
}

impl QueryUpdate for Restarting {
    fn inner(&self) -> Option<&dyn QueryUpdate> {
        Some(&*self.rule)
    }

    fn check(&self) -> Result<()> {
        match self.after {
            0 => Err(Error::Config("restart.after: expected at least 1, found 0".into())),
            _ => self.rule.check(),
        }
    }

    fn begin(&mut self, start: &Start<'_>) -> Result<()> {
        self.seen.clear();
        self.quiet.clear();
        self.rule.begin(start)
    }

    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        self.quiet = self.quiet_after(step)?;
        self.seen.extend(schema::u64s(step.results, DB_IDX)?);
        self.rule.observe(step)
    }

    fn observes_embeddings(&self) -> bool {
        self.rule.observes_embeddings()
    }

    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        self.check()?;
        let next = self.rule.update(step)?;
        let mut parents = schema::nullable_u32s(&next, PARENT_IDX)?;
        let is_stuck = |parent: &Option<u32>| parent.is_some_and(|parent| self.quiet.get(&parent) >= Some(&self.after));
        let stuck: Vec<usize> = (0..parents.len()).filter(|row| is_stuck(&parents[*row])).collect();
        if stuck.is_empty() {
            return Ok(next);
        }
        let items = step.database.sample(stuck.len(), &mut step.rng("restart", 0))?;
        let items = step.database.take_columns(&items, &[])?;
        let places = convert::matrix::<f32>(&items, EMBEDDING)?;
        let mut vectors = convert::matrix::<f64>(&next, EMBEDDING)?.view().to_owned();
        // Of a library smaller than that, some stay.
        for (row, place) in stuck.into_iter().zip(places.view().rows()) {
            vectors.row_mut(row).assign(&place.mapv(f64::from));
            parents[row] = None;
        }
        let mut restarted = next;
        restarted.with_column(convert::embedding_column(vectors.view())?).doing("restart")?;
        restarted.with_column(Column::new(PARENT_IDX.into(), parents)).doing("restart")?;
        Ok(restarted)
    }
}
