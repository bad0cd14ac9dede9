//! The centroids of an index, and which partitions a query searches: SPANN's pruning (arXiv 2111.08566, section 3.2.3),
//! made free of scale.
//!
//! SPANN searches the partitions whose centroid is within `(1 + e)` times the distance of the nearest. That ratio means
//! something else for a query at an item and for one between two clusters, and nothing for dot products, which may be
//! negative. Here the distance `d_j` of a centroid counts between the nearest and the median one:
//!
//! ```text
//! margin_j = (d_j - min d) / (median d - min d)
//! ```
//!
//! A query searches the partitions of which this is at most the margin that `uphill index` measured for a recall: few
//! where one cluster is near, many where all are about equally far.

use std::sync::Arc;

use arrow::array::{Array, FixedSizeListArray, Float32Array};
use lance::Dataset;
use lance::index::{DatasetIndexExt, DatasetIndexInternalExt};
use lance_index::metrics::NoOpMetricsCollector;
use lance_index::vector::VectorIndex;
use lance_linalg::distance::DistanceType;
use ndarray::ArrayView1;

use super::batch::as_f32;
use super::table::Table;
use crate::database::Metric;
use crate::database::runtime::on_runtime;
use crate::error::{Doing, Result};

/// How many partitions a query searches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Probes {
    /// As many of the nearest at least.
    pub(crate) at_least: usize,
    /// And all up to this margin.
    pub(crate) margin: Option<f32>,
}

/// The centroids of the partitions of an index.
pub(super) struct Centroids {
    metric: Metric,
    values: FixedSizeListArray,
}

impl Centroids {
    pub(super) fn new(metric: Metric, values: FixedSizeListArray) -> Result<Self> {
        let values = as_f32(&(Arc::new(values) as Arc<dyn Array>))?;
        Ok(Centroids { metric, values })
    }

    /// Reads those of an index; `None` where it has none, or has been extended in segments.
    pub(super) fn read(table: &Table, name: &str, metric: Metric) -> Result<Option<Self>> {
        let (dataset, name, column) = (table.dataset.clone(), name.to_string(), table.embedding_column.clone());
        let index = on_runtime(async move { open(&dataset, &name, &column).await })?.doing("reading the index")?;
        let values = index.and_then(|index| index.ivf_model().centroids_array().cloned());
        values.map(|values| Self::new(metric, values)).transpose()
    }

    /// The number of components.
    pub(super) fn dim(&self) -> usize {
        self.values.value_length() as usize
    }

    /// How far each centroid is from a query, as Lance measures it; the root of a squared distance.
    fn distances(&self, query: ArrayView1<'_, f32>) -> Result<Vec<f32>> {
        let distances = match self.metric {
            // Of vectors of length 1.
            Metric::Cosine => {
                let length = query.dot(&query).sqrt();
                distances(Metric::L2, &Float32Array::from(query.mapv(|value| value / length).to_vec()), &self.values)?
            }
            metric => distances(metric, &Float32Array::from(query.to_vec()), &self.values)?,
        };
        Ok(match self.metric {
            Metric::Dot => distances.values().to_vec(),
            Metric::L2 | Metric::Cosine => distances.values().iter().map(|squared| squared.max(0.0).sqrt()).collect(),
        })
    }

    /// The margin of each partition for a query: 0 for the nearest, 1 for the median one.
    pub(super) fn margins(&self, query: ArrayView1<'_, f32>) -> Result<Vec<f32>> {
        Ok(margins(&self.distances(query)?))
    }

    /// How many partitions a query searches.
    pub(super) fn count(&self, query: ArrayView1<'_, f32>, probes: Probes) -> Result<usize> {
        Ok(count(&self.distances(query)?, probes))
    }

    /// The partitions that a query searches, nearest first.
    pub(super) fn nearest(&self, query: ArrayView1<'_, f32>, probes: Probes) -> Result<Vec<usize>> {
        let distances = self.distances(query)?;
        let count = count(&distances, probes);
        let nearer = |a: &usize, b: &usize| distances[*a].total_cmp(&distances[*b]).then(a.cmp(b));
        let mut partitions: Vec<usize> = (0..distances.len()).collect();
        if count < partitions.len() {
            partitions.select_nth_unstable_by(count - 1, nearer);
            partitions.truncate(count);
        }
        partitions.sort_unstable_by(nearer);
        Ok(partitions)
    }
}

/// How many of the partitions at some distances are searched.
fn count(distances: &[f32], probes: Probes) -> usize {
    let within = probes.margin.map_or(0, |most| margins(distances).into_iter().filter(|at| *at <= most).count());
    within.max(probes.at_least).clamp(1, distances.len().max(1))
}

/// The margin of each of some distances. Where more than half are equally near, that of what is farther is the largest number.
fn margins(distances: &[f32]) -> Vec<f32> {
    let mut sorted = distances.to_vec();
    let middle = sorted.len() / 2;
    if sorted.is_empty() {
        return sorted;
    }
    let median = *sorted.select_nth_unstable_by(middle, f32::total_cmp).1;
    let nearest = sorted[..=middle].iter().copied().fold(f32::INFINITY, f32::min);
    let margin = |distance: &f32| match *distance <= nearest {
        true => 0.0,
        false => ((distance - nearest) / (median - nearest)).min(f32::MAX),
    };
    distances.iter().map(margin).collect()
}

/// How far items are from a query, in f32.
pub(super) fn distances(metric: Metric, query: &Float32Array, items: &FixedSizeListArray) -> Result<Arc<Float32Array>> {
    let metric = match metric {
        Metric::L2 => DistanceType::L2,
        Metric::Cosine => DistanceType::Cosine,
        Metric::Dot => DistanceType::Dot,
    };
    metric.arrow_batch_func()(query, items).doing("measuring distances")
}

/// An index of one segment; `None` if there are several.
pub(super) async fn open(
    dataset: &Arc<Dataset>,
    name: &str,
    column: &str,
) -> lance::Result<Option<Arc<dyn VectorIndex>>> {
    let segments = dataset.load_indices_by_name(name).await?;
    let [segment] = segments.as_slice() else { return Ok(None) };
    dataset.open_vector_index(column, &segment.uuid, &NoOpMetricsCollector).await.map(Some)
}
