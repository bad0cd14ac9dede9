//! The ANN index: which kind, how many partitions.

use lance::Dataset;
use lance::index::DatasetIndexExt;
use lance::index::vector::VectorIndexParams;
use lance_index::IndexType;
use lance_index::vector::ivf::IvfBuildParams;
use lance_index::vector::sq::builder::SQBuildParams;
use lance_linalg::distance::MetricType;

use crate::database::Metric;
use crate::error::{Error, Result};
use crate::schema::EMBEDDING;

/// Below this many rows `auto` builds no index: an exact scan of them takes about a
/// millisecond a query and misses nothing.
pub const EXACT_BELOW: u64 = 5_000;

/// The ANN index to build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IndexKind {
    /// `IvfFlat` with about sqrt(rows) partitions; `None` below [`EXACT_BELOW`] rows.
    #[default]
    Auto,
    /// No index: every search is exact.
    None,
    /// Full vectors in partitions.
    IvfFlat,
    /// Vectors of one byte a component in partitions: a quarter of the memory.
    IvfSq,
}

impl std::str::FromStr for IndexKind {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(IndexKind::Auto),
            "none" => Ok(IndexKind::None),
            "ivf-flat" => Ok(IndexKind::IvfFlat),
            "ivf-sq" => Ok(IndexKind::IvfSq),
            other => Err(Error::Config(format!("index: expected auto, none, ivf-flat or ivf-sq, found `{other}`"))),
        }
    }
}

/// An index to build.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    kind: IndexKind,
    pub(super) partitions: usize,
}

impl IndexKind {
    /// The index to build over so many rows, if any.
    pub(super) fn plan(self, rows: u64, partitions: Option<usize>) -> Option<Plan> {
        let kind = match self {
            IndexKind::None => return None,
            IndexKind::Auto if rows < EXACT_BELOW => return None,
            IndexKind::Auto => IndexKind::IvfFlat,
            kind => kind,
        };
        let partitions = partitions.unwrap_or_else(|| (rows as f64).sqrt().round() as usize);
        Some(Plan { kind, partitions: partitions.clamp(1, rows as usize) })
    }
}

impl Plan {
    pub(super) async fn build(self, dataset: &mut Dataset, metric: Metric) -> lance::Result<()> {
        let metric = match metric {
            Metric::L2 => MetricType::L2,
            Metric::Cosine => MetricType::Cosine,
            Metric::Dot => MetricType::Dot,
        };
        let ivf = IvfBuildParams::new(self.partitions);
        let params = match self.kind {
            IndexKind::IvfSq => VectorIndexParams::with_ivf_sq_params(metric, ivf, SQBuildParams::default()),
            _ => VectorIndexParams::with_ivf_flat_params(metric, ivf),
        };
        dataset.create_index(&[EMBEDDING], IndexType::Vector, Some("embedding_idx".into()), &params, true).await?;
        Ok(())
    }
}
