//! The ANN index: which kind, how many partitions, how coarse its codes.

use crate::error::{Error, Result};

/// Below this many rows `auto` builds no index: looking at all of them costs no more, and misses nothing.
///
/// Measured (`cargo bench --bench index -- threshold`): CPU milliseconds per 100 queries, all
/// items (in memory from the second search on) and with ivf-flat, clustered vectors of 64 and of 128 components.
///
/// | rows | all, 64 | ivf-flat | all, 128 | ivf-flat |
/// |---|---|---|---|---|
/// | 1,000 | 1.3 | 3.6 | 1.8 | 4.6 |
/// | 5,000 | 2.8 | 6.2 | 5.2 | 9.3 |
/// | 10,000 | 4.1 | 6.3 | 7.7 | 10.7 |
/// | 20,000 | 7.2 | 8.0 | 10.2 | 9.8 |
/// | 50,000 | 20.0 | 11.6 | 25.9 | 10.7 |
/// | 100,000 | 28.1 | 12.2 | 57.4 | 17.2 |
pub const EXACT_BELOW: u64 = 20_000;

/// From this many rows on `auto` builds [`IndexKind::IvfRq`], where the embeddings have a multiple of 8 components:
/// codes are smaller than vectors and faster to read. (Where it gains was measured at 50,000 rows and at a million, see
/// [`IndexKind`]; below, both take a few milliseconds.)
pub const RQ_FROM: u64 = 100_000;

/// Rows that product quantisation learns its codes from, at least: one for each code.
const PQ_ROWS: u64 = 256;
/// Rows that Lance wants for each partition where it learns codes.
const PQ_ROWS_PER_PARTITION: u64 = 256;
/// Rows in one graph, at most: a graph is searched in the logarithm of its rows, so few are best.
const HNSW_ROWS_PER_PARTITION: u64 = 1 << 20;

/// The ANN index to build.
///
/// All but `IvfFlat` keep codes instead of vectors; a search takes a few candidates from them for each
/// neighbour asked for and measures those exactly, so `distance` is exact whatever the index.
///
/// Measured (`cargo bench --bench index -- kinds`): CPU seconds to build, recall@10, CPU
/// milliseconds of 100 queries, those without an index from disk. (With a sixteenth of the partitions and four candidates,
/// as datasets without a [`RecallTable`](crate::RecallTable) are asked; a recall of 0.99 takes less of large clustered
/// libraries, and about as much of the molecules.)
///
/// | | molecules 20,000 x 64 | clustered 20,000 x 64 |
/// |---|---|---|
/// | none | -, 1, 26 | -, 1, 32 |
/// | ivf-flat | 0.9, 0.989, 17 | 0.4, 1.000, 20 |
/// | ivf-sq | 1.2, 0.997, 18 | 0.4, 1.000, 19 |
/// | ivf-pq | 14, 0.999, 62 | 13, 0.998, 67 |
/// | ivf-rq | 1.3, 0.998, 17 | 0.5, 0.998, 19 |
/// | ivf-hnsw-sq | 3.6, 1.000, 64 | 3.3, 1.000, 76 |
///
/// The same of larger libraries (`-- large`), with the size of the index in MB:
///
/// | | learned 50,000 x 384 | clustered 1,000,000 x 128 |
/// |---|---|---|
/// | none | -, 1, 124, - | -, 1, 694, - |
/// | ivf-flat | 16, 0.984, 25, 77 | 28, 1.000, 275, 515 |
/// | ivf-sq | 15, 0.988, 18, 20 | 26, 1.000, 106, 131 |
/// | ivf-rq | 16, 0.983, 15, 9 | 18, 1.000, 55, 71 |
///
/// So `Auto` is `IvfFlat` from [`EXACT_BELOW`] rows on, and `IvfRq` where that gains milliseconds.
///
/// (`Auto` does not measure which kind finds a recall at the least cost: that would take a build of each.)
///
/// The same items and options give the same index, whatever the threads, on processors with the same instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexKind {
    /// `None` below [`EXACT_BELOW`] rows, `IvfRq` from [`RQ_FROM`] rows on if it can hold the embeddings, else `IvfFlat`;
    /// about sqrt(rows) partitions.
    #[default]
    Auto,
    /// No index: every search is exact.
    None,
    /// Full vectors in partitions.
    IvfFlat,
    /// Vectors of one byte a component in partitions: a quarter of the memory.
    IvfSq,
    /// One byte for two components, learnt from the data (product quantisation): an eighth of the
    /// memory, by far the longest build. Needs 256 rows, and has at most a partition for every 256.
    IvfPq,
    /// Three bits a component after a random rotation (RaBitQ): a tenth of the memory.
    /// Needs a multiple of 8 components.
    IvfRq,
    /// A graph over vectors of one byte a component (HNSW). Lance searches it query by query, so it
    /// suits few queries. It is the same each time only where rayon's threads are one, as in the command: it depends
    /// on which thread comes first.
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

/// An index to build.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) kind: IndexKind,
    pub(super) partitions: usize,
}

impl IndexKind {
    /// Refuses a kind that cannot hold vectors of so many components.
    pub(super) fn check_dim(self, dim: usize) -> Result<()> {
        match self {
            IndexKind::IvfRq if !holds_rq(dim) => Err(Error::Config(format!(
                "index: ivf-rq needs a multiple of 8 components, the embeddings have {dim}; use ivf-sq"
            ))),
            _ => Ok(()),
        }
    }

    /// The index to build over so many rows of so many components, if any.
    ///
    /// # Errors
    /// Too few rows for product quantisation.
    pub(super) fn plan(self, rows: u64, dim: usize, partitions: Option<usize>) -> Result<Option<Plan>> {
        let kind = match self {
            IndexKind::None => return Ok(None),
            IndexKind::Auto if rows < EXACT_BELOW => return Ok(None),
            IndexKind::Auto if rows >= RQ_FROM && holds_rq(dim) => IndexKind::IvfRq,
            IndexKind::Auto => IndexKind::IvfFlat,
            kind => kind,
        };
        if kind == IndexKind::IvfPq && rows < PQ_ROWS {
            return Err(Error::Config(format!(
                "index: ivf-pq learns its codes from at least {PQ_ROWS} rows, there are {rows}; use none"
            )));
        }
        let (wanted, most) = match kind {
            IndexKind::IvfPq => (rows.isqrt(), rows / PQ_ROWS_PER_PARTITION),
            IndexKind::IvfHnswSq => (rows.div_ceil(HNSW_ROWS_PER_PARTITION), rows),
            _ => ((rows as f64).sqrt().round() as u64, rows),
        };
        let wanted = partitions.map_or(wanted, |partitions| partitions as u64);
        Ok(Some(Plan { kind, partitions: wanted.clamp(1, most) as usize }))
    }
}

/// Whether RaBitQ can hold vectors of so many components.
fn holds_rq(dim: usize) -> bool {
    dim.is_multiple_of(8)
}
