//! Removes a run: its folder, and the tag that protects the dataset version that it reads.

use std::fs;
use std::path::Path;

use super::manifest::{Manifest, REMOVED_MANIFEST, TAG_PREFIX, read_manifest, read_manifest_at};
use super::stage_times;
use crate::database::{LanceDatabase, local_path};
use crate::error::{AtPath, Result};
use crate::io::atomic;

/// Removes a run folder, and the tag that protects its dataset version. Warns if the tag cannot be deleted, because the dataset
/// may be gone or read-only. Keeps files in the folder that do not belong to the run.
///
/// First, run.json is renamed, so that no program reads the folder as a run any more. If the process is killed, another call
/// finishes the removal.
///
/// # Errors
/// A folder without a run; a run that another process writes to; a folder that cannot be written.
pub fn remove(run: impl AsRef<Path>) -> Result<()> {
    remove_run(run.as_ref(), None)
}

/// As [`remove`], for a run whose dataset was moved to the path `dataset`: deletes the tag there.
///
/// # Errors
/// As [`remove`].
pub fn remove_from(run: impl AsRef<Path>, dataset: impl AsRef<str>) -> Result<()> {
    remove_run(run.as_ref(), Some(dataset.as_ref()))
}

fn remove_run(run: &Path, dataset: Option<&str>) -> Result<()> {
    let run = &local_path(run)?;
    let (file, renamed) = (run.join("run.json"), run.join(REMOVED_MANIFEST));
    let manifest = || match renamed.exists() && !file.exists() {
        true => read_manifest_at(run, &renamed),
        false => read_manifest(run),
    };
    // Checked first, so that only run folders get a lock file.
    manifest()?;
    let lock = atomic::lock(run)?;
    let manifest = manifest()?;
    if file.exists() {
        atomic::publish(&file, &renamed)?;
    }
    delete_tag(&manifest, dataset);
    for name in ["results", "queries", "ledger", "audit", "stderr", "tmp"] {
        atomic::remove_dir_all(&run.join(name))?;
    }
    stage_times::remove(run)?;
    atomic::remove_file(&run.join("lock"))?;
    drop(lock);
    atomic::remove_file(&renamed)?;
    let mut others: Vec<String> = Vec::new();
    for entry in fs::read_dir(run).at_path(run)? {
        others.push(entry.at_path(run)?.file_name().to_string_lossy().into_owned());
    }
    if others.is_empty() {
        // The path may be `.` or a link.
        atomic::remove_dir_all(&fs::canonicalize(run).at_path(run)?)?;
        return if run.is_symlink() { atomic::remove_file(run) } else { Ok(()) };
    }
    others.sort();
    log::warn!("{}: the folder stays, because it has other files: {}", run.display(), others.join(", "));
    Ok(())
}

/// Deletes the tag that protects the dataset version of a run. `moved_to` is the new path of the dataset, if it was moved.
fn delete_tag(manifest: &Manifest, moved_to: Option<&str>) {
    // Delete only tags of runs, even if run.json is damaged.
    let tag = manifest.version_tag.as_ref().filter(|tag| tag.starts_with(TAG_PREFIX));
    let (Some(tag), Some(dataset)) = (tag, &manifest.dataset) else { return };
    let Some(path) = moved_to.or(manifest.dataset_path()) else { return };
    let why = match LanceDatabase::untag_version(path, tag) {
        Ok(true) => return,
        Ok(false) => format!("{path}: has no tag {tag}; if the run's dataset is another one, it"),
        Err(error) => format!("{error}; if the dataset still exists, it"),
    };
    log::warn!(
        "{why} keeps version {} until you delete the tag: lance.dataset(\"…\").tags.delete(\"{tag}\")",
        dataset.version
    );
}
