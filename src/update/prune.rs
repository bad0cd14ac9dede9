//! Pruning: chooses the queries that continue. This stage comes between the score and the update rule.

use std::collections::{HashMap, HashSet};

use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use super::{SearchContext, UpdateRule};
use crate::error::{Error, Result};
use crate::frame::convert;
use crate::frame::schema::{self, COLLECTION_IDX, PARENT_IDX, QUERY_IDX, SCORE};
use crate::step::Step;

/// Chooses the queries that continue. A closure implements `Pruner`: `|step: &Step| Ok(vec![0, 3])`.
pub trait Pruner: Send {
    /// The `query_idx` of the queries that continue, in any order.
    ///
    /// # Errors
    /// Any error stops the run.
    fn prune(&self, step: &Step<'_>) -> Result<Vec<u32>>;

    /// Checks the settings. Called once before a search.
    ///
    /// # Errors
    /// Invalid settings.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl Pruner for Box<dyn Pruner> {
    fn prune(&self, step: &Step<'_>) -> Result<Vec<u32>> {
        (**self).prune(step)
    }
    fn check(&self) -> Result<()> {
        (**self).check()
    }
}

impl<F> Pruner for F
where
    F: Fn(&Step<'_>) -> Result<Vec<u32>> + Send,
{
    fn prune(&self, step: &Step<'_>) -> Result<Vec<u32>> {
        self(step)
    }
}

/// How the scores of a query's neighbours are aggregated into the score of the query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aggregation {
    /// The mean score.
    #[default]
    Mean,
    /// The highest score.
    Max,
}

/// The queries that compete with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueryGroup {
    /// Descendants of one starting query.
    #[default]
    Collection,
    /// Children of one query of the previous iteration. Starting queries have no parent and are one group.
    Parent,
    /// All queries.
    Global,
}

/// Keeps the best `k` queries of each group.
///
/// The best queries have the highest aggregated score. Ties go to the higher `query_idx`, as in emb_opt. Ties are common with
/// [`Aggregation::Max`], because siblings often share their best neighbour. A query without scored neighbours comes last. At
/// least one query of each group continues.
///
/// Source: `TopKPrune` of emb_opt 1.0.2, which always drops a query without neighbours.
#[derive(Clone, Copy, Debug)]
pub struct TopKPrune {
    k: usize,
    aggregation: Aggregation,
    group: QueryGroup,
}

impl TopKPrune {
    /// Keeps `k` queries of each collection, by mean score.
    pub fn new(k: usize) -> Self {
        TopKPrune { k, aggregation: Aggregation::default(), group: QueryGroup::default() }
    }

    /// Sets how the scores of a query's neighbours are aggregated (default: [`Aggregation::Mean`]).
    pub fn aggregation(mut self, aggregation: Aggregation) -> Self {
        self.aggregation = aggregation;
        self
    }

    /// Sets which queries compete with each other (default: [`QueryGroup::Collection`]).
    pub fn group(mut self, group: QueryGroup) -> Self {
        self.group = group;
        self
    }

    /// The aggregated score of each query that has scored neighbours.
    fn query_scores(&self, step: &Step<'_>) -> Result<HashMap<u32, f64>> {
        let mut scores_of_query: HashMap<u32, Vec<f64>> = HashMap::new();
        let scores = schema::nullable_f64s(step.results, SCORE)?;
        for (query, score) in schema::u32s(step.results, QUERY_IDX)?.into_iter().zip(scores) {
            if let Some(score) = score {
                scores_of_query.entry(query).or_default().push(score);
            }
        }
        let aggregate = |scores: Vec<f64>| match self.aggregation {
            // Each score is divided before the sum, because the sum of large scores may overflow.
            Aggregation::Mean => scores.iter().map(|score| score / scores.len() as f64).sum(),
            Aggregation::Max => scores.into_iter().fold(f64::NEG_INFINITY, f64::max),
        };
        Ok(scores_of_query.into_iter().map(|(query, scores)| (query, aggregate(scores))).collect())
    }
}

impl Pruner for TopKPrune {
    fn check(&self) -> Result<()> {
        match self.k {
            0 => Err(Error::Config("prune.k: expected at least 1, found 0".into())),
            _ => Ok(()),
        }
    }

    fn prune(&self, step: &Step<'_>) -> Result<Vec<u32>> {
        self.check()?;
        let queries = schema::u32s(step.queries, QUERY_IDX)?;
        let groups: Vec<Option<u32>> = match self.group {
            QueryGroup::Collection => schema::u32s(step.queries, COLLECTION_IDX)?.into_iter().map(Some).collect(),
            QueryGroup::Parent => schema::nullable_u32s(step.queries, PARENT_IDX)?,
            QueryGroup::Global => vec![None; queries.len()],
        };
        let scores = self.query_scores(step)?;
        let mut ranked: Vec<(u32, Option<u32>)> = queries.into_iter().zip(groups).collect();
        let score = |query: &u32| scores.get(query).copied().unwrap_or(f64::NEG_INFINITY);
        ranked.sort_by(|(a, _), (b, _)| score(b).total_cmp(&score(a)).then(b.cmp(a)));
        let mut counts: HashMap<Option<u32>, usize> = HashMap::new();
        ranked.retain(|(_, group)| {
            let count = counts.entry(*group).or_default();
            *count += 1;
            *count <= self.k
        });
        Ok(ranked.into_iter().map(|(query, _)| query).collect())
    }
}

/// A rule with a pruner: only the queries that the pruner keeps continue. The log contains the results of all queries.
pub struct PruneUpdate {
    pruner: Box<dyn Pruner>,
    rule: Box<dyn UpdateRule>,
}

impl PruneUpdate {
    /// Prunes the queries, then updates the remaining ones by the rule.
    pub fn new(pruner: impl Pruner + 'static, rule: impl UpdateRule + 'static) -> Self {
        PruneUpdate { pruner: Box::new(pruner), rule: Box::new(rule) }
    }
}

impl UpdateRule for PruneUpdate {
    fn inner(&self) -> Option<&dyn UpdateRule> {
        Some(&*self.rule)
    }

    fn check(&self) -> Result<()> {
        self.pruner.check()?;
        self.rule.check()
    }

    fn begin(&mut self, context: &SearchContext<'_>) -> Result<()> {
        self.rule.begin(context)
    }

    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        self.rule.observe(step)
    }

    fn observes_embeddings(&self) -> bool {
        self.rule.observes_embeddings()
    }

    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        let kept: HashSet<u32> = self.pruner.prune(step)?.into_iter().collect();
        let queries = rows_of(step.queries, &kept)?;
        if queries.height() != kept.len() {
            let existing: HashSet<u32> = schema::u32s(step.queries, QUERY_IDX)?.into_iter().collect();
            let unknown = kept.difference(&existing).min().map_or(String::new(), u32::to_string);
            return Err(Error::contract("prune", QUERY_IDX, "queries of the step", unknown));
        }
        let results = rows_of(step.results, &kept)?;
        self.rule.update(&Step { queries: &queries, results: &results, ..*step })
    }
}

/// The rows of a frame that belong to some queries, in the order of the frame.
fn rows_of(frame: &DataFrame, queries: &HashSet<u32>) -> Result<DataFrame> {
    let query_idx = schema::u32s(frame, QUERY_IDX)?;
    let rows: Vec<u32> =
        (0..query_idx.len() as u32).filter(|row| queries.contains(&query_idx[*row as usize])).collect();
    convert::gather(frame, &rows)
}
