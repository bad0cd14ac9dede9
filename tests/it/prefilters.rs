//! Conditions on items: one way to quote in `database.prefilter`, `filter.sql` and `score.sql`, no condition that holds for
//! all or none by mistake, and a word where none matches.

use std::collections::HashSet;
use std::path::Path;

use polars::prelude::*;
use uphill::{LanceDatabase, QueryOptions, SearchLog, StopReason, VectorDatabase};

use crate::common::*;

const ROWS: usize = 60;

/// Items with columns whose names want quotes.
fn library() -> TempDir {
    let folder = folder();
    let mut frame = items(&normal(ROWS, 4, &mut rng(51)));
    let groups: Vec<&str> = (0..ROWS).map(|row| ["D", "R\"x", "O'K"][row % 3]).collect();
    let more = [
        Column::new("Group".into(), groups),
        Column::new("the group".into(), (0..ROWS as i64).map(|row| row % 3).collect::<Vec<_>>()),
        Column::new("D".into(), (0..ROWS).map(|_| "D").collect::<Vec<_>>()),
    ];
    for column in more {
        frame.with_column(column).expect("a column");
    }
    write(&folder.path().join("items.parquet"), &frame);
    uphill_ok(&["index", "items.parquet", "items.lance", "-q"], folder.path());
    folder
}

fn run_file(folder: &Path, prefilter: &str, filter: &str) {
    let prefilter = if prefilter.is_empty() { String::new() } else { format!("prefilter = {prefilter:?}\n") };
    let filter = if filter.is_empty() { String::new() } else { format!("[filter]\nsql = {filter:?}\n") };
    let run = format!(
        "seed = 1\n[database]\npath = 'items.lance'\nk = 60\n{prefilter}{filter}[score]\nsql = 'weight'\n\
         [update]\nrule = 'top-k'\n[stop]\niterations = 2\n"
    );
    std::fs::write(folder.join("run.toml"), run).expect("written");
}

/// The items that a run of the run file scores.
fn scored(folder: &Path) -> HashSet<u64> {
    let _ = std::fs::remove_dir_all(folder.join("run"));
    uphill_ok(&["search", "run.toml", "--out", "run", "-q"], folder);
    let log = SearchLog::open(folder.join("run")).expect("a run");
    let met = uphill::collect(log.compile_results().expect("a query")).expect("results");
    u64s(&met, "db_idx").into_iter().collect()
}

#[test]
fn quotes_mean_the_same_in_a_prefilter_a_filter_and_a_score() {
    let folder = library();
    let of = |rest: &[usize]| -> HashSet<u64> {
        (0..ROWS).filter(|row| rest.contains(&(row % 3))).map(|row| row as u64).collect()
    };
    for (sql, expected) in [
        ("\"Group\" = 'D'", of(&[0])),
        ("`Group` = 'D'", of(&[0])),
        ("\"Group\"=\"D\"", of(&[0])),
        ("D = `Group`", of(&[0])),
        ("'D' = \"Group\"", of(&[0])),
        ("\"Group\" = 'R\"x'", of(&[1])),
        ("\"Group\" = 'O''K' OR \"the group\" = 0", of(&[0, 2])),
        ("\"the group\" IN (1, 2) AND NOT (`Group` LIKE 'O%')", of(&[1])),
        ("\"the group\" > 0 -- not \"Group\" = 'D\n AND \"Group\" <> 'O''K'", of(&[1])),
        ("\"the group\" > 0 /* `or \"Group\" = */ AND \"Group\" <> 'O''K'", of(&[1])),
    ] {
        run_file(folder.path(), sql, "");
        assert_eq!(scored(folder.path()), expected, "as a prefilter: {sql}");
        run_file(folder.path(), "", sql);
        assert_eq!(scored(folder.path()), expected, "as a filter: {sql}");
    }
    // What Lance does not have is no column.
    run_file(folder.path(), "sign(weight) = 1", "");
    let said = stderr(&uphill(&["search", "run.toml", "--out", "refused"], folder.path()));
    assert!(said.contains("Invalid function 'sign'") && !said.contains("no column"), "{said}");
    // Through the library, without a check before it.
    let database = LanceDatabase::open(folder.path().join("items.lance").to_string_lossy()).expect("a dataset");
    let queries = uphill::queries_at(&database, &[0]).expect("queries");
    let found =
        database.clone().prefilter("\"Group\" = 'D'").query(&queries, QueryOptions::new().k(60)).expect("found");
    assert_eq!(u64s(&found, "db_idx").into_iter().collect::<HashSet<_>>(), of(&[0]));
    for sql in ["\"Gruop\" = 'D'", "1 = 1"] {
        assert!(database.clone().prefilter(sql).query(&queries, QueryOptions::new()).is_err(), "{sql}");
    }
    run_file(folder.path(), "", "");
    for sql in ["\"the group\" + weight", "`the group` + weight"] {
        let scored = uphill_ok(
            &["search", "run.toml", "--out", "scored", "-q", "--set", &format!("score.sql='{sql}'")],
            folder.path(),
        );
        assert!(scored.lines().nth(1).is_some_and(|best| best.contains("2.")), "{scored}");
        std::fs::remove_dir_all(folder.path().join("scored")).expect("removed");
    }
}

