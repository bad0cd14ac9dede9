//! Trains the centroids and quantisers of an index on a sample of the rows, reproducibly.
//!
//! Lance draws the sample, initial centroids and rotations from the random generator of the operating system. Here they are drawn
//! with a fixed seed. The k-means of Lance sums in the same order for any number of threads, so the same items and options result
//! in the same index. (The rows of a partition are in the order of the files. Search results hardly depend on it, because the
//! distances of candidates are recomputed and ties are ordered by `db_idx`.)

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array};
use arrow::datatypes::{DataType, Field, Float32Type};
use futures::{StreamExt, TryStreamExt, stream};
use lance::Dataset;
use lance::dataset::ProjectionRequest;
use lance_index::vector::bq::RQBuildParams;
use lance_index::vector::bq::builder::RabitQuantizer;
use lance_index::vector::ivf::new_ivf_transformer;
use lance_index::vector::kmeans::{KMeansParams, train_kmeans};
use lance_index::vector::pq::PQBuildParams;
use lance_linalg::distance::MetricType;
use lance_linalg::kernels::normalize_fsl_owned;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::EMBEDDING;

/// The seed of the sample and of k-means.
const SEED: u64 = 7;

/// Training rows per centroid, as in Lance and faiss.
const ROWS_PER_PARTITION: usize = 256;
/// Training rows for quantisers: 256 for each of 256 codes.
const CODE_TRAINING_ROWS: usize = 256 * 256;
/// The largest number of k-means iterations.
const ITERATIONS: u32 = 50;
/// The number of further k-means iterations over all partitions. More than 256 partitions are trained as a tree, which can split
/// clusters. For a recall of 0.99, queries of 300,000 clustered vectors with 96 components searched 12 of 548 partitions without
/// further iterations, and 2 with one or more. Queries of 67,000 molecules searched 12 of 259 without, and 9 with three.
const REFINEMENTS: u32 = 3;
/// The number of codes of product quantisation.
const PQ_CODES: usize = 256;
/// The number of bits of a code.
const PQ_BITS: usize = 8;

/// The number of rows per fetch.
const FETCH_ROWS: usize = 4096;
/// The number of concurrent fetches.
const CONCURRENT_FETCHES: usize = 8;

/// The number of training rows for this number of partitions, and for quantisers if there are any to train.
pub(super) fn training_rows(partitions: usize, has_codes: bool) -> usize {
    let for_codes = if has_codes { CODE_TRAINING_ROWS } else { 0 };
    partitions.saturating_mul(ROWS_PER_PARTITION).max(for_codes)
}

/// Reads the embeddings of `wanted` random rows (all, if there are fewer) in random order, as one vector of components.
pub(super) async fn sample_rows(
    dataset: &Dataset,
    rows: usize,
    dim: usize,
    wanted: usize,
    seed: u64,
) -> lance::Result<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Rows are fetched in the order of the files. The second number is the position in the sample.
    let sampled = rand::seq::index::sample(&mut rng, rows, wanted.min(rows));
    let mut sampled: Vec<(u64, usize)> = sampled.into_iter().map(|row| row as u64).zip(0..).collect();
    sampled.sort_unstable();
    let projection = || ProjectionRequest::from_columns([EMBEDDING], dataset.schema());
    let mut fetches = stream::iter(sampled.chunks(FETCH_ROWS).map(<[_]>::to_vec))
        .map(|chunk| async move {
            let rows: Vec<u64> = chunk.iter().map(|(row, _)| *row).collect();
            Ok::<_, lance::Error>((chunk, dataset.take(&rows, projection()).await?))
        })
        .buffered(CONCURRENT_FETCHES);
    let mut values = vec![0.0; sampled.len() * dim];
    while let Some((chunk, batch)) = fetches.try_next().await? {
        let fetched = batch.column(0).as_fixed_size_list().values().as_primitive::<Float32Type>().values();
        for ((_, to), vector) in chunk.iter().zip(fetched.chunks_exact(dim)) {
            values[to * dim..(to + 1) * dim].copy_from_slice(vector);
        }
    }
    Ok(values)
}

/// A random sample of embeddings. Under cosine, they are normalised to length 1.
pub(super) struct TrainingSample {
    vectors: FixedSizeListArray,
    /// L2 instead of cosine, because the vectors are normalised.
    metric: MetricType,
}

