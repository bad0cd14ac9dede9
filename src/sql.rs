//! SQL expressions as Polars reads them, and whole numbers beyond 2^63, which it does not.

use polars::prelude::*;

/// The expression that a text means.
///
/// # Errors
/// What Polars says of it.
pub(crate) fn expression(sql: &str) -> PolarsResult<Expr> {
    let (text, large) = stand_ins(sql);
    let expression = polars::sql::sql_expr(&text)?;
    if large.is_empty() {
        return Ok(expression);
    }
    let restored = |number: i128| match large.iter().find(|(stand_in, _)| i128::from(*stand_in).abs() == number.abs()) {
        Some((_, meant)) => i128::from(*meant) * number.signum(),
        None => number,
    };
    expression.try_map_expr(|part| match part {
        Expr::Literal(LiteralValue::Dyn(DynLiteralValue::Int(number))) => {
            Ok(Expr::Literal(LiteralValue::Dyn(DynLiteralValue::Int(restored(number)))))
        }
        // The values of an `IN`.
        Expr::Literal(LiteralValue::Series(values)) if *values.dtype() == DataType::Int64 => {
            let numbers = values.i64()?.iter().map(|number| number.map(|number| restored(number.into())));
            let numbers: Vec<Option<i128>> = numbers.collect();
            if numbers.iter().flatten().all(|number| i64::try_from(*number).is_ok()) {
                return Ok(Expr::Literal(LiteralValue::Series(values)));
            }
            let unsigned = |number: Option<i128>| {
                let wrong = |_| polars_err!(InvalidOperation: "a list of negative numbers and of numbers beyond 2^63");
                number.map(|number| u64::try_from(number).map_err(wrong)).transpose()
            };
            let numbers = numbers.into_iter().map(unsigned).collect::<PolarsResult<Vec<Option<u64>>>>()?;
            Ok(lit(Series::new(values.name().clone(), numbers)))
        }
        part => Ok(part),
    })
}

/// The text with smaller numbers, which do not stand in it, in place of whole numbers from 2^63 to 2^64; and what they
/// stand for.
fn stand_ins(sql: &str) -> (String, Vec<(i64, u64)>) {
    let (mut text, mut large) = (String::with_capacity(sql.len()), Vec::new());
    let mut next = i64::MAX;
    let mut rest = sql;
    while !rest.is_empty() {
        let token = token(rest);
        let (word, after) = rest.split_at(token);
        rest = after;
        match word.parse::<u64>() {
            Ok(number) if number > i64::MAX as u64 && !rest.starts_with('.') => {
                while sql.contains(&next.to_string()) {
                    next -= 1;
                }
                text.push_str(&next.to_string());
                large.push((next, number));
                next -= 1;
            }
            _ => text.push_str(word),
        }
    }
    (text, large)
}

/// The bytes of the first token: what is quoted, a comment, a word or a number, or one character.
fn token(sql: &str) -> usize {
    let first = sql.chars().next().map_or(0, char::len_utf8);
    let until = |end: &str, from: usize| sql[from..].find(end).map_or(sql.len(), |at| from + at + end.len());
    match &sql[..first] {
        quote @ ("'" | "\"" | "`") => until(quote, first),
        "-" if sql.starts_with("--") => until("\n", first),
        "/" if sql.starts_with("/*") => until("*/", 2),
        "$" if sql.starts_with("$$") => until("$$", 2),
        _ => {
            let is_of_word = |c: char| c.is_alphanumeric() || c == '_';
            let word = sql.find(|c: char| !is_of_word(c)).unwrap_or(sql.len());
            // What stands behind a point is no whole number.
            let fraction = sql[first..].find(|c: char| !is_of_word(c)).map_or(sql.len(), |at| first + at);
            if sql.starts_with('.') { fraction } else { word.max(first) }
        }
    }
}
