//! Tests of printed output and exit codes: closed and full outputs, numbers, and names with terminal control characters.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use polars::prelude::*;

use crate::common::*;

const RUN: &str = "[database]\npath = \"items.lance\"\nk = 20\n[queries]\nsample = 2\n[stop]\niterations = 2\n[update]\nrule = \"rl\"\n[score]\nsql = \"weight\"\n";
const FORMATS: [&str; 4] = ["table", "csv", "json", "parquet"];

/// A library with more columns, and a run file.
fn library(rows: usize, columns: Vec<Column>) -> TempDir {
    let folder = folder();
    let mut frame = items(&normal(rows, 4, &mut rng(1)));
    for column in columns {
        frame.with_column(column).expect("a column");
    }
    write(&folder.path().join("items.parquet"), &frame);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    folder
}

fn command(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uphill"));
    command.args(arguments).current_dir(folder).env_remove("RUST_BACKTRACE");
    command
}

/// Runs the binary with a terminal for its standard output and error; gives what the terminal got, and the exit code.
fn on_a_terminal(arguments: &[&str], folder: &Path) -> (String, i32) {
    const SPAWN: &str = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let output = Command::new("python3")
        .args(["-c", SPAWN, env!("CARGO_BIN_EXE_uphill")])
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .output()
        .expect("python3");
    // The terminal ends lines with a carriage return.
    let shown = String::from_utf8(output.stdout).expect("text").replace("\r\n", "\n");
    (shown, output.status.code().expect("an exit code"))
}

fn said(output: &Output) -> (String, Option<i32>) {
    (stderr(output), output.status.code())
}

#[test]
fn a_reason_with_broken_pipe_is_still_a_failure() {
    const SCORER: &str = r#"
import json, sys
for line in sys.stdin:
    if line.strip():
        print(json.dumps({"db_idx": json.loads(line)["db_idx"], "score": None, "reason": "Broken pipe (os error 32)"}))
    else:
        print(flush=True)
"#;
    let folder = library(20, vec![]);
    std::fs::write(folder.path().join("score.py"), SCORER).expect("written");
    let score = "command = [\"python3\", \"score.py\"]\non_error = \"stop\"";
    std::fs::write(folder.path().join("run.toml"), RUN.replace("sql = \"weight\"", score)).expect("written");
    let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("Broken pipe (os error 32)"), "{}", stderr(&output));
}

