//! Scores by an external command.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use super::Session;
use super::answers::Attempt;
use super::external::{Ask, ExternalScore};
use super::framing::{CommandFormat, Fault, decode, encode, may_answer};
use super::process::{Capture, Launch, describe, find_program};
use super::stray::Stray;
use super::trouble::{Trouble, Unanswered};
use super::wait::Wait;
use super::worker::Worker;
use crate::error::{AtPath, Error, Result, WrapErr};
use crate::frame::convert;
use crate::io::parquet::read_parquet;
use crate::panics::lock;

/// How a scoring command is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandMode {
    /// Long-lived processes that answer batches until their standard input ends.
    #[default]
    Stream,
    /// One process for each batch: `COMMAND… INPUT.parquet OUTPUT.parquet`.
    Batch,
}

/// Scores by an external command, such as `["python3", "score.py"]`. No shell is involved.
///
/// In [`CommandMode::Stream`] each of the [`workers`](ExternalScore::workers) processes reads batches from standard input and
/// writes answers to standard output. Answers are matched by `db_idx`, so their order does not matter.
/// A scorer of JSON lines is a loop. An empty line ends a batch, in both directions:
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
/// With [`CommandFormat::Arrow`] each batch is one IPC stream, and so are its answers:
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
/// The rest of the batch is then retried by a new process (see [`ExternalScore`]).
/// The reasons are such as `exited with status 3`, `timeout after 30 s`, `no answer`.
///
/// Output that libraries print to standard output between the answers is ignored. It is saved with the standard error, and
/// shown in the reason if no answer arrives at all.
///
/// Each process runs in its own process group, is killed together with everything it started, and is always reaped.
/// A process should exit when its standard input ends; it is killed shortly afterwards. If the run is interrupted, processes
/// with a batch in flight are killed at once.
pub type CommandScore = ExternalScore<Command>;

/// The processes of a [`CommandScore`].
pub struct Command {
    arguments: Vec<String>,
    directory: Option<PathBuf>,
    mode: CommandMode,
    format: CommandFormat,
    stderr: Mutex<Stderr>,
    /// Whether the caller set the path for standard error, instead of the run.
    own_stderr: bool,
    /// Idle processes.
    idle: Mutex<Vec<Worker>>,
    /// Whether the warning about unexpected output was given.
    is_stray_said: AtomicBool,
}

enum Stderr {
    Inherited,
    /// Not opened yet.
    To(PathBuf),
    Open(Arc<Capture>),
}

impl CommandScore {
    /// A program and its arguments.
    pub fn new(arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let command = Command {
            arguments: arguments.into_iter().map(Into::into).collect(),
            directory: None,
            mode: CommandMode::default(),
            format: CommandFormat::default(),
            stderr: Mutex::new(Stderr::Inherited),
            own_stderr: false,
            idle: Mutex::new(Vec::new()),
            is_stray_said: AtomicBool::new(false),
        };
        ExternalScore::of(command, 64, None)
    }

    /// Sets how the command is run: long-lived processes (the default), or one process for each batch.
    pub fn mode(mut self, mode: CommandMode) -> Self {
        self.scorer.mode = mode;
        self
    }

    /// Sets the format of the pipes in [`CommandMode::Stream`] (default JSON lines).
    pub fn format(mut self, format: CommandFormat) -> Self {
        self.scorer.format = format;
        self
    }

    /// Sets the working directory of the command (default: that of this process).
    pub fn working_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.scorer.directory = Some(directory.into());
        self
    }

    /// Sets the file that the command's standard error is appended to, up to 16 MiB
    /// (default: `stderr/command.log` in the run folder, or the standard error of this process outside of a run).
    pub fn stderr(mut self, path: impl Into<PathBuf>) -> Self {
        *lock(&self.scorer.stderr) = Stderr::To(path.into());
        self.scorer.own_stderr = true;
        self
    }
}

