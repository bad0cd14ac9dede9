//! The kinds of ANN index, and the kind and number of partitions that `auto` chooses.

use crate::error::{Error, Result};

/// The number of rows from which `auto` builds an index. With fewer rows, an exact search takes no more time and finds all
/// neighbours.
///
/// Measured (`cargo bench --bench index -- threshold`): CPU milliseconds of 100 queries, for clustered vectors. The exact search
/// reads the vectors from memory, except for the first query.
///
/// | rows | 64 components, exact | 64, ivf-flat | 128, exact | 128, ivf-flat |
/// |---|---|---|---|---|
/// | 1,000 | 1.3 | 3.6 | 1.8 | 4.6 |
/// | 5,000 | 2.8 | 6.2 | 5.2 | 9.3 |
/// | 10,000 | 4.1 | 6.3 | 7.7 | 10.7 |
/// | 20,000 | 7.2 | 8.0 | 10.2 | 9.8 |
/// | 50,000 | 20.0 | 11.6 | 25.9 | 10.7 |
/// | 100,000 | 28.1 | 12.2 | 57.4 | 17.2 |
pub const AUTO_INDEX_MIN_ROWS: u64 = 20_000;

/// The number of rows from which `auto` builds [`IndexKind::IvfRq`], if the number of components is a multiple of 8. Codes are
/// smaller than vectors and faster to read: [`IndexKind`] has figures for 50,000 and for a million rows. With fewer rows, a search
/// of either kind takes a few milliseconds.
pub const AUTO_RQ_MIN_ROWS: u64 = 100_000;

/// The minimum number of rows for training product quantisation: one for each code.
const PQ_MIN_ROWS: u64 = 256;
/// The number of rows per partition that Lance requires for training codes.
const PQ_ROWS_PER_PARTITION: u64 = 256;
/// The largest number of rows in one graph. The search time of a graph grows with the logarithm of its rows, so few graphs are
/// best.
const HNSW_ROWS_PER_PARTITION: u64 = 1 << 20;

/// The ANN index to build.
///
/// All kinds but `IvfFlat` store quantised codes instead of vectors. A search takes a few candidates per requested
/// neighbour from the codes and recomputes their distances, so `distance` is exact for every kind.
///
/// Measured (`cargo bench --bench index -- kinds`): CPU seconds to build the index, recall@10, and CPU milliseconds of 100 queries.
/// Searches without an index read the vectors from disk. Each query searches a sixteenth of the partitions and takes four
/// candidates per neighbour, as for datasets without a [`RecallTable`](crate::RecallTable). A recall of 0.99 takes less time on
/// large clustered libraries, and about as much on the molecules.
///
/// | | molecules 20,000 x 64: build | recall | search | clustered 20,000 x 64: build | recall | search |
/// |---|---|---|---|---|---|---|
/// | none | - | 1 | 26 | - | 1 | 32 |
/// | ivf-flat | 0.9 | 0.989 | 17 | 0.4 | 1.000 | 20 |
/// | ivf-sq | 1.2 | 0.997 | 18 | 0.4 | 1.000 | 19 |
/// | ivf-pq | 14 | 0.999 | 62 | 13 | 0.998 | 67 |
/// | ivf-rq | 1.3 | 0.998 | 17 | 0.5 | 0.998 | 19 |
/// | ivf-hnsw-sq | 3.6 | 1.000 | 64 | 3.3 | 1.000 | 76 |
///
/// Larger libraries (`-- large`), with the size of the index in MB:
///
/// | | learned 50,000 x 384: build | recall | search | MB | clustered 1,000,000 x 128: build | recall | search | MB |
/// |---|---|---|---|---|---|---|---|---|
/// | none | - | 1 | 124 | - | - | 1 | 694 | - |
/// | ivf-flat | 16 | 0.984 | 25 | 77 | 28 | 1.000 | 275 | 515 |
/// | ivf-sq | 15 | 0.988 | 18 | 20 | 26 | 1.000 | 106 | 131 |
/// | ivf-rq | 16 | 0.983 | 15 | 9 | 18 | 1.000 | 55 | 71 |
///
/// So `Auto` is `IvfFlat` from [`AUTO_INDEX_MIN_ROWS`] rows on, and `IvfRq` from [`AUTO_RQ_MIN_ROWS`] rows on. `Auto` does not
/// measure which kind reaches a recall at the least cost, because that would require a build of each kind.
///
/// The same items and options give the same index, for any number of threads, on processors with the same instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexKind {
    /// `None` for fewer than [`AUTO_INDEX_MIN_ROWS`] rows. `IvfRq` from [`AUTO_RQ_MIN_ROWS`] rows on, if it supports the dimension.
    /// Otherwise `IvfFlat`. The number of partitions is about sqrt(rows).
    #[default]
    Auto,
    /// No index: every search is exact.
    None,
    /// Full vectors in partitions.
    IvfFlat,
    /// One byte per component, in partitions (scalar quantisation): a quarter of the memory.
    IvfSq,
    /// One byte for two components, trained on the data (product quantisation): an eighth of the
    /// memory, and by far the longest build. Needs 256 rows, and has at most one partition per 256 rows.
    IvfPq,
    /// Three bits per component after a random rotation (RaBitQ): a tenth of the memory.
    /// Needs a multiple of 8 components.
    IvfRq,
    /// A graph over vectors of one byte per component (HNSW). Lance searches it query by query, so it
    /// suits few queries. The graph depends on the order of threads, so it is reproducible only with one rayon thread. The
    /// command builds it with one thread.
    IvfHnswSq,
}