#[test]
fn a_closed_standard_output_is_not_an_error_but_a_full_one_is() {
    let folder = library(60, vec![]);
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let shows = |format| ["results", "run", "--format", format];
    let evaluate = ["evaluate", "run", "--truth", "items.parquet", "--score-column", "weight", "--top", "5"];
    let all = FORMATS.iter().map(|format| shows(format).to_vec());
    for arguments in all.chain([vec!["inspect", "run"], vec!["inspect", "items.lance", "--json"], evaluate.to_vec()]) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let closed = command(&arguments, folder.path()).stdout(writer).output().expect("the binary runs");
        assert_eq!(said(&closed), (String::new(), Some(0)), "{arguments:?}");
        let full = File::options().write(true).open("/dev/full").expect("a device");
        let full = command(&arguments, folder.path()).stdout(full).output().expect("the binary runs");
        assert_eq!(full.status.code(), Some(1), "{arguments:?}");
        let message = stderr(&full);
        assert!(message.starts_with("uphill: standard output: "), "{arguments:?}: {message}");
        assert!(message.contains("No space left") && message.lines().count() == 1, "{arguments:?}: {message}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_a_failure_whatever_the_format() {
    let folder = library(60, vec![]);
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    for format in FORMATS {
        let output = uphill(&["results", "run", "--format", format, "-o", "/dev/full"], folder.path());
        assert_eq!(output.status.code(), Some(1), "{format}");
        assert!(stderr(&output).starts_with("uphill: /dev/full: "), "{format}: {}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1, "{format}");
    }
}

#[test]
fn a_fifo_that_its_reader_closes_is_a_failure() {
    let folder = library(6_000, vec![]);
    let run = RUN.replace("k = 20", "k = 6000").replace("iterations = 2", "iterations = 1");
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    for format in ["csv", "json"] {
        let arguments = ["results", "run", "--format", format, "-o", "fifo"];
        let writing = command(&arguments, folder.path()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        // There is more to come than a pipe takes.
        let mut reader = File::open(&fifo).expect("a writer");
        reader.read_exact(&mut [0]).expect("a byte");
        drop(reader);
        let output = writing.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(1), "{format}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("uphill: fifo: "), "{format}: {}", stderr(&output));
    }
}

#[test]
fn a_search_succeeds_even_if_its_best_items_cannot_be_printed() {
    let folder = library(60, vec![]);
    let (shown, code) = on_a_terminal(&["search", "run.toml", "--out", "run", "--format", "parquet"], folder.path());
    assert!(shown.contains("uphill: cannot print the best items: cannot write Parquet to a terminal"), "{shown}");
    assert!(shown.contains("as many iterations as asked") && code == 0, "{code}: {shown}");
    let (shown, code) = on_a_terminal(&["results", "run", "--format", "parquet"], folder.path());
    assert!(code == 1 && shown.starts_with("uphill: cannot write Parquet to a terminal"), "{code}: {shown}");
    // Its standard error may be full, or closed.
    for out in ["more", "again"] {
        let full = File::options().write(true).open("/dev/full").expect("a device");
        let mut search = command(&["search", "run.toml", "--out", out], folder.path());
        let output = search.stderr(full).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn numbers_in_tables_are_short_and_only_zero_is_shown_as_zero() {
    let cases = [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-17.0, "-17"),
        (1_234_567.0, "1234567"),
        (1e14, "100000000000000"),
        (1e15, "1e15"),
        (1.5e300, "1.5e300"),
        (0.1, "0.1"),
        (2.0 / 3.0, "0.666667"),
        (-12.345678, "-12.3457"),
        (123_456.789, "123457"),
        (999_999.7, "1e6"),
        (1_234_567.8, "1.23457e6"),
        (0.000_123_456_789, "0.000123457"),
        (0.000_01, "1e-5"),
        (3e-9, "3e-9"),
        (-3.000_000_04e-9, "-3e-9"),
        (5e-324, "4.94066e-324"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
    ];
    let values: Vec<f64> = cases.iter().map(|(value, _)| *value).collect();
    let singles: Vec<f32> = vec![0.1; cases.len()];
    let folder = library(cases.len(), vec![Column::new("value".into(), values), Column::new("single".into(), singles)]);
    let run = RUN.replace("k = 20", "k = 22").replace("sql = \"weight\"", "sql = \"0.000000003\"");
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let table = uphill_ok(&["results", "run", "--format", "table"], folder.path());
    for (item, (value, expected)) in cases.iter().enumerate() {
        // db_idx, the two words of the name, weight, value, single, score.
        let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = row.into_iter().find(|row| row.first() == Some(&item.to_string().as_str())).expect("a row");
        assert_eq!((row[4], row[5], row[6]), (*expected, "0.1", "3e-9"), "{value:e}");
    }
    // Into files and pipes they go in full.
    assert!(uphill_ok(&["results", "run", "--format", "csv"], folder.path()).contains(",-3.00000004e-9,"));
}

/// Commands of terminals (a title, the clipboard, a link), C1 controls, overrides of the direction, ends of lines.
const HOSTILE: &str =
    "\u{1b}]0;owned\u{7}\u{1b}]52;c;b3duZWQ=\u{7}\u{1b}]8;;http://x\u{1b}\\\u{9b}2J\u{202e}\u{2066}\r\n\u{85}\u{2028}";

fn assert_inert(text: &str) {
    let acts =
        |c: &char| c.is_control() && *c != '\n' || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert_eq!(text.chars().find(acts), None, "{text:?}");
}

#[test]
fn control_characters_of_a_library_are_escaped_on_a_terminal() {
    let texts: Vec<String> = (0..20).map(|row| format!("{HOSTILE}{row}")).collect();
    let nested = Column::new("nested".into(), [Series::new("".into(), [HOSTILE])]).new_from_index(0, 20);
    let columns = vec![Column::new(format!("x{HOSTILE}").into(), &texts), nested];
    let folder = library(20, columns);
    let run = RUN.replace("k = 20", "k = 20\ncolumns = [\"weight\", \"nested\", NAME]");
    let name = serde_json::to_string(&format!("x{HOSTILE}")).expect("JSON");
    std::fs::write(folder.path().join("run.toml"), run.replace("NAME", &name)).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());

    // Tables are always for people.
    let table = uphill_ok(&["results", "run", "--format", "table"], folder.path());
    assert!(table.contains("\\u{1b}]0;owned\\u{7}") && table.contains("\\u{202e}"), "{table}");
    // The head, a rule below it, and a line for each row.
    assert_eq!(table.lines().count(), 22, "{table}");
    assert_inert(&table);
    let facts = uphill_ok(&["inspect", "items.lance"], folder.path());
    assert!(facts.contains("\\u{9b}2J"), "{facts}");
    assert_inert(&facts);

    // On a terminal so is everything; JSON stays JSON that means the same.
    for arguments in [
        &["results", "run"][..],
        &["results", "run", "--format", "csv"],
        &["results", "run", "--format", "json"],
        &["inspect", "items.lance"],
        &["inspect", "items.lance", "--json"],
        &["results", &format!("absent{HOSTILE}")],
    ] {
        let (shown, _) = on_a_terminal(arguments, folder.path());
        assert!(shown.contains("owned"), "{arguments:?}: {shown}");
        assert_inert(&shown);
    }
    let (shown, _) = on_a_terminal(&["results", "run", "--format", "json"], folder.path());
    let json = shown.lines().find(|line| line.starts_with('[')).expect("JSON");
    let piped = uphill_ok(&["results", "run", "--format", "json"], folder.path());
    let (shown, piped): (serde_json::Value, serde_json::Value) =
        (serde_json::from_str(json).expect("JSON"), serde_json::from_str(&piped).expect("JSON"));
    assert_eq!(shown, piped);

    // Into files and pipes go the texts themselves.
    assert!(texts.contains(&piped[0][&format!("x{HOSTILE}")].as_str().expect("text").to_string()), "{piped}");
    let csv = uphill_ok(&["results", "run", "--format", "csv"], folder.path());
    assert!(csv.contains(HOSTILE));
}

#[test]
fn control_characters_of_a_scorer_are_escaped_on_a_terminal() {
    let text = serde_json::to_string(HOSTILE).expect("JSON");
    let scorer = format!("import sys\nsys.stdin.readline()\nsys.stdout.buffer.write(({text} + '\\n').encode())\n");
    let folder = library(20, vec![]);
    std::fs::write(folder.path().join("score.py"), scorer).expect("written");
    let score = "command = [\"python3\", \"score.py\"]\nretries = 0\n";
    for (out, score) in [("run", score.to_string()), ("stop", format!("{score}on_error = \"stop\"\n"))] {
        std::fs::write(folder.path().join("run.toml"), RUN.replace("sql = \"weight\"", &score)).expect("written");
        let output = uphill(&["search", "run.toml", "--out", out], folder.path());
        assert!(stderr(&output).contains("owned"), "{}", stderr(&output));
        assert_inert(&stderr(&output));
    }
}

#[test]
fn an_output_file_with_an_unsupported_extension_is_rejected_before_anything_is_computed() {
    let folder = library(60, vec![]);
    let refused = |arguments: &[&str], name: &str| {
        let output = uphill(arguments, folder.path());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(!folder.path().join(name).exists(), "{arguments:?}");
        stderr(&output)
    };
    // Nothing is scored for a table that is not written then.
    let said = refused(&["search", "run.toml", "--out", "run", "-o", "best.xlsx"], "run");
    let known = "use .csv, .json, .parquet or set --format";
    assert_eq!(said, format!("uphill: best.xlsx: unsupported extension .xlsx; {known}\n"));
    let by_hand = RUN.replace("sql = \"weight\"", "by_hand = true");
    std::fs::write(folder.path().join("hand.toml"), by_hand).expect("written");
    refused(&["ask", "hand.toml", "--out", "hand", "-o", "next.tsv"], "hand");

    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let truth = ["--truth", "items.parquet", "--score-column", "weight"];
    for name in ["best.xlsx", "best.csv.gz", "best.feather", "best.txt", "best.jsonl"] {
        for command in ["results", "queries", "trajectories"] {
            let said = refused(&[command, "run", "-o", name], name);
            assert!(
                said.starts_with(&format!("uphill: {name}: unsupported extension ."))
                    && said.ends_with(&format!("{known}\n")),
                "{said}"
            );
        }
        refused(&[&["evaluate", "run", "-o", name], &truth[..]].concat(), name);
    }
    assert!(
        refused(&["report", "run", "-o", "report.pdf"], "report.pdf").contains("unsupported extension .pdf; use .html")
    );
    assert!(refused(&["plot", "run", "-o", "curve.png"], "curve.png").contains("unsupported extension .png; use .svg"));

    // What is said by --format, or by nothing, and letters of any size.
    let magic = |name: &str| std::fs::read(folder.path().join(name)).expect("a file")[..4].to_vec();
    for (name, format, begins) in [
        ("best.xlsx", Some("csv"), b"db_i"),
        ("best", None, b"db_i"),
        ("BEST.PARQUET", None, b"PAR1"),
        ("Best.Json", None, b"[{\"d"),
        ("best.dat", Some("parquet"), b"PAR1"),
    ] {
        let format = format.map_or(vec![], |format| vec!["--format", format]);
        uphill_ok(&[&["results", "run", "-o", name], &format[..]].concat(), folder.path());
        assert_eq!(magic(name), begins, "{name}");
    }
}
