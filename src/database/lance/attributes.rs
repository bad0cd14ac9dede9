//! Attributes in memory, beside the index: a column that searches ask for again and again is read whole.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use polars::prelude::{Column, DataFrame};

use super::table::Table;
use crate::error::{Doing, Result};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX};
use crate::panics;

/// A column is read whole when it is fetched for this time: reading some tens of thousands of rows costs as much as a few
/// fetches of some.
const READ_AT: usize = 4;

/// The columns of a library whose embeddings are in memory.
pub(super) struct Attributes {
    /// Bytes of all columns that are held, at most.
    most: usize,
    /// Items of the library.
    items: usize,
    columns: Mutex<Columns>,
}

/// Those that are held, and what fetches told of the others.
#[derive(Default)]
struct Columns {
    /// The position of each item in the columns, by its id.
    place: HashMap<u64, u32>,
    held: HashMap<String, Column>,
    fetched: HashMap<String, Fetched>,
}

/// How often a column was fetched, and of how many rows how many bytes.
#[derive(Clone, Copy, Default)]
struct Fetched {
    times: usize,
    rows: usize,
    bytes: usize,
}

impl Attributes {
    pub(super) fn new(most: usize, items: usize) -> Self {
        Attributes { most, items, columns: Mutex::default() }
    }

    /// Columns of items by row id, distinct and in the order asked, beside their `ids`.
    ///
    /// # Errors
    /// A dataset that cannot be read.
    pub(super) fn of(&self, table: &Table, rows: &[u64], ids: &[u64], columns: &[String]) -> Result<Vec<Column>> {
        let (mut found, missing) = {
            let mut all = self.lock();
            let worth_reading = all.worth_reading(columns, self.items, self.most);
            all.read(table, &worth_reading, self.most)?;
            all.of(ids, columns)?
        };
        if !missing.is_empty() {
            let fetched = table.attributes(rows, &missing)?;
            self.lock().note(&fetched);
            found.extend(fetched);
        }
        // In the order asked.
        let position = |column: &Column| columns.iter().position(|name| name == column.name().as_str());
        found.sort_by_key(position);
        Ok(found)
    }

    fn lock(&self) -> MutexGuard<'_, Columns> {
        panics::lock(&self.columns)
    }
}

impl Columns {
    /// Those of some columns that are not held, were fetched often enough, and fit beside the others by what was fetched of them.
    fn worth_reading(&self, columns: &[String], items: usize, most: usize) -> Vec<String> {
        let mut used = self.bytes();
        let mut is_worth = |column: &&String| {
            let Fetched { times, rows, bytes } = self.fetched.get(*column).copied().unwrap_or_default();
            let all = (bytes as f64 * items as f64 / rows.max(1) as f64) as usize;
            let is_worth = !self.held.contains_key(*column) && times + 1 >= READ_AT && used + all <= most;
            used += if is_worth { all } else { 0 };
            is_worth
        };
        columns.iter().filter(|column| is_worth(column)).cloned().collect()
    }

    /// Reads columns whole, and holds them unless they are larger than what was fetched of them let expect.
    fn read(&mut self, table: &Table, columns: &[String], most: usize) -> Result<()> {
        if columns.is_empty() {
            return Ok(());
        }
        let mut all: Option<DataFrame> = None;
        table.scan_columns(columns, &mut |block| {
            match &mut all {
                Some(all) => all.vstack_mut(&block).map(|_| ()).doing("reading attributes")?,
                None => all = Some(block),
            }
            Ok(())
        })?;
        let Some(mut all) = all else { return Ok(()) };
        all.rechunk_mut();
        self.place = schema::u64s(&all, DB_IDX)?.into_iter().zip(0..).collect();
        for column in all.into_columns().into_iter().filter(|column| column.name() != DB_IDX) {
            let (name, bytes) = (column.name().to_string(), bytes_of(&column));
            if self.bytes() + bytes <= most {
                self.held.insert(name, column);
            } else if let Some(fetched) = self.fetched.get_mut(&name) {
                *fetched = Fetched { rows: column.len(), bytes, ..*fetched };
            }
        }
        Ok(())
    }

    /// Bytes of what is held.
    fn bytes(&self) -> usize {
        self.held.values().map(bytes_of).sum()
    }

    /// Those of some columns that are held, for items in the order asked, and the names of the others.
    fn of(&self, ids: &[u64], columns: &[String]) -> Result<(Vec<Column>, Vec<String>)> {
        let order: Vec<u32> = ids.iter().map_while(|id| self.place.get(id).copied()).collect();
        if order.len() < ids.len() {
            return Ok((Vec::new(), columns.to_vec()));
        }
        let held: Vec<Column> = columns.iter().filter_map(|column| self.held.get(column).cloned()).collect();
        let missing = columns.iter().filter(|column| !self.held.contains_key(*column)).cloned().collect();
        if held.is_empty() {
            return Ok((held, missing));
        }
        let all = DataFrame::new(self.place.len(), held).doing("fetching items")?;
        Ok((convert::gather(&all, &order)?.into_columns(), missing))
    }

    /// Remembers that columns of some rows were fetched.
    fn note(&mut self, fetched: &[Column]) {
        for column in fetched {
            let of = self.fetched.entry(column.name().to_string()).or_default();
            *of = Fetched { times: of.times + 1, rows: of.rows + column.len(), bytes: of.bytes + bytes_of(column) };
        }
    }
}

fn bytes_of(column: &Column) -> usize {
    column.as_materialized_series().estimated_size()
}
