//! A library in a Lance dataset. With `index.rs` the only file that knows Lance and async.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type, UInt64Type};
use futures::{Future, FutureExt, TryStreamExt};
use lance::Dataset;
use lance::dataset::ProjectionRequest;
use lance::dataset::builder::DatasetBuilder;
use lance::dataset::scanner::Scanner;
use lance::index::DatasetIndexExt;
use lance::session::Session;
use ndarray::{Array2, ArrayView2, Axis};
use polars::prelude::{Column, DataFrame};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::exact::{Neighbour, Search};
use super::{Metric, Request, VectorDatabase, Visit};
use crate::bridge;
use crate::error::{Doing, Error, Result};
use crate::schema::{self, DB_IDX, DISTANCE, EMBEDDING, QUERY_IDX};
use crate::untrusted;

const ROW_ID: &str = "_rowid";
/// Queries in one call of Lance: bounds the size of its plan and of its result.
const QUERIES_PER_CALL: usize = 1024;
/// Rows of the library in one block of a scan.
const SCAN_ROWS: usize = 8192;
/// Keys in the dataset's table metadata that `uphill index` writes.
pub(crate) const META_METRIC: &str = "uphill.metric";
pub(crate) const META_LIBRARY: &str = "uphill.library_id";

/// How to open a dataset; the defaults suit one that `uphill index` built.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The column of embeddings; found by itself where there is one fixed-size list of floats.
    pub embedding_column: Option<String>,
    /// A unique, unsigned or non-negative integer column to use as `db_idx`, for datasets
    /// without stable row ids.
    pub id_column: Option<String>,
    /// What `distance` means; the index's, or the one `uphill index` stored, or L2.
    pub metric: Option<Metric>,
    /// The dataset version; the latest where `None`.
    pub version: Option<u64>,
    /// Bytes of index kept in memory.
    pub index_cache_bytes: usize,
    /// Bytes of metadata kept in memory.
    pub metadata_cache_bytes: usize,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            embedding_column: None,
            id_column: None,
            metric: None,
            version: None,
            index_cache_bytes: 1 << 30,
            metadata_cache_bytes: 128 << 20,
        }
    }
}

/// What makes a dataset the one a run started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Where it is.
    pub uri: String,
    /// The Lance version, which a run pins.
    pub version: u64,
    /// When that version was committed, in microseconds since 1970.
    #[serde(default)]
    pub committed: Option<i64>,
    /// Items, without deleted ones.
    pub rows: u64,
    /// Components of an embedding.
    pub dim: usize,
    /// What `distance` means.
    pub metric: Metric,
    /// A hash of the content, where `uphill index` built it.
    pub library_id: Option<String>,
    /// Where `db_idx` comes from: `row id`, `row address` or the name of a column.
    pub ids: String,
    /// The index on the embeddings, if there is one.
    pub index: Option<IndexInfo>,
}

impl Identity {
    /// What differs, one phrase each, with both values. Where the dataset is does not count.
    pub fn differences(&self, now: &Identity) -> Vec<String> {
        let index = |identity: &Identity| match &identity.index {
            Some(index) => format!("{} {} ({})", index.kind, index.name, index.uuids.join(", ")),
            None => "none".to_string(),
        };
        let library = |identity: &Identity| identity.library_id.clone().unwrap_or_else(|| "none".into());
        // The same content, built again, is the same library; where the content has no hash, the time tells.
        let committed = |identity: &Identity| match (&self.library_id, &now.library_id, identity.committed) {
            (None, None, Some(at)) if self.committed.is_some() && now.committed.is_some() => at.to_string(),
            _ => "unknown".into(),
        };
        let pairs = [
            ("version", self.version.to_string(), now.version.to_string()),
            ("rows", self.rows.to_string(), now.rows.to_string()),
            ("dim", self.dim.to_string(), now.dim.to_string()),
            ("metric", self.metric.to_string(), now.metric.to_string()),
            ("library id", library(self), library(now)),
            ("commit time", committed(self), committed(now)),
            ("ids", self.ids.clone(), now.ids.clone()),
            ("index", index(self), index(now)),
        ];
        let differing = pairs.into_iter().filter(|(_, then, now)| then != now);
        differing.map(|(what, then, now)| format!("{what} was {then}, is {now}")).collect()
    }
}

