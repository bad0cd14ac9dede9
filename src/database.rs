//! Where the items are: the `VectorDatabase` that a search asks, and Lance's form of it.

mod exact;
mod gradient;
mod lance;
mod runtime;
mod store;

use std::collections::HashSet;

use ndarray::ArrayView2;
use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

pub use self::gradient::{Gradient, GradientColumn, GradientQuery, with_gradients};
#[cfg(feature = "cli")]
pub(crate) use self::lance::RECALL;
pub use self::lance::{Identity, IndexInfo, LanceDatabase, OpenOptions, RecallLevel, RecallTable};
pub(crate) use self::lance::{Probes, library_state};
pub(crate) use self::runtime::{on_one_thread, on_runtime};
pub(crate) use self::store::{Local, check_uri, holds_dataset, is_remote, on_disk, publish};
use crate::error::{Doing, Error, Result};
use crate::features::{Features, ItemFeatures};
use crate::frame::schema::DB_IDX;
use crate::random::Stream;

/// Keys in a dataset's table metadata that `uphill index` writes.
pub(crate) const META_METRIC: &str = "uphill.metric";
pub(crate) const META_LIBRARY: &str = "uphill.library_id";
pub(crate) const META_STATE: &str = "uphill.library_state";
pub(crate) const META_RECALL: &str = "uphill.recall";

/// How near two embeddings are. Smaller is nearer under every metric.
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
    /// The distance of two vectors of one length, summed in f64.
    /// NaN where it is not defined: cosine with a zero vector.
    pub fn distance(self, a: &[f32], b: &[f32]) -> f32 {
        let distance = match self {
            Metric::L2 => sum::<true>(a, b),
            Metric::Cosine => 1.0 - sum::<false>(a, b) / (sum::<false>(a, a).sqrt() * sum::<false>(b, b).sqrt()),
            Metric::Dot => 1.0 - sum::<false>(a, b),
        };
        distance as f32
    }
}

/// Sums the products of the components, or the squares of their differences, in eight lanes. Counted by hand, because
/// iterators are calls where little is optimised.
fn sum<const SQUARES: bool>(a: &[f32], b: &[f32]) -> f64 {
    let term = |at: usize| {
        let (x, y) = (a[at] as f64, b[at] as f64);
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

/// What one call of [`VectorDatabase::query`] asks beside the query vectors.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Request<'a> {
    /// Neighbours per query; the database's own setting where `None`, an empty frame where 0.
    pub k: Option<usize>,
    /// Items to leave out: each query gets its k nearest among the others.
    pub exclude: Option<&'a HashSet<u64>>,
    /// The attributes that are looked at, of those that ride along; all of them where `None`. A database may give more.
    pub columns: Option<&'a [String]>,
}

impl<'a> Request<'a> {
    /// The database's own settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Neighbours per query.
    pub fn k(mut self, k: usize) -> Self {
        self.k = Some(k);
        self
    }

    /// Items to leave out.
    pub fn exclude(mut self, items: &'a HashSet<u64>) -> Self {
        self.exclude = Some(items);
        self
    }

    /// The attributes that are looked at.
    pub fn columns(mut self, columns: &'a [String]) -> Self {
        self.columns = Some(columns);
        self
    }
}

/// Is shown ids and their embeddings `(rows, dim)`, a block at a time.
pub type Visit<'a> = dyn FnMut(&[u64], ArrayView2<'_, f32>) -> Result<()> + 'a;

/// A library of embedded items that can be asked for the neighbours of vectors.
///
/// [`LanceDatabase`] is the stock implementation; [`GradientQuery`] wraps another.
///
/// # Example
///
/// ```
/// use uphill::{IndexOptions, LanceDatabase, Request, VectorDatabase};
/// # fn main() -> uphill::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("molecules.lance");
/// # uphill::index("data/molecules.parquet", &path, &IndexOptions::default())?;
/// let library = LanceDatabase::open(path.to_string_lossy())?;
/// let queries = uphill::queries_at(&library, &[17])?;
/// let found = library.query(&queries, Request::new().k(3))?;
///
/// // The item itself comes first, then those that are like it.
/// assert_eq!(found.height(), 3);
/// assert_eq!(found.column("db_idx")?.u64()?.get(0), Some(17));
/// assert_eq!(found.column("distance")?.f32()?.get(0), Some(0.0));
/// # Ok(())
/// # }
/// ```
pub trait VectorDatabase: Send + Sync {
    /// The number of items: rows with an embedding.
    fn len(&self) -> u64;

