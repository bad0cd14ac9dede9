//! Message framing of stream-mode commands: encodes batches, decodes answers.

use std::io::{self, BufRead, Cursor, Read};
use std::time::Duration;

use arrow::ipc::reader::StreamReader;
use arrow::ipc::root_as_message;
use arrow::ipc::writer::StreamWriter;
use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use super::answers::{Attempt, excerpt};
use super::json;
use super::stray::Stray;
use super::trouble::{Kind, Trouble};
use super::worker::{Next, Stdout, Worker};
use crate::error::{Result, WrapErr, first_line};
use crate::frame::convert;
use crate::frame::schema::DB_IDX;
use crate::panics::catch_message;

/// The format of batches and answers of a command in `stream` mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandFormat {
    /// Each batch and each batch of answers is one Arrow IPC stream, from its schema to its end-of-stream marker.
    #[serde(rename = "arrow")]
    Arrow,
    /// Each item and each answer is a JSON object on its own line. An empty line ends the batch, in both directions. Other
    /// lines between the answers, such as library output, are ignored.
    #[default]
    #[serde(rename = "jsonl")]
    JsonLines,
}

/// The byte that begins each message of an Arrow stream, four times.
const MARKER: u8 = 0xff;

/// The maximum size of a line or an Arrow stream.
const LONGEST: usize = 64 << 20;

/// How long to wait for the final empty line once every item has an answer.
const GRACE: Duration = Duration::from_secs(5);

/// How long the output must be idle before checking whether the scorer has finished: after an empty line, if some items have
/// answers and if none have; after a line that is not an answer, if none have.
const MORE: Duration = Duration::from_millis(100);
const ENDED: Duration = Duration::from_secs(1);
const DOUBT: Duration = Duration::from_secs(10);

/// Why answers could not be read to their end.
pub(super) enum Fault {
    /// The deadline (`TimedOut`), or the end of the output (`UnexpectedEof`).
    Io(io::ErrorKind),
    /// The output is invalid.
    Said(Trouble),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error.kind())
    }
}

impl From<Trouble> for Fault {
    fn from(trouble: Trouble) -> Self {
        Fault::Said(trouble)
    }
}

fn said(reason: impl Into<String>) -> Fault {
    Fault::Said(Trouble::broken(reason))
}

/// Encodes a batch.
pub(super) fn encode(format: CommandFormat, batch: &DataFrame) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match format {
        CommandFormat::JsonLines => {
            for record in json::records(batch)? {
                serde_json::to_writer(&mut bytes, &record).wrap_err("writing a batch")?;
                bytes.push(b'\n');
            }
            bytes.push(b'\n');
        }
        CommandFormat::Arrow => {
            let batch = convert::to_arrow(batch)?;
            let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema()).wrap_err("writing a batch")?;
            writer.write(&batch).and_then(|()| writer.finish()).wrap_err("writing a batch")?;
        }
    }
    Ok(bytes)
}

/// Reads the answers to one batch, and not a byte more.
pub(super) fn decode(
    format: CommandFormat,
    worker: &mut Worker,
    attempt: &mut Attempt,
    stray: &mut Stray<'_>,
) -> Result<(), Fault> {
    match format {
        CommandFormat::JsonLines => read_lines(worker, attempt, stray),
        CommandFormat::Arrow => read_stream(&mut worker.stdout, attempt, stray),
    }
}

/// Whether unrequested output may contain an answer or a part of one.
pub(super) fn may_answer(format: CommandFormat, output: &[u8]) -> bool {
    match format {
        CommandFormat::JsonLines => output.windows(DB_IDX.len()).any(|word| word == DB_IDX.as_bytes()),
        CommandFormat::Arrow => output.contains(&MARKER),
    }
}

