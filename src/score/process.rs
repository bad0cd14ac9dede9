//! A scorer's process: started in a group of its own, fed and read without blocking each other,
//! always reaped.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::trouble::Trouble;
use super::wait::{Wait, start_thread};
use crate::error::{Error, Result};
use crate::folder;
use crate::panics::lock;

/// Read from a pipe at a time; what a pipe holds.
const CHUNK: usize = 1 << 16;

/// How a scorer is started.
pub(super) struct Launch<'a> {
    pub(super) arguments: &'a [String],
    pub(super) directory: Option<&'a Path>,
    pub(super) stderr: Option<Arc<Capture>>,
}

impl Launch<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.arguments[0]);
        // A group of its own: Ctrl-C reaches the run only, which ends the scorer in its own way, and
        // whatever the scorer starts can be killed with it.
        command.args(&self.arguments[1..]).process_group(0);
        if let Some(directory) = self.directory {
            command.current_dir(directory);
        }
        if self.stderr.is_some() {
            command.stderr(Stdio::piped());
        }
        command
    }

    fn start(&self, command: &mut Command) -> Result<Process, Trouble> {
        let child = command.spawn().map_err(|error| {
            let reason = format!("score.command: cannot run `{}`: {error}", self.arguments[0]);
            match error.raw_os_error().map(Errno::from_raw_os_error) {
                // Too many processes, no memory: that may pass.
                Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::TXTBSY) => {
                    Trouble::away(reason, None)
                }
                _ => Trouble::Stop(Error::Config(reason)),
            }
        })?;
        // From here on the guard reaps it.
        let mut process = Process { child, drains: Vec::new() };
        if let (Some(capture), Some(pipe)) = (&self.stderr, process.child.stderr.take()) {
            process.drain(pipe, capture)?;
        }
        Ok(process)
    }

    /// Starts a process that takes nothing from standard input; what it prints is captured with its errors.
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

/// A child and everything it started: killed and reaped when dropped.
pub(super) struct Process {
    child: Child,
    /// Hang up when what the process wrote is in the capture.
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

    fn id(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Whether it ended by itself. It is not reaped yet, so that its id is still its own.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.id().is_none_or(|id| !matches!(waitid(WaitId::Pid(id), options), Ok(None)))
    }

    /// Waits for it to end by itself. Says whether it has.
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

