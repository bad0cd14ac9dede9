//! Opens a dataset: finds the embedding column, the ids, the index and the attribute columns.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use lance::Dataset;
use lance::dataset::builder::DatasetBuilder;
use lance::session::Session;

use super::identity::{DatasetIdentity, IndexCoverage, index_info};
use super::ids::IdMap;
use super::library_id::{is_unchanged, library_id};
use super::recall_table::RecallTable;
use super::table::Table;
use crate::database::remote::{check_uri, is_remote, local_path};
use crate::database::runtime::block_on;
use crate::database::{META_METRIC, Metric};
use crate::error::{Error, Result, WrapErr, first_line};
use crate::frame::schema::{self, EMBEDDING};
use crate::suggest::unknown_column;

/// Options for opening a dataset. The defaults suit a dataset that `uphill index` built.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenOptions {
    /// The column of embeddings. By default, the only column of fixed-size lists of floats.
    pub embedding_column: Option<String>,
    /// A column of unique non-negative integers to use as `db_idx`, for datasets without
    /// stable row ids.
    pub id_column: Option<String>,
    /// The metric of `distance`. By default, the metric of the index, or the one that `uphill index` stored, or L2.
    pub metric: Option<Metric>,
    /// The dataset version. `None` opens the latest.
    pub version: Option<u64>,
    /// The size of the index cache in bytes (default 384 MB). It affects the speed of a search, but not its results. A larger index
    /// is read again from disk in every iteration. To avoid this, set the size of the index on disk plus a tenth. An exact search
    /// and a search of a small library ([`OpenOptions::index_from_bytes`]) cache all embeddings as f32 if they fit.
    pub index_cache_bytes: usize,
    /// The size of all embeddings as f32, in bytes, from which searches read the index entries (default 192 MB and one byte).
    /// In a smaller library, a search compares the embeddings in the searched partitions, even if the index stores codes. There
    /// is one exception: if the index stores codes of vectors with 192 components or more, the search reads them, because that
    /// is faster.
    pub index_from_bytes: usize,
    /// The size of the metadata cache in bytes (default 128 MB).
    pub metadata_cache_bytes: usize,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            embedding_column: None,
            id_column: None,
            metric: None,
            version: None,
            index_cache_bytes: 384 << 20,
            index_from_bytes: (192 << 20) + 1,
            metadata_cache_bytes: 128 << 20,
        }
    }
}

impl OpenOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The column of embeddings.
    pub fn embedding_column(mut self, embedding_column: impl Into<String>) -> Self {
        self.embedding_column = Some(embedding_column.into());
        self
    }

    /// A column of unique integers to use as `db_idx`.
    pub fn id_column(mut self, id_column: impl Into<String>) -> Self {
        self.id_column = Some(id_column.into());
        self
    }

    /// The metric of `distance`.
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metric = Some(metric);
        self
    }

    /// The dataset version.
    pub fn version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    /// The size of the index cache in bytes.
    pub fn index_cache_bytes(mut self, index_cache_bytes: usize) -> Self {
        self.index_cache_bytes = index_cache_bytes;
        self
    }

    /// The size of all embeddings in bytes from which searches read the index entries, not the embeddings.
    pub fn index_from_bytes(mut self, index_from_bytes: usize) -> Self {
        self.index_from_bytes = index_from_bytes;
        self
    }

    /// The size of the metadata cache in bytes.
    pub fn metadata_cache_bytes(mut self, metadata_cache_bytes: usize) -> Self {
        self.metadata_cache_bytes = metadata_cache_bytes;
        self
    }
}

/// An open dataset.
pub(super) struct OpenDataset {
    pub(super) table: Table,
    pub(super) identity: DatasetIdentity,
    /// The fragments that are not indexed.
    pub(super) unindexed_fragments: Vec<u64>,
    /// The size of the index files in bytes, if the dataset records it.
    pub(super) index_bytes: Option<u64>,
    /// The measured recall of the index.
    pub(super) recall_table: Option<RecallTable>,
    /// The attribute columns that are not nested.
    pub(super) attributes: Vec<String>,
}

/// Opens the dataset at a path or URI.
pub(super) fn open(uri: &str, options: &OpenOptions) -> Result<OpenDataset> {
    check_uri(uri)?;
    let path = if is_remote(uri) { uri.to_string() } else { local_path(uri)?.to_string_lossy().into_owned() };
    let uri = path.as_str();
    let dataset = Arc::new(load(uri, options)?);
    let (embedding_column, dim) = embedding_field(&dataset, uri, options.embedding_column.as_deref())?;
    let (index, coverage) = match index_info(&dataset, &embedding_column)? {
        Some((index, coverage)) => (Some(index), coverage),
        None => (None, IndexCoverage::default()),
    };
    let metric = match (options.metric, &index, dataset.metadata().get(META_METRIC)) {
        (Some(metric), ..) => metric,
        (None, Some(index), _) => index.metric,
        (None, None, Some(stored)) => stored.parse()?,
        (None, None, None) => Metric::L2,
    };
    let counted = dataset.clone();
    let all = block_on(async move { counted.count_rows(None).await })?.wrap_err("counting rows")? as u64;
    let without_embedding = rows_without_embedding(&dataset, &embedding_column, &coverage)?;
    let is_item = (without_embedding > 0).then(|| format!("`{embedding_column}` IS NOT NULL"));
    let ids = match &options.id_column {
        Some(column) => IdMap::from_column(&dataset, uri, column, is_item.as_deref())?,
        None => IdMap::RowId,
    };
    let recall_table = index.as_ref().and_then(|index| RecallTable::read(&dataset, index));
    let identity = DatasetIdentity {
        uri: uri.to_string(),
        version: dataset.version_id(),
        commit_time: Some(dataset.manifest().timestamp().timestamp_micros()),
        rows: all - without_embedding,
        without_embedding,
        dim,
        metric,
        library_id: library_id(&dataset),
        ids: match &options.id_column {
            Some(column) => column.clone(),
            None if dataset.manifest().uses_stable_row_ids() => "row id".into(),
            None => "row address".into(),
        },
        index,
    };
    let attributes = attribute_columns(&dataset, &embedding_column);
    Ok(OpenDataset {
        table: Table { dataset, uri: uri.to_string(), embedding_column, is_item, ids },
        identity,
        unindexed_fragments: coverage.unindexed_fragments,
        index_bytes: coverage.bytes,
        recall_table,
        attributes,
    })
}

