//! The distinct candidates of a batch: the items that passed the filter, each once.

use std::collections::{HashMap, HashSet};

use ndarray::{Array2, Axis};
use polars::prelude::DataFrame;

use super::embeddings::finite_embeddings;
use super::vectorizer::Vectorizer;
use crate::error::Result;
use crate::frame::convert::Matrix;
use crate::frame::schema::{self, DB_IDX, QUERY_IDX};

/// The distinct candidates, in this order: the nearest item of each query, then the second nearest of each query, and so on.
pub(super) struct DistinctCandidates {
    /// The row of each candidate in the results.
    rows: Vec<u32>,
    /// The id of each candidate.
    pub ids: Vec<u64>,
    /// The embeddings of all results.
    embeddings: Matrix<f32>,
    /// The number of queries that found results.
    pub query_count: usize,
}

impl DistinctCandidates {
    /// Reads the candidates from the results of a step.
    ///
    /// # Errors
    /// Embeddings that are not finite.
    pub fn from_results(results: &DataFrame) -> Result<Self> {
        let embeddings = finite_embeddings(results)?;
        let queries = schema::u32s(results, QUERY_IDX)?;
        let query_count = queries.iter().copied().collect::<HashSet<u32>>().len();
        let ids = schema::u64s(results, DB_IDX)?;
        let rows = distinct(&ids, &interleave(&queries));
        let ids = rows.iter().map(|row| ids[*row as usize]).collect();
        Ok(DistinctCandidates { rows, ids, embeddings, query_count })
    }

    /// The row of a candidate in the results.
    pub fn result_row(&self, candidate: usize) -> u32 {
        self.rows[candidate]
    }

    /// The vectors of the candidates, `(candidates, width)`.
    pub fn vectors(&self, vectorizer: &Vectorizer) -> Array2<f32> {
        let rows: Vec<usize> = self.rows.iter().map(|row| *row as usize).collect();
        vectorizer.vectors(&self.ids, self.embeddings.view().select(Axis(0), &rows).view())
    }
}

/// Row numbers with the first row of each query first, then the second row of each, and so on.
fn interleave(queries: &[u32]) -> Vec<u32> {
    let mut counts: HashMap<u32, u32> = HashMap::new();
    let mut ranked_rows: Vec<(u32, u32)> = Vec::with_capacity(queries.len());
    for (row, query) in (0..).zip(queries) {
        let rank = counts.entry(*query).or_default();
        ranked_rows.push((*rank, row));
        *rank += 1;
    }
    ranked_rows.sort_unstable();
    ranked_rows.into_iter().map(|(_, row)| row).collect()
}

/// Keeps the first row of each item.
fn distinct(db_idx: &[u64], rows: &[u32]) -> Vec<u32> {
    let mut items = HashSet::new();
    rows.iter().copied().filter(|row| items.insert(db_idx[*row as usize])).collect()
}
