//! Reads items from an open dataset: full scans in blocks, and fetches by row id.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, RecordBatch};
use arrow::datatypes::{Field, Schema, UInt64Type};
use futures::TryStreamExt;
use lance::Dataset;
use lance::dataset::ProjectionRequest;
use lance::dataset::scanner::Scanner;
use polars::prelude::{Column, DataFrame};

use super::ids::IdMap;
use super::prefilter::Prefilter;
use super::record_batch::{ROW_ID, as_f32, column, matrix};
use crate::database::BlockVisitor;
use crate::database::runtime::block_on;
use crate::error::{Error, Result, WrapErr, first_line};
use crate::frame::convert;
use crate::frame::schema::{DB_IDX, EMBEDDING};

/// The number of rows in one block of a scan.
const SCAN_ROWS: usize = 8192;

/// A dataset at one version, its embedding column and its ids.
pub(super) struct Table {
    pub(super) dataset: Arc<Dataset>,
    pub(super) uri: String,
    pub(super) embedding_column: String,
    /// An SQL condition that is true for rows with an embedding, if some rows have none.
    pub(super) is_item: Option<String>,
    pub(super) ids: IdMap,
}

impl Table {
    /// Calls `visit` with the row ids and embeddings `(rows, dim)` of the rows that match a prefilter, of some
    /// fragments or of all, in blocks in any order. Rows without an embedding are skipped.
    pub(super) fn scan(
        &self,
        prefilter: Option<&str>,
        fragments: Option<&[u64]>,
        visit: &mut BlockVisitor<'_>,
    ) -> Result<()> {
        let mut scanner = self.dataset.scan();
        scanner.project(&[&self.embedding_column]).wrap_err("projecting")?.with_row_id();
        scanner.batch_size(SCAN_ROWS).batch_readahead(4).scan_in_order(false);
        if let Some(sql) = prefilter {
            scanner.filter(sql).wrap_err("database.prefilter")?;
        }
        if let Some(fragments) = fragments {
            let selected = self.dataset.fragments().iter().filter(|fragment| fragments.contains(&fragment.id));
            scanner.with_fragments(selected.cloned().collect());
        }
        for_each_batch(scanner, |batch| {
            let (batch, vectors) = self.drop_null_embeddings(batch)?;
            let rows = column(&batch, ROW_ID)?.as_primitive::<UInt64Type>();
            visit(rows.values(), matrix(&vectors)?)
        })
    }

    /// Calls `visit` with `db_idx` and these columns of all items, in blocks in the order of the dataset.
    pub(super) fn scan_columns(
        &self,
        columns: &[String],
        visit: &mut dyn FnMut(DataFrame) -> Result<()>,
    ) -> Result<()> {
        let mut scanner = self.dataset.scan();
        scanner.project(columns).wrap_err("projecting")?.with_row_id();
        scanner.batch_size(SCAN_ROWS).scan_in_order(true);
        if let Some(sql) = &self.is_item {
            scanner.filter(sql).wrap_err("reading items")?;
        }
        for_each_batch(scanner, |batch| {
            let ids = self.ids.ids_of(column(&batch, ROW_ID)?.as_primitive::<UInt64Type>().values())?;
            let selected: Vec<usize> = columns
                .iter()
                .map(|name| batch.schema().index_of(name).wrap_err("reading items"))
                .collect::<Result<_>>()?;
            let mut items = convert::to_polars(&batch.project(&selected).wrap_err("reading items")?)?.into_columns();
            items.insert(0, Column::new(DB_IDX.into(), ids));
            visit(DataFrame::new(batch.num_rows(), items).wrap_err("reading items")?)
        })
    }

    /// The rows whose embedding is not null, and their embeddings as f32.
    fn drop_null_embeddings(&self, batch: RecordBatch) -> Result<(RecordBatch, FixedSizeListArray)> {
        let vectors = column(&batch, &self.embedding_column)?;
        if vectors.null_count() == 0 {
            let vectors = as_f32(vectors)?;
            return Ok((batch, vectors));
        }
        let keep = arrow::compute::is_not_null(vectors).wrap_err("filtering null embeddings")?;
        let batch = arrow::compute::filter_record_batch(&batch, &keep).wrap_err("filtering null embeddings")?;
        let vectors = as_f32(column(&batch, &self.embedding_column)?)?;
        Ok((batch, vectors))
    }

    /// Plans a scan with a prefilter, so that errors in it are found before the search.
    pub(super) fn check_prefilter(&self, prefilter: Option<&Prefilter>) -> Result<()> {
        let Some(prefilter) = prefilter else { return Ok(()) };
        let to_error = |error: lance::Error| {
            let message = first_line(&error.to_string());
            prefilter.error(prefilter.unknown_column(&message, &self.uri, &self.column_names()).unwrap_or(message))
        };
        self.check_prefilter_columns(Some(prefilter))?;
        let mut scanner = self.dataset.scan();
        scanner.filter(&prefilter.sql).map_err(to_error)?;
        block_on(async move { scanner.create_plan().await.map(|_| ()) })?.map_err(to_error)
    }

