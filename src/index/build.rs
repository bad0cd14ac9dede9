//! Builds the ANN index from trained centroids and quantisers.

use std::path::Path;
use std::sync::Arc;

use lance::Dataset;
use lance::index::DatasetIndexExt;
use lance::index::vector::VectorIndexParams;
use lance::index::vector::builder::IvfIndexBuilder;
use lance_index::IndexType;
use lance_index::vector::flat::index::FlatIndex;
use lance_index::vector::hnsw::builder::{HNSW, HnswBuildParams};
use lance_index::vector::ivf::IvfBuildParams;
use lance_index::vector::sq::ScalarQuantizer;
use lance_index::vector::sq::builder::SQBuildParams;
use lance_index::vector::v3::shuffler::TwoFileShuffler;
use lance_index::vector::v3::subindex::IvfSubIndex;
use lance_linalg::distance::MetricType;

use super::kind::{IndexKind, IndexPlan};
use super::training::{TrainingSample, rabitq_params, training_rows};
use crate::database::{Metric, block_on, block_on_one_thread};
use crate::error::{Result, WrapErr};
use crate::frame::schema::EMBEDDING;
use crate::interrupt::Interrupt;
use crate::io::atomic;

/// The name of the index in the dataset.
const NAME: &str = "embedding_idx";
/// A temporary folder next to the index, for rows that are being sorted into partitions.
const SCRATCH: &str = "scratch";
/// The number of bits per component of RaBitQ.
const RQ_BITS: u8 = 3;
/// The number of bits per component of scalar quantisation.
const SQ_BITS: u16 = 8;
/// The total number of centroid components from which Lance assigns rows to partitions through a graph. The graph depends on the
/// order of threads, so one thread builds it.
const CENTROID_GRAPH_FROM: usize = 1_000_000;

impl IndexPlan {
    /// Builds the index over a dataset of `rows` rows at a local path.
    ///
    /// # Errors
    /// Fewer distinct embeddings than partitions; a full disk; an interrupt, which leaves an incomplete index.
    pub(super) fn build(
        self,
        dataset: Dataset,
        path: &Path,
        metric: Metric,
        rows: u64,
        dim: usize,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let metric = match metric {
            Metric::L2 => MetricType::L2,
            Metric::Cosine => MetricType::Cosine,
            Metric::Dot => MetricType::Dot,
        };
        let has_codes = matches!(self.kind, IndexKind::IvfPq | IndexKind::IvfSq | IndexKind::IvfHnswSq);
        let (source, cancel, sample_rows) =
            (dataset.clone(), interrupt.clone(), training_rows(self.partitions, has_codes));
        let sample = block_on(async move {
            cancel.run_async(TrainingSample::read(&source, rows as usize, dim, sample_rows, metric)).await
        })??;
        let sample = Arc::new(sample.wrap_err("reading a sample")?);
        let (training, partitions) = (sample.clone(), self.partitions);
        let centroids = interrupt.run(move || match partitions * dim >= CENTROID_GRAPH_FROM {
            true => block_on_one_thread(async { training.centroids(partitions) })?,
            false => training.centroids(partitions),
        })?;
        let ivf = IvfBuildParams::try_with_centroids(self.partitions, Arc::new(centroids.clone()))
            .wrap_err("building the index")?;
        let sq = SQBuildParams { num_bits: SQ_BITS, ..Default::default() };
        let params = match self.kind {
            IndexKind::IvfSq => VectorIndexParams::with_ivf_sq_params(metric, ivf.clone(), sq),
            IndexKind::IvfPq => {
                // Two components per code. With four components, four candidates per neighbour are not enough.
                let codes = if dim.is_multiple_of(2) { dim / 2 } else { dim };
                let training = sample.clone();
                let codes = interrupt.run(move || training.product_quantiser(codes, &centroids))?;
                VectorIndexParams::with_ivf_pq_params(metric, ivf.clone(), codes)
            }
            IndexKind::IvfRq => VectorIndexParams::with_ivf_rq_params(metric, ivf.clone(), rabitq_params(RQ_BITS, dim)),
            IndexKind::IvfHnswSq => {
                VectorIndexParams::with_ivf_hnsw_sq_params(metric, ivf.clone(), HnswBuildParams::default(), sq)
            }
            _ => VectorIndexParams::with_ivf_flat_params(metric, ivf.clone()),
        };
        let quantiser = ScalarQuantizer::with_bounds(SQ_BITS, dim, sample.value_range());
        drop(sample);
        let mut builder = IndexBuilder { dataset, params, ivf, metric };
        let built = match self.kind {
            IndexKind::IvfSq => {
                block_on_one_thread(interrupt.run_async(builder.build_scalar_quantised::<FlatIndex>((), quantiser)))??
            }
            IndexKind::IvfHnswSq => block_on_one_thread(
                interrupt.run_async(builder.build_scalar_quantised::<HNSW>(HnswBuildParams::default(), quantiser)),
            )??,
            _ => block_on_one_thread(interrupt.run_async(builder.build()))??,
        };
        atomic::remove_dir_all(&path.join("_indices").join(SCRATCH))?;
        built.wrap_err(path.display())
    }
}

/// Builds an index of a dataset with given parameters.
struct IndexBuilder {
    dataset: Dataset,
    params: VectorIndexParams,
    ivf: IvfBuildParams,
    metric: MetricType,
}

impl IndexBuilder {
    /// Builds the index with Lance's own builder.
    async fn build(&mut self) -> lance::Result<()> {
        let name = Some(NAME.to_string());
        self.dataset.create_index(&[EMBEDDING], IndexType::Vector, name, &self.params, true).await?;
        Ok(())
    }

    /// Builds a scalar-quantised index with a given value range. Lance's own builder takes the range from a random sample.
    async fn build_scalar_quantised<S: IvfSubIndex + 'static>(
        &mut self,
        sub_index: S::BuildParams,
        quantiser: ScalarQuantizer,
    ) -> lance::Result<()> {
        let dataset = &mut self.dataset;
        // The manifest entry of the index, without files.
        let untrained = dataset.create_index_builder(&[EMBEDDING], IndexType::Vector, &self.params);
        let mut index = untrained.name(NAME.into()).train(false).execute_uncommitted().await?;
        index.fragment_bitmap = Some(dataset.fragments().iter().map(|fragment| fragment.id as u32).collect());
        let (folder, scratch) =
            (dataset.indices_dir().join(index.uuid.to_string()), dataset.indices_dir().join(SCRATCH));
        let shuffler = Box::new(TwoFileShuffler::new(scratch, self.ivf.num_partitions.unwrap_or(1)));
        let (copy, column, ivf) = (dataset.clone(), EMBEDDING.to_string(), Some(self.ivf.clone()));
        let mut builder = IvfIndexBuilder::<S, ScalarQuantizer>::new(
            copy,
            column,
            folder,
            self.metric,
            shuffler,
            ivf,
            None,
            sub_index,
            None,
        )?;
        builder.with_quantizer(quantiser).build().await?;
        dataset.commit_existing_index_segments(NAME, EMBEDDING, vec![index]).await
    }
}
