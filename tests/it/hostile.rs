//! Input that is damaged, absurd or out to get us, through the binary: one line and a documented exit code, no panic,
//! and no more memory than the limit that each run is put under.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow::array::{ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Float32Type;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::{FileMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader, ParquetMetaDataWriter};
use polars::prelude::*;
use rand::RngExt;
use std::sync::Arc;

use crate::common::*;

/// Kilobytes of address space that the binary may map: threads, caches and libraries included.
const MOST: u64 = 3 << 20;

/// Runs the binary in little room.
fn confined(arguments: &[&str], folder: &Path) -> Output {
    let limited = format!("ulimit -v {MOST}; exec \"$0\" \"$@\"");
    Command::new("sh")
        .args(["-c", &limited, env!("CARGO_BIN_EXE_uphill")])
        .args(arguments)
        .current_dir(folder)
        .envs([("POLARS_MAX_THREADS", "2"), ("TOKIO_WORKER_THREADS", "2"), ("LANCE_CPU_THREADS", "2")])
        .env("MALLOC_ARENA_MAX", "2")
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("the binary runs")
}

/// Asserts that a run ended as it may on any input: done, or refused in one line.
fn assert_sane(output: &Output, what: &str) {
    let said = stderr(output);
    assert!(!said.contains("panicked") && !said.contains("overflowed its stack"), "{what}: {said}");
    let code = output.status.code();
    assert!(matches!(code, Some(0..=2)), "{what}: {:?}: {said}", output.status);
    if code != Some(0) {
        assert!(said.starts_with("uphill: ") && said.lines().count() == 1, "{what}: {said}");
        assert!(!said.contains("stopped by a bug"), "{what}: {said}");
    }
}

/// Asserts that input was refused in one line that has `naming` in it.
fn assert_refused(output: &Output, code: i32, naming: &str, what: &str) {
    assert_sane(output, what);
    assert_eq!(output.status.code(), Some(code), "{what}: {}", stderr(output));
    assert!(stderr(output).contains(naming), "{what}: `{naming}` is not in {}", stderr(output));
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// A library, a run by hand that waits for scores, and a finished run.
fn library() -> TempDir {
    let folder = folder();
    let frame = items(&clustered(200, 4, 5, &mut rng(1)));
    write(&folder.path().join("items.parquet"), &frame);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    std::fs::write(folder.path().join("ask.toml"), RUN.replace("sql = \"weight\"", "by_hand = true")).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    uphill_ok(&["ask", "ask.toml", "--out", "asked", "-o", "asked.parquet"], folder.path());
    folder
}

const RUN: &str = "[database]\npath = \"items.lance\"\nk = 5\n[queries]\nsample = 3\n[stop]\niterations = 2\n[update]\nrule = \"rl\"\n[score]\nsql = \"weight\"\n";

/// The ways in for Parquet files; each takes `bad.parquet`.
fn ways_in(folder: &Path) -> [(&'static str, Output); 4] {
    let queries = RUN.replace("sample = 3", "path = \"bad.parquet\"");
    let reuse = format!("{RUN}reuse = [\"bad.parquet\"]\nreuse_key = \"name\"\ntrust_scores = true\n");
    std::fs::write(folder.join("queries.toml"), queries).expect("written");
    std::fs::write(folder.join("reuse.toml"), reuse).expect("written");
    let outputs = [
        ("index", confined(&["index", "bad.parquet", "bad.lance"], folder)),
        ("queries.path", confined(&["search", "queries.toml", "--out", "bad-queries"], folder)),
        ("tell", confined(&["tell", "asked", "bad.parquet"], folder)),
        ("score.reuse", confined(&["search", "reuse.toml", "--out", "bad-reuse"], folder)),
    ];
    for left in ["bad.lance", "bad-queries", "bad-reuse"] {
        let _ = std::fs::remove_dir_all(folder.join(left));
    }
    outputs
}

/// A file that each way in would take: embeddings, ids of items that wait, scores, names.
fn welcome(folder: &Path) -> Vec<u8> {
    let asked = u64s(&read(&folder.join("asked.parquet")), "db_idx");
    let rows = asked.len();
    let vectors = (0..rows).map(|row| Some((0..4).map(|c| Some((row * 4 + c) as f32)).collect::<Vec<_>>()));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("embedding", Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(vectors))),
        ("db_idx", Arc::new(Int64Array::from_iter_values(asked.iter().map(|id| *id as i64)))),
        ("score", Arc::new(Float64Array::from_iter_values((0..rows).map(|row| row as f64)))),
        ("name", Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("item {row}"))))),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    bytes
}

