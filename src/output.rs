//! How the command prints: frames to stdout, messages and progress to stderr.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use clap::ValueEnum;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use polars::prelude::*;

/// Where a frame goes, and as what.
#[derive(clap::Args)]
pub struct Output {
    /// table, csv, json or parquet [default: table on a terminal, else csv].
    #[arg(long)]
    format: Option<Format>,
    /// Write to a file instead of stdout.
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

impl Output {
    /// Writes rows; Parquet and CSV as they come.
    pub fn write<'a>(&self, rows: impl Into<Rows<'a>>) -> anyhow::Result<()> {
        let (rows, format) = (rows.into(), self.format.unwrap_or_else(|| self.guess()));
        let Some(path) = &self.output else { return write(rows, format, Box::new(io::stdout())) };
        let named = || path.display().to_string();
        // Devices, and what a link points to, are written in place.
        if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return write(rows, format, Box::new(File::create(path).with_context(named)?)).with_context(named);
        }
        // Beside the file until it is whole.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut options = tempfile::Builder::new();
        let file = options.prefix(".uphill-").permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
        let file = file.with_context(named)?;
        if let Ok(found) = path.metadata() {
            file.as_file().set_permissions(found.permissions()).with_context(named)?;
        }
        write(rows, format, Box::new(file.as_file().try_clone().with_context(named)?)).with_context(named)?;
        file.persist(path).with_context(named)?;
        Ok(())
    }

    fn guess(&self) -> Format {
        let by_name = self.output.as_ref().and_then(|path| path.extension()).and_then(|name| name.to_str());
        match by_name {
            Some("csv") => Format::Csv,
            Some("json") => Format::Json,
            Some("parquet") => Format::Parquet,
            _ if self.output.is_none() && io::stdout().is_terminal() => Format::Table,
            _ => Format::Csv,
        }
    }
}

/// Rows to write.
pub enum Rows<'a> {
    /// What a query gives.
    Query(Box<LazyFrame>),
    /// Frames of the same columns, at least one, one below the other.
    Frames(Box<dyn Iterator<Item = uphill::Result<DataFrame>> + 'a>),
}

impl From<LazyFrame> for Rows<'_> {
    fn from(query: LazyFrame) -> Self {
        Rows::Query(Box::new(query))
    }
}

fn write(rows: Rows<'_>, format: Format, out: Box<dyn Write + Send>) -> anyhow::Result<()> {
    let mut out = match format {
        Format::Csv | Format::Parquet => return write_batches(rows, format, out),
        Format::Table | Format::Json => BufWriter::new(out),
    };
    let mut frame = match rows {
        Rows::Query(query) => uphill::collect(*query)?,
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
            JsonWriter::new(&mut out).with_json_format(JsonFormat::Json).finish(&mut frame)?;
            writeln!(out)?;
        }
        _ => writeln!(out, "{}", table(&frame))?,
    }
    Ok(out.flush()?)
}

fn write_batches(rows: Rows<'_>, format: Format, out: Box<dyn Write + Send>) -> anyhow::Result<()> {
    match rows {
        Rows::Query(mut query) => {
            let schema = query.collect_schema()?;
            let sink = Arc::new(Mutex::new(sink(format, out, &schema)?));
            let lock = |sink: &Arc<Mutex<Sink>>, batch| sink.lock().unwrap_or_else(PoisonError::into_inner)(batch);
            let shared = sink.clone();
            let take = PlanCallback::new(move |batch| lock(&shared, Some(batch)).map(|()| false));
            uphill::collect(query.sink_batches(take, true, Some(rows_at_once(&schema)))?)?;
            Ok(lock(&sink, None)?)
        }
        Rows::Frames(mut frames) => {
            let Some(first) = frames.next().transpose()? else { return Ok(()) };
            let mut sink = sink(format, out, first.schema())?;
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

fn sink(format: Format, out: Box<dyn Write + Send>, schema: &Schema) -> PolarsResult<Sink> {
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
            let mut writer = CsvWriter::new(out).batched(schema)?;
            Box::new(move |frame| match frame {
                Some(frame) => writer.write_batch(flat(&frame)?.rechunk_mut()),
                None => writer.finish(),
            })
        }
    })
}

