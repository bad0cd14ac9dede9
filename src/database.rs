//! The `VectorDatabase` trait (nearest-neighbour search over a library), and its implementation on Lance datasets.

mod block_search;
mod gradient;
mod lance;
mod remote;
mod runtime;

use std::collections::HashSet;

use ndarray::ArrayView2;
use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

pub use self::gradient::{Gradient, GradientColumn, GradientDatabase, with_gradients};
#[cfg(feature = "cli")]
pub(crate) use self::lance::DEFAULT_RECALL;
pub use self::lance::{DatasetIdentity, IndexInfo, LanceDatabase, OpenOptions, RecallLevel, RecallTable};
pub(crate) use self::lance::{Probes, library_state};
pub(crate) use self::remote::{LocalPath, check_uri, dataset_exists, is_remote, local_path, publish_dataset};
pub(crate) use self::runtime::{block_on, block_on_one_thread};
use crate::error::{Error, Result, WrapErr};
use crate::features::{Features, ItemFeatures};
use crate::frame::schema::DB_IDX;
use crate::random::RandomStream;

/// Keys in a dataset's table metadata that `uphill index` writes.
pub(crate) const META_METRIC: &str = "uphill.metric";
pub(crate) const META_LIBRARY: &str = "uphill.library_id";
pub(crate) const META_STATE: &str = "uphill.library_state";
pub(crate) const META_RECALL: &str = "uphill.recall";

/// The distance between two embeddings. A smaller distance is nearer under every metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// The squared Euclidean distance, as in Lance and faiss.
    L2,
    /// `1 - cos(a, b)`.
    Cosine,
    /// `1 - a . b`.
    Dot,
}

impl Metric {
    /// The distance of two vectors of the same length, summed in f64.
    /// NaN where it is undefined: cosine with a zero vector.
    pub fn distance(self, a: &[f32], b: &[f32]) -> f32 {
        let distance = match self {
            Metric::L2 => lane_sum::<true>(a, b),
            Metric::Cosine => {
                1.0 - lane_sum::<false>(a, b) / (lane_sum::<false>(a, a).sqrt() * lane_sum::<false>(b, b).sqrt())
            }
            Metric::Dot => 1.0 - lane_sum::<false>(a, b),
        };
        distance as f32
    }
}

/// Sums the products of the components, or the squares of their differences, in eight lanes. The loops are indexed,
/// because unoptimised builds do not inline iterators.
fn lane_sum<const SQUARES: bool>(a: &[f32], b: &[f32]) -> f64 {
    let term = |component: usize| {
        let (x, y) = (a[component] as f64, b[component] as f64);
        if SQUARES { (x - y) * (x - y) } else { x * y }
    };
    let (length, whole) = (a.len().min(b.len()), a.len().min(b.len()) / 8 * 8);
    let (mut lanes, mut tail, mut at) = ([0.0; 8], 0.0, 0);
    while at < whole {
        lanes[0] += term(at);
        lanes[1] += term(at + 1);
        lanes[2] += term(at + 2);
        lanes[3] += term(at + 3);
        lanes[4] += term(at + 4);
        lanes[5] += term(at + 5);
        lanes[6] += term(at + 6);
        lanes[7] += term(at + 7);
        at += 8;
    }
    while at < length {
        tail += term(at);
        at += 1;
    }
    lanes.iter().sum::<f64>() + tail
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Metric::L2 => "l2",
            Metric::Cosine => "cosine",
            Metric::Dot => "dot",
        })
    }
}

impl std::str::FromStr for Metric {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "l2" => Ok(Metric::L2),
            "cosine" => Ok(Metric::Cosine),
            "dot" => Ok(Metric::Dot),
            other => Err(Error::Config(format!("metric: expected l2, cosine or dot, found `{other}`"))),
        }
    }
}

/// The options of one call of [`VectorDatabase::query`].
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct QueryOptions<'a> {
    /// Neighbours per query. `None` uses the database's own setting; 0 gives an empty frame.
    pub k: Option<usize>,
    /// Items to exclude. Each query gets its k nearest among the others.
    pub exclude: Option<&'a HashSet<u64>>,
    /// The attribute columns to return, out of those the database returns by default. `None` returns all. A database may return
    /// more than requested.
    pub columns: Option<&'a [String]>,
}

impl<'a> QueryOptions<'a> {
    /// The database's own settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Neighbours per query.
    pub fn k(mut self, k: usize) -> Self {
        self.k = Some(k);
        self
    }

    /// Items to exclude.
    pub fn exclude(mut self, items: &'a HashSet<u64>) -> Self {
        self.exclude = Some(items);
        self
    }

    /// The attribute columns to return.
    pub fn columns(mut self, columns: &'a [String]) -> Self {
        self.columns = Some(columns);
        self
    }
}

/// A callback that receives ids and their embeddings `(rows, dim)`, one block at a time.
pub type BlockVisitor<'a> = dyn FnMut(&[u64], ArrayView2<'_, f32>) -> Result<()> + 'a;