impl IndexKind {
    const NAMES: [(&str, IndexKind); 7] = [
        ("auto", IndexKind::Auto),
        ("none", IndexKind::None),
        ("ivf-flat", IndexKind::IvfFlat),
        ("ivf-sq", IndexKind::IvfSq),
        ("ivf-pq", IndexKind::IvfPq),
        ("ivf-rq", IndexKind::IvfRq),
        ("ivf-hnsw-sq", IndexKind::IvfHnswSq),
    ];
}

impl std::fmt::Display for IndexKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = Self::NAMES.iter().find(|(_, kind)| kind == self).map_or("", |(name, _)| name);
        f.pad(name)
    }
}

impl std::str::FromStr for IndexKind {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, kind)| *kind).ok_or_else(|| {
            let names = Self::NAMES.map(|(name, _)| name).join(", ");
            Error::Config(format!("index: expected one of {names}, found `{text}`"))
        })
    }
}

/// The kind and number of partitions of an index to build.
#[derive(Clone, Copy)]
pub(super) struct IndexPlan {
    pub(super) kind: IndexKind,
    pub(super) partitions: usize,
}

impl IndexKind {
    /// Rejects a kind that does not support embeddings of this dimension.
    pub(super) fn check_dim(self, dim: usize) -> Result<()> {
        match self {
            IndexKind::IvfRq if !supports_rq(dim) => Err(Error::Config(format!(
                "index: ivf-rq needs a multiple of 8 components, the embeddings have {dim}; use ivf-sq"
            ))),
            _ => Ok(()),
        }
    }

    /// The index to build for this number of rows and components. `None` builds no index.
    ///
    /// # Errors
    /// Too few rows for product quantisation.
    pub(super) fn plan(self, rows: u64, dim: usize, partitions: Option<usize>) -> Result<Option<IndexPlan>> {
        let kind = match self {
            IndexKind::None => return Ok(None),
            IndexKind::Auto if rows < AUTO_INDEX_MIN_ROWS => return Ok(None),
            IndexKind::Auto if rows >= AUTO_RQ_MIN_ROWS && supports_rq(dim) => IndexKind::IvfRq,
            IndexKind::Auto => IndexKind::IvfFlat,
            kind => kind,
        };
        if kind == IndexKind::IvfPq && rows < PQ_MIN_ROWS {
            return Err(Error::Config(format!(
                "index: ivf-pq needs at least {PQ_MIN_ROWS} rows to train its codes, found {rows}; use none"
            )));
        }
        let (default, max) = match kind {
            IndexKind::IvfPq => (rows.isqrt(), rows / PQ_ROWS_PER_PARTITION),
            IndexKind::IvfHnswSq => (rows.div_ceil(HNSW_ROWS_PER_PARTITION), rows),
            _ => ((rows as f64).sqrt().round() as u64, rows),
        };
        let requested = partitions.map_or(default, |partitions| partitions as u64);
        Ok(Some(IndexPlan { kind, partitions: requested.clamp(1, max) as usize }))
    }
}

/// Whether RaBitQ supports vectors of this dimension.
fn supports_rq(dim: usize) -> bool {
    dim.is_multiple_of(8)
}
