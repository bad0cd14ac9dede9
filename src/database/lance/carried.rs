//! The items of the last search, so that the next one fetches only what is new to it.

use std::sync::{Mutex, PoisonError};

use polars::prelude::DataFrame;

use crate::bridge;
use crate::error::{Doing, Result};

/// Queries move a little at a time: most of what they meet, they met an iteration before.
#[derive(Default)]
pub(super) struct Carried {
    last: Mutex<Last>,
}

/// Row ids, ascending, and their items, a row each.
#[derive(Clone, Default)]
struct Last {
    rows: Vec<u64>,
    items: DataFrame,
}

impl Carried {
    /// The items of rows, distinct and ascending, in their order; `fetch` gets those that the last search did not have.
    pub(super) fn take(&self, rows: &[u64], fetch: impl FnOnce(&[u64]) -> Result<DataFrame>) -> Result<DataFrame> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
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
            _ if fetched.is_empty() => bridge::gather(&last.items, &order)?,
            _ => bridge::gather(&last.items.vstack(&fetch(&fetched)?).doing("fetching items")?, &order)?,
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Last { rows: rows.to_vec(), items: items.clone() };
        Ok(items)
    }
}