/// The ANN index on the embeddings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexInfo {
    /// Its name in the dataset.
    pub name: String,
    /// `IVF_FLAT`, `IVF_SQ`, …
    pub kind: String,
    /// The metric it was built for.
    pub metric: Metric,
    /// IVF partitions.
    pub partitions: usize,
    /// Rows that were appended after it was built; they are searched exactly.
    pub unindexed_rows: u64,
    /// Its identities, one per segment.
    pub uuids: Vec<String>,
}

/// A Lance dataset with an embedding column, opened at one version.
///
/// Searches through the index if there is one that fits (`nprobes` partitions of it,
/// all queries in one call), else exactly. Whatever the index, candidates are measured
/// again from their embeddings: `distance` is exact, and rows are ordered by it.
///
/// Cheap to clone: clones share the open dataset and its caches.
#[derive(Clone)]
pub struct LanceDatabase {
    dataset: Arc<Dataset>,
    identity: Arc<Identity>,
    ids: Arc<Ids>,
    embedding_column: String,
    columns: Vec<String>,
    unindexed: Arc<Vec<u64>>,
    k: usize,
    nprobes: Option<usize>,
    exact: bool,
    prefilter: Option<String>,
    max_distance: Option<f32>,
}

/// What stands behind `db_idx`.
enum Ids {
    /// Lance's stable row ids, or its row addresses: the same number.
    RowId(OnceLock<Vec<u64>>),
    /// A column: value to row id, and back.
    Column { row_of: HashMap<u64, u64>, sorted: Vec<u64>, id_of: HashMap<u64, u64> },
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
        untrusted::caught(uri, || Self::open_version(uri, options)).map_err(|error| error.of(uri))
    }

    fn open_version(uri: &str, options: &OpenOptions) -> Result<Self> {
        let uri = uri.to_string();
        let session = Session::new(options.index_cache_bytes, options.metadata_cache_bytes, Arc::default());
        let mut builder = DatasetBuilder::from_uri(&uri).with_session(Arc::new(session));
        if let Some(version) = options.version {
            builder = builder.with_version(version);
        }
        let dataset = on_runtime(async move { builder.load().await })?.map_err(|error| {
            let reason = match options.version.and_then(|version| Some((version, latest_version(&uri)?))) {
                Some((version, latest)) => format!(
                    "version {version} is not there (the latest is {latest}): it was cleaned up, or this is another dataset"
                ),
                None => format!("cannot open it as a Lance dataset: {}", crate::error::one_line(&error.to_string())),
            };
            Error::input(&uri, reason)
        })?;
        let dataset = Arc::new(dataset);
        let (embedding_column, dim) = embedding_field(&dataset, &uri, options.embedding_column.as_deref())?;
        let index = index_info(&dataset, &embedding_column)?;
        let metric = match (options.metric, &index, dataset.metadata().get(META_METRIC)) {
            (Some(metric), ..) => metric,
            (None, Some((info, _)), _) => info.metric,
            (None, None, Some(stored)) => stored.parse()?,
            (None, None, None) => Metric::L2,
        };
        let rows = {
            let dataset = dataset.clone();
            on_runtime(async move { dataset.count_rows(None).await })?.doing("counting rows")? as u64
        };
        let ids = match &options.id_column {
            Some(column) => Ids::from_column(&dataset, &uri, column)?,
            None => Ids::RowId(OnceLock::new()),
        };
        let columns = attribute_columns(&dataset, &embedding_column);
        let (index, unindexed) = index.map_or((None, Vec::new()), |(info, fragments)| (Some(info), fragments));
        let identity = Identity {
            version: dataset.version_id(),
            committed: Some(dataset.manifest().timestamp().timestamp_micros()),
            rows,
            dim,
            metric,
            library_id: dataset.metadata().get(META_LIBRARY).cloned(),
            ids: match &options.id_column {
                Some(column) => column.clone(),
                None if dataset.manifest().uses_stable_row_ids() => "row id".into(),
                None => "row address".into(),
            },
            index,
            uri,
        };
        Ok(LanceDatabase {
            dataset,
            identity: Arc::new(identity),
            ids: Arc::new(ids),
            embedding_column,
            columns,
            unindexed: Arc::new(unindexed),
            k: 10,
            nprobes: None,
            exact: false,
            prefilter: None,
            max_distance: None,
        })
    }

    /// Neighbours per query (default 10).
    pub fn k(mut self, k: usize) -> Self {
        self.k = k;
        self
    }

    /// Index partitions to look into per query. More is slower and misses less; the
    /// default is a sixteenth of them, and at least 16.
    pub fn nprobes(mut self, nprobes: usize) -> Self {
        self.nprobes = Some(nprobes);
        self
    }

    /// Looks at every item, whatever the index.
    pub fn exact(mut self, exact: bool) -> Self {
        self.exact = exact;
        self
    }

    /// Only items that match this SQL expression (DataFusion's SQL) can be found.
    pub fn prefilter(mut self, sql: impl Into<String>) -> Self {
        self.prefilter = Some(sql.into());
        self
    }

    /// Leaves out neighbours farther than this.
    pub fn max_distance(mut self, distance: f32) -> Self {
        self.max_distance = Some(distance);
        self
    }

    /// The attribute columns that ride along (default: all that are not nested).
    ///
    /// # Errors
    /// A column that is not there or whose name this crate uses itself.
    pub fn columns<S: AsRef<str>>(mut self, columns: &[S]) -> Result<Self> {
        let columns: Vec<String> = columns.iter().map(|column| column.as_ref().to_string()).collect();
        for column in &columns {
            if self.dataset.schema().field(column).is_none() {
                let all: Vec<_> = self.dataset.schema().fields.iter().map(|field| field.name.as_str()).collect();
                return Err(Error::Config(format!(
                    "database.columns: no column `{column}` in {} (there are: {})",
                    self.identity.uri,
                    all.join(", ")
                )));
            }
            if *column == self.embedding_column || (schema::is_reserved(column) && column != schema::SOURCE_ROW) {
                return Err(Error::Config(format!("database.columns: `{column}` is a name this program uses itself")));
            }
        }
        self.columns = columns;
        Ok(self)
    }

    /// The names of the attribute columns that ride along.
    pub fn column_names(&self) -> &[String] {
        &self.columns
    }

    /// Whether queries go through the index.
    pub fn uses_index(&self) -> bool {
        self.identity.index.is_some() && !self.exact
    }

    /// Lance's plan for a query of `n_queries` vectors; "exact scan" without an index.
    ///
    /// # Errors
    /// As [`VectorDatabase::query`].
    pub fn explain(&self, n_queries: usize) -> Result<String> {
        if !self.uses_index() {
            return Ok("exact scan".into());
        }
        let vectors = Array2::<f32>::ones((n_queries, self.identity.dim));
        let scanner = self.index_scanner(vectors.view(), self.k)?;
        on_runtime(async move { scanner.explain_plan(true).await })?.doing("explaining a query")
    }

    /// The partitions that a query looks into.
    fn probes(&self, index: &IndexInfo) -> usize {
        self.nprobes.unwrap_or_else(|| (index.partitions / 16).max(16)).clamp(1, index.partitions.max(1))
    }

    fn index_scanner(&self, queries: ArrayView2<'_, f32>, k: usize) -> Result<Scanner> {
        let index = self.identity.index.as_ref().ok_or_else(|| Error::Config("no index".into()))?;
        if index.metric != self.identity.metric {
            return Err(Error::Config(format!(
                "database.metric is {} but the index `{}` was built for {}; ask for that metric, or set exact = true",
                self.identity.metric, index.name, index.metric
            )));
        }
        let mut scanner = self.dataset.scan();
        scanner.nearest(&self.embedding_column, &fixed_size_list(queries), k).doing("asking for neighbours")?;
        scanner.nprobes(self.probes(index));
        // Rows that the index does not cover are ours to search: Lance would leave its
        // shared path for them.
        scanner.fast_search();
        if let Some(sql) = &self.prefilter {
            scanner.filter(sql).doing("database.prefilter")?;
            scanner.prefilter(true);
        }
        scanner.project::<&str>(&[]).doing("projecting")?;
        scanner.with_row_id();
        scanner.disable_scoring_autoprojection();
        Ok(scanner)
    }

    /// Row ids near each query, through the index and, for rows it lacks, exactly.
    fn nearest_rows(&self, queries: ArrayView2<'_, f32>, k: usize) -> Result<Vec<Vec<u64>>> {
        let mut rows: Vec<Vec<u64>> = Vec::with_capacity(queries.nrows());
        // A quantised index orders its candidates only roughly: fetch more, measure again.
        let quantised = self.identity.index.as_ref().is_some_and(|index| index.kind != "IVF_FLAT");
        let fetch = if quantised { 2 * k + 16 } else { k };
        for chunk in queries.axis_chunks_iter(Axis(0), QUERIES_PER_CALL) {
            let scanner = self.index_scanner(chunk, fetch)?;
            let batch = on_runtime(async move { scanner.try_into_batch().await })?.doing("asking the index")?;
            let start = rows.len();
            rows.resize(start + chunk.nrows(), Vec::with_capacity(fetch));
            let query_index = column(&batch, "query_index")?.as_primitive::<Int32Type>().clone();
            let row_id = column(&batch, ROW_ID)?.as_primitive::<UInt64Type>();
            for (query, row) in query_index.values().iter().zip(row_id.values()) {
                rows[start + *query as usize].push(*row);
            }
        }
        if !self.unindexed.is_empty() {
            let extra = self.exact_rows(queries, k, None, Some(&self.unindexed))?;
            rows.iter_mut().zip(extra).for_each(|(rows, extra)| rows.extend(extra));
        }
        Ok(rows)
    }

    fn exact_rows(
        &self,
        queries: ArrayView2<'_, f32>,
        k: usize,
        exclude: Option<&HashSet<u64>>,
        fragments: Option<&[u64]>,
    ) -> Result<Vec<Vec<u64>>> {
        let mut search = Search::new(queries, self.identity.metric, k, exclude);
        self.scan_rows(self.prefilter.as_deref(), fragments, &mut |rows, items| {
            search.block(rows, items);
            Ok(())
        })?;
        Ok(search.finish())
    }

    /// Shows row ids and embeddings, block by block.
    fn scan_rows(&self, prefilter: Option<&str>, fragments: Option<&[u64]>, visit: &mut Visit<'_>) -> Result<()> {
        let mut scanner = self.dataset.scan();
        scanner.project(&[&self.embedding_column]).doing("projecting")?.with_row_id();
        scanner.batch_size(SCAN_ROWS).batch_readahead(4).scan_in_order(false);
        if let Some(sql) = prefilter {
            scanner.filter(sql).doing("database.prefilter")?;
        }
        if let Some(fragments) = fragments {
            let wanted = self.dataset.fragments().iter().filter(|fragment| fragments.contains(&fragment.id));
            scanner.with_fragments(wanted.cloned().collect());
        }
        let mut stream = on_runtime(async move { scanner.try_into_stream().await })?.doing("scanning the library")?;
        loop {
            let (batch, rest) = on_runtime(async move {
                let batch = stream.try_next().await;
                (batch, stream)
            })?;
            stream = rest;
            let Some(batch) = batch.doing("scanning the library")? else { return Ok(()) };
            let (batch, vectors) = self.present(&batch)?;
            let ids = column(&batch, ROW_ID)?.as_primitive::<UInt64Type>();
            visit(ids.values(), view(&vectors, self.identity.dim))?;
        }
    }

    /// The rows whose embedding is not null, and their embeddings as f32.
    fn present(&self, batch: &RecordBatch) -> Result<(RecordBatch, FixedSizeListArray)> {
        let vectors = column(batch, &self.embedding_column)?;
        if vectors.null_count() == 0 {
            return Ok((batch.clone(), as_f32(vectors)?));
        }
        let keep = arrow::compute::is_not_null(vectors).doing("filtering null embeddings")?;
        let batch = arrow::compute::filter_record_batch(batch, &keep).doing("filtering null embeddings")?;
        let vectors = as_f32(column(&batch, &self.embedding_column)?)?;
        Ok((batch, vectors))
    }

    /// Items by row id: `db_idx`, `embedding`, attributes.
    fn take_rows(&self, row_ids: &[u64]) -> Result<DataFrame> {
        let mut names: Vec<&str> = vec![ROW_ID, &self.embedding_column];
        names.extend(self.columns.iter().map(String::as_str));
        let projection = ProjectionRequest::from_columns(names, self.dataset.schema());
        let (dataset, wanted) = (self.dataset.clone(), row_ids.to_vec());
        let batch = on_runtime(async move { dataset.take_rows(&wanted, projection).await })?.doing("fetching items")?;
        let found = column(&batch, ROW_ID)?.as_primitive::<UInt64Type>();
        if found.values() != row_ids {
            let missing = row_ids
                .iter()
                .zip(found.values())
                .find(|(asked, got)| asked != got)
                .map_or(row_ids.last(), |(asked, _)| Some(asked));
            return Err(Error::input(
                &self.identity.uri,
                format!("no item with row id {}", missing.copied().unwrap_or_default()),
            ));
        }
        let vectors = as_f32(column(&batch, &self.embedding_column)?)?;
        let db_idx = row_ids.iter().map(|row| self.ids.of_row(*row)).collect::<Result<Vec<u64>>>()?;
        let mut columns = vec![Column::new(DB_IDX.into(), db_idx)];
        let (fields, mut arrays) =
            (vec![Field::new(EMBEDDING, vectors.data_type().clone(), false)], vec![Arc::new(vectors) as ArrayRef]);
        let mut fields = fields;
        for name in &self.columns {
            let array = column(&batch, name)?;
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array.clone());
        }
        let batch =
            RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), arrays).doing("fetching items")?;
        columns.extend(bridge::to_polars(&batch)?.into_columns());
        DataFrame::new(row_ids.len(), columns).doing("fetching items")
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

    fn identity(&self) -> Option<&Identity> {
        Some(&self.identity)
    }

    fn query(&self, queries: &DataFrame, request: Request<'_>) -> Result<DataFrame> {
        let uri = &self.identity.uri;
        untrusted::caught(uri, || self.search(queries, request)).map_err(|error| error.of(uri))
    }

    fn take(&self, db_idx: &[u64]) -> Result<DataFrame> {
        let uri = &self.identity.uri;
        untrusted::caught(uri, || self.items(db_idx)).map_err(|error| error.of(uri))
    }

    fn sample(&self, n: usize, rng: &mut ChaCha8Rng) -> Result<Vec<u64>> {
        let all = self.all_ids().map_err(|error| error.of(&self.identity.uri))?;
        let picked = rand::seq::index::sample(rng, all.len(), n.min(all.len()));
        let mut picked: Vec<u64> = picked.into_iter().map(|position| all[position]).collect();
        picked.sort_unstable();
        Ok(picked)
    }

    fn scan(&self, visit: &mut Visit<'_>) -> Result<()> {
        let scanned = self.scan_rows(self.prefilter.as_deref(), None, &mut |rows, items| match &*self.ids {
            Ids::RowId(_) => visit(rows, items),
            Ids::Column { .. } => {
                let ids = rows.iter().map(|row| self.ids.of_row(*row)).collect::<Result<Vec<u64>>>()?;
                visit(&ids, items)
            }
        });
        scanned.map_err(|error| error.of(&self.identity.uri))
    }
}

