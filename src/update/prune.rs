//! Which queries go on: the stage between Score and QueryUpdate.

use std::collections::{HashMap, HashSet};

use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use super::{QueryUpdate, Start};
use crate::error::{Error, Result};
use crate::frame::convert;
use crate::frame::schema::{self, COLLECTION_IDX, PARENT_IDX, QUERY_IDX, SCORE};
use crate::step::Step;

/// Says which queries go on. Closures are prunes: `|step: &Step| Ok(vec![0, 3])`.
pub trait Prune: Send {
    /// The `query_idx` of those that go on, in any order.
    ///
    /// # Errors
    /// Whatever should stop the run.
    fn prune(&self, step: &Step<'_>) -> Result<Vec<u32>>;

    /// Called once before a search, so that settings that cannot be show early.
    ///
    /// # Errors
    /// Such settings.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl Prune for Box<dyn Prune> {
    fn prune(&self, step: &Step<'_>) -> Result<Vec<u32>> {
        (**self).prune(step)
    }
    fn check(&self) -> Result<()> {
        (**self).check()
    }
}

impl<F> Prune for F
where
    F: Fn(&Step<'_>) -> Result<Vec<u32>> + Send,
{
    fn prune(&self, step: &Step<'_>) -> Result<Vec<u32>> {
        self(step)
    }
}

/// What a query is worth, of the scores it met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Worth {
    /// Their mean.
    #[default]
    Mean,
    /// The largest.
    Max,
}

/// Which queries compete with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Those that descend from one starting query.
    #[default]
    Collection,
    /// Those that came of one query of the iteration before. Starting queries, which have no parent, are one group.
    Parent,
    /// All.
    Global,
}

/// Keeps the best `k` queries of each group.
///
/// The best are those of the highest worth; ties, which are common by [`Worth::Max`], as siblings meet the same best
/// item, go to the higher `query_idx`, as in the original. A query that met nothing, or only items without a score, has
/// no worth: it comes last. At least one query of a group goes on.
///
/// Source: emb_opt 1.0.2, `TopKPrune`, where a query that met nothing was lost whatever its group.
#[derive(Clone, Copy, Debug)]
pub struct TopKPrune {
    k: usize,
    worth: Worth,
    group: Group,
}

impl TopKPrune {
    /// `k` queries of each collection, by mean score.
    pub fn new(k: usize) -> Self {
        TopKPrune { k, worth: Worth::default(), group: Group::default() }
    }

    /// What a query is worth.
    pub fn worth(mut self, worth: Worth) -> Self {
        self.worth = worth;
        self
    }

    /// Which queries compete.
    pub fn group(mut self, group: Group) -> Self {
        self.group = group;
        self
    }

    fn worths(&self, step: &Step<'_>) -> Result<HashMap<u32, f64>> {
        let mut met: HashMap<u32, Vec<f64>> = HashMap::new();
        let scores = schema::scores(step.results, SCORE)?;
        for (query, score) in schema::u32s(step.results, QUERY_IDX)?.into_iter().zip(scores) {
            if let Some(score) = score {
                met.entry(query).or_default().push(score);
            }
        }
        let worth = |scores: Vec<f64>| match self.worth {
            // Each divided before they are added: the sum of large scores may overflow.
            Worth::Mean => scores.iter().map(|score| score / scores.len() as f64).sum(),
            Worth::Max => scores.into_iter().fold(f64::NEG_INFINITY, f64::max),
        };
        Ok(met.into_iter().map(|(query, scores)| (query, worth(scores))).collect())
    }
}

impl Prune for TopKPrune {
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
            Group::Collection => schema::u32s(step.queries, COLLECTION_IDX)?.into_iter().map(Some).collect(),
            Group::Parent => schema::nullable_u32s(step.queries, PARENT_IDX)?,
            Group::Global => vec![None; queries.len()],
        };
        let worths = self.worths(step)?;
        let mut ranked: Vec<(u32, Option<u32>)> = queries.into_iter().zip(groups).collect();
        let worth = |query: &u32| worths.get(query).copied().unwrap_or(f64::NEG_INFINITY);
        ranked.sort_by(|(a, _), (b, _)| worth(b).total_cmp(&worth(a)).then(b.cmp(a)));
        let mut taken: HashMap<Option<u32>, usize> = HashMap::new();
        ranked.retain(|(_, group)| {
            let taken = taken.entry(*group).or_default();
            *taken += 1;
            *taken <= self.k
        });
        Ok(ranked.into_iter().map(|(query, _)| query).collect())
    }
}

/// A rule for the queries that a prune keeps: the others end where they are. What they met is in the log all the same.
pub struct Pruned {
    prune: Box<dyn Prune>,
    rule: Box<dyn QueryUpdate>,
}

impl Pruned {
    /// Prunes, then moves what is left.
    pub fn new(prune: impl Prune + 'static, rule: impl QueryUpdate + 'static) -> Self {
        Pruned { prune: Box::new(prune), rule: Box::new(rule) }
    }
}

impl QueryUpdate for Pruned {
    fn inner(&self) -> Option<&dyn QueryUpdate> {
        Some(&*self.rule)
    }

    fn check(&self) -> Result<()> {
        self.prune.check()?;
        self.rule.check()
    }

    fn begin(&mut self, start: &Start<'_>) -> Result<()> {
        self.rule.begin(start)
    }

    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        self.rule.observe(step)
    }

    fn observes_embeddings(&self) -> bool {
        self.rule.observes_embeddings()
    }

    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        let kept: HashSet<u32> = self.prune.prune(step)?.into_iter().collect();
        let queries = rows_of(step.queries, &kept)?;
        if queries.height() != kept.len() {
            let known: HashSet<u32> = schema::u32s(step.queries, QUERY_IDX)?.into_iter().collect();
            let other = kept.difference(&known).min().map_or(String::new(), u32::to_string);
            return Err(Error::contract("prune", QUERY_IDX, "queries of the step", other));
        }
        let results = rows_of(step.results, &kept)?;
        self.rule.update(&Step { queries: &queries, results: &results, ..*step })
    }
}

/// The rows of those queries, in their order.
fn rows_of(frame: &DataFrame, queries: &HashSet<u32>) -> Result<DataFrame> {
    let of = schema::u32s(frame, QUERY_IDX)?;
    let rows: Vec<u32> = (0..of.len() as u32).filter(|row| queries.contains(&of[*row as usize])).collect();
    convert::gather(frame, &rows)
}
