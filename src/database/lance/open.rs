//! Opening a dataset: which column holds the embeddings, what the rows are called, what rides along.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use lance::Dataset;
use lance::dataset::builder::DatasetBuilder;
use lance::session::Session;

use super::identity::{Coverage, Identity, index_info};
use super::ids::Ids;
use super::library::{is_as_built, library_id};
use super::recall::RecallTable;
use super::table::Table;
use crate::database::runtime::on_runtime;
use crate::database::store::{check_uri, is_remote, on_disk};
use crate::database::{META_METRIC, Metric};
use crate::error::{Doing, Error, Result, one_line};
use crate::frame::schema::{self, EMBEDDING};
use crate::suggest::no_column;

/// How to open a dataset; the defaults suit one that `uphill index` built.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
    /// Bytes of index kept in memory (default 384 MB): it changes how fast a search is, never what it finds. An index that is
    /// larger than this is read again from disk in every iteration: give it its size on disk and a tenth more. An exact
    /// search keeps the embeddings, as f32, if all of them take no more than this, and so does a search of a small library
    /// ([`OpenOptions::index_from_bytes`]).
    pub index_cache_bytes: usize,
    /// Bytes of embeddings, as f32, from which on the index's own entries are searched (default 192 MB and one byte). In a
    /// smaller library the partitions that a query searches are searched by their embeddings, also where the index keeps
    /// codes; not where it keeps codes of vectors of 192 components or more, which are faster.
    pub index_from_bytes: usize,
    /// Bytes of metadata kept in memory (default 128 MB).
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

    /// A unique column of integers to use as `db_idx`.
    pub fn id_column(mut self, id_column: impl Into<String>) -> Self {
        self.id_column = Some(id_column.into());
        self
    }

    /// What `distance` means.
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metric = Some(metric);
        self
    }

    /// The dataset version.
    pub fn version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    /// Bytes of index kept in memory.
    pub fn index_cache_bytes(mut self, index_cache_bytes: usize) -> Self {
        self.index_cache_bytes = index_cache_bytes;
        self
    }

    /// Bytes of embeddings from which on the index's own entries are searched.
    pub fn index_from_bytes(mut self, index_from_bytes: usize) -> Self {
        self.index_from_bytes = index_from_bytes;
        self
    }

    /// Bytes of metadata kept in memory.
    pub fn metadata_cache_bytes(mut self, metadata_cache_bytes: usize) -> Self {
        self.metadata_cache_bytes = metadata_cache_bytes;
        self
    }
}

/// An open dataset.
pub(super) struct Opened {
    pub(super) table: Table,
    pub(super) identity: Identity,
    /// Fragments that the index does not cover.
    pub(super) uncovered: Vec<u64>,
    /// Bytes of the index's files, if the dataset says.
    pub(super) index_bytes: Option<u64>,
    /// What was measured of the index.
    pub(super) recall: Option<RecallTable>,
    /// Attribute columns that are not nested.
    pub(super) attributes: Vec<String>,
}