impl Command {
    fn launch(&self) -> Result<Launch<'_>> {
        let mut stderr = lock(&self.stderr);
        if let Stderr::To(path) = &*stderr {
            *stderr = Stderr::Open(Arc::new(Capture::open(path)?));
        }
        let capture = match &*stderr {
            Stderr::Open(capture) => Some(capture.clone()),
            _ => None,
        };
        Ok(Launch { arguments: &self.arguments, directory: self.directory.as_deref(), stderr: capture })
    }

    fn worker(&self, launch: &Launch<'_>) -> Result<Worker, Trouble> {
        loop {
            let Some(mut worker) = lock(&self.idle).pop() else { return Worker::start(launch) };
            // Text that a library has printed in the meantime does no harm.
            if worker.is_alive() && !may_answer(self.format, worker.stdout.rest()) {
                return Ok(worker);
            }
            log::warn!("score: the scorer exited or wrote unrequested output between batches; restarting it");
        }
    }

    fn stream(&self, items: &DataFrame, attempt: &mut Attempt, wait: &Wait) -> Result<(), Trouble> {
        let message = encode(self.format, items)?;
        let launch = self.launch()?;
        let mut stray = Stray::new(launch.stderr.as_deref(), &self.is_stray_said);
        let mut worker = self.worker(&launch)?;
        worker.send(message, wait);
        let trouble = match decode(self.format, &mut worker, attempt, &mut stray) {
            Ok(()) => {
                lock(&self.idle).push(worker);
                if attempt.has_any() || items.height() == 0 {
                    return Ok(());
                }
                Trouble::Unanswered(Unanswered::left_out())
            }
            Err(Fault::Said(trouble)) => trouble,
            Err(Fault::Io(std::io::ErrorKind::TimedOut)) if attempt.is_complete() => {
                Trouble::broken("did not end its answers with an empty line")
            }
            Err(Fault::Io(std::io::ErrorKind::TimedOut)) => wait.timed_out(),
            // Standard output closes slightly before the process exits.
            Err(Fault::Io(_)) => Trouble::broken(describe(worker.end(&Wait::up_to(Duration::from_secs(1))))),
        };
        Err(if attempt.has_any() { trouble } else { stray.explain(trouble) })
    }

    fn batch(&self, items: &DataFrame, attempt: &mut Attempt, wait: &Wait) -> Result<(), Trouble> {
        let folder = tempfile::Builder::new().prefix("uphill-score-").tempdir().at_path(std::env::temp_dir())?;
        let (input, output) = (folder.path().join("input.parquet"), folder.path().join("output.parquet"));
        write_input(&input, items)?;
        let mut arguments = self.arguments.clone();
        arguments.extend([&input, &output].map(|path| path.to_string_lossy().into_owned()));
        let mut process = Launch { arguments: &arguments, ..self.launch()? }.run()?;
        if !process.wait(wait) {
            return Err(wait.timed_out());
        }
        let status = process.end();
        if !status.is_some_and(|status| status.success()) {
            return Err(Trouble::broken(describe(status)));
        }
        if !output.exists() {
            return Err(Trouble::broken("wrote no output file"));
        }
        let answers = read_parquet(&output).map_err(|_| Trouble::broken("wrote an output file that is not Parquet"))?;
        attempt.put_frame(&answers)
    }

    /// Ends the idle processes.
    fn end_idle(&mut self) {
        let mut idle = std::mem::take(&mut *lock(&self.idle));
        // Close all inputs before waiting for the first process, so that all get the same grace period.
        idle.iter_mut().for_each(Worker::close);
        let grace = Wait::up_to(Duration::from_secs(2));
        for worker in &mut idle {
            worker.end(&grace);
        }
    }
}

impl Ask for Command {
    fn ask(&self, items: &DataFrame, attempt: &mut Attempt, wait: &Wait) -> Result<(), Trouble> {
        match self.mode {
            CommandMode::Stream => self.stream(items, attempt, wait),
            CommandMode::Batch => self.batch(items, attempt, wait),
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
        self.end_idle();
        self.is_stray_said.store(false, Ordering::Relaxed);
        if !self.own_stderr {
            *lock(&self.stderr) = Stderr::To(session.stderr.join("command.log"));
        }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.end_idle();
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
