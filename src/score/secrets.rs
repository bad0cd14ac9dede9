//! Secrets from the environment: inserted into requests, and redacted from all messages.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::answer::excerpt;
use crate::error::{Error, Result};
use crate::io::exact_json::NUMBER_MARK;

/// The minimum length in bytes of secrets that are redacted in field names too.
const MIN_FIELD_NAME_SECRET: usize = 12;

/// The minimum length in characters of secrets that are redacted within words. Shorter ones are redacted only as whole words.
const MIN_SUBSTRING_SECRET: usize = 4;

/// The maximum bytes of a body to redact for an excerpt.
const MAX_EXCERPT_BYTES: usize = 1 << 16;

/// Values to redact from the responses of a service.
pub(super) struct Secrets {
    secrets: Vec<String>,
}

impl Secrets {
    /// Collects the secrets in header values and URL variables. `Bearer abc` also yields `abc`; `Basic dTpw` also yields the
    /// decoded user name and password.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut secrets: Vec<String> = values.into_iter().flat_map(parts).flat_map(|part| forms(&part)).collect();
        secrets.retain(|secret| !secret.is_empty());
        // Longest first, as one secret may be a part of another.
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        secrets.dedup();
        Secrets { secrets }
    }

    /// Replaces the secrets in a text by `***`, in any escaped form.
    pub fn redact_text(&self, text: &str) -> String {
        let (mut clean, mut position) = (String::with_capacity(text.len()), 0);
        while let Some(next) = text[position..].chars().next() {
            match self.secrets.iter().find_map(|secret| match_secret(text, position, secret)) {
                Some(length) => {
                    clean.push_str("***");
                    position += length;
                }
                None => {
                    clean.push(next);
                    position += next.len_utf8();
                }
            }
        }
        clean
    }

    /// The redacted beginning of a response, on one line, in backquotes.
    pub fn excerpt(&self, body: &[u8]) -> String {
        let body = &body[..body.len().min(MAX_EXCERPT_BYTES)];
        excerpt(self.redact_text(&String::from_utf8_lossy(body)).as_bytes())
    }

    /// Redacts all texts and keys of a JSON value.
    pub fn redact_json(&self, value: &mut Value) {
        match value {
            // Numbers are not secrets.
            Value::String(text) if !text.starts_with(NUMBER_MARK) => {
                *text = self.redact_text(text);
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.redact_json(value)),
            Value::Object(fields) => {
                // The scorer chooses field names, so redact only secrets that are too long to be a word.
                let is_secret = |key: &str| {
                    self.secrets
                        .iter()
                        .any(|secret| secret.len() >= MIN_FIELD_NAME_SECRET && key.contains(secret.as_str()))
                };
                fields.retain(|key, _| !is_secret(key));
                fields.values_mut().for_each(|value| self.redact_json(value));
            }
            _ => {}
        }
    }
}

/// A header's value, the credentials after its scheme, and for `Basic` the decoded credentials.
fn parts(value: &str) -> Vec<String> {
    let mut parts = vec![value.trim().to_string()];
    if let Some((scheme, credentials)) = value.trim().split_once(char::is_whitespace) {
        parts.extend(credentials.split_whitespace().map(str::to_string));
        let decoded = STANDARD.decode(credentials.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if let (Some(decoded), true) = (decoded, scheme.eq_ignore_ascii_case("basic")) {
            parts.extend(decoded.split_once(':').map(|(_, password)| password.to_string()));
            parts.push(decoded);
        }
    }
    parts
}

/// A secret and its encodings: its bytes read as Latin-1, percent-decoded, and base64.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_string(), percent_decode(secret)];
    if !secret.is_ascii() {
        forms.push(secret.bytes().map(char::from).collect());
    }
    forms.extend([STANDARD_NO_PAD.encode(secret), URL_SAFE_NO_PAD.encode(secret)]);
    forms
}