    /// Rejects a prefilter that is not valid SQL or whose columns do not exist.
    pub(super) fn check_prefilter_columns(&self, prefilter: Option<&Prefilter>) -> Result<()> {
        prefilter.map_or(Ok(()), |prefilter| prefilter.check(&self.uri, &self.column_names()))
    }

    fn column_names(&self) -> Vec<String> {
        self.dataset.schema().fields.iter().map(|field| field.name.clone()).collect()
    }

    /// Whether the ids of all items are 0, 1, … without a gap, for a dataset of this number of items. Row ids are distinct and
    /// smaller than the next row id.
    pub(super) fn ids_are_contiguous(&self, items: u64) -> bool {
        let manifest = self.dataset.manifest();
        matches!(self.ids, IdMap::RowId) && manifest.uses_stable_row_ids() && manifest.next_row_id == items
    }

    /// The ids of all items that match a prefilter, in ascending order.
    pub(super) fn ids(&self, prefilter: Option<&Prefilter>) -> Result<Vec<u64>> {
        self.check_prefilter(prefilter)?;
        let prefilter = prefilter.map(|prefilter| prefilter.sql.as_str());
        let mut scanner = self.dataset.scan();
        scanner.project::<&str>(&[]).wrap_err("projecting")?.with_row_id();
        // The prefilter may end in a comment, so the rest goes on a new line.
        let filter = match (prefilter, self.is_item.as_deref()) {
            (Some(sql), Some(is_item)) => Some(format!("({sql}\n) AND {is_item}")),
            (one, other) => one.or(other).map(str::to_string),
        };
        if let Some(sql) = &filter {
            scanner.filter(sql).wrap_err("database.prefilter")?;
        }
        let batch = block_on(async move { scanner.try_into_batch().await })?.wrap_err("listing ids")?;
        let mut ids = self.ids.ids_of(column(&batch, ROW_ID)?.as_primitive::<UInt64Type>().values())?;
        ids.sort_unstable();
        Ok(ids)
    }

    /// The items of distinct row ids, in the given order: `db_idx`, `embedding`, attributes.
    ///
    /// # Errors
    /// A row that does not exist or has no embedding.
    pub(super) fn take(&self, row_ids: &[u64], attributes: &[String]) -> Result<DataFrame> {
        let mut names: Vec<&str> = vec![ROW_ID, &self.embedding_column];
        names.extend(attributes.iter().map(String::as_str));
        let projection = ProjectionRequest::from_columns(names, self.dataset.schema());
        let (dataset, selected) = (self.dataset.clone(), row_ids.to_vec());
        let batch =
            block_on(async move { dataset.take_rows(&selected, projection).await })?.wrap_err("fetching items")?;
        // Lance silently skips rows that do not exist.
        let found = column(&batch, ROW_ID)?.as_primitive::<UInt64Type>().values();
        if let Some(missing) = (0..row_ids.len()).find(|at| found.get(*at) != Some(&row_ids[*at])) {
            return Err(Error::input(&self.uri, format!("no item with row id {}", row_ids[missing])));
        }
        let embeddings = as_f32(column(&batch, &self.embedding_column)?)?;
        if let Some(without) = (0..row_ids.len()).find(|at| embeddings.is_null(*at)) {
            return Err(Error::input(
                &self.uri,
                format!("row id {} has no embedding, so it is not an item", row_ids[without]),
            ));
        }
        let mut fields = vec![Field::new(EMBEDDING, embeddings.data_type().clone(), true)];
        let mut arrays = vec![Arc::new(embeddings) as ArrayRef];
        for name in attributes {
            let array = column(&batch, name)?;
            // Keep the field's metadata, which marks UUIDs.
            let field = batch.schema_ref().field_with_name(name).wrap_err("fetching items")?;
            fields.push(field.clone().with_nullable(true));
            arrays.push(array.clone());
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).wrap_err("fetching items")?;
        let mut columns = vec![Column::new(DB_IDX.into(), self.ids.ids_of(row_ids)?)];
        columns.extend(convert::to_polars(&batch)?.into_columns());
        DataFrame::new(row_ids.len(), columns).wrap_err("fetching items")
    }

    /// Attribute columns of the items of distinct row ids that exist, in the given order.
    pub(super) fn attributes(&self, row_ids: &[u64], names: &[String]) -> Result<Vec<Column>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let projection = ProjectionRequest::from_columns(names, self.dataset.schema());
        let (dataset, selected) = (self.dataset.clone(), row_ids.to_vec());
        let batch = block_on(async move { dataset.take_rows(&selected, projection).await })?;
        Ok(convert::to_polars(&batch.wrap_err("fetching items")?)?.into_columns())
    }
}

/// Calls `visit` with each batch of a scan in turn.
fn for_each_batch(scanner: Scanner, mut visit: impl FnMut(RecordBatch) -> Result<()>) -> Result<()> {
    let mut stream = block_on(async move { scanner.try_into_stream().await })?.wrap_err("scanning the library")?;
    loop {
        let (batch, rest) = block_on(async move {
            let batch = stream.try_next().await;
            (batch, stream)
        })?;
        stream = rest;
        let Some(batch) = batch.wrap_err("scanning the library")? else { return Ok(()) };
        visit(batch)?;
    }
}