#[test]
fn a_condition_without_a_column_or_with_an_unknown_one_is_rejected() {
    let folder = library();
    let no_column = "names no column, so it is true for all items or for none (there are: ";
    for (sql, message) in [
        ("1 = 1", no_column),
        ("true", no_column),
        ("'Group' = 'D'", no_column),
        ("length('D') > 0", no_column),
        ("\"Gruop\" = 'D'", "no column `Gruop`"),
        ("`Gruop` = 'D'", "did you mean `Group`?"),
        ("Gruop = 'D' AND weight > 0", "did you mean `Group`?"),
        ("weight > 0 AND \"kind\" = 'D'", "no column `kind`"),
        ("\"Group\" = \"O\"", "no column `O`"),
    ] {
        for key in ["database.prefilter", "filter.sql"] {
            match key {
                "filter.sql" => run_file(folder.path(), "", sql),
                _ => run_file(folder.path(), sql, ""),
            }
            for dry in [&[][..], &["--dry-run"]] {
                let output = uphill(&[&["search", "run.toml", "--out", "refused"], dry].concat(), folder.path());
                let said = stderr(&output);
                assert_eq!(output.status.code(), Some(2), "{key}: {sql}: {said}");
                assert!(
                    said.starts_with(&format!("uphill: {key}: ")) && said.contains(message),
                    "{key}: {sql}: {said}"
                );
                assert!(!folder.path().join("refused").exists());
            }
        }
    }
}

#[test]
fn a_condition_that_nothing_matches_is_reported_with_the_number_of_items() {
    let folder = library();
    let ended = |run: &str| {
        let log = SearchLog::open(folder.path().join(run)).expect("a run");
        log.manifest().ended.as_ref().expect("ended").reason
    };
    run_file(folder.path(), "\"Group\" = 'X'", "");
    let warning = "database.prefilter: none of 60 items matches `\"Group\" = 'X'`";
    let said = stderr(&uphill(&["search", "run.toml", "--out", "none"], folder.path()));
    assert!(said.matches(warning).count() == 1 && said.contains("0 items scored (no candidates)"), "{said}");
    assert_eq!(ended("none"), StopReason::NoCandidates);
    let said = stderr(&uphill(&["search", "run.toml", "--out", "dry", "--dry-run"], folder.path()));
    assert_eq!(said.matches(warning).count(), 1, "{said}");
    // With queries of one's own, which are there whatever matches.
    let queries = items(&normal(3, 4, &mut rng(52))).select(["embedding"]).expect("queries");
    write(&folder.path().join("queries.parquet"), &queries);
    let own = ["search", "run.toml", "--out", "own", "--set", "queries.path=queries.parquet"];
    let said = stderr(&uphill(&own, folder.path()));
    assert!(said.matches(warning).count() == 1 && said.contains("(no candidates)"), "{said}");

    run_file(folder.path(), "", "weight < 0");
    let said = stderr(&uphill(&["search", "run.toml", "--out", "unpassed"], folder.path()));
    assert!(said.contains("filter: none of the ") && said.contains("(no candidate passes the filter)"), "{said}");
    assert_eq!(ended("unpassed"), StopReason::NothingPasses);
    let said = stderr(&uphill(&["search", "run.toml", "--out", "dry", "--dry-run"], folder.path()));
    assert!(
        said.contains("filter.sql: none of the 60 items that the starting queries find passes the filter"),
        "{said}"
    );
    // Gone on with, it has ended as it had.
    uphill_ok(&["search", "run.toml", "--out", "unpassed", "--resume"], folder.path());
    assert_eq!(ended("unpassed"), StopReason::NothingPasses);
}
