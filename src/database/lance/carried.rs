//! The items of the last search, so that the next one fetches only what is new to it.

use std::sync::Mutex;

use polars::prelude::DataFrame;

use crate::error::{Doing, Result};
use crate::frame::convert;
use crate::panics::lock;

/// Queries move a little at a time: most of what they meet, they met an iteration before.
#[derive(Default)]
pub(super) struct Carried {
    last: Mutex<Last>,
}

/// Row ids, ascending, and their items, a row each, with these attributes.
#[derive(Clone, Default)]
struct Last {
    columns: Vec<String>,
    rows: Vec<u64>,
    items: DataFrame,
}

impl Carried {
    /// The items of rows, distinct and ascending, in their order, with some attributes; `fetch` gets those that the last
    /// search did not have.
    pub(super) fn take(
        &self,
        rows: &[u64],
        columns: &[String],
        fetch: impl FnOnce(&[u64]) -> Result<DataFrame>,
    ) -> Result<DataFrame> {
        let mut last = lock(&self.last).clone();
        if last.columns != columns {
            last = Last::default();
        }
        let mut fetched = Vec::new();
        let order: Vec<u32> = rows
            .iter()
            .map(|row| match last.rows.binary_search(row) {
                Ok(position) => position as u32,
                Err(_) => {
                    fetched.push(*row);
                    (last.rows.len() + fetched.len() - 1) as u32
                }
            })
            .collect();
        let items = match rows.len() - fetched.len() {
            0 => fetch(rows)?,
            _ if fetched.is_empty() => convert::gather(&last.items, &order)?,
            _ => convert::gather(&last.items.vstack(&fetch(&fetched)?).doing("fetching items")?, &order)?,
        };
        let now = Last { columns: columns.to_vec(), rows: rows.to_vec(), items: items.clone() };
        *lock(&self.last) = now;
        Ok(items)
    }
}