impl LanceDatabase {
    fn search(&self, queries: &DataFrame, request: Request<'_>) -> Result<DataFrame> {
        let k = request.k.unwrap_or(self.k);
        if k == 0 {
            return Err(Error::Config("database.k: expected at least 1, found 0".into()));
        }
        schema::check_queries(queries, self.identity.dim)?;
        let query_idx = schema::u32s(queries, QUERY_IDX)?;
        let vectors = bridge::matrix::<f64>(queries, EMBEDDING)?.view().mapv(|component| component as f32);
        let exclude = request.exclude.filter(|exclude| !exclude.is_empty()).map(|exclude| self.ids.rows_of(exclude));
        let exclude = exclude.as_ref();

        let found: Vec<Vec<u64>> = if query_idx.is_empty() {
            self.check_prefilter()?;
            Vec::new()
        } else if self.uses_index() {
            self.index_search(vectors.view(), k, exclude)?
        } else {
            self.exact_rows(vectors.view(), k, exclude, None)?
        };

        let mut distinct: Vec<u64> = found.iter().flatten().copied().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let items = self.take_rows(&distinct)?;
        let embeddings = bridge::matrix::<f32>(&items, EMBEDDING)?;
        let ids = schema::u64s(&items, DB_IDX)?;

        let (mut rows, mut queries_of, mut distances) = (Vec::new(), Vec::new(), Vec::new());
        for (query, found) in found.iter().enumerate() {
            let vector = vectors.row(query);
            let mut neighbours: Vec<(Neighbour, u32)> = found
                .iter()
                .filter_map(|row| distinct.binary_search(row).ok())
                .map(|item| {
                    let embedding = embeddings.view();
                    let embedding = embedding.row(item);
                    let distance = match (vector.as_slice(), embedding.as_slice()) {
                        (Some(a), Some(b)) => self.identity.metric.distance(a, b),
                        _ => f32::NAN,
                    };
                    (Neighbour { distance, db_idx: ids[item] }, item as u32)
                })
                .filter(|(neighbour, _)| self.max_distance.is_none_or(|limit| neighbour.distance <= limit))
                .collect();
            neighbours.sort_unstable();
            for (neighbour, item) in neighbours.into_iter().take(k) {
                queries_of.push(query_idx[query]);
                distances.push(neighbour.distance);
                rows.push(item);
            }
        }
        let gathered = bridge::gather(&items, &rows)?;
        let mut columns = vec![Column::new(QUERY_IDX.into(), queries_of)];
        let distance = Column::new(DISTANCE.into(), distances);
        for (position, column) in gathered.into_columns().into_iter().enumerate() {
            columns.push(column);
            if position == 0 {
                columns.push(distance.clone());
            }
        }
        DataFrame::new(distance.len(), columns).doing("building the results frame")
    }

