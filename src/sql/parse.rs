//! SQL expressions as Polars reads them, and whole numbers beyond 2^63, which it does not.

use polars::prelude::*;

/// The expression that a text means.
///
/// # Errors
/// What Polars says of it.
pub(super) fn expression(sql: &str) -> PolarsResult<Expr> {
    let (text, large) = stand_ins(sql);
    let expression = polars::sql::sql_expr(&text)?;
    if large.is_empty() {
        return Ok(expression);
    }
    expression.try_map_expr(|part| {
        if let Expr::Literal(LiteralValue::Series(values)) = &part
            && *values.dtype() == DataType::Int64
        {
            // The values of an `IN`.
            return restored(values, &large).map(|values| values.map_or_else(|| part.clone(), lit));
        }
        for (stand_in, meant) in &large {
            if part == lit(*stand_in) {
                return Ok(lit(*meant));
            }
            if part == lit(-stand_in) {
                polars_ensure!(*meant == 1 << 63, InvalidOperation: "-{meant} is less than any whole number of 64 bits");
                return Ok(lit(i64::MIN));
            }
        }
        Ok(part)
    })
}

/// A list of numbers with those that are meant, if stand-ins are among them.
fn restored(values: &Series, large: &[(i64, u64)]) -> PolarsResult<Option<Series>> {
    let is_stand_in = |number: &i64| large.iter().find(|(stand_in, _)| stand_in == number);
    let numbers: Vec<Option<i64>> = values.i64()?.iter().collect();
    if !numbers.iter().flatten().any(|number| is_stand_in(number).is_some()) {
        return Ok(None);
    }
    let meant = |number: i64| {
        match is_stand_in(&number) {
        Some((_, meant)) => Ok(*meant),
        None => u64::try_from(number).map_err(|_| {
            polars_err!(InvalidOperation: "a list has {number}, and numbers beyond {}: no type holds both", i64::MAX)
        }),
    }
    };
    let numbers = numbers.into_iter().map(|number| number.map(meant).transpose());
    Ok(Some(Series::new(values.name().clone(), numbers.collect::<PolarsResult<Vec<Option<u64>>>>()?)))
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
