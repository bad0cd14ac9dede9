//! The index in memory, where the embeddings fit: their rows partition by partition, so that a search needs no plan, and
//! measures what is near where it lies.

use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array};
use arrow::datatypes::{Float32Type, UInt64Type};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use lance::Dataset;
use lance::index::{DatasetIndexExt, DatasetIndexInternalExt};
use lance_index::metrics::NoOpMetricsCollector;
use lance_index::vector::VectorIndex;
use lance_linalg::distance::DistanceType;
use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use super::batch::{ROW_ID, as_f32, fixed_size_list};
use super::table::Table;
use crate::database::Metric;
use crate::database::exact::{LeftOut, Neighbour};
use crate::database::runtime::on_runtime;
use crate::error::{Doing, Result};

/// Partitions that are read at the same time.
const READS: usize = 32;

/// The rows of an index and their embeddings.
pub(super) struct Partitions {
    metric: Metric,
    centroids: FixedSizeListArray,
    partitions: Vec<Partition>,
    /// The partition of each row, and its position there.
    place: HashMap<u64, (u32, u32)>,
}

struct Partition {
    rows: Vec<u64>,
    items: FixedSizeListArray,
}

impl Partitions {
    /// Reads an index of one segment, and the embeddings of its rows; `None` if there are several.
    pub(super) fn read(table: &Table, name: &str, metric: Metric, dim: usize) -> Result<Option<Self>> {
        let (dataset, name, column) = (table.dataset.clone(), name.to_string(), table.embedding_column.clone());
        let Some((centroids, lists)) =
            on_runtime(async move { lists(&dataset, &name, &column).await })?.doing("reading the index")?
        else {
            return Ok(None);
        };
        let centroids = as_f32(&(Arc::new(centroids) as ArrayRef))?;
        let mut place = HashMap::new();
        for (partition, rows) in (0..).zip(&lists) {
            place.extend(rows.iter().copied().zip((0..).map(|position| (partition, position))));
        }
        // A row that was deleted since is listed, and not scanned: NaN is near to nothing.
        let mut items: Vec<Vec<f32>> = lists.iter().map(|rows| vec![f32::NAN; rows.len() * dim]).collect();
        table.scan(None, None, &mut |scanned, embeddings| {
            for (row, embedding) in scanned.iter().zip(embeddings.rows()) {
                if let (Some((partition, position)), Some(embedding)) = (place.get(row), embedding.as_slice()) {
                    let start = *position as usize * dim;
                    items[*partition as usize][start..start + dim].copy_from_slice(embedding);
                }
            }
            Ok(())
        })?;
        let partitions = lists.into_iter().zip(items).map(|(rows, items)| {
            let items = Array2::from_shape_vec((rows.len(), dim), items).doing("reading the index")?;
            Ok(Partition { items: fixed_size_list(items.view()), rows })
        });
        Ok(Some(Partitions { metric, centroids, partitions: partitions.collect::<Result<_>>()?, place }))
    }

