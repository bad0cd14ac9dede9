//! `Filter`: removes candidates before they are scored.

use std::collections::HashMap;

use polars::prelude::*;

use crate::error::{Error, Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX, EMBEDDING, QUERY_IDX};
use crate::sql::{columns_of, evaluate, excerpt};
use crate::suggest::names_no_column;

/// Removes rows of a results frame before they are scored. A closure implements `Filter`:
/// `|results: DataFrame| Ok(results.head(Some(5)))`.
///
/// # Example
///
/// ```
/// use uphill::{Filter, IndexOptions, LanceDatabase, QueryOptions, SqlFilter, VectorDatabase, polars::prelude::DataFrame};
/// # fn main() -> uphill::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("molecules.lance");
/// # uphill::index("data/molecules.parquet", &path, &IndexOptions::default())?;
/// let library = LanceDatabase::open(path.to_string_lossy())?;
/// let found = library.query(&uphill::queries_at(&library, &[17])?, QueryOptions::new().k(50))?;
///
/// let light = SqlFilter::new("mw < 250 AND logp > 1").filter(found.clone())?;
/// assert!(light.height() < found.height());
/// assert!(light.column("mw")?.f64()?.iter().flatten().all(|weight| weight < 250.0));
///
/// // A closure returns a subset of its input rows, unchanged.
/// let first_five = |results: DataFrame| Ok(results.head(Some(5)));
/// assert_eq!(first_five.filter(found)?.height(), 5);
/// # Ok(())
/// # }
/// ```
pub trait Filter: Send + Sync {
    /// Returns a subset of the rows, unchanged.
    ///
    /// # Errors
    /// Any error stops the run.
    fn filter(&self, results: DataFrame) -> Result<DataFrame>;

    /// The attributes that the filter reads. The frame may lack all other attributes. `None` (default) means all attributes.
    fn columns_read(&self) -> Option<Vec<String>> {
        None
    }

    /// Checks the filter once before a search, with a frame without rows, so that mistakes show early.
    ///
    /// # Errors
    /// The filter cannot process frames with these columns.
    fn check(&self, _results: &DataFrame) -> Result<()> {
        Ok(())
    }
}

/// A filter that keeps all rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassThroughFilter;

impl Filter for PassThroughFilter {
    fn filter(&self, results: DataFrame) -> Result<DataFrame> {
        Ok(results)
    }

