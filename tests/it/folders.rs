//! Which files a path, a folder or a glob means: nothing is left out without a word, and what is being written is left alone.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use uphill::VectorDatabase;

use crate::common::*;

/// Writes items, of which each file has another number.
fn put(folder: &Path, name: &str, rows: usize) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    write(&path, &items(&normal(rows, 3, &mut rng(rows as u64))));
}

fn index(folder: &Path, what: &str) -> Output {
    let _ = std::fs::remove_dir_all(folder.join("out.lance"));
    uphill(&["index", what, "out.lance"], folder)
}

fn rows(folder: &Path) -> u64 {
    open(&folder.join("out.lance")).len()
}

#[test]
fn files_whose_names_begin_with_an_underscore_or_a_dot_are_skipped_with_a_warning() {
    let folder = folder();
    let at = folder.path();
    put(at, "items/a.parquet", 1);
    put(at, "items/day=1/b.PARQUET", 2);
    put(at, "items/_temporary/0/c.parquet", 4);
    put(at, "items/day=1/.staging/d.parquet", 8);
    put(at, "items/_e.parquet", 16);
    put(at, "items/.f.parquet", 32);
    std::fs::write(at.join("items/_SUCCESS"), "").expect("written");
    std::fs::create_dir(at.join("items/.git")).expect("a folder");
    for (what, expected) in [
        ("items", 3),
        ("items/", 3),
        ("items/**/*.[pP]*", 3),
        ("items/*", 3),
        ("items/*.parquet", 1),
        ("*/*.parquet", 1),
        ("items/_*.parquet", 16),
        ("items/.*.parquet", 32),
        ("items/_temporary", 4),
        ("items/_temporary/*/*.parquet", 4),
        ("items/_temporary/**", 4),
    ] {
        let output = index(at, what);
        assert!(output.status.success(), "{what}: {}", stderr(&output));
        assert_eq!(rows(at), expected, "{what}");
    }
    let said = stderr(&index(at, "items"));
    let expected = "items: skipped files and folders whose names begin with `_` or `.`: items/.f.parquet, items/_e.parquet, \
                    items/_temporary, items/day=1/.staging";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn parquet_files_with_another_extension_are_skipped_with_a_warning() {
    let folder = folder();
    let at = folder.path();
    put(at, "items/a.parquet", 1);
    put(at, "items/part-1.pq", 2);
    put(at, "items/day=1/000002_0", 4);
    std::fs::write(at.join("items/notes.txt"), "PAR").expect("written");
    for (what, expected) in [("items", 1), ("items/**", 1)] {
        let output = index(at, what);
        let said = stderr(&output);
        assert!(output.status.success(), "{what}: {said}");
        assert_eq!(rows(at), expected, "{what}");
        let warning = "skipped Parquet files whose names do not end with .parquet: items/day=1/000002_0, items/part-1.pq; \
                       rename them, or give a glob that matches them\n";
        assert!(said.contains(warning) && !said.contains("notes.txt"), "{what}: {said}");
    }
    let output = index(at, "items/*/0*");
    assert!(output.status.success() && !stderr(&output).contains("do not end with"), "{}", stderr(&output));
    assert_eq!(rows(at), 4);
}

#[test]
fn a_folder_or_a_glob_without_parquet_files_lists_its_files() {
    let folder = folder();
    let at = folder.path();
    std::fs::create_dir_all(at.join("empty/within")).expect("folders");
    put(at, "written/_temporary/a.parquet", 2);
    for name in ["a.csv", "b.csv", "c.pq", "d", "e", "f", "g"] {
        std::fs::create_dir_all(at.join("tables")).expect("a folder");
        std::fs::write(at.join("tables").join(name), "x").expect("written");
    }
    put(at, "tables/deep/down.parquet", 2);
    for (what, message) in [
        ("empty", "empty: contains no .parquet files"),
        ("written", "written: contains no .parquet files (there are: written/_temporary)"),
        (
            "tables/*.parquet",
            "matches no file (there are: tables/a.csv, tables/b.csv, tables/c.pq, tables/d, tables/deep and 3 more)",
        ),
        ("nowhere/*.parquet", "nowhere/*.parquet: matches no file"),
        ("nowhere", "nowhere: no such file or folder"),
        ("tables/a.csv/*.parquet", "tables/a.csv/*.parquet: Not a directory"),
    ] {
        let output = index(at, what);
        assert_eq!(output.status.code(), Some(1), "{what}");
        let said = stderr(&output);
        assert!(said.lines().count() == 1 && said.contains(message), "{what}: {said}");
    }
}

#[test]
fn dangling_circular_and_duplicate_links_are_rejected_by_name() {
    let folder = folder();
    let at = folder.path();
    put(at, "items/a/1.parquet", 3);
    put(at, "elsewhere/2.parquet", 4);
    let link = |to: &str, name: &str| symlink(to, at.join(name)).expect("a link");
    // A link to other items is followed.
    link("../elsewhere", "items/more");
    assert!(index(at, "items").status.success() && rows(at) == 7);
    assert!(index(at, "items/**/*.parquet").status.success() && rows(at) == 7);
    for (to, name, message) in [
        ("nowhere.parquet", "items/3.parquet", "items/3.parquet: a link to a missing file; remove the link"),
        ("..", "items/a/up", "items/a/up: is a link to a folder that contains it"),
        ("../../items", "items/a/up", "items/a/up: is a link to a folder that contains it"),
        ("self.parquet", "items/self.parquet", "items/self.parquet: "),
        (
            "a/1.parquet",
            "items/latest.parquet",
            "items/latest.parquet: is the same file as items/a/1.parquet, so its items",
        ),
        ("a", "items/b", "items/b/1.parquet: is the same file as items/a/1.parquet"),
    ] {
        link(to, name);
        for what in ["items", "items/**/*.parquet"] {
            let output = index(at, what);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{to}, {what}: {said}");
            assert!(said.lines().count() == 1 && said.contains(message), "{to}, {what}: {said}");
        }
        std::fs::remove_file(at.join(name)).expect("removed");
    }
    link("nowhere.parquet", "alone.parquet");
    let said = stderr(&index(at, "alone.parquet"));
    assert_eq!(said, "uphill: alone.parquet: a link to a missing file\n");
    // An empty file is no Parquet.
    std::fs::write(at.join("items/4.parquet"), "").expect("written");
    let said = stderr(&index(at, "items"));
    assert!(said.starts_with("uphill: items/4.parquet: cannot read it as Parquet: "), "{said}");
}

#[test]
fn an_unreadable_subfolder_is_an_error_that_names_it() {
    let folder = folder();
    let at = folder.path();
    put(at, "items/a/1.parquet", 3);
    put(at, "items/b/2.parquet", 4);
    let allow = |name: &str, mode: u32| {
        std::fs::set_permissions(at.join(name), PermissionsExt::from_mode(mode)).expect("permissions");
    };
    allow("", 0o777);
    for (mode, what) in [
        (0o000, "items"),
        (0o000, "items/*/*.parquet"),
        (0o000, "items/**"),
        (0o444, "items"),
        (0o444, "items/b/*.parquet"),
    ] {
        allow("items/b", mode);
        let mut command = Command::new(env!("CARGO_BIN_EXE_uphill"));
        command.args(["index", what, "out.lance"]).current_dir(at).env("HOME", "/tmp");
        if rustix::process::getuid().is_root() {
            // Who may read everything is no test.
            command.uid(65534).gid(65534);
        }
        let output = command.output();
        allow("items/b", 0o755);
        let Ok(output) = output else { return println!("the binary is not for others: not tested") };
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{mode:o}, {what}: {said}");
        assert!(said.contains("items/b") && said.contains("Permission denied"), "{mode:o}, {what}: {said}");
    }
}

#[test]
fn true_scores_are_found_by_the_same_rules() {
    let folder = folder();
    let at = folder.path();
    put(at, "items/a.parquet", 40);
    put(at, "items/_tmp/b.parquet", 5);
    assert!(index(at, "items").status.success());
    let run = "[database]\npath = 'out.lance'\n[score]\nsql = 'weight'\n[stop]\nevaluations = 20\n";
    std::fs::write(at.join("run.toml"), run).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], at);
    let evaluate =
        |truth: &str| uphill(&["evaluate", "run", "--truth", truth, "--score-column", "weight", "--top", "10"], at);
    for truth in ["items", "items/*.parquet", "items/**"] {
        let output = evaluate(truth);
        assert!(output.status.success(), "{truth}: {}", stderr(&output));
    }
    symlink("nowhere", at.join("items/z.parquet")).expect("a link");
    let said = stderr(&evaluate("items"));
    assert!(said.contains("items/z.parquet: a link to a missing file"), "{said}");
}
