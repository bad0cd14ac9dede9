//! A library in a Lance dataset. With `index.rs` the only place that knows Lance and async.

mod attributes;
mod batch;
mod calibration;
mod carried;
mod centroids;
mod feature_files;
mod features;
mod held;
mod identity;
mod ids;
mod library;
mod memory;
mod open;
mod partitions;
mod prefilter;
mod recall;
mod search;
mod table;
mod version;
mod warm;

use std::sync::{Arc, OnceLock};

use ndarray::{Array2, ArrayView2};
use polars::prelude::{Column, DataFrame};

use self::carried::Carried;
use self::centroids::Centroids;
pub(crate) use self::centroids::Probes;
use self::held::Held;
pub use self::identity::{Identity, IndexInfo};
pub(crate) use self::library::state as library_state;
use self::memory::Memory;
pub use self::open::OpenOptions;
use self::prefilter::Prefilter;
pub use self::recall::{RecallLevel, RecallTable};
use self::search::{Candidates, ExactSearch, IndexSearch};
use self::table::Table;
use self::warm::Warm;
use super::exact::Neighbour;
use super::{Metric, Request, VectorDatabase, Visit};
use crate::error::{Doing, Error, Result};
use crate::features::{Features, ItemFeatures};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX, DISTANCE, EMBEDDING, QUERY_IDX};
use crate::panics::catch_at_path;
use crate::random::Stream;
use crate::suggest::no_column;

/// The recall that searches aim at, unless told.
pub(crate) const RECALL: f64 = 0.99;

/// Where no more items match a prefilter they are held in memory and looked at, all of them: an index would have to be
/// asked for ever more until so few are found in it.
const FEW: usize = 20_000;

/// A Lance dataset with an embedding column, opened at one version.
///
/// Searches through the index if there is one that fits (`nprobes` partitions of it,
/// all queries in one call), else exactly. Whatever the index, candidates are measured
/// again from their embeddings: `distance` is exact, and rows are ordered by it.
///
/// Cheap to clone: clones share the open dataset and its caches.
#[derive(Clone)]
pub struct LanceDatabase {
    table: Arc<Table>,
    identity: Arc<Identity>,
    uncovered: Arc<Vec<u64>>,
    measured: Arc<Option<RecallTable>>,
    /// The ids of the items that match the prefilter, once they were asked for.
    matching: Arc<OnceLock<Vec<u64>>>,
    carried: Arc<Carried>,
    held: Arc<Held>,
    memory: Arc<Memory>,
    /// The centroids of the index, once they were wanted; none where it has several segments.
    centroids: Arc<OnceLock<Option<Centroids>>>,
    warm: Arc<Warm>,
    /// Whether all embeddings fit where they are to be held.
    fits: bool,
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
    /// No dataset there, no embedding column in it, or one that cannot be read.
    pub fn open(uri: impl AsRef<str>) -> Result<Self> {
        Self::open_with(uri, &OpenOptions::default())
    }

    /// Opens a dataset at a path or URI.
    ///
    /// # Errors
    /// As [`LanceDatabase::open`]; an id column that is not unique or not an integer.
    pub fn open_with(uri: impl AsRef<str>, options: &OpenOptions) -> Result<Self> {
        let uri = uri.as_ref();
        let opened = catch_at_path(uri, || open::open(uri, options)).map_err(|error| error.of(uri))?;
        Ok(LanceDatabase {
            memory: Arc::new(Memory::new(&opened.identity, options)),
            fits: opened.identity.embedding_bytes() <= options.index_cache_bytes,
            table: Arc::new(opened.table),
            identity: Arc::new(opened.identity),
            uncovered: Arc::new(opened.uncovered),
            measured: Arc::new(opened.recall),
            matching: Arc::default(),
            carried: Arc::default(),
            held: Arc::default(),
            centroids: Arc::default(),
            warm: Arc::new(Warm::new(opened.index_bytes, options.index_cache_bytes)),
            columns: opened.attributes,
            k: 10,
            recall: RECALL,
            nprobes: None,
            exact: false,
            prefilter: None,
            max_distance: None,
        })
    }

    /// Makes what a model reads of the items beside their embeddings, and keeps it with the dataset.
    ///
    /// # Errors
    /// A dataset that cannot be read.
    pub(crate) fn make_features(&self) -> Result<()> {
        self.guarded(|| features::make(&self.table, &self.columns, self.identity.rows as usize))
    }

    /// The columns that [`VectorDatabase::features`] would look at.
    ///
    /// # Errors
    /// One that is not there.
    #[cfg(feature = "cli")]
    pub(crate) fn feature_columns(&self, wanted: &Features, hidden: &[String]) -> Result<Vec<String>> {
        let features = features::columns(&self.table, &self.columns, wanted, hidden)?;
        Ok(features.into_iter().map(|feature| feature.column).collect())
    }

