//! Features of a column in a file, so that they are made once.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use ndarray::{ArrayView2, ArrayViewMut2};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::Role;
use crate::error::{AtPath, Doing, Error, Result};

/// The layout of these files, and how features are made: files of another one are made anew.
pub(super) const FORMAT: u32 = 1;

/// The first line of a file, as JSON. Below it stand the numbers, row by row, f32 in little-endian order; then a hash of
/// all that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    format: u32,
    pub(crate) column: String,
    pub(crate) role: Role,
    /// Numbers of a row; none if the column says nothing.
    pub(crate) width: usize,
}

/// Writes a file block by block. It appears when it is complete.
pub(crate) struct Writer {
    file: BufWriter<NamedTempFile>,
    hasher: blake3::Hasher,
    target: PathBuf,
}

impl Writer {
    pub(crate) fn create(target: &Path, column: &str, role: Role, width: usize) -> Result<Self> {
        let folder = crate::folder::parent(target);
        let file = BufWriter::new(NamedTempFile::new_in(folder).at_path(folder)?);
        let mut writer = Writer { file, hasher: blake3::Hasher::new(), target: target.into() };
        let header =
            serde_json::to_string(&Header { format: FORMAT, column: column.into(), role, width }).doing("features")?;
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

/// An open file.
pub(crate) struct Reader {
    pub(crate) header: Header,
    file: BufReader<File>,
    hasher: blake3::Hasher,
    path: PathBuf,
}

impl Reader {
    /// `None` if there is no such file, or one of another format.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        let mut file = BufReader::with_capacity(1 << 20, File::open(path).ok()?);
        let mut line = String::new();
        file.read_line(&mut line).ok()?;
        let header: Header = serde_json::from_str(&line).ok().filter(|header: &Header| header.format == FORMAT)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(line.as_bytes());
        Some(Reader { header, file, hasher, path: path.into() })
    }

    /// Reads all rows `(rows, width)`.
    ///
    /// # Errors
    /// Another number of rows, or other values than were written: the file is damaged.
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
        self.file.read_to_end(&mut hash).at_path(&self.path)?;
        match hash == self.hasher.finalize().as_bytes() {
            true => Ok(()),
            false => Err(Error::input(&self.path, "damaged: other numbers than were written")),
        }
    }
}
