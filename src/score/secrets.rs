//! Values from the environment that a request carries, and that must show nowhere else.

use serde_json::Value;

use super::answers::excerpt;
use super::json::NUMBER;
use crate::error::{Error, Result};

/// Secrets from so many bytes on are looked for in the names of fields, too.
const LONG: usize = 12;

/// Values that are taken out of whatever a service says.
pub(super) struct Secrets {
    words: Vec<String>,
}

impl Secrets {
    /// Of the values of headers and of variables in a URL. Of `Bearer abc`, `abc` alone is one too.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let words = values.into_iter().flat_map(|value| [value].into_iter().chain(value.split_whitespace()));
        let mut words: Vec<String> = words.filter(|word| word.len() > 3).map(str::to_string).collect();
        // The longest first: one may be a part of another.
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        Secrets { words }
    }

    /// A text without them.
    pub fn redacted(&self, text: &str) -> String {
        self.words.iter().fold(text.to_string(), |text, word| text.replace(word.as_str(), "***"))
    }

    /// The beginning of what a service said, on one line, in quotes, without them.
    pub fn excerpt(&self, body: &[u8]) -> String {
        excerpt(self.redacted(&String::from_utf8_lossy(body)).as_bytes())
    }

    /// The same for all texts and keys of a JSON value.
    pub fn redact(&self, value: &mut Value) {
        match value {
            // A number is no secret, whatever its digits.
            Value::String(text) if !text.starts_with(NUMBER) => {
                *text = self.redacted(text);
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.redact(value)),
            Value::Object(fields) => {
                // The names of fields are the scorer's; only what is surely no word is taken for a secret.
                let is_secret =
                    |key: &str| self.words.iter().any(|word| word.len() >= LONG && key.contains(word.as_str()));
                fields.retain(|key, _| !is_secret(key));
                fields.values_mut().for_each(|value| self.redact(value));
            }
            _ => {}
        }
    }
}

/// A URL with `${NAME}` replaced by environment variables, and their values.
///
/// # Errors
/// A variable that is not set. Messages name the variable, never the value.
pub(super) fn expanded(url: &str) -> Result<(String, Vec<String>)> {
    let (mut whole, mut values, mut rest) = (String::new(), Vec::new(), url);
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, left)) = after.split_once('}') else { break };
        let value = std::env::var(name)
            .map_err(|_| Error::Config(format!("score.url: the environment variable `{name}` is not set")))?;
        whole.push_str(before);
        whole.push_str(&value);
        values.push(value);
        rest = left;
    }
    whole.push_str(rest);
    Ok((whole, values))
}

/// The name of a parameter in a URL's query whose value looks like a secret that stands in it.
pub(super) fn parameter_with_a_secret(url: &str) -> Option<&str> {
    const NAMES: [&str; 10] =
        ["key", "apikey", "token", "secret", "password", "passwd", "pwd", "sig", "signature", "auth"];
    let query = url.split_once('?')?.1.split('#').next()?;
    let parameters = query.split('&').filter_map(|parameter| parameter.split_once('='));
    let is_secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| NAMES.contains(&word)) || name.ends_with("token")
    };
    let is_plain = |value: &str| !value.is_empty() && !value.starts_with("${");
    parameters.into_iter().find(|(name, value)| is_secret(name) && is_plain(value)).map(|(name, _)| name)
}