    /// Takes away the tag under which [`VectorDatabase::keep_version`] kept a version of the dataset at a path or URI;
    /// whether it was there.
    ///
    /// # Errors
    /// No dataset there, or one that may not be written to.
    pub fn release_version(uri: impl AsRef<str>, tag: &str) -> Result<bool> {
        let uri = uri.as_ref();
        let was_there = catch_at_path(uri, || version::release(uri, tag)).map_err(|error| error.of(uri))?;
        if was_there {
            feature_files::sweep_at(uri);
        }
        Ok(was_there)
    }

    /// Neighbours per query (default 10).
    pub fn k(mut self, k: usize) -> Self {
        self.k = k;
        self
    }

    /// The share of its nearest items that a query is to find in the mean (default 0.99); 1 looks at every item.
    ///
    /// How much of the index that takes is what `uphill index` measured ([`LanceDatabase::recall_table`]), with queries
    /// like those of a search. Where it did not, see [`LanceDatabase::nprobes`].
    pub fn recall(mut self, recall: f64) -> Self {
        self.recall = recall;
        self
    }

    /// What `uphill index` measured of the index that is open, if it did.
    pub fn recall_table(&self) -> Option<&RecallTable> {
        self.measured.as_ref().as_ref()
    }

    /// Index partitions to look into per query, whatever recall that gives. More is slower and misses less; where no
    /// recall was measured, the default is a sixteenth of them, and at least 16. A query that asks for many neighbours
    /// looks into as many partitions as hold about twice as many items.
    ///
    /// Measured with the 20,000 molecules of this repository (`cargo bench --bench index -- nprobes`):
    /// recall@10, and CPU time as a share of looking at every item, read from disk.
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

    /// Looks at every item, whatever the index.
    pub fn exact(mut self, exact: bool) -> Self {
        self.exact = exact;
        self
    }

    /// Only items that match this SQL expression (DataFusion's SQL; columns may stand in `"` or backticks) can be found. Where
    /// they are 20,000 at most, all of them are looked at, and held in memory.
    pub fn prefilter(mut self, sql: impl Into<String>) -> Self {
        self.prefilter = Some(Prefilter::new(sql));
        self.matching = Arc::default();
        self.held = Arc::default();
        self
    }

    /// Leaves out neighbours farther than this from the query that they are met by.
    pub fn max_distance(mut self, distance: f32) -> Self {
        self.max_distance = Some(distance);
        self
    }

    /// The attribute columns that ride along (default: all that are not nested).
    ///
    /// # Errors
    /// A column that is not there or whose name this crate uses itself.
    pub fn columns<S: AsRef<str>>(mut self, columns: &[S]) -> Result<Self> {
        let schema = self.table.dataset.schema();
        for (position, column) in columns.iter().map(AsRef::as_ref).enumerate() {
            if columns[..position].iter().any(|other| other.as_ref() == column) {
                return Err(Error::Config(format!("database.columns: `{column}` is named twice")));
            }
            if schema.field(column).is_none() {
                let there = schema.fields.iter().map(|field| field.name.as_str());
                let missing = no_column(column, &format!(" in {}", self.identity.uri), there);
                return Err(Error::Config(format!("database.columns: {missing}")));
            }
            if column == self.table.embedding_column || (schema::is_reserved(column) && column != schema::SOURCE_ROW) {
                return Err(Error::Config(format!("database.columns: `{column}` is a name this program uses itself")));
            }
        }
        self.columns = columns.iter().map(|column| column.as_ref().to_string()).collect();
        Ok(self)
    }

    /// The names of the attribute columns that ride along.
    pub fn column_names(&self) -> &[String] {
        &self.columns
    }

    /// Whether queries go through the index.
    pub fn uses_index(&self) -> bool {
        self.index_search().is_some()
    }

    /// Lance's plan for a query of `n_queries` vectors; "exact scan" without an index.
    ///
    /// # Errors
    /// As [`VectorDatabase::query`].
    pub fn explain(&self, n_queries: usize) -> Result<String> {
        let Some(search) = self.index_search() else { return Ok("exact scan".into()) };
        let search = IndexSearch { centroids: self.centroids()?, ..search };
        search.explain(Array2::ones((n_queries, self.identity.dim)).view(), self.k)
    }

