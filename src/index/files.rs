//! The Parquet files that hold the items.

use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::{AtPath, Doing, Error, Result, one_line};

/// The files that a path, a glob or a folder means, sorted.
pub(crate) fn find_files(items: &Path) -> Result<Vec<PathBuf>> {
    let pattern = items.to_string_lossy();
    let mut files: Vec<PathBuf> = if items.is_file() {
        vec![items.to_path_buf()]
    } else if items.is_dir() {
        let below = format!("{}/**/*.parquet", glob::Pattern::escape(&pattern));
        glob::glob(&below)
            .doing("reading the folder")?
            .filter_map(|path| path.ok())
            .filter(|path| path.is_file())
            .collect()
    } else if pattern.contains(['*', '?', '[']) {
        let matches = glob::glob(&pattern).map_err(|error| Error::Config(format!("{pattern}: not a glob: {error}")))?;
        matches.filter_map(|path| path.ok()).filter(|path| path.is_file()).collect()
    } else {
        return Err(Error::input(items, "no such file or folder"));
    };
    if files.is_empty() {
        return Err(Error::input(items, "no .parquet files there"));
    }
    files.sort();
    Ok(files)
}

/// Opens a file to be read, or only for its columns and counts.
pub(super) fn open_parquet(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).at_path(path)?;
    ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| Error::input(path, format!("cannot read it as Parquet: {}", one_line(&error.to_string()))))
}
