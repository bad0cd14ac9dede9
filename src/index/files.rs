//! Finds the Parquet input files that a path, a glob or a folder names.
//!
//! Files and folders whose names begin with `_` or `.` are skipped below a folder and in the matches of a wildcard, as in other
//! engines, because files that are still being written have such names. Parquet files with another extension below a folder are
//! skipped with a warning. A file or folder that cannot be read is an error, so that no items are missing silently.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::error::{AtPath, Error, Result};
use crate::io::format::Format;

/// The files that a path, a glob or a folder names, sorted.
pub(crate) fn find_files(items: &Path) -> Result<Vec<PathBuf>> {
    let mut found = FoundFiles::default();
    let mut none_found = "contains no .parquet files";
    match fs::metadata(items) {
        Ok(metadata) if metadata.is_dir() => found.add_folder(items, &mut Vec::new())?,
        Ok(metadata) => found.add_file(items.to_path_buf(), &metadata)?,
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).at_path(items),
        Err(_) if is_pattern(items.as_os_str()) => {
            none_found = "matches no file";
            found.add_glob(items)?;
        }
        Err(_) if items.is_symlink() => return Err(Error::input(items, DANGLING)),
        Err(_) => return Err(Error::input(items, "no such file or folder")),
    }
    if found.files.is_empty() {
        return Err(Error::input(items, format!("{none_found}{}", found.describe_others())));
    }
    if !found.hidden.is_empty() {
        let hidden = list_paths(&found.hidden);
        log::warn!("{}: skipped files and folders whose names begin with `_` or `.`: {hidden}", items.display());
    }
    if !found.misnamed.is_empty() {
        let misnamed = list_paths(&found.misnamed);
        log::warn!(
            "{}: skipped Parquet files whose names do not end with .parquet: {misnamed}; rename them, or give a glob that matches \
             them",
            items.display()
        );
    }
    let mut files: Vec<PathBuf> = found.files.into_values().collect();
    files.sort();
    if let Some(folder) = files.iter().find_map(|file| hive_partition(file.strip_prefix(items).unwrap_or(file))) {
        log::warn!("{}: Hive partitions such as `{folder}` are not read as columns", items.display());
    }
    Ok(files)
}

const DANGLING: &str = "a link to a missing file";

/// The components of a glob, each a pattern or a plain name.
type GlobComponents<'a> = &'a [Pattern];

/// The files that were found.
#[derive(Default)]
struct FoundFiles {
    /// The files by canonical path, with links resolved.
    files: BTreeMap<PathBuf, PathBuf>,
    /// Files and folders that were skipped because of their names, and may contain items.
    hidden: Vec<PathBuf>,
    /// Parquet files below a folder that were skipped because they have another extension.
    misnamed: Vec<PathBuf>,
    /// Other files and folders, which contain no items.
    other: Vec<PathBuf>,
}

impl FoundFiles {
    /// Adds a file.
    fn add_file(&mut self, path: PathBuf, metadata: &Metadata) -> Result<()> {
        if !metadata.is_file() {
            return Err(Error::input(path, "is neither a file nor a folder"));
        }
        let canonical = fs::canonicalize(&path).at_path(&path)?;
        match self.files.insert(canonical, path.clone()) {
            Some(other) if other != path => {
                let (first, second) = if other < path { (other, path) } else { (path, other) };
                let reason = format!("is the same file as {}, so its items would be indexed twice", first.display());
                Err(Error::input(second, format!("{reason}; remove one")))
            }
            _ => Ok(()),
        }
    }