/// Decodes each `%XX`. Returns the text unchanged if the result is not UTF-8.
pub(super) fn percent_decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((byte, after)) = rest.split_first() {
        let code = if *byte == b'%' { hex(after, 2) } else { None };
        bytes.push(code.map_or(*byte, |code| code as u8));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.into())
}

/// Parses the first digits of a text as hexadecimal.
fn hex(text: &[u8], digits: usize) -> Option<u32> {
    let digits = text.get(..digits).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The length in bytes of the text at `start` that encodes a secret, if it does.
fn match_secret(text: &str, start: usize, secret: &str) -> Option<usize> {
    let length = match_length(&text[start..], secret)?;
    let is_match = secret.chars().nth(MIN_SUBSTRING_SECRET - 1).is_some()
        || is_whole_word(&text[..start], &text[start + length..]);
    is_match.then_some(length)
}

/// The length in bytes of the prefix of a text that encodes a secret.
fn match_length(text: &str, secret: &str) -> Option<usize> {
    let Some(first) = secret.chars().next() else { return Some(0) };
    let rest = &secret[first.len_utf8()..];
    let forms = [
        match_literal(text, first),
        match_json_escape(text, first),
        match_url_escape(text, first),
        match_html_entity(text, first),
    ];
    forms.into_iter().flatten().find_map(|length| Some(length + match_length(&text[length..], rest)?))
}

fn match_literal(text: &str, c: char) -> Option<usize> {
    text.starts_with(c).then_some(c.len_utf8())
}

/// A character as JSON and Python escape it, also if the text is escaped repeatedly: `\/`, `\"`, `\u00e4`, `\xe4`.
fn match_json_escape(text: &str, c: char) -> Option<usize> {
    let escaped = text.trim_start_matches('\\');
    let slashes = text.len() - escaped.len();
    if c == '\\' {
        return Some(2).filter(|two| slashes >= *two);
    }
    let bytes = escaped.as_bytes();
    let length = match bytes.first().filter(|_| slashes > 0)? {
        b'u' => {
            let mut units = [0; 2];
            let units = c.encode_utf16(&mut units);
            let escape = slashes + 5;
            let is_unit = |(at, unit): (usize, &u16)| {
                let found = text.as_bytes().get(at * escape..).unwrap_or_default();
                found.starts_with(&text.as_bytes()[..=slashes])
                    && hex(&found[slashes + 1..], 4) == Some(u32::from(*unit))
            };
            units.iter().enumerate().all(is_unit).then_some(units.len() * escape - slashes)?
        }
        b'x' if hex(&bytes[1..], 2)? == u32::from(c) => 3,
        _ if c.is_ascii_punctuation() && escaped.starts_with(c) => 1,
        _ => return None,
    };
    Some(slashes + length)
}

/// A character in URL encoding: `%C3%A4`, and `+` for a space.
fn match_url_escape(text: &str, c: char) -> Option<usize> {
    if c == ' ' && text.starts_with('+') {
        return Some(1);
    }
    let mut utf8 = [0; 4];
    let bytes = c.encode_utf8(&mut utf8).as_bytes();
    let is_byte = |(at, byte): (usize, &u8)| {
        let code = text.as_bytes().get(3 * at..).filter(|code| code.first() == Some(&b'%'));
        code.and_then(|code| hex(&code[1..], 2)) == Some(u32::from(*byte))
    };
    bytes.iter().enumerate().all(is_byte).then_some(3 * bytes.len())
}

/// A character as an HTML entity: `&amp;`, `&#228;`, `&#xe4;`.
fn match_html_entity(text: &str, c: char) -> Option<usize> {
    let rest = text.strip_prefix('&')?;
    let entity = &rest[..rest.bytes().take(10).position(|byte| byte == b';')?];
    let code = || match entity.strip_prefix('#')?.strip_prefix(['x', 'X']) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => entity[1..].parse().ok(),
    };
    let is_match = match entity {
        "amp" => c == '&',
        "lt" => c == '<',
        "gt" => c == '>',
        "quot" => c == '"',
        "apos" => c == '\'',
        _ => code() == Some(c.into()),
    };
    is_match.then_some(entity.len() + 2)
}

