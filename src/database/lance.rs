//! `LanceDatabase`: a library stored as a Lance dataset. Only `database` and `index` use Lance and async code.

mod attribute_cache;
mod cached_embeddings;
mod calibration;
mod centroids;
mod exact_search;
mod feature_files;
mod features;
mod identity;
mod ids;
mod in_memory_index;
mod index_search;
mod inverted_lists;
mod last_neighbours;
mod library_cache;
mod library_id;
mod open;
mod prefilter;
mod prewarm;
mod query;
mod recall_table;
mod record_batch;
mod table;
mod tags;

use std::sync::{Arc, OnceLock};

use ndarray::Array2;
use polars::prelude::DataFrame;

use self::cached_embeddings::CachedEmbeddings;
use self::centroids::Centroids;
pub(crate) use self::centroids::Probes;
pub use self::identity::{DatasetIdentity, IndexInfo};
use self::index_search::IndexSearch;
use self::last_neighbours::LastNeighbours;
use self::library_cache::LibraryCache;
pub(crate) use self::library_id::state as library_state;
pub use self::open::OpenOptions;
use self::prefilter::Prefilter;
use self::prewarm::Prewarm;
pub use self::recall_table::{RecallLevel, RecallTable};
use self::table::Table;
use super::{BlockVisitor, Metric, QueryOptions, VectorDatabase};
use crate::error::{Error, Result};
use crate::features::{Features, ItemFeatures};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX};
use crate::panics::catch_at_path;
use crate::random::RandomStream;
use crate::suggest::unknown_column;

/// The default target recall of searches.
pub(crate) const DEFAULT_RECALL: f64 = 0.99;

/// A library stored as a Lance dataset with an embedding column, opened at one version.
///
/// If the dataset has an index, queries search its nearest partitions. Otherwise the search is exact. The distances of candidates
/// are recomputed from their embeddings, so `distance` is exact for every kind of index, and rows are ordered by it.
///
/// Cheap to clone: clones share the open dataset and its caches.
#[derive(Clone)]
pub struct LanceDatabase {
    table: Arc<Table>,
    identity: Arc<DatasetIdentity>,
    unindexed_fragments: Arc<Vec<u64>>,
    recall_table: Arc<Option<RecallTable>>,
    /// The ids of the items that match the prefilter, listed on first use.
    matching: Arc<OnceLock<Vec<u64>>>,
    last_neighbours: Arc<LastNeighbours>,
    cached_embeddings: Arc<CachedEmbeddings>,
    library_cache: Arc<LibraryCache>,
    /// The centroids of the index, read on first use. `None` if the index has several segments.
    centroids: Arc<OnceLock<Option<Centroids>>>,
    prewarm: Arc<Prewarm>,
    /// Whether all embeddings fit into the index cache.
    fits_cache: bool,
    columns: Vec<String>,
    k: usize,
    recall: f64,
    nprobes: Option<usize>,
    exact: bool,
    prefilter: Option<Prefilter>,
    max_distance: Option<f32>,
}

impl LanceDatabase {
    /// Opens the latest version of the dataset at a path or URI, with default options.
    ///
    /// # Errors
    /// A dataset that does not exist, has no embedding column, or cannot be read.
    pub fn open(uri: impl AsRef<str>) -> Result<Self> {
        Self::open_with(uri, &OpenOptions::default())
    }

    /// Opens a dataset at a path or URI.
    ///
    /// # Errors
    /// As [`LanceDatabase::open`]; an id column that is not unique or not of integers.
    pub fn open_with(uri: impl AsRef<str>, options: &OpenOptions) -> Result<Self> {
        let uri = uri.as_ref();
        let opened = catch_at_path(uri, || open::open(uri, options)).map_err(|error| error.with_path(uri))?;
        Ok(LanceDatabase {
            library_cache: Arc::new(LibraryCache::new(&opened.identity, options)),
            fits_cache: opened.identity.embedding_bytes() <= options.index_cache_bytes,
            table: Arc::new(opened.table),
            identity: Arc::new(opened.identity),
            unindexed_fragments: Arc::new(opened.unindexed_fragments),
            recall_table: Arc::new(opened.recall_table),
            matching: Arc::default(),
            last_neighbours: Arc::default(),
            cached_embeddings: Arc::default(),
            centroids: Arc::default(),
            prewarm: Arc::new(Prewarm::new(opened.index_bytes, options.index_cache_bytes)),
            columns: opened.attributes,
            k: 10,
            recall: DEFAULT_RECALL,
            nprobes: None,
            exact: false,
            prefilter: None,
            max_distance: None,
        })
    }

    /// Computes the features of all items, and stores them with the dataset.
    ///
    /// # Errors
    /// A dataset that cannot be read.
    pub(crate) fn compute_features(&self) -> Result<()> {
        self.catch_errors(|| features::compute_and_store(&self.table, &self.columns, self.identity.rows as usize))
    }