    fn items(&self, db_idx: &[u64]) -> Result<DataFrame> {
        let rows = db_idx.iter().map(|id| self.ids.row_of(*id)).collect::<Option<Vec<u64>>>();
        let rows = rows.ok_or_else(|| Error::input(&self.identity.uri, "an asked item is not there"))?;
        // Lance wants distinct ids: fetch each once, then put them in the order asked.
        let mut distinct = rows.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let items = self.take_rows(&distinct)?;
        let order: Vec<u32> =
            rows.iter().filter_map(|row| distinct.binary_search(row).ok()).map(|at| at as u32).collect();
        bridge::gather(&items, &order)
    }

    /// Index search that leaves items out: asks for more until each query has k others.
    fn index_search(
        &self,
        queries: ArrayView2<'_, f32>,
        k: usize,
        exclude: Option<&HashSet<u64>>,
    ) -> Result<Vec<Vec<u64>>> {
        let Some(exclude) = exclude else { return self.nearest_rows(queries, k) };
        let mut found: Vec<Vec<u64>> = vec![Vec::new(); queries.nrows()];
        let mut open: Vec<usize> = (0..queries.nrows()).collect();
        let mut fetch = 2 * k;
        while !open.is_empty() {
            let asked = queries.select(Axis(0), &open);
            let rows = self.nearest_rows(asked.view(), fetch)?;
            let mut still = Vec::new();
            for (query, rows) in open.into_iter().zip(rows) {
                let exhausted = rows.len() < fetch;
                let fresh: Vec<u64> = rows.into_iter().filter(|row| !exclude.contains(row)).collect();
                if fresh.len() < k && !exhausted {
                    still.push(query);
                } else {
                    found[query] = fresh;
                }
            }
            (open, fetch) = (still, fetch * 4);
        }
        Ok(found)
    }

