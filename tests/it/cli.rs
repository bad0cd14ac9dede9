//! Run files and arguments that cannot be: the whole message and the exit code.

use std::path::Path;

use polars::prelude::{Column, DataFrame};

use crate::common::*;

const RUN: &str = "[database]\npath = \"items.lance\"\n[score]\nsql = \"weight\"\n";

fn library() -> TempDir {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&normal(60, 4, &mut rng(1))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    folder
}

#[test]
fn invalid_run_files_give_one_line_that_names_the_key() {
    let folder = library();
    write(&folder.path().join("wrong.parquet"), &items(&normal(3, 5, &mut rng(2))));
    let cases = [
        (
            "[database]\npath = \"items.lance\"\nnprobe = 3\n[score]\nsql = \"weight\"\n",
            2,
            "run.toml: line 3: unknown key `nprobe`; did you mean `nprobes`?",
        ),
        (
            "[database]\npath = \"items.lance\"\n[scores]\nsql = \"weight\"\n",
            2,
            "run.toml: line 3: unknown key `scores`; did you mean `score`?",
        ),
        ("[database]\npath = \"items.lance\"\n", 2, "run.toml: missing section [score]"),
        ("[score]\nsql = \"weight\"\n", 2, "run.toml: missing section [database]"),
        (
            "[database]\npath = 3\n[score]\nsql = \"weight\"\n",
            2,
            "run.toml: line 2: `path`: expected a string, found integer `3`",
        ),
        (
            &format!("{RUN}[update]\nrule = \"topk\"\n"),
            2,
            "run.toml: line 6: `rule`: unknown value `topk`; did you mean `top-k`?",
        ),
        (
            &format!("{RUN}[update]\nrule = \"rl\"\nlearning_rate = 3\n"),
            2,
            "run.toml: line 5: unknown key `learning_rate`; did you mean `lr`?",
        ),
        (
            &format!("{RUN}[queries]\nsample = 3\npath = \"q.parquet\"\n"),
            2,
            "queries: set `sample` or `path`, not both",
        ),
        (
            &format!("{RUN}[queries]\npath = \"absent.parquet\"\n"),
            1,
            "./absent.parquet: No such file or directory (os error 2)",
        ),
        (
            &RUN.replace("items.lance\"", "items.lance\"\ncolumns = [\"wieght\"]"),
            2,
            "database.columns: no column `wieght` in ./items.lance; did you mean `weight`?",
        ),
        (
            &RUN.replace("items.lance\"", "items.lance\"\ncolumns = [\"smiles\"]"),
            2,
            "database.columns: no column `smiles` in ./items.lance (there are: name, embedding, weight)",
        ),
        (
            &RUN.replace("items.lance\"", "items.lance\"\ncolumns = [\"name\", \"name\"]"),
            2,
            "database.columns: `name` is named twice",
        ),
        (
            &RUN.replace("items.lance\"", "items.lance\"\nid_column = \"nam\""),
            2,
            "database.id_column: no column `nam` in ./items.lance; did you mean `name`?",
        ),
        (
            &RUN.replace("\"weight\"", "\"2 * wieght\""),
            2,
            "score.sql: cannot evaluate `2 * wieght`: no column `wieght`; did you mean `weight`?",
        ),
        (
            &format!("{RUN}[filter]\nsql = \"mw < 500\"\n"),
            2,
            "filter.sql: cannot evaluate `mw < 500`: no column `mw` (there are: query_idx, db_idx, distance, embedding, name, \
             weight)",
        ),
        (&format!("{RUN}[update]\nbatches = 3\n"), 2, "run.toml: update: unknown key `batches`; did you mean `batch`?"),
        (&RUN.replace("items.lance\"", "items.lance\"\nk = 0"), 2, "database.k: expected at least 1, found 0"),
        (
            &format!("{RUN}[stop]\nevaluations = \"20\"\n"),
            2,
            "run.toml: line 6: `evaluations`: expected a whole number, found string \"20\"",
        ),
        (&format!("{RUN}[stop]\nscore = nan\n"), 2, "run.toml: stop.score: expected a number, found nan"),
        (
            &format!("{RUN}[update]\nrule = \"rl\"\nlr = [0.5, nan]\n"),
            2,
            "run.toml: update.lr: expected a number, found nan",
        ),
        (&format!("{RUN}[stop]\nfailed_share = 2.0\n"), 2, "stop.failed_share: expected a share from 0 to 1, found 2"),
        (
            &RUN.replace("items.lance", "wrong.parquet"),
            1,
            "./wrong.parquet: is a file, not a Lance dataset; build one from Parquet with `uphill index`",
        ),
        ("nonsense", 2, "run.toml: line 1: key with no value, expected `=`"),
    ];
    for (text, code, message) in cases {
        std::fs::write(folder.path().join("run.toml"), text).expect("written");
        let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
        assert_eq!(stderr(&output), format!("uphill: {message}\n"), "{text}");
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(!folder.path().join("run").exists(), "{text}");
    }
    std::fs::write(folder.path().join("run.toml"), format!("{RUN}[queries]\npath = \"wrong.parquet\"\n"))
        .expect("written");
    let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
    let start = "uphill: ./wrong.parquet: column `embedding`: expected vectors of 4 components, found array[f32, 5]";
    assert!(stderr(&output).starts_with(start), "{}", stderr(&output));
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    let output = uphill(&["search", "run.toml", "--out", "run", "--set", "stop.evaluations=many"], folder.path());
    let message = "run.toml: stop.evaluations: expected a whole number, found string \"many\"";
    assert_eq!((stderr(&output), output.status.code()), (format!("uphill: {message}\n"), Some(2)));
    let output = uphill(&["search", "absent.toml", "--out", "run"], folder.path());
    assert_eq!(stderr(&output), "uphill: absent.toml: No such file or directory (os error 2)\n");
}

