//! Files and folders that appear whole or not at all: write aside, fsync, rename, fsync the parent.
//!
//! Whatever this crate writes to last goes through here.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::{AtPath, Error, Result};

#[cfg(debug_assertions)]
use super::fault::inject_fault;

/// Fail points are for tests.
#[cfg(not(debug_assertions))]
fn inject_fault(_operation: &str, _paths: &[&Path]) -> io::Result<()> {
    Ok(())
}

/// Does a file operation, under a name for the tests; an error names the last of the paths.
fn operate<T>(name: &str, paths: &[&Path], operation: impl FnOnce() -> io::Result<T>) -> Result<T> {
    let last = paths.last().copied().unwrap_or(Path::new(""));
    inject_fault(name, paths).and_then(|()| operation()).at_path(last)
}

/// A scratch folder beside a target, locked by this process and removed when dropped.
/// What an earlier process that died left there is cleared away first.
pub(crate) struct StagingDir {
    path: PathBuf,
    target: PathBuf,
    _lock: Lock,
}

impl StagingDir {
    /// The scratch folder `.NAME.partial` beside the target `NAME`.
    pub(crate) fn create(target: &Path) -> Result<Self> {
        let name = target.file_name().ok_or_else(|| Error::input(target, "not a name for a dataset"))?;
        let parent = parent_dir(target);
        if !parent.is_dir() {
            return Err(Error::input(target, format!("the folder {} does not exist", parent.display())));
        }
        let path = target.with_file_name(format!(".{}.partial", name.to_string_lossy()));
        create_dir(&path)?;
        let lock = lock(&path).map_err(|error| match error {
            Error::Locked { .. } => Error::Locked { path: target.into() },
            other => other,
        })?;
        let partial = StagingDir { path, target: target.into(), _lock: lock };
        if partial.has_backup() {
            rename(&partial.backup(), target)?;
            sync_dir(parent)?;
        }
        for entry in fs::read_dir(&partial.path).at_path(&partial.path)? {
            let entry = entry.at_path(&partial.path)?.path();
            if entry.is_dir() {
                remove_dir_all(&entry)?;
            }
        }
        Ok(partial)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives a finished folder its name; one that was there under that name goes. Until then `check` may refuse it.
    pub(crate) fn publish(self, finished: &Path, check: &dyn Fn() -> Result<()>) -> Result<()> {
        sync_tree(finished, check)?;
        check()?;
        if self.target.exists() {
            rename(&self.target, &self.backup())?;
        }
        if let Err(error) = rename(finished, &self.target) {
            if self.has_backup() {
                let _ = rename(&self.backup(), &self.target);
            }
            return Err(error);
        }
        sync_dir(parent_dir(&self.target))
    }

    fn backup(&self) -> PathBuf {
        self.path.join("replaced")
    }

    /// Whether a process was stopped after it took the old one away and before it put the new one there.
    fn has_backup(&self) -> bool {
        self.backup().exists() && !self.target.exists()
    }
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        if self.has_backup() {
            return;
        }
        // What was interrupted may still be writing for a moment.
        for _ in 0..20 {
            if remove_dir_all(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// The lock of a folder.
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Not left to closing the file: a process that another thread is just starting shares it for a moment.
        let _ = self.0.unlock();
    }
}

/// Takes the lock file in a folder. It dies with the process; children do not inherit it.
pub(crate) fn lock(folder: &Path) -> Result<Lock> {
    let path = folder.join("lock");
    let locked = || Error::Locked { path: folder.to_path_buf() };
    let file = operate("create", &[&path], || File::options().create(true).truncate(false).write(true).open(&path))?;
    operate("lock", &[&path], || match file.try_lock() {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(cause)) => Err(cause),
    })
    .map_err(|error| explain_missing_locks(folder, error))?
    .then_some(())
    .ok_or_else(locked)?;
    // Its last holder may have removed it in between; a lock on a file that is gone keeps nobody out.
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let ours = file.metadata().map(identity).at_path(&path)?;
    if fs::metadata(&path).map(identity).is_ok_and(|there| there == ours) { Ok(Lock(file)) } else { Err(locked()) }
}

/// Says what to do where a file system has no locks.
fn explain_missing_locks(folder: &Path, error: Error) -> Error {
    const NONE: [Errno; 4] = [Errno::NOLCK, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOSYS];
    match &error {
        Error::Io { cause, .. } if Errno::from_io_error(cause).is_some_and(|errno| NONE.contains(&errno)) => {
            let reason = format!(
                "this file system has no file locks ({cause}), by which a second process is kept out; use a folder on another \
                 one, such as a local disk, and copy it when the run has ended, or have this one mounted with locks \
                 (Lustre: `-o flock`; NFS: with its lock service)"
            );
            Error::input(folder, reason)
        }
        _ => error,
    }
}

/// A file that is not in its place yet.
pub(crate) struct TemporaryFile {
    file: File,
    path: PathBuf,
}

impl Write for TemporaryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        inject_fault("write", &[&self.path])?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a file aside in `tmp`, and moves it to its place when it is durable.
pub(crate) fn publish_file(
    tmp: &Path,
    target: &Path,
    write: impl FnOnce(&mut TemporaryFile) -> Result<()>,
) -> Result<()> {
    let path = tmp.join(target.file_name().unwrap_or_default());
    let file = operate("create", &[&path], || File::create(&path))?;
    let mut aside = TemporaryFile { file, path };
    write(&mut aside)?;
    sync(&aside.file, &aside.path)?;
    publish(&aside.path, target)
}

/// Moves what is durable to its place, durably.
pub(crate) fn publish(aside: &Path, target: &Path) -> Result<()> {
    rename(aside, target)?;
    sync_dir(parent_dir(target))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    operate("rename", &[from, to], || fs::rename(from, to))
}

/// Opens a file to write more to its end.
pub(crate) fn append(path: &Path) -> Result<File> {
    operate("create", &[path], || File::options().create(true).append(true).open(path))
}

/// Writes a small file that need not survive the machine.
pub(crate) fn write_unsynced(path: &Path, text: &str) -> Result<()> {
    operate("note", &[path], || fs::write(path, text))
}

/// Adds a line to a file that nothing depends on: if it cannot be written, it is left out.
pub(crate) fn append_best_effort(path: &Path, line: &str) {
    let file = File::options().create(true).append(true).open(path);
    let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
}

/// Removes a file.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    operate("remove", &[path], || fs::remove_file(path))
}

