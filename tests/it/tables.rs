//! Tables that people bring as CSV, JSON or something else: scores to tell, scores to reuse, the truth, queries.

use std::path::Path;

use polars::prelude::*;
use rand::RngExt;

use crate::common::*;

const RUN: &str = "seed = 3\n[database]\npath = \"items.lance\"\n[score]\nby_hand = true\n[update]\nbatch = 4\nfeatures = []\n[stop]\nevaluations = 8\n";

/// A library, and a run by hand that waits for the scores of some items.
fn waiting() -> (TempDir, Vec<u64>) {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(100, 4, 5, &mut rng(1))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    uphill_ok(&["ask", "run.toml", "--out", "asked", "-o", "next.csv"], folder.path());
    uphill_ok(&["ask", "run.toml", "--out", "asked", "-o", "next.parquet"], folder.path());
    let waiting = u64s(&read(&folder.path().join("next.parquet")), "db_idx");
    assert!(waiting.len() >= 2);
    (folder, waiting)
}

/// Tells a file to a copy of the run; gives what was said and the scores that the ledger has.
fn told(folder: &TempDir, name: &str, bytes: &[u8]) -> (String, Vec<(u64, Option<f64>)>) {
    std::fs::write(folder.path().join(name), bytes).expect("written");
    let _ = std::fs::remove_dir_all(folder.path().join("run"));
    copy_tree(&folder.path().join("asked"), &folder.path().join("run"));
    let said = stderr(&uphill(&["tell", "run", name], folder.path()));
    let batch = folder.path().join("run/ledger/batch-000000.parquet");
    if !batch.exists() {
        return (said, Vec::new());
    }
    let ledger = read(&batch);
    let scores = ledger.column("score").expect("score").f64().expect("f64").iter().collect::<Vec<_>>();
    (said, u64s(&ledger, "db_idx").into_iter().zip(scores).collect())
}

/// Lines of ids and of the scores .5, 1.5, …, with a header.
fn lines(ids: &[u64], separator: &str, mark: &str) -> String {
    let line = |(row, id): (usize, &u64)| format!("{id}{separator}{row}{mark}5\r\n");
    format!("db_idx{separator}score\r\n") + &ids.iter().enumerate().map(line).collect::<String>()
}