fn read_lines(worker: &mut Worker, attempt: &mut Attempt, stray: &mut Stray<'_>) -> Result<(), Fault> {
    let mut line = Vec::new();
    loop {
        line.clear();
        worker.stdout.by_ref().take(LONGEST as u64 + 1).read_until(b'\n', &mut line)?;
        if line.len() > LONGEST {
            return Err(said(format!("returned a line of more than {} MiB", LONGEST >> 20)));
        }
        if !line.ends_with(b"\n") {
            return Err(Fault::Io(io::ErrorKind::UnexpectedEof));
        }
        let is_empty = line.trim_ascii().is_empty();
        if is_empty && !attempt.is_complete() {
            // This may be the end of the answers with items left out, or an empty line that a library printed.
            let silence = if attempt.has_any() { MORE } else { ENDED };
            if !matches!(worker.next(silence), Next::Output) {
                return Ok(());
            }
        } else if is_empty {
            return Ok(());
        }
        let answers = json::answers_in(&line);
        if answers.is_empty() {
            stray.take(&line)?;
            // This may be a banner before the answers, or all the output there is.
            if !is_empty && !attempt.has_any() && matches!(worker.next(DOUBT), Next::Nothing) {
                return Err(Fault::Said(Trouble::unanswered(Kind::Unusable, "no answer")));
            }
        }
        answers.iter().try_for_each(|answer| json::put_record(answer, attempt))?;
        if attempt.is_complete() {
            worker.stdout.hurry(GRACE);
        }
    }
}

fn read_stream(stdout: &mut Stdout, attempt: &mut Attempt, stray: &mut Stray<'_>) -> Result<(), Fault> {
    let bytes = stream_bytes(stdout, stray)?;
    let broken = |error: String| said(format!("returned an invalid Arrow stream: {}", first_line(&error)));
    let reader = catch_message(|| StreamReader::try_new(Cursor::new(bytes), None)).map_err(broken)?;
    let mut reader = reader.map_err(|error| broken(error.to_string()))?;
    while let Some(batch) = catch_message(|| reader.next()).map_err(broken)? {
        let batch = batch.map_err(|error| broken(error.to_string()))?;
        // A column of nulls takes no space in a stream, whatever length it declares.
        let batch = batch.slice(0, batch.num_rows().min(attempt.most_rows()));
        let answers = catch_message(|| convert::to_polars(&batch)).map_err(broken)?;
        attempt.put_frame(&answers.map_err(|error| said(format!("returned {error}")))?)?;
    }
    Ok(())
}

/// Reads the bytes of one IPC stream. Messages are delimited by their declared lengths, because a buffered
/// reader would consume the beginning of the next stream too.
fn stream_bytes(stdout: &mut Stdout, stray: &mut Stray<'_>) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    loop {
        skip_text(stdout, stray)?;
        let mut head = Vec::with_capacity(8);
        append(stdout, 8, &mut head)?;
        if head[..4] != [MARKER; 4] {
            if let Ok(more) = stdout.fill_buf() {
                head.extend_from_slice(&more[..more.len().min(240)]);
            }
            return Err(said(format!("returned output that is not an Arrow stream: {}", excerpt(&head))));
        }
        bytes.extend_from_slice(&head);
        let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if size == 0 {
            return Ok(bytes);
        }
        let mut metadata = Vec::new();
        append_within(stdout, size, bytes.len(), &mut metadata)?;
        bytes.extend_from_slice(&metadata);
        let message = root_as_message(&metadata)
            .map_err(|error| said(format!("returned an invalid Arrow stream: {}", first_line(&error.to_string()))))?;
        let body = usize::try_from(message.bodyLength()).unwrap_or(usize::MAX);
        let before = bytes.len();
        append_within(stdout, body, before, &mut bytes)?;
    }
}

/// Skips to the possible start of a message. Libraries print text, which never contains the marker byte.
fn skip_text(stdout: &mut Stdout, stray: &mut Stray<'_>) -> Result<(), Fault> {
    loop {
        let bytes = stdout.fill_buf()?;
        let text = bytes.iter().position(|byte| *byte == MARKER).unwrap_or(bytes.len());
        let is_over = bytes.is_empty() || text < bytes.len();
        if text > 0 {
            stray.take(&bytes[..text])?;
            stdout.consume(text);
        }
        if is_over {
            return Ok(());
        }
    }
}

fn append_within(stdout: &mut Stdout, count: usize, before: usize, bytes: &mut Vec<u8>) -> Result<(), Fault> {
    if before.saturating_add(count) > LONGEST {
        return Err(said(format!("returned an Arrow stream of more than {} MiB", LONGEST >> 20)));
    }
    append(stdout, count, bytes)
}

fn append(stdout: &mut Stdout, count: usize, bytes: &mut Vec<u8>) -> Result<(), Fault> {
    match stdout.take(count as u64).read_to_end(bytes)? {
        read if read == count => Ok(()),
        _ => Err(Fault::Io(io::ErrorKind::UnexpectedEof)),
    }
}
