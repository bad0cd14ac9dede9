//! The space that the models work in: item vectors in feature groups, and the distance learned over them.

use ndarray::ArrayView2;
use polars::prelude::DataFrame;

use super::batch::ObservedBatch;
use super::distance::ScaledDistance;
use super::embeddings::finite_embeddings;
use super::leakage::LeakageCheck;
use super::observations::TrainingSet;
use super::relevance::Relevance;
use super::vectorizer::Vectorizer;
use crate::error::Result;
use crate::features::{Features, ItemFeatures};
use crate::frame::schema::{self, DB_IDX, SCORE};

/// The number of observations that the relevance weights are fitted to, at most.
const RELEVANCE_POINTS: usize = 300;

/// How items become vectors, and how far apart they are.
#[derive(Clone, Debug)]
pub(super) struct Space {
    /// The configured features.
    pub features: Features,
    vectorizer: Option<Vectorizer>,
    relevance: Relevance,
    distance: Option<ScaledDistance>,
    /// The number of observations at which the distance is fitted again.
    next_fit: usize,
    leakage: LeakageCheck,
}

impl Default for Space {
    fn default() -> Self {
        Space {
            features: Features::Auto,
            vectorizer: None,
            relevance: Relevance::new(1),
            distance: None,
            next_fit: 0,
            leakage: LeakageCheck::default(),
        }
    }
}

impl Space {
    /// Forgets all that belongs to another run.
    pub fn clear(&mut self) {
        *self = Space { features: std::mem::take(&mut self.features), ..Space::default() };
    }

    /// Starts a run with a vectorizer for its library.
    pub fn begin(&mut self, vectorizer: Vectorizer) {
        self.relevance = Relevance::new(vectorizer.groups().len());
        self.vectorizer = Some(vectorizer);
    }

    /// The vectorizer, once the library is known.
    pub fn vectorizer(&self) -> Option<&Vectorizer> {
        self.vectorizer.as_ref()
    }

    /// The distance, once it is fitted.
    pub fn distance(&self) -> Option<&ScaledDistance> {
        self.distance.as_ref()
    }

    /// The vectorizer and the distance, once both are known.
    pub fn fitted(&self) -> Option<(&Vectorizer, &ScaledDistance)> {
        self.vectorizer.as_ref().zip(self.distance.as_ref())
    }

    /// The relevance weight of each group, the largest first. Empty before the first fit.
    pub fn relevance(&self) -> Vec<(String, f32)> {
        let Some((vectorizer, _)) = self.fitted() else { return Vec::new() };
        let weights = self.relevance.weights.iter().map(|weight| *weight as f32);
        let mut relevance: Vec<(String, f32)> = vectorizer.names().into_iter().zip(weights).collect();
        relevance.sort_by(|a, b| b.1.total_cmp(&a.1));
        relevance
    }

    /// Reads an observed batch from its results.
    ///
    /// # Errors
    /// Embeddings that are not finite.
    pub fn observed_batch(&mut self, results: &DataFrame) -> Result<ObservedBatch> {
        let embeddings = finite_embeddings(results)?;
        let (scores, ids) = (schema::nullable_f64s(results, SCORE)?, schema::u64s(results, DB_IDX)?);
        // Without `begin`, as in a single step, the embeddings of the first batch have to do.
        let vectorizer =
            self.vectorizer.get_or_insert_with(|| Vectorizer::new(ItemFeatures::default(), embeddings.view()));
        let vectors = vectorizer.vectors(&ids, embeddings.view());
        Ok(ObservedBatch { ids, scores, vectors })
    }

    /// Fits the distance to the vectors `(n, width)` of a training set, if there are half as many observations more than at the
    /// last fit. Also checks the columns for leakage. Returns the distance if it is a new one.
    ///
    /// # Errors
    /// Vectors that are not finite.
    pub fn refit(
        &mut self,
        training: &TrainingSet<'_>,
        vectors: ArrayView2<'_, f32>,
        is_replay: bool,
    ) -> Result<Option<&ScaledDistance>> {
        let (count, Some(vectorizer)) = (training.observations.len(), &self.vectorizer) else { return Ok(None) };
        if count < self.next_fit {
            return Ok(None);
        }
        let scores = training.scores();
        self.distance = Some(ScaledDistance::fit(
            &mut self.relevance,
            &vectorizer.groups(),
            vectors,
            &training.subset(RELEVANCE_POINTS),
            &training.targets(),
            (&scores, training.observations.noise_threshold()),
        )?);
        self.leakage.check(vectorizer, vectors, &scores, is_replay);
        self.next_fit = count + count.div_ceil(2);
        Ok(self.distance.as_ref())
    }
}
