//! Scores by an SQL expression over the items' columns, at no cost.

use polars::prelude::*;

use super::Score;
use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::SCORE;
use crate::sql::{columns_of, evaluate};

/// Scores by a Polars SQL expression over the items' columns, or just a column's name.
///
/// An item's score must depend on its own row only. Items are scored in several requests, so `qed / max(qed)` would depend on
/// the other items of the request. Aggregates, windows and other functions that read other rows are rejected.
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
    fn score(&self, items: &DataFrame) -> Result<DataFrame> {
        let frame = items.clone().lazy();
        evaluate("score.sql", &self.sql, items, |expression| {
            // Together with a column of the items, so that a constant is repeated for each item.
            frame.with_columns([expression.alias(SCORE)]).select([col(SCORE)]).collect()
        })
    }

    fn check(&self, items: &DataFrame) -> Result<()> {
        evaluate("score.sql", &self.sql, items, |expression| match cross_row_function(expression) {
            None => Ok(DataFrame::empty()),
            Some(function) => polars_bail!(
                InvalidOperation: "`{function}` reads other rows, but items are scored in batches; store its result in a \
                column of the items, or write it as a number"
            ),
        })?;
        let scored = self.score(items)?;
        let dtype = scored.column(SCORE).wrap_err("score.sql")?.dtype();
        if dtype.is_primitive_numeric() || *dtype == DataType::Boolean || dtype.is_decimal() {
            return Ok(());
        }
        Err(Error::Config(format!("score.sql: expected `{}` to be a number, found {dtype}", self.sql)))
    }

    fn columns_read(&self) -> Vec<String> {
        columns_of(&self.sql).unwrap_or_default()
    }

    fn is_paid(&self) -> bool {
        false
    }
}

/// The name of a function in an expression whose value depends on other rows, if there is one.
fn cross_row_function(expression: Expr) -> Option<String> {
    // Anything is allowed within the list of a single row.
    let outside = expression.map_expr(|part| match part {
        Expr::Eval { expr, variant, .. } if variant.is_elementwise() => (*expr).clone(),
        part => part,
    });
    outside.into_iter().find_map(|part| match part {
        Expr::Function { function: FunctionExpr::Range(_), .. } => Some("row_number".into()),
        Expr::Function { function, .. } => (!is_elementwise(function)).then(|| function.to_string()),
        Expr::Over { function, .. } => {
            Some(format!("{} over", cross_row_function((**function).clone()).unwrap_or_default()))
        }
        Expr::Len => Some("count".into()),
        // An aggregate without columns, such as the list of an `IN`.
        Expr::Agg(_) if !part.into_iter().any(|part| matches!(part, Expr::Column(_))) => None,
        Expr::Agg(_) => {
            // Polars writes `col("qed").max()`.
            let text = format!("{part:?}");
            let name = text.rsplit('.').next().unwrap_or(&text);
            Some(name.split('(').next().unwrap_or(name).into())
        }
        Expr::Sort { .. }
        | Expr::SortBy { .. }
        | Expr::Gather { .. }
        | Expr::Filter { .. }
        | Expr::Slice { .. }
        | Expr::Explode { .. }
        | Expr::Eval { .. }
        | Expr::AnonymousFunction { .. }
        | Expr::SubPlan(..) => Some(format!("{part:?}")),
        _ => None,
    })
}

/// Whether a function is elementwise. Functions that are not listed here count as not elementwise.
fn is_elementwise(function: &FunctionExpr) -> bool {
    use FunctionExpr as F;
    match function {
        F::Boolean(function) => !matches!(
            function,
            BooleanFunction::Any { .. }
                | BooleanFunction::All { .. }
                | BooleanFunction::IsEmpty { .. }
                | BooleanFunction::HasNulls
                | BooleanFunction::IsFirstDistinct
                | BooleanFunction::IsSorted { .. }
        ),
        // Without a format, Polars infers it from the first row.
        F::StringExpr(StringFunction::Strptime(_, options)) => options.format.is_some(),
        F::StringExpr(function) => !matches!(function, StringFunction::ConcatVertical { .. }),
        F::ArrayExpr(function) => !matches!(function, ArrayFunction::Explode { .. }),
        F::BinaryExpr(_) | F::ListExpr(_) | F::StructExpr(_) | F::TemporalExpr(_) => true,
        F::Abs
        | F::Negate
        | F::Pow(_)
        | F::Trigonometry(_)
        | F::Atan2
        | F::Sign
        | F::FillNull
        | F::Clip { .. }
        | F::AsList
        | F::AsStruct
        | F::Coalesce
        | F::Log
        | F::Log1p
        | F::Exp
        | F::Round { .. }
        | F::RoundSF { .. }
        | F::Truncate { .. }
        | F::Floor
        | F::Ceil
        | F::ToPhysical
        | F::MaxHorizontal
        | F::MinHorizontal
        | F::SumHorizontal { .. }
        | F::MeanHorizontal { .. } => true,
        _ => false,
    }
}
