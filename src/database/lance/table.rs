//! An open dataset as a table of items: all of them in blocks, or some by id.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, RecordBatch};
use arrow::datatypes::{Field, Schema, UInt64Type};
use futures::TryStreamExt;
use lance::Dataset;
use lance::dataset::ProjectionRequest;
use lance::dataset::scanner::Scanner;
use polars::prelude::{Column, DataFrame};

use super::batch::{ROW_ID, as_f32, column, matrix};
use super::ids::Ids;
use super::prefilter::Prefilter;
use crate::database::Visit;
use crate::database::runtime::on_runtime;
use crate::error::{Doing, Error, Result, one_line};
use crate::frame::convert;
use crate::frame::schema::{DB_IDX, EMBEDDING};

/// Rows of the library in one block of a scan.
const SCAN_ROWS: usize = 8192;

/// A dataset at one version, its embedding column and its ids.
pub(super) struct Table {
    pub(super) dataset: Arc<Dataset>,
    pub(super) uri: String,
    pub(super) embedding_column: String,
    /// What is true of rows that have an embedding, in SQL, if some have none.
    pub(super) items_only: Option<String>,
    pub(super) ids: Ids,
}

impl Table {
    /// Shows row ids and embeddings `(rows, dim)` of the rows that match a prefilter, of some
    /// fragments or of all, block by block in any order. Rows without an embedding are passed over.
    pub(super) fn scan(&self, prefilter: Option<&str>, fragments: Option<&[u64]>, visit: &mut Visit<'_>) -> Result<()> {
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
        each_batch(scanner, |batch| {
            let (batch, vectors) = self.present(batch)?;
            let rows = column(&batch, ROW_ID)?.as_primitive::<UInt64Type>();
            visit(rows.values(), matrix(&vectors)?)
        })
    }

    /// Shows columns of all items in blocks, in the order of the dataset: `db_idx`, and those.
    pub(super) fn scan_columns(
        &self,
        columns: &[String],
        visit: &mut dyn FnMut(DataFrame) -> Result<()>,
    ) -> Result<()> {
        let mut scanner = self.dataset.scan();
        scanner.project(columns).doing("projecting")?.with_row_id();
        scanner.batch_size(SCAN_ROWS).scan_in_order(true);
        if let Some(sql) = &self.items_only {
            scanner.filter(sql).doing("reading items")?;
        }
        each_batch(scanner, |batch| {
            let ids = self.ids.of_rows(column(&batch, ROW_ID)?.as_primitive::<UInt64Type>().values())?;
            let wanted: Vec<usize> = columns
                .iter()
                .map(|name| batch.schema().index_of(name).doing("reading items"))
                .collect::<Result<_>>()?;
            let mut items = convert::to_polars(&batch.project(&wanted).doing("reading items")?)?.into_columns();
            items.insert(0, Column::new(DB_IDX.into(), ids));
            visit(DataFrame::new(batch.num_rows(), items).doing("reading items")?)
        })
    }

    /// The rows whose embedding is not null, and their embeddings as f32.
    fn present(&self, batch: RecordBatch) -> Result<(RecordBatch, FixedSizeListArray)> {
        let vectors = column(&batch, &self.embedding_column)?;
        if vectors.null_count() == 0 {
            let vectors = as_f32(vectors)?;
            return Ok((batch, vectors));
        }
        let keep = arrow::compute::is_not_null(vectors).doing("filtering null embeddings")?;
        let batch = arrow::compute::filter_record_batch(&batch, &keep).doing("filtering null embeddings")?;
        let vectors = as_f32(column(&batch, &self.embedding_column)?)?;
        Ok((batch, vectors))
    }

    /// Plans a scan with a prefilter, so that mistakes in it show before the search.
    pub(super) fn check_prefilter(&self, prefilter: Option<&Prefilter>) -> Result<()> {
        let Some(prefilter) = prefilter else { return Ok(()) };
        let wrong = |error: lance::Error| {
            let message = one_line(&error.to_string());
            prefilter.wrong(prefilter.unknown_column(&message, &self.uri, &self.column_names()).unwrap_or(message))
        };
        self.check_names(Some(prefilter))?;
        let mut scanner = self.dataset.scan();
        scanner.filter(&prefilter.sql).map_err(wrong)?;
        on_runtime(async move { scanner.create_plan().await.map(|_| ()) })?.map_err(wrong)
    }

    /// Refuses a prefilter that is no expression, or whose columns are none.
    pub(super) fn check_names(&self, prefilter: Option<&Prefilter>) -> Result<()> {
        prefilter.map_or(Ok(()), |prefilter| prefilter.check(&self.uri, &self.column_names()))
    }

    fn column_names(&self) -> Vec<String> {
        self.dataset.schema().fields.iter().map(|field| field.name.clone()).collect()
    }