/// The file with another footer, in which each row group has so many rows, and each column so many values and bytes.
fn lying(file: &Path, bytes: &[u8], rows: i64, values: Option<i64>, uncompressed: Option<i64>) -> Vec<u8> {
    std::fs::write(file, bytes).expect("written");
    let opened = std::fs::File::open(file).expect("a file");
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&opened).expect("a footer");
    let was = metadata.file_metadata();
    let about = FileMetaData::new(
        was.version(),
        rows,
        was.created_by().map(str::to_string),
        was.key_value_metadata().cloned(),
        was.schema_descr_ptr(),
        None,
    );
    let mut changed = ParquetMetaDataBuilder::new(about);
    for group in metadata.row_groups() {
        let mut columns = Vec::new();
        for column in group.columns() {
            let mut column = column.clone().into_builder().set_offset_index_offset(None).set_column_index_offset(None);
            if let Some(values) = values {
                column = column.set_num_values(values);
            }
            if let Some(size) = uncompressed {
                column = column.set_total_uncompressed_size(size);
            }
            columns.push(column.build().expect("a column"));
        }
        let group = group.clone().into_builder().set_num_rows(rows).set_column_metadata(columns);
        changed = changed.add_row_group(group.build().expect("a row group"));
    }
    let footer = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().expect("four bytes")) as usize;
    let mut lie = bytes[..bytes.len() - 8 - footer].to_vec();
    ParquetMetaDataWriter::new(&mut lie, &changed.build()).finish().expect("a footer");
    lie
}

#[test]
fn valid_parquet_is_read_with_little_memory_by_every_command() {
    let folder = library();
    std::fs::write(folder.path().join("bad.parquet"), welcome(folder.path())).expect("written");
    let output =
        confined(&["index", "bad.parquet", "bad.lance", "--rename", "score=s", "--rename", "db_idx=d"], folder.path());
    assert_eq!(stderr(&output), "bad.lance: 15 items of 4 dimensions, no index (exact search)\n");
    for (way, output) in &ways_in(folder.path())[1..] {
        assert_sane(output, way);
        assert!(output.status.success(), "{way}: {}", stderr(output));
    }
}

#[test]
fn parquet_with_a_wrong_footer_is_rejected_without_using_memory() {
    let folder = library();
    let bad = folder.path().join("bad.parquet");
    let good = welcome(folder.path());
    let huge = 1 << 40;
    let lies = [
        ("rows", lying(&bad, &good, huge, None, None)),
        ("values", lying(&bad, &good, 15, Some(huge), None)),
        ("rows and values", lying(&bad, &good, huge, Some(huge), None)),
        ("everything", lying(&bad, &good, i64::MAX, Some(i64::MAX), Some(i64::MAX))),
        ("negative rows", lying(&bad, &good, -5, Some(-5), Some(-5))),
        ("a few more", lying(&bad, &good, 16, Some(16), None)),
    ];
    for (lie, bytes) in lies {
        std::fs::write(&bad, bytes).expect("written");
        for (way, output) in ways_in(folder.path()) {
            assert_sane(&output, &format!("{lie}, {way}"));
        }
    }
    // The length of the footer itself.
    for length in [0u32, 7, 1 << 31, u32::MAX] {
        let mut bytes = good.clone();
        let end = bytes.len();
        bytes[end - 8..end - 4].copy_from_slice(&length.to_le_bytes());
        std::fs::write(&bad, bytes).expect("written");
        for (way, output) in ways_in(folder.path()) {
            assert_refused(&output, 1, "bad.parquet", &format!("footer of {length} bytes, {way}"));
        }
    }
}

