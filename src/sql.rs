//! SQL expressions over frames: checked, parsed and evaluated by Polars.
//!
//! The parsers recurse into an expression: [`check`] limits its size, [`on_deep_stack`] gives them a large stack.

mod parse;

use polars::prelude::*;

use crate::error::{Error, Result, first_line};
use crate::frame::schema;
use crate::panics;
use crate::suggest::unknown_column;

/// Uses a Polars SQL expression on a frame; errors say where it was asked. An expression, not a statement: it sees the
/// frame, and no file.
pub(crate) fn evaluate(
    key: &str,
    sql: &str,
    frame: &DataFrame,
    using: impl FnOnce(Expr) -> PolarsResult<DataFrame> + Send,
) -> Result<DataFrame> {
    check(key, sql)?;
    let wrong = |reason: String| {
        let absent = columns_of(sql).into_iter().flatten().find(|column| frame.column(column).is_err());
        let absent = absent.map(|column| unknown_column(&column, "", schema::column_names(frame)));
        let reason = absent.unwrap_or_else(|| first_line(&reason));
        Error::Config(format!("{key}: cannot evaluate `{}`: {reason}", excerpt(sql)))
    };
    let value = on_deep_stack(|| parse::expression(sql).and_then(using).map_err(|error| error.to_string()));
    value.and_then(|value| value).map_err(wrong)
}

/// The columns that an expression names; `None` where it names them by a pattern, or cannot be read.
pub(crate) fn columns_of(sql: &str) -> Option<Vec<String>> {
    let columns = on_deep_stack(|| {
        let expression = parse::expression(sql).ok()?;
        let mut names = Vec::new();
        for part in &expression {
            match part {
                Expr::Column(name) => names.push(name.to_string()),
                Expr::Selector(_) => return None,
                _ => {}
            }
        }
        Some(names)
    });
    columns.ok().flatten()
}

/// The most operators and parentheses in an expression.
const OPERATORS: usize = 1000;

/// Refuses SQL that is more than one expression, or so deep that reading it could overflow the stack.
///
/// # Errors
/// A semicolon outside of quotes, or too many operators. `key` is the one of the run file.
pub(crate) fn check(key: &str, sql: &str) -> Result<()> {
    let mut quote = None;
    let mut operators = 0;
    let mut word = String::new();
    for c in sql.chars().chain([' ']) {
        match quote {
            Some(closing) => quote = (c != closing).then_some(closing),
            None if matches!(c, '\'' | '"' | '`') => quote = Some(c),
            None if c == ';' => {
                return Err(Error::Config(format!("{key}: expected one expression, found a `;`")));
            }
            None if c.is_alphanumeric() || c == '_' => word.push(c.to_ascii_lowercase()),
            None => {
                let named =
                    matches!(word.as_str(), "and" | "or" | "not" | "like" | "ilike" | "is" | "when" | "between");
                operators += usize::from(named) + usize::from("+-*/%<>=|&^~!([".contains(c));
                word.clear();
            }
        }
    }
    if operators > OPERATORS {
        let reason = format!("{key}: {operators} operators, more than the {OPERATORS} that an expression may have");
        return Err(Error::Config(reason));
    }
    Ok(())
}

/// As much of SQL as a message shows.
pub(crate) fn excerpt(sql: &str) -> String {
    let start: String = sql.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    start + if sql.chars().nth(200).is_some() { "…" } else { "" }
}

/// Does what may recurse deeply, and what may panic; gives what the panic said.
pub(crate) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(DEEP).spawn_scoped(scope, work);
        match thread {
            Ok(thread) => thread.join().map_err(|panic| panics::message(&*panic)),
            Err(error) => Err(error.to_string()),
        }
    })
}

/// Bytes of a deep stack: Polars takes about 50 kB an operator where it is not optimised.
const DEEP: usize = 256 << 20;
