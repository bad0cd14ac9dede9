//! Converts items to vectors: the embedding, followed by a feature group for each column.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

use crate::features::{FeatureGroup, ItemFeatures, Role};
use crate::frame::schema::EMBEDDING;

/// Converts items to vectors of f32: the components of the embedding, followed by those of each feature group. Each group is
/// centred and scaled so that the mean squared distance of two items in it is 1.
#[derive(Clone, Debug)]
pub(super) struct Vectorizer {
    features: Arc<ItemFeatures>,
    centre: Array1<f32>,
    scale: f32,
    /// Whether long texts are read as documents.
    reads_documents: bool,
}

impl Vectorizer {
    /// The centre and the scale of the embeddings come from a sample of the library, `(items, dim)`.
    pub fn new(features: ItemFeatures, embeddings: ArrayView2<'_, f32>) -> Self {
        let embeddings = embeddings.mapv(f64::from);
        let centre = embeddings.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(embeddings.ncols()));
        let squares =
            (&embeddings - &centre).mapv(|difference| difference * difference).sum() / embeddings.nrows().max(1) as f64;
        let scale = 1.0 / (2.0 * squares).sqrt();
        let scale = if scale.is_finite() && scale > 0.0 { scale as f32 } else { 1.0 };
        Vectorizer {
            features: Arc::new(features),
            centre: centre.mapv(|value| value as f32),
            scale,
            reads_documents: false,
        }
    }

    /// The number of components of a vector.
    pub fn width(&self) -> usize {
        self.dim() + self.features.width()
    }

    /// The number of components of an embedding.
    pub fn dim(&self) -> usize {
        self.centre.len()
    }

    /// Reads columns that have both readings as documents, or as texts (the default).
    pub fn read_documents(&mut self, reads_documents: bool) {
        self.reads_documents = reads_documents;
    }

    /// The components of each group that is read. The first group is the embedding.
    pub fn groups(&self) -> Vec<Range<usize>> {
        let shifted = |range: &Range<usize>| range.start + self.dim()..range.end + self.dim();
        let groups = self.feature_groups().map(|group| shifted(&group.components));
        std::iter::once(0..self.dim()).chain(groups).collect()
    }

    /// The name of each group that is read.
    pub fn names(&self) -> Vec<String> {
        let groups = self.feature_groups().map(|group| group.name.clone());
        std::iter::once(EMBEDDING.to_string()).chain(groups).collect()
    }

    /// The positions of the groups that are documents, if columns with both readings are read as documents.
    pub fn documents(&self) -> Vec<usize> {
        let groups = self.feature_groups().enumerate();
        let documents = groups.filter(|(_, group)| self.reads_documents && group.role == Role::Document);
        documents.map(|(position, _)| position + 1).collect()
    }

    /// The groups of the features that are read, of a column with two readings only one, in the order of the columns.
    fn feature_groups(&self) -> impl Iterator<Item = &FeatureGroup> {
        let groups = self.features.groups();
        let document_of =
            |column: &str| groups.iter().find(|group| group.name == column && group.role == Role::Document);
        let is_only = |group: &FeatureGroup| groups.iter().filter(|other| other.name == group.name).count() == 1;
        let columns = groups.iter().filter(move |group| group.role != Role::Document || is_only(group));
        columns.map(move |group| document_of(&group.name).filter(|_| self.reads_documents).unwrap_or(group))
    }

    /// The features of the items, without the embedding.
    pub fn features(&self) -> &ItemFeatures {
        &self.features
    }

    /// The vectors of items, `(items, width)`.
    pub fn vectors(&self, ids: &[u64], embeddings: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut vectors = Array2::zeros((ids.len(), self.width()));
        let mut embedded = vectors.slice_mut(s![.., ..self.dim()]);
        embedded.assign(&embeddings);
        embedded -= &self.centre;
        embedded *= self.scale;
        vectors.slice_mut(s![.., self.dim()..]).assign(&self.features.rows(ids));
        vectors
    }

    /// Converts the embedding's components of a vector back to an embedding.
    pub fn embedding(&self, vector: ArrayView1<'_, f64>) -> Array1<f64> {
        &vector.mapv(|value| value / f64::from(self.scale)) + &self.centre.mapv(f64::from)
    }
}
