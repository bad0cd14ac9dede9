//! A cache of the items that the last search returned. The next search fetches only the items that are not in it.

use std::sync::Mutex;

use polars::prelude::DataFrame;

use crate::error::{Result, WrapErr};
use crate::frame::convert;
use crate::panics::lock;

/// A cache of the items of the last search. Queries move in small steps, so most neighbours are the same as in the last iteration.
#[derive(Default)]
pub(super) struct LastNeighbours {
    cache: Mutex<ItemCache>,
}

/// Row ids in ascending order, and a row of `items` for each, with these attribute columns.
#[derive(Clone, Default)]
struct ItemCache {
    columns: Vec<String>,
    rows: Vec<u64>,
    items: DataFrame,
}

impl LastNeighbours {
    /// The items of `rows` (distinct, ascending), in this order, with these attribute columns. Calls `fetch` for the rows that
    /// are not cached.
    pub(super) fn get_or_fetch(
        &self,
        rows: &[u64],
        columns: &[String],
        fetch: impl FnOnce(&[u64]) -> Result<DataFrame>,
    ) -> Result<DataFrame> {
        let mut cached = lock(&self.cache).clone();
        if cached.columns != columns {
            cached = ItemCache::default();
        }
        let mut missing = Vec::new();
        let order: Vec<u32> = rows
            .iter()
            .map(|row| match cached.rows.binary_search(row) {
                Ok(position) => position as u32,
                Err(_) => {
                    missing.push(*row);
                    (cached.rows.len() + missing.len() - 1) as u32
                }
            })
            .collect();
        let items = match rows.len() - missing.len() {
            0 => fetch(rows)?,
            _ if missing.is_empty() => convert::gather(&cached.items, &order)?,
            _ => convert::gather(&cached.items.vstack(&fetch(&missing)?).wrap_err("fetching items")?, &order)?,
        };
        *lock(&self.cache) = ItemCache { columns: columns.to_vec(), rows: rows.to_vec(), items: items.clone() };
        Ok(items)
    }
}