    /// The columns that [`VectorDatabase::features`] reads.
    ///
    /// # Errors
    /// A named column that does not exist.
    #[cfg(feature = "cli")]
    pub(crate) fn feature_columns(&self, wanted: &Features, hidden: &[String]) -> Result<Vec<String>> {
        let features = features::columns(&self.table, &self.columns, wanted, hidden)?;
        Ok(features.into_iter().map(|feature| feature.column).collect())
    }

    /// Deletes the tag that [`VectorDatabase::tag_version`] created in the dataset at a path or URI. Returns whether the tag
    /// existed.
    ///
    /// # Errors
    /// A dataset that does not exist or is read-only.
    pub fn untag_version(uri: impl AsRef<str>, tag: &str) -> Result<bool> {
        let uri = uri.as_ref();
        let existed = catch_at_path(uri, || tags::delete(uri, tag)).map_err(|error| error.with_path(uri))?;
        if existed {
            feature_files::delete_unused_at(uri);
        }
        Ok(existed)
    }

    /// Neighbours per query (default 10).
    pub fn k(mut self, k: usize) -> Self {
        self.k = k;
        self
    }

    /// The target recall: the mean share of its nearest items that a query finds (default 0.99). 1 searches exactly.
    ///
    /// `uphill index` measures the search parameters that a recall requires ([`LanceDatabase::recall_table`]), with queries like
    /// those of a search. For an index that it did not measure, see [`LanceDatabase::nprobes`].
    pub fn recall(mut self, recall: f64) -> Self {
        self.recall = recall;
        self
    }

    /// The recall that `uphill index` measured for the index. `None` if it was not measured.
    pub fn recall_table(&self) -> Option<&RecallTable> {
        self.recall_table.as_ref().as_ref()
    }

    /// Index partitions to search per query, instead of a target recall. More partitions are slower and find more. If no
    /// recall was measured, the default is a sixteenth of the partitions, and at least 16. A query with a large `k` searches
    /// enough partitions to hold about twice as many items.
    ///
    /// Measured with the 20,000 molecules of this repository (`cargo bench --bench index -- nprobes`):
    /// recall@10, and CPU time as a share of the time of exact search, read from disk.
    ///
    /// | partitions | 8 | 16 | 32 | 64 |
    /// |---|---|---|---|---|
    /// | 71 | 0.977, 0.48 | 0.990, 0.78 | 0.995, 1.03 | 0.995, 1.34 |
    /// | 141 (√N) | 0.975, 0.49 | **0.992, 0.58** | 0.993, 0.65 | 0.995, 0.99 |
    /// | 283 | 0.973, 0.47 | 0.989, 0.51 | 0.994, 0.55 | 0.995, 0.74 |
    ///
    /// On 100,000 clustered vectors of 128 components, 16 of 316 partitions find all neighbours in
    /// 0.33 of the time.
    pub fn nprobes(mut self, nprobes: usize) -> Self {
        self.nprobes = Some(nprobes);
        self
    }

    /// Searches exactly, without the index.
    pub fn exact(mut self, exact: bool) -> Self {
        self.exact = exact;
        self
    }

    /// Restricts searches to items that match this SQL expression (DataFusion's SQL; quote columns with `"` or backticks). If at
    /// most 20,000 items match, they are searched exactly and cached in memory.
    pub fn prefilter(mut self, sql: impl Into<String>) -> Self {
        self.prefilter = Some(Prefilter::new(sql));
        self.matching = Arc::default();
        self.cached_embeddings = Arc::default();
        self
    }

    /// Excludes neighbours that are farther than this from their query.
    pub fn max_distance(mut self, distance: f32) -> Self {
        self.max_distance = Some(distance);
        self
    }

    /// The attribute columns of results (default: all that are not nested).
    ///
    /// # Errors
    /// A column that does not exist or has a reserved name.
    pub fn columns<S: AsRef<str>>(mut self, columns: &[S]) -> Result<Self> {
        let schema = self.table.dataset.schema();
        for (position, column) in columns.iter().map(AsRef::as_ref).enumerate() {
            if columns[..position].iter().any(|other| other.as_ref() == column) {
                return Err(Error::Config(format!("database.columns: `{column}` is named twice")));
            }
            if schema.field(column).is_none() {
                let names = schema.fields.iter().map(|field| field.name.as_str());
                let missing = unknown_column(column, &format!(" in {}", self.identity.uri), names);
                return Err(Error::Config(format!("database.columns: {missing}")));
            }
            if column == self.table.embedding_column
                || (schema::is_reserved_column(column) && column != schema::SOURCE_ROW)
            {
                return Err(Error::Config(format!("database.columns: `{column}` is a reserved name")));
            }
        }
        self.columns = columns.iter().map(|column| column.as_ref().to_string()).collect();
        Ok(self)
    }

