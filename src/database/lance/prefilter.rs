//! `database.prefilter`: Lance's SQL, with the quotes of the other expressions. `"name"` and `` `name` `` are columns, and
//! `'text'` is a text, as in `filter.sql` and `score.sql`. Lance by itself takes `"name"` for a text.

use std::fmt::{Display, Formatter};

use crate::error::{Error, Result};
use crate::sql::{check, excerpt};
use crate::suggest::{names_none, no_column};

/// The key of a run file.
const KEY: &str = "database.prefilter";

/// The columns that Lance has of its own all begin so.
const OF_LANCE: &str = "_row";

/// A part of an expression, as it is written.
enum Part<'a> {
    /// What stands in double quotes or backticks: a column.
    Name(String),
    /// A word: a column, a function, a keyword.
    Word(&'a str),
    /// Anything else: texts, numbers, operators, comments.
    Other(&'a str),
}

/// A condition on the items that can be found.
#[derive(Clone, Debug)]
pub(super) struct Prefilter {
    written: String,
    /// As Lance reads it: names in backticks.
    pub(super) sql: String,
}

impl Prefilter {
    pub(super) fn new(written: impl Into<String>) -> Self {
        let written = written.into();
        let parts = parts(&written).into_iter().map(|part| match part {
            Part::Name(name) => format!("`{}`", name.replace('`', "``")),
            Part::Word(text) | Part::Other(text) => text.to_string(),
        });
        Prefilter { sql: parts.collect(), written }
    }

    /// Refuses what is no expression, or names no column, or in quotes one that is not there: it would hold for all items or
    /// for none.
    pub(super) fn check(&self, uri: &str, columns: &[String]) -> Result<()> {
        check(KEY, &self.written)?;
        let (mut is_field, mut names_one) = (false, false);
        for part in parts(&self.written) {
            match &part {
                Part::Name(name) if !is_field && !is_there(name, columns) => {
                    let missing = missing(name, uri, columns);
                    return Err(self.wrong(format!("{missing}; columns stand in \" or `, and texts in '")));
                }
                Part::Name(_) => names_one = true,
                // Unless it is quoted, Lance minds no case.
                Part::Word(word) => {
                    names_one = names_one
                        || is_there(word, columns)
                        || columns.iter().any(|column| column.eq_ignore_ascii_case(word));
                }
                Part::Other(_) => {}
            }
            // Of a struct; it is Lance that knows them.
            is_field = matches!(part, Part::Other("."));
        }
        match names_one {
            true => Ok(()),
            false => {
                let reason = names_none(&self.to_string(), columns.iter().map(String::as_str));
                Err(Error::Config(format!("{KEY}: {reason}")))
            }
        }
    }

    /// What is wrong where Lance `said` that a column is not there.
    pub(super) fn unknown_column(&self, said: &str, uri: &str, columns: &[String]) -> Option<String> {
        let (_, name) = said.split_once("No field named ")?;
        let name = match name.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => name.split(|c| !is_of_word(c)).next(),
        };
        name.map(|name| missing(name, uri, columns))
    }

    pub(super) fn wrong(&self, reason: impl Display) -> Error {
        Error::Config(format!("{KEY}: cannot evaluate `{self}`: {reason}"))
    }
}

/// As much of it as a message shows.
impl Display for Prefilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(&excerpt(&self.written))
    }
}

fn missing(column: &str, uri: &str, columns: &[String]) -> String {
    no_column(column, &format!(" in {uri}"), columns.iter().map(String::as_str))
}

fn is_there(name: &str, columns: &[String]) -> bool {
    name.starts_with(OF_LANCE) || columns.iter().any(|column| column == name)
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || "_$@#".contains(c)
}

/// The parts of an expression, in their order. Together they are the expression; what is not closed is what is left.
fn parts(sql: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), sql);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' | '"' | '`' => quoted(rest, first),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            _ if is_of_word(first) => rest.find(|c| !is_of_word(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (part, after) = rest.split_at(length);
        parts.push(match first {
            '"' | '`' if length > 1 && part.ends_with(first) => {
                let double: String = [first, first].iter().collect();
                Part::Name(part[1..length - 1].replace(&double, &first.to_string()))
            }
            _ if first.is_alphabetic() || first == '_' => Part::Word(part),
            _ => Part::Other(part),
        });
        rest = after;
    }
    parts
}

/// The length of what begins with a quote; within it, the quote stands twice.
fn quoted(text: &str, quote: char) -> usize {
    let mut at = 1;
    while let Some(closing) = text[at..].find(quote) {
        at += closing + 1;
        if !text[at..].starts_with(quote) {
            return at;
        }
        at += 1;
    }
    text.len()
}
