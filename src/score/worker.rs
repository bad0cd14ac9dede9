//! A long-lived scorer process: takes messages and writes answers, with separate threads for its two pipes.

use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ChildStdin, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::time::Duration;

use rustix::io::ioctl_fionread;

use super::deadline::{Deadline, start_thread};
use super::fault::ScorerFault;
use super::process::{Launcher, Process, read_chunks};
use crate::error::{Result, WrapErr};

/// A process and its pipes.
pub(super) struct Worker {
    process: Process,
    stdin: Option<StdinWriter>,
    pub(super) stdout: StdoutReader,
}

/// The state of a worker's output.
pub(super) enum OutputState {
    /// There is output, or the next read returns an error.
    Available,
    /// There is none: the worker waits for more items.
    Idle,
    /// There is none: the worker has closed its output.
    Closed,
}

/// A worker's standard input.
struct StdinWriter {
    /// Messages for the writer thread: a scorer that does not read must not block our reading.
    messages: Sender<Vec<u8>>,
    /// The number of messages that are not in the pipe yet.
    unwritten: Arc<AtomicUsize>,
    pipe: OwnedFd,
}

impl StdinWriter {
    /// Starts the writer thread.
    fn new(stdin: ChildStdin) -> Result<Self> {
        let pipe = stdin.as_fd().try_clone_to_owned().wrap_err("starting a scorer")?;
        let ((messages, queue), unwritten) = (channel(), Arc::new(AtomicUsize::new(0)));
        let written = unwritten.clone();
        start_thread(move || write_messages(stdin, queue, &written))?;
        Ok(StdinWriter { messages, unwritten, pipe })
    }

    /// Queues a message. If the process has exited, the next read reports it.
    fn send(&self, message: Vec<u8>) {
        self.unwritten.fetch_add(1, Ordering::SeqCst);
        let _ = self.messages.send(message);
    }

    /// Whether the process has read everything that was sent.
    fn is_read(&self) -> bool {
        self.unwritten.load(Ordering::SeqCst) == 0 && ioctl_fionread(&self.pipe).is_ok_and(|unread| unread == 0)
    }
}

impl Worker {
    pub(super) fn start(launcher: &Launcher<'_>) -> Result<Self, ScorerFault> {
        let mut command = launcher.command();
        let mut process = launcher.start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let (stdin, stdout) = process.pipes();
        let stdin = stdin.map(StdinWriter::new).transpose()?;
        // A full channel blocks a scorer that writes faster than we read.
        let (sender, chunks) = sync_channel(4);
        if let Some(stdout) = stdout {
            start_thread(move || read_chunks(stdout, |bytes| sender.send(bytes.to_vec()).is_ok()))?;
        }
        let stdout = StdoutReader { chunks, chunk: Vec::new(), position: 0, deadline: Deadline::new(None, None) };
        Ok(Worker { process, stdin, stdout })
    }

    /// Sends a message, and sets the deadline for the answer.
    pub(super) fn send(&mut self, message: Vec<u8>, deadline: &Deadline) {
        self.stdout.deadline = deadline.clone();
        if let Some(stdin) = &self.stdin {
            stdin.send(message);
        }
    }

    /// Whether the process runs and can take another message.
    pub(super) fn is_alive(&self) -> bool {
        !self.process.has_exited()
    }

    /// Waits up to `idle` for output, then sends a space to find out whether the scorer is busy. A space does not change JSON
    /// lines. A scorer takes it from the pipe when it waits for the next line; a busy scorer leaves it there.
    pub(super) fn output_state(&mut self, idle: Duration) -> OutputState {
        let Some(state) = self.stdout.output_state(idle) else {
            let Some(stdin) = &self.stdin else { return OutputState::Closed };
            stdin.send(b" ".to_vec());
            loop {
                // Everything that was written before the space was read has arrived by now.
                let is_read = stdin.is_read();
                match self.stdout.output_state(Duration::from_millis(200)) {
                    None if is_read => return OutputState::Idle,
                    None => {}
                    Some(state) => return state,
                }
            }
        };
        state
    }

    /// Closes standard input, which tells the process to exit.
    pub(super) fn close(&mut self) {
        self.stdin = None;
    }

    /// Closes standard input, waits for the process to exit, then kills it.
    pub(super) fn stop(&mut self, grace: &Deadline) -> Option<ExitStatus> {
        self.close();
        self.process.wait(grace);
        self.process.stop()
    }
}

fn write_messages(mut stdin: ChildStdin, messages: Receiver<Vec<u8>>, unwritten: &AtomicUsize) {
    for message in messages {
        if stdin.write_all(&message).and_then(|()| stdin.flush()).is_err() {
            return;
        }
        unwritten.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A worker's standard output, with a deadline. Reads after the deadline fail with `TimedOut`. Bytes that were received and
/// not consumed remain for the next read.
pub(super) struct StdoutReader {
    chunks: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    /// The number of consumed bytes of the chunk.
    position: usize,
    deadline: Deadline,
}

impl StdoutReader {
    /// Moves the deadline to at most `left` from now.
    pub(super) fn shorten_deadline(&mut self, left: Duration) {
        self.deadline.shorten(left);
    }

    /// The state of the output within a time limit; `None` if it is still unknown.
    fn output_state(&mut self, within: Duration) -> Option<OutputState> {
        if self.position < self.chunk.len() {
            return Some(OutputState::Available);
        }
        let mut deadline = self.deadline.clone();
        deadline.shorten(within);
        match deadline.receive(&self.chunks) {
            Ok(chunk) => (self.chunk, self.position) = (chunk, 0),
            Err(RecvTimeoutError::Disconnected) => return Some(OutputState::Closed),
            Err(RecvTimeoutError::Timeout) if self.deadline.is_over() => {}
            Err(RecvTimeoutError::Timeout) => return None,
        }
        Some(OutputState::Available)
    }

    /// All bytes that the process has written and that were not consumed.
    pub(super) fn unread(&mut self) -> &[u8] {
        self.chunk.drain(..self.position);
        self.position = 0;
        self.chunk.extend(self.chunks.try_iter().flatten());
        &self.chunk
    }
}

impl BufRead for StdoutReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position >= self.chunk.len() {
            self.position = 0;
            self.chunk = match self.deadline.receive(&self.chunks) {
                Ok(chunk) => chunk,
                Err(RecvTimeoutError::Disconnected) => Vec::new(),
                Err(RecvTimeoutError::Timeout) => {
                    self.chunk = Vec::new();
                    return Err(io::ErrorKind::TimedOut.into());
                }
            };
        }
        Ok(&self.chunk[self.position..])
    }

    fn consume(&mut self, used: usize) {
        self.position += used;
    }
}

impl Read for StdoutReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
