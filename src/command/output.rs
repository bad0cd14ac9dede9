//! How the command prints: frames to stdout, messages and progress to stderr.

mod ended;
mod progress;
mod screen;
mod standing;
mod table;
mod text;
mod voice;

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::Context;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use polars::prelude::*;

pub use self::ended::{ended, go_on, shell, took};
pub use self::progress::Progress;
use self::screen::inert;
pub use self::screen::{count, seconds};
pub use self::voice::{Voice, caught, fail, log_warnings, quiet_panics, say, told, warn};
use crate::error::Error;
use crate::frame::text::format_number;
use crate::panics::lock;

/// Where a frame goes, and as what.
#[derive(clap::Args)]
pub struct Output {
    /// table, csv, json or parquet [default: table on a terminal, else csv].
    #[arg(long)]
    format: Option<Format>,
    /// Write to a file instead of stdout; without --format its name says the format: .csv, .json or .parquet.
    #[arg(long, short)]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    Table,
    Csv,
    Json,
    Parquet,
}

/// Why rows are not where they should be.
#[derive(Debug, thiserror::Error)]
pub enum Unwritten {
    /// Whoever read standard output went away, which is not a failure.
    #[error("standard output is closed")]
    ReaderLeft,
    /// The file, or standard output, does not take them.
    #[error("{}", told(.0))]
    Output(anyhow::Error),
    /// They cannot be had, or not in this format.
    #[error("{}", told(.0))]
    Rows(anyhow::Error),
}

impl Output {
    /// Writes rows; Parquet and CSV as they come.
    pub fn write<'a>(&self, rows: impl Into<Rows<'a>>) -> Result<(), Unwritten> {
        let (rows, format) = (rows.into(), self.format().map_err(|error| Unwritten::Rows(error.into()))?);
        match &self.output {
            Some(path) => to_file(path, |out| write(rows, format, out, false)),
            None => to_stdout(|out, terminal| write(rows, format, out, terminal)),
        }
    }

    /// Refuses a file whose name is of no format here, before anything is done for it.
    pub fn check(&self) -> crate::error::Result<()> {
        self.format().map(drop)
    }

    /// Whether rows are shown to people: then a table says what can be said in less room.
    pub fn is_table(&self) -> bool {
        matches!(self.format(), Ok(Format::Table))
    }

    /// Whether facts are written as JSON.
    pub fn is_json(&self) -> bool {
        matches!(self.format(), Ok(Format::Json))
    }

    fn format(&self) -> crate::error::Result<Format> {
        const NAMES: [(&str, Format); 3] = [("csv", Format::Csv), ("json", Format::Json), ("parquet", Format::Parquet)];
        Ok(match (self.format, &self.output) {
            (Some(format), _) => format,
            (None, Some(path)) => match extension(path, &NAMES.map(|(name, _)| name), ", or say --format")? {
                Some(at) => NAMES[at].1,
                None => Format::Csv,
            },
            (None, None) if io::stdout().is_terminal() => Format::Table,
            (None, None) => Format::Csv,
        })
    }
}

/// Which of the known extensions the name of a file has, if it has any; another one promises what would not be there.
pub fn extension(path: &Path, known: &[&str], or: &str) -> crate::error::Result<Option<usize>> {
    let Some(found) = path.extension() else { return Ok(None) };
    let at = known.iter().position(|name| found.eq_ignore_ascii_case(name));
    at.map(Some).ok_or_else(|| {
        let (file, found) = (path.display(), found.display());
        let known = known.iter().map(|name| format!(".{name}")).collect::<Vec<_>>().join(", ");
        Error::Config(format!("{file}: .{found} is not written here; name it {known}{or}"))
    })
}

type Out = Box<dyn Write + Send>;

/// Writes to standard output, and knows if it is a terminal.
pub fn to_stdout(work: impl FnOnce(Out, bool) -> anyhow::Result<()>) -> Result<(), Unwritten> {
    match noting(Box::new(io::stdout()), |out| work(out, io::stdout().is_terminal())) {
        (Err(_), Some(io::ErrorKind::BrokenPipe)) => Err(Unwritten::ReaderLeft),
        (Err(error), Some(_)) => Err(Unwritten::Output(error.context("standard output"))),
        (done, _) => done.map_err(Unwritten::Rows),
    }
}

/// Whether files that are not whole yet are given up.
static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// Gives up the files that are being written.
pub fn write_no_more() {
    GIVEN_UP.store(true, Ordering::Relaxed);
}