#[test]
fn scores_are_read_in_the_formats_of_spreadsheets_and_programs() {
    let (folder, ids) = waiting();
    let expected: Vec<(u64, Option<f64>)> =
        ids.iter().zip(0..).map(|(id, row)| (*id, Some(row as f64 + 0.5))).collect();
    let utf_16 =
        |text: &str| [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let big_endian =
        |text: &str| [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    let commas = lines(&ids, ",", ".");
    let objects: Vec<String> = expected
        .iter()
        .map(|(id, score)| format!("{{\"db_idx\": {id}, \"score\": {}}}", score.expect("a score")))
        .collect();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("commas.csv", commas.clone().into()),
        ("mark.csv", [b"\xef\xbb\xbf", commas.as_bytes()].concat()),
        ("semicolons.csv", [b"\xef\xbb\xbf", lines(&ids, ";", ".").as_bytes()].concat()),
        ("decimal-commas.csv", lines(&ids, ";", ",").into()),
        ("excel-says.csv", format!("sep=;\r\n{}", lines(&ids, ";", ",")).into()),
        ("tabs.tsv", lines(&ids, "\t", ".").into()),
        ("tabs.csv", lines(&ids, "\t", ",").into()),
        ("bars.txt", lines(&ids, "|", ".").into()),
        ("utf-16.csv", utf_16(&lines(&ids, "\t", "."))),
        ("big-endian.csv", big_endian(&commas)),
        ("unix.csv", commas.replace('\r', "").into()),
        ("no-end.csv", commas.trim_end().into()),
        (
            "quoted.csv",
            ids.iter()
                .enumerate()
                .fold("\"db_idx\",\"score\"\r\n".to_string(), |all, (row, id)| {
                    all + &format!("\"{id}\",\"{row}.5\"\r\n")
                })
                .into(),
        ),
        (
            "quoted-commas.csv",
            ids.iter()
                .enumerate()
                .fold("\"db_idx\",\"score\"\r\n".to_string(), |all, (row, id)| {
                    all + &format!("\"{id}\",\"{row},5\"\r\n")
                })
                .into(),
        ),
        ("case.csv", commas.replace("db_idx", "DB_IDX").replace("score", "Score").into()),
        ("spaces.csv", commas.replace(',', " , ").into()),
        ("trailing.csv", (commas.replace("\r\n", ",\r\n") + ",,\r\n\r\n,,\r\n").into()),
        (
            "pandas.csv",
            commas
                .lines()
                .enumerate()
                .map(|(row, line)| if row == 0 { format!(",{line}\n") } else { format!("{},{line}\n", row - 1) })
                .collect::<String>()
                .into(),
        ),
        (
            "floats.csv",
            ids.iter()
                .enumerate()
                .fold("db_idx,score\n".to_string(), |all, (row, id)| all + &format!("{id}.0,{row}.5\n"))
                .into(),
        ),
        (
            "more.csv",
            ids.iter()
                .enumerate()
                .fold("name;db_idx;score\n".to_string(), |all, (row, id)| {
                    all + &format!("\"a; \"\"b\"\"\n c\";{id};+{row},50\n")
                })
                .into(),
        ),
        (
            "header.csv",
            format!(
                "db_idx;score;\"kcal, mol\"\n{}",
                ids.iter().enumerate().map(|(row, id)| format!("{id};{row}.5;x,y\n")).collect::<String>()
            )
            .into(),
        ),
        ("list.json", format!("[{}]", objects.join(",\n")).into()),
        ("lines.jsonl", objects.join("\n").into()),
        ("lines.json", (objects.join("\n\n") + "\n").into()),
    ];
    for (name, bytes) in cases {
        let (said, scores) = told(&folder, name, &bytes);
        assert_eq!(scores, expected, "{name}: {said}");
    }
    // What `ask` wrote, with a column more.
    let asked = std::fs::read_to_string(folder.path().join("next.csv")).expect("CSV");
    let scored = asked
        .lines()
        .enumerate()
        .map(|(row, line)| format!("{line},{}\n", if row == 0 { "score".into() } else { format!("{}.5", row - 1) }));
    assert_eq!(told(&folder, "scored.csv", scored.collect::<String>().as_bytes()).1, expected);
}

#[test]
fn an_empty_score_is_a_failure_and_reasons_are_kept_unchanged() {
    let (folder, ids) = waiting();
    for (name, text) in [
        ("empty.csv", format!("db_idx,score,reason\n{},0.5,\n{},,17\n", ids[0], ids[1])),
        ("na.csv", format!("db_idx,score,reason\n{},0.5,NA\n{},NA,17\n", ids[0], ids[1])),
        (
            "null.json",
            format!(
                "[{{\"db_idx\": {}, \"score\": 0.5}}, {{\"db_idx\": {}, \"score\": null, \"reason\": \"17\"}}]",
                ids[0], ids[1]
            ),
        ),
    ] {
        assert_eq!(told(&folder, name, text.as_bytes()).1, [(ids[0], Some(0.5)), (ids[1], None)], "{name}");
        let ledger = read(&folder.path().join("run/ledger/batch-000000.parquet"));
        assert_eq!(ledger.column("reason").expect("reason").str().expect("text").get(1), Some("17"), "{name}");
    }
}

#[test]
fn ambiguous_numbers_are_rejected_with_their_line() {
    let (folder, ids) = waiting();
    let of = |header: &str, rows: &[&str]| -> Vec<u8> {
        let rows = rows.iter().zip(&ids).map(|(row, id)| row.replace("ID", &id.to_string()) + "\n");
        (format!("{header}\n") + &rows.collect::<String>()).into()
    };
    let thousands = "write 1234.5, without thousands separators";
    let either =
        "is ambiguous: decimal comma or thousands separator; write a decimal point, and no thousands separators";
    for (name, bytes, expected) in [
        ("thousands.csv", of("db_idx,score", &["ID,0.5", "ID,\"1,100.5\""]), format!("column `score`: `1,100.5` in line 3 is not a number; {thousands}")),
        ("european.csv", of("db_idx;score", &["ID;0,5", "ID;1.100,5"]), format!("column `score`: `1.100,5` in line 3 is not a number; {thousands}")),
        ("spaced.csv", of("db_idx;score", &["ID;0,5", "ID;1 100,5"]), format!("column `score`: `1 100,5` in line 3 is not a number; {thousands}")),
        ("either.csv", of("db_idx;score", &["ID;1,234", "ID;2,345"]), format!("column `score`: `1,234` in line 2 {either}")),
        ("mixed.csv", of("db_idx;score;other", &["ID;1.234;0,5", "ID;2.345;0,25"]), "column `score`: `1.234` in line 2 is ambiguous: decimal point or thousands separator; other numbers have decimal commas; write decimal points only".into()),
        ("text.csv", of("db_idx,score", &["ID,0.5", "ID,n.d."]), "column `score`: `n.d.` in line 3 is not a number; leave the field empty if the value is missing".into()),
        ("unit.csv", of("db_idx,score", &["ID,<0.1", "ID,0.5"]), "column `score`: `<0.1` in line 2 is not a number; leave the field empty if the value is missing".into()),
        ("powers.csv", of("db_idx,score", &["1.8E+19,0.5", "ID,0.5"]), "column `db_idx`: `1.8E+19` in line 2 has lost digits of an id; format the column as integers before saving the file".into()),
        ("marks.csv", of("db_idx,score", &["ID,0,5", "ID,1,5"]), "line 2 has 3 fields, but the header has 2; if commas are decimal marks, separate fields with semicolons".into()),
        ("short.csv", of("db_idx,score,note", &["ID,0.5,x", "ID,0.5"]), "line 3 has 2 fields, but the header has 3; if commas are decimal marks, separate fields with semicolons".into()),
        ("quote.csv", of("db_idx,score", &["ID,\"0.5"]), "line 2: unclosed quote".into()),
        ("twice.csv", of("db_idx,score,score", &["ID,0.5,1.5"]), "two columns are named `score`".into()),
        ("latin.csv", b"db_idx,score,name\n1,0.5,M\xfcller\n".to_vec(), "line 2 is not UTF-8; save it as \"CSV UTF-8\", or as Parquet".into()),
        ("bad.json", b"[{\"db_idx\": 1,".to_vec(), "cannot read it as JSON: expected a list of objects, or an object per line: EOF while parsing a value at line 1 column 14".into()),
        ("empty.csv", b"".to_vec(), "is empty".into()),
    ] {
        let (said, scores) = told(&folder, name, &bytes);
        assert_eq!((said, scores.len()), (format!("uphill: {name}: {expected}\n"), 0));
    }
}

#[test]
fn unsupported_formats_are_reported_with_advice() {
    let (folder, _) = waiting();
    let parquet = "write it as Parquet";
    let polars = |reader: &str| format!("write it as Parquet, with Polars: pl.{reader}(…).write_parquet(…)");
    for (name, bytes, is, remedy) in [
        ("scores.xlsx", &b"PK\x03\x04junk"[..], "an Excel workbook", polars("read_excel")),
        ("scores.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook", polars("read_excel")),
        ("scores.zip", b"PK\x03\x04junk", "a zip archive (an Excel workbook is one, too)", parquet.into()),
        ("scores.feather", b"ARROW1\0\0junk", "an Arrow (Feather) file", polars("read_ipc")),
        ("scores.csv.gz", b"\x1f\x8b\x08\0", "compressed with gzip", parquet.into()),
        ("scores.pkl", b"\x80\x04\x95\0\0\0\0", "of an unknown format", parquet.into()),
    ] {
        let (said, _) = told(&folder, name, bytes);
        assert_eq!(said, format!("uphill: {name}: is {is}, which is not supported; {remedy}, or as CSV\n"));
        let said = stderr(&uphill(&["index", name, "x.lance"], folder.path()));
        assert_eq!(said, format!("uphill: {name}: is {is}, not Parquet; {remedy}\n"));
    }
    for (name, text, is, reader) in
        [("items.csv", "a,b\n1,2\n", "CSV or other text", "read_csv"), ("items.json", "[{}]", "JSON", "read_json")]
    {
        std::fs::write(folder.path().join(name), text).expect("written");
        let said = stderr(&uphill(&["index", name, "x.lance"], folder.path()));
        assert_eq!(said, format!("uphill: {name}: is {is}, not Parquet; {}\n", polars(reader)));
    }
}

fn searched(more: &str) -> TempDir {
    let folder = folder();
    let mut frame = items(&clustered(300, 4, 6, &mut rng(2)));
    frame.with_column(Column::new("id".into(), (1000..1300i64).collect::<Vec<_>>())).expect("a column");
    write(&folder.path().join("items.parquet"), &frame);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let run = format!(
        "[database]\npath = \"items.lance\"\nk = 8\n[update]\nrule = \"top-k\"\n[stop]\niterations = 3\n[score]\nsql = \"weight\"\n{more}"
    );
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    folder
}

fn evaluated(folder: &Path, more: &[&str]) -> Result<DataFrame, String> {
    let output =
        uphill(&[&["evaluate", "run", "--top", "10", "-o", "out.parquet", "--score-column"], more].concat(), folder);
    if output.status.success() { Ok(read(&folder.join("out.parquet"))) } else { Err(stderr(&output)) }
}

#[test]
fn true_scores_may_be_csv_json_or_booleans_and_matched_by_ids_of_any_type() {
    let folder = searched("");
    let at = |name: &str| folder.path().join(name);
    let expected = evaluated(folder.path(), &["weight", "--truth", "items.parquet"]).expect("judged");
    let frame = read(&at("items.parquet"));
    let plain = frame.select(["id", "name", "weight"]).expect("columns");
    let ids = |dtype: DataType| plain.column("id").expect("id").cast(&dtype).expect("cast");
    let with = |id: Column| {
        let mut other = plain.clone();
        other.with_column(id).expect("a column");
        other.reverse()
    };
    let text = |frame: &DataFrame, separator: u8, comma: bool| {
        let mut bytes = Vec::new();
        CsvWriter::new(&mut bytes)
            .with_separator(separator)
            .with_decimal_comma(comma)
            .finish(&mut frame.clone())
            .expect("CSV");
        bytes
    };
    std::fs::write(at("truth.csv"), text(&plain, b',', false)).expect("written");
    std::fs::write(at("commas.csv"), text(&plain, b';', true)).expect("written");
    std::fs::write(at("keys.csv"), text(&with(ids(DataType::Float64)), b'\t', false)).expect("written");
    write(&at("floats.parquet"), &with(ids(DataType::Float64)));
    write(&at("texts.parquet"), &with(ids(DataType::String)));
    let mut json = Vec::new();
    JsonWriter::new(&mut json).with_json_format(JsonFormat::Json).finish(&mut plain.reverse()).expect("JSON");
    std::fs::write(at("truth.json"), json).expect("written");
    for (name, key) in [
        ("truth.csv", false),
        ("commas.csv", false),
        ("truth.csv", true),
        ("commas.csv", true),
        ("keys.csv", true),
        ("floats.parquet", true),
        ("texts.parquet", true),
        ("truth.json", true),
    ] {
        let by_key: &[&str] = if key { &["--key", "id"] } else { &[] };
        let found = evaluated(folder.path(), &[&["weight", "--truth", name], by_key].concat());
        assert!(found.clone().expect(name).equals_missing(&expected), "{name}: {found:?}, expected {expected:?}");
    }
    // Half of the rows in another type.
    std::fs::create_dir(at("parts")).expect("a folder");
    write(&at("parts/a.parquet"), &plain.slice(0, 150));
    let mut rest = plain.slice(150, 150);
    let narrow = rest
        .column("weight")
        .expect("weight")
        .cast(&DataType::Float32)
        .expect("cast")
        .cast(&DataType::Float64)
        .expect("cast");
    rest.with_column(narrow).expect("a column");
    rest.with_column(rest.column("id").expect("id").cast(&DataType::Int32).expect("cast")).expect("a column");
    write(&at("parts/b.parquet"), &rest.select(["weight", "id", "name"]).expect("columns"));
    evaluated(folder.path(), &["weight", "--truth", "parts", "--key", "id"]).expect("judged");

    let good: Vec<bool> = f64s(&plain, "weight").into_iter().map(|weight| weight > 0.9).collect();
    let truths = plain.hstack(&[Column::new("good".into(), good)]).expect("a column");
    write(&at("good.parquet"), &truths);
    std::fs::write(at("good.csv"), text(&truths, b',', false)).expect("written");
    let expected = evaluated(folder.path(), &["good", "--truth", "good.parquet"]).expect("judged");
    assert!(f64s(&expected, "best").last() == Some(&1.0));
    assert!(evaluated(folder.path(), &["good", "--truth", "good.csv"]).expect("judged").equals_missing(&expected));

    let strangers = with(Column::new("id".into(), (6000..6300i64).collect::<Vec<_>>()));
    write(&at("strangers.parquet"), &strangers);
    let said =
        evaluated(folder.path(), &["weight", "--truth", "strangers.parquet", "--key", "id"]).expect_err("refused");
    assert!(
        said.contains("no row has the `id` ")
            && said.contains("this file has values such as 6299 (i64), the run has i64 values"),
        "{said}"
    );
}

#[test]
fn queries_are_read_from_the_output_of_the_command() {
    let folder = searched("");
    let at = |name: &str| folder.path().join(name);
    for name in ["queries.csv", "queries.json", "queries.parquet"] {
        uphill_ok(&["queries", "run", "--limit", "5", "-o", name], folder.path());
    }
    let from = |name: &str| {
        let _ = std::fs::remove_dir_all(at("other"));
        uphill_ok(&["search", "run.toml", "--out", "other", "--set", &format!("queries.path={name}")], folder.path());
        read(&at("other/queries/iteration=000000/part-0000.parquet"))
    };
    let expected = from("queries.parquet");
    assert_eq!(expected.height(), 5);
    assert!(from("queries.csv").equals_missing(&expected));
    let vectors = |frame: &DataFrame| uphill::matrix::<f64>(frame, "embedding").expect("vectors").view().to_owned();
    let off = vectors(&from("queries.json")) - vectors(&expected);
    assert!(off.iter().all(|off| off.abs() < 1e-12), "{off}");
    std::fs::write(at("bad.csv"), "embedding\n\"[0.5, 1, x]\"\n").expect("written");
    let said = stderr(&uphill(&["search", "run.toml", "--out", "bad", "--set", "queries.path=bad.csv"], folder.path()));
    let message = "./bad.csv: column `embedding`: expected numbers such as [0.5, 0.25], found \"[0.5, 1, x]\" in row 0";
    assert_eq!(said, format!("uphill: {message}\n"));
}

#[test]
fn scores_in_json_are_stored_to_the_last_digit() {
    let (folder, ids) = waiting();
    let scores = [0.743_373_972_763_227_3, 8.988_465_674_311_579e307, -1.234_567_890_123_456_7e-9];
    // Many random numbers, because only some are rounded.
    let mut random = rng(5).sample_iter(rand::distr::StandardUniform).map(|unit: f64| (unit - 0.5) * 1e-3);
    for round in 0..8 {
        let score = |row: usize| if round == 0 { scores[row % scores.len()] } else { random.next().expect("endless") };
        let expected: Vec<(u64, Option<f64>)> =
            ids.iter().copied().zip((0..ids.len()).map(score).map(Some).collect::<Vec<_>>()).collect();
        let object = |(id, score): &(u64, Option<f64>)| {
            format!("{{\"db_idx\": {id}, \"score\": {:?}, \"more\": [{{\"x\": 1.5}}]}}", score.expect("a score"))
        };
        let objects: Vec<String> = expected.iter().map(object).collect();
        for text in [format!("[{}]", objects.join(", ")), objects.join("\n")] {
            let (said, scores) = told(&folder, "scores.json", text.as_bytes());
            assert_eq!(scores, expected, "{said}");
        }
    }
}
