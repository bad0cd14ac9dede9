//! Scores that are computed from the items' columns, at no cost.

use polars::prelude::*;

use super::Score;
use crate::error::{Doing, Error, Result};
use crate::filter::{parse_sql, sql_error};
use crate::schema::SCORE;

/// A Polars SQL expression over the items' columns, or just a column's name.
#[derive(Clone, Debug)]
pub struct SqlScore {
    sql: String,
}

impl SqlScore {
    /// An expression such as `qed` or `0.5 * qed - abs(logp - 2.5)`.
    pub fn new(sql: impl Into<String>) -> Self {
        SqlScore { sql: sql.into() }
    }
}

impl Score for SqlScore {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let expression = parse_sql("score.sql", &self.sql)?;
        // Beside a column of the batch, so that a constant is repeated for each item.
        let scored = batch.clone().lazy().with_columns([expression.alias(SCORE)]).select([col(SCORE)]).collect();
        scored.map_err(|error| sql_error("score.sql", &self.sql, error))
    }

    fn check(&self, items: &DataFrame) -> Result<()> {
        let scored = self.score(items)?;
        let dtype = scored.column(SCORE).doing("score.sql")?.dtype();
        if dtype.is_primitive_numeric() || *dtype == DataType::Boolean || dtype.is_decimal() {
            return Ok(());
        }
        Err(Error::Config(format!("score.sql: expected a number of `{}`, found {dtype}", self.sql)))
    }

    fn is_paid(&self) -> bool {
        false
    }
}
