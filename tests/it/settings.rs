//! Each setting does what it says, or is named as one that does nothing.

use std::path::Path;

use crate::common::*;

fn library(folder: &TempDir) {
    write(&folder.path().join("items.parquet"), &items(&normal(600, 8, &mut rng(71))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
}

/// Searches by a run file with these lines under `[database]` and `[update]`, and gives what was said.
fn search(folder: &Path, run: &str, database: &str, update: &str) -> String {
    let text = format!(
        "seed = 1\n[database]\npath = \"items.lance\"\n{database}\n[score]\nsql = \"weight\"\n[update]\n{update}\n[stop]\n\
         evaluations = 60\niterations = 8\n"
    );
    std::fs::write(folder.join("run.toml"), text).expect("written");
    let output = uphill(&["search", "run.toml", "--out", run, "-o", "best.csv"], folder);
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn no_rule_scores_an_item_beyond_the_largest_distance() {
    let folder = folder();
    library(&folder);
    for rule in ["surrogate", "rl", "top-k", "top-k-discrete"] {
        let more = if rule == "surrogate" { "\nfeatures = []" } else { "" };
        search(folder.path(), rule, "max_distance = 3.0", &format!("rule = \"{rule}\"{more}"));
        let parts = std::fs::read_dir(folder.path().join(rule).join("results")).expect("results");
        let mut rows = 0;
        for part in parts {
            let results = read(&part.expect("a part").path().join("part-0000.parquet"));
            rows += results.height();
            let distances = f32s(&results, "distance");
            assert!(distances.iter().all(|distance| *distance <= 3.0), "{rule}: {distances:?}");
        }
        assert!(rows > 9, "{rule}: {rows} rows");
    }
}

#[test]
fn a_largest_distance_that_no_item_is_within_is_reported_and_a_negative_one_is_refused() {
    let folder = folder();
    library(&folder);
    let far = format!("embedding\n\"[{}]\"\n", ["100"; 8].join(","));
    std::fs::write(folder.path().join("far.csv"), far).expect("written");
    let rule = "rule = \"top-k\"\n[queries]\npath = \"far.csv\"";
    let said = search(folder.path(), "far", "max_distance = 0.5", rule);
    assert!(said.contains("database.max_distance: no item is within 0.5 of a query; no item was scored"), "{said}");
    let said = search(folder.path(), "near", "max_distance = 1e9", rule);
    assert!(!said.contains("max_distance"), "{said}");

    for arguments in [&["search", "run.toml", "--out", "n"][..], &["search", "run.toml", "--out", "n", "--dry-run"]] {
        let output = uphill(&[arguments, &["--set", "database.max_distance=-1"]].concat(), folder.path());
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        let expected =
            "database.max_distance: expected a distance of at least 0 (the dataset's metric is l2), found -1";
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_setting_without_effect_is_reported() {
    let folder = folder();
    library(&folder);
    for (run, database, update, named) in [
        ("a", "k = 7", "features = []", "database.k = 7 is not used: the rule `surrogate`"),
        (
            "b",
            "nprobes = 3\nrecall = 0.9",
            "rule = \"rl\"",
            "database.recall = 0.9 is not used, because database.nprobes = 3 is set",
        ),
        ("c", "nprobes = 3\nexact = true", "rule = \"rl\"", "database.nprobes is not used, because database.exact"),
    ] {
        let said = search(folder.path(), run, database, update);
        assert_eq!(said.matches(named).count(), 1, "{said}");
    }
    let said = search(folder.path(), "d", "k = 7\nrecall = 0.9", "rule = \"rl\"");
    assert!(!said.contains("not used"), "{said}");
}

#[test]
fn an_unsupported_object_store_address_is_rejected_with_the_feature() {
    let folder = folder();
    library(&folder);
    let stores = [
        ("s3", "aws", cfg!(feature = "aws")),
        ("gs", "gcp", cfg!(feature = "gcp")),
        ("az", "azure", cfg!(feature = "azure")),
    ];
    for (scheme, feature, _) in stores.iter().filter(|(_, _, is_built)| !is_built) {
        let (there, items) = (format!("{scheme}://bucket/items.lance"), format!("{scheme}://bucket/items.parquet"));
        for arguments in
            [vec!["inspect", &*there], vec!["index", "items.parquet", &*there], vec!["index", &*items, "new.lance"]]
        {
            let output = uphill(&arguments, folder.path());
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
            assert!(said.contains(&format!("--features {feature}")) && said.lines().count() == 1, "{said}");
        }
    }
}
