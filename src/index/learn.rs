//! What an index is made with: the centroids of its partitions, and what its codes are made by.
//!
//! Lance draws rows, first centroids and rotations from the operating system's randomness. Here they come from a fixed
//! seed and go through Lance's own k-means, which sums in an order of its own whatever the threads: the same items and
//! options give the same index. (The rows of a partition come in the order of the files. Results hardly depend on it:
//! candidates are measured again, and ties come in order of `db_idx`.)

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

/// What everything is drawn by.
const SEED: u64 = 7;

/// Rows that a centroid is learnt from, as in Lance and faiss.
const ROWS_PER_PARTITION: usize = 256;
/// Rows that codes are learnt from: 256 for each of 256 codes.
const ROWS_FOR_CODES: usize = 256 * 256;
/// Iterations of k-means, at most.
const ITERATIONS: u32 = 50;
/// Iterations over all partitions that follow. More than 256 are learnt as a tree, which leaves clusters cut at its branches:
/// for a recall of 0.99 300,000 clustered vectors of 96 components wanted 12 of 548 partitions without any, and 2 with
/// one or more; 67,000 molecules 12 of 259, and 9 with three.
const REFINEMENTS: u32 = 3;
/// Product quantisation's codes, and the bits of one.
const PQ_CODES: usize = 256;
const PQ_BITS: usize = 8;

/// Rows that are fetched at a time, and how many fetches are under way.
const FETCH_ROWS: usize = 4096;
const FETCHES: usize = 8;

/// Rows to draw for so many partitions, and for codes where there are any to learn.
pub(super) fn sample_rows(partitions: usize, has_codes: bool) -> usize {
    let for_codes = if has_codes { ROWS_FOR_CODES } else { 0 };
    partitions.saturating_mul(ROWS_PER_PARTITION).max(for_codes)
}

/// So many random rows of all, or all if there are not more, in random order and one after the other.
pub(super) async fn draw(
    dataset: &Dataset,
    rows: usize,
    dim: usize,
    wanted: usize,
    seed: u64,
) -> lance::Result<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Where each row goes; they are fetched in the order they have in the files.
    let drawn = rand::seq::index::sample(&mut rng, rows, wanted.min(rows));
    let mut drawn: Vec<(u64, usize)> = drawn.into_iter().map(|row| row as u64).zip(0..).collect();
    drawn.sort_unstable();
    let projection = || ProjectionRequest::from_columns([EMBEDDING], dataset.schema());
    let mut fetches = stream::iter(drawn.chunks(FETCH_ROWS).map(<[_]>::to_vec))
        .map(|chunk| async move {
            let rows: Vec<u64> = chunk.iter().map(|(row, _)| *row).collect();
            Ok::<_, lance::Error>((chunk, dataset.take(&rows, projection()).await?))
        })
        .buffered(FETCHES);
    let mut values = vec![0.0; drawn.len() * dim];
    while let Some((chunk, batch)) = fetches.try_next().await? {
        let fetched = batch.column(0).as_fixed_size_list().values().as_primitive::<Float32Type>().values();
        for ((_, to), vector) in chunk.iter().zip(fetched.chunks_exact(dim)) {
            values[to * dim..(to + 1) * dim].copy_from_slice(vector);
        }
    }
    Ok(values)
}

/// Rows of the library in random order, under cosine of length 1.
pub(super) struct Sample {
    vectors: FixedSizeListArray,
    /// Cosine is L2 from here on.
    metric: MetricType,
}

impl Sample {
    /// Draws so many rows of all, or all if there are not more.
    pub(super) async fn draw(
        dataset: &Dataset,
        rows: usize,
        dim: usize,
        wanted: usize,
        metric: MetricType,
    ) -> lance::Result<Self> {
        let vectors = list(draw(dataset, rows, dim, wanted, SEED).await?, dim);
        if metric != MetricType::Cosine {
            return Ok(Sample { vectors, metric });
        }
        // A vector that is too short to have a direction in f32 teaches nothing.
        let vectors = normalize_fsl_owned(vectors)?;
        let values = vectors.values().as_primitive::<Float32Type>().values();
        let finite = values.chunks_exact(dim).filter(|vector| vector.iter().all(|value| value.is_finite()));
        let vectors = if values.iter().all(|value| value.is_finite()) {
            vectors
        } else {
            list(finite.flatten().copied().collect(), dim)
        };
        Ok(Sample { vectors, metric: MetricType::L2 })
    }