#[test]
fn a_run_folder_with_wrong_footers_is_rejected_without_using_memory() {
    let folder = library();
    let part = folder.path().join("run/results/iteration=000001/part-0000.parquet");
    let good = std::fs::read(&part).expect("read");
    for (rows, values) in [(1 << 40, 1 << 40), (i64::MAX, i64::MAX), (3, 3), (1 << 34, 1 << 34)] {
        let lie = lying(&part, &good, rows, Some(values), None);
        std::fs::write(&part, lie).expect("written");
        for arguments in [&["results", "run"][..], &["trajectories", "run"], &["inspect", "run"], &["report", "run"]] {
            assert_refused(
                &confined(arguments, folder.path()),
                1,
                "iteration=000001",
                &format!("{rows} {arguments:?}"),
            );
        }
        let resumed = ["search", "run.toml", "--out", "run", "--resume", "--set", "stop.iterations=3"];
        assert_refused(&confined(&resumed, folder.path()), 1, "run", &format!("{rows} --resume"));
    }
}

/// Bytes of a file, damaged in the ways that disks, networks and editors damage files.
fn damaged(good: &[u8], rng: &mut impl RngExt) -> Vec<(String, Vec<u8>)> {
    let mut found = vec![("empty".to_string(), Vec::new())];
    for part in [1, 4, 10, 50, 90, 99] {
        found.push((format!("cut to {part} %"), good[..good.len() * part / 100].to_vec()));
    }
    for _ in 0..6 {
        let mut bytes = good.to_vec();
        // The ends of files have the counts and the offsets.
        let from = if rng.random_bool(0.5) { good.len().saturating_sub(300) } else { 0 };
        let places: Vec<usize> = (0..rng.random_range(1..4)).map(|_| rng.random_range(from..good.len())).collect();
        for place in &places {
            bytes[*place] ^= 1 << rng.random_range(0..8);
        }
        found.push((format!("bits flipped in bytes {places:?}"), bytes));
    }
    let mut zeroed = good.to_vec();
    let middle = good.len() / 2;
    zeroed[middle..].iter_mut().take(64).for_each(|byte| *byte = 0);
    found.push(("64 bytes zeroed".into(), zeroed));
    found.push(("text".into(), b"<html><body>503 Service Unavailable</body></html>".to_vec()));
    found
}

#[test]
fn damaged_parquet_is_rejected_in_one_line_by_every_command() {
    let folder = library();
    let good = welcome(folder.path());
    for (damage, bytes) in damaged(&good, &mut rng(2)) {
        std::fs::write(folder.path().join("bad.parquet"), bytes).expect("written");
        for (way, output) in ways_in(folder.path()) {
            assert_sane(&output, &format!("{damage}, {way}"));
        }
    }
}

#[test]
fn a_damaged_dataset_is_rejected_in_one_line() {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(300, 4, 5, &mut rng(3))));
    uphill_ok(&["index", "items.parquet", "good.lance", "--index", "ivf-flat", "--partitions", "4"], folder.path());
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    let (good, bad) = (folder.path().join("good.lance"), folder.path().join("items.lance"));
    let mut rng = rng(4);
    let mut refused = 0;
    for file in files_below(&good) {
        let name = file.strip_prefix(&good).expect("below").to_path_buf();
        let bytes = std::fs::read(&file).expect("read");
        let all = damaged(&bytes, &mut rng);
        let some = [0, rng.random_range(1..7), rng.random_range(7..13), rng.random_range(7..13), 13, 14];
        for (damage, bytes) in some.map(|at| all[at].clone()) {
            copy_tree(&good, &bad);
            std::fs::write(bad.join(&name), bytes).expect("written");
            for arguments in [&["inspect", "items.lance"][..], &["search", "run.toml", "--out", "run"]] {
                let output = confined(arguments, folder.path());
                assert_sane(&output, &format!("{}: {damage}: {arguments:?}", name.display()));
                if !output.status.success() {
                    refused += 1;
                    assert!(
                        stderr(&output).contains("items.lance"),
                        "{}: {damage}: {}",
                        name.display(),
                        stderr(&output)
                    );
                }
            }
            let _ = std::fs::remove_dir_all(folder.path().join("run"));
            std::fs::remove_dir_all(&bad).expect("removed");
        }
    }
    assert!(refused > 20, "only {refused} were refused");
}