    /// Ends it: kills the group and reaps the child. Gives the status if it had ended by itself.
    pub(super) fn end(&mut self) -> Option<ExitStatus> {
        let by_itself = self.has_ended();
        // Before the reaping: after it, the id may be another's. The group outlives its first
        // process if that started others.
        if let Some(id) = self.id() {
            let _ = kill_process_group(id, Signal::KILL);
        }
        let status = self.child.wait().ok();
        for drained in self.drains.drain(..) {
            // A process that left the group may hold the pipe; it is not waited for.
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

/// How a process ended, for a reason.
pub(super) fn describe(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("exited with status {code}"),
        Some((None, Some(signal))) => format!("killed by signal {signal}"),
        _ => "closed its standard output".into(),
    }
}

/// A long-lived process that is sent messages and answers them.
pub(super) struct Worker {
    process: Process,
    /// To the thread that writes: a scorer that does not read must not keep us from reading.
    stdin: Option<Sender<Vec<u8>>>,
    pub(super) stdout: Stdout,
}

impl Worker {
    pub(super) fn start(launch: &Launch<'_>) -> Result<Self, Trouble> {
        let mut command = launch.command();
        let mut process = launch.start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let (send, messages) = channel();
        if let Some(stdin) = process.child.stdin.take() {
            start_thread(move || feed(stdin, messages))?;
        }
        // A scorer that writes faster than we read waits.
        let (pass, chunks) = sync_channel(4);
        if let Some(stdout) = process.child.stdout.take() {
            start_thread(move || each_chunk(stdout, |bytes| pass.send(bytes.to_vec()).is_ok()))?;
        }
        let stdout = Stdout { chunks, chunk: Vec::new(), at: 0, wait: Wait::new(None, None) };
        Ok(Worker { process, stdin: Some(send), stdout })
    }

    /// Sends a message; the answer is waited for so long.
    pub(super) fn send(&mut self, message: Vec<u8>, wait: &Wait) {
        self.stdout.wait = wait.clone();
        if let Some(stdin) = &self.stdin {
            // If the process is gone, reading says so.
            let _ = stdin.send(message);
        }
    }

    /// Whether it waits for the next message: runs, and has written nothing that was not asked.
    pub(super) fn is_ready(&mut self) -> bool {
        !self.process.has_ended() && self.stdout.is_silent()
    }

    /// Lets it know that nothing comes any more.
    pub(super) fn close(&mut self) {
        self.stdin = None;
    }

    /// Gives it time to end by itself, then ends it.
    pub(super) fn end(&mut self, grace: &Wait) -> Option<ExitStatus> {
        self.close();
        self.process.wait(grace);
        self.process.end()
    }
}

fn feed(mut stdin: ChildStdin, messages: Receiver<Vec<u8>>) {
    for message in messages {
        if stdin.write_all(&message).and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

/// Reads to the end, or until `take` has enough.
fn each_chunk(mut pipe: impl Read, mut take: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match pipe.read(&mut buffer) {
            Ok(read @ 1..) if take(&buffer[..read]) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// A worker's standard output, read until a wait is over: later reads fail with `TimedOut`.
/// What was read and not used stays for the next.
pub(super) struct Stdout {
    chunks: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    wait: Wait,
}

impl Stdout {
    /// Waits no longer than so much from now.
    pub(super) fn hurry(&mut self, left: Duration) {
        self.wait.hurry(left);
    }

    fn is_silent(&mut self) -> bool {
        self.at >= self.chunk.len() && matches!(self.chunks.try_recv(), Err(TryRecvError::Empty))
    }
}

impl BufRead for Stdout {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.chunk.len() {
            self.at = 0;
            self.chunk = match self.wait.receive(&self.chunks) {
                Ok(chunk) => chunk,
                Err(RecvTimeoutError::Disconnected) => Vec::new(),
                Err(RecvTimeoutError::Timeout) => {
                    self.chunk = Vec::new();
                    return Err(io::ErrorKind::TimedOut.into());
                }
            };
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, used: usize) {
        self.at += used;
    }
}

impl Read for Stdout {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// The file that gets what scorers write to their standard errors, up to a limit;
/// what is beyond it is read and dropped.
pub(super) struct Capture {
    file: Mutex<(File, u64)>,
}

/// The most that is kept of what scorers write to standard error in one run of the program.
const CAPTURED: u64 = 16 << 20;

impl Capture {
    pub(super) fn open(path: &Path) -> Result<Self> {
        folder::create_all(folder::parent(path))?;
        let file = folder::append(path)?;
        Ok(Capture { file: Mutex::new((file, CAPTURED)) })
    }

    /// Scoring goes on if the disk is full: these are only messages.
    fn write(&self, bytes: &[u8]) {
        let mut guard = lock(&self.file);
        let (file, left) = &mut *guard;
        if *left == 0 {
            return;
        }
        let kept = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        let _ = file.write_all(&bytes[..kept]);
        *left -= kept as u64;
        if *left == 0 {
            let _ = write!(file, "\n[uphill: more than {} MiB; the rest is left out]\n", CAPTURED >> 20);
        }
    }
}

/// Where a program is that is started by this name, as the operating system looks it up.
pub(super) fn find_program(name: &str, directory: Option<&Path>) -> Option<PathBuf> {
    let is_file = |path: &PathBuf| path.is_file();
    if name.contains('/') {
        return Some(directory.unwrap_or(Path::new("")).join(name)).filter(is_file);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(is_file)
}
