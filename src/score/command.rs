//! Scores by an external command.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use super::Session;
use super::answers::Attempt;
use super::deadline::Deadline;
use super::external::{ExternalScore, ScorerClient};
use super::fault::{AttemptFault, ScorerFault};
use super::framing::{CommandFormat, ReadError, decode, encode, may_contain_answer};
use super::process::{Launcher, OutputLog, exit_fault, find_program};
use super::unexpected_output::UnexpectedOutput;
use super::worker::Worker;
use crate::error::{AtPath, Error, Result, WrapErr};
use crate::frame::convert;
use crate::io::parquet::read_parquet;
use crate::panics::lock;

/// How a scoring command is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandMode {
    /// Long-lived processes that answer requests until their standard input ends.
    #[default]
    Stream,
    /// One process for each request: `COMMAND… INPUT.parquet OUTPUT.parquet`.
    Batch,
}

/// Scores by an external command, such as `["python3", "score.py"]`. No shell is involved.
///
/// In [`CommandMode::Stream`] each of the [`workers`](ExternalScore::workers) processes reads items from standard input and
/// writes answers to standard output. RequestAnswers are matched by `db_idx`, so their order does not matter.
/// A scorer of JSON lines is a loop. An empty line ends a request, in both directions:
///
/// ```python
/// import json, sys
/// for line in sys.stdin:
///     if line.strip():
///         item = json.loads(line)
///         print(json.dumps({"db_idx": item["db_idx"], "score": dock(item["smiles"])}), flush=True)
///     else:
///         print(flush=True)
/// ```
///
/// With [`CommandFormat::Arrow`] each request is one IPC stream, and so are its answers:
///
/// ```python
/// import sys, pyarrow as pa
/// while sys.stdin.buffer.peek(1):
///     items = pa.ipc.open_stream(sys.stdin.buffer).read_all()
///     answers = pa.table({"db_idx": items["db_idx"], "score": model(items)})
///     with pa.ipc.new_stream(sys.stdout.buffer, answers.schema) as stream:
///         stream.write_table(answers)
///     sys.stdout.flush()
/// ```
///
/// An attempt fails if the process exits, closes its output, times out, or leaves items out.
/// The other items of the request are then retried by a new process (see [`ExternalScore`]).
/// Reasons are, for example, `exited with status 3`, `timeout after 30 s` or `no answer`.
///
/// Other output between the answers, such as messages of imported packages, is ignored. It is saved with the standard error, and
/// shown in the reason if no answer arrives at all.
///
/// Each process runs in its own process group, is killed together with everything it started, and is always reaped.
/// A process should exit when its standard input ends; it is killed shortly afterwards. If the run is interrupted, processes
/// with a request in flight are killed at once.
pub type CommandScore = ExternalScore<Command>;

/// The processes of a [`CommandScore`].
pub struct Command {
    arguments: Vec<String>,
    directory: Option<PathBuf>,
    mode: CommandMode,
    format: CommandFormat,
    stderr: Mutex<StderrTarget>,
    /// Whether the caller set the path for standard error, instead of the run.
    has_custom_stderr: bool,
    /// Idle processes.
    idle: Mutex<Vec<Worker>>,
    /// Whether this run has warned about unexpected output.
    has_warned: AtomicBool,
}

enum StderrTarget {
    Inherit,
    /// Not opened yet.
    Path(PathBuf),
    Open(Arc<OutputLog>),
}

impl CommandScore {
    /// A program and its arguments.
    pub fn new(arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let command = Command {
            arguments: arguments.into_iter().map(Into::into).collect(),
            directory: None,
            mode: CommandMode::default(),
            format: CommandFormat::default(),
            stderr: Mutex::new(StderrTarget::Inherit),
            has_custom_stderr: false,
            idle: Mutex::new(Vec::new()),
            has_warned: AtomicBool::new(false),
        };
        ExternalScore::with_client(command, 64, None)
    }

    /// Sets how the command is run: long-lived processes (the default), or one process for each request.
    pub fn mode(mut self, mode: CommandMode) -> Self {
        self.client.mode = mode;
        self
    }

    /// Sets the format of the pipes in [`CommandMode::Stream`] (default JSON lines).
    pub fn format(mut self, format: CommandFormat) -> Self {
        self.client.format = format;
        self
    }

    /// Sets the working directory of the command (default: that of this process).
    pub fn working_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.client.directory = Some(directory.into());
        self
    }

    /// Sets the file that the command's standard error is appended to, up to 16 MiB
    /// (default: `stderr/command.log` in the run folder, or the standard error of this process outside of a run).
    pub fn stderr(mut self, path: impl Into<PathBuf>) -> Self {
        *lock(&self.client.stderr) = StderrTarget::Path(path.into());
        self.client.has_custom_stderr = true;
        self
    }
}

