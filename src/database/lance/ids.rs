//! `db_idx` ⇄ Lance's row ids.

use std::collections::{HashMap, HashSet};

use arrow::array::{Array, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, UInt64Type};
use lance::Dataset;

use super::batch::{ROW_ID, column};
use crate::database::runtime::on_runtime;
use crate::error::{Doing, Error, Result};
use crate::frame::schema::DB_IDX;
use crate::suggest::no_column;

/// What stands behind `db_idx`.
pub(super) enum Ids {
    /// Lance's stable row ids, or its row addresses: the same number.
    RowId,
    /// A column: value to row id, and back.
    Column { row_of: HashMap<u64, u64>, id_of: HashMap<u64, u64> },
}

impl Ids {
    /// Reads a column of ids, of the rows that match `items_only`.
    ///
    /// # Errors
    /// One that is not there, or that does not hold unique non-negative integers.
    pub(super) fn from_column(dataset: &Dataset, uri: &str, name: &str, items_only: Option<&str>) -> Result<Self> {
        if dataset.schema().field(name).is_none() {
            let there = dataset.schema().fields.iter().map(|field| field.name.as_str());
            let missing = no_column(name, &format!(" in {uri}"), there);
            return Err(Error::Config(format!("database.id_column: {missing}")));
        }
        let mut scanner = dataset.scan();
        scanner.project(&[name]).doing("projecting")?.with_row_id();
        if let Some(sql) = items_only {
            scanner.filter(sql).doing("reading the id column")?;
        }
        let batch = on_runtime(async move { scanner.try_into_batch().await })?.doing("reading the id column")?;
        let strict = CastOptions { safe: false, ..Default::default() };
        let ids = cast_with_options(column(&batch, name)?, &DataType::UInt64, &strict)
            .doing(format!("database.id_column: `{name}` in {uri} does not hold non-negative integers"))?;
        if ids.null_count() > 0 {
            let reason = format!("id column `{name}` has {} nulls; ids must be there", ids.null_count());
            return Err(Error::input(uri, reason));
        }
        let ids = ids.as_primitive::<UInt64Type>();
        let rows = column(&batch, ROW_ID)?.as_primitive::<UInt64Type>();
        let (mut row_of, mut id_of) = (HashMap::with_capacity(ids.len()), HashMap::with_capacity(ids.len()));
        for (id, row) in ids.values().iter().zip(rows.values()) {
            if row_of.insert(*id, *row).is_some() {
                return Err(Error::input(uri, format!("id column `{name}` holds {id} twice; ids must be unique")));
            }
            id_of.insert(*row, *id);
        }
        Ok(Ids::Column { row_of, id_of })
    }

    /// The row of an id; `None` where there surely is none.
    pub(super) fn row_of(&self, id: u64) -> Option<u64> {
        match self {
            Ids::RowId => Some(id),
            Ids::Column { row_of, .. } => row_of.get(&id).copied(),
        }
    }

    /// Whether the item of a row is in a set of ids.
    pub(super) fn holds(&self, ids: &HashSet<u64>, row: u64) -> bool {
        match self {
            Ids::RowId => ids.contains(&row),
            Ids::Column { id_of, .. } => id_of.get(&row).is_some_and(|id| ids.contains(id)),
        }
    }

    /// The ids of rows that the dataset gave.
    pub(super) fn of_rows(&self, rows: &[u64]) -> Result<Vec<u64>> {
        match self {
            Ids::RowId => Ok(rows.to_vec()),
            Ids::Column { id_of, .. } => {
                let ids: Option<Vec<u64>> = rows.iter().map(|row| id_of.get(row).copied()).collect();
                ids.ok_or_else(|| Error::contract("database", DB_IDX, "an id for each row", "none"))
            }
        }
    }
}