#[test]
fn a_damaged_run_folder_is_rejected_in_one_line() {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(200, 4, 5, &mut rng(5))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    // By hand, so that there is a ledger.
    std::fs::write(folder.path().join("run.toml"), RUN.replace("sql = \"weight\"", "by_hand = true")).expect("written");
    for _ in 0..2 {
        uphill_ok(&["ask", "run.toml", "--out", "good", "-o", "asked.parquet"], folder.path());
        let mut told = read(&folder.path().join("asked.parquet")).select(["db_idx", "weight"]).expect("columns");
        told.rename("weight", "score".into()).expect("renamed");
        write(&folder.path().join("told.parquet"), &told);
        uphill_ok(&["tell", "good", "told.parquet"], folder.path());
    }
    let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
    let mut rng = rng(6);
    let mut refused = 0;
    for file in files_below(&good) {
        let name = file.strip_prefix(&good).expect("below").to_path_buf();
        let bytes = std::fs::read(&file).expect("read");
        if bytes.is_empty() {
            continue;
        }
        let all = damaged(&bytes, &mut rng);
        let some = [0, rng.random_range(1..7), rng.random_range(7..13), rng.random_range(7..13), 13, 14];
        for (damage, bytes) in some.map(|at| all[at].clone()) {
            for arguments in [
                &["results", "bad"][..],
                &["trajectories", "bad"],
                &["inspect", "bad"],
                &["report", "bad"],
                &["ask", "run.toml", "--out", "bad", "--set", "stop.iterations=4"],
            ] {
                copy_tree(&good, &bad);
                std::fs::write(bad.join(&name), &bytes).expect("written");
                let output = confined(arguments, folder.path());
                assert_sane(&output, &format!("{}: {damage}: {arguments:?}", name.display()));
                refused += usize::from(!output.status.success());
                std::fs::remove_dir_all(&bad).expect("removed");
            }
        }
    }
    assert!(refused > 20, "only {refused} were refused");
}

#[test]
fn frames_of_the_wrong_shape_are_rejected_by_name() {
    let folder = library();
    let at = |name: &str| folder.path().join(name);
    let vectors = |rows: usize, dim: usize| uphill::embedding_column(normal(rows, dim, &mut rng(7)).view()).expect("x");
    let frame = |columns: Vec<Column>| DataFrame::new(columns[0].len(), columns).expect("a frame");
    let ids = || Column::new("db_idx".into(), [1u64, 2, 3]);
    let cases = [
        ("no rows", frame(vec![vectors(3, 4)]).head(Some(0)), "queries.path", "no rows"),
        (
            "text for vectors",
            frame(vec![Column::new("embedding".into(), ["a", "b", "c"])]),
            "queries.path",
            "embedding",
        ),
        ("numbers for vectors", frame(vec![Column::new("embedding".into(), [1.0, 2.0])]), "queries.path", "embedding"),
        ("another dimension", frame(vec![vectors(3, 7)]), "queries.path", "4 components"),
        ("no embedding", frame(vec![ids()]), "queries.path", "no column `embedding` (there are: db_idx)"),
        ("no scores", frame(vec![ids()]), "tell", "score"),
        ("no ids", frame(vec![Column::new("score".into(), [1.0])]), "tell", "db_idx"),
        (
            "text ids",
            frame(vec![Column::new("db_idx".into(), ["x"]), Column::new("score".into(), [1.0])]),
            "tell",
            "db_idx",
        ),
        ("text scores", frame(vec![ids(), Column::new("score".into(), ["x", "y", "z"])]), "tell", "score"),
        (
            "negative ids",
            frame(vec![Column::new("db_idx".into(), [-1i64]), Column::new("score".into(), [1.0])]),
            "tell",
            "db_idx",
        ),
        ("no key", frame(vec![Column::new("score".into(), [1.0])]), "score.reuse", "no column `name`"),
        ("no score", frame(vec![Column::new("name".into(), ["item 1"])]), "score.reuse", "no column `score`"),
        (
            "vectors for scores",
            frame(vec![Column::new("name".into(), ["a", "b"]), vectors(2, 3).with_name("score".into())]),
            "score.reuse",
            "score",
        ),
        (
            "no columns of vectors",
            frame(vec![Column::new("name".into(), ["item 1"])]),
            "index",
            "no column has lists of numbers",
        ),
    ];
    for (what, frame, expected_way, naming) in cases {
        write(&at("bad.parquet"), &frame);
        for (way, output) in ways_in(folder.path()) {
            assert_sane(&output, &format!("{what}, {way}"));
            if way == expected_way {
                assert!(!output.status.success(), "{what}, {way}: taken");
                assert!(stderr(&output).contains(naming), "{what}, {way}: {}", stderr(&output));
            }
        }
    }
}

