//! Reading text files: UTF-8, or UTF-16 with a byte order mark. Spreadsheets save both.

use std::path::Path;

use crate::error::{AtPath, Error, Result};

/// Reads the text of a file without the byte order mark. Messages name `path`.
pub(super) fn read(local: &Path, path: &Path) -> Result<String> {
    let bytes = std::fs::read(local).at_path(path)?;
    let decode_utf_16 = |bytes: &[u8], order: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes.as_chunks::<2>();
        let text = String::from_utf16(&units.iter().map(|unit| order(*unit)).collect::<Vec<_>>());
        text.ok().filter(|_| rest.is_empty()).ok_or_else(|| Error::input(path, "is damaged: invalid UTF-16"))
    };
    match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => decode_utf_16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => decode_utf_16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => utf_8(rest.to_vec(), path),
        _ => utf_8(bytes, path),
    }
}

fn utf_8(bytes: Vec<u8>, path: &Path) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let valid_bytes = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid_bytes].iter().filter(|byte| **byte == b'\n').count() + 1;
        let reason = format!("line {line} is not UTF-8; save it as \"CSV UTF-8\", or as Parquet");
        Error::input(path, reason)
    })
}
