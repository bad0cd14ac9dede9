//! Properties of the readers, on bytes that were valid until they were changed at random: whatever comes, an answer
//! or an error on one line, and never a panic. The long versions are `#[ignore]`d: `cargo test mutated -- --ignored`.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use polars::prelude::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use uphill::{CommandFormat, CommandScore, HttpScore, IndexKind, IndexOptions, Score};

use crate::common::*;
use crate::scorers::batch;

/// One change of some bytes. Places are shares of the length, or, negative, bytes from the end.
#[derive(Clone, Debug)]
enum Change {
    Flip(f64, u8),
    Set(f64, Vec<u8>),
    Insert(f64, Vec<u8>),
    Remove(f64, usize),
    Repeat(f64, usize),
    Cut(f64),
}

/// Bytes that mean something to decoders: lengths and counts at their limits, ends, quotes, brackets.
fn loaded() -> impl Strategy<Value = Vec<u8>> {
    let words: [&[u8]; 16] = [
        &[0xff; 8],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0x7f],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        &[0; 8],
        b"\n",
        b"\n\n",
        b"\"",
        b"\\",
        b"[[[[[[[[",
        b"{",
        b"NaN",
        b"-1e999",
        "é😀".as_bytes(),
        b"PAR1",
    ];
    prop_oneof![
        prop::sample::select(words.to_vec()).prop_map(<[u8]>::to_vec),
        prop::collection::vec(any::<u8>(), 1..12),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    // A third near the end, where Parquet has its counts.
    let place = || prop_oneof![2 => 0.0..1.0f64, 1 => (-400i32..-1).prop_map(f64::from)];
    prop_oneof![
        4 => (place(), 0u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        3 => (place(), loaded()).prop_map(|(at, bytes)| Change::Set(at, bytes)),
        2 => (place(), loaded()).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (place(), 1usize..64).prop_map(|(at, count)| Change::Remove(at, count)),
        1 => (place(), 1usize..64).prop_map(|(at, count)| Change::Repeat(at, count)),
        1 => place().prop_map(Change::Cut),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let at = |place: f64| match place < 0.0 {
        true => bytes.len().saturating_sub(-place as usize),
        false => (bytes.len() as f64 * place) as usize,
    };
    match change {
        Change::Flip(place, bit) => {
            let at = at(*place);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        Change::Set(place, new) => {
            let at = at(*place);
            bytes.iter_mut().skip(at).zip(new).for_each(|(byte, new)| *byte = *new);
        }
        Change::Insert(place, new) => {
            let at = at(*place);
            bytes.splice(at..at, new.iter().copied());
        }
        Change::Remove(place, count) => {
            let at = at(*place);
            let end = (at + count).min(bytes.len());
            bytes.drain(at..end);
        }
        Change::Repeat(place, count) => {
            let at = at(*place);
            let end = (at + count).min(bytes.len());
            let again = bytes[at..end].to_vec();
            bytes.splice(end..end, again);
        }
        Change::Cut(place) => {
            let at = at(*place);
            bytes.truncate(at);
        }
    }
}

/// Shows a property so many mutations of one of the originals.
fn for_mutations(cases: u32, seed: u64, originals: &[Vec<u8>], property: impl Fn(&[u8])) {
    println!("seed {seed}");
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &key));
    let mutations = (0..originals.len(), prop::collection::vec(change(), 0..5));
    let outcome = runner.run(&mutations, |(original, changes)| {
        let mut bytes = originals[original].clone();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        property(&bytes);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
}

fn one_line(error: &uphill::Error) -> String {
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

fn run_files(cases: u32, seed: u64) {
    let originals = [
        std::fs::read(root().join("examples/run.toml")).expect("read"),
        b"seed = 7\n[database]\npath = \"a.lance\"\nk = 3\n[stop]\nscore = 0.5\n[[score.sum]]\nname = \"a\"\nsql = \"b\"\nat_least = 0.4\n[[score.sum]]\nname = \"c\"\nweight = -1.0\ncommand = [\"python3\", \"dock.py\"]\ntimeout = 3.0\n".to_vec(),
        "[database]\npath = \"é.lance\"\n[score]\nurl = \"http://é\"\nheaders = { A = \"B\" }\n[update]\nrule = \"top-k\"\nk = 3\n".as_bytes().to_vec(),
    ];
    for_mutations(cases, seed, &originals, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        for overrides in [vec![], vec!["stop.iterations=3".to_string()], vec![text.lines().last().unwrap_or("").into()]]
        {
            if let Err(error) = uphill::Config::parse(&text, &overrides) {
                one_line(&error);
            }
        }
    });
}

#[test]
fn mutated_run_files_are_read_or_rejected() {
    run_files(500, 1);
}

#[test]
#[ignore = "long"]
fn mutated_run_files_are_read_or_rejected_long() {
    run_files(100_000, fresh_seed());
}

/// Parquet by two writers, of many encodings and types.
fn parquet_files(folder: &Path) -> Vec<Vec<u8>> {
    let rows = 40u32;
    let mut frame = df!(
        "db_idx" => (0..u64::from(rows)).collect::<Vec<_>>(),
        "score" => (0..rows).map(|row| (row % 3 > 0).then_some(f64::from(row))).collect::<Vec<_>>(),
        "name" => (0..rows).map(|row| format!("item {}", row / 7)).collect::<Vec<_>>(),
        "flag" => (0..rows).map(|row| (row % 5 > 0).then_some(row % 2 == 0)).collect::<Vec<_>>(),
    )
    .expect("a frame");
    let vectors = normal(rows as usize, 4, &mut rng(3));
    frame.with_column(uphill::embedding_column(vectors.view()).expect("vectors")).expect("a column");
    let mut files = Vec::new();
    for compression in [ParquetCompression::Uncompressed, ParquetCompression::Snappy, ParquetCompression::Zstd(None)] {
        let mut bytes = Vec::new();
        ParquetWriter::new(&mut bytes)
            .with_compression(compression)
            .with_row_group_size(Some(17))
            .finish(&mut frame.clone())
            .expect("Parquet");
        files.push(bytes);
    }
    let batch = uphill::to_arrow(&frame).expect("a batch");
    for version in
        [parquet::file::properties::WriterVersion::PARQUET_1_0, parquet::file::properties::WriterVersion::PARQUET_2_0]
    {
        let properties = parquet::file::properties::WriterProperties::builder().set_writer_version(version).build();
        let mut bytes = Vec::new();
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        files.push(bytes);
    }
    for file in &files {
        std::fs::write(folder.join("file.parquet"), file).expect("written");
        let read = uphill::read_parquet(folder.join("file.parquet")).expect("valid as it is");
        assert!(read.equals_missing(&frame), "{read} is not {frame}");
    }
    files
}

fn parquet_reader(cases: u32, seed: u64) {
    let folder = folder();
    let path = folder.path().join("file.parquet");
    for_mutations(cases, seed, &parquet_files(folder.path()), |bytes| {
        std::fs::write(&path, bytes).expect("written");
        if let Err(error) = uphill::read_parquet(&path) {
            assert!(one_line(&error).contains("file.parquet"), "{error}");
        }
    });
}

#[test]
fn mutated_parquet_is_read_or_rejected_by_name() {
    parquet_reader(400, 4);
}

#[test]
#[ignore = "long"]
fn mutated_parquet_is_read_or_rejected_by_name_long() {
    parquet_reader(50_000, fresh_seed());
}

fn indexing(cases: u32, seed: u64) {
    let folder = folder();
    let (path, dataset) = (folder.path().join("file.parquet"), folder.path().join("items.lance"));
    let options = IndexOptions::new().index(IndexKind::None).overwrite(true);
    let options = options.rename("score", "my_score").rename("db_idx", "my_db_idx");
    for_mutations(cases, seed, &parquet_files(folder.path()), |bytes| {
        std::fs::write(&path, bytes).expect("written");
        if let Err(error) = uphill::index(&path, &dataset, &options) {
            one_line(&error);
        }
        assert!(!folder.path().join(".items.lance.partial").exists(), "something was left behind");
    });
}

#[test]
fn mutated_items_are_indexed_or_rejected() {
    indexing(250, 5);
}

#[test]
#[ignore = "long"]
fn mutated_items_are_indexed_or_rejected_long() {
    indexing(10_000, fresh_seed());
}

/// Asserts that what a scorer made of some bytes keeps the contract: each item once, in order, and a finite score
/// or a reason; or that the scorer, which has never answered, stops the run.
fn assert_contract(answers: uphill::Result<DataFrame>, items: u64) {
    let answers = match answers {
        Ok(answers) => answers,
        Err(error @ (uphill::Error::Score { .. } | uphill::Error::Unavailable { .. })) => {
            one_line(&error);
            return;
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(u64s(&answers, "db_idx"), (0..items).collect::<Vec<_>>());
    let reasons = answers.column("reason").expect("reason").str().expect("text").clone();
    for (row, score) in answers.column("score").expect("score").f64().expect("f64").iter().enumerate() {
        match score {
            Some(score) => assert!(score.is_finite() && reasons.get(row).is_none(), "{answers}"),
            None => assert!(reasons.get(row).is_some(), "{answers}"),
        }
    }
}

/// Scores by a command that writes the bytes, whatever it is asked.
fn says(path: &Path, format: CommandFormat) -> CommandScore {
    CommandScore::new(["cat".to_string(), path.to_string_lossy().into_owned()])
        .format(format)
        .retries(0)
        .patience(Duration::ZERO)
        .timeout(Duration::from_secs(60))
}

fn scorers_of_json_lines(cases: u32, seed: u64) {
    let folder = folder();
    let path = folder.path().join("answer");
    let lines: String =
        (0..6).map(|item| format!("{{\"db_idx\": {item}, \"score\": 0.{item}, \"part\": 1e-3}}\n")).collect();
    let odd = "{\"score\": NaN, \"db_idx\": 5}\n{\"db_idx\": 0, \"score\": null, \"reason\": \"é \\u00e9 \\\\\"}\n\n";
    for_mutations(cases, seed, &[format!("{lines}\n").into_bytes(), odd.as_bytes().to_vec()], |bytes| {
        std::fs::write(&path, bytes).expect("written");
        assert_contract(says(&path, CommandFormat::JsonLines).score(&batch(6)), 6);
    });
}

#[test]
fn mutated_json_lines_are_answers_or_failures() {
    scorers_of_json_lines(250, 6);
}

#[test]
#[ignore = "long"]
fn mutated_json_lines_are_answers_or_failures_long() {
    scorers_of_json_lines(20_000, fresh_seed());
}

fn ipc(batches: &[arrow::array::RecordBatch]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut bytes, &batches[0].schema()).expect("a writer");
    batches.iter().for_each(|batch| writer.write(batch).expect("written"));
    writer.finish().expect("finished");
    drop(writer);
    bytes
}

fn scorers_of_arrow(cases: u32, seed: u64) {
    use arrow::array::{ArrayRef, DictionaryArray, Float64Array, Int64Array, NullArray, RecordBatch, StringViewArray};
    use std::sync::Arc;
    let folder = folder();
    let path = folder.path().join("answer");
    let answers = df!(
        "db_idx" => (0..6u64).collect::<Vec<_>>(),
        "score" => [Some(0.5), None, Some(1.5), Some(f64::NAN), Some(2.0), Some(3.0)],
        "reason" => [None, Some("too large"), None, None, None, None],
    );
    let answers = uphill::to_arrow(&answers.expect("a frame")).expect("a batch");
    let reasons: DictionaryArray<arrow::datatypes::Int8Type> = ["a", "b", "a", "a", "b", "b"].into_iter().collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("db_idx", Arc::new(Int64Array::from_iter_values(0..6))),
        ("score", Arc::new(Float64Array::from_iter_values((0..6).map(f64::from)))),
        ("reason", Arc::new(reasons)),
        ("text", Arc::new(StringViewArray::from_iter_values((0..6).map(|n| "long enough to be elsewhere ".repeat(n))))),
        ("nothing", Arc::new(NullArray::new(6))),
    ];
    let odd = RecordBatch::try_from_iter(columns).expect("a batch");
    let two = [answers.slice(0, 2), answers.slice(2, 4)];
    // A stream of nulls has no bytes for them: it may say that there are any number.
    let columns: Vec<(&str, ArrayRef)> =
        vec![("db_idx", Arc::new(NullArray::new(1 << 40))), ("score", Arc::new(NullArray::new(1 << 40)))];
    let endless = RecordBatch::try_from_iter(columns).expect("a batch");
    let originals = [ipc(&[answers]), ipc(&[odd]), ipc(&two), ipc(&[endless])];
    for_mutations(cases, seed, &originals, |bytes| {
        std::fs::write(&path, bytes).expect("written");
        assert_contract(says(&path, CommandFormat::Arrow).score(&batch(6)), 6);
    });
}

#[test]
fn mutated_arrow_streams_are_answers_or_failures() {
    scorers_of_arrow(300, 7);
}

#[test]
#[ignore = "long"]
fn mutated_arrow_streams_are_answers_or_failures_long() {
    scorers_of_arrow(20_000, fresh_seed());
}

/// A service that answers each connection with the bytes that it was given last.
fn service(answer: std::sync::Arc<std::sync::Mutex<Vec<u8>>>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            // The request ends with the list of items.
            while !request.ends_with(b"]}") {
                match connection.read(&mut buffer) {
                    Ok(read @ 1..) => request.extend_from_slice(&buffer[..read]),
                    _ => break,
                }
            }
            let _ = connection.write_all(&answer.lock().expect("a lock"));
        }
    });
    url
}

fn services(cases: u32, seed: u64) {
    let answer = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let url = service(answer.clone());
    let with_head =
        |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let records: Vec<String> = (0..6).map(|item| format!("{{\"db_idx\": {item}, \"score\": 0.{item}}}")).collect();
    let originals = [
        with_head(&format!("{{\"scores\": [{}]}}", records.join(", "))),
        with_head("[0.5, null, 1e3, NaN, 2, -7.25]"),
        b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n".to_vec(),
    ];
    for_mutations(cases, seed, &originals, |bytes| {
        *answer.lock().expect("a lock") = bytes.to_vec();
        let score = HttpScore::new(&url).retries(0).patience(Duration::ZERO).timeout(Duration::from_secs(60));
        assert_contract(score.score(&batch(6)), 6);
    });
}

#[test]
fn mutated_http_answers_are_answers_or_failures() {
    services(250, 8);
}

#[test]
#[ignore = "long"]
fn mutated_http_answers_are_answers_or_failures_long() {
    services(20_000, fresh_seed());
}