#[test]
fn one_long_row_among_short_ones_needs_no_memory() {
    let folder = folder();
    let long = std::iter::once(1_000_000).chain(std::iter::repeat_n(1, 8_000));
    let vectors = long.map(|length| Some(vec![Some(1.0f32); length]));
    let column: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(vectors));
    let batch = RecordBatch::try_from_iter([("vector", column)]).expect("a batch");
    let file = std::fs::File::create(folder.path().join("items.parquet")).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    let output = confined(&["index", "items.parquet", "items.lance"], folder.path());
    assert_refused(&output, 1, "8000 invalid embeddings (8000 of another length)", "one long row");
}

#[test]
fn ten_thousand_columns_are_supported() {
    let folder = folder();
    let mut columns = vec![uphill::embedding_column(normal(3, 4, &mut rng(8)).view()).expect("vectors")];
    columns.extend((0..10_000).map(|at| Column::new(format!("column {at}").into(), [at as f32, 1.0, 2.0])));
    write(&folder.path().join("items.parquet"), &DataFrame::new(3, columns).expect("a frame"));
    let output = confined(&["index", "items.parquet", "items.lance"], folder.path());
    assert!(output.status.success(), "{}", stderr(&output));
    let run = "[database]\npath = \"items.lance\"\nk = 2\n[queries]\nsample = 2\n[stop]\niterations = 1\n[score]\nsql = '\"column 7\"'\n";
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    let output = confined(&["search", "run.toml", "--out", "run"], folder.path());
    assert!(output.status.success(), "{}", stderr(&output));
    let output = confined(&["results", "run", "-o", "results.parquet"], folder.path());
    assert!(output.status.success(), "{}", stderr(&output));
    let results = read(&folder.path().join("results.parquet"));
    assert_eq!((results.width(), f64s(&results, "score")[0]), (10_009, 7.0));
}

#[test]
fn a_column_with_an_unusual_name_is_kept_or_rejected() {
    let odd = [
        "a b",
        " ",
        "\"quoted\"",
        "it's",
        "`tick`",
        "é😀",
        "../up",
        "/etc/passwd",
        "a\nb",
        "a\tb",
        "a.b",
        "a[0]",
        "*",
        "?",
        "select",
        "NULL",
        "Weight",
        "WEIGHT",
        "iteration=3",
        "a,b",
        "a;b",
        "--",
        "$1",
        "{x}",
        "%s",
        "\u{202e}rtl",
        "-",
        "0",
    ];
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    for name in odd {
        let folder = folder();
        let mut frame = items(&normal(20, 4, &mut rng(9)));
        let values: Vec<i64> = (0..20).map(|row| row * 11).collect();
        frame.with_column(Column::new(name.into(), &values)).expect("a column");
        write(&folder.path().join("items.parquet"), &frame);
        std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
        let indexed = confined(&["index", "items.parquet", "items.lance"], folder.path());
        assert_sane(&indexed, &format!("{name:?}: index"));
        if !indexed.status.success() {
            refused.push(name);
            continue;
        }
        for arguments in [&["search", "run.toml", "--out", "run"][..], &["results", "run", "-o", "results.parquet"]] {
            let output = confined(arguments, folder.path());
            assert!(output.status.success(), "{name:?}: {arguments:?}: {}", stderr(&output));
        }
        let results = read(&folder.path().join("results.parquet"));
        let found: Vec<i64> = results.column(name).expect(name).i64().expect("i64").into_no_null_iter().collect();
        let expected: Vec<i64> = u64s(&results, "db_idx").into_iter().map(|item| values[item as usize]).collect();
        assert_eq!(found, expected, "{name:?}");
        taken.push(name);
    }
    println!("refused: {refused:?}");
    assert!(taken.len() > refused.len(), "most names were refused: {refused:?}");
}