fn refuse_if_given_up() -> io::Result<()> {
    match GIVEN_UP.load(Ordering::Relaxed) {
        true => Err(io::Error::other("interrupted")),
        false => Ok(()),
    }
}

/// Writes a file, which appears when it is whole.
pub fn to_file(path: &Path, work: impl FnOnce(Out) -> anyhow::Result<()>) -> Result<(), Unwritten> {
    let named = || path.display().to_string();
    let opened = |file: io::Result<File>| file.with_context(named).map_err(Unwritten::Output);
    let to = |file: File| match noting(Box::new(file), work) {
        (Err(error), Some(_)) => Err(Unwritten::Output(error.context(named()))),
        (done, _) => done.map_err(Unwritten::Rows),
    };
    // Devices, and what a link points to, are written in place.
    if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        return to(opened(File::create(path))?);
    }
    // Beside the file until it is whole.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut options = tempfile::Builder::new();
    let file = options.prefix(".uphill-").permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
    let file = file.with_context(named).map_err(Unwritten::Output)?;
    if let Ok(found) = path.metadata() {
        let kept = file.as_file().set_permissions(found.permissions());
        kept.with_context(named).map_err(Unwritten::Output)?;
    }
    to(opened(file.as_file().try_clone())?)?;
    refuse_if_given_up().with_context(named).map_err(Unwritten::Output)?;
    file.persist(path).with_context(named).map_err(Unwritten::Output)?;
    Ok(())
}

/// Does what writes; says how, and what the operating system said, as the libraries in between may hide it.
fn noting(out: Out, work: impl FnOnce(Out) -> anyhow::Result<()>) -> (anyhow::Result<()>, Option<io::ErrorKind>) {
    let failed = Arc::new(OnceLock::new());
    let noted = Noted { out: Arc::new(Mutex::new(out)), failed: failed.clone() };
    // Some writers leave the last bytes to be flushed, or say nothing of what became of them.
    let done = caught(|| work(Box::new(noted.clone()))).and_then(|()| Ok({ noted }.flush()?));
    let failed = failed.get().copied();
    (done.and_then(|()| failed.map_or(Ok(()), |kind| Err(io::Error::from(kind).into()))), failed)
}

/// A writer whose first failure can be asked for.
#[derive(Clone)]
struct Noted {
    out: Arc<Mutex<Out>>,
    failed: Arc<OnceLock<io::ErrorKind>>,
}

impl Noted {
    fn note<T>(&self, work: impl FnOnce(&mut Out) -> io::Result<T>) -> io::Result<T> {
        let done = refuse_if_given_up();
        let done = done.and_then(|()| work(&mut lock(&self.out)));
        done.inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                let _ = self.failed.set(error.kind());
            }
        })
    }
}

impl Write for Noted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.note(|out| out.write(bytes))
    }
    fn flush(&mut self) -> io::Result<()> {
        self.note(|out| out.flush())
    }
}

/// Rows to write.
pub enum Rows<'a> {
    /// What a query gives.
    Query(Box<LazyFrame>),
    /// Frames of the same columns, at least one, one below the other.
    Frames(Box<dyn Iterator<Item = crate::error::Result<DataFrame>> + 'a>),
}

impl From<LazyFrame> for Rows<'_> {
    fn from(query: LazyFrame) -> Self {
        Rows::Query(Box::new(query))
    }
}

fn write(rows: Rows<'_>, format: Format, out: Out, terminal: bool) -> anyhow::Result<()> {
    if terminal && matches!(format, Format::Parquet) {
        anyhow::bail!("Parquet is not for a terminal; write it to a file (-o) or into a pipe");
    }
    let mut out = match format {
        Format::Csv | Format::Parquet => return write_batches(rows, format, out, terminal),
        Format::Table | Format::Json => BufWriter::new(out),
    };
    let frame = match rows {
        Rows::Query(query) => crate::log::collect(*query)?,
        Rows::Frames(frames) => {
            let mut whole = DataFrame::empty();
            for frame in frames {
                whole.vstack_mut_owned(frame?)?;
            }
            whole
        }
    };
    match format {
        Format::Json => {
            let mut frame = crate::frame::text::to_json_types(&frame)?;
            if terminal {
                let mut text = Vec::new();
                JsonWriter::new(&mut text).with_json_format(JsonFormat::Json).finish(&mut frame)?;
                out.write_all(&screen::inert_json(&text))?;
            } else {
                JsonWriter::new(&mut out).with_json_format(JsonFormat::Json).finish(&mut frame)?;
            }
            writeln!(out)?;
        }
        _ => {
            let width = if terminal { screen::columns_of_stdout() } else { None };
            writeln!(out, "{}", table::table(&frame, width)?)?;
        }
    }
    Ok(out.flush()?)
}