    fn values(&self) -> &Float32Array {
        self.vectors.values().as_primitive::<Float32Type>()
    }

    fn dim(&self) -> usize {
        self.vectors.value_length() as usize
    }

    /// The rows that codes are learnt from.
    fn for_codes(&self) -> FixedSizeListArray {
        self.vectors.slice(0, self.vectors.len().min(ROWS_FOR_CODES))
    }

    /// The centroids of so many partitions.
    ///
    /// # Errors
    /// Fewer distinct embeddings than partitions.
    pub(super) fn centroids(&self, partitions: usize) -> Result<FixedSizeListArray> {
        // As Lance calls it, but for the seed and the refinements.
        let params = KMeansParams::new(None, ITERATIONS, 1, self.metric).with_balance_factor(1.0).with_seed(SEED);
        let params = params.with_refine_iters(REFINEMENTS);
        let learnt = train_kmeans::<Float32Type>(self.values(), params, self.dim(), partitions, ROWS_PER_PARTITION)
            .wrap_err("learning the partitions")?;
        Ok(list_of(learnt.centroids, self.dim()))
    }

    /// The smallest and the largest component, between which a byte is divided.
    pub(super) fn bounds(&self) -> Range<f64> {
        let rows = self.for_codes();
        let values = rows.values().as_primitive::<Float32Type>().values();
        let (low, high) =
            values.iter().fold((f32::MAX, f32::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
        f64::from(low)..f64::from(high)
    }

    /// Product quantisation of so many codes a vector, of what is left when the centroid is taken off.
    pub(super) fn product_codes(&self, codes: usize, centroids: &FixedSizeListArray) -> Result<PQBuildParams> {
        let rows = match self.metric {
            MetricType::L2 => new_ivf_transformer(centroids.clone(), MetricType::L2, Vec::new())
                .compute_residual(&self.for_codes())
                .wrap_err("learning codes")?,
            _ => self.for_codes(),
        };
        if rows.len() < PQ_CODES {
            return Err(Error::Config(format!("index: ivf-pq learns from {PQ_CODES} rows, there are {}", rows.len())));
        }
        // It begins with the first rows, which are random ones: of each part of a vector the first 256.
        let (dim, part) = (self.dim(), self.dim() / codes);
        let values = rows.values().as_primitive::<Float32Type>().values();
        let parts = (0..codes).flat_map(|code| {
            let vectors = values.chunks_exact(dim).take(PQ_CODES);
            vectors.flat_map(move |vector| &vector[code * part..(code + 1) * part])
        });
        let first: ArrayRef = Arc::new(list(parts.copied().collect(), dim));
        let learnt = PQBuildParams::with_codebook(codes, PQ_BITS, first);
        let learnt = learnt.build(&rows, MetricType::L2).wrap_err("learning codes")?;
        Ok(PQBuildParams::with_codebook(codes, PQ_BITS, learnt.codebook.values().clone()))
    }
}

/// RaBitQ of so many bits a component, with a random rotation.
pub(super) fn rotated_codes(bits: u8, dim: usize) -> RQBuildParams {
    let mut rotation = RabitQuantizer::new::<Float32Type>(bits, dim as i32).metadata_ref().clone();
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    rotation.fast_rotation_signs.iter_mut().for_each(|signs| rng.fill_bytes(signs));
    RQBuildParams { rotation: Some(rotation), ..RQBuildParams::new(bits) }
}

fn list(values: Vec<f32>, dim: usize) -> FixedSizeListArray {
    list_of(Arc::new(Float32Array::from(values)), dim)
}

fn list_of(values: ArrayRef, dim: usize) -> FixedSizeListArray {
    FixedSizeListArray::new(Arc::new(Field::new("item", DataType::Float32, true)), dim as i32, values, None)
}
