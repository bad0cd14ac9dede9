//! Scores by a program of one's own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use super::Score;
use super::answers::Attempt;
use super::framing::{CommandFormat, Fault, decode, encode};
use super::process::{Capture, Launch, Worker, describe, find_program};
use super::retry::{Retries, Trouble, ask_until_answered};
use crate::bridge;
use crate::error::{AtPath, Doing, Error, Result};
use crate::schema::EMBEDDING;
use crate::untrusted::read_parquet;

/// How a scoring command is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandMode {
    /// Long-lived processes that answer batches until their standard input ends.
    #[default]
    Stream,
    /// A process for each batch: `COMMAND… INPUT.parquet OUTPUT.parquet`.
    Batch,
}

/// Scores by an external command, such as `["python3", "score.py"]`. No shell is involved.
///
/// In [`CommandMode::Stream`] each of [`workers`](Self::workers) processes takes batches from standard input and writes
/// the answers to standard output; answers are matched by `db_idx`, so their order does not matter.
/// A scorer of JSON lines is a loop; an empty line ends a batch, both ways:
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
/// # What happens to an item
/// - *Answered*: a finite number is its score. Null (with `reason`, if given), NaN, an infinity or text is a
///   failure, with a reason. Either way it is not asked again. Other numbers are kept as parts of the score,
///   but for columns that it was sent and sends back.
/// - *Not answered*, as the process exits, closes its output, is too slow, writes what is no answer, or leaves items
///   out: what it did answer counts, and a fresh process is asked for the rest, up to [`retries`](Self::retries) times.
///   After that the rest are failures with the last reason: `exited with status 3`, `timeout after 30 s`, `no answer`.
/// - *Wrong ids*, one that was not asked or one twice: the scorer mixes items up, so nothing of that attempt counts;
///   the batch is asked again, and then fails with that reason.
///
/// Processes run in groups of their own, are killed with whatever they started, and are always reaped.
/// They end on their own when their standard input does; a little later they are killed.
pub struct CommandScore {
    arguments: Vec<String>,
    directory: Option<PathBuf>,
    mode: CommandMode,
    format: CommandFormat,
    batch_size: usize,
    workers: usize,
    timeout: Option<Duration>,
    retries: Retries,
    embeddings: bool,
    stderr: Mutex<Stderr>,
    /// Processes that wait for a batch.
    idle: Mutex<Vec<Worker>>,
    again: AtomicU64,
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
        CommandScore {
            arguments: arguments.into_iter().map(Into::into).collect(),
            directory: None,
            mode: CommandMode::default(),
            format: CommandFormat::default(),
            batch_size: 64,
            workers: 1,
            timeout: None,
            retries: Retries::default(),
            embeddings: false,
            stderr: Mutex::new(Stderr::Inherited),
            idle: Mutex::new(Vec::new()),
            again: AtomicU64::new(0),
        }
    }

    /// Long-lived processes (the default), or one for each batch.
    pub fn mode(mut self, mode: CommandMode) -> Self {
        self.mode = mode;
        self
    }

    /// What goes through the pipes of [`CommandMode::Stream`] (default JSON lines).
    pub fn format(mut self, format: CommandFormat) -> Self {
        self.format = format;
        self
    }

    /// The most items in one batch (default 64).
    pub fn batch_size(mut self, items: usize) -> Self {
        self.batch_size = items;
        self
    }

    /// How many batches are in flight at a time, each with a process of its own (default 1).
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// The longest that a batch may take; then its process is killed (default: no limit).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How often items without an answer are asked again (default 2).
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries.count = retries;
        self
    }

    /// The wait before the first retry, doubled for each further one, up to a minute (default 1 s).
    pub fn backoff(mut self, first: Duration) -> Self {
        self.retries.first = first;
        self
    }

    /// Sends embeddings too (default no).
    pub fn embeddings(mut self, embeddings: bool) -> Self {
        self.embeddings = embeddings;
        self
    }

    /// The folder that the command is run in (default: that of this process).
    pub fn working_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// The file that the command's standard error is appended to, up to 16 MiB
    /// (default: `stderr/command.log` of the run, or this process's own outside of a run).
    pub fn stderr(self, path: impl Into<PathBuf>) -> Self {
        *lock(&self.stderr) = Stderr::To(path.into());
        self
    }

    /// The columns that the command gets.
    fn sent(&self, items: &DataFrame) -> DataFrame {
        if self.embeddings { items.clone() } else { items.drop_many([EMBEDDING]) }
    }

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

    fn worker(&self) -> Result<Worker> {
        loop {
            let Some(mut worker) = lock(&self.idle).pop() else { return Worker::start(&self.launch()?) };
            if worker.is_ready() {
                return Ok(worker);
            }
            log::warn!("score: a process ended, or wrote what was not asked, between two batches; starting another");
        }
    }

    fn stream(&self, items: &DataFrame, attempt: &mut Attempt) -> Result<(), Trouble> {
        let message = encode(self.format, items)?;
        let mut worker = self.worker()?;
        worker.send(message, self.timeout.map(|timeout| Instant::now() + timeout));
        match decode(self.format, &mut worker.stdout, attempt) {
            Ok(()) => {
                lock(&self.idle).push(worker);
                Ok(())
            }
            Err(Fault::Said(trouble)) => Err(trouble),
            Err(Fault::Io(std::io::ErrorKind::TimedOut)) if attempt.is_complete() => {
                Err(Trouble::unanswered("did not end its answers with an empty line"))
            }
            Err(Fault::Io(std::io::ErrorKind::TimedOut)) => Err(self.timed_out()),
            // The output ends a little before the process does.
            Err(Fault::Io(_)) => Err(Trouble::unanswered(describe(worker.end(Duration::from_secs(1))))),
        }
    }

    fn batch(&self, items: &DataFrame, attempt: &mut Attempt) -> Result<(), Trouble> {
        let folder = tempfile::Builder::new().prefix("uphill-score-").tempdir().at_path(std::env::temp_dir())?;
        let (input, output) = (folder.path().join("input.parquet"), folder.path().join("output.parquet"));
        write_input(&input, items)?;
        let mut arguments = self.arguments.clone();
        arguments.extend([&input, &output].map(|path| path.to_string_lossy().into_owned()));
        let mut process = Launch { arguments: &arguments, ..self.launch()? }.run()?;
        if !process.wait(self.timeout.map(|timeout| Instant::now() + timeout)) {
            return Err(self.timed_out());
        }
        let status = process.end();
        if !status.is_some_and(|status| status.success()) {
            return Err(Trouble::unanswered(describe(status)));
        }
        if !output.exists() {
            return Err(Trouble::unanswered("wrote no output file"));
        }
        let answers =
            read_parquet(&output).map_err(|_| Trouble::unanswered("wrote an output file that is not Parquet"))?;
        attempt.put_frame(&answers)
    }

    fn timed_out(&self) -> Trouble {
        Trouble::unanswered(format!("timeout after {} s", self.timeout.unwrap_or_default().as_secs_f64()))
    }
}

