//! The SQL condition `database.prefilter`, with the same quotes as `filter.sql` and `score.sql`: `"name"` and `` `name` `` are
//! columns, `'text'` is a string. Lance itself reads `"name"` as a string, so names are rewritten in backticks.

use std::fmt::{Display, Formatter};

use crate::error::{Error, Result};
use crate::sql::{check, excerpt};
use crate::suggest::{names_no_column, unknown_column};

/// The key in run files.
const KEY: &str = "database.prefilter";

/// The prefix of Lance's own columns.
const LANCE_PREFIX: &str = "_row";

/// A token of an SQL expression.
enum Token<'a> {
    /// A name in double quotes or backticks: a column.
    Name(String),
    /// An unquoted word: a column, a function, a keyword.
    Word(&'a str),
    /// Anything else: strings, numbers, operators, comments.
    Other(&'a str),
}

/// A condition on the items that a search can find.
#[derive(Clone, Debug)]
pub(super) struct Prefilter {
    /// The expression as the user wrote it.
    original: String,
    /// The expression for Lance, with names in backticks.
    pub(super) sql: String,
}

impl Prefilter {
    pub(super) fn new(sql: impl Into<String>) -> Self {
        let original = sql.into();
        let rewritten = tokens(&original).into_iter().map(|token| match token {
            Token::Name(name) => format!("`{}`", name.replace('`', "``")),
            Token::Word(text) | Token::Other(text) => text.to_string(),
        });
        Prefilter { sql: rewritten.collect(), original }
    }

    /// Rejects invalid SQL, conditions that name no column (they hold for all items or for none), and quoted columns that do
    /// not exist.
    pub(super) fn check(&self, uri: &str, columns: &[String]) -> Result<()> {
        check(KEY, &self.original)?;
        let (mut is_field, mut names_column) = (false, false);
        for token in tokens(&self.original) {
            match &token {
                Token::Name(name) if !is_field && !column_exists(name, columns) => {
                    let missing = missing(name, uri, columns);
                    return Err(self.error(format!("{missing}; quote columns with \" or `, and strings with '")));
                }
                Token::Name(_) => names_column = true,
                // Lance ignores the case of unquoted names.
                Token::Word(word) => {
                    names_column = names_column
                        || column_exists(word, columns)
                        || columns.iter().any(|column| column.eq_ignore_ascii_case(word));
                }
                Token::Other(_) => {}
            }
            // The next name is a field of a struct, which Lance checks.
            is_field = matches!(token, Token::Other("."));
        }
        match names_column {
            true => Ok(()),
            false => {
                let reason = names_no_column(&self.to_string(), columns.iter().map(String::as_str));
                Err(Error::Config(format!("{KEY}: {reason}")))
            }
        }
    }

    /// A message about the missing column, if that is what Lance's `message` reports.
    pub(super) fn unknown_column(&self, message: &str, uri: &str, columns: &[String]) -> Option<String> {
        let (_, name) = message.split_once("No field named ")?;
        let name = match name.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => name.split(|c| !is_word_char(c)).next(),
        };
        name.map(|name| missing(name, uri, columns))
    }

    /// An error with the expression and a reason.
    pub(super) fn error(&self, reason: impl Display) -> Error {
        Error::Config(format!("{KEY}: cannot evaluate `{self}`: {reason}"))
    }
}

/// An excerpt of the expression, for messages.
impl Display for Prefilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(&excerpt(&self.original))
    }
}

/// A message about a column that does not exist.
fn missing(column: &str, uri: &str, columns: &[String]) -> String {
    unknown_column(column, &format!(" in {uri}"), columns.iter().map(String::as_str))
}

fn column_exists(name: &str, columns: &[String]) -> bool {
    name.starts_with(LANCE_PREFIX) || columns.iter().any(|column| column == name)
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || "_$@#".contains(c)
}

/// The tokens of an expression, in order. Their concatenation is the expression. An unclosed quote is one token to the end.
fn tokens(sql: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut rest) = (Vec::new(), sql);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' | '"' | '`' => quoted(rest, first),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            _ if is_word_char(first) => rest.find(|c| !is_word_char(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (text, after) = rest.split_at(length);
        tokens.push(match first {
            '"' | '`' if length > 1 && text.ends_with(first) => {
                let double: String = [first, first].iter().collect();
                Token::Name(text[1..length - 1].replace(&double, &first.to_string()))
            }
            _ if first.is_alphabetic() || first == '_' => Token::Word(text),
            _ => Token::Other(text),
        });
        rest = after;
    }
    tokens
}

/// The length of a quoted token. A doubled quote inside it is an escaped one.
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