    /// Whether there are no items.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of components of an embedding.
    fn dim(&self) -> usize;

    /// What `distance` means.
    fn metric(&self) -> Metric;

    /// The distance beyond which [`VectorDatabase::query`] leaves items out, if there is one.
    fn max_distance(&self) -> Option<f32> {
        None
    }

    /// What makes this library the one it is: stored with a run, checked when it resumes.
    fn identity(&self) -> Option<&Identity> {
        None
    }

    /// Keeps the version that is read from being cleaned away, under a name of the caller's: a tag, which
    /// [`LanceDatabase::release_version`] takes away. Does nothing if it is kept already, or if there are no versions.
    ///
    /// # Errors
    /// A library that may not be written to: it can be read all the same.
    fn keep_version(&self, _name: &str) -> Result<()> {
        Ok(())
    }

    /// The nearest items of each query as a results frame: `query_idx`, `db_idx`, `distance`,
    /// `embedding`, attributes; ordered by (`query_idx`, `distance`, `db_idx`).
    /// Fewer than k rows where there are not more items; none for no queries.
    ///
    /// # Errors
    /// A queries frame that breaks the contract; a library that cannot be read.
    fn query(&self, queries: &DataFrame, request: Request<'_>) -> Result<DataFrame>;

    /// The items of those ids, in the order asked: `db_idx`, `embedding`, attributes.
    ///
    /// # Errors
    /// An id that the library does not have.
    fn take(&self, db_idx: &[u64]) -> Result<DataFrame>;

    /// As [`VectorDatabase::take`], with these attributes only, of those that ride along; by default with all of them.
    ///
    /// # Errors
    /// As [`VectorDatabase::take`].
    fn take_columns(&self, db_idx: &[u64], _columns: &[String]) -> Result<DataFrame> {
        self.take(db_idx)
    }

    /// `n` distinct items at random (all, if there are not more), in ascending order.
    ///
    /// # Errors
    /// A library that cannot be read.
    fn sample(&self, n: usize, rng: &mut Stream) -> Result<Vec<u64>>;

    /// Shows every item to `visit`, in blocks of ids and embeddings `(rows, dim)`.
    ///
    /// # Errors
    /// A library that cannot be read, or the first error of `visit`.
    fn scan(&self, visit: &mut Visit<'_>) -> Result<()>;

    /// Shows columns of every item in blocks: `db_idx`, and those.
    ///
    /// # Errors
    /// A column that is not there, a library that cannot be read, or the first error of `visit`.
    fn visit_columns(&self, columns: &[String], visit: &mut dyn FnMut(DataFrame) -> Result<()>) -> Result<()> {
        self.scan(&mut |ids, _| {
            let names = columns.iter().map(String::as_str).chain([DB_IDX]);
            visit(self.take(ids)?.select(names).doing("reading items")?)
        })
    }

    /// What a model may read of the items beside their embeddings; nothing by default. Columns that are `hidden` are not
    /// read unless they are named.
    ///
    /// # Errors
    /// A named column that is not there or cannot be read so; a library that cannot be read.
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
    fn identity(&self) -> Option<&Identity> {
        (**self).identity()
    }
    fn keep_version(&self, name: &str) -> Result<()> {
        (**self).keep_version(name)
    }
    fn query(&self, queries: &DataFrame, request: Request<'_>) -> Result<DataFrame> {
        (**self).query(queries, request)
    }
    fn take(&self, db_idx: &[u64]) -> Result<DataFrame> {
        (**self).take(db_idx)
    }
    fn take_columns(&self, db_idx: &[u64], columns: &[String]) -> Result<DataFrame> {
        (**self).take_columns(db_idx, columns)
    }
    fn sample(&self, n: usize, rng: &mut Stream) -> Result<Vec<u64>> {
        (**self).sample(n, rng)
    }
    fn scan(&self, visit: &mut Visit<'_>) -> Result<()> {
        (**self).scan(visit)
    }
    fn visit_columns(&self, columns: &[String], visit: &mut dyn FnMut(DataFrame) -> Result<()>) -> Result<()> {
        (**self).visit_columns(columns, visit)
    }
    fn features(&self, wanted: &Features, hidden: &[String]) -> Result<ItemFeatures> {
        (**self).features(wanted, hidden)
    }
}
