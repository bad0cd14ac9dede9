//! Paths of queries: for each leaf of the tree of branching queries, the path from its starting query.

use std::collections::HashSet;

use polars::prelude::*;

use super::SearchLog;
use crate::error::{Result, WrapErr};
use crate::frame::schema::{self, ITERATION, PARENT_IDX, QUERY_IDX};

impl SearchLog {
    /// The path from a starting query to each leaf of the tree of queries: `leaf_idx`, `pruned` and the columns of
    /// [`SearchLog::compile_trajectories`], ordered by (`leaf_idx`, `iteration`).
    ///
    /// A leaf is a query without children: a query of the last iteration, or one that was pruned (`pruned` is true).
    /// `leaf_idx` is its `query_idx`. A query on the paths to several leaves appears once for each. If no query branches,
    /// the paths are the trajectories.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn compile_paths(&self) -> Result<LazyFrame> {
        let mut steps = Steps::default();
        // Built backwards from the last iteration: (leaf, whether it was pruned, query in the current iteration) of each path.
        let mut paths: Vec<(u32, bool, u32)> = Vec::new();
        let (iterations, mut parents) = (self.iterations(), HashSet::new());
        let mut has_next = false;
        if let Some(next) = iterations.last().map(|last| last + 1).filter(|next| self.has_queries(*next)) {
            parents = self.links(next)?.into_iter().filter_map(|(_, parent)| parent).collect();
            has_next = true;
        }
        for iteration in iterations.iter().rev() {
            let links = self.links(*iteration)?;
            let is_last = Some(iteration) == iterations.last();
            for (query, _) in &links {
                let has_child = parents.contains(query);
                if is_last || !has_child {
                    paths.push((*query, has_next && !has_child, *query));
                }
            }
            for (leaf, pruned, query) in &paths {
                steps.push(*leaf, *pruned, *iteration, *query);
            }
            let parent_of = |query: u32| {
                let link = links.binary_search_by_key(&query, |(query, _)| *query).ok();
                link.and_then(|position| links[position].1)
            };
            paths =
                paths.into_iter().filter_map(|(leaf, pruned, query)| Some((leaf, pruned, parent_of(query)?))).collect();
            parents = links.into_iter().filter_map(|(_, parent)| parent).collect();
            has_next = true;
        }
        let keys = [col(ITERATION), col(QUERY_IDX)];
        let trajectories = self.compile_trajectories()?;
        Ok(steps
            .frame()?
            .lazy()
            .join(trajectories, keys.clone(), keys, JoinArgs::new(JoinType::Inner))
            .sort(["leaf_idx", ITERATION], SortMultipleOptions::default()))
    }

    /// The (`query_idx`, `parent_idx`) of an iteration's queries, ascending.
    fn links(&self, iteration: u32) -> Result<Vec<(u32, Option<u32>)>> {
        let queries = self.queries(iteration)?;
        let parents = schema::nullable_u32s(&queries, PARENT_IDX)?;
        Ok(schema::u32s(&queries, QUERY_IDX)?.into_iter().zip(parents).collect())
    }
}

/// The steps of all paths, as columns.
#[derive(Default)]
struct Steps {
    leaf: Vec<u32>,
    pruned: Vec<bool>,
    iteration: Vec<u32>,
    query: Vec<u32>,
}

impl Steps {
    fn push(&mut self, leaf: u32, pruned: bool, iteration: u32, query: u32) {
        self.leaf.push(leaf);
        self.pruned.push(pruned);
        self.iteration.push(iteration);
        self.query.push(query);
    }

    fn frame(self) -> Result<DataFrame> {
        let columns = vec![
            Column::new("leaf_idx".into(), self.leaf),
            Column::new("pruned".into(), self.pruned),
            Column::new(ITERATION.into(), self.iteration),
            Column::new(QUERY_IDX.into(), self.query),
        ];
        DataFrame::new(columns[0].len(), columns).wrap_err("paths")
    }
}