    /// Plans a scan with the prefilter, so that mistakes in it show before the search.
    fn check_prefilter(&self) -> Result<()> {
        let Some(sql) = &self.prefilter else { return Ok(()) };
        let wrong = |error: lance::Error| {
            let message = crate::error::one_line(&error.to_string());
            Error::Config(format!("database.prefilter: cannot evaluate `{sql}`: {message}"))
        };
        untrusted::check_sql("database.prefilter", sql)?;
        let mut scanner = self.dataset.scan();
        scanner.filter(sql).map_err(wrong)?;
        on_runtime(async move { scanner.create_plan().await.map(|_| ()) })?.map_err(wrong)
    }

    fn all_ids(&self) -> Result<&[u64]> {
        match &*self.ids {
            Ids::Column { sorted, .. } => Ok(sorted),
            Ids::RowId(cell) => {
                if let Some(ids) = cell.get() {
                    return Ok(ids);
                }
                self.check_prefilter()?;
                let mut scanner = self.dataset.scan();
                scanner.project::<&str>(&[]).doing("projecting")?.with_row_id();
                if let Some(sql) = &self.prefilter {
                    scanner.filter(sql).doing("database.prefilter")?;
                }
                let batch = on_runtime(async move { scanner.try_into_batch().await })?.doing("listing ids")?;
                let mut ids = column(&batch, ROW_ID)?.as_primitive::<UInt64Type>().values().to_vec();
                ids.sort_unstable();
                Ok(cell.get_or_init(|| ids))
            }
        }
    }
}

