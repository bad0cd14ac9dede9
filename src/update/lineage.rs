//! Query lineage: the `query_idx` and the parent of each next query, when queries move or branch.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use polars::prelude::{Column, DataFrame};

use super::neighbours::{Neighbours, NeighboursByQuery};
use super::next_queries;
use crate::error::{Error, Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::{self, EMBEDDING, QUERY_IDX};
use crate::step::Step;

/// The largest number of queries. A rule that branches without pruning exceeds it.
const MAX_QUERIES: usize = 100_000;

/// Assigns `query_idx` and parents to the next queries.
///
/// A query with one child moves: the child keeps the `query_idx`. A query with several children branches: each child gets a
/// new `query_idx`. New ones count up from the largest `query_idx` of the run so far, in the order of parents, then of
/// branches. No `query_idx` is used for two paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Lineage {
    /// One above the largest `query_idx` of the observed iterations.
    next_query_idx: u32,
}

impl Lineage {
    /// Records the `query_idx` of a committed iteration.
    pub fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        self.next_query_idx = self.next_query_idx_after(step)?;
        Ok(())
    }

    fn next_query_idx_after(&self, step: &Step<'_>) -> Result<u32> {
        let largest = schema::u32s(step.queries, QUERY_IDX)?.into_iter().max();
        Ok(largest.map_or(0, |largest| largest.saturating_add(1)).max(self.next_query_idx))
    }

    /// The next queries. `rule` computes the children of a query, of shape `(children, dim)`, from its vector and its scored
    /// neighbours. A query without scored neighbours stays where it is.
    pub fn next_queries(
        &self,
        step: &Step<'_>,
        rule: impl Fn(ArrayView1<'_, f64>, &Neighbours) -> Array2<f64>,
    ) -> Result<DataFrame> {
        let query_idx = schema::u32s(step.queries, QUERY_IDX)?;
        let vectors = convert::matrix::<f64>(step.queries, EMBEDDING)?;
        let vectors = vectors.view();
        let neighbours = NeighboursByQuery::from_step(step)?;
        let (mut moved, mut branched) = (Children::default(), Children::default());
        for (position, (query, vector)) in query_idx.iter().zip(vectors.rows()).enumerate() {
            let children = match neighbours.get(*query) {
                Some(neighbours) => rule(vector, &neighbours),
                None => vector.to_owned().insert_axis(Axis(0)),
            };
            let kind = if children.nrows() == 1 { &mut moved } else { &mut branched };
            kind.parents.extend(std::iter::repeat_n(position as u32, children.nrows()));
            match children.as_slice() {
                Some(values) => kind.vectors.extend_from_slice(values),
                None => kind.vectors.extend(children),
            }
            if moved.parents.len() + branched.parents.len() > MAX_QUERIES {
                let found = "more; if the rule branches, prune the queries";
                return Err(Error::contract("update", "rows", format!("at most {MAX_QUERIES} queries"), found));
            }
        }
        let first = self.next_query_idx_after(step)?;
        let new = (0..branched.parents.len() as u32).map(|nth| first.checked_add(nth));
        let new: Option<Vec<u32>> = new.collect();
        let new = new.ok_or_else(|| Error::contract("update", QUERY_IDX, "a number below 2^32", "a larger one"))?;
        let next_idx: Vec<u32> =
            moved.parents.iter().map(|position| query_idx[*position as usize]).chain(new).collect();

        let parents = convert::gather(step.queries, &[moved.parents, branched.parents].concat())?;
        let values = [moved.vectors, branched.vectors].concat();
        let values = ArrayView2::from_shape((next_idx.len(), vectors.ncols()), &values).wrap_err("update")?;
        let mut next = next_queries(&parents, values)?;
        next.with_column(Column::new(QUERY_IDX.into(), next_idx)).wrap_err("update")?;
        Ok(next)
    }
}

/// The next queries that moved, or those that branched.
#[derive(Default)]
struct Children {
    /// The rows of the parents in the queries frame.
    parents: Vec<u32>,
    /// The vectors, one after the other.
    vectors: Vec<f64>,
}