pub(super) fn open(uri: &str, options: &OpenOptions) -> Result<Opened> {
    check_uri(uri)?;
    let path = if is_remote(uri) { uri.to_string() } else { on_disk(uri)?.to_string_lossy().into_owned() };
    let uri = path.as_str();
    let dataset = Arc::new(load(uri, options)?);
    let (embedding_column, dim) = embedding_field(&dataset, uri, options.embedding_column.as_deref())?;
    let (index, coverage) = match index_info(&dataset, &embedding_column)? {
        Some((index, coverage)) => (Some(index), coverage),
        None => (None, Coverage::default()),
    };
    let metric = match (options.metric, &index, dataset.metadata().get(META_METRIC)) {
        (Some(metric), ..) => metric,
        (None, Some(index), _) => index.metric,
        (None, None, Some(stored)) => stored.parse()?,
        (None, None, None) => Metric::L2,
    };
    let counted = dataset.clone();
    let all = on_runtime(async move { counted.count_rows(None).await })?.doing("counting rows")? as u64;
    let without_embedding = rows_without_embedding(&dataset, &embedding_column, &coverage)?;
    let items_only = (without_embedding > 0).then(|| format!("`{embedding_column}` IS NOT NULL"));
    let ids = match &options.id_column {
        Some(column) => Ids::from_column(&dataset, uri, column, items_only.as_deref())?,
        None => Ids::RowId,
    };
    let recall = index.as_ref().and_then(|index| RecallTable::read(&dataset, index));
    let identity = Identity {
        uri: uri.to_string(),
        version: dataset.version_id(),
        committed: Some(dataset.manifest().timestamp().timestamp_micros()),
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
    Ok(Opened {
        table: Table { dataset, uri: uri.to_string(), embedding_column, items_only, ids },
        identity,
        uncovered: coverage.uncovered,
        index_bytes: coverage.bytes,
        recall,
        attributes,
    })
}

/// Counts the rows without an embedding. That reads the embeddings, so only where there may be such rows: what
/// `uphill index` wrote has none, nor has what is in an index.
fn rows_without_embedding(dataset: &Arc<Dataset>, embedding_column: &str, coverage: &Coverage) -> Result<u64> {
    let nullable = dataset.schema().field(embedding_column).is_some_and(|field| field.nullable);
    if !nullable || is_as_built(dataset) {
        return Ok(0);
    }
    let in_doubt = |fragment: u64| !coverage.is_complete || coverage.uncovered.contains(&fragment);
    let fragments: Vec<_> = dataset.fragments().iter().filter(|fragment| in_doubt(fragment.id)).cloned().collect();
    if fragments.is_empty() {
        return Ok(0);
    }
    let mut scanner = dataset.scan();
    scanner.with_fragments(fragments).filter(&format!("`{embedding_column}` IS NULL")).doing("counting rows")?;
    on_runtime(async move { scanner.count_rows().await })?.doing("counting rows without an embedding")
}

fn load(uri: &str, options: &OpenOptions) -> Result<Dataset> {
    if Path::new(uri).is_file() {
        return Err(Error::input(uri, "is a file, and no Lance dataset; `uphill index` builds one of Parquet"));
    }
    let session = Session::new(options.index_cache_bytes, options.metadata_cache_bytes, Arc::default());
    let mut builder = DatasetBuilder::from_uri(uri).with_session(Arc::new(session));
    if let Some(version) = options.version {
        builder = builder.with_version(version);
    }
    on_runtime(async move { builder.load().await })?.map_err(|error| {
        let reason = match options.version.and_then(|version| Some((version, latest_version(uri)?))) {
            Some((version, latest)) => format!(
                "version {version} is not there (the latest is {latest}): it was cleaned up, or this is another dataset"
            ),
            None => format!("cannot open it as a Lance dataset: {}", told(&error)),
        };
        Error::input(uri, reason)
    })
}

/// What keeps a dataset from being opened.
fn told(error: &lance::Error) -> String {
    let text = one_line(&error.to_string());
    match error {
        lance::Error::DatasetNotFound { .. } => "no dataset is there; `uphill index` builds one".into(),
        _ => text,
    }
}

/// The latest version of the dataset at a URI, if there is one.
fn latest_version(uri: &str) -> Option<u64> {
    let builder = DatasetBuilder::from_uri(uri);
    on_runtime(async move { builder.load().await }).ok()?.ok().map(|dataset| dataset.version_id())
}

/// The embedding column and its dimension.
fn embedding_field(dataset: &Dataset, uri: &str, wanted: Option<&str>) -> Result<(String, usize)> {
    let schema = Schema::from(dataset.schema());
    let dim_of = |field: &Field| match field.data_type() {
        DataType::FixedSizeList(item, dim) if item.data_type().is_floating() => Some(*dim as usize),
        _ => None,
    };
    if let Some(name) = wanted {
        let there = || schema.fields().iter().map(|field| field.name().as_str());
        let missing = || no_column(name, &format!(" in {uri}"), there());
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

fn attribute_columns(dataset: &Dataset, embedding_column: &str) -> Vec<String> {
    Schema::from(dataset.schema())
        .fields()
        .iter()
        .filter(|field| field.name() != embedding_column && !field.data_type().is_nested())
        .filter(|field| !schema::is_reserved(field.name()) || field.name() == schema::SOURCE_ROW)
        .map(|field| field.name().clone())
        .collect()
}