impl Ids {
    fn from_column(dataset: &Arc<Dataset>, uri: &str, name: &str) -> Result<Self> {
        if dataset.schema().field(name).is_none() {
            return Err(Error::Config(format!("database.id_column: no column `{name}` in {uri}")));
        }
        let mut scanner = dataset.scan();
        scanner.project(&[name]).doing("projecting")?.with_row_id();
        let batch = on_runtime(async move { scanner.try_into_batch().await })?.doing("reading the id column")?;
        let ids = arrow::compute::cast_with_options(
            column(&batch, name)?,
            &DataType::UInt64,
            &arrow::compute::CastOptions { safe: false, ..Default::default() },
        )
        .doing(format!("database.id_column: `{name}` in {uri} does not hold non-negative integers"))?;
        if ids.null_count() > 0 {
            return Err(Error::input(
                uri,
                format!("id column `{name}` has {} nulls; ids must be there", ids.null_count()),
            ));
        }
        let ids = ids.as_primitive::<UInt64Type>();
        let rows = column(&batch, ROW_ID)?.as_primitive::<UInt64Type>();
        let (mut row_of, mut id_of) = (HashMap::with_capacity(ids.len()), HashMap::with_capacity(ids.len()));
        for (id, row) in ids.values().iter().zip(rows.values()) {
            if row_of.insert(*id, *row).is_some() {
                return Err(Error::input(uri, format!("id column `{name}` holds {id} twice; ids must be unique")));
            }
            id_of.insert(*row, *id);
        }
        let mut sorted = ids.values().to_vec();
        sorted.sort_unstable();
        Ok(Ids::Column { row_of, sorted, id_of })
    }

