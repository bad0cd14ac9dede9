//! A long-lived scorer process: takes messages and writes answers, with separate threads for its two pipes.

use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ChildStdin, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::time::Duration;

use rustix::io::ioctl_fionread;

use super::process::{Launch, Process, each_chunk};
use super::trouble::Trouble;
use super::wait::{Wait, start_thread};
use crate::error::{Result, WrapErr};

/// A process and its pipes.
pub(super) struct Worker {
    process: Process,
    stdin: Option<Stdin>,
    pub(super) stdout: Stdout,
}

/// The state of a worker's output after it was idle.
pub(super) enum Next {
    /// There is output, or the next read returns an error.
    Output,
    /// There is none: the worker waits for more items.
    Nothing,
    /// There is none: the worker has closed its output.
    Closed,
}

/// A worker's standard input.
struct Stdin {
    /// Messages for the writer thread: a scorer that does not read must not block our reading.
    messages: Sender<Vec<u8>>,
    /// The number of messages that are not in the pipe yet.
    waiting: Arc<AtomicUsize>,
    pipe: OwnedFd,
}

impl Stdin {
    /// Starts the writer thread.
    fn new(stdin: ChildStdin) -> Result<Self> {
        let pipe = stdin.as_fd().try_clone_to_owned().wrap_err("starting a scorer")?;
        let ((messages, queue), waiting) = (channel(), Arc::new(AtomicUsize::new(0)));
        let written = waiting.clone();
        start_thread(move || feed(stdin, queue, &written))?;
        Ok(Stdin { messages, waiting, pipe })
    }

    /// Queues a message. If the process has exited, the next read reports it.
    fn send(&self, message: Vec<u8>) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _ = self.messages.send(message);
    }

    /// Whether the process has read everything that was sent.
    fn is_read(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0 && ioctl_fionread(&self.pipe).is_ok_and(|unread| unread == 0)
    }
}

impl Worker {
    pub(super) fn start(launch: &Launch<'_>) -> Result<Self, Trouble> {
        let mut command = launch.command();
        let mut process = launch.start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let (stdin, stdout) = process.pipes();
        let stdin = stdin.map(Stdin::new).transpose()?;
        // A full channel blocks a scorer that writes faster than we read.
        let (pass, chunks) = sync_channel(4);
        if let Some(stdout) = stdout {
            start_thread(move || each_chunk(stdout, |bytes| pass.send(bytes.to_vec()).is_ok()))?;
        }
        let stdout = Stdout { chunks, chunk: Vec::new(), at: 0, wait: Wait::new(None, None) };
        Ok(Worker { process, stdin, stdout })
    }

    /// Sends a message, and sets the deadline for the answer.
    pub(super) fn send(&mut self, message: Vec<u8>, wait: &Wait) {
        self.stdout.wait = wait.clone();
        if let Some(stdin) = &self.stdin {
            stdin.send(message);
        }
    }

    /// Whether the process runs and can take another message.
    pub(super) fn is_alive(&self) -> bool {
        !self.process.has_ended()
    }

    /// The state of the output after it was idle for `silence`. A space before the next line does not change JSON lines. A scorer
    /// only takes it from the pipe when it waits for that line; a busy scorer leaves it there.
    pub(super) fn next(&mut self, silence: Duration) -> Next {
        let Some(next) = self.stdout.next(silence) else {
            let Some(stdin) = &self.stdin else { return Next::Closed };
            stdin.send(b" ".to_vec());
            loop {
                // Everything that was written before the space was read has arrived by now.
                let is_read = stdin.is_read();
                match self.stdout.next(Duration::from_millis(200)) {
                    None if is_read => return Next::Nothing,
                    None => {}
                    Some(next) => return next,
                }
            }
        };
        next
    }

    /// Closes standard input, which tells the process to exit.
    pub(super) fn close(&mut self) {
        self.stdin = None;
    }

    /// Closes standard input, waits for the process to exit, then kills it.
    pub(super) fn end(&mut self, grace: &Wait) -> Option<ExitStatus> {
        self.close();
        self.process.wait(grace);
        self.process.end()
    }
}

fn feed(mut stdin: ChildStdin, messages: Receiver<Vec<u8>>, waiting: &AtomicUsize) {
    for message in messages {
        if stdin.write_all(&message).and_then(|()| stdin.flush()).is_err() {
            return;
        }
        waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A worker's standard output, with a deadline: later reads fail with `TimedOut`.
/// Bytes that were received and not consumed remain for the next read.
pub(super) struct Stdout {
    chunks: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    wait: Wait,
}

impl Stdout {
    /// Moves the deadline to at most `left` from now.
    pub(super) fn hurry(&mut self, left: Duration) {
        self.wait.hurry(left);
    }

    /// The state of the output within a time limit; `None` if it is still unknown.
    fn next(&mut self, within: Duration) -> Option<Next> {
        if self.at < self.chunk.len() {
            return Some(Next::Output);
        }
        let mut wait = self.wait.clone();
        wait.hurry(within);
        match wait.receive(&self.chunks) {
            Ok(chunk) => (self.chunk, self.at) = (chunk, 0),
            Err(RecvTimeoutError::Disconnected) => return Some(Next::Closed),
            Err(RecvTimeoutError::Timeout) if self.wait.is_over() => {}
            Err(RecvTimeoutError::Timeout) => return None,
        }
        Some(Next::Output)
    }

    /// Everything that was written and not read.
    pub(super) fn rest(&mut self) -> &[u8] {
        self.chunk.drain(..self.at);
        self.at = 0;
        self.chunk.extend(self.chunks.try_iter().flatten());
        &self.chunk
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
