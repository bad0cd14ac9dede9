//! Message framing of stream-mode commands: encodes requests, decodes answers.

use std::io::{self, BufRead, Cursor, Read};
use std::time::Duration;

use arrow::ipc::reader::StreamReader;
use arrow::ipc::root_as_message;
use arrow::ipc::writer::StreamWriter;
use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use super::answer::excerpt;
use super::answers::Attempt;
use super::fault::{FaultKind, ScorerFault};
use super::json;
use super::unexpected_output::UnexpectedOutput;
use super::worker::{OutputState, StdoutReader, Worker};
use crate::error::{Result, WrapErr, first_line};
use crate::frame::convert;
use crate::frame::schema::DB_IDX;
use crate::panics::catch_message;

/// The format of requests and answers of a command in `stream` mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandFormat {
    /// Each request and the answers to it are one Arrow IPC stream each, from its schema to its end-of-stream marker.
    #[serde(rename = "arrow")]
    Arrow,
    /// Each item and each answer is a JSON object on its own line. An empty line ends the request, in both directions.
    /// Other lines between the answers, such as messages of imported packages, are ignored.
    #[default]
    #[serde(rename = "jsonl")]
    JsonLines,
}

/// Each message of an Arrow stream begins with four of this byte. UTF-8 text does not contain it.
const MESSAGE_MARKER: u8 = 0xff;

/// The maximum size of a line or an Arrow stream.
const MAX_BYTES: usize = 64 << 20;

/// How long to wait for the final empty line once every item has an answer.
const END_GRACE: Duration = Duration::from_secs(5);

/// How long the output must be idle after an empty line before checking whether the scorer has finished, if some items have
/// answers.
const IDLE_AFTER_ANSWERS: Duration = Duration::from_millis(100);

/// The same, if no item has an answer yet.
const IDLE_BEFORE_ANSWERS: Duration = Duration::from_secs(1);

/// The same after a line that is not an answer, if no item has an answer yet.
const IDLE_AFTER_TEXT: Duration = Duration::from_secs(10);

/// Why the answers to a request could not be read completely.
pub(super) enum ReadError {
    /// The deadline (`TimedOut`), or the end of the output (`UnexpectedEof`).
    Io(io::ErrorKind),
    /// The output is invalid.
    Scorer(ScorerFault),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::Io(error.kind())
    }
}

impl From<ScorerFault> for ReadError {
    fn from(fault: ScorerFault) -> Self {
        ReadError::Scorer(fault)
    }
}

fn invalid(reason: impl Into<String>) -> ReadError {
    ReadError::Scorer(ScorerFault::malfunction(reason))
}

/// Encodes a request.
pub(super) fn encode(format: CommandFormat, items: &DataFrame) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match format {
        CommandFormat::JsonLines => {
            for record in json::records(items)? {
                serde_json::to_writer(&mut bytes, &record).wrap_err("writing a request")?;
                bytes.push(b'\n');
            }
            bytes.push(b'\n');
        }
        CommandFormat::Arrow => {
            let batch = convert::to_arrow(items)?;
            let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema()).wrap_err("writing a request")?;
            writer.write(&batch).and_then(|()| writer.finish()).wrap_err("writing a request")?;
        }
    }
    Ok(bytes)
}

/// Reads the answers to one request. Later bytes stay in the pipe.
pub(super) fn decode(
    format: CommandFormat,
    worker: &mut Worker,
    attempt: &mut Attempt,
    unexpected: &mut UnexpectedOutput<'_>,
) -> Result<(), ReadError> {
    match format {
        CommandFormat::JsonLines => read_lines(worker, attempt, unexpected),
        CommandFormat::Arrow => read_stream(&mut worker.stdout, attempt, unexpected),
    }
}

/// Whether unrequested output may contain an answer or a part of one.
pub(super) fn may_contain_answer(format: CommandFormat, output: &[u8]) -> bool {
    match format {
        CommandFormat::JsonLines => output.windows(DB_IDX.len()).any(|word| word == DB_IDX.as_bytes()),
        CommandFormat::Arrow => output.contains(&MESSAGE_MARKER),
    }
}

