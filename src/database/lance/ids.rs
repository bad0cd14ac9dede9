//! The mapping between `db_idx` and Lance's row ids.

use std::collections::{HashMap, HashSet};

use arrow::array::{Array, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, UInt64Type};
use lance::Dataset;

use super::record_batch::{ROW_ID, column};
use crate::database::runtime::block_on;
use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::DB_IDX;
use crate::suggest::unknown_column;

/// The source of `db_idx`.
pub(super) enum IdMap {
    /// Lance's stable row ids, or its row addresses: the same number.
    RowId,
    /// A column of ids, with maps in both directions.
    Column { row_of: HashMap<u64, u64>, id_of: HashMap<u64, u64> },
}

impl IdMap {
    /// Reads a column of ids, for the rows that match the SQL condition `is_item`.
    ///
    /// # Errors
    /// A column that does not exist, or that does not contain unique non-negative integers.
    pub(super) fn from_column(dataset: &Dataset, uri: &str, name: &str, is_item: Option<&str>) -> Result<Self> {
        if dataset.schema().field(name).is_none() {
            let names = dataset.schema().fields.iter().map(|field| field.name.as_str());
            let missing = unknown_column(name, &format!(" in {uri}"), names);
            return Err(Error::Config(format!("database.id_column: {missing}")));
        }
        let mut scanner = dataset.scan();
        scanner.project(&[name]).wrap_err("projecting")?.with_row_id();
        if let Some(sql) = is_item {
            scanner.filter(sql).wrap_err("reading the id column")?;
        }
        let batch = block_on(async move { scanner.try_into_batch().await })?.wrap_err("reading the id column")?;
        let place = format!("database.id_column: `{name}` in {uri} does not contain non-negative integers");
        let column_of_ids = column(&batch, name)?;
        let strict = CastOptions { safe: false, ..Default::default() };
        let ids = cast_with_options(column_of_ids, &DataType::UInt64, &strict).wrap_err(&place)?;
        if column_of_ids.data_type().is_floating() {
            // A cast truncates fractions: 1.5 would become the id 1.
            let floats = cast_with_options(column_of_ids, &DataType::Float64, &strict).wrap_err(&place)?;
            let fraction = floats.as_primitive::<Float64Type>().iter().flatten().find(|id| id.fract() != 0.0);
            if let Some(fraction) = fraction {
                return Err(Error::Config(format!("{place}: found {fraction}")));
            }
        }
        if ids.null_count() > 0 {
            let reason = format!("id column `{name}` has {} nulls; every item needs an id", ids.null_count());
            return Err(Error::input(uri, reason));
        }
        let ids = ids.as_primitive::<UInt64Type>();
        let rows = column(&batch, ROW_ID)?.as_primitive::<UInt64Type>();
        let (mut row_of, mut id_of) = (HashMap::with_capacity(ids.len()), HashMap::with_capacity(ids.len()));
        for (id, row) in ids.values().iter().zip(rows.values()) {
            if row_of.insert(*id, *row).is_some() {
                return Err(Error::input(uri, format!("id column `{name}` contains {id} twice; ids must be unique")));
            }
            id_of.insert(*row, *id);
        }
        Ok(IdMap::Column { row_of, id_of })
    }

    /// The row of an id. `None` if no row has it. Row ids are not checked.
    pub(super) fn row_of(&self, id: u64) -> Option<u64> {
        match self {
            IdMap::RowId => Some(id),
            IdMap::Column { row_of, .. } => row_of.get(&id).copied(),
        }
    }

    /// Whether a set of ids contains the item of a row.
    pub(super) fn is_in(&self, row: u64, ids: &HashSet<u64>) -> bool {
        match self {
            IdMap::RowId => ids.contains(&row),
            IdMap::Column { id_of, .. } => id_of.get(&row).is_some_and(|id| ids.contains(id)),
        }
    }

    /// The ids of rows of the dataset.
    pub(super) fn ids_of(&self, rows: &[u64]) -> Result<Vec<u64>> {
        match self {
            IdMap::RowId => Ok(rows.to_vec()),
            IdMap::Column { id_of, .. } => {
                let ids: Option<Vec<u64>> = rows.iter().map(|row| id_of.get(row).copied()).collect();
                ids.ok_or_else(|| Error::contract("database", DB_IDX, "an id for each row", "none"))
            }
        }
    }
}
