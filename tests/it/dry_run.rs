//! Tests of `uphill search --dry-run`: its plan, that it neither writes nor scores, and that its bound holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::*;

const RUN: &str = "seed = 3\n[database]\npath = \"items.lance\"\nk = 5\n";

fn library(rows: usize) -> TempDir {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(rows, 4, 8, &mut rng(1))));
    uphill_ok(&["index", "items.parquet", "items.lance", "--index", "ivf-flat"], folder.path());
    folder
}

/// What a dry run of a run file with these sections says.
fn plan(sections: &str, folder: &Path) -> serde_json::Value {
    std::fs::write(folder.join("run.toml"), format!("{RUN}{sections}")).expect("written");
    let said = uphill_ok(&["search", "run.toml", "--out", "run", "--dry-run", "--format", "json"], folder);
    serde_json::from_str(&said).expect("JSON")
}

/// All files of a folder, with what is in them.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        match entry.file_type().expect("a type").is_dir() {
            true => {
                found.insert(entry.path(), Vec::new());
                found.extend(files(&entry.path()));
            }
            false => drop(found.insert(entry.path(), std::fs::read(entry.path()).expect("a file"))),
        }
    }
    found
}

#[test]
fn a_dry_run_writes_nothing_and_calls_no_scorer() {
    let folder = library(400);
    // What the rule reads is made at the first search, and kept: not by a dry run.
    std::fs::remove_dir_all(folder.path().join("items.lance/_uphill")).expect("removed");
    let scorer = "open('asked', 'w')\n";
    std::fs::write(folder.path().join("score.py"), scorer).expect("written");
    for score in [
        "command = [\"python3\", \"score.py\"]",
        "command = [\"python3\", \"score.py\"]\nmode = \"batch\"",
        "url = \"http://127.0.0.1:9/score\"",
        "by_hand = true",
        "sql = \"weight\"",
    ] {
        std::fs::write(folder.path().join("run.toml"), format!("{RUN}[score]\n{score}\n")).expect("written");
        let before = files(folder.path());
        let output = uphill(&["search", "run.toml", "--out", "run", "--dry-run"], folder.path());
        assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)), "{score}");
        assert!(before == files(folder.path()), "{score}: something was written");
    }
}

#[test]
fn a_dry_run_shows_the_columns_and_the_inputs_of_filter_and_scorer() {
    let folder = library(400);
    let said = plan(
        "[filter]\nsql = \"weight < 0.5\"\n[score]\nsql = \"weight * 2\"\n[stop]\nevaluations = 60\n",
        folder.path(),
    );
    for (key, value) in [
        ("rows", serde_json::json!(400)),
        ("dim", 4.into()),
        ("metric", "l2".into()),
        ("columns", serde_json::json!(["name", "weight"])),
        ("filter columns", serde_json::json!(["weight"])),
        ("score", "sql weight * 2".into()),
        ("score columns", serde_json::json!(["weight"])),
        ("rule", "surrogate; may read embedding, name".into()),
        ("starting queries", 16.into()),
        ("max evaluations", 60.into()),
    ] {
        assert_eq!(said[key], value, "{key}: {said}");
    }
    let filter = ["query_idx u32", "db_idx u64", "distance f32", "embedding array[f32, 4]", "name str", "weight f64"];
    assert_eq!(said["filter input"], serde_json::json!(filter));
    let score = ["db_idx u64", "embedding array[f32, 4]", "name str", "weight f64"];
    assert_eq!(said["scorer input"], serde_json::json!(score));
    assert!(said["index"].as_str().is_some_and(|index| index.starts_with("IVF_FLAT, ")), "{said}");
    assert!(
        said["expected recall"].as_str().is_some_and(|recall| recall.starts_with("0.99 (measured recall@10: ")),
        "{said}"
    );
    let first = said["first search"].as_str().expect("text");
    assert!(first.starts_with("16 queries find ") && first.ends_with(" pass the filter"), "{first}");
    // A scorer outside is not sent the embedding.
    let said = plan("[score]\nurl = \"http://127.0.0.1:9/\"\n", folder.path());
    assert_eq!(said["scorer input"], serde_json::json!(["db_idx u64", "name str", "weight f64"]));
    assert!(said["score columns"].is_null());
}

