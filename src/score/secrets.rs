//! Values from the environment that a request carries, and that must show nowhere else.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::answers::excerpt;
use super::json::NUMBER;
use crate::error::{Error, Result};

/// Secrets from so many bytes on are looked for in the names of fields, too.
const LONG: usize = 12;

/// Secrets of fewer characters are blanked as words of their own only: within words they are no secrets.
const SHORT: usize = 4;

/// The most of a body that is looked at to show its beginning.
const SHOWN: usize = 1 << 16;

/// Values that are taken out of whatever a service says.
pub(super) struct Secrets {
    words: Vec<String>,
}

impl Secrets {
    /// Of the values of headers and of variables in a URL. Of `Bearer abc`, `abc` alone is one too; of `Basic dTpw` also the
    /// name and password in it.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut words: Vec<String> = values.into_iter().flat_map(parts).flat_map(|part| forms(&part)).collect();
        words.retain(|word| !word.is_empty());
        // The longest first: one may be a part of another.
        words.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        words.dedup();
        Secrets { words }
    }

    /// A text without them, however they are escaped in it.
    pub fn redacted(&self, text: &str) -> String {
        let (mut clean, mut at) = (String::with_capacity(text.len()), 0);
        while let Some(next) = text[at..].chars().next() {
            match self.words.iter().find_map(|word| secret_at(text, at, word)) {
                Some(length) => {
                    clean.push_str("***");
                    at += length;
                }
                None => {
                    clean.push(next);
                    at += next.len_utf8();
                }
            }
        }
        clean
    }

    /// The beginning of what a service said, on one line, in quotes, without them.
    pub fn excerpt(&self, body: &[u8]) -> String {
        let body = &body[..body.len().min(SHOWN)];
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

/// A header's value, what follows its scheme, and of `Basic` what is encoded there.
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

/// A secret, and what others make of it: read byte by byte as Latin-1, decoded from a URL, encoded in base64.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_string(), percent_decoded(secret)];
    if !secret.is_ascii() {
        forms.push(secret.bytes().map(char::from).collect());
    }
    forms.extend([STANDARD_NO_PAD.encode(secret), URL_SAFE_NO_PAD.encode(secret)]);
    forms
}

/// A text with each `%XX` as the byte that it stands for; as it is, if that makes no text.
pub(super) fn percent_decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((byte, after)) = rest.split_first() {
        let code = if *byte == b'%' { hex(after, 2) } else { None };
        bytes.push(code.map_or(*byte, |code| code as u8));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.into())
}

/// The number in the first hexadecimal digits of a text.
fn hex(text: &[u8], digits: usize) -> Option<u32> {
    let digits = text.get(..digits).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// How many bytes of a text are a secret that begins there.
fn secret_at(text: &str, at: usize, secret: &str) -> Option<usize> {
    let length = length_of(&text[at..], secret)?;
    let is_shown = secret.chars().nth(SHORT - 1).is_some() || is_word(&text[..at], &text[at + length..]);
    is_shown.then_some(length)
}

/// How many bytes at the beginning of a text stand for a secret.
fn length_of(text: &str, secret: &str) -> Option<usize> {
    let Some(first) = secret.chars().next() else { return Some(0) };
    let rest = &secret[first.len_utf8()..];
    let forms = [literal(text, first), in_json(text, first), in_url(text, first), in_html(text, first)];
    forms.into_iter().flatten().find_map(|length| Some(length + length_of(&text[length..], rest)?))
}

fn literal(text: &str, c: char) -> Option<usize> {
    text.starts_with(c).then_some(c.len_utf8())
}

/// As JSON and Python escape it, in a text that may be escaped itself: `\/`, `\"`, `\u00e4`, `\xe4`.
fn in_json(text: &str, c: char) -> Option<usize> {
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

/// As a URL has it: `%C3%A4`, and `+` for a space.
fn in_url(text: &str, c: char) -> Option<usize> {
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

/// As HTML has it: `&amp;`, `&#228;`, `&#xe4;`.
fn in_html(text: &str, c: char) -> Option<usize> {
    let rest = text.strip_prefix('&')?;
    let entity = &rest[..rest.bytes().take(10).position(|byte| byte == b';')?];
    let code = || match entity.strip_prefix('#')?.strip_prefix(['x', 'X']) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => entity[1..].parse().ok(),
    };
    let is_it = match entity {
        "amp" => c == '&',
        "lt" => c == '<',
        "gt" => c == '>',
        "quot" => c == '"',
        "apos" => c == '\'',
        _ => code() == Some(c.into()),
    };
    is_it.then_some(entity.len() + 2)
}

/// Whether what stands between two texts is a word of its own.
fn is_word(before: &str, after: &str) -> bool {
    let bytes = before.as_bytes();
    let from_end = |at: usize| bytes.len().checked_sub(at).map(|at| bytes[at]);
    // The letter of an escape such as `\n`, `%20` or `\u003d` is no letter.
    let is_escape = from_end(2) == Some(b'\\')
        || from_end(3) == Some(b'%')
        || (from_end(6), from_end(5)) == (Some(b'\\'), Some(b'u'));
    let is_glued = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    (is_escape || !is_glued(before.chars().next_back())) && !is_glued(after.chars().next())
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
        if value.contains(|c: char| c == '#' || c.is_whitespace() || c.is_control()) {
            return Err(Error::Config(format!(
                "score.url: the environment variable `{name}` has a character that would end the URL or break it: write it \
                 percent-encoded, such as %23 for #"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_blanked_however_it_is_written() {
        let blanked = |secret: &str, text: &str| Secrets::new([secret]).redacted(text);
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
            assert_eq!(blanked(secret, text), expected, "{secret}");
        }
    }
}