    /// The `k` rows nearest to each query, of those in its nearest `nprobes` partitions, nearest first.
    ///
    /// # Errors
    /// Queries of another dimension.
    pub(super) fn nearest(
        &self,
        queries: ArrayView2<'_, f32>,
        nprobes: usize,
        k: usize,
        left_out: &LeftOut<'_>,
    ) -> Result<Vec<Vec<Neighbour>>> {
        let look = |queries: ArrayView2<'_, f32>| {
            // First the nearest partition of each, which says how near the others have to be.
            let mut asking = [vec![Vec::new(); self.partitions.len()], vec![Vec::new(); self.partitions.len()]];
            let mut asked = Vec::with_capacity(queries.nrows());
            for (at, query) in queries.rows().into_iter().enumerate() {
                for (rank, partition) in self.nearest_partitions(query, nprobes)?.into_iter().enumerate() {
                    asking[rank.min(1)][partition].push(at);
                }
                asked.push(Float32Array::from(query.to_vec()));
            }
            let mut nearest = vec![BinaryHeap::with_capacity(k.saturating_add(1).min(self.place.len())); asked.len()];
            for (Partition { rows, items }, asking) in
                asking.iter().flat_map(|asking| self.partitions.iter().zip(asking))
            {
                for at in asking {
                    sift(measured(self.metric, &asked[*at], items)?.values(), rows, k, left_out, &mut nearest[*at]);
                }
            }
            Ok(nearest.into_iter().map(BinaryHeap::into_sorted_vec).collect::<Vec<_>>())
        };
        // While a partition is at hand, all queries of a thread look into it.
        let of_a_thread = queries.nrows().div_ceil(rayon::current_num_threads()).max(1);
        let chunks: Vec<ArrayView2<'_, f32>> = queries.axis_chunks_iter(Axis(0), of_a_thread).collect();
        let found: Result<Vec<_>> = chunks.into_par_iter().map(look).collect();
        Ok(found?.into_iter().flatten().collect())
    }

    /// The partitions of the nearest centroids, as Lance measures it, nearest first.
    fn nearest_partitions(&self, query: ArrayView1<'_, f32>, nprobes: usize) -> Result<Vec<usize>> {
        let distances = match self.metric {
            // Of vectors of length 1.
            Metric::Cosine => {
                let length = query.dot(&query).sqrt();
                measured(Metric::L2, &Float32Array::from(query.mapv(|value| value / length).to_vec()), &self.centroids)?
            }
            metric => measured(metric, &Float32Array::from(query.to_vec()), &self.centroids)?,
        };
        let mut partitions: Vec<usize> = (0..self.partitions.len()).collect();
        let distance = |partition: usize| distances.value(partition);
        let nearer = |a: &usize, b: &usize| distance(*a).total_cmp(&distance(*b)).then(a.cmp(b));
        let nprobes = nprobes.min(partitions.len());
        if (1..partitions.len()).contains(&nprobes) {
            partitions.select_nth_unstable_by(nprobes - 1, nearer);
        }
        partitions.truncate(nprobes);
        partitions.sort_unstable_by(nearer);
        Ok(partitions)
    }

    /// The embeddings of rows, in their order; `None` if one is not held.
    pub(super) fn embeddings(&self, rows: &[u64]) -> Option<Array2<f32>> {
        let dim = self.centroids.value_length() as usize;
        let mut embeddings = Vec::with_capacity(rows.len() * dim);
        for row in rows {
            let (partition, position) = self.place.get(row)?;
            let values = self.partitions[*partition as usize].items.values().as_primitive::<Float32Type>().values();
            let start = *position as usize * dim;
            let embedding = &values[start..start + dim];
            (!embedding[0].is_nan()).then(|| embeddings.extend_from_slice(embedding))?;
        }
        Array2::from_shape_vec((rows.len(), dim), embeddings).ok()
    }
}

/// How far items are from a query, in f32.
fn measured(metric: Metric, query: &Float32Array, items: &FixedSizeListArray) -> Result<Arc<Float32Array>> {
    let metric = match metric {
        Metric::L2 => DistanceType::L2,
        Metric::Cosine => DistanceType::Cosine,
        Metric::Dot => DistanceType::Dot,
    };
    metric.arrow_batch_func()(query, items).doing("measuring distances")
}

/// Keeps the nearest. Counted by hand, because iterators are calls where little is optimised.
fn sift(distances: &[f32], rows: &[u64], k: usize, left_out: &LeftOut<'_>, nearest: &mut BinaryHeap<Neighbour>) {
    let worst = |nearest: &BinaryHeap<Neighbour>| match nearest.peek() {
        Some(worst) if nearest.len() >= k => worst.distance,
        _ => f32::MAX,
    };
    let (mut bound, mut at) = (worst(nearest), 0);
    while at < distances.len() {
        // What is not a number is not below it.
        if distances[at] <= bound && !left_out(rows[at]) {
            nearest.push(Neighbour { distance: distances[at], db_idx: rows[at] });
            if nearest.len() > k {
                nearest.pop();
            }
            bound = worst(nearest);
        }
        at += 1;
    }
}

/// The centroids of an index of one segment, and the rows of each partition.
async fn lists(
    dataset: &Arc<Dataset>,
    name: &str,
    column_name: &str,
) -> lance::Result<Option<(FixedSizeListArray, Vec<Vec<u64>>)>> {
    let segments = dataset.load_indices_by_name(name).await?;
    let [segment] = segments.as_slice() else { return Ok(None) };
    let index: Arc<dyn VectorIndex> =
        dataset.open_vector_index(column_name, &segment.uuid, &NoOpMetricsCollector).await?;
    let Some(centroids) = index.ivf_model().centroids_array().cloned() else { return Ok(None) };
    let reads = (0..centroids.len()).map(|partition| {
        let index = index.clone();
        async move {
            let batches = index.partition_reader(partition, false, &NoOpMetricsCollector).await?;
            let batches: Vec<_> = batches.try_collect().await?;
            let ids = batches.iter().filter_map(|batch| batch.column_by_name(ROW_ID));
            Ok::<Vec<u64>, lance::Error>(
                ids.flat_map(|ids| ids.as_primitive::<UInt64Type>().values().to_vec()).collect(),
            )
        }
        .boxed()
    });
    let lists = stream::iter(reads.collect::<Vec<_>>()).buffered(READS).try_collect().await?;
    Ok(Some((centroids, lists)))
}
