//! The Parquet files that hold the items.

use std::path::{Path, PathBuf};

use crate::error::{Doing, Error, Result};

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