impl TrainingSample {
    /// Reads `wanted` random rows (all, if there are fewer).
    pub(super) async fn read(
        dataset: &Dataset,
        rows: usize,
        dim: usize,
        wanted: usize,
        metric: MetricType,
    ) -> lance::Result<Self> {
        let vectors = to_list(sample_rows(dataset, rows, dim, wanted, SEED).await?, dim);
        if metric != MetricType::Cosine {
            return Ok(TrainingSample { vectors, metric });
        }
        // Drop vectors that are too short to be normalised in f32.
        let vectors = normalize_fsl_owned(vectors)?;
        let values = vectors.values().as_primitive::<Float32Type>().values();
        let finite = values.chunks_exact(dim).filter(|vector| vector.iter().all(|value| value.is_finite()));
        let vectors = if values.iter().all(|value| value.is_finite()) {
            vectors
        } else {
            to_list(finite.flatten().copied().collect(), dim)
        };
        Ok(TrainingSample { vectors, metric: MetricType::L2 })
    }

    fn values(&self) -> &Float32Array {
        self.vectors.values().as_primitive::<Float32Type>()
    }

    fn dim(&self) -> usize {
        self.vectors.value_length() as usize
    }

    /// The training rows of quantisers.
    fn code_training_rows(&self) -> FixedSizeListArray {
        self.vectors.slice(0, self.vectors.len().min(CODE_TRAINING_ROWS))
    }

    /// Trains the centroids of this number of partitions.
    ///
    /// # Errors
    /// Fewer distinct embeddings than partitions.
    pub(super) fn centroids(&self, partitions: usize) -> Result<FixedSizeListArray> {
        // The same parameters as Lance's, except for the seed and the refinements.
        let params = KMeansParams::new(None, ITERATIONS, 1, self.metric).with_balance_factor(1.0).with_seed(SEED);
        let params = params.with_refine_iters(REFINEMENTS);
        let trained = train_kmeans::<Float32Type>(self.values(), params, self.dim(), partitions, ROWS_PER_PARTITION)
            .wrap_err("training the partitions")?;
        Ok(array_to_list(trained.centroids, self.dim()))
    }

    /// The smallest and the largest component: the range of scalar quantisation.
    pub(super) fn value_range(&self) -> Range<f64> {
        let rows = self.code_training_rows();
        let values = rows.values().as_primitive::<Float32Type>().values();
        let (low, high) =
            values.iter().fold((f32::MAX, f32::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
        f64::from(low)..f64::from(high)
    }

    /// Trains product quantisation with this number of codes per vector, on the residuals to the centroids.
    pub(super) fn product_quantiser(&self, codes: usize, centroids: &FixedSizeListArray) -> Result<PQBuildParams> {
        let rows = match self.metric {
            MetricType::L2 => new_ivf_transformer(centroids.clone(), MetricType::L2, Vec::new())
                .compute_residual(&self.code_training_rows())
                .wrap_err("training codes")?,
            _ => self.code_training_rows(),
        };
        if rows.len() < PQ_CODES {
            return Err(Error::Config(format!(
                "index: ivf-pq needs {PQ_CODES} rows to train its codes, found {}",
                rows.len()
            )));
        }
        // Initialise the codebook with the first 256 rows, which are random, for each part of a vector.
        let (dim, part) = (self.dim(), self.dim() / codes);
        let values = rows.values().as_primitive::<Float32Type>().values();
        let parts = (0..codes).flat_map(|code| {
            let vectors = values.chunks_exact(dim).take(PQ_CODES);
            vectors.flat_map(move |vector| &vector[code * part..(code + 1) * part])
        });
        let initial: ArrayRef = Arc::new(to_list(parts.copied().collect(), dim));
        let initial = PQBuildParams::with_codebook(codes, PQ_BITS, initial);
        let trained = initial.build(&rows, MetricType::L2).wrap_err("training codes")?;
        Ok(PQBuildParams::with_codebook(codes, PQ_BITS, trained.codebook.values().clone()))
    }
}

/// The parameters of RaBitQ with this number of bits per component, and with a seeded random rotation.
pub(super) fn rabitq_params(bits: u8, dim: usize) -> RQBuildParams {
    let mut rotation = RabitQuantizer::new::<Float32Type>(bits, dim as i32).metadata_ref().clone();
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    rotation.fast_rotation_signs.iter_mut().for_each(|signs| rng.fill_bytes(signs));
    RQBuildParams { rotation: Some(rotation), ..RQBuildParams::new(bits) }
}

fn to_list(values: Vec<f32>, dim: usize) -> FixedSizeListArray {
    array_to_list(Arc::new(Float32Array::from(values)), dim)
}

fn array_to_list(values: ArrayRef, dim: usize) -> FixedSizeListArray {
    FixedSizeListArray::new(Arc::new(Field::new("item", DataType::Float32, true)), dim as i32, values, None)
}
