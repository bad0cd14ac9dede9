//! Feature files: the encoded features of a column, computed once and stored.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use ndarray::{ArrayView2, ArrayViewMut2};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::Role;
use crate::error::{AtPath, Error, Result, WrapErr};

/// The version of the file layout and of the encoders. Files of another version are computed again.
pub(super) const FORMAT: u32 = 1;

/// The header: the first line of a file, as JSON. The values follow, row by row, as little-endian f32, and then the BLAKE3 hash of
/// everything before it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    format: u32,
    pub(crate) column: String,
    pub(crate) role: Role,
    /// The number of values per row; 0 if the column has no information.
    pub(crate) width: usize,
}

/// Writes a feature file block by block. The file appears when it is complete.
pub(crate) struct FeatureWriter {
    file: BufWriter<NamedTempFile>,
    hasher: blake3::Hasher,
    target: PathBuf,
}

impl FeatureWriter {
    pub(crate) fn create(target: &Path, column: &str, role: Role, width: usize) -> Result<Self> {
        let folder = crate::io::atomic::parent_dir(target);
        let file = BufWriter::new(NamedTempFile::new_in(folder).at_path(folder)?);
        let mut writer = FeatureWriter { file, hasher: blake3::Hasher::new(), target: target.into() };
        let header = serde_json::to_string(&Header { format: FORMAT, column: column.into(), role, width })
            .wrap_err("features")?;
        writer.add(format!("{header}\n").as_bytes())?;
        Ok(writer)
    }

    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).at_path(&self.target)
    }

    pub(crate) fn rows(&mut self, values: ArrayView2<'_, f32>) -> Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.add(&bytes)
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        let hash = *self.hasher.finalize().as_bytes();
        self.file.write_all(&hash).at_path(&self.target)?;
        let file = self.file.into_inner().map_err(|error| error.into_error()).at_path(&self.target)?;
        file.persist(&self.target).map_err(|error| error.error).at_path(&self.target)?;
        Ok(())
    }
}

/// The longest supported header in bytes.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// Bytes of the hash.
const HASH_BYTES: u64 = 32;

/// An open feature file whose size agrees with its header.
pub(crate) struct FeatureReader {
    pub(crate) header: Header,
    file: BufReader<File>,
    hasher: blake3::Hasher,
    path: PathBuf,
}

impl FeatureReader {
    /// Opens the feature file of a library with `rows` items. `None` if there is no such file, or it has another version.
    ///
    /// # Errors
    /// The size of the file does not agree with its header: it is damaged. Nothing is allocated before this check.
    pub(crate) fn open(path: &Path, rows: usize) -> Result<Option<Self>> {
        let Ok(file) = File::open(path) else { return Ok(None) };
        let bytes = file.metadata().at_path(path)?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut line = Vec::new();
        file.by_ref().take(MAX_HEADER_BYTES).read_until(b'\n', &mut line).at_path(path)?;
        let header: Header =
            serde_json::from_slice(&line).map_err(|error| Error::input(path, format!("damaged header: {error}")))?;
        if header.format != FORMAT {
            return Ok(None);
        }
        let row_bytes = (header.width as u64).checked_mul(4).filter(|row_bytes| *row_bytes <= bytes);
        let value_bytes = row_bytes.and_then(|row_bytes| row_bytes.checked_mul(rows as u64));
        let expected = value_bytes.and_then(|value_bytes| value_bytes.checked_add(line.len() as u64 + HASH_BYTES));
        if expected != Some(bytes) {
            let reason = format!("damaged: {bytes} bytes do not hold {} values for each of {rows} items", header.width);
            return Err(Error::input(path, reason));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&line);
        Ok(Some(FeatureReader { header, file, hasher, path: path.into() }))
    }

    /// Reads all rows into an array of shape `(rows, width)`.
    ///
    /// # Errors
    /// The checksum does not match: the file is damaged.
    pub(crate) fn read(mut self, mut values: ArrayViewMut2<'_, f32>) -> Result<()> {
        let mut bytes = vec![0u8; self.header.width * 4];
        for mut row in values.rows_mut() {
            self.file.read_exact(&mut bytes).at_path(&self.path)?;
            self.hasher.update(&bytes);
            for (value, bytes) in row.iter_mut().zip(bytes.chunks_exact(4)) {
                *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
        let mut hash = Vec::new();
        self.file.take(HASH_BYTES + 1).read_to_end(&mut hash).at_path(&self.path)?;
        match hash == self.hasher.finalize().as_bytes() {
            true => Ok(()),
            false => Err(Error::input(&self.path, "damaged: the checksum does not match")),
        }
    }
}
