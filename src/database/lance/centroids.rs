//! The centroids of an IVF index, and the selection of the partitions that a query searches: a scale-independent form of the
//! pruning of SPANN (arXiv 2111.08566, section 3.2.3).
//!
//! SPANN searches the partitions whose centroid is within `(1 + e)` times the distance of the nearest centroid. That ratio
//! differs between a query at an item and a query between two clusters, and has no meaning for dot products, which may be
//! negative. Here the distance `d_j` of each centroid is scaled to a *relative distance* `r_j`, which is 0 for the nearest
//! centroid and 1 for the median one:
//!
//! ```text
//! r_j = (d_j - min d) / (median d - min d)
//! ```
//!
//! A query searches the partitions up to the relative distance that `uphill index` measured for a recall. These are few partitions
//! if one cluster is near, and many if all are about equally far.

use std::sync::Arc;

use arrow::array::{Array, FixedSizeListArray, Float32Array};
use lance::Dataset;
use lance::index::{DatasetIndexExt, DatasetIndexInternalExt};
use lance_index::metrics::NoOpMetricsCollector;
use lance_index::vector::VectorIndex;
use lance_linalg::distance::DistanceType;
use ndarray::ArrayView1;

use super::record_batch::as_f32;
use super::table::Table;
use crate::database::Metric;
use crate::database::runtime::block_on;
use crate::error::{Result, WrapErr};

/// The rule that determines how many partitions a query searches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Probes {
    /// The minimum number of nearest partitions.
    pub(crate) min_partitions: usize,
    /// In addition, all partitions up to this relative distance are searched.
    pub(crate) max_relative_distance: Option<f32>,
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

    /// Reads the centroids of an index. `None` if it has none or has several segments.
    pub(super) fn read(table: &Table, name: &str, metric: Metric) -> Result<Option<Self>> {
        let (dataset, name, column) = (table.dataset.clone(), name.to_string(), table.embedding_column.clone());
        let index =
            block_on(async move { open_index(&dataset, &name, &column).await })?.wrap_err("reading the index")?;
        let values = index.and_then(|index| index.ivf_model().centroids_array().cloned());
        values.map(|values| Self::new(metric, values)).transpose()
    }

    /// The number of components.
    pub(super) fn dim(&self) -> usize {
        self.values.value_length() as usize
    }

    /// The distance of each centroid to a query, as Lance measures it. A squared distance is replaced by its root.
    fn distances(&self, query: ArrayView1<'_, f32>) -> Result<Vec<f32>> {
        let distances = match self.metric {
            // The L2 distance of vectors of length 1.
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

    /// The relative distance of each partition to a query: 0 for the nearest, 1 for the median one.
    pub(super) fn relative_distances(&self, query: ArrayView1<'_, f32>) -> Result<Vec<f32>> {
        Ok(relative_distances(&self.distances(query)?))
    }

    /// The number of partitions that a query searches.
    pub(super) fn partition_count(&self, query: ArrayView1<'_, f32>, probes: Probes) -> Result<usize> {
        Ok(partition_count(&self.distances(query)?, probes))
    }

    /// The partitions that a query searches, nearest first.
    pub(super) fn nearest_partitions(&self, query: ArrayView1<'_, f32>, probes: Probes) -> Result<Vec<usize>> {
        let distances = self.distances(query)?;
        let count = partition_count(&distances, probes);
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

/// The number of partitions to search, given the distances of their centroids.
fn partition_count(distances: &[f32], probes: Probes) -> usize {
    let within = probes
        .max_relative_distance
        .map_or(0, |max| relative_distances(distances).into_iter().filter(|at| *at <= max).count());
    within.max(probes.min_partitions).clamp(1, distances.len().max(1))
}

/// Scales distances to relative distances. If more than half of the distances are equal to the smallest, the relative distance of
/// the others is `f32::MAX`.
fn relative_distances(distances: &[f32]) -> Vec<f32> {
    let mut sorted = distances.to_vec();
    let middle = sorted.len() / 2;
    if sorted.is_empty() {
        return sorted;
    }
    let median = *sorted.select_nth_unstable_by(middle, f32::total_cmp).1;
    let nearest = sorted[..=middle].iter().copied().fold(f32::INFINITY, f32::min);
    let relative_distance = |distance: &f32| match *distance <= nearest {
        true => 0.0,
        false => ((distance - nearest) / (median - nearest)).min(f32::MAX),
    };
    distances.iter().map(relative_distance).collect()
}

/// The distances of items to a query, in f32.
pub(super) fn distances(metric: Metric, query: &Float32Array, items: &FixedSizeListArray) -> Result<Arc<Float32Array>> {
    let metric = match metric {
        Metric::L2 => DistanceType::L2,
        Metric::Cosine => DistanceType::Cosine,
        Metric::Dot => DistanceType::Dot,
    };
    metric.arrow_batch_func()(query, items).wrap_err("computing distances")
}

/// Opens an index of one segment. `None` if it has several.
pub(super) async fn open_index(
    dataset: &Arc<Dataset>,
    name: &str,
    column: &str,
) -> lance::Result<Option<Arc<dyn VectorIndex>>> {
    let segments = dataset.load_indices_by_name(name).await?;
    let [segment] = segments.as_slice() else { return Ok(None) };
    dataset.open_vector_index(column, &segment.uuid, &NoOpMetricsCollector).await.map(Some)
}