#[test]
fn reserved_names_are_rejected_with_the_option_that_renames_them() {
    let folder = folder();
    for name in uphill::columns::RESERVED.iter().copied().chain(["_rowid", "_distance", "_"]) {
        let vectors = uphill::embedding_column(normal(5, 4, &mut rng(10)).view()).expect("vectors");
        let vectors = vectors.with_name("vector".into());
        let columns = vec![vectors, Column::new(name.into(), [1i64, 2, 3, 4, 5])];
        write(&folder.path().join("items.parquet"), &DataFrame::new(5, columns).expect("a frame"));
        let output = confined(&["index", "items.parquet", "items.lance"], folder.path());
        assert_refused(&output, 2, &format!("--rename {name}="), name);
    }
    let vectors = uphill::embedding_column(normal(5, 4, &mut rng(10)).view()).expect("vectors");
    let columns = vec![vectors, Column::new("".into(), [1i64, 2, 3, 4, 5])];
    write(&folder.path().join("items.parquet"), &DataFrame::new(5, columns).expect("a frame"));
    let output = confined(&["index", "items.parquet", "items.lance"], folder.path());
    assert_refused(&output, 1, "items.parquet: a column has no name", "no name");
}

#[test]
fn sql_that_is_invalid_or_reads_files_is_rejected_before_anything_runs() {
    let folder = library();
    std::fs::write(folder.path().join("secret.csv"), "a\n4711\n").expect("written");
    let statements = [
        "",
        " ",
        "--",
        "weight >",
        "weight > 'a",
        "nosuch > 1",
        "nosuch(weight) > 1",
        "DROP TABLE self",
        "SELECT * FROM read_csv('secret.csv')",
        "read_csv('secret.csv')",
        "(SELECT count(*) FROM read_csv('secret.csv')) > 0",
        "weight IN (SELECT a FROM read_csv('secret.csv'))",
        "EXISTS (SELECT 1 FROM read_parquet('items.parquet'))",
        "weight > (SELECT max(a) FROM 'secret.csv')",
        "weight > 0; DROP TABLE self",
        "weight > 0 UNION SELECT a FROM read_csv('secret.csv')",
        "COPY self TO 'out.csv'",
        "CREATE TABLE t AS SELECT * FROM read_csv('secret.csv')",
        "*",
        "weight > \u{0}",
        "name",
    ];
    for sql in statements {
        for key in ["filter.sql", "score.sql", "database.prefilter"] {
            let output =
                confined(&["search", "run.toml", "--out", "out", "--set", &format!("{key}={sql:?}")], folder.path());
            let what = format!("{key}: {sql:?}");
            assert_refused(&output, 2, key, &what);
            assert!(!stderr(&output).contains("4711") && !folder.path().join("out.csv").exists(), "{what}");
            assert!(!folder.path().join("out").exists(), "{what} left a run folder");
        }
    }
}

#[test]
fn sql_of_any_depth_and_length_is_evaluated_or_rejected() {
    let folder = library();
    let deep = [
        format!("{}weight{} > 0.1", "(".repeat(10_000), ")".repeat(10_000)),
        format!("{} weight > 0.1", "NOT ".repeat(10_001)),
        format!("weight > {}1", "-".repeat(3).repeat(5_000)),
        format!("weight{} > 0.1", " + 0".repeat(20_000)),
        format!("weight > 0.1{}", " AND weight > 0.1".repeat(20_000)),
        format!("weight IN ({})", vec!["0.5"; 20_000].join(", ")),
        format!("{}weight{} > 0.1", "abs(".repeat(5_000), ")".repeat(5_000)),
        format!("{}weight > 0.1{}", "CASE WHEN ".repeat(2_000), " THEN true ELSE false END".repeat(2_000)),
    ];
    for (at, sql) in deep.iter().enumerate() {
        for key in ["filter.sql", "score.sql", "database.prefilter"] {
            let run = match key.split_once('.') {
                Some(("score", _)) => RUN.replace("sql = \"weight\"", &format!("sql = {sql:?}")),
                Some(("filter", _)) => format!("{RUN}[filter]\nsql = {sql:?}\n"),
                _ => RUN.replace("k = 5", &format!("k = 5\nprefilter = {sql:?}")),
            };
            std::fs::write(folder.path().join("deep.toml"), run).expect("written");
            let output = confined(&["search", "deep.toml", "--out", "deep"], folder.path());
            assert_sane(&output, &format!("{key}, case {at}"));
            let _ = std::fs::remove_dir_all(folder.path().join("deep"));
        }
    }
}