fn read_lines(
    worker: &mut Worker,
    attempt: &mut Attempt,
    unexpected: &mut UnexpectedOutput<'_>,
) -> Result<(), ReadError> {
    let mut line = Vec::new();
    loop {
        line.clear();
        worker.stdout.by_ref().take(MAX_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
        if line.len() > MAX_BYTES {
            return Err(invalid(format!("returned a line of more than {} MiB", MAX_BYTES >> 20)));
        }
        if !line.ends_with(b"\n") {
            return Err(ReadError::Io(io::ErrorKind::UnexpectedEof));
        }
        let is_empty = line.trim_ascii().is_empty();
        if is_empty && !attempt.is_complete() {
            // This may be the end of the answers with items left out, or an empty line in other output.
            let idle = if attempt.has_any() { IDLE_AFTER_ANSWERS } else { IDLE_BEFORE_ANSWERS };
            if !matches!(worker.output_state(idle), OutputState::Available) {
                return Ok(());
            }
        } else if is_empty {
            return Ok(());
        }
        let answers = json::find_answers(&line);
        if answers.is_empty() {
            unexpected.record(&line)?;
            // This may be a banner before the answers, or all the output there is.
            if !is_empty && !attempt.has_any() && matches!(worker.output_state(IDLE_AFTER_TEXT), OutputState::Idle) {
                return Err(ReadError::Scorer(ScorerFault::new(FaultKind::InvalidAnswer, "no answer")));
            }
        }
        answers.iter().try_for_each(|answer| json::record_answer(answer, attempt))?;
        if attempt.is_complete() {
            worker.stdout.shorten_deadline(END_GRACE);
        }
    }
}

fn read_stream(
    stdout: &mut StdoutReader,
    attempt: &mut Attempt,
    unexpected: &mut UnexpectedOutput<'_>,
) -> Result<(), ReadError> {
    let bytes = stream_bytes(stdout, unexpected)?;
    let invalid_stream = |error: String| invalid(format!("returned an invalid Arrow stream: {}", first_line(&error)));
    let reader = catch_message(|| StreamReader::try_new(Cursor::new(bytes), None)).map_err(invalid_stream)?;
    let mut reader = reader.map_err(|error| invalid_stream(error.to_string()))?;
    while let Some(batch) = catch_message(|| reader.next()).map_err(invalid_stream)? {
        let batch = batch.map_err(|error| invalid_stream(error.to_string()))?;
        // A column of nulls takes no space in a stream, whatever length it declares.
        let batch = batch.slice(0, batch.num_rows().min(attempt.max_rows()));
        let answers = catch_message(|| convert::to_polars(&batch)).map_err(invalid_stream)?;
        attempt.record_frame(&answers.map_err(|error| invalid(format!("returned {error}")))?)?;
    }
    Ok(())
}

/// Reads the bytes of one IPC stream. Messages are delimited by their declared lengths, because a buffered
/// reader would consume the beginning of the next stream too.
fn stream_bytes(stdout: &mut StdoutReader, unexpected: &mut UnexpectedOutput<'_>) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    loop {
        skip_text(stdout, unexpected)?;
        let mut head = Vec::with_capacity(8);
        append(stdout, 8, &mut head)?;
        if head[..4] != [MESSAGE_MARKER; 4] {
            if let Ok(more) = stdout.fill_buf() {
                head.extend_from_slice(&more[..more.len().min(240)]);
            }
            return Err(invalid(format!("returned output that is not an Arrow stream: {}", excerpt(&head))));
        }
        bytes.extend_from_slice(&head);
        let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if size == 0 {
            return Ok(bytes);
        }
        let mut metadata = Vec::new();
        append_within(stdout, size, bytes.len(), &mut metadata)?;
        bytes.extend_from_slice(&metadata);
        let message = root_as_message(&metadata).map_err(|error| {
            invalid(format!("returned an invalid Arrow stream: {}", first_line(&error.to_string())))
        })?;
        let body = usize::try_from(message.bodyLength()).unwrap_or(usize::MAX);
        let before = bytes.len();
        append_within(stdout, body, before, &mut bytes)?;
    }
}

/// Skips to the possible start of a message. Libraries print text, which never contains the marker byte.
fn skip_text(stdout: &mut StdoutReader, unexpected: &mut UnexpectedOutput<'_>) -> Result<(), ReadError> {
    loop {
        let bytes = stdout.fill_buf()?;
        let text = bytes.iter().position(|byte| *byte == MESSAGE_MARKER).unwrap_or(bytes.len());
        let is_over = bytes.is_empty() || text < bytes.len();
        if text > 0 {
            unexpected.record(&bytes[..text])?;
            stdout.consume(text);
        }
        if is_over {
            return Ok(());
        }
    }
}

fn append_within(stdout: &mut StdoutReader, count: usize, before: usize, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
    if before.saturating_add(count) > MAX_BYTES {
        return Err(invalid(format!("returned an Arrow stream of more than {} MiB", MAX_BYTES >> 20)));
    }
    append(stdout, count, bytes)
}

fn append(stdout: &mut StdoutReader, count: usize, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
    match stdout.take(count as u64).read_to_end(bytes)? {
        read if read == count => Ok(()),
        _ => Err(ReadError::Io(io::ErrorKind::UnexpectedEof)),
    }
}
