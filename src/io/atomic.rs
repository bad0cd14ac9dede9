//! Atomic and durable writes of files and folders: write a temporary file, fsync, rename, fsync the parent folder.
//!
//! Every durable write of this crate uses these functions.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

#[cfg(debug_assertions)]
use super::fault_injection::inject_fault;
use crate::error::{AtPath, Error, Result};

/// Release builds have no fault injection.
#[cfg(not(debug_assertions))]
fn inject_fault(_operation: &str, _paths: &[&Path]) -> io::Result<()> {
    Ok(())
}

/// Runs a file operation. `name` identifies it for fault injection. An error names the last path.
fn run_operation<T>(name: &str, paths: &[&Path], operation: impl FnOnce() -> io::Result<T>) -> Result<T> {
    let last = paths.last().copied().unwrap_or(Path::new(""));
    inject_fault(name, paths).and_then(|()| operation()).at_path(last)
}

/// A temporary folder beside a target. This process holds its lock and removes it on drop. Leftovers of a process that
/// crashed are removed first.
pub(crate) struct StagingDir {
    path: PathBuf,
    target: PathBuf,
    _lock: Lock,
}

impl StagingDir {
    /// Creates the temporary folder `.NAME.partial` beside the target `NAME`.
    pub(crate) fn create(target: &Path) -> Result<Self> {
        let name = target.file_name().ok_or_else(|| Error::input(target, "not a valid dataset name"))?;
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
        let staging = StagingDir { path, target: target.into(), _lock: lock };
        if staging.has_backup() {
            rename(&staging.backup(), target)?;
            sync_dir(parent)?;
        }
        for entry in fs::read_dir(&staging.path).at_path(&staging.path)? {
            let entry = entry.at_path(&staging.path)?.path();
            if entry.is_dir() {
                remove_dir_all(&entry)?;
            }
        }
        Ok(staging)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a finished folder to the target, and replaces an existing one. Calls `check` between the steps before that. If
    /// `check` fails, the target stays as it was.
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

    /// Whether a process stopped after it had moved the old target to the backup, and before it moved the new one to the target.
    fn has_backup(&self) -> bool {
        self.backup().exists() && !self.target.exists()
    }
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        if self.has_backup() {
            return;
        }
        // Threads of an interrupted writer may still create files for a moment.
        for _ in 0..20 {
            if remove_dir_all(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// An exclusive lock of a folder.
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Unlock explicitly: a child process that another thread is starting shares the open file for a moment.
        let _ = self.0.unlock();
    }
}

/// Locks the file `lock` in a folder. The lock ends with the process; child processes do not inherit it.
pub(crate) fn lock(folder: &Path) -> Result<Lock> {
    let path = folder.join("lock");
    let locked = || Error::Locked { path: folder.to_path_buf() };
    let file =
        run_operation("create", &[&path], || File::options().create(true).truncate(false).write(true).open(&path))?;
    run_operation("lock", &[&path], || match file.try_lock() {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(cause)) => Err(cause),
    })
    .map_err(|error| explain_missing_locks(folder, error))?
    .then_some(())
    .ok_or_else(locked)?;
    // The previous holder may have removed the file in between. A lock on a removed file does not exclude other processes.
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let locked_file = file.metadata().map(identity).at_path(&path)?;
    if fs::metadata(&path).map(identity).is_ok_and(|current| current == locked_file) {
        Ok(Lock(file))
    } else {
        Err(locked())
    }
}

/// Explains what to do if the file system does not support locks.
fn explain_missing_locks(folder: &Path, error: Error) -> Error {
    const UNSUPPORTED: [Errno; 4] = [Errno::NOLCK, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOSYS];
    match &error {
        Error::Io { cause, .. } if Errno::from_io_error(cause).is_some_and(|errno| UNSUPPORTED.contains(&errno)) => {
            let reason = format!(
                "this file system does not support file locks ({cause}), which keep out a second process; use a folder on \
                 another file system, such as a local disk, and copy it after the run, or mount this one with locks \
                 (Lustre: `-o flock`; NFS: with its lock service)"
            );
            Error::input(folder, reason)
        }
        _ => error,
    }
}

/// A file that is being written, before it moves to its target.
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

/// Writes a file in the folder `tmp`, syncs it and moves it to `target`.
pub(crate) fn publish_file(
    tmp: &Path,
    target: &Path,
    write: impl FnOnce(&mut TemporaryFile) -> Result<()>,
) -> Result<()> {
    let path = tmp.join(target.file_name().unwrap_or_default());
    let file = run_operation("create", &[&path], || File::create(&path))?;
    let mut temporary = TemporaryFile { file, path };
    write(&mut temporary)?;
    sync(&temporary.file, &temporary.path)?;
    publish(&temporary.path, target)
}

/// Moves a synced file or folder to its target and syncs the parent folder.
pub(crate) fn publish(source: &Path, target: &Path) -> Result<()> {
    rename(source, target)?;
    sync_dir(parent_dir(target))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    run_operation("rename", &[from, to], || fs::rename(from, to))
}

/// Opens a file for appending and creates it if necessary.
pub(crate) fn append(path: &Path) -> Result<File> {
    run_operation("create", &[path], || File::options().create(true).append(true).open(path))
}

/// Writes a small file without fsync. A crash of the machine may lose it.
pub(crate) fn write_unsynced(path: &Path, text: &str) -> Result<()> {
    run_operation("write unsynced", &[path], || fs::write(path, text))
}

/// Appends a line to a file that is only informative. Errors are ignored.
pub(crate) fn append_best_effort(path: &Path, line: &str) {
    let file = File::options().create(true).append(true).open(path);
    let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
}

/// Removes a file.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    run_operation("remove", &[path], || fs::remove_file(path))
}

/// Creates a folder unless it exists.
pub(crate) fn create_dir(folder: &Path) -> Result<()> {
    run_operation("create folder", &[folder], || match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        result => result,
    })
}

/// Creates a folder and its parents, durably.
pub(crate) fn create_dir_all(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    create_dir_all(parent_dir(folder))?;
    create_dir(folder)?;
    sync_dir(parent_dir(folder))
}

/// Removes a folder with its contents, if it exists.
pub(crate) fn remove_dir_all(folder: &Path) -> Result<()> {
    run_operation("remove folder", &[folder], || match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    })
}

fn sync(file: &File, path: &Path) -> Result<()> {
    run_operation("sync", &[path], || file.sync_all())
}

/// Makes the directory entries of a folder durable.
pub(crate) fn sync_dir(folder: &Path) -> Result<()> {
    sync(&File::open(folder).at_path(folder)?, folder)
}

/// Makes all files and folders below a folder durable.
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

/// The parent folder of a path; `.` if the path has no parent.
pub(crate) fn parent_dir(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