    /// Whether the ids of so many items, all that there are, are 0, 1, … without a gap: they are distinct, and none of them
    /// is as large as the number that the dataset would give next.
    pub(super) fn ids_count_up_to(&self, items: u64) -> bool {
        let manifest = self.dataset.manifest();
        matches!(self.ids, Ids::RowId) && manifest.uses_stable_row_ids() && manifest.next_row_id == items
    }

    /// The ids of all items that match a prefilter, in ascending order.
    pub(super) fn ids(&self, prefilter: Option<&Prefilter>) -> Result<Vec<u64>> {
        self.check_prefilter(prefilter)?;
        let prefilter = prefilter.map(|prefilter| prefilter.sql.as_str());
        let mut scanner = self.dataset.scan();
        scanner.project::<&str>(&[]).doing("projecting")?.with_row_id();
        // On a line of its own, as a prefilter may end in a comment.
        let filter = match (prefilter, self.items_only.as_deref()) {
            (Some(sql), Some(items_only)) => Some(format!("({sql}\n) AND {items_only}")),
            (one, other) => one.or(other).map(str::to_string),
        };
        if let Some(sql) = &filter {
            scanner.filter(sql).doing("database.prefilter")?;
        }
        let batch = on_runtime(async move { scanner.try_into_batch().await })?.doing("listing ids")?;
        let mut ids = self.ids.of_rows(column(&batch, ROW_ID)?.as_primitive::<UInt64Type>().values())?;
        ids.sort_unstable();
        Ok(ids)
    }

    /// Items by row id, distinct and in the order asked: `db_idx`, `embedding`, attributes.
    ///
    /// # Errors
    /// A row that is not there, or has no embedding.
    pub(super) fn take(&self, row_ids: &[u64], attributes: &[String]) -> Result<DataFrame> {
        let mut names: Vec<&str> = vec![ROW_ID, &self.embedding_column];
        names.extend(attributes.iter().map(String::as_str));
        let projection = ProjectionRequest::from_columns(names, self.dataset.schema());
        let (dataset, wanted) = (self.dataset.clone(), row_ids.to_vec());
        let batch = on_runtime(async move { dataset.take_rows(&wanted, projection).await })?.doing("fetching items")?;
        // Lance leaves out rows that are not there without a word.
        let found = column(&batch, ROW_ID)?.as_primitive::<UInt64Type>().values();
        if let Some(missing) = (0..row_ids.len()).find(|at| found.get(*at) != Some(&row_ids[*at])) {
            return Err(Error::input(&self.uri, format!("no item with row id {}", row_ids[missing])));
        }
        let embeddings = as_f32(column(&batch, &self.embedding_column)?)?;
        if let Some(without) = (0..row_ids.len()).find(|at| embeddings.is_null(*at)) {
            return Err(Error::input(
                &self.uri,
                format!("row id {} has no embedding, so it is no item", row_ids[without]),
            ));
        }
        let mut fields = vec![Field::new(EMBEDDING, embeddings.data_type().clone(), true)];
        let mut arrays = vec![Arc::new(embeddings) as ArrayRef];
        for name in attributes {
            let array = column(&batch, name)?;
            // With its metadata, which says what is a UUID.
            let field = batch.schema_ref().field_with_name(name).doing("fetching items")?;
            fields.push(field.clone().with_nullable(true));
            arrays.push(array.clone());
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).doing("fetching items")?;
        let mut columns = vec![Column::new(DB_IDX.into(), self.ids.of_rows(row_ids)?)];
        columns.extend(convert::to_polars(&batch)?.into_columns());
        DataFrame::new(row_ids.len(), columns).doing("fetching items")
    }

    /// Attributes of items by row id, distinct and in the order asked, of rows that are there.
    pub(super) fn attributes(&self, row_ids: &[u64], names: &[String]) -> Result<Vec<Column>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let projection = ProjectionRequest::from_columns(names, self.dataset.schema());
        let (dataset, wanted) = (self.dataset.clone(), row_ids.to_vec());
        let batch = on_runtime(async move { dataset.take_rows(&wanted, projection).await })?;
        Ok(convert::to_polars(&batch.doing("fetching items")?)?.into_columns())
    }
}

/// Shows the batches of a scan one after the other.
fn each_batch(scanner: Scanner, mut visit: impl FnMut(RecordBatch) -> Result<()>) -> Result<()> {
    let mut stream = on_runtime(async move { scanner.try_into_stream().await })?.doing("scanning the library")?;
    loop {
        let (batch, rest) = on_runtime(async move {
            let batch = stream.try_next().await;
            (batch, stream)
        })?;
        stream = rest;
        let Some(batch) = batch.doing("scanning the library")? else { return Ok(()) };
        visit(batch)?;
    }
}
