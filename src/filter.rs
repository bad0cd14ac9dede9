//! Which of the found items may be scored.

use std::collections::HashMap;

use polars::prelude::*;

use crate::bridge;
use crate::error::{Doing, Error, Result};
use crate::schema::{self, DB_IDX, EMBEDDING, QUERY_IDX};
use crate::untrusted::{check_sql, on_a_deep_stack};

/// Removes rows of a results frame before they are paid for. Closures are filters:
/// `|results: DataFrame| Ok(results.head(Some(5)))`.
pub trait Filter: Send + Sync {
    /// The rows that stay, unchanged.
    ///
    /// # Errors
    /// Whatever keeps the filter from deciding.
    fn filter(&self, results: DataFrame) -> Result<DataFrame>;

    /// Called once before a search, with a frame of no rows, so that mistakes show early.
    ///
    /// # Errors
    /// A filter that cannot work on such frames.
    fn check(&self, _results: &DataFrame) -> Result<()> {
        Ok(())
    }
}

/// Keeps everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassThroughFilter;

impl Filter for PassThroughFilter {
    fn filter(&self, results: DataFrame) -> Result<DataFrame> {
        Ok(results)
    }
}

/// Keeps the rows for which a Polars SQL expression over the frame's columns is true
/// (not false, not null): `mw < 500 AND smiles NOT LIKE '%Br%'`.
#[derive(Clone, Debug)]
pub struct SqlFilter {
    sql: String,
}

impl SqlFilter {
    /// An expression, not a statement.
    pub fn new(sql: impl Into<String>) -> Self {
        SqlFilter { sql: sql.into() }
    }
}

impl Filter for SqlFilter {
    fn filter(&self, results: DataFrame) -> Result<DataFrame> {
        evaluate("filter.sql", &self.sql, |expression| results.lazy().filter(expression).collect())
    }

    fn check(&self, results: &DataFrame) -> Result<()> {
        let results = results.clone().lazy();
        let value =
            evaluate("filter.sql", &self.sql, |expression| results.select([expression.alias("_filter")]).collect())?;
        match value.columns().first().map(Column::dtype) {
            Some(DataType::Boolean) => Ok(()),
            dtype => Err(Error::Config(format!(
                "filter.sql: expected true or false of `{}`, found {}",
                self.sql,
                dtype.map_or("nothing".into(), |dtype| dtype.to_string())
            ))),
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

/// Uses a Polars SQL expression; errors say where it was asked. An expression, not a statement: it sees the frame it is
/// used on, and no file.
pub(crate) fn evaluate(
    key: &str,
    sql: &str,
    using: impl FnOnce(Expr) -> PolarsResult<DataFrame> + Send,
) -> Result<DataFrame> {
    check_sql(key, sql)?;
    let wrong = |reason: String| {
        let more = if sql.chars().nth(200).is_some() { "…" } else { "" };
        let sql: String = sql.chars().take(200).collect();
        Error::Config(format!("{key}: cannot evaluate `{sql}{more}`: {}", crate::error::one_line(&reason)))
    };
    let value = on_a_deep_stack(|| polars::sql::sql_expr(sql).and_then(using).map_err(|error| error.to_string()));
    value.and_then(|value| value).map_err(wrong)
}

/// Checks that a stage only took rows away: what it gave must be rows of what it got, unchanged,
/// each at most once. (Embeddings are compared by dtype only.)
pub(crate) fn check_subset(stage: &'static str, before: &DataFrame, after: &DataFrame) -> Result<()> {
    let (had, has) = (before.schema(), after.schema());
    if had != has {
        let describe = |schema: &SchemaRef| {
            schema.iter().map(|(name, dtype)| format!("{name} {dtype}")).collect::<Vec<_>>().join(", ")
        };
        return Err(Error::contract(stage, "columns", describe(had), describe(has)));
    }
    if before.height() == after.height() && keys(before)? == keys(after)? && unchanged(before, after)? {
        return Ok(());
    }
    let mut row_of: HashMap<(u32, u64), u32> = keys(before)?.into_iter().zip(0..).collect();
    let mut rows = Vec::with_capacity(after.height());
    for (query, item) in keys(after)? {
        let Some(row) = row_of.remove(&(query, item)) else {
            let found = format!("item {item} under query {query}, which was not there, or twice");
            return Err(Error::contract(stage, DB_IDX, "rows of its input, each at most once", found));
        };
        rows.push(row);
    }
    let kept = bridge::gather(before, &rows)?;
    match unchanged(&kept, after)? {
        true => Ok(()),
        false => Err(Error::contract(stage, "rows", "rows of its input, unchanged", "changed values")),
    }
}

fn keys(frame: &DataFrame) -> Result<Vec<(u32, u64)>> {
    Ok(schema::u32s(frame, QUERY_IDX)?.into_iter().zip(schema::u64s(frame, DB_IDX)?).collect())
}

fn unchanged(a: &DataFrame, b: &DataFrame) -> Result<bool> {
    let (a, b) = (a.drop(EMBEDDING).doing("comparing frames")?, b.drop(EMBEDDING).doing("comparing frames")?);
    Ok(a.equals_missing(&b))
}
