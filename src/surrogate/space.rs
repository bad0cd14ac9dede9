//! An item as the models see it: its embedding, and a view of it for each column that is read.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

use crate::features::ItemFeatures;
use crate::frame::schema::EMBEDDING;

/// Items as vectors of f32: the components of the embedding, then those of each view, each of these groups centred, and of
/// a length such that the mean squared distance of two items in it is 1.
#[derive(Clone, Debug)]
pub(super) struct Views {
    features: Arc<ItemFeatures>,
    centre: Array1<f32>,
    scale: f32,
}

impl Views {
    /// Those of a library whose embeddings spread as those of some items do, `(items, dim)`.
    pub fn new(features: ItemFeatures, embeddings: ArrayView2<'_, f32>) -> Self {
        let embeddings = embeddings.mapv(f64::from);
        let centre = embeddings.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(embeddings.ncols()));
        let squares = (&embeddings - &centre).mapv(|off| off * off).sum() / embeddings.nrows().max(1) as f64;
        let scale = 1.0 / (2.0 * squares).sqrt();
        let scale = if scale.is_finite() && scale > 0.0 { scale as f32 } else { 1.0 };
        Views { features: Arc::new(features), centre: centre.mapv(|value| value as f32), scale }
    }

    /// Components of an item.
    pub fn width(&self) -> usize {
        self.dim() + self.features.width()
    }

    /// Components of an embedding.
    pub fn dim(&self) -> usize {
        self.centre.len()
    }

    /// The components of each group: the embedding's first.
    pub fn groups(&self) -> Vec<Range<usize>> {
        let shifted = |range: &Range<usize>| range.start + self.dim()..range.end + self.dim();
        let views = self.features.groups().iter().map(|view| shifted(&view.components));
        std::iter::once(0..self.dim()).chain(views).collect()
    }

    /// The names of the groups.
    pub fn names(&self) -> Vec<String> {
        let views = self.features.groups().iter().map(|view| view.name.clone());
        std::iter::once(EMBEDDING.to_string()).chain(views).collect()
    }

    /// What is read beside the embedding.
    pub fn features(&self) -> &ItemFeatures {
        &self.features
    }

    /// Items as vectors `(items, width)`.
    pub fn vectors(&self, ids: &[u64], embeddings: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut vectors = Array2::zeros((ids.len(), self.width()));
        let mut embedded = vectors.slice_mut(s![.., ..self.dim()]);
        embedded.assign(&embeddings);
        embedded -= &self.centre;
        embedded *= self.scale;
        vectors.slice_mut(s![.., self.dim()..]).assign(&self.features.rows(ids));
        vectors
    }

    /// The embedding at the components of a vector that are the embedding's.
    pub fn embedding(&self, vector: ArrayView1<'_, f64>) -> Array1<f64> {
        &vector.mapv(|value| value / f64::from(self.scale)) + &self.centre.mapv(f64::from)
    }
}
