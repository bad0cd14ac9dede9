//! Parsing SQL expressions with Polars, including integers from 2^63 on, which its parser rejects.

use polars::prelude::*;

/// Parses a SQL expression. Integers from 2^63 to 2^64 are replaced by placeholders for Polars' parser, and restored in the
/// parsed expression.
///
/// # Errors
/// Polars' parser errors.
pub(super) fn expression(sql: &str) -> PolarsResult<Expr> {
    let (text, large) = insert_placeholders(sql);
    let expression = polars::sql::sql_expr(&text)?;
    if large.is_empty() {
        return Ok(expression);
    }
    expression.try_map_expr(|part| {
        if let Expr::Literal(LiteralValue::Series(values)) = &part
            && *values.dtype() == DataType::Int64
        {
            // The list of an `IN` operator.
            return restore(values, &large).map(|values| values.map_or_else(|| part.clone(), lit));
        }
        for (placeholder, original) in &large {
            if part == lit(*placeholder) {
                return Ok(lit(*original));
            }
            if part == lit(-placeholder) {
                polars_ensure!(*original == 1 << 63, InvalidOperation: "-{original} is less than the smallest 64-bit integer");
                return Ok(lit(i64::MIN));
            }
        }
        Ok(part)
    })
}

/// A list of integers with placeholders replaced by the original integers; `None` if it has no placeholders.
fn restore(values: &Series, large: &[(i64, u64)]) -> PolarsResult<Option<Series>> {
    let original_of = |number: &i64| large.iter().find(|(placeholder, _)| placeholder == number);
    let numbers: Vec<Option<i64>> = values.i64()?.iter().collect();
    if !numbers.iter().flatten().any(|number| original_of(number).is_some()) {
        return Ok(None);
    }
    let original = |number: i64| {
        match original_of(&number) {
        Some((_, original)) => Ok(*original),
        None => u64::try_from(number).map_err(|_| {
            polars_err!(InvalidOperation: "a list has {number} and integers above {}: no dtype holds both", i64::MAX)
        }),
    }
    };
    let numbers = numbers.into_iter().map(|number| number.map(original).transpose());
    Ok(Some(Series::new(values.name().clone(), numbers.collect::<PolarsResult<Vec<Option<u64>>>>()?)))
}

/// Replaces integers from 2^63 to 2^64 by placeholders: smaller integers that do not occur in the text. Returns the text and
/// pairs of placeholder and original.
fn insert_placeholders(sql: &str) -> (String, Vec<(i64, u64)>) {
    let (mut text, mut large) = (String::with_capacity(sql.len()), Vec::new());
    let mut next = i64::MAX;
    let mut rest = sql;
    while !rest.is_empty() {
        let length = token_length(rest);
        let (word, after) = rest.split_at(length);
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

/// The length of the first token in bytes: a quoted text, a comment, a word, a number or a single character.
fn token_length(sql: &str) -> usize {
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
            // Digits after a decimal point are not an integer.
            let fraction = sql[first..].find(|c: char| !is_of_word(c)).map_or(sql.len(), |at| first + at);
            if sql.starts_with('.') { fraction } else { word.max(first) }
        }
    }
}
