//! Writing to standard output and to files. A file appears under its name only when it is complete.

use std::fs::{File, Permissions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::Context;

use super::error::{WriteError, catch_panic};
use crate::panics::lock;

pub type Writer = Box<dyn Write + Send>;

/// Whether unfinished files are to be discarded.
static IS_CANCELLED: AtomicBool = AtomicBool::new(false);

/// Makes all unfinished writes fail, so that their files are discarded.
pub fn cancel_writes() {
    IS_CANCELLED.store(true, Ordering::Relaxed);
}

fn check_cancelled() -> io::Result<()> {
    match IS_CANCELLED.load(Ordering::Relaxed) {
        true => Err(io::Error::other("interrupted")),
        false => Ok(()),
    }
}

/// Calls `work` with standard output, and with whether it is a terminal.
pub fn to_stdout(work: impl FnOnce(Writer, bool) -> anyhow::Result<()>) -> Result<(), WriteError> {
    match with_first_error(Box::new(io::stdout()), |out| work(out, io::stdout().is_terminal())) {
        (Err(_), Some(io::ErrorKind::BrokenPipe)) => Err(WriteError::ClosedPipe),
        (Err(error), Some(_)) => Err(WriteError::Output(error.context("standard output"))),
        (done, _) => done.map_err(WriteError::Rows),
    }
}

/// Calls `work` with a temporary file beside `path`, and renames it to `path` when it is complete.
pub fn to_file(path: &Path, work: impl FnOnce(Writer) -> anyhow::Result<()>) -> Result<(), WriteError> {
    let name = || path.display().to_string();
    let opened = |file: io::Result<File>| file.with_context(name).map_err(WriteError::Output);
    let to = |file: File| match with_first_error(Box::new(file), work) {
        (Err(error), Some(_)) => Err(WriteError::Output(error.context(name()))),
        (done, _) => done.map_err(WriteError::Rows),
    };
    // Devices and targets of links are written in place.
    if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        return to(opened(File::create(path))?);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut options = tempfile::Builder::new();
    let file = options.prefix(".uphill-").permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
    let file = file.with_context(name).map_err(WriteError::Output)?;
    if let Ok(found) = path.metadata() {
        let kept = file.as_file().set_permissions(found.permissions());
        kept.with_context(name).map_err(WriteError::Output)?;
    }
    to(opened(file.as_file().try_clone())?)?;
    check_cancelled().with_context(name).map_err(WriteError::Output)?;
    file.persist(path).with_context(name).map_err(WriteError::Output)?;
    Ok(())
}

/// Calls `work` with a writer. Returns the result and the kind of the first I/O error, which libraries in between may
/// hide.
fn with_first_error(
    out: Writer,
    work: impl FnOnce(Writer) -> anyhow::Result<()>,
) -> (anyhow::Result<()>, Option<io::ErrorKind>) {
    let first_error = Arc::new(OnceLock::new());
    let mut writer = ErrorRecorder { out: Arc::new(Mutex::new(out)), first_error: first_error.clone() };
    // Some writers leave the last bytes to be flushed, or do not return the error.
    let done = catch_panic(|| work(Box::new(writer.clone()))).and_then(|()| Ok(writer.flush()?));
    let kind = first_error.get().copied();
    (done.and_then(|()| kind.map_or(Ok(()), |kind| Err(io::Error::from(kind).into()))), kind)
}

/// A writer that records the kind of its first error.
#[derive(Clone)]
struct ErrorRecorder {
    out: Arc<Mutex<Writer>>,
    first_error: Arc<OnceLock<io::ErrorKind>>,
}

impl ErrorRecorder {
    fn record<T>(&self, work: impl FnOnce(&mut Writer) -> io::Result<T>) -> io::Result<T> {
        let done = check_cancelled().and_then(|()| work(&mut lock(&self.out)));
        done.inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                let _ = self.first_error.set(error.kind());
            }
        })
    }
}

impl Write for ErrorRecorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.record(|out| out.write(bytes))
    }
    fn flush(&mut self) -> io::Result<()> {
        self.record(|out| out.flush())
    }
}