    /// Adds all Parquet files below a folder. `ancestors` are the folders that contain it.
    fn add_folder(&mut self, folder: &Path, ancestors: &mut Vec<PathBuf>) -> Result<()> {
        enter_folder(folder, ancestors)?;
        for path in entries(folder)? {
            let is_parquet = is_parquet(&path);
            if is_hidden(&path) {
                self.skip(path);
                continue;
            }
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.add_folder(&path, ancestors)?,
                Ok(metadata) if is_parquet => self.add_file(path, &metadata)?,
                // A dangling link with another extension is ignored.
                Err(error) if is_parquet || error.kind() != ErrorKind::NotFound => return Err(unreadable(path, error)),
                Ok(metadata) if metadata.is_file() && matches!(Format::detect(&path), Ok(Format::Parquet)) => {
                    self.misnamed.push(path);
                }
                _ => self.other.push(path),
            }
        }
        ancestors.pop();
        Ok(())
    }

    /// Adds all files that match a glob, and all Parquet files below matching folders.
    fn add_glob(&mut self, glob: &Path) -> Result<()> {
        let (mut start, mut components) = (PathBuf::new(), Vec::new());
        for component in glob.components() {
            if components.is_empty() && !matches!(component, Component::Normal(_)) {
                start.push(component);
                continue;
            }
            let pattern = Pattern::new(&component.as_os_str().to_string_lossy());
            components
                .push(pattern.map_err(|error| Error::Config(format!("{}: not a glob: {error}", glob.display())))?);
        }
        self.add_matches(&start, &components, &mut Vec::new())
    }

    /// Adds the matches of the rest of a glob in a folder.
    fn add_matches(
        &mut self,
        folder: &Path,
        components: GlobComponents<'_>,
        ancestors: &mut Vec<PathBuf>,
    ) -> Result<()> {
        let current = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let Some((pattern, rest)) = components.split_first() else {
            return match fs::metadata(current) {
                Ok(metadata) if metadata.is_dir() => self.add_folder(current, &mut Vec::new()),
                Ok(metadata) => self.add_file(folder.to_path_buf(), &metadata),
                Err(error) => Err(unreadable(folder.to_path_buf(), error)),
            };
        };
        if !is_pattern(OsStr::new(pattern.as_str())) {
            let next = folder.join(pattern.as_str());
            return match fs::symlink_metadata(&next) {
                Ok(_) => self.add_matches(&next, rest, ancestors),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
                Err(error) => Err(error).at_path(next),
            };
        }
        let at_any_depth = pattern.as_str() == "**";
        if at_any_depth {
            if rest.is_empty() {
                return self.add_folder(current, ancestors);
            }
            self.add_matches(folder, rest, ancestors)?;
            enter_folder(current, ancestors)?;
        }
        for path in entries(current)? {
            let name = path.file_name().unwrap_or_default();
            let (path, name) = (folder.join(name), name.to_string_lossy());
            let is_folder = path.is_dir();
            let is_match = match at_any_depth {
                true => is_folder,
                false => pattern.matches_with(&name, OPTIONS) && (rest.is_empty() || is_folder),
            };
            match is_match {
                // A pattern that begins with `_` or `.` matches such names.
                true if is_hidden(&path) && !pattern.as_str().starts_with(&name[..1]) => self.skip(path),
                true if at_any_depth => self.add_matches(&path, components, ancestors)?,
                true => self.add_matches(&path, rest, ancestors)?,
                false if rest.is_empty() => self.other.push(path),
                false => {}
            }
        }
        if at_any_depth {
            ancestors.pop();
        }
        Ok(())
    }

    /// Skips a file or folder because of its name. It is reported if it may contain items.
    fn skip(&mut self, path: PathBuf) {
        let to = if is_parquet(&path) || contains_parquet(&path) { &mut self.hidden } else { &mut self.other };
        to.push(path);
    }

    /// Names some of the other files and folders, for a message.
    fn describe_others(&self) -> String {
        let mut others: Vec<PathBuf> =
            [&self.other, &self.misnamed, &self.hidden].into_iter().flatten().cloned().collect();
        others.sort();
        others.dedup();
        if others.is_empty() { String::new() } else { format!(" (there are: {})", list_paths(&others)) }
    }
}

const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// Adds a folder to its `ancestors`.
///
/// # Errors
/// A folder that contains itself by a link.
fn enter_folder(folder: &Path, ancestors: &mut Vec<PathBuf>) -> Result<()> {
    let canonical = fs::canonicalize(folder).at_path(folder)?;
    if ancestors.contains(&canonical) {
        let reason = "is a link to a folder that contains it; remove the link";
        return Err(Error::input(folder, reason));
    }
    ancestors.push(canonical);
    Ok(())
}

/// The paths in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries: io::Result<Vec<PathBuf>> =
        fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut entries = entries.at_path(folder)?;
    entries.sort();
    Ok(entries)
}

/// An error about a file or folder that cannot be read.
fn unreadable(path: PathBuf, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound if path.is_symlink() => Error::input(path, format!("{DANGLING}; remove the link")),
        _ => Error::Io { path, cause: error },
    }
}

fn is_pattern(name: &OsStr) -> bool {
    name.to_string_lossy().contains(['*', '?', '['])
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

/// Whether other engines skip a file or folder with this name.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['_', '.']))
}

/// Whether there are Parquet files below a folder. Unreadable folders are ignored.
fn contains_parquet(folder: &Path) -> bool {
    let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| match entry.file_type().is_ok_and(|file_type| file_type.is_dir()) {
        true => contains_parquet(&entry.path()),
        false => is_parquet(&entry.path()),
    })
}

/// The first few paths, and the number of the others.
fn list_paths(paths: &[PathBuf]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = paths.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
    let more = paths.len().saturating_sub(SHOWN);
    shown.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
}

/// The name of a Hive partition folder (`key=value`) that contains a file.
fn hive_partition(file: &Path) -> Option<String> {
    let names = file.parent()?.iter().map(|name| name.to_string_lossy().into_owned());
    names.into_iter().find(|name| name.split_once('=').is_some_and(|(key, _)| !key.is_empty()))
}
