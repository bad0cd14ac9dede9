//! Files that appear whole or not at all: write aside, fsync, rename, fsync the parent.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{AtPath, Error, Result};

/// A scratch folder beside a target, locked by this process and removed when dropped.
/// What an earlier process that died left there is cleared away first.
pub(crate) struct Partial {
    path: PathBuf,
    _lock: File,
}

impl Partial {
    /// The scratch folder `.NAME.partial` beside the target `NAME`.
    pub(crate) fn beside(target: &Path) -> Result<Self> {
        let name = target.file_name().ok_or_else(|| Error::input(target, "not a name for a dataset"))?;
        let parent = parent(target);
        if !parent.is_dir() {
            return Err(Error::input(target, format!("the folder {} does not exist", parent.display())));
        }
        let path = parent.join(format!(".{}.partial", name.to_string_lossy()));
        fs::create_dir_all(&path).at_path(&path)?;
        let lock = lock(&path)?;
        for entry in fs::read_dir(&path).at_path(&path)? {
            let entry = entry.at_path(&path)?.path();
            if entry.is_dir() {
                fs::remove_dir_all(&entry).at_path(&entry)?;
            }
        }
        Ok(Partial { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives a finished folder its name; one that was there under that name goes.
    pub(crate) fn publish(self, finished: &Path, target: &Path) -> Result<()> {
        if target.exists() {
            let old = self.path.join("replaced");
            fs::rename(target, &old).at_path(target)?;
        }
        fs::rename(finished, target).at_path(target)?;
        sync_dir(parent(target))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Takes the lock file in a folder. It dies with the process.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).at_path(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { path: folder.to_path_buf() }),
        Err(fs::TryLockError::Error(cause)) => Err(Error::Io { path, cause }),
    }
}

/// Writes a file aside in `tmp`, and moves it to its place when it is durable.
pub(crate) fn publish_file(tmp: &Path, target: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let aside = tmp.join(name);
    let mut file = File::create(&aside).at_path(&aside)?;
    write(&mut file)?;
    file.sync_all().at_path(&aside)?;
    fs::rename(&aside, target).at_path(target)?;
    sync_dir(parent(target))
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_dir(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).at_path(folder)
}

/// Makes everything below a folder durable.
pub(crate) fn sync_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).at_path(folder)? {
        let entry = entry.at_path(folder)?.path();
        if entry.is_dir() {
            sync_tree(&entry)?;
        } else {
            File::open(&entry).and_then(|file| file.sync_all()).at_path(&entry)?;
        }
    }
    sync_dir(folder)
}

/// The folder that something is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
