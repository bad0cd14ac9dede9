//! The index in memory, where the embeddings fit: their rows partition by partition, so that a search needs no plan, and
//! measures what is near where it lies.

use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, FixedSizeListArray, Float32Array};
use arrow::datatypes::{Float32Type, UInt64Type};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use lance::Dataset;
use lance_index::metrics::NoOpMetricsCollector;
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::batch::{ROW_ID, fixed_size_list};
use super::centroids::{self, Centroids, Probes};
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
    centroids: Centroids,
    partitions: Vec<Partition>,
    /// The partition of each row, and its position there.
    place: HashMap<u64, (u32, u32)>,
}

struct Partition {
    rows: Vec<u64>,
    items: FixedSizeListArray,
}

impl Partitions {
    /// Reads an index of one segment, and the embeddings of its rows in the fragments that it covers; `None` if there are
    /// several segments.
    pub(super) fn read(
        table: &Table,
        name: &str,
        metric: Metric,
        dim: usize,
        uncovered: &[u64],
    ) -> Result<Option<Self>> {
        let Some((centroids, lists)) = lists(table, name, metric)? else { return Ok(None) };
        let mut place = HashMap::new();
        for (partition, rows) in (0..).zip(&lists) {
            place.extend(rows.iter().copied().zip((0..).map(|position| (partition, position))));
        }
        // A row that was deleted since, or moved to a fragment that the index does not cover, as a new embedding has it
        // moved, is listed and not scanned: NaN is near to nothing.
        let mut items: Vec<Vec<f32>> = lists.iter().map(|rows| vec![f32::NAN; rows.len() * dim]).collect();
        let fragments = table.dataset.fragments().iter().map(|fragment| fragment.id);
        let covered: Vec<u64> = fragments.filter(|fragment| !uncovered.contains(fragment)).collect();
        table.scan(None, Some(&covered), &mut |scanned, embeddings| {
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

    /// The `k` rows nearest to each query, of those in the partitions that it searches, nearest first.
    ///
    /// # Errors
    /// Queries of another dimension.
    pub(super) fn nearest(
        &self,
        queries: ArrayView2<'_, f32>,
        probes: Probes,
        k: usize,
        left_out: &LeftOut<'_>,
    ) -> Result<Vec<Vec<Neighbour>>> {
        let look = |queries: ArrayView2<'_, f32>| {
            // First the nearest partition of each, which says how near the others have to be.
            let mut asking = [vec![Vec::new(); self.partitions.len()], vec![Vec::new(); self.partitions.len()]];
            let mut asked = Vec::with_capacity(queries.nrows());
            for (at, query) in queries.rows().into_iter().enumerate() {
                for (rank, partition) in self.centroids.nearest(query, probes)?.into_iter().enumerate() {
                    asking[rank.min(1)][partition].push(at);
                }
                asked.push(Float32Array::from(query.to_vec()));
            }
            let mut nearest = vec![BinaryHeap::with_capacity(k.saturating_add(1).min(self.place.len())); asked.len()];
            for (Partition { rows, items }, asking) in
                asking.iter().flat_map(|asking| self.partitions.iter().zip(asking))
            {
                for at in asking {
                    sift(
                        centroids::distances(self.metric, &asked[*at], items)?.values(),
                        rows,
                        k,
                        left_out,
                        &mut nearest[*at],
                    );
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

    /// The embeddings of rows, in their order; `None` if one is not held.
    pub(super) fn embeddings(&self, rows: &[u64]) -> Option<Array2<f32>> {
        let dim = self.centroids.dim();
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

/// The centroids of an index of one segment, and the rows of each partition; `None` if there are several segments.
pub(super) fn lists(table: &Table, name: &str, metric: Metric) -> Result<Option<(Centroids, Vec<Vec<u64>>)>> {
    let (dataset, name, column) = (table.dataset.clone(), name.to_string(), table.embedding_column.clone());
    let read = on_runtime(async move { rows(&dataset, &name, &column).await })?.doing("reading the index")?;
    read.map(|(centroids, lists)| Ok((Centroids::new(metric, centroids)?, lists))).transpose()
}

async fn rows(
    dataset: &Arc<Dataset>,
    name: &str,
    column: &str,
) -> lance::Result<Option<(FixedSizeListArray, Vec<Vec<u64>>)>> {
    let Some(index) = centroids::open(dataset, name, column).await? else { return Ok(None) };
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
