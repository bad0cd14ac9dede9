//! Removing a run: its folder, and the tag that keeps the dataset version it reads.

use std::fs;
use std::path::Path;

use super::manifest::{Manifest, REMOVED, TAG, read_manifest, read_manifest_at};
use super::times;
use crate::database::{LanceDatabase, local_path};
use crate::error::{AtPath, Result};
use crate::io::atomic;

/// Removes a run folder, and the tag that kept its version of the dataset. If the tag cannot be taken away (the dataset
/// is gone, or may not be written to) a warning says so. What is in the folder and not the run's stays there.
///
/// First run.json gets another name: from then on no program takes the folder for a run, and a removal that was killed
/// is finished by the next.
///
/// # Errors
/// What is not a run folder; a run that another process writes to; a folder that may not be written to.
pub fn remove(run: impl AsRef<Path>) -> Result<()> {
    remove_run(run.as_ref(), None)
}

/// As [`remove`], of a run whose library was moved since: the tag is taken away where it is now.
///
/// # Errors
/// As [`remove`].
pub fn remove_from(run: impl AsRef<Path>, library: impl AsRef<str>) -> Result<()> {
    remove_run(run.as_ref(), Some(library.as_ref()))
}

fn remove_run(run: &Path, library: Option<&str>) -> Result<()> {
    let run = &local_path(run)?;
    let (file, mark) = (run.join("run.json"), run.join(REMOVED));
    let manifest = || match mark.exists() && !file.exists() {
        true => read_manifest_at(run, &mark),
        false => read_manifest(run),
    };
    // A folder that is not a run's gets no lock file.
    manifest()?;
    let lock = atomic::lock(run)?;
    let manifest = manifest()?;
    if file.exists() {
        atomic::publish(&file, &mark)?;
    }
    release(&manifest, library);
    for name in ["results", "queries", "ledger", "stderr", "tmp"] {
        atomic::remove_dir_all(&run.join(name))?;
    }
    times::remove(run)?;
    atomic::remove_file(&run.join("lock"))?;
    drop(lock);
    atomic::remove_file(&mark)?;
    let mut left: Vec<String> = Vec::new();
    for entry in fs::read_dir(run).at_path(run)? {
        left.push(entry.at_path(run)?.file_name().to_string_lossy().into_owned());
    }
    if left.is_empty() {
        // The folder may be the one that the process is in, or have its name by a link.
        atomic::remove_dir_all(&fs::canonicalize(run).at_path(run)?)?;
        return if run.is_symlink() { atomic::remove_file(run) } else { Ok(()) };
    }
    left.sort();
    log::warn!("{}: the folder stays, as these are not the run's: {}", run.display(), left.join(", "));
    Ok(())
}

fn release(manifest: &Manifest, library: Option<&str>) {
    // Whatever a damaged run.json says, other tags are not ours.
    let tag = manifest.version_tag.as_ref().filter(|tag| tag.starts_with(TAG));
    let (Some(tag), Some(dataset)) = (tag, &manifest.dataset) else { return };
    let Some(library) = library.or(manifest.library()) else { return };
    let why = match LanceDatabase::release_version(library, tag) {
        Ok(true) => return,
        Ok(false) => format!("{library}: has no tag {tag}; if this is not the run's dataset, that one"),
        Err(error) => format!("{error}; if the dataset is still there, it"),
    };
    log::warn!(
        "{why} keeps version {} under the tag {tag}, until lance.dataset(\"…\").tags.delete(\"{tag}\")",
        dataset.version
    );
}