/// Counts the rows without an embedding. This reads the embeddings, so it is done only for fragments that may have such rows:
/// datasets that `uphill index` wrote have none, and neither has a fragment that is completely indexed.
fn rows_without_embedding(dataset: &Arc<Dataset>, embedding_column: &str, coverage: &IndexCoverage) -> Result<u64> {
    let nullable = dataset.schema().field(embedding_column).is_some_and(|field| field.nullable);
    if !nullable || is_unchanged(dataset) {
        return Ok(0);
    }
    let may_have_nulls = |fragment: u64| !coverage.is_complete || coverage.unindexed_fragments.contains(&fragment);
    let fragments: Vec<_> =
        dataset.fragments().iter().filter(|fragment| may_have_nulls(fragment.id)).cloned().collect();
    if fragments.is_empty() {
        return Ok(0);
    }
    let mut scanner = dataset.scan();
    scanner.with_fragments(fragments).filter(&format!("`{embedding_column}` IS NULL")).wrap_err("counting rows")?;
    block_on(async move { scanner.count_rows().await })?.wrap_err("counting rows without an embedding")
}

/// Loads a version of a Lance dataset.
fn load(uri: &str, options: &OpenOptions) -> Result<Dataset> {
    if Path::new(uri).is_file() {
        return Err(Error::input(uri, "is a file, not a Lance dataset; build one from Parquet with `uphill index`"));
    }
    let session = Session::new(options.index_cache_bytes, options.metadata_cache_bytes, Arc::default());
    let mut builder = DatasetBuilder::from_uri(uri).with_session(Arc::new(session));
    if let Some(version) = options.version {
        builder = builder.with_version(version);
    }
    block_on(async move { builder.load().await })?.map_err(|error| {
        let reason = match options.version.and_then(|version| Some((version, latest_version(uri)?))) {
            Some((version, latest)) => format!(
                "version {version} does not exist (the latest is {latest}): it was cleaned up, or this is another dataset"
            ),
            None => format!("cannot open it as a Lance dataset: {}", open_failure(&error)),
        };
        Error::input(uri, reason)
    })
}

/// The reason why a dataset cannot be opened.
fn open_failure(error: &lance::Error) -> String {
    let text = first_line(&error.to_string());
    match error {
        lance::Error::DatasetNotFound { .. } => "no dataset exists there; build one with `uphill index`".into(),
        _ => text,
    }
}

/// The latest version of the dataset at a URI, if there is one.
fn latest_version(uri: &str) -> Option<u64> {
    let builder = DatasetBuilder::from_uri(uri);
    block_on(async move { builder.load().await }).ok()?.ok().map(|dataset| dataset.version_id())
}

/// The embedding column and its dimension.
fn embedding_field(dataset: &Dataset, uri: &str, wanted: Option<&str>) -> Result<(String, usize)> {
    let schema = Schema::from(dataset.schema());
    let dim_of = |field: &Field| match field.data_type() {
        DataType::FixedSizeList(item, dim) if item.data_type().is_floating() => Some(*dim as usize),
        _ => None,
    };
    if let Some(name) = wanted {
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let missing = || unknown_column(name, &format!(" in {uri}"), names());
        let field = schema
            .field_with_name(name)
            .map_err(|_| Error::Config(format!("database.embedding_column: {}", missing())))?;
        let dim = dim_of(field).ok_or_else(|| {
            Error::Config(format!(
                "database.embedding_column: `{name}` in {uri} is {}, not a fixed-size list of floats",
                field.data_type()
            ))
        })?;
        return Ok((name.to_string(), dim));
    }
    let candidates: Vec<(String, usize)> =
        schema.fields().iter().filter_map(|field| Some((field.name().clone(), dim_of(field)?))).collect();
    match candidates.as_slice() {
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

/// The names of the attribute columns that are not nested.
fn attribute_columns(dataset: &Dataset, embedding_column: &str) -> Vec<String> {
    Schema::from(dataset.schema())
        .fields()
        .iter()
        .filter(|field| field.name() != embedding_column && !field.data_type().is_nested())
        .filter(|field| !schema::is_reserved_column(field.name()) || field.name() == schema::SOURCE_ROW)
        .map(|field| field.name().clone())
        .collect()
}
