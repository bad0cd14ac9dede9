//! Reads JSON with exact floats. serde_json may round the last digit.

use serde::de::DeserializeOwned;
use serde_json::{Number, Value};

/// Marks a number that serde_json would reject or round. Texts do not begin with this control character.
pub(crate) const NUMBER_MARK: char = '\u{1}';

/// Parses JSON as serde_json does, but reads floats exactly.
///
/// # Errors
/// As [`serde_json::from_str`].
pub(crate) fn parse_exact<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    // Errors name the position in the original text.
    serde_json::from_str::<T>(text)?;
    let mut value = serde_json::from_str(&quote_floats(text))?;
    restore_floats(&mut value);
    serde_json::from_value(value)
}

/// Replaces marked strings by floats.
fn restore_floats(value: &mut Value) {
    match value {
        Value::String(text) => {
            let float = text.strip_prefix(NUMBER_MARK).and_then(|word| Number::from_f64(word.parse().ok()?));
            if let Some(float) = float {
                *value = Value::Number(float);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(restore_floats),
        Value::Object(fields) => fields.values_mut().for_each(restore_floats),
        _ => {}
    }
}

/// Replaces each float, NaN and infinity by a marked string. Invalid JSON stays invalid.
pub(crate) fn quote_floats(text: &str) -> String {
    let bytes = text.as_bytes();
    let is_of_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let mut quoted = String::with_capacity(text.len() + text.len() / 4);
    let (mut position, mut copied) = (0, 0);
    while position < bytes.len() {
        let start = position;
        match bytes[position] {
            b'"' => {
                position += 1;
                while position < bytes.len() && bytes[position] != b'"' {
                    position += if bytes[position] == b'\\' { 2 } else { 1 };
                }
                position += 1;
            }
            byte if is_of_word(byte) => {
                while position < bytes.len() && is_of_word(bytes[position]) {
                    position += 1;
                }
                let word = &text[start..position];
                let is_float = word.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) && is_json_number(word);
                if is_float || matches!(word, "NaN" | "Infinity" | "-Infinity") {
                    quoted.push_str(&text[copied..start]);
                    quoted.push_str("\"\\u0001");
                    quoted.push_str(word);
                    quoted.push('"');
                    copied = position;
                }
            }
            _ => position += 1,
        }
    }
    quoted.push_str(&text[copied..]);
    quoted
}

/// Whether a word is a number in JSON. Rust also parses words that are not, such as `1.`.
fn is_json_number(word: &str) -> bool {
    let word = word.strip_prefix('-').unwrap_or(word);
    word.starts_with(|c: char| c.is_ascii_digit())
        && !word.contains(".e")
        && !word.contains(".E")
        && !word.ends_with('.')
        && word.parse::<f64>().is_ok()
}

/// JSON without the marks of [`quote_floats`].
pub(crate) fn without_marks(value: &Value) -> String {
    let text = value.to_string();
    let mut parts = text.split("\"\\u0001");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |text, part| text + &part.replacen('"', "", 1))
}