#[test]
fn an_update_section_without_a_rule_configures_the_default_rule() {
    let folder = library();
    std::fs::write(folder.path().join("run.toml"), format!("{RUN}[update]\nbatch = 3\n[stop]\niterations = 2\n"))
        .expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let update = |run: &str| {
        let manifest = std::fs::read_to_string(folder.path().join(run).join("run.json")).expect("run.json");
        serde_json::from_str::<serde_json::Value>(&manifest).expect("JSON")["config"]["update"].clone()
    };
    let expected = serde_json::json!({"rule": "surrogate", "batch": 3, "points": 1000});
    assert_eq!(update("run"), expected);
    // The same by an override alone.
    std::fs::write(folder.path().join("run.toml"), format!("{RUN}[stop]\niterations = 2\n")).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "other", "--set", "update.batch=3"], folder.path());
    assert_eq!(update("other"), expected);
}

#[test]
fn overrides_change_single_keys_and_are_checked_like_the_file() {
    let folder = library();
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    let set = [
        "--set",
        "update.rule=top-k",
        "--set",
        "update.k=2",
        "--set",
        "stop.iterations=1",
        "--set",
        "queries.sample=3",
    ];
    uphill_ok(&[&["search", "run.toml", "--out", "run"][..], &set].concat(), folder.path());
    let manifest = std::fs::read_to_string(folder.path().join("run/run.json")).expect("run.json");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest["config"]["update"], serde_json::json!({"rule": "top-k", "k": 2, "score_weighting": true}));
    assert_eq!(manifest["config"]["stop"]["iterations"], 1);

    let output = uphill(&["search", "run.toml", "--out", "other", "--set", "stop.iteration=1"], folder.path());
    assert_eq!(stderr(&output), "uphill: run.toml: stop: unknown key `iteration`; did you mean `iterations`?\n");
    let output = uphill(&["search", "run.toml", "--out", "other", "--set", "stop"], folder.path());
    assert_eq!(stderr(&output), "uphill: run.toml: --set stop: expected section.key=value\n");
}

#[test]
fn folders_that_are_not_run_folders_are_rejected() {
    let folder = library();
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    std::fs::create_dir(folder.path().join("mine")).expect("a folder");
    std::fs::write(folder.path().join("mine/thesis.txt"), "precious").expect("written");
    let output = uphill(&["search", "run.toml", "--out", "mine"], folder.path());
    assert_eq!(stderr(&output), "uphill: mine: is neither empty nor a run folder; choose another folder\n");
    std::os::unix::fs::symlink("nowhere", folder.path().join("link")).expect("a link");
    for file in ["run.toml", "link"] {
        let output = uphill(&["search", "run.toml", "--out", file], folder.path());
        assert_eq!(stderr(&output), format!("uphill: {file}: is not a folder; choose another name\n"));
    }
    assert_eq!(output.status.code(), Some(1));
    for command in ["results", "queries", "trajectories"] {
        let output = uphill(&[command, "mine"], folder.path());
        assert_eq!(stderr(&output), "uphill: mine: is not a run folder (it has no run.json)\n");
        assert_eq!(output.status.code(), Some(1));
    }
    let output = uphill(&["inspect", "mine"], folder.path());
    assert!(stderr(&output).starts_with("uphill: mine: cannot open it as a Lance dataset: "), "{}", stderr(&output));
    assert_eq!(stderr(&output).lines().count(), 1);
}

