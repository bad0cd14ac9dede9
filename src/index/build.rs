//! Building the ANN index with what was learnt.

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

use super::ann::{IndexKind, Plan};
use super::learn::{Sample, rotated_codes, sample_rows};
use crate::database::{Metric, block_on, block_on_one_thread};
use crate::error::{Result, WrapErr};
use crate::frame::schema::EMBEDDING;
use crate::interrupt::Interrupt;
use crate::io::atomic;

/// The index's name in the dataset.
const NAME: &str = "embedding_idx";
/// A folder beside the index, for the rows that are being sorted into partitions.
const SCRATCH: &str = "scratch";
/// Bits of RaBitQ for a component.
const RQ_BITS: u8 = 3;
/// Bits of scalar quantisation for a component.
const SQ_BITS: u16 = 8;
/// From so many components of all centroids on, Lance finds a row's partition through a graph.
const CENTROIDS_IN_A_GRAPH: usize = 1_000_000;

impl Plan {
    /// Builds the index over a dataset of so many rows, at a path of this machine.
    ///
    /// # Errors
    /// Fewer distinct embeddings than partitions; a disk that is full; an interrupt, which leaves what is half built.
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
        let (read, until, wanted) = (dataset.clone(), interrupt.clone(), sample_rows(self.partitions, has_codes));
        let drawn =
            block_on(async move { until.run_async(Sample::draw(&read, rows as usize, dim, wanted, metric)).await })??;
        let sample = Arc::new(drawn.wrap_err("reading a sample")?);
        let (drawn, partitions) = (sample.clone(), self.partitions);
        let centroids = interrupt.run(move || match partitions * dim >= CENTROIDS_IN_A_GRAPH {
            true => block_on_one_thread(async { drawn.centroids(partitions) })?,
            false => drawn.centroids(partitions),
        })?;
        let ivf = IvfBuildParams::try_with_centroids(self.partitions, Arc::new(centroids.clone()))
            .wrap_err("building the index")?;
        let sq = SQBuildParams { num_bits: SQ_BITS, ..Default::default() };
        let params = match self.kind {
            IndexKind::IvfSq => VectorIndexParams::with_ivf_sq_params(metric, ivf.clone(), sq),
            IndexKind::IvfPq => {
                // Two components a code: with four, four candidates for each neighbour are not enough.
                let codes = if dim.is_multiple_of(2) { dim / 2 } else { dim };
                let drawn = sample.clone();
                let codes = interrupt.run(move || drawn.product_codes(codes, &centroids))?;
                VectorIndexParams::with_ivf_pq_params(metric, ivf.clone(), codes)
            }
            IndexKind::IvfRq => VectorIndexParams::with_ivf_rq_params(metric, ivf.clone(), rotated_codes(RQ_BITS, dim)),
            IndexKind::IvfHnswSq => {
                VectorIndexParams::with_ivf_hnsw_sq_params(metric, ivf.clone(), HnswBuildParams::default(), sq)
            }
            _ => VectorIndexParams::with_ivf_flat_params(metric, ivf.clone()),
        };
        let bytes = ScalarQuantizer::with_bounds(SQ_BITS, dim, sample.bounds());
        drop(sample);
        let mut build = Build { dataset, params, ivf, metric };
        let built = match self.kind {
            IndexKind::IvfSq => block_on_one_thread(interrupt.run_async(build.of_bytes::<FlatIndex>((), bytes)))??,
            IndexKind::IvfHnswSq => {
                block_on_one_thread(interrupt.run_async(build.of_bytes::<HNSW>(HnswBuildParams::default(), bytes)))??
            }
            _ => block_on_one_thread(interrupt.run_async(build.by_lance()))??,
        };
        atomic::remove_dir_all(&path.join("_indices").join(SCRATCH))?;
        built.wrap_err(path.display())
    }
}

struct Build {
    dataset: Dataset,
    params: VectorIndexParams,
    ivf: IvfBuildParams,
    metric: MetricType,
}

impl Build {
    async fn by_lance(&mut self) -> lance::Result<()> {
        let name = Some(NAME.to_string());
        self.dataset.create_index(&[EMBEDDING], IndexType::Vector, name, &self.params, true).await?;
        Ok(())
    }

    /// As Lance builds it, but that the range of a byte is given: Lance would take it from rows that it draws itself.
    async fn of_bytes<S: IvfSubIndex + 'static>(
        &mut self,
        within: S::BuildParams,
        bytes: ScalarQuantizer,
    ) -> lance::Result<()> {
        let dataset = &mut self.dataset;
        // What the manifest says of an index, but for the files.
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
            within,
            None,
        )?;
        builder.with_quantizer(bytes).build().await?;
        dataset.commit_existing_index_segments(NAME, EMBEDDING, vec![index]).await
    }
}