#[test]
fn an_error_at_the_start_of_a_search_is_an_error_of_a_dry_run() {
    let folder = library(60);
    for (sections, message) in [
        (
            "[score]\nsql = \"wieght\"",
            "score.sql: cannot evaluate `wieght`: no column `wieght`; did you mean `weight`?",
        ),
        (
            "[score]\nsql = \"weight\"\n[filter]\nsql = \"name\"",
            "filter.sql: expected a boolean from `name`, found str",
        ),
        ("[score]\ncommand = [\"no-such-program\"]", "score.command: program `no-such-program` not found"),
        (
            "[score]\nsql = \"weight\"\n[update]\nfeatures = [\"nmae\"]",
            "update.features: no column `nmae` in ./items.lance; did you mean `name`?",
        ),
        ("[score]\nsql = \"weight\"\n[update]\nbatch = 0", "update.batch: expected at least 1, found 0"),
    ] {
        let run = RUN.replace("k = 5\n", "");
        std::fs::write(folder.path().join("run.toml"), format!("{run}{sections}\n")).expect("written");
        for dry in [&["--dry-run"][..], &[]] {
            let arguments = [&["search", "run.toml", "--out", "run"][..], dry].concat();
            let output = uphill(&arguments, folder.path());
            assert_eq!(stderr(&output), format!("uphill: {message}\n"), "{sections}");
            assert_eq!(output.status.code(), Some(2), "{sections}");
            assert!(!folder.path().join("run").exists());
        }
    }
}

#[test]
fn a_dry_run_of_a_resumed_run_names_its_iterations() {
    let folder = library(400);
    let sections = "[score]\nsql = \"weight\"\n[stop]\niterations = 2\n";
    std::fs::write(folder.path().join("run.toml"), format!("{RUN}{sections}")).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let before = files(folder.path());
    let arguments = ["search", "run.toml", "--out", "run", "--resume", "--dry-run"];
    assert!(uphill_ok(&arguments, folder.path()).contains("resumes after     2 iterations\n"));
    // A new one would be refused.
    let output = uphill(&["search", "run.toml", "--out", "run", "--dry-run"], folder.path());
    assert_eq!(stderr(&output), "uphill: run is not empty; a search into it would fail\n");
    let output = uphill(&[&arguments[..], &["--set", "seed=4"]].concat(), folder.path());
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(before == files(folder.path()), "something was written");
}

#[test]
fn no_search_exceeds_the_bound_of_its_dry_run() {
    let folder = library(400);
    let rules = [
        "[update]\nrule = \"rl\"\nlr = 2.0\n",
        "[update]\nrule = \"rl\"\nlr = [0.5, 2.0, 8.0]\n",
        "[update]\nrule = \"rl\"\nlr = [1.0, 4.0]\n[prune]\nk = 2\n",
        "[update]\nrule = \"rl\"\nlr = 4.0\n[restart]\nafter = 1\n",
        "[update]\nrule = \"rl\"\n[gradient]\nscales = [0.0, 1.0, 4.0]\n",
        "[update]\nrule = \"top-k\"\nk = 2\n",
        "[update]\nrule = \"top-k-discrete\"\nk = 2\n",
        "[update]\nbatch = 7\n",
        "",
    ];
    let stops =
        ["iterations = 1", "iterations = 3", "evaluations = 37\niterations = 4", "iterations = 2\nevaluations = 90"];
    let places = ["[queries]\nsample = 3\n", "[queries]\nsample = 80\n"];
    let scores = ["sql = \"weight\"", "sql = \"CASE WHEN weight < 0.5 THEN weight END\""];
    let (mut run, mut tight) = (0, 0);
    for (at, rule) in rules.iter().enumerate() {
        for (stop, place) in stops.iter().flat_map(|stop| places.iter().map(move |place| (stop, place))) {
            let score = scores[(at + run) % 2];
            let sections = format!("{place}[score]\n{score}\n{rule}[stop]\n{stop}\nfailed_share = 1.0\n");
            let most = plan(&sections, folder.path())["max evaluations"].as_u64().expect("a number");
            run += 1;
            let out = format!("run-{run}");
            uphill_ok(&["search", "run.toml", "--out", &out, "-q"], folder.path());
            let manifest = std::fs::read_to_string(folder.path().join(&out).join("run.json")).expect("run.json");
            let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
            let scored = manifest["ended"]["evaluations"].as_u64().expect("a number");
            assert!(scored <= most, "{scored} of {most}: {sections}");
            tight += usize::from(scored == most);
        }
    }
    assert!(tight * 3 > run, "a bound that says something: reached by {tight} of {run}");
    // What a prefilter leaves is all there is.
    let sections = "prefilter = \"weight < 0.1\"\n[score]\nsql = \"weight\"\n";
    let said = plan(sections, folder.path());
    assert_eq!((said["matching rows"].as_u64(), said["max evaluations"].as_u64()), (Some(40), Some(40)), "{said}");
}