    fn row_of(&self, id: u64) -> Option<u64> {
        match self {
            Ids::RowId(_) => Some(id),
            Ids::Column { row_of, .. } => row_of.get(&id).copied(),
        }
    }

    fn of_row(&self, row: u64) -> Result<u64> {
        match self {
            Ids::RowId(_) => Ok(row),
            Ids::Column { id_of, .. } => id_of
                .get(&row)
                .copied()
                .ok_or_else(|| Error::contract("database", DB_IDX, "an id for each row", "none")),
        }
    }

    fn rows_of(&self, ids: &HashSet<u64>) -> HashSet<u64> {
        ids.iter().filter_map(|id| self.row_of(*id)).collect()
    }
}

/// Runs Lance's futures on a runtime of the crate's own, so that callers may be
/// synchronous or inside a runtime of theirs.
pub(crate) fn on_runtime<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<T> {
    static RUNTIME: OnceLock<std::io::Result<tokio::runtime::Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        // DataFusion recurses into a prefilter.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.thread_name("uphill-lance").thread_stack_size(64 << 20).enable_all().build()
    });
    let runtime = runtime.as_ref().doing("starting the runtime")?;
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    // Lance panics over some damaged files.
    runtime.spawn(async move { sender.send(AssertUnwindSafe(future).catch_unwind().await) });
    match receiver.recv().doing("Lance was stopped")? {
        Ok(value) => Ok(value),
        Err(panic) => {
            let message = format!("damaged, or not supported: {}", untrusted::said(&*panic));
            Err(Error::Library { context: "Lance".into(), message })
        }
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::contract("database", name, "a column", "none"))
}

fn fixed_size_list(vectors: ArrayView2<'_, f32>) -> FixedSizeListArray {
    let values = Float32Array::from_iter_values(vectors.iter().copied());
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    FixedSizeListArray::new(item, vectors.ncols() as i32, Arc::new(values), None)
}

fn as_f32(vectors: &ArrayRef) -> Result<FixedSizeListArray> {
    let DataType::FixedSizeList(item, dim) = vectors.data_type() else {
        return Err(Error::contract("database", EMBEDDING, "a fixed-size list", vectors.data_type()));
    };
    if *item.data_type() == DataType::Float32 {
        return Ok(vectors.as_fixed_size_list().clone());
    }
    let target = DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Float32, true)), *dim);
    let cast = arrow::compute::cast(vectors, &target).doing("embeddings to f32")?;
    Ok(cast.as_fixed_size_list().clone())
}

fn view(vectors: &FixedSizeListArray, dim: usize) -> ArrayView2<'_, f32> {
    let values = vectors.values().as_primitive::<Float32Type>().values();
    let start = vectors.offset() * dim;
    let slice = values.get(start..start + vectors.len() * dim).or(values.get(..vectors.len() * dim)).unwrap_or(&[]);
    ArrayView2::from_shape((slice.len() / dim.max(1), dim), slice)
        .unwrap_or_else(|_| ArrayView2::from_shape((0, dim), &[]).unwrap_or_else(|_| unreachable!("an empty view")))
}

