//! Scorer processes: each runs in its own process group, its standard error is saved, and it is always reaped.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::trouble::Trouble;
use super::wait::{Wait, start_thread};
use crate::error::{Error, Result};
use crate::io::atomic;
use crate::panics::lock;

/// The read size for pipes; also the capacity of a pipe.
const CHUNK: usize = 1 << 16;

/// The options to start a scorer with.
pub(super) struct Launch<'a> {
    pub(super) arguments: &'a [String],
    pub(super) directory: Option<&'a Path>,
    pub(super) stderr: Option<Arc<Capture>>,
}

impl Launch<'_> {
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.arguments[0]);
        // A process group of its own: Ctrl-C reaches only the run, which then ends the scorer, and
        // everything that the scorer starts can be killed with it.
        command.args(&self.arguments[1..]).process_group(0);
        if let Some(directory) = self.directory {
            command.current_dir(directory);
        }
        if self.stderr.is_some() {
            command.stderr(Stdio::piped());
        }
        command
    }

    pub(super) fn start(&self, command: &mut Command) -> Result<Process, Trouble> {
        let child = command.spawn().map_err(|error| {
            let reason = format!("score.command: cannot run `{}`: {error}", self.arguments[0]);
            match error.raw_os_error().map(Errno::from_raw_os_error) {
                // Too many processes or too little memory: this may pass.
                Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::TXTBSY) => {
                    Trouble::away(reason, None)
                }
                _ => Trouble::Stop(Error::Config(reason)),
            }
        })?;
        // From here on, dropping `Process` reaps the child.
        let mut process = Process { child, drains: Vec::new() };
        if let (Some(capture), Some(pipe)) = (&self.stderr, process.child.stderr.take()) {
            process.drain(pipe, capture)?;
        }
        Ok(process)
    }

    /// Starts a process without standard input; its standard output is captured together with standard error.
    pub(super) fn run(&self) -> Result<Process, Trouble> {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(if self.stderr.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut process = self.start(&mut command)?;
        if let (Some(capture), Some(pipe)) = (&self.stderr, process.child.stdout.take()) {
            process.drain(pipe, capture)?;
        }
        Ok(process)
    }
}

/// A child process and everything it started: killed and reaped on drop.
pub(super) struct Process {
    child: Child,
    /// Each disconnects when one of the output streams has been fully copied.
    drains: Vec<Receiver<()>>,
}

impl Process {
    fn drain(&mut self, pipe: impl Read + Send + 'static, capture: &Arc<Capture>) -> Result<()> {
        let (capture, (done, drained)) = (capture.clone(), channel());
        self.drains.push(drained);
        start_thread(move || {
            each_chunk(pipe, |bytes| {
                capture.write(bytes);
                true
            });
            drop(done);
        })
    }

    /// Takes the pipes; `None` on the second call.
    pub(super) fn pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>) {
        (self.child.stdin.take(), self.child.stdout.take())
    }

    fn id(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Whether the process has exited by itself. It is not reaped yet, so its id cannot be reused.
    pub(super) fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.id().is_none_or(|id| !matches!(waitid(WaitId::Pid(id), options), Ok(None)))
    }

    /// Waits for the process to exit by itself. Returns whether it has.
    pub(super) fn wait(&self, wait: &Wait) -> bool {
        let mut nap = Duration::from_millis(1);
        while !self.has_ended() {
            if wait.is_over() {
                return false;
            }
            thread::sleep(nap.min(wait.nap()));
            nap = (nap * 2).min(Duration::from_millis(20));
        }
        true
    }

    /// Kills the process group and reaps the child. Returns the status if it had exited by itself.
    pub(super) fn end(&mut self) -> Option<ExitStatus> {
        let by_itself = self.has_ended();
        // Kill before reaping: afterwards the id may belong to another process. The group outlives its first
        // process if that has started others.
        if let Some(id) = self.id() {
            let _ = kill_process_group(id, Signal::KILL);
        }
        let status = self.child.wait().ok();
        for drained in self.drains.drain(..) {
            // A process that left the group may hold the pipe open: do not wait for it.
            let _ = drained.recv_timeout(Duration::from_millis(500));
        }
        status.filter(|_| by_itself)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Describes the exit of a process, for a reason.
pub(super) fn describe(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("exited with status {code}"),
        Some((None, Some(signal))) => format!("killed by signal {signal}"),
        _ => "closed its standard output".into(),
    }
}

/// Reads to the end, or until `take` returns `false`.
pub(super) fn each_chunk(mut pipe: impl Read, mut take: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match pipe.read(&mut buffer) {
            Ok(read @ 1..) if take(&buffer[..read]) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// A size-limited log file for the standard error of scorers;
/// further output is read and discarded.
pub(super) struct Capture {
    file: Mutex<(File, u64)>,
}

/// The maximum bytes of scorer output to save in one process.
const CAPTURED: u64 = 16 << 20;

impl Capture {
    pub(super) fn open(path: &Path) -> Result<Self> {
        atomic::create_dir_all(atomic::parent_dir(path))?;
        let file = atomic::append(path)?;
        Ok(Capture { file: Mutex::new((file, CAPTURED)) })
    }

    /// Ignores write errors such as a full disk: these are only messages.
    pub(super) fn write(&self, bytes: &[u8]) {
        let mut guard = lock(&self.file);
        let (file, left) = &mut *guard;
        if *left == 0 {
            return;
        }
        let kept = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        let _ = file.write_all(&bytes[..kept]);
        *left -= kept as u64;
        if *left == 0 {
            let _ = write!(file, "\n[uphill: more than {} MiB; further output is discarded]\n", CAPTURED >> 20);
        }
    }
}

/// Finds a program by name, as the operating system does.
pub(super) fn find_program(name: &str, directory: Option<&Path>) -> Option<PathBuf> {
    let is_file = |path: &PathBuf| path.is_file();
    if name.contains('/') {
        return Some(directory.unwrap_or(Path::new("")).join(name)).filter(is_file);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(is_file)
}