impl Command {
    fn launcher(&self) -> Result<Launcher<'_>> {
        let mut stderr = lock(&self.stderr);
        if let StderrTarget::Path(path) = &*stderr {
            *stderr = StderrTarget::Open(Arc::new(OutputLog::open(path)?));
        }
        let log = match &*stderr {
            StderrTarget::Open(log) => Some(log.clone()),
            _ => None,
        };
        Ok(Launcher { arguments: &self.arguments, directory: self.directory.as_deref(), stderr: log })
    }

    fn worker(&self, launcher: &Launcher<'_>) -> Result<Worker, ScorerFault> {
        loop {
            let Some(mut worker) = lock(&self.idle).pop() else { return Worker::start(launcher) };
            // Other text between the requests is harmless.
            if worker.is_alive() && !may_contain_answer(self.format, worker.stdout.unread()) {
                return Ok(worker);
            }
            log::warn!("score: the scorer exited or wrote unrequested output between requests; restarting it");
        }
    }

    fn stream(&self, items: &DataFrame, attempt: &mut Attempt, deadline: &Deadline) -> Result<(), ScorerFault> {
        let message = encode(self.format, items)?;
        let launcher = self.launcher()?;
        let mut unexpected = UnexpectedOutput::new(launcher.stderr.as_deref(), &self.has_warned);
        let mut worker = self.worker(&launcher)?;
        worker.send(message, deadline);
        let fault = match decode(self.format, &mut worker, attempt, &mut unexpected) {
            Ok(()) => {
                lock(&self.idle).push(worker);
                if attempt.has_any() || items.height() == 0 {
                    return Ok(());
                }
                ScorerFault::Attempt(AttemptFault::missing_answer())
            }
            Err(ReadError::Scorer(fault)) => fault,
            Err(ReadError::Io(std::io::ErrorKind::TimedOut)) if attempt.is_complete() => {
                ScorerFault::malfunction("did not end its answers with an empty line")
            }
            Err(ReadError::Io(std::io::ErrorKind::TimedOut)) => deadline.timeout_fault(),
            // Standard output closes slightly before the process exits.
            Err(ReadError::Io(_)) => exit_fault(worker.stop(&Deadline::up_to(Duration::from_secs(1)))),
        };
        Err(if attempt.has_any() { fault } else { unexpected.explain(fault) })
    }

    fn batch(&self, items: &DataFrame, attempt: &mut Attempt, deadline: &Deadline) -> Result<(), ScorerFault> {
        let folder = tempfile::Builder::new().prefix("uphill-score-").tempdir().at_path(std::env::temp_dir())?;
        let (input, output) = (folder.path().join("input.parquet"), folder.path().join("output.parquet"));
        write_input(&input, items)?;
        let mut arguments = self.arguments.clone();
        arguments.extend([&input, &output].map(|path| path.to_string_lossy().into_owned()));
        let mut process = Launcher { arguments: &arguments, ..self.launcher()? }.run()?;
        if !process.wait(deadline) {
            return Err(deadline.timeout_fault());
        }
        let status = process.stop();
        if !status.is_some_and(|status| status.success()) {
            return Err(exit_fault(status));
        }
        if !output.exists() {
            return Err(ScorerFault::malfunction("wrote no output file"));
        }
        let answers =
            read_parquet(&output).map_err(|_| ScorerFault::malfunction("wrote an output file that is not Parquet"))?;
        attempt.record_frame(&answers)
    }

    /// Ends the idle processes.
    fn stop_idle(&mut self) {
        let mut idle = std::mem::take(&mut *lock(&self.idle));
        // Close all inputs before waiting for the first process, so that all get the same grace period.
        idle.iter_mut().for_each(Worker::close);
        let grace = Deadline::up_to(Duration::from_secs(2));
        for worker in &mut idle {
            worker.stop(&grace);
        }
    }
}

impl ScorerClient for Command {
    fn request(&self, items: &DataFrame, attempt: &mut Attempt, deadline: &Deadline) -> Result<(), ScorerFault> {
        match self.mode {
            CommandMode::Stream => self.stream(items, attempt, deadline),
            CommandMode::Batch => self.batch(items, attempt, deadline),
        }
    }

    fn check(&self, items: &DataFrame) -> Result<()> {
        let Some(program) = self.arguments.first() else {
            return Err(Error::Config("score.command: expected a program and its arguments, found nothing".into()));
        };
        if find_program(program, self.directory.as_deref()).is_none() {
            return Err(Error::Config(format!("score.command: program `{program}` not found")));
        }
        match self.mode {
            // Fails if a column cannot be encoded in this format.
            CommandMode::Stream => encode(self.format, items).map(|_| ()),
            CommandMode::Batch => Ok(()),
        }
    }

    fn is_started_here(&self) -> bool {
        true
    }

    fn begin(&mut self, session: &Session) {
        // The processes of another run write to that run's file.
        self.stop_idle();
        self.has_warned.store(false, Ordering::Relaxed);
        if !self.has_custom_stderr {
            *lock(&self.stderr) = StderrTarget::Path(session.stderr.join("command.log"));
        }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.stop_idle();
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandScore")
            .field("arguments", &self.arguments)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// Writes a temporary Parquet file, which need not survive a crash.
fn write_input(path: &Path, items: &DataFrame) -> Result<()> {
    let batch = convert::to_arrow(items)?;
    let file = std::fs::File::create(path).at_path(path)?;
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).wrap_err(path.display())?;
    writer.write(&batch).wrap_err(path.display())?;
    writer.close().map(|_| ()).wrap_err(path.display())
}
