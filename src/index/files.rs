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
    if let Some(folder) = files.iter().find_map(|file| partition(file.strip_prefix(items).unwrap_or(file))) {
        log::warn!("{}: the names of folders such as `{folder}` are not read as columns", items.display());
    }
    Ok(files)
}

/// The folder of a Hive partition that a file is in.
fn partition(file: &Path) -> Option<String> {
    let names = file.parent()?.iter().map(|name| name.to_string_lossy().into_owned());
    names.into_iter().find(|name| name.split_once('=').is_some_and(|(key, _)| !key.is_empty()))
}