/// A frame as text, at most 50 rows of it.
fn table(frame: &DataFrame) -> String {
    const MOST: usize = 50;
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_HORIZONTAL_ONLY)
        .set_header(frame.columns().iter().map(|column| column.name().to_string()));
    for row in 0..frame.height().min(MOST) {
        table.add_row(frame.columns().iter().map(|column| column.get(row).map_or(String::new(), |value| cell(&value))));
    }
    let mut text = table.to_string();
    if frame.height() > MOST {
        text.push_str(&format!("\n… and {} rows more (--format csv shows all)", frame.height() - MOST));
    }
    text
}

fn cell(value: &AnyValue<'_>) -> String {
    match value {
        AnyValue::Null => String::new(),
        AnyValue::Float64(value) => format!("{value:.6}").trim_end_matches('0').trim_end_matches('.').to_string(),
        AnyValue::String(text) => shorten(text),
        AnyValue::StringOwned(text) => shorten(text),
        other => other.to_string(),
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(48) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

/// Lists as text such as `[0.5, 0.25]`: CSV has no lists.
fn flat(frame: &DataFrame) -> PolarsResult<DataFrame> {
    let mut flat = frame.clone();
    for column in frame.columns() {
        let list = match column.dtype() {
            DataType::Array(inner, _) => column.cast(&DataType::List(inner.clone()))?,
            DataType::List(_) => column.clone(),
            _ => continue,
        };
        let list = list.cast(&DataType::List(Box::new(DataType::String)))?;
        let lists = list.list()?;
        let text: StringChunked = (0..lists.len())
            .map(|row| {
                let values = lists.get_as_series(row)?;
                let values = values.str().ok()?;
                let items: Vec<&str> = values.iter().map(|value| value.unwrap_or("")).collect();
                Some(format!("[{}]", items.join(", ")))
            })
            .collect();
        flat.with_column(text.with_name(column.name().clone()).into_column())?;
    }
    Ok(flat)
}

/// Prints a JSON object as aligned lines, or as it is.
pub fn facts(facts: &serde_json::Value, json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(facts)?)?;
        return Ok(());
    }
    for (name, value) in facts.as_object().into_iter().flatten() {
        let value = match value {
            serde_json::Value::Null => "-".into(),
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Array(items) => {
                items.iter().map(|item| item.as_str().unwrap_or_default()).collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        writeln!(out, "{name:<16}  {value}")?;
    }
    Ok(())
}

/// A bar on stderr, if that is a terminal.
pub fn progress_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} rows  {per_sec}  {msg}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Whether the reader of our output went away, which is not a failure.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
            || cause.to_string().contains("Broken pipe")
    })
}

/// Prints this crate's warnings.
pub fn log_warnings() {
    struct Warnings;
    impl log::Log for Warnings {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.level() <= log::Level::Warn && metadata.target().starts_with("uphill")
        }
        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                eprintln!("uphill: {}", record.args());
            }
        }
        fn flush(&self) {}
    }
    if log::set_logger(&Warnings).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
}

/// A message on one line, whatever the names in it are made of.
pub fn one_line(message: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    message.chars().map(escaped).collect()
}

/// A panic is told by whoever catches it, on one line; its place and backtrace only if `RUST_BACKTRACE` is set.
pub fn quiet_panics() {
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

/// The message of a panic that nobody expected.
pub fn bug(panic: &(dyn std::any::Any + Send)) -> anyhow::Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    let text = text.and_then(|text| text.lines().next()).unwrap_or("no message");
    anyhow::anyhow!("stopped by a bug (RUST_BACKTRACE=1 tells more): {text}")
}
