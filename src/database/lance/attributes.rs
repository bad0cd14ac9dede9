//! Attributes in memory, beside the index: a column that searches ask for again and again is read whole.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use polars::prelude::{Column, DataFrame};

use super::table::Table;
use crate::bridge;
use crate::error::{Doing, Result};
use crate::schema::{self, DB_IDX};

/// A column is read whole when it is fetched for this time: reading some tens of thousands of rows costs as much as a few
/// fetches of some.
const READ_AT: usize = 4;

/// The columns of a library whose embeddings are in memory.
pub(super) struct Attributes {
    /// Bytes of all columns that are held, at most.
    most: usize,
    /// Items of the library.
    items: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// The position of each item in the columns, by its id.
    place: HashMap<u64, u32>,
    columns: HashMap<String, Column>,
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
        Attributes { most, items, held: Mutex::default() }
    }

    /// Columns of items by row id, distinct and in the order asked, beside their `ids`.
    ///
    /// # Errors
    /// A dataset that cannot be read.
    pub(super) fn of(&self, table: &Table, rows: &[u64], ids: &[u64], columns: &[String]) -> Result<Vec<Column>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let worth_reading = held.worth_reading(columns, self.items, self.most);
        held.read(table, &worth_reading, self.most)?;
        let order: Vec<u32> = ids.iter().map_while(|id| held.place.get(id).copied()).collect();
        let is_known = |column: &&String| order.len() == ids.len() && held.columns.contains_key(*column);
        let (known, missing): (Vec<&String>, Vec<&String>) = columns.iter().partition(is_known);
        let known = known.into_iter().filter_map(|column| held.columns.get(column).cloned()).collect::<Vec<_>>();
        let mut found = held.fetch(table, rows, &missing.into_iter().cloned().collect::<Vec<_>>())?;
        if !known.is_empty() {
            let all = DataFrame::new(held.place.len(), known).doing("fetching items")?;
            found.extend(bridge::gather(&all, &order)?.into_columns());
        }
        // In the order asked.
        let position = |column: &Column| columns.iter().position(|name| name == column.name().as_str());
        found.sort_by_key(position);
        Ok(found)
    }
}

impl Held {
    /// Those of some columns that are not held, were fetched often enough, and fit beside the others by what was fetched of them.
    fn worth_reading(&self, columns: &[String], items: usize, most: usize) -> Vec<String> {
        let mut held = self.bytes();
        let mut is_worth = |column: &&String| {
            let Fetched { times, rows, bytes } = self.fetched.get(*column).copied().unwrap_or_default();
            let all = (bytes as f64 * items as f64 / rows.max(1) as f64) as usize;
            let is_worth = !self.columns.contains_key(*column) && times + 1 >= READ_AT && held + all <= most;
            held += if is_worth { all } else { 0 };
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
                self.columns.insert(name, column);
            } else if let Some(fetched) = self.fetched.get_mut(&name) {
                *fetched = Fetched { rows: column.len(), bytes, ..*fetched };
            }
        }
        Ok(())
    }

    /// Bytes of what is held.
    fn bytes(&self) -> usize {
        self.columns.values().map(bytes_of).sum()
    }

    /// Reads columns of some rows.
    fn fetch(&mut self, table: &Table, rows: &[u64], columns: &[String]) -> Result<Vec<Column>> {
        let fetched = table.attributes(rows, columns)?;
        for column in &fetched {
            let of = self.fetched.entry(column.name().to_string()).or_default();
            *of = Fetched { times: of.times + 1, rows: of.rows + column.len(), bytes: of.bytes + bytes_of(column) };
        }
        Ok(fetched)
    }
}

fn bytes_of(column: &Column) -> usize {
    column.as_materialized_series().estimated_size()
}