/// Whether a text is a whole word, given the texts before and after it.
fn is_whole_word(before: &str, after: &str) -> bool {
    let bytes = before.as_bytes();
    let from_end = |at: usize| bytes.len().checked_sub(at).map(|at| bytes[at]);
    // The last character of an escape such as `\n`, `%20` or `\u003d` is not part of a word.
    let is_escape = from_end(2) == Some(b'\\')
        || from_end(3) == Some(b'%')
        || (from_end(6), from_end(5)) == (Some(b'\\'), Some(b'u'));
    let is_alphanumeric = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    (is_escape || !is_alphanumeric(before.chars().next_back())) && !is_alphanumeric(after.chars().next())
}

/// Replaces each `${NAME}` in a URL by an environment variable. Returns the URL and the values.
///
/// # Errors
/// A variable is not set or not allowed in a URL. Messages contain the variable, never its value.
pub(super) fn expand_variables(url: &str) -> Result<(String, Vec<String>)> {
    let (mut whole, mut values, mut rest) = (String::new(), Vec::new(), url);
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, left)) = after.split_once('}') else { break };
        let value = std::env::var(name)
            .map_err(|_| Error::Config(format!("score.url: the environment variable `{name}` is not set")))?;
        if value.contains(|c: char| c == '#' || c.is_whitespace() || c.is_control()) {
            return Err(Error::Config(format!(
                "score.url: the environment variable `{name}` contains a character that is not allowed in a URL; percent-encode \
                 it, such as %23 for #"
            )));
        }
        whole.push_str(before);
        whole.push_str(&value);
        values.push(value);
        rest = left;
    }
    whole.push_str(rest);
    Ok((whole, values))
}

/// The name of a query parameter of a URL whose literal value looks like a secret.
pub(super) fn secret_parameter(url: &str) -> Option<&str> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_redacted_in_every_encoding() {
        let redacted_text = |secret: &str, text: &str| Secrets::new([secret]).redact_text(text);
        for (secret, text, expected) in [
            ("Bearer hunter2", "no such token: hunter2", "no such token: ***"),
            ("Bearer hunter2", "Bearer tokens only", "Bearer tokens only"),
            (r#"a/b"c\d"#, r#"{"token": "a\/b\"c\\d"}"#, r#"{"token": "***"}"#),
            ("pässwört", r#"p\u00e4ssw\u00F6rt pässwört p%C3%A4ssw%c3%b6rt"#, "*** *** ***"),
            ("pässwört", "pÃ¤sswÃ¶rt p\\u00c3\\u00a4ssw\\u00c3\\u00b6rt", "*** ***"),
            ("a😀bc", r"a\ud83d\ude00bc a\\ud83d\\ude00bc a😀bc", "*** *** ***"),
            ("a+b/c&d", "a%2Bb%2Fc%26d a+b/c&amp;d a&#43;b&#x2f;c&d", "*** *** ***"),
            ("a%2Fb%3D", "a%2Fb%3D a/b= a%252Fb%253D", "*** *** ***"),
            ("Basic dXNlcjpoaWRkZW4=", "user:hidden hidden dXNlcjpoaWRkZW4= dXNlcjpoaWRkZW4", "*** *** *** ***"),
            ("hunter2", "aHVudGVyMg== aHVudGVyMg", "***== ***"),
            ("ab", r#"key=ab, "ab" ab\nab about cab"#, r#"key=***, "***" ***\n*** about cab"#),
            ("7", "token 7 of 17: 0.7", "token *** of 17: 0.***"),
            ("", "nothing", "nothing"),
        ] {
            assert_eq!(redacted_text(secret, text), expected, "{secret}");
        }
    }
}
