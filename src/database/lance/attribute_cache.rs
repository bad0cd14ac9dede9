//! A cache of the attribute columns of a library whose index is in memory. A column that searches fetch repeatedly is read
//! completely.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use polars::prelude::{Column, DataFrame};

use super::table::Table;
use crate::error::{Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX};
use crate::panics;

/// The number of fetches at which a column is read completely. Reading some tens of thousands of rows costs as much as a few
/// fetches of some rows.
const FULL_READ_FETCHES: usize = 4;

/// A cache of the attribute columns of a library whose embeddings are in memory.
pub(super) struct AttributeCache {
    /// The largest size of all cached columns, in bytes.
    max_bytes: usize,
    /// The number of items of the library.
    items: usize,
    columns: Mutex<CachedColumns>,
}

/// The cached columns, and statistics of the fetches of all others.
#[derive(Default)]
struct CachedColumns {
    /// The position of each item in the columns, by id.
    positions: HashMap<u64, u32>,
    cached: HashMap<String, Column>,
    fetches: HashMap<String, FetchStats>,
}

/// The number of fetches of a column, and the rows and bytes of all of them.
#[derive(Clone, Copy, Default)]
struct FetchStats {
    count: usize,
    rows: usize,
    bytes: usize,
}

impl AttributeCache {
    pub(super) fn new(max_bytes: usize, items: usize) -> Self {
        AttributeCache { max_bytes, items, columns: Mutex::default() }
    }

    /// Attribute columns of the items with distinct row ids `rows` and the same items' `ids`, in this order.
    ///
    /// # Errors
    /// A dataset that cannot be read.
    pub(super) fn get(&self, table: &Table, rows: &[u64], ids: &[u64], columns: &[String]) -> Result<Vec<Column>> {
        let (mut found, missing) = {
            let mut all = self.lock();
            let to_read = all.columns_to_read(columns, self.items, self.max_bytes);
            all.read(table, &to_read, self.max_bytes)?;
            all.get(ids, columns)?
        };
        if !missing.is_empty() {
            let fetched = table.attributes(rows, &missing)?;
            self.lock().record_fetch(&fetched);
            found.extend(fetched);
        }
        // Restore the requested order.
        let position = |column: &Column| columns.iter().position(|name| name == column.name().as_str());
        found.sort_by_key(position);
        Ok(found)
    }

    fn lock(&self) -> MutexGuard<'_, CachedColumns> {
        panics::lock(&self.columns)
    }
}

impl CachedColumns {
    /// The columns that are not cached, were fetched often enough, and fit into the cache by an estimate from their fetches.
    fn columns_to_read(&self, columns: &[String], items: usize, max_bytes: usize) -> Vec<String> {
        let mut used = self.bytes();
        let mut is_worth_reading = |column: &&String| {
            let FetchStats { count, rows, bytes } = self.fetches.get(*column).copied().unwrap_or_default();
            let estimate = (bytes as f64 * items as f64 / rows.max(1) as f64) as usize;
            let is_worth_reading =
                !self.cached.contains_key(*column) && count + 1 >= FULL_READ_FETCHES && used + estimate <= max_bytes;
            used += if is_worth_reading { estimate } else { 0 };
            is_worth_reading
        };
        columns.iter().filter(|column| is_worth_reading(column)).cloned().collect()
    }

    /// Reads whole columns, and caches them unless they are larger than estimated and do not fit.
    fn read(&mut self, table: &Table, columns: &[String], max_bytes: usize) -> Result<()> {
        if columns.is_empty() {
            return Ok(());
        }
        let mut all: Option<DataFrame> = None;
        table.scan_columns(columns, &mut |block| {
            match &mut all {
                Some(all) => all.vstack_mut(&block).map(|_| ()).wrap_err("reading attributes")?,
                None => all = Some(block),
            }
            Ok(())
        })?;
        let Some(mut all) = all else { return Ok(()) };
        all.rechunk_mut();
        self.positions = schema::u64s(&all, DB_IDX)?.into_iter().zip(0..).collect();
        for column in all.into_columns().into_iter().filter(|column| column.name() != DB_IDX) {
            let (name, bytes) = (column.name().to_string(), bytes_of(&column));
            if self.bytes() + bytes <= max_bytes {
                self.cached.insert(name, column);
            } else if let Some(stats) = self.fetches.get_mut(&name) {
                *stats = FetchStats { rows: column.len(), bytes, ..*stats };
            }
        }
        Ok(())
    }

    /// The size of the cached columns in bytes.
    fn bytes(&self) -> usize {
        self.cached.values().map(bytes_of).sum()
    }

    /// The cached columns among `columns`, for items in the given order, and the names of the other columns.
    fn get(&self, ids: &[u64], columns: &[String]) -> Result<(Vec<Column>, Vec<String>)> {
        let order: Vec<u32> = ids.iter().map_while(|id| self.positions.get(id).copied()).collect();
        if order.len() < ids.len() {
            return Ok((Vec::new(), columns.to_vec()));
        }
        let cached: Vec<Column> = columns.iter().filter_map(|column| self.cached.get(column).cloned()).collect();
        let missing = columns.iter().filter(|column| !self.cached.contains_key(*column)).cloned().collect();
        if cached.is_empty() {
            return Ok((cached, missing));
        }
        let all = DataFrame::new(self.positions.len(), cached).wrap_err("fetching items")?;
        Ok((convert::gather(&all, &order)?.into_columns(), missing))
    }

    /// Records a fetch of columns of some rows.
    fn record_fetch(&mut self, fetched: &[Column]) {
        for column in fetched {
            let stats = self.fetches.entry(column.name().to_string()).or_default();
            stats.count += 1;
            stats.rows += column.len();
            stats.bytes += bytes_of(column);
        }
    }
}

fn bytes_of(column: &Column) -> usize {
    column.as_materialized_series().estimated_size()
}
