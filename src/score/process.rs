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

use super::deadline::{Deadline, start_thread};
use super::fault::ScorerFault;
use crate::error::{Error, Result};
use crate::io::atomic;
use crate::panics::lock;

/// The read size for pipes; also the capacity of a pipe.
const CHUNK_BYTES: usize = 1 << 16;

/// The options to start a scorer with.
pub(super) struct Launcher<'a> {
    pub(super) arguments: &'a [String],
    pub(super) directory: Option<&'a Path>,
    pub(super) stderr: Option<Arc<OutputLog>>,
}

impl Launcher<'_> {
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

    pub(super) fn start(&self, command: &mut Command) -> Result<Process, ScorerFault> {
        let child = command.spawn().map_err(|error| {
            let reason = format!("score.command: cannot run `{}`: {error}", self.arguments[0]);
            match error.raw_os_error().map(Errno::from_raw_os_error) {
                // Too many processes or too little memory: this may be temporary.
                Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::TXTBSY) => {
                    ScorerFault::outage(reason, None)
                }
                _ => ScorerFault::Fatal(Error::Config(reason)),
            }
        })?;
        // From here on, dropping `Process` reaps the child.
        let mut process = Process { child, copies: Vec::new() };
        if let (Some(log), Some(pipe)) = (&self.stderr, process.child.stderr.take()) {
            process.copy_to_log(pipe, log)?;
        }
        Ok(process)
    }

    /// Starts a process without standard input; its standard output is captured together with standard error.
    pub(super) fn run(&self) -> Result<Process, ScorerFault> {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(if self.stderr.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut process = self.start(&mut command)?;
        if let (Some(log), Some(pipe)) = (&self.stderr, process.child.stdout.take()) {
            process.copy_to_log(pipe, log)?;
        }
        Ok(process)
    }
}

/// A child process and everything it started: killed and reaped on drop.
pub(super) struct Process {
    child: Child,
    /// One receiver for each copied output stream. It disconnects when the copy is complete.
    copies: Vec<Receiver<()>>,
}

impl Process {
    fn copy_to_log(&mut self, pipe: impl Read + Send + 'static, log: &Arc<OutputLog>) -> Result<()> {
        let (log, (done, copied)) = (log.clone(), channel());
        self.copies.push(copied);
        start_thread(move || {
            read_chunks(pipe, |bytes| {
                log.write(bytes);
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
    pub(super) fn has_exited(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.id().is_none_or(|id| !matches!(waitid(WaitId::Pid(id), options), Ok(None)))
    }

    /// Waits for the process to exit by itself. Returns whether it has.
    pub(super) fn wait(&self, deadline: &Deadline) -> bool {
        let mut interval = Duration::from_millis(1);
        while !self.has_exited() {
            if deadline.is_over() {
                return false;
            }
            thread::sleep(interval.min(deadline.poll_interval()));
            interval = (interval * 2).min(Duration::from_millis(20));
        }
        true
    }

    /// Kills the process group and reaps the child. Returns the status if it had exited by itself.
    pub(super) fn stop(&mut self) -> Option<ExitStatus> {
        let had_exited = self.has_exited();
        // Kill before reaping: afterwards the id may belong to another process. The group outlives its first
        // process if that has started others.
        if let Some(id) = self.id() {
            let _ = kill_process_group(id, Signal::KILL);
        }
        let status = self.child.wait().ok();
        for copied in self.copies.drain(..) {
            // A process that left the group may hold the pipe open: do not wait for it.
            let _ = copied.recv_timeout(Duration::from_millis(500));
        }
        status.filter(|_| had_exited)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The exit status of a process that is unavailable for now: `EX_TEMPFAIL`.
const EX_TEMPFAIL: i32 = 75;

/// The fault of a process that has exited: an outage if its status says so.
pub(super) fn exit_fault(status: Option<ExitStatus>) -> ScorerFault {
    match status.and_then(|status| status.code()) {
        Some(EX_TEMPFAIL) => ScorerFault::outage(describe_exit(status), None),
        _ => ScorerFault::malfunction(describe_exit(status)),
    }
}

/// Describes the exit of a process, for a reason.
fn describe_exit(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("exited with status {code}"),
        Some((None, Some(signal))) => format!("killed by signal {signal}"),
        _ => "closed its standard output".into(),
    }
}

/// Reads a pipe to its end, or until `on_chunk` returns `false`.
pub(super) fn read_chunks(mut pipe: impl Read, mut on_chunk: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match pipe.read(&mut buffer) {
            Ok(read @ 1..) if on_chunk(&buffer[..read]) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// A log file for the standard error of scorers. Its size is limited. Further output is read and discarded.
pub(super) struct OutputLog {
    state: Mutex<LogState>,
}

struct LogState {
    file: File,
    /// The number of bytes that may still be written.
    bytes_left: u64,
}

/// The maximum number of bytes of scorer output that one process saves.
const MAX_LOG_BYTES: u64 = 16 << 20;

impl OutputLog {
    pub(super) fn open(path: &Path) -> Result<Self> {
        atomic::create_dir_all(atomic::parent_dir(path))?;
        let file = atomic::append(path)?;
        Ok(OutputLog { state: Mutex::new(LogState { file, bytes_left: MAX_LOG_BYTES }) })
    }

    /// Ignores write errors such as a full disk: these are only messages.
    pub(super) fn write(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        let LogState { file, bytes_left } = &mut *state;
        if *bytes_left == 0 {
            return;
        }
        let length = bytes.len().min(usize::try_from(*bytes_left).unwrap_or(usize::MAX));
        let _ = file.write_all(&bytes[..length]);
        *bytes_left -= length as u64;
        if *bytes_left == 0 {
            let _ = write!(file, "\n[uphill: more than {} MiB; further output is discarded]\n", MAX_LOG_BYTES >> 20);
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
