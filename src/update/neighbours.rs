//! Groups the scored results of a step by query.

use std::cmp::Ordering;
use std::collections::HashMap;

use ndarray::Array2;

use crate::error::{Result, WrapErr};
use crate::frame::convert::{self, Matrix};
use crate::frame::schema::{self, DB_IDX, DISTANCE, EMBEDDING, QUERY_IDX, SCORE};
use crate::step::Step;

/// The scored results of a step, by query. Items without a score are left out.
pub(super) struct NeighboursByQuery {
    rows_of_query: HashMap<u32, Vec<usize>>,
    scores: Vec<f64>,
    distances: Vec<f32>,
    db_idx: Vec<u64>,
    embeddings: Matrix<f32>,
}

impl NeighboursByQuery {
    pub fn from_step(step: &Step<'_>) -> Result<Self> {
        let scores = schema::nullable_f64s(step.results, SCORE)?;
        let mut rows_of_query: HashMap<u32, Vec<usize>> = HashMap::new();
        for (row, query) in schema::u32s(step.results, QUERY_IDX)?.into_iter().enumerate() {
            if scores[row].is_some() {
                rows_of_query.entry(query).or_default().push(row);
            }
        }
        let distances = step.results.column(DISTANCE).wrap_err("update")?.f32().wrap_err("update")?;
        Ok(NeighboursByQuery {
            rows_of_query,
            scores: scores.into_iter().map(|score| score.unwrap_or(f64::NAN)).collect(),
            distances: distances.into_no_null_iter().collect(),
            db_idx: schema::u64s(step.results, DB_IDX)?,
            embeddings: convert::matrix::<f32>(step.results, EMBEDDING)?,
        })
    }

    /// The scored neighbours of a query. `None` if it has none.
    pub fn get(&self, query_idx: u32) -> Option<Neighbours> {
        let rows = self.rows_of_query.get(&query_idx)?;
        let all = self.embeddings.view();
        let mut embeddings = Array2::zeros((rows.len(), all.ncols()));
        for (mut embedding, row) in embeddings.rows_mut().into_iter().zip(rows) {
            embedding.zip_mut_with(&all.row(*row), |to, from| *to = f64::from(*from));
        }
        Some(Neighbours {
            scores: rows.iter().map(|row| self.scores[*row]).collect(),
            distances: rows.iter().map(|row| self.distances[*row]).collect(),
            db_idx: rows.iter().map(|row| self.db_idx[*row]).collect(),
            embeddings,
        })
    }
}

/// The scored neighbours of one query, in the order of the results. There is at least one.
pub(super) struct Neighbours {
    pub scores: Vec<f64>,
    distances: Vec<f32>,
    db_idx: Vec<u64>,
    /// Embeddings, of shape `(items, dim)`.
    pub embeddings: Array2<f64>,
}

impl Neighbours {
    /// The rows of the best `k` items, best first. Ties go to the nearer item, then to the lower `db_idx`.
    pub fn best(&self, k: usize) -> Vec<usize> {
        let mut rows: Vec<usize> = (0..self.scores.len()).collect();
        rows.sort_by(|&a, &b| self.compare(a, b));
        rows.truncate(k);
        rows
    }

    /// `Less` if item `a` is better than item `b`.
    fn compare(&self, a: usize, b: usize) -> Ordering {
        let by_score = self.scores[b].total_cmp(&self.scores[a]);
        by_score.then(self.distances[a].total_cmp(&self.distances[b])).then(self.db_idx[a].cmp(&self.db_idx[b]))
    }
}