    /// The names of the attribute columns of results.
    pub fn column_names(&self) -> &[String] {
        &self.columns
    }

    /// Whether queries use the index.
    pub fn uses_index(&self) -> bool {
        self.index_search().is_some()
    }

    /// Lance's query plan for `n_queries` vectors, or "exact scan" without an index.
    ///
    /// # Errors
    /// As [`VectorDatabase::query`].
    pub fn explain(&self, n_queries: usize) -> Result<String> {
        let Some(search) = self.index_search() else { return Ok("exact scan".into()) };
        let search = IndexSearch { centroids: self.centroids()?, ..search };
        search.explain(Array2::ones((n_queries, self.identity.dim)).view(), self.k)
    }

    /// The ids of the items that match the prefilter, ascending.
    fn matching(&self) -> Result<&[u64]> {
        if let Some(ids) = self.matching.get() {
            return Ok(ids);
        }
        let ids = self.table.ids(self.prefilter.as_ref())?;
        if let (true, Some(prefilter)) = (ids.is_empty(), &self.prefilter) {
            log::warn!("database.prefilter: none of {} items matches `{prefilter}`", self.identity.rows);
        }
        Ok(self.matching.get_or_init(|| ids))
    }

    /// Runs work on the dataset. Panics become errors, and errors name the dataset.
    fn catch_errors<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let uri = &self.identity.uri;
        catch_at_path(uri, work).map_err(|error| error.with_path(uri))
    }
}

impl VectorDatabase for LanceDatabase {
    fn len(&self) -> u64 {
        self.identity.rows
    }

    fn dim(&self) -> usize {
        self.identity.dim
    }

    fn metric(&self) -> Metric {
        self.identity.metric
    }

    fn max_distance(&self) -> Option<f32> {
        self.max_distance
    }

    fn identity(&self) -> Option<&DatasetIdentity> {
        Some(&self.identity)
    }

    fn tag_version(&self, name: &str) -> Result<()> {
        self.catch_errors(|| tags::create(&self.table.dataset, name))
    }

    fn query(&self, queries: &DataFrame, options: QueryOptions<'_>) -> Result<DataFrame> {
        self.catch_errors(|| self.nearest(queries, options))
    }

    fn take(&self, db_idx: &[u64]) -> Result<DataFrame> {
        self.catch_errors(|| self.items(db_idx, &self.columns))
    }

    fn take_columns(&self, db_idx: &[u64], columns: &[String]) -> Result<DataFrame> {
        self.catch_errors(|| self.items(db_idx, &self.result_columns(Some(columns))))
    }

    fn sample(&self, n: usize, rng: &mut RandomStream) -> Result<Vec<u64>> {
        let draw = |rng, all: usize| rand::seq::index::sample(rng, all, n.min(all)).into_iter();
        let mut sampled: Vec<u64> = if self.prefilter.is_none() && self.table.ids_are_contiguous(self.identity.rows) {
            // Each id is its position in the list of ids.
            draw(rng, self.identity.rows as usize).map(|position| position as u64).collect()
        } else {
            let all = self.catch_errors(|| self.matching())?;
            draw(rng, all.len()).map(|position| all[position]).collect()
        };
        sampled.sort_unstable();
        Ok(sampled)
    }

    fn scan(&self, visit: &mut BlockVisitor<'_>) -> Result<()> {
        let ids = &self.table.ids;
        let scanned = self.exact_search().scan(&mut |rows, items| visit(&ids.ids_of(rows)?, items));
        scanned.map_err(|error| error.with_path(&self.identity.uri))
    }

    fn visit_columns(&self, columns: &[String], visit: &mut dyn FnMut(DataFrame) -> Result<()>) -> Result<()> {
        let matching = if self.prefilter.is_some() { Some(self.catch_errors(|| self.matching())?) } else { None };
        self.catch_errors(|| {
            self.table.scan_columns(columns, &mut |items| {
                let Some(matching) = matching else { return visit(items) };
                let ids = schema::u64s(&items, DB_IDX)?;
                let rows: Vec<u32> =
                    (0..).zip(&ids).filter(|(_, id)| matching.binary_search(id).is_ok()).map(|(row, _)| row).collect();
                visit(convert::gather(&items, &rows)?)
            })
        })
    }

    fn features(&self, wanted: &Features, hidden: &[String]) -> Result<ItemFeatures> {
        let matching = if self.prefilter.is_some() { Some(self.catch_errors(|| self.matching())?) } else { None };
        self.catch_errors(|| features::load(&self.table, &self.columns, wanted, hidden, matching))
    }
}