    fn exact_search(&self) -> ExactSearch<'_> {
        // Beside an index that is in memory, looking at every row is the exception.
        let is_exact = self.exact || self.recall >= 1.0 || self.identity.index.is_none();
        let held = (is_exact && self.fits).then_some(&*self.held);
        let prefilter = self.prefilter.as_ref().map(|prefilter| prefilter.sql.as_str());
        ExactSearch { table: &self.table, held, metric: self.identity.metric, prefilter }
    }

    /// The search through the index, where there is one and it is to be used.
    fn index_search(&self) -> Option<IndexSearch<'_>> {
        let index =
            self.identity.index.as_ref().filter(|_| !self.exact && (self.recall < 1.0 || self.nprobes.is_some()))?;
        let (exact, all) = (self.exact_search(), self.identity.rows as usize);
        let rows = self.matching.get().map_or(all, Vec::len);
        let measured = self.measured.as_ref().as_ref();
        let (nprobes, recall) = (self.nprobes, self.recall);
        let (uncovered, held, centroids) = (&self.uncovered, None, None);
        Some(IndexSearch { exact, index, held, centroids, uncovered, all, rows, nprobes, recall, measured })
    }

    /// The centroids of the index, read once.
    fn centroids(&self) -> Result<Option<&Centroids>> {
        let Some(index) = &self.identity.index else { return Ok(None) };
        if self.centroids.get().is_none() {
            let read = Centroids::read(&self.table, &index.name, self.identity.metric)?;
            self.centroids.get_or_init(|| read);
        }
        Ok(self.centroids.get().and_then(Option::as_ref))
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

    /// What is asked of Lance: panics and errors name the dataset.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let uri = &self.identity.uri;
        catch_at_path(uri, work).map_err(|error| error.of(uri))
    }

    fn search(&self, queries: &DataFrame, request: Request<'_>) -> Result<DataFrame> {
        let k = request.k.unwrap_or(self.k);
        if self.k == 0 {
            return Err(Error::Config("database.k: expected at least 1, found 0".into()));
        }
        schema::check_queries(queries, self.identity.dim)?;
        self.table.check_names(self.prefilter.as_ref())?;
        let query_idx = schema::u32s(queries, QUERY_IDX)?;
        let vectors = convert::matrix::<f64>(queries, EMBEDDING)?.view().mapv(|component| component as f32);
        let exclude = request.exclude.filter(|ids| !ids.is_empty());
        let left_out = |row: u64| exclude.is_some_and(|ids| self.table.ids.holds(ids, row));
        let few = self.prefilter.is_some() && self.uses_index() && self.matching()?.len() <= FEW;
        let candidates = match self.index_search() {
            _ if query_idx.is_empty() || k == 0 => {
                self.table.check_prefilter(self.prefilter.as_ref())?;
                Vec::new()
            }
            Some(_) if few => {
                let exact = ExactSearch { held: Some(&self.held), ..self.exact_search() };
                exact.nearest(vectors.view(), k, &left_out, None)?
            }
            Some(index) => {
                let held = match self.prefilter {
                    None => self.memory.index(&self.table, &self.identity, index.index, &self.uncovered)?,
                    Some(_) => None,
                };
                let is_held = held.is_some();
                if !is_held {
                    self.warm.up(&self.table, &index.index.name)?;
                }
                let centroids = if is_held { None } else { self.centroids()? };
                let index = IndexSearch { held, centroids, ..index };
                let wanted = if exclude.is_some() && !is_held { k.saturating_mul(2) } else { k };
                index.nearest(vectors.view(), k, wanted, &left_out)?
            }
            None => self.exact_search().nearest(vectors.view(), k, &left_out, None)?,
        };
        if self.prefilter.is_some() && !candidates.is_empty() && candidates.iter().all(Vec::is_empty) {
            // Which says so where none matches.
            self.matching()?;
        }
        self.rank(&query_idx, vectors.view(), &candidates, k, &self.wanted(request.columns))
    }

    /// Of the attributes that ride along those that are wanted, in their order.
    fn wanted(&self, columns: Option<&[String]>) -> Vec<String> {
        let is_wanted = |column: &&String| columns.is_none_or(|columns| columns.contains(column));
        self.columns.iter().filter(is_wanted).cloned().collect()
    }

    /// Items by row id, distinct; what is in memory is not read again.
    fn fetch(&self, rows: &[u64], columns: &[String]) -> Result<DataFrame> {
        match self.memory.items(&self.table, rows, columns)? {
            Some(items) => Ok(items),
            None => self.table.take(rows, columns),
        }
    }

    fn items(&self, db_idx: &[u64], columns: &[String]) -> Result<DataFrame> {
        let rows = db_idx.iter().map(|id| self.table.ids.row_of(*id)).collect::<Option<Vec<u64>>>();
        let rows = rows.ok_or_else(|| Error::input(&self.identity.uri, "an asked item is not there"))?;
        // Lance wants distinct ids: fetch each once, then put them in the order asked.
        let distinct = sorted_distinct(rows.clone());
        let items = self.fetch(&distinct, columns)?;
        let order: Vec<u32> =
            rows.iter().filter_map(|row| distinct.binary_search(row).ok()).map(|at| at as u32).collect();
        convert::gather(&items, &order)
    }

    /// Measures each query's candidates and keeps the `k` nearest: the results frame.
    fn rank(
        &self,
        query_idx: &[u32],
        vectors: ArrayView2<'_, f32>,
        candidates: &Candidates,
        k: usize,
        columns: &[String],
    ) -> Result<DataFrame> {
        let distinct = sorted_distinct(candidates.iter().flatten().copied().collect());
        let items = self.carried.take(&distinct, columns, |rows| self.fetch(rows, columns))?;
        let embeddings = convert::matrix::<f32>(&items, EMBEDDING)?;
        let embeddings = embeddings.view();
        let ids = schema::u64s(&items, DB_IDX)?;

        let (mut rows, mut queries_of, mut distances) = (Vec::new(), Vec::new(), Vec::new());
        for ((query_idx, vector), candidates) in query_idx.iter().zip(vectors.rows()).zip(candidates) {
            let distance = |item: usize| match (vector.as_slice(), embeddings.row(item).as_slice()) {
                (Some(a), Some(b)) => self.identity.metric.distance(a, b),
                _ => f32::NAN,
            };
            let mut neighbours: Vec<(Neighbour, u32)> = candidates
                .iter()
                .filter_map(|row| distinct.binary_search(row).ok())
                .map(|item| (Neighbour { distance: distance(item), db_idx: ids[item] }, item as u32))
                .filter(|(neighbour, _)| self.max_distance.is_none_or(|limit| neighbour.distance <= limit))
                .collect();
            neighbours.sort_unstable();
            for (neighbour, item) in neighbours.into_iter().take(k) {
                queries_of.push(*query_idx);
                distances.push(neighbour.distance);
                rows.push(item);
            }
        }
        let mut columns = convert::gather(&items, &rows)?.into_columns();
        columns.insert(0, Column::new(QUERY_IDX.into(), queries_of));
        columns.insert(2, Column::new(DISTANCE.into(), distances));
        DataFrame::new(rows.len(), columns).doing("building the results frame")
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

    fn identity(&self) -> Option<&Identity> {
        Some(&self.identity)
    }

    fn keep_version(&self, name: &str) -> Result<()> {
        self.guarded(|| version::keep(&self.table.dataset, name))
    }

    fn query(&self, queries: &DataFrame, request: Request<'_>) -> Result<DataFrame> {
        self.guarded(|| self.search(queries, request))
    }

    fn take(&self, db_idx: &[u64]) -> Result<DataFrame> {
        self.guarded(|| self.items(db_idx, &self.columns))
    }

    fn take_columns(&self, db_idx: &[u64], columns: &[String]) -> Result<DataFrame> {
        self.guarded(|| self.items(db_idx, &self.wanted(Some(columns))))
    }

    fn sample(&self, n: usize, rng: &mut Stream) -> Result<Vec<u64>> {
        let draw = |rng, all: usize| rand::seq::index::sample(rng, all, n.min(all)).into_iter();
        let mut picked: Vec<u64> = if self.prefilter.is_none() && self.table.ids_count_up_to(self.identity.rows) {
            // Listed in order, each id would stand at the position that it is.
            draw(rng, self.identity.rows as usize).map(|position| position as u64).collect()
        } else {
            let all = self.guarded(|| self.matching())?;
            draw(rng, all.len()).map(|position| all[position]).collect()
        };
        picked.sort_unstable();
        Ok(picked)
    }

    fn scan(&self, visit: &mut Visit<'_>) -> Result<()> {
        let ids = &self.table.ids;
        let scanned = self.exact_search().scan(&mut |rows, items| visit(&ids.of_rows(rows)?, items));
        scanned.map_err(|error| error.of(&self.identity.uri))
    }

    fn visit_columns(&self, columns: &[String], visit: &mut dyn FnMut(DataFrame) -> Result<()>) -> Result<()> {
        let found = if self.prefilter.is_some() { Some(self.guarded(|| self.matching())?) } else { None };
        self.guarded(|| {
            self.table.scan_columns(columns, &mut |items| {
                let Some(found) = found else { return visit(items) };
                let ids = schema::u64s(&items, DB_IDX)?;
                let rows: Vec<u32> =
                    (0..).zip(&ids).filter(|(_, id)| found.binary_search(id).is_ok()).map(|(row, _)| row).collect();
                visit(convert::gather(&items, &rows)?)
            })
        })
    }

    fn features(&self, wanted: &Features, hidden: &[String]) -> Result<ItemFeatures> {
        let found = if self.prefilter.is_some() { Some(self.guarded(|| self.matching())?) } else { None };
        self.guarded(|| features::of(&self.table, &self.columns, wanted, hidden, found))
    }
}

fn sorted_distinct(mut rows: Vec<u64>) -> Vec<u64> {
    rows.sort_unstable();
    rows.dedup();
    rows
}