    fn columns_read(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

/// A filter that keeps the rows for which a Polars SQL expression over the frame's columns is true (not false, not null):
/// `mw < 500 AND smiles NOT LIKE '%Br%'`.
#[derive(Clone, Debug)]
pub struct SqlFilter {
    sql: String,
}

impl SqlFilter {
    /// A filter by a SQL expression (not a statement).
    pub fn new(sql: impl Into<String>) -> Self {
        SqlFilter { sql: sql.into() }
    }

    fn not_a_condition(&self, value: &DataFrame) -> Error {
        let dtype = value.columns().first().map_or("nothing".into(), |column| column.dtype().to_string());
        Error::Config(format!("filter.sql: expected a boolean from `{}`, found {dtype}", self.sql))
    }
}

/// Keeps the rows of a results frame for which a mask is true (not false, not null). The mask is a frame with one boolean
/// column and as many rows.
///
/// # Errors
/// The mask has another number of columns or rows, or another dtype.
pub fn filter_by_mask(results: &DataFrame, mask: &DataFrame) -> Result<DataFrame> {
    let invalid = |found: String| Error::contract("filter", "rows", "one boolean for each row of its input", found);
    let [column] = mask.columns() else { return Err(invalid(format!("{} columns", mask.width()))) };
    let mask = column.bool().map_err(|_| invalid(format!("a column of {}", column.dtype())))?;
    match mask.len() == results.height() {
        true => rows_where(results.clone(), mask),
        false => Err(invalid(format!("{} rows for {}", mask.len(), results.height()))),
    }
}

fn rows_where(results: DataFrame, mask: &BooleanChunked) -> Result<DataFrame> {
    let rows: Vec<u32> = (0..).zip(mask.iter()).filter(|(_, mask)| *mask == Some(true)).map(|(row, _)| row).collect();
    if rows.len() == results.height() { Ok(results) } else { convert::gather(&results, &rows) }
}

/// The column with the value of the expression.
const MASK: &str = "_keep";

impl Filter for SqlFilter {
    fn filter(&self, results: DataFrame) -> Result<DataFrame> {
        let frame = results.clone().lazy();
        let mask = evaluate("filter.sql", &self.sql, &results, |expression| {
            // `with_columns` broadcasts a constant to all rows.
            frame.with_columns([expression.alias(MASK)]).select([col(MASK)]).collect()
        })?;
        let mask = mask.column(MASK).and_then(Column::bool).map_err(|_| self.not_a_condition(&mask))?;
        rows_where(results, mask)
    }

    fn columns_read(&self) -> Option<Vec<String>> {
        columns_of(&self.sql)
    }

    fn check(&self, results: &DataFrame) -> Result<()> {
        let frame = results.clone().lazy();
        let select = |expression: Expr| frame.select([expression.alias(MASK)]).collect();
        let value = evaluate("filter.sql", &self.sql, results, select)?;
        match value.columns().first().map(Column::dtype) {
            Some(DataType::Boolean) => {}
            _ => return Err(self.not_a_condition(&value)),
        }
        match self.columns_read() {
            Some(columns) if columns.is_empty() => {
                let reason = names_no_column(&excerpt(&self.sql), schema::column_names(results));
                Err(Error::Config(format!("filter.sql: {reason}")))
            }
            _ => Ok(()),
        }
    }
}

impl<F> Filter for F
where
    F: Fn(DataFrame) -> Result<DataFrame> + Send + Sync,
{
    fn filter(&self, results: DataFrame) -> Result<DataFrame> {
        self(results)
    }
}

impl Filter for Box<dyn Filter> {
    fn filter(&self, results: DataFrame) -> Result<DataFrame> {
        (**self).filter(results)
    }
    fn columns_read(&self) -> Option<Vec<String>> {
        (**self).columns_read()
    }
    fn check(&self, results: &DataFrame) -> Result<()> {
        (**self).check(results)
    }
}

/// Checks that a stage only removed rows: each row of its output must be an unchanged row of its input, at most once.
/// Embeddings are compared by dtype only.
pub(crate) fn check_subset(stage: &'static str, before: &DataFrame, after: &DataFrame) -> Result<()> {
    let (expected, found) = (before.schema(), after.schema());
    if expected != found {
        let describe = |schema: &SchemaRef| {
            schema.iter().map(|(name, dtype)| format!("{name} {dtype}")).collect::<Vec<_>>().join(", ")
        };
        return Err(Error::contract(stage, "columns", describe(expected), describe(found)));
    }
    let (input, output) = (keys(before)?, keys(after)?);
    let rows = positions_in_order(&input, &output)
        .map_or_else(|| positions_in_any_order(&input, &output), Ok)
        .map_err(|(query, item)| {
            let found = format!("item {item} of query {query}, which is new or a duplicate");
            Error::contract(stage, DB_IDX, "rows of its input, each at most once", found)
        })?;
    let (before, after) = (without_embedding(before)?, without_embedding(after)?);
    let expected =
        if rows.len() == before.height() && rows.is_sorted() { before } else { convert::gather(&before, &rows)? };
    match expected.equals_missing(&after) {
        true => Ok(()),
        false => Err(Error::contract(stage, "rows", "rows of its input, unchanged", "changed values")),
    }
}

/// The query and the item of each row.
fn keys(frame: &DataFrame) -> Result<Vec<Key>> {
    Ok(schema::u32s(frame, QUERY_IDX)?.into_iter().zip(schema::u64s(frame, DB_IDX)?).collect())
}

type Key = (u32, u64);

/// The position of each output key in the input. `None` if the order differs or a key is missing.
fn positions_in_order(input: &[Key], output: &[Key]) -> Option<Vec<u32>> {
    let mut input = (0u32..).zip(input);
    output.iter().map(|key| input.find(|(_, other)| *other == key).map(|(row, _)| row)).collect()
}

/// The position of each output key in the input, in any order. The error is the first key that is missing or a duplicate.
fn positions_in_any_order(input: &[Key], output: &[Key]) -> Result<Vec<u32>, Key> {
    let mut row_of: HashMap<Key, u32> = input.iter().copied().zip(0..).collect();
    output.iter().map(|key| row_of.remove(key).ok_or(*key)).collect()
}

fn without_embedding(frame: &DataFrame) -> Result<DataFrame> {
    frame.drop(EMBEDDING).wrap_err("comparing frames")
}
