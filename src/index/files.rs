//! The Parquet files that hold the items: what a path, a glob or a folder means.
//!
//! Names that begin with `_` or `.` are left out below a folder and where a wildcard finds them, files and folders, as other
//! engines leave them out: what is still being written has such names. What cannot be looked at is an error, so that nothing
//! is missing without a word.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::error::{AtPath, Error, Result};

/// The files that a path, a glob or a folder means, sorted.
pub(crate) fn find_files(items: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Found::default();
    let mut nothing = "no .parquet files there";
    match fs::metadata(items) {
        Ok(metadata) if metadata.is_dir() => found.below(items, &mut Vec::new())?,
        Ok(metadata) => found.file(items.to_path_buf(), &metadata)?,
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).at_path(items),
        Err(_) if is_pattern(items.as_os_str()) => {
            nothing = "no file matches it";
            found.matches(items)?;
        }
        Err(_) if items.is_symlink() => return Err(Error::input(items, DANGLING)),
        Err(_) => return Err(Error::input(items, "no such file or folder")),
    }
    if found.files.is_empty() {
        return Err(Error::input(items, format!("{nothing}{}", found.others())));
    }
    if !found.hidden.is_empty() {
        let hidden = listed(&found.hidden);
        log::warn!("{}: left out, as their names begin with `_` or `.`: {hidden}", items.display());
    }
    let mut files: Vec<PathBuf> = found.files.into_values().collect();
    files.sort();
    if let Some(folder) = files.iter().find_map(|file| partition(file.strip_prefix(items).unwrap_or(file))) {
        log::warn!("{}: the names of folders such as `{folder}` are not read as columns", items.display());
    }
    Ok(files)
}

const DANGLING: &str = "a link to what is not there";

/// A glob's components, each a pattern or a plain name.
type Steps<'a> = &'a [Pattern];

/// What was found.
#[derive(Default)]
struct Found {
    /// By where they are when links are followed.
    files: BTreeMap<PathBuf, PathBuf>,
    /// What was left out because of its name, though it may hold items.
    hidden: Vec<PathBuf>,
    /// What holds no items.
    other: Vec<PathBuf>,
}

impl Found {
    fn file(&mut self, path: PathBuf, metadata: &Metadata) -> Result<()> {
        if !metadata.is_file() {
            return Err(Error::input(path, "neither a file nor a folder"));
        }
        let place = fs::canonicalize(&path).at_path(&path)?;
        match self.files.insert(place, path.clone()) {
            Some(other) if other != path => {
                let (first, second) = if other < path { (other, path) } else { (path, other) };
                let reason = format!("the same file as {}, its items would be there twice", first.display());
                Err(Error::input(second, format!("{reason}; take one out")))
            }
            _ => Ok(()),
        }
    }