#[test]
fn a_run_of_a_later_format_is_reported_as_such() {
    let folder = library();
    std::fs::create_dir(folder.path().join("run")).expect("a folder");
    std::fs::write(folder.path().join("run/run.json"), "{\"format_version\": 99}").expect("written");
    let output = uphill(&["results", "run"], folder.path());
    assert_eq!(stderr(&output), "uphill: run: has format version 99; this program reads up to 3: use a later uphill\n");
}

#[test]
fn inspect_shows_the_properties_of_a_dataset() {
    let folder = library();
    let shown = uphill_ok(&["inspect", "items.lance"], folder.path());
    for line in [
        "rows              60",
        "dim               4",
        "metric            l2",
        "index             none (exact search)",
        "columns           name, weight",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
}

#[test]
fn a_closed_pipe_is_not_a_failure() {
    let folder = library();
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run", "--set", "stop.iterations=2"], folder.path());
    long(&folder.path().join("run"), 300_000);
    let binary = env!("CARGO_BIN_EXE_uphill");
    for command in ["trajectories run --format json", "results run --format csv", "results run --format parquet"] {
        let output = std::process::Command::new("bash")
            .args(["-c", &format!("{binary} {command} | head -c 10 > head; exit ${{PIPESTATUS[0]}}")])
            .current_dir(folder.path())
            .output()
            .expect("a shell");
        assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)), "{command}");
    }
}

/// Makes the first iteration of a run one of so many items, item n of score -n.
fn long(run: &Path, rows: u32) {
    let file = run.join("results/iteration=000000/part-0000.parquet");
    let before = read(&file);
    let columns = before.columns().iter().map(|column| match column.name().as_str() {
        "query_idx" => Column::new("query_idx".into(), vec![0u32; rows as usize]),
        "db_idx" => Column::new("db_idx".into(), (0..u64::from(rows)).rev().collect::<Vec<_>>()),
        "score" => Column::new("score".into(), (0..rows).rev().map(|row| -f64::from(row)).collect::<Vec<_>>()),
        name => Column::full_null(name.into(), rows as usize, column.dtype()),
    });
    write(&file, &DataFrame::new(rows as usize, columns.collect()).expect("a frame"));
}

#[test]
fn many_results_are_written_completely_and_in_order_in_every_format_and_keep_the_permissions_of_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = library();
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run", "--set", "stop.iterations=1"], folder.path());
    let run = folder.path().join("run");
    long(&run, 300_000);
    let permissions = |name: &str| {
        let found = std::fs::metadata(folder.path().join(name)).expect("a file").permissions();
        found.mode() & 0o777
    };
    for name in ["all.csv", "all.parquet"] {
        uphill(&["results", "run", "-o", name], folder.path());
        std::fs::set_permissions(folder.path().join(name), std::fs::Permissions::from_mode(0o600)).expect("set");
        uphill(&["results", "run", "-o", name], folder.path());
        assert_eq!(permissions(name), 0o600);
    }
    let expected: Vec<u64> = (0..300_000).collect();
    assert_eq!(u64s(&read(&folder.path().join("all.parquet")), "db_idx"), expected);
    let csv = std::fs::read_to_string(folder.path().join("all.csv")).expect("a file");
    let ids: Vec<u64> =
        csv.lines().skip(1).map(|row| row.split(',').next().expect("db_idx").parse().expect("a number")).collect();
    assert_eq!(ids, expected);
}

#[test]
fn wrong_arguments_exit_with_code_2() {
    let folder = folder();
    assert_eq!(uphill(&["search"], folder.path()).status.code(), Some(2));
    assert_eq!(uphill(&["serach"], folder.path()).status.code(), Some(2));
    assert_eq!(uphill(&["--version"], folder.path()).status.code(), Some(0));
}