fn write_batches(rows: Rows<'_>, format: Format, out: Out, terminal: bool) -> anyhow::Result<()> {
    match rows {
        Rows::Query(mut query) => {
            let schema = query.collect_schema()?;
            let sink = Arc::new(Mutex::new(sink(format, out, &schema, terminal)?));
            let give = |sink: &Arc<Mutex<Sink>>, batch| lock(sink)(batch);
            let shared = sink.clone();
            let take = PlanCallback::new(move |batch| give(&shared, Some(batch)).map(|()| false));
            crate::log::collect(query.sink_batches(take, true, Some(rows_at_once(&schema)))?)?;
            Ok(give(&sink, None)?)
        }
        Rows::Frames(mut frames) => {
            let Some(first) = frames.next().transpose()? else { return Ok(()) };
            let mut sink = sink(format, out, first.schema(), terminal)?;
            sink(Some(first))?;
            for frame in frames {
                sink(Some(frame?))?;
            }
            Ok(sink(None)?)
        }
    }
}

/// Rows that are written at once, and make a row group of Parquet: as many as DuckDB's have, but no more than some 64 MB.
fn rows_at_once(schema: &Schema) -> NonZeroUsize {
    let width = |dtype: &DataType| match dtype {
        DataType::Array(_, values) => 8 * values,
        _ => 16,
    };
    let width: usize = schema.iter_values().map(width).sum();
    NonZeroUsize::new(((64 << 20) / width.max(1)).min(122_880)).unwrap_or(NonZeroUsize::MIN)
}

/// Takes frames, then `None`.
type Sink = Box<dyn FnMut(Option<DataFrame>) -> PolarsResult<()> + Send>;

fn sink(format: Format, out: Out, schema: &Schema, terminal: bool) -> PolarsResult<Sink> {
    Ok(match format {
        Format::Parquet => {
            let mut writer = ParquetWriter::new(out).batched(schema)?;
            Box::new(move |frame| match frame {
                Some(mut frame) if frame.height() > 0 => writer.write_batch(frame.rechunk_mut()),
                Some(_) => Ok(()),
                None => writer.finish().map(drop),
            })
        }
        _ => {
            let flat = move |frame: &DataFrame| {
                let frame = text::flat(frame, None)?;
                if terminal { screen::inert_frame(frame) } else { Ok(frame) }
            };
            let head = flat(&DataFrame::empty_with_schema(schema))?;
            let mut writer = CsvWriter::new(out).batched(head.schema())?;
            Box::new(move |frame| match frame {
                Some(frame) => writer.write_batch(flat(&frame)?.rechunk_mut()),
                None => writer.finish(),
            })
        }
    })
}

/// Prints a JSON object as aligned lines, or as it is.
pub fn facts(facts: &serde_json::Value, json: bool) -> Result<(), Unwritten> {
    to_stdout(|mut out, terminal| {
        if json {
            let text = serde_json::to_string_pretty(facts)?.into_bytes();
            out.write_all(if terminal { screen::inert_json(&text) } else { text }.as_slice())?;
            return Ok(writeln!(out)?);
        }
        for (name, value) in facts.as_object().into_iter().flatten() {
            let value = match value {
                serde_json::Value::Null => "-".into(),
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Array(items) => {
                    items.iter().map(|item| item.as_str().unwrap_or_default()).collect::<Vec<_>>().join(", ")
                }
                serde_json::Value::Object(shares) => {
                    let share = |share: &serde_json::Value| format!("{:.3}", share.as_f64().unwrap_or_default());
                    shares.iter().map(|(name, value)| format!("{name} {}", share(value))).collect::<Vec<_>>().join(", ")
                }
                serde_json::Value::Number(float) if float.is_f64() => float.as_f64().map_or("-".into(), format_number),
                other => other.to_string(),
            };
            let width = if terminal { screen::columns_of_stdout() } else { None };
            writeln!(out, "{name:<16}  {}", screen::wrapped(&inert(&value), 18, width))?;
        }
        Ok(())
    })
}

/// A bar on stderr, if that is to be drawn on.
pub fn progress_bar() -> ProgressBar {
    if !Voice::now().draws() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} rows  {per_sec}  {msg}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
