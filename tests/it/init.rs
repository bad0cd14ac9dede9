//! Tests of `uphill init`: the run file matches the dataset and runs unchanged.

use polars::prelude::*;

use crate::common::*;

/// A dataset of these items, in a folder of its own.
fn indexed(items: &DataFrame) -> TempDir {
    let folder = folder();
    write(&folder.path().join("items.parquet"), items);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    folder
}

fn text(folder: &TempDir, name: &str) -> String {
    std::fs::read_to_string(folder.path().join(name)).expect("a file")
}

#[test]
fn the_file_lists_the_columns_of_the_dataset_and_runs_unchanged() {
    let mut frame = items(&clustered(300, 4, 8, &mut rng(1)));
    frame.with_column(Column::new("count".into(), (0..300).collect::<Vec<i64>>())).expect("a column");
    let folder = indexed(&frame);
    uphill_ok(&["init", "items.lance"], folder.path());
    let written = text(&folder, "run.toml");
    for line in [
        "# A search of 300 items with 4 dimensions, l2, no index.",
        "path = \"items.lance\"",
        "    \"name\",                     # str, such as \"item 0\"",
        "    \"weight\",                   # f64, 0 to 0.99",
        "    \"count\",                    # i64, 0 to 299",
        "sql = \"weight\"",
        "evaluations = 100           # items scored; never exceeded",
    ] {
        assert!(written.lines().any(|written| written == line), "{line} is not in\n{written}");
    }
    uphill_ok(&["search", "run.toml", "--out", "run", "--dry-run"], folder.path());
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    // Each commented line can be uncommented.
    let example = written.lines().find(|line| line.starts_with("# prefilter")).expect("a prefilter");
    let taken = written.replace(example, &example[2..]);
    std::fs::write(folder.path().join("run.toml"), taken).expect("written");
    let plan = uphill_ok(&["search", "run.toml", "--out", "other", "--dry-run"], folder.path());
    assert!(plan.contains("matching rows     150"), "half of them: {plan}");
    let sql = written.lines().find(|line| line.starts_with("# sql")).expect("a filter");
    std::fs::write(folder.path().join("run.toml"), written.replace(sql, &sql[2..])).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "filtered"], folder.path());
}

#[test]
fn an_existing_file_is_not_replaced_without_overwrite() {
    let folder = indexed(&items(&normal(30, 4, &mut rng(1))));
    std::fs::write(folder.path().join("run.toml"), "mine").expect("written");
    let output = uphill(&["init", "items.lance"], folder.path());
    let message = "uphill: run.toml: already exists; replace it with --overwrite or choose another file with -o\n";
    assert_eq!((stderr(&output).as_str(), output.status.code()), (message, Some(1)));
    assert_eq!(text(&folder, "run.toml"), "mine");
    uphill_ok(&["init", "items.lance", "--overwrite"], folder.path());
    assert!(text(&folder, "run.toml").contains("items.lance"));
}

#[test]
fn a_file_in_another_folder_finds_the_dataset() {
    let folder = indexed(&items(&normal(30, 4, &mut rng(1))));
    for place in ["below", "below/further"] {
        std::fs::create_dir(folder.path().join(place)).expect("a folder");
        let file = format!("{place}/run.toml");
        uphill_ok(&["init", "items.lance", "-o", &file], folder.path());
        uphill_ok(&["search", &file, "--out", &format!("{place}/run")], folder.path());
    }
    // Seen from above, by a name that holds wherever both are moved to.
    std::fs::create_dir(folder.path().join("elsewhere")).expect("a folder");
    let (above, dataset) = ("../run.toml", "../items.lance");
    uphill_ok(&["init", dataset, "-o", above], &folder.path().join("elsewhere"));
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
}

#[test]
fn names_and_texts_with_special_characters_are_escaped_in_toml_and_sql() {
    let rows = 30;
    let hostile = ["a\"b", "line\nbreak", "it's", "SELECT", "order", "[stop]", "# no", "\u{7f}\u{1b}", "ä ö", "Weight"];
    let mut frame = items(&normal(rows, 4, &mut rng(1))).drop("weight").expect("dropped");
    for name in hostile {
        let texts: Vec<String> = (0..rows).map(|row| format!("{name}\"\"\"\n{row}")).collect();
        frame.with_column(Column::new(format!("text {name}").into(), texts)).expect("a column");
    }
    for name in hostile {
        let numbers: Vec<f64> = (0..rows).map(|row| row as f64).collect();
        frame.with_column(Column::new(name.into(), &numbers)).expect("a column");
        let folder = indexed(&frame);
        uphill_ok(&["init", "items.lance"], folder.path());
        // The last number stands in for the score.
        uphill_ok(&["search", "run.toml", "--out", "run", "-q"], folder.path());
        let results = uphill_ok(&["results", "run", "--format", "json"], folder.path());
        let results: serde_json::Value = serde_json::from_str(&results).expect("JSON");
        assert_eq!(results[0][name], results[0]["score"], "{name}: {}", text(&folder, "run.toml"));
        assert_eq!(results[0]["score"].as_f64(), Some(29.0));
    }
}

#[test]
fn without_a_numeric_column_scores_are_given_by_hand() {
    let frame = items(&normal(30, 4, &mut rng(1))).drop("weight").expect("dropped");
    let folder = indexed(&frame);
    let output = uphill(&["init", "items.lance"], folder.path());
    assert_eq!(stderr(&output), "wrote run.toml; next: uphill ask run.toml --out run -o next.parquet\n");
    uphill_ok(&["ask", "run.toml", "--out", "run", "-o", "next.parquet"], folder.path());
    assert!(read(&folder.path().join("next.parquet")).height() > 0);
}
