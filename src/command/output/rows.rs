//! Frames as tables, CSV, JSON or Parquet. CSV and Parquet are written batch by batch.

use std::io::{BufWriter, Write};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use clap::ValueEnum;
use polars::prelude::*;

use super::writer::Writer;
use super::{flatten, table, terminal};
use crate::panics::lock;

#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    Table,
    Csv,
    Json,
    Parquet,
}

/// Rows to write.
pub enum Rows<'a> {
    /// The result of a query.
    Query(Box<LazyFrame>),
    /// The rows of frames with the same columns, at least one frame.
    Frames(Box<dyn Iterator<Item = crate::error::Result<DataFrame>> + 'a>),
}

impl From<LazyFrame> for Rows<'_> {
    fn from(query: LazyFrame) -> Self {
        Rows::Query(Box::new(query))
    }
}

/// Writes rows in a format. For a terminal, control characters are escaped and tables fit its width.
pub fn write(rows: Rows<'_>, format: Format, out: Writer, is_terminal: bool) -> anyhow::Result<()> {
    if is_terminal && matches!(format, Format::Parquet) {
        anyhow::bail!("cannot write Parquet to a terminal; write it to a file (-o) or a pipe");
    }
    let mut out = match format {
        Format::Csv | Format::Parquet => return write_batches(rows, format, out, is_terminal),
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
            if is_terminal {
                let mut text = Vec::new();
                JsonWriter::new(&mut text).with_json_format(JsonFormat::Json).finish(&mut frame)?;
                out.write_all(&terminal::escape_controls_in_json(&text))?;
            } else {
                JsonWriter::new(&mut out).with_json_format(JsonFormat::Json).finish(&mut frame)?;
            }
            writeln!(out)?;
        }
        _ => {
            let width = if is_terminal { terminal::stdout_width() } else { None };
            writeln!(out, "{}", table::table(&frame, width)?)?;
        }
    }
    Ok(out.flush()?)
}

fn write_batches(rows: Rows<'_>, format: Format, out: Writer, is_terminal: bool) -> anyhow::Result<()> {
    match rows {
        Rows::Query(mut query) => {
            let schema = query.collect_schema()?;
            let sink = Arc::new(Mutex::new(sink(format, out, &schema, is_terminal)?));
            let write = |sink: &Arc<Mutex<Sink>>, batch| lock(sink)(batch);
            let shared = sink.clone();
            let callback = PlanCallback::new(move |batch| write(&shared, Some(batch)).map(|()| false));
            crate::log::collect(query.sink_batches(callback, true, Some(batch_rows(&schema)))?)?;
            Ok(write(&sink, None)?)
        }
        Rows::Frames(mut frames) => {
            let Some(first) = frames.next().transpose()? else { return Ok(()) };
            let mut sink = sink(format, out, first.schema(), is_terminal)?;
            sink(Some(first))?;
            for frame in frames {
                sink(Some(frame?))?;
            }
            Ok(sink(None)?)
        }
    }
}

/// The number of rows of a batch, which is also a row group of Parquet: 122,880 as in DuckDB, or fewer if they take more than
/// about 64 MB.
fn batch_rows(schema: &Schema) -> NonZeroUsize {
    let width = |dtype: &DataType| match dtype {
        DataType::Array(_, values) => 8 * values,
        _ => 16,
    };
    let width: usize = schema.iter_values().map(width).sum();
    NonZeroUsize::new(((64 << 20) / width.max(1)).min(122_880)).unwrap_or(NonZeroUsize::MIN)
}

/// Takes frames, then `None` at the end.
type Sink = Box<dyn FnMut(Option<DataFrame>) -> PolarsResult<()> + Send>;

fn sink(format: Format, out: Writer, schema: &Schema, is_terminal: bool) -> PolarsResult<Sink> {
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
                let frame = flatten::flatten(frame, None)?;
                if is_terminal { terminal::escape_controls_in_frame(frame) } else { Ok(frame) }
            };
            let header = flat(&DataFrame::empty_with_schema(schema))?;
            let mut writer = CsvWriter::new(out).batched(header.schema())?;
            Box::new(move |frame| match frame {
                Some(frame) => writer.write_batch(flat(&frame)?.rechunk_mut()),
                None => writer.finish(),
            })
        }
    })
}
