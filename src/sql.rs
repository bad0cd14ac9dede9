//! SQL expressions over frames: checked, parsed and evaluated by Polars.
//!
//! The parsers recurse into an expression: [`check`] limits its size, [`on_deep_stack`] gives them a large stack.

mod parse;

use polars::prelude::*;

use crate::error::{Error, Result, first_line};
use crate::frame::schema;
use crate::panics;
use crate::suggest::unknown_column;

/// Evaluates a Polars SQL expression on a frame. It is an expression, not a statement, so it cannot read files. `apply`
/// applies the parsed expression to the frame. Errors name `key`, the key of the run file.
pub(crate) fn evaluate(
    key: &str,
    sql: &str,
    frame: &DataFrame,
    apply: impl FnOnce(Expr) -> PolarsResult<DataFrame> + Send,
) -> Result<DataFrame> {
    check(key, sql)?;
    let invalid = |reason: String| {
        let absent = columns_of(sql).into_iter().flatten().find(|column| frame.column(column).is_err());
        let absent = absent.map(|column| unknown_column(&column, "", schema::column_names(frame)));
        let reason = absent.unwrap_or_else(|| first_line(&reason));
        Error::Config(format!("{key}: cannot evaluate `{}`: {reason}", excerpt(sql)))
    };
    let value = on_deep_stack(|| parse::expression(sql).and_then(apply).map_err(|error| error.to_string()));
    value.and_then(|value| value).map_err(invalid)
}

/// The columns that an expression names. `None` if it selects columns by a pattern or cannot be parsed.
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

/// The maximum number of operators and parentheses in an expression.
const MAX_OPERATORS: usize = 1000;

/// Rejects SQL with several expressions, and SQL so deep that parsing could overflow the stack. `key` is the key of the run
/// file.
///
/// # Errors
/// A semicolon outside of quotes, or too many operators.
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
    if operators > MAX_OPERATORS {
        let reason = format!("{key}: {operators} operators; an expression may have at most {MAX_OPERATORS}");
        return Err(Error::Config(reason));
    }
    Ok(())
}

/// The first 200 characters of an expression, on one line, for messages.
pub(crate) fn excerpt(sql: &str) -> String {
    let start: String = sql.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    start + if sql.chars().nth(200).is_some() { "…" } else { "" }
}

/// Runs deeply recursive work on a thread with a large stack. A panic becomes an error with its message.
pub(crate) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(LARGE_STACK).spawn_scoped(scope, work);
        match thread {
            Ok(thread) => thread.join().map_err(|panic| panics::message(&*panic)),
            Err(error) => Err(error.to_string()),
        }
    })
}

/// Bytes of a large stack: unoptimised builds of Polars use about 50 kB per operator.
const LARGE_STACK: usize = 256 << 20;
