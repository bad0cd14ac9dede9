//! What each query met, as the rules read it.

use std::cmp::Ordering;
use std::collections::HashMap;

use ndarray::{Array1, Array2, ArrayView1, Axis};
use polars::prelude::DataFrame;

use super::{Step, next_queries};
use crate::bridge;
use crate::error::{Doing, Result};
use crate::schema::{self, DB_IDX, DISTANCE, EMBEDDING, QUERY_IDX, SCORE};

/// What one query met and was scored, in the order of the results.
pub(super) struct Met {
    pub scores: Vec<f64>,
    pub distances: Vec<f32>,
    pub db_idx: Vec<u64>,
    pub embeddings: Array2<f64>,
}

impl Met {
    /// Orders two rows: the higher score first, then the nearer item, then the lower `db_idx`.
    pub fn better(&self, a: usize, b: usize) -> Ordering {
        let by_score = self.scores[b].total_cmp(&self.scores[a]);
        by_score.then(self.distances[a].total_cmp(&self.distances[b])).then(self.db_idx[a].cmp(&self.db_idx[b]))
    }
}

/// Applies a rule to each query that met scored items; the others stay.
pub(super) fn move_queries(step: &Step<'_>, rule: impl Fn(ArrayView1<'_, f64>, &Met) -> Array1<f64>) -> Result<DataFrame> {
    let query_idx = schema::u32s(step.queries, QUERY_IDX)?;
    let vectors = bridge::matrix::<f64>(step.queries, EMBEDDING)?;
    let mut moved = vectors.view().to_owned();
    let embeddings = bridge::matrix::<f32>(step.results, EMBEDDING)?;
    let (scores, db_idx) = (schema::scores(step.results, SCORE)?, schema::u64s(step.results, DB_IDX)?);
    let distances = step.results.column(DISTANCE).doing("update")?.f32().doing("update")?;
    let distances: Vec<f32> = distances.into_no_null_iter().collect();

    let mut rows_of: HashMap<u32, Vec<usize>> = HashMap::new();
    for (row, query) in schema::u32s(step.results, QUERY_IDX)?.into_iter().enumerate() {
        if scores[row].is_some() {
            rows_of.entry(query).or_default().push(row);
        }
    }
    for (position, query) in query_idx.iter().enumerate() {
        let Some(rows) = rows_of.get(query) else { continue };
        let met = Met {
            scores: rows.iter().filter_map(|row| scores[*row]).collect(),
            distances: rows.iter().map(|row| distances[*row]).collect(),
            db_idx: rows.iter().map(|row| db_idx[*row]).collect(),
            embeddings: embeddings.view().select(Axis(0), rows).mapv(f64::from),
        };
        let next = rule(vectors.view().row(position), &met);
        moved.row_mut(position).assign(&next);
    }
    next_queries(step.queries, moved.view())
}
