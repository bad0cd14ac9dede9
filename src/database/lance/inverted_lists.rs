//! The inverted lists of an IVF index: the row ids of each partition.

use std::sync::Arc;

use arrow::array::{Array, AsArray, FixedSizeListArray};
use arrow::datatypes::UInt64Type;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use lance::Dataset;
use lance_index::metrics::NoOpMetricsCollector;

use super::centroids::{self, Centroids};
use super::record_batch::ROW_ID;
use super::table::Table;
use crate::database::Metric;
use crate::database::runtime::block_on;
use crate::error::{Result, WrapErr};

/// Partitions that are read concurrently.
const CONCURRENT_READS: usize = 32;

/// Reads the centroids and the row ids of each partition. `None` if the index has several segments.
pub(super) fn read(table: &Table, name: &str, metric: Metric) -> Result<Option<(Centroids, Vec<Vec<u64>>)>> {
    let (dataset, name, column) = (table.dataset.clone(), name.to_string(), table.embedding_column.clone());
    let read = block_on(async move { read_lists(&dataset, &name, &column).await })?.wrap_err("reading the index")?;
    read.map(|(centroids, lists)| Ok((Centroids::new(metric, centroids)?, lists))).transpose()
}

async fn read_lists(
    dataset: &Arc<Dataset>,
    name: &str,
    column: &str,
) -> lance::Result<Option<(FixedSizeListArray, Vec<Vec<u64>>)>> {
    let Some(index) = centroids::open_index(dataset, name, column).await? else { return Ok(None) };
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
    let lists = stream::iter(reads.collect::<Vec<_>>()).buffered(CONCURRENT_READS).try_collect().await?;
    Ok(Some((centroids, lists)))
}
