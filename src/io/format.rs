//! Detection of file formats by magic bytes.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{AtPath, Result};

/// The number of bytes that are read for detection.
const HEADER_BYTES: usize = 4096;

/// The format of a table file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Parquet,
    /// JSON: a list of objects, or one object per line.
    Json,
    /// CSV with commas, semicolons or tabs, or any other text.
    Csv,
    /// An empty file.
    Empty,
    /// An unsupported format.
    Other(OtherFormat),
}

/// An unsupported format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtherFormat {
    name: &'static str,
    /// The Polars function that reads the format, if there is one.
    polars_reader: Option<&'static str>,
}

/// The magic bytes of a format.
struct Signature {
    bytes: &'static [u8],
    format: OtherFormat,
}

const fn signature(bytes: &'static [u8], name: &'static str, polars_reader: Option<&'static str>) -> Signature {
    Signature { bytes, format: OtherFormat { name, polars_reader } }
}

/// The magic bytes of unsupported formats.
const SIGNATURES: [Signature; 18] = [
    signature(b"ARROW1", "an Arrow (Feather) file", Some("read_ipc")),
    signature(b"\xff\xff\xff\xff", "an Arrow stream", Some("read_ipc_stream")),
    signature(b"\xd0\xcf\x11\xe0", "an Excel workbook", Some("read_excel")),
    signature(b"Obj\x01", "an Avro file", Some("read_avro")),
    signature(b"ORC", "an ORC file", None),
    signature(b"\x93NUMPY", "a NumPy array", None),
    signature(b"\x89HDF", "an HDF5 file", None),
    signature(b"SQLite format 3", "an SQLite database", None),
    signature(b"\x1f\x8b", "compressed with gzip", None),
    signature(b"\x28\xb5\x2f\xfd", "compressed with zstd", None),
    signature(b"BZh", "compressed with bzip2", None),
    signature(b"\xfd7zXZ", "compressed with xz", None),
    signature(b"%PDF", "a PDF", None),
    signature(b"<!DOCTYPE", "a web page", None),
    signature(b"<html", "a web page", None),
    signature(b"<?xml", "an XML file", None),
    signature(b"{\\rtf", "an RTF text", None),
    signature(b"version https://git-lfs", "a pointer of Git LFS, without the file", None),
];

impl Format {
    /// Detects the format of a file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn detect(path: &Path) -> Result<Self> {
        let mut head = Vec::with_capacity(HEADER_BYTES);
        File::open(path).and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut head)).at_path(path)?;
        Ok(Self::from_header(&head, path))
    }

    fn other(name: &'static str, polars_reader: Option<&'static str>) -> Self {
        Format::Other(OtherFormat { name, polars_reader })
    }

    fn from_header(head: &[u8], path: &Path) -> Self {
        if head.is_empty() {
            return Format::Empty;
        }
        if head.starts_with(b"PAR1") || head.starts_with(b"PARE") {
            return Format::Parquet;
        }
        if head.starts_with(b"PK\x03\x04") {
            return detect_zip(path);
        }
        if let Some(signature) = SIGNATURES.iter().find(|signature| head.starts_with(signature.bytes)) {
            return Format::Other(signature.format);
        }
        let is_utf_16 = head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff");
        if head.contains(&0) && !is_utf_16 {
            return Format::other("of an unknown format", None);
        }
        let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
        match head.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{' | b'[') => Format::Json,
            _ => Format::Csv,
        }
    }

    /// How to convert the file to Parquet, in one line.
    pub(crate) fn conversion_hint(self) -> String {
        let reader = match self {
            Format::Csv => Some("read_csv"),
            Format::Json => Some("read_json"),
            Format::Other(other) => other.polars_reader,
            Format::Parquet | Format::Empty => None,
        };
        match reader {
            Some(reader) => format!("write it as Parquet, with Polars: pl.{reader}(…).write_parquet(…)"),
            None => "write it as Parquet".into(),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Parquet => "Parquet",
            Format::Json => "JSON",
            Format::Csv => "CSV or other text",
            Format::Empty => "empty",
            Format::Other(other) => other.name,
        })
    }
}

/// Detects formats that are zip archives, by the extension of the file.
fn detect_zip(path: &Path) -> Format {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match extension.as_str() {
        "xlsx" | "xlsm" | "xlsb" => Format::other("an Excel workbook", Some("read_excel")),
        "ods" => Format::other("an OpenDocument sheet", Some("read_ods")),
        "npz" => Format::other("an archive of NumPy arrays", None),
        _ => Format::other("a zip archive (an Excel workbook is one, too)", None),
    }
}
