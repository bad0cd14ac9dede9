//! The feature space of the models: item vectors in feature groups, and the learned distance between them.

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

/// The maximum number of observations for the fit of the relevance weights.
const RELEVANCE_POINTS: usize = 300;

/// Converts items to vectors, and learns the distance between them.
#[derive(Clone, Debug)]
pub(super) struct FeatureSpace {
    /// The configured features.
    pub features: Features,
    vectorizer: Option<Vectorizer>,
    relevance: Relevance,
    distance: Option<ScaledDistance>,
    /// The number of observations at which the distance is fitted again.
    next_fit: usize,
    /// What the last fit was based on: the factor of the kernel's length, and whether long texts were read as documents.
    basis: (f64, bool),
    leakage: LeakageCheck,
}

impl Default for FeatureSpace {
    fn default() -> Self {
        FeatureSpace {
            features: Features::Auto,
            vectorizer: None,
            relevance: Relevance::new(1),
            distance: None,
            next_fit: 0,
            basis: (1.0, false),
            leakage: LeakageCheck::default(),
        }
    }
}

impl FeatureSpace {
    /// Removes the state of a previous run. Keeps the configured features.
    pub fn clear(&mut self) {
        *self = FeatureSpace { features: std::mem::take(&mut self.features), ..FeatureSpace::default() };
    }

    /// Starts a run with the vectorizer of its library.
    pub fn begin(&mut self, vectorizer: Vectorizer) {
        self.relevance = Relevance::new(vectorizer.groups().len());
        self.vectorizer = Some(vectorizer);
    }

    /// The vectorizer. `None` before a run starts.
    pub fn vectorizer(&self) -> Option<&Vectorizer> {
        self.vectorizer.as_ref()
    }

    /// The distance. `None` before the first fit.
    pub fn distance(&self) -> Option<&ScaledDistance> {
        self.distance.as_ref()
    }

    /// The vectorizer and the distance. `None` before the first fit.
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
        // A single step does not call `begin`. It uses the embeddings of the first batch as the sample of the library.
        let vectorizer =
            self.vectorizer.get_or_insert_with(|| Vectorizer::new(ItemFeatures::default(), embeddings.view()));
        let vectors = vectorizer.vectors(&ids, embeddings.view());
        Ok(ObservedBatch { ids, scores, vectors })
    }

    /// Fits the distance to the vectors `(n, width)` of a training set, if there are half again as many observations as at the
    /// last fit, or the scores have few values now, or no longer. Checks the columns for leakage. Returns the distance if it was fitted.
    ///
    /// # Errors
    /// Vectors that are not finite.
    pub fn refit(
        &mut self,
        training: &TrainingSet<'_>,
        vectors: ArrayView2<'_, f32>,
        is_replay: bool,
    ) -> Result<Option<&ScaledDistance>> {
        let (count, Some(vectorizer)) = (training.observations.len(), &mut self.vectorizer) else { return Ok(None) };
        let noise_threshold = training.observations.noise_threshold();
        let (targets, scale) = training.targets_and_scale(noise_threshold);
        let basis = (scale.length(), scale.reads_documents());
        if count < self.next_fit && basis == self.basis {
            return Ok(None);
        }
        self.basis = basis;
        vectorizer.read_documents(scale.reads_documents());
        if vectorizer.documents() != self.relevance.documents() {
            self.relevance = Relevance::with_documents(vectorizer.groups().len(), vectorizer.documents());
        }
        let scores = training.scores();
        self.distance = Some(ScaledDistance::fit(
            &mut self.relevance,
            &vectorizer.groups(),
            vectors,
            &training.subset(RELEVANCE_POINTS),
            (&targets, &scale),
            (&scores, noise_threshold),
        )?);
        self.leakage.check(vectorizer, vectors, &scores, is_replay);
        self.next_fit = count + count.div_ceil(2);
        Ok(self.distance.as_ref())
    }
}