    /// All Parquet files below a folder, which stands `within` others that are being looked at.
    fn below(&mut self, folder: &Path, within: &mut Vec<PathBuf>) -> Result<()> {
        enter(folder, within)?;
        for path in entries(folder)? {
            let is_parquet = is_parquet(&path);
            if is_hidden(&path) {
                self.leave_out(path);
                continue;
            }
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.below(&path, within)?,
                Ok(metadata) if is_parquet => self.file(path, &metadata)?,
                // Also a link of another name that leads nowhere.
                Err(error) if is_parquet || error.kind() != ErrorKind::NotFound => return Err(unreadable(path, error)),
                _ => self.other.push(path),
            }
        }
        within.pop();
        Ok(())
    }

    /// All files that match a glob, and those below the folders that do.
    fn matches(&mut self, glob: &Path) -> Result<()> {
        let (mut start, mut steps) = (PathBuf::new(), Vec::new());
        for component in glob.components() {
            if steps.is_empty() && !matches!(component, Component::Normal(_)) {
                start.push(component);
                continue;
            }
            let step = Pattern::new(&component.as_os_str().to_string_lossy());
            steps.push(step.map_err(|error| Error::Config(format!("{}: not a glob: {error}", glob.display())))?);
        }
        self.follow(&start, &steps, &mut Vec::new())
    }

    /// What the rest of a glob matches in a folder.
    fn follow(&mut self, folder: &Path, steps: Steps<'_>, within: &mut Vec<PathBuf>) -> Result<()> {
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let Some((step, rest)) = steps.split_first() else {
            return match fs::metadata(here) {
                Ok(metadata) if metadata.is_dir() => self.below(here, &mut Vec::new()),
                Ok(metadata) => self.file(folder.to_path_buf(), &metadata),
                Err(error) => Err(unreadable(folder.to_path_buf(), error)),
            };
        };
        if !is_pattern(OsStr::new(step.as_str())) {
            let next = folder.join(step.as_str());
            return match fs::symlink_metadata(&next) {
                Ok(_) => self.follow(&next, rest, within),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
                Err(error) => Err(error).at_path(next),
            };
        }
        let at_any_depth = step.as_str() == "**";
        if at_any_depth {
            if rest.is_empty() {
                return self.below(here, within);
            }
            self.follow(folder, rest, within)?;
            enter(here, within)?;
        }
        for path in entries(here)? {
            let name = path.file_name().unwrap_or_default();
            let (path, name) = (folder.join(name), name.to_string_lossy());
            let is_folder = path.is_dir();
            let is_meant = match at_any_depth {
                true => is_folder,
                false => step.matches_with(&name, OPTIONS) && (rest.is_empty() || is_folder),
            };
            match is_meant {
                // A pattern that begins so asks for such names.
                true if is_hidden(&path) && !step.as_str().starts_with(&name[..1]) => self.leave_out(path),
                true if at_any_depth => self.follow(&path, steps, within)?,
                true => self.follow(&path, rest, within)?,
                false if rest.is_empty() => self.other.push(path),
                false => {}
            }
        }
        if at_any_depth {
            within.pop();
        }
        Ok(())
    }

    /// Leaves out a file or folder because of its name: to be told, if it may hold items.
    fn leave_out(&mut self, path: PathBuf) {
        let to = if is_parquet(&path) || holds_parquet(&path) { &mut self.hidden } else { &mut self.other };
        to.push(path);
    }

    /// What there was instead.
    fn others(&self) -> String {
        let mut there: Vec<PathBuf> = self.other.iter().chain(&self.hidden).cloned().collect();
        there.sort();
        there.dedup();
        if there.is_empty() { String::new() } else { format!(" (there are: {})", listed(&there)) }
    }
}

const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// Notes that a folder is being looked at.
///
/// # Errors
/// It stands in itself, by a link.
fn enter(folder: &Path, within: &mut Vec<PathBuf>) -> Result<()> {
    let place = fs::canonicalize(folder).at_path(folder)?;
    if within.contains(&place) {
        let reason = "a link to a folder that it stands in: its items would come again and again; take it out";
        return Err(Error::input(folder, reason));
    }
    within.push(place);
    Ok(())
}

/// What is in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries: io::Result<Vec<PathBuf>> =
        fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut entries = entries.at_path(folder)?;
    entries.sort();
    Ok(entries)
}

fn unreadable(path: PathBuf, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound if path.is_symlink() => Error::input(path, format!("{DANGLING}; take it out")),
        _ => Error::Io { path, cause: error },
    }
}

fn is_pattern(name: &OsStr) -> bool {
    name.to_string_lossy().contains(['*', '?', '['])
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

/// Whether other engines would leave out a file or folder because of its name.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['_', '.']))
}

/// Whether there are Parquet files below a folder, as far as one can see.
fn holds_parquet(folder: &Path) -> bool {
    let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| match entry.file_type().is_ok_and(|file_type| file_type.is_dir()) {
        true => holds_parquet(&entry.path()),
        false => is_parquet(&entry.path()),
    })
}

/// Some of the names, and how many more there are.
fn listed(paths: &[PathBuf]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = paths.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
    let more = paths.len().saturating_sub(SHOWN);
    shown.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
}

/// The folder of a Hive partition that a file is in.
fn partition(file: &Path) -> Option<String> {
    let names = file.parent()?.iter().map(|name| name.to_string_lossy().into_owned());
    names.into_iter().find(|name| name.split_once('=').is_some_and(|(key, _)| !key.is_empty()))
}