/// A library of embedded items with nearest-neighbour search.
///
/// [`LanceDatabase`] is the standard implementation; [`GradientDatabase`] wraps another database.
///
/// # Example
///
/// ```
/// use uphill::{IndexOptions, LanceDatabase, QueryOptions, VectorDatabase};
/// # fn main() -> uphill::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("molecules.lance");
/// # uphill::index("data/molecules.parquet", &path, &IndexOptions::default())?;
/// let library = LanceDatabase::open(path.to_string_lossy())?;
/// let queries = uphill::queries_at(&library, &[17])?;
/// let found = library.query(&queries, QueryOptions::new().k(3))?;
///
/// // The item itself comes first, then its neighbours.
/// assert_eq!(found.height(), 3);
/// assert_eq!(found.column("db_idx")?.u64()?.get(0), Some(17));
/// assert_eq!(found.column("distance")?.f32()?.get(0), Some(0.0));
/// # Ok(())
/// # }
/// ```
pub trait VectorDatabase: Send + Sync {
    /// The number of items: rows with an embedding.
    fn len(&self) -> u64;

    /// Whether the library has no items.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of components of an embedding.
    fn dim(&self) -> usize;

    /// The metric of the `distance` column.
    fn metric(&self) -> Metric;

    /// The largest distance that [`VectorDatabase::query`] returns, if there is a limit.
    fn max_distance(&self) -> Option<f32> {
        None
    }

    /// The version, rows and index of the dataset. A run stores them and checks them when it resumes.
    fn identity(&self) -> Option<&DatasetIdentity> {
        None
    }

    /// Protects the open version from cleanup, with a tag of this name. [`LanceDatabase::untag_version`] deletes the tag.
    /// Does nothing if the tag exists, or if the database has no versions.
    ///
    /// # Errors
    /// A library that is read-only. It can still be searched.
    fn tag_version(&self, _name: &str) -> Result<()> {
        Ok(())
    }

    /// The nearest items of each query as a results frame: `query_idx`, `db_idx`, `distance`,
    /// `embedding`, attributes; ordered by (`query_idx`, `distance`, `db_idx`).
    /// A query has fewer than k rows if the library has fewer items. No queries give no rows.
    ///
    /// # Errors
    /// A queries frame with wrong columns, types or dimension; a library that cannot be read.
    fn query(&self, queries: &DataFrame, options: QueryOptions<'_>) -> Result<DataFrame>;

    /// The items with these ids, in the given order: `db_idx`, `embedding`, attributes.
    ///
    /// # Errors
    /// An id that the library does not contain.
    fn take(&self, db_idx: &[u64]) -> Result<DataFrame>;

    /// As [`VectorDatabase::take`], with only these attribute columns. The default implementation returns all columns.
    ///
    /// # Errors
    /// As [`VectorDatabase::take`].
    fn take_columns(&self, db_idx: &[u64], _columns: &[String]) -> Result<DataFrame> {
        self.take(db_idx)
    }

    /// The ids of `n` distinct random items (of all items, if there are fewer), in ascending order.
    ///
    /// # Errors
    /// A library that cannot be read.
    fn sample(&self, n: usize, rng: &mut RandomStream) -> Result<Vec<u64>>;

    /// Calls `visit` with every item, in blocks of ids and embeddings `(rows, dim)`.
    ///
    /// # Errors
    /// A library that cannot be read, or the first error of `visit`.
    fn scan(&self, visit: &mut BlockVisitor<'_>) -> Result<()>;

    /// Calls `visit` with these columns of every item, in blocks. Each block also has the column `db_idx`.
    ///
    /// # Errors
    /// A column that does not exist, a library that cannot be read, or the first error of `visit`.
    fn visit_columns(&self, columns: &[String], visit: &mut dyn FnMut(DataFrame) -> Result<()>) -> Result<()> {
        self.scan(&mut |ids, _| {
            let names = columns.iter().map(String::as_str).chain([DB_IDX]);
            visit(self.take(ids)?.select(names).wrap_err("reading items")?)
        })
    }

    /// The features of all items that a model reads in addition to their embeddings. The default implementation returns none.
    /// `hidden` columns are read only if `wanted` names them.
    ///
    /// # Errors
    /// A named column that does not exist or cannot be encoded; a library that cannot be read.
    fn features(&self, _wanted: &Features, _hidden: &[String]) -> Result<ItemFeatures> {
        Ok(ItemFeatures::default())
    }
}

impl<D: VectorDatabase + ?Sized> VectorDatabase for Box<D> {
    fn len(&self) -> u64 {
        (**self).len()
    }
    fn dim(&self) -> usize {
        (**self).dim()
    }
    fn metric(&self) -> Metric {
        (**self).metric()
    }
    fn max_distance(&self) -> Option<f32> {
        (**self).max_distance()
    }
    fn identity(&self) -> Option<&DatasetIdentity> {
        (**self).identity()
    }
    fn tag_version(&self, name: &str) -> Result<()> {
        (**self).tag_version(name)
    }
    fn query(&self, queries: &DataFrame, options: QueryOptions<'_>) -> Result<DataFrame> {
        (**self).query(queries, options)
    }
    fn take(&self, db_idx: &[u64]) -> Result<DataFrame> {
        (**self).take(db_idx)
    }
    fn take_columns(&self, db_idx: &[u64], columns: &[String]) -> Result<DataFrame> {
        (**self).take_columns(db_idx, columns)
    }
    fn sample(&self, n: usize, rng: &mut RandomStream) -> Result<Vec<u64>> {
        (**self).sample(n, rng)
    }
    fn scan(&self, visit: &mut BlockVisitor<'_>) -> Result<()> {
        (**self).scan(visit)
    }
    fn visit_columns(&self, columns: &[String], visit: &mut dyn FnMut(DataFrame) -> Result<()>) -> Result<()> {
        (**self).visit_columns(columns, visit)
    }
    fn features(&self, wanted: &Features, hidden: &[String]) -> Result<ItemFeatures> {
        (**self).features(wanted, hidden)
    }
}