impl Score for CommandScore {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        ask_until_answered(&self.sent(batch), &self.retries, &self.again, |items, attempt| match self.mode {
            CommandMode::Stream => self.stream(items, attempt),
            CommandMode::Batch => self.batch(items, attempt),
        })
    }

    fn check(&self, items: &DataFrame) -> Result<()> {
        let Some(program) = self.arguments.first() else {
            return Err(Error::Config("score.command: expected a program and its arguments, found nothing".into()));
        };
        if find_program(program, self.directory.as_deref()).is_none() {
            return Err(Error::Config(format!("score.command: no program `{program}`")));
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::Config("score.timeout: expected more than 0 seconds, found 0".into()));
        }
        match self.mode {
            // Says so if there are columns that the format cannot hold.
            CommandMode::Stream => encode(self.format, &self.sent(items).head(Some(0))).map(|_| ()),
            CommandMode::Batch => Ok(()),
        }
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn workers(&self) -> usize {
        self.workers
    }

    fn asked_again(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }

    fn stderr_in(&self, folder: &Path) {
        let mut stderr = lock(&self.stderr);
        if matches!(&*stderr, Stderr::Inherited) {
            *stderr = Stderr::To(folder.join("command.log"));
        }
    }
}

impl Drop for CommandScore {
    fn drop(&mut self) {
        let mut idle = std::mem::take(&mut *lock(&self.idle));
        // All are told before the first is waited for.
        idle.iter_mut().for_each(Worker::close);
        for worker in &mut idle {
            worker.end(Duration::from_secs(2));
        }
    }
}

impl std::fmt::Debug for CommandScore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandScore")
            .field("arguments", &self.arguments)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A plain Parquet file: no need for it to survive a crash.
fn write_input(path: &Path, items: &DataFrame) -> Result<()> {
    let batch = bridge::to_arrow(items)?;
    let file = std::fs::File::create(path).at_path(path)?;
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).doing(path.display())?;
    writer.write(&batch).doing(path.display())?;
    writer.close().map(|_| ()).doing(path.display())
}