/// The embedding column and its dimension.
fn embedding_field(dataset: &Dataset, uri: &str, wanted: Option<&str>) -> Result<(String, usize)> {
    let schema = arrow::datatypes::Schema::from(dataset.schema());
    let dim_of = |field: &Field| match field.data_type() {
        DataType::FixedSizeList(item, dim) if item.data_type().is_floating() => Some(*dim as usize),
        _ => None,
    };
    if let Some(name) = wanted {
        let field = schema
            .field_with_name(name)
            .map_err(|_| Error::Config(format!("database.embedding_column: no column `{name}` in {uri}")))?;
        let dim = dim_of(field).ok_or_else(|| {
            Error::Config(format!(
                "database.embedding_column: `{name}` in {uri} is {}, not a fixed-size list of floats",
                field.data_type()
            ))
        })?;
        return Ok((name.to_string(), dim));
    }
    let found: Vec<(String, usize)> =
        schema.fields().iter().filter_map(|field| Some((field.name().clone(), dim_of(field)?))).collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::input(
            uri,
            "has no embedding column (a fixed-size list of floats); build one with `uphill index`",
        )),
        many => match many.iter().find(|(name, _)| name == EMBEDDING) {
            Some(named) => Ok(named.clone()),
            None => {
                let names: Vec<_> = many.iter().map(|(name, _)| name.as_str()).collect();
                Err(Error::Config(format!(
                    "{uri} has several embedding columns ({}); choose one with database.embedding_column",
                    names.join(", ")
                )))
            }
        },
    }
}

/// The latest version of the dataset at a URI, if there is one.
fn latest_version(uri: &str) -> Option<u64> {
    let builder = DatasetBuilder::from_uri(uri);
    on_runtime(async move { builder.load().await }).ok()?.ok().map(|dataset| dataset.version_id())
}

fn attribute_columns(dataset: &Dataset, embedding_column: &str) -> Vec<String> {
    let schema = arrow::datatypes::Schema::from(dataset.schema());
    schema
        .fields()
        .iter()
        .filter(|field| field.name() != embedding_column && !field.data_type().is_nested())
        .filter(|field| !schema::is_reserved(field.name()) || field.name() == schema::SOURCE_ROW)
        .map(|field| field.name().clone())
        .collect()
}

/// The vector index on a column and the fragments that it does not cover.
fn index_info(dataset: &Arc<Dataset>, column: &str) -> Result<Option<(IndexInfo, Vec<u64>)>> {
    let Some(field) = dataset.schema().field(column).map(|field| field.id) else { return Ok(None) };
    let owned = dataset.clone();
    let indices = on_runtime(async move { owned.load_indices().await })?.doing("reading the indices")?;
    let Some(name) = indices.iter().find(|index| index.fields.first() == Some(&field)).map(|index| index.name.clone())
    else {
        return Ok(None);
    };
    let segments: Vec<_> = indices.iter().filter(|index| index.name == name).collect();
    let (owned, asked) = (dataset.clone(), name.clone());
    let statistics = on_runtime(async move { owned.index_statistics(&asked).await })?.doing("reading the index")?;
    let statistics: serde_json::Value = serde_json::from_str(&statistics).doing("reading the index")?;
    let first = &statistics["indices"][0];
    let metric = first["metric_type"].as_str().unwrap_or("l2").parse()?;
    let kind = statistics["index_type"].as_str().unwrap_or_default();
    if !kind.starts_with("IVF") {
        return Ok(None);
    }
    let covered = |fragment: u64| {
        let mut bitmaps = segments.iter().filter_map(|segment| segment.fragment_bitmap.as_ref());
        bitmaps.any(|bitmap| bitmap.contains(fragment as u32))
    };
    let fragments = dataset.fragments().iter().map(|fragment| fragment.id).filter(|id| !covered(*id)).collect();
    let info = IndexInfo {
        kind: kind.to_string(),
        metric,
        partitions: first["num_partitions"].as_u64().unwrap_or(1) as usize,
        unindexed_rows: statistics["num_unindexed_rows"].as_u64().unwrap_or(0),
        uuids: segments.iter().map(|segment| segment.uuid.to_string()).collect(),
        name,
    };
    Ok(Some((info, fragments)))
}
