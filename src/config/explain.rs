//! Error messages for run files: the line or key, the expected and the found value, and a suggestion.

use crate::error::Error;
use crate::suggest::closest_name;

/// A TOML error of a text, with its line and key.
pub(super) fn error_with_line(text: &str, error: &toml::de::Error) -> Error {
    let message = explain(error.message());
    match error.span() {
        // The span of a missing section is the whole text.
        Some(span) if !message.starts_with("missing section") => {
            let line = text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
            // Without the value, because it may be a secret.
            let key = text.lines().nth(line).and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
            let is_key = |key: &&str| key.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
            let is_about_value =
                error.message().starts_with("invalid") || error.message().starts_with("unknown variant");
            let key = key.filter(is_key).filter(|_| is_about_value).map_or(String::new(), |key| format!("`{key}`: "));
            Error::Config(format!("line {}: {key}{message}", line + 1))
        }
        _ => Error::Config(message),
    }
}

/// A TOML error of a table, with its key, which the crate `toml` prints below its message.
pub(super) fn error_with_key(error: &toml::de::Error) -> Error {
    let text = error.to_string();
    let key = text.lines().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'));
    Error::Config(key.map_or(String::new(), |key| format!("{key}: ")) + &explain(error.message()))
}

/// Rewrites a message of serde in the terms of run files, and suggests the key or value that was probably meant.
pub(super) fn explain(message: &str) -> String {
    let message = message.lines().next().unwrap_or(message);
    if let Some(key) = message.strip_prefix("missing field ") {
        return match key.trim_matches('`') {
            section @ ("database" | "score") => format!("missing section [{section}]"),
            _ => format!("missing key {key}"),
        };
    }
    if message.starts_with("unknown") {
        return unknown_name(message);
    }
    // A list in the place of a section.
    let length = message.strip_prefix("invalid length ").and_then(|length| length.split_once(", expected struct "));
    if let Some((length, _)) = length {
        return format!("expected a section, found a list of length {length}");
    }
    let mismatch = message.strip_prefix("invalid type: ").or(message.strip_prefix("invalid value: "));
    match mismatch.and_then(|mismatch| mismatch.rsplit_once(", expected ")) {
        Some((found, expected)) => format!("expected {}, found {}", plain_expected(expected), plain_found(found)),
        None => message.to_string(),
    }
}

/// The message for a key or value that serde does not know. Serde's message names it first, and then the valid ones.
fn unknown_name(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let Some((wrong, valid)) = quoted.split_first() else { return message.to_string() };
    let kind = if message.starts_with("unknown variant") { "value" } else { "key" };
    match closest_name(wrong, valid.iter().copied()) {
        Some(nearest) => format!("unknown {kind} `{wrong}`; did you mean `{nearest}`?"),
        None => format!("unknown {kind} `{wrong}`; valid {kind}s are {}", valid.join(", ")),
    }
}

/// The type that serde expects, in the terms of run files.
fn plain_expected(expected: &str) -> &str {
    match expected {
        "u64" | "u32" | "usize" => "a whole number",
        "f64" | "f32" => "a number",
        "a sequence" => "a list",
        "a map" => "a section",
        // The types of sections.
        _ if expected.starts_with("struct ") || expected.starts_with("internally tagged ") => "a section",
        _ => expected,
    }
}

/// The type that serde found, in the terms of run files.
fn plain_found(found: &str) -> &str {
    match found {
        "sequence" => "a list",
        "map" => "a section",
        _ => found,
    }
}
