//! The vectors and scores of an observed batch, and the vectors of pending evaluations.

use std::collections::HashSet;

use ndarray::{Array2, Axis};
use polars::prelude::DataFrame;

use super::embeddings::finite_embeddings;
use super::vectorizer::Vectorizer;
use crate::error::{Result, WrapErr};
use crate::frame::schema::{self, DB_IDX};

/// The items of an observed iteration.
pub(super) struct ObservedBatch {
    pub ids: Vec<u64>,
    /// `None` for items that were rejected or failed.
    pub scores: Vec<Option<f64>>,
    /// `(items, width)`
    pub vectors: Array2<f32>,
}

/// Items that were chosen but have no outcome yet: their evaluations are pending.
pub(super) struct PendingItems {
    pub ids: HashSet<u64>,
    /// `(items, width)`
    pub vectors: Array2<f32>,
}

impl PendingItems {
    /// Reads pending evaluations from the frames of the batches in flight.
    ///
    /// # Errors
    /// Embeddings that are not finite.
    pub fn from_frames(frames: &[DataFrame], vectorizer: &Vectorizer) -> Result<Self> {
        let (mut all_ids, mut vectors) = (HashSet::new(), Array2::zeros((0, vectorizer.width())));
        for frame in frames {
            let ids = schema::u64s(frame, DB_IDX)?;
            let embeddings = finite_embeddings(frame)?;
            vectors
                .append(Axis(0), vectorizer.vectors(&ids, embeddings.view()).view())
                .wrap_err("pending evaluations")?;
            all_ids.extend(ids);
        }
        Ok(PendingItems { ids: all_ids, vectors })
    }
}