/// Makes a folder, unless it is there.
pub(crate) fn create_dir(folder: &Path) -> Result<()> {
    operate("create folder", &[folder], || match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made,
    })
}

/// Makes a folder and those that it is in, durably.
pub(crate) fn create_dir_all(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    create_dir_all(parent_dir(folder))?;
    create_dir(folder)?;
    sync_dir(parent_dir(folder))
}

/// Removes a folder with all that is in it, if it is there.
pub(crate) fn remove_dir_all(folder: &Path) -> Result<()> {
    operate("remove folder", &[folder], || match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    })
}

fn sync(file: &File, path: &Path) -> Result<()> {
    operate("sync", &[path], || file.sync_all())
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_dir(folder: &Path) -> Result<()> {
    sync(&File::open(folder).at_path(folder)?, folder)
}

/// Makes everything below a folder durable.
fn sync_tree(folder: &Path, check: &dyn Fn() -> Result<()>) -> Result<()> {
    let mut entries: Vec<fs::DirEntry> = fs::read_dir(folder).and_then(|entries| entries.collect()).at_path(folder)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries.iter().map(fs::DirEntry::path) {
        check()?;
        if entry.is_dir() {
            sync_tree(&entry, check)?;
        } else {
            sync(&File::open(&entry).at_path(&entry)?, &entry)?;
        }
    }
    sync_dir(folder)
}

/// The folder that something is in.
pub(crate) fn parent_dir(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
