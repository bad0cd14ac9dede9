//! Scores that were paid for before.

use polars::prelude::*;

use crate::common::*;

/// A library, the same items in another order as another library, and a scorer that notes what it is asked.
fn libraries() -> TempDir {
    let folder = folder();
    let frame = items(&clustered(300, 4, 6, &mut rng(1)));
    write(&folder.path().join("items.parquet"), &frame);
    write(&folder.path().join("turned.parquet"), &frame.slice(150, 150).vstack(&frame.slice(0, 150)).expect("stacked"));
    for name in ["items", "turned"] {
        uphill_ok(&["index", &format!("{name}.parquet"), &format!("{name}.lance")], folder.path());
    }
    let script = "import json, sys\nasked = open('asked.txt', 'a')\nfor line in sys.stdin:\n    if line.strip():\n        item = json.loads(line)\n        print(item['name'], file=asked, flush=True)\n        print(json.dumps({'db_idx': item['db_idx'], 'score': item['weight'] * 2}))\n    else:\n        print(flush=True)\n";
    std::fs::write(folder.path().join("score.py"), script).expect("written");
    folder
}

fn run_file(folder: &TempDir, library: &str, score: &str) {
    let text = format!(
        "seed = 5\n[database]\npath = \"{library}.lance\"\nk = 8\n[queries]\nsample = 5\n[stop]\niterations = 3\n[update]\nrule = \"top-k\"\n[score]\ncommand = [\"python3\", \"score.py\"]\n{score}"
    );
    std::fs::write(folder.path().join("run.toml"), text).expect("written");
}

/// How often the scorer was asked since the last call.
fn asked(folder: &TempDir) -> usize {
    let path = folder.path().join("asked.txt");
    let lines = std::fs::read_to_string(&path).unwrap_or_default().lines().count();
    let _ = std::fs::remove_file(path);
    lines
}

fn results(folder: &TempDir, run: &str) -> DataFrame {
    uphill_ok(&["results", run, "-o", "results.parquet"], folder.path());
    read(&folder.path().join("results.parquet"))
}

#[test]
fn a_run_that_reuses_its_own_scores_requests_nothing_and_finds_the_same() {
    let folder = libraries();
    run_file(&folder, "items", "");
    uphill_ok(&["search", "run.toml", "--out", "first"], folder.path());
    let first = results(&folder, "first");
    assert_eq!(asked(&folder), first.height());

    // A budget of one, and it is not touched.
    run_file(&folder, "items", "workers = 2\nreuse = [\"first\"]\n");
    uphill_ok(&["search", "run.toml", "--out", "second", "--set", "stop.evaluations=1"], folder.path());
    let second = results(&folder, "second");
    assert_eq!(asked(&folder), 0);
    assert_eq!(second.column("evaluation").expect("evaluation").null_count(), second.height());
    assert!(first.drop("evaluation").expect("dropped").equals_missing(&second.drop("evaluation").expect("dropped")));
    let inspected: serde_json::Value =
        serde_json::from_str(&uphill_ok(&["inspect", "second", "--json"], folder.path())).expect("JSON");
    assert_eq!(
        (inspected["items reused"].as_u64(), inspected["items scored"].as_u64()),
        (Some(first.height() as u64), Some(0))
    );
    let shown = stderr(&uphill(&["results", "second"], folder.path()));
    assert!(shown.contains(&format!("0 items scored, {} reused", first.height())), "{shown}");

    // Killed or stopped, such a run goes on as it was.
    uphill_ok(&["search", "run.toml", "--out", "parts", "--set", "stop.iterations=1"], folder.path());
    uphill_ok(&["search", "run.toml", "--out", "parts", "--resume"], folder.path());
    assert!(results(&folder, "parts").equals_missing(&second));
    assert_eq!(asked(&folder), 0);
}

#[test]
fn another_library_is_matched_by_a_key_column_never_by_position() {
    let folder = libraries();
    run_file(&folder, "items", "");
    uphill_ok(&["search", "run.toml", "--out", "first"], folder.path());
    let first = results(&folder, "first");
    asked(&folder);

    run_file(&folder, "turned", "reuse = [\"first\"]\n");
    let output = uphill(&["search", "run.toml", "--out", "second"], folder.path());
    assert!(
        stderr(&output).contains("first: scored the library ") && stderr(&output).contains("score.reuse_key"),
        "{}",
        stderr(&output)
    );
    assert_eq!(output.status.code(), Some(1));

    run_file(&folder, "turned", "reuse = [\"first\"]\nreuse_key = \"name\"\n");
    uphill_ok(&["search", "run.toml", "--out", "second"], folder.path());
    let second = results(&folder, "second");
    for (weight, score) in f64s(&second, "weight").into_iter().zip(f64s(&second, "score")) {
        assert_eq!(score, 2.0 * weight, "a score went to the wrong item");
    }
    let names = |frame: &DataFrame| -> Vec<String> {
        frame
            .column("name")
            .expect("name")
            .str()
            .expect("text")
            .iter()
            .map(|name| name.unwrap_or_default().to_string())
            .collect()
    };
    let known = names(&first);
    let new = names(&second).iter().filter(|name| !known.contains(name)).count();
    assert_eq!(asked(&folder), new);
    assert_eq!(second.height() - second.column("evaluation").expect("evaluation").null_count(), new);
}

#[test]
fn scores_of_another_version_are_reused_only_with_trust_scores() {
    let folder = libraries();
    run_file(&folder, "items", "version = \"dock-1\"\n");
    uphill_ok(&["search", "run.toml", "--out", "first"], folder.path());
    asked(&folder);
    run_file(&folder, "items", "version = \"dock-2\"\nreuse = [\"first\"]\n");
    let output = uphill(&["search", "run.toml", "--out", "second"], folder.path());
    let message = "its scores have version dock-1, not dock-2; set score.trust_scores = true to reuse them anyway";
    assert_eq!(stderr(&output), format!("uphill: ./first: {message}\n"));
    assert!(!folder.path().join("second").exists());
    uphill_ok(&["search", "run.toml", "--out", "second", "--trust-scores"], folder.path());
    assert_eq!(asked(&folder), 0);

    // A file has no library; it has a key and, if it says so, a version.
    let mut file = df!("name" => ["item 0", "item 1"], "score" => [7.0, 8.0]).expect("a frame");
    write(&folder.path().join("scores.parquet"), &file);
    run_file(&folder, "items", "version = \"dock-2\"\nreuse = [\"scores.parquet\"]\n");
    let output = uphill(&["search", "run.toml", "--out", "third"], folder.path());
    assert!(stderr(&output).contains("does not name the library of its items"), "{}", stderr(&output));
    run_file(&folder, "items", "version = \"dock-2\"\nreuse = [\"scores.parquet\"]\nreuse_key = \"name\"\n");
    let output = uphill(&["search", "run.toml", "--out", "third"], folder.path());
    assert!(stderr(&output).contains("its scores have version unknown, not dock-2"), "{}", stderr(&output));
    file.with_column(Column::new("score_version".into(), ["dock-2", "dock-2"])).expect("a column");
    write(&folder.path().join("scores.parquet"), &file);
    uphill_ok(&["search", "run.toml", "--out", "third"], folder.path());
}

/// Another value or name anywhere makes `db_idx` mean something else, whoever made the change.
#[test]
fn scores_are_not_reused_by_position_when_an_attribute_changed() {
    let folder = libraries();
    run_file(&folder, "items", "");
    uphill_ok(&["search", "run.toml", "--out", "first"], folder.path());
    asked(&folder);
    let frame = read(&folder.path().join("items.parquet"));
    let index = |items: &str, more: &[&str]| {
        let arguments = ["index", items, "items.lance", "--overwrite"];
        uphill_ok(&[&arguments[..], more].concat(), folder.path());
    };
    let again = || uphill(&["search", "run.toml", "--out", "again"], folder.path());
    let is_refused = |what: &str| {
        let output = again();
        assert_eq!(output.status.code(), Some(1), "{what}: {}", stderr(&output));
        let said = stderr(&output);
        assert!(said.contains("first: scored the library ") && said.contains("score.reuse_key"), "{what}: {said}");
        assert_eq!(asked(&folder), 0, "{what}");
    };
    run_file(&folder, "items", "reuse = [\"first\"]\n");

    let mut weights = f64s(&frame, "weight");
    weights[299] = 7.0;
    let mut changed = frame.clone();
    changed.with_column(Column::new("weight".into(), weights)).expect("a column");
    write(&folder.path().join("changed.parquet"), &changed);
    index("changed.parquet", &[]);
    is_refused("one value");
    index("items.parquet", &["--rename", "name=title"]);
    is_refused("a name");

    // The same rows from several files are the same library.
    for (number, rows) in [(0, 100), (100, 3), (103, 197)].into_iter().enumerate() {
        std::fs::create_dir_all(folder.path().join("parts")).expect("a folder");
        write(&folder.path().join(format!("parts/{number}.parquet")), &frame.slice(rows.0, rows.1));
    }
    index("parts", &[]);
    assert!(again().status.success());
    assert_eq!(asked(&folder), 0);

    // Changed where it is, by Lance itself.
    std::fs::remove_dir_all(folder.path().join("again")).expect("removed");
    let uri = folder.path().join("items.lance").to_string_lossy().into_owned();
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let dataset = std::sync::Arc::new(lance::Dataset::open(&uri).await.expect("opened"));
        let update = lance::dataset::UpdateBuilder::new(dataset).update_where("name = 'item 7'").expect("where");
        let update = update.set("weight", "0.5").expect("set").build().expect("an update");
        assert_eq!(update.execute().await.expect("updated").rows_updated, 1);
    });
    is_refused("a value in place");
}

#[test]
fn the_surrogate_observes_reused_scores_first() {
    let folder = libraries();
    let run_file = |library: &str, more: &str| {
        let head = format!("seed = 5\n[database]\npath = \"{library}.lance\"\n[stop]\nevaluations = 60\n");
        let score = format!("[score]\ncommand = [\"python3\", \"score.py\"]\n{more}");
        std::fs::write(folder.path().join("run.toml"), head + &score).expect("written");
    };
    run_file("items", "");
    uphill_ok(&["search", "run.toml", "--out", "first"], folder.path());
    let first = results(&folder, "first");
    assert_eq!((first.height(), asked(&folder)), (60, 60));
    let best = |frame: &DataFrame| f64s(frame, "score").iter().filter(|score| **score >= 1.8).count();

    for (library, more) in [("items", ""), ("turned", "reuse_key = \"name\"\n")] {
        run_file(library, &format!("reuse = [\"first\"]\n{more}"));
        uphill_ok(&["search", "run.toml", "--out", library, "--set", "stop.evaluations=12"], folder.path());
        assert_eq!(asked(&folder), 12);
        let all = results(&folder, library);
        assert_eq!(all.height(), 72, "the sixty and twelve new ones");
        let start = read(&folder.path().join(library).join("results/iteration=000000/part-0000.parquet"));
        assert_eq!((start.height(), start.column("evaluation").expect("evaluation").null_count()), (60, 60));
        // The column `weight` is half of the score, and that is known from the start. 30 items of 300 reach 1.8.
        let (before, now) = (best(&first), best(&all));
        assert!(now >= (before + 8).min(30), "{before} of the best before, {now} after twelve more");
    }
}

#[test]
fn reused_scores_improve_the_default_rule() {
    let folder = folder();
    // Of the 8000 molecules the weight of 157 is within 5 of 300.
    write(&folder.path().join("items.parquet"), &read(&root().join("data/molecules.parquet")).head(Some(8000)));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let score = "import json, sys\nfor line in sys.stdin:\n    if line.strip():\n        item = json.loads(line)\n        print(json.dumps({'db_idx': item['db_idx'], 'score': -abs(item['mw'] - 300)}))\n    else:\n        print(flush=True)\n";
    std::fs::write(folder.path().join("score.py"), score).expect("written");
    let text = "[database]\npath = \"items.lance\"\ncolumns = [\"id\", \"name\", \"smiles\", \"mw\"]\n[score]\ncommand = [\"python3\", \"score.py\"]\n[stop]\nevaluations = 60\n";
    std::fs::write(folder.path().join("run.toml"), text).expect("written");
    let search = |run: &str, seed: u32, reuse: &str| {
        let set = [format!("seed={seed}"), format!("score.reuse={reuse}")];
        uphill_ok(&["search", "run.toml", "--out", run, "--set", &set[0], "--set", &set[1]], folder.path());
        let results = results(&folder, run);
        let paid = results.column("evaluation").expect("evaluation").is_not_null();
        f64s(&results.filter(&paid).expect("filtered"), "score").iter().filter(|score| **score > -5.0).count()
    };
    let before = search("before", 0, "[]");
    let after: Vec<usize> = (1..4).map(|seed| search(&format!("after-{seed}"), seed, "[\"before\"]")).collect();
    // Three quarters of what is paid for are among the best from then on. (Where targets are cut at the median of the best
    // 32 of what is known, half.)
    assert!(after.iter().sum::<usize>() > 3 * 45, "{before}, then {after:?}");
}

/// Scores of all items, by an id that a tool keeps as another type or in another format.
#[test]
fn keys_match_across_types() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let mut frame = items(&clustered(200, 4, 6, &mut rng(6)));
    frame.with_column(Column::new("id".into(), (100..300i64).collect::<Vec<_>>())).expect("a column");
    let texts = frame.column("id").expect("id").cast(&DataType::String).expect("cast").with_name("code".into());
    frame.with_column(texts).expect("a column");
    write(&at("items.parquet"), &frame);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    std::fs::write(at("score.py"), "raise SystemExit(3)\n").expect("written");
    let known = |dtype: DataType, name: &str| {
        let key = frame.column("id").expect("id").cast(&dtype).expect("cast").with_name(name.into());
        let score = frame.column("weight").expect("weight").clone().with_name("score".into());
        DataFrame::new(200, vec![key, score]).expect("a frame")
    };
    let csv = |name: &str, separator: u8, comma: bool, frame: &DataFrame| {
        let file = std::fs::File::create(at(name)).expect("a file");
        CsvWriter::new(file)
            .with_separator(separator)
            .with_decimal_comma(comma)
            .finish(&mut frame.clone())
            .expect("CSV");
    };
    let search = |source: &str, key: &str| {
        let head = "[database]\npath = \"items.lance\"\nk = 8\n[stop]\niterations = 2\n[update]\nrule = \"top-k\"\n";
        let score = format!(
            "[score]\ncommand = [\"python3\", \"score.py\"]\npatience = 0.0\nreuse = [\"{source}\"]\nreuse_key = \"{key}\"\ntrust_scores = true\n"
        );
        std::fs::write(at("run.toml"), format!("{head}{score}")).expect("written");
        let _ = std::fs::remove_dir_all(at("run"));
        uphill(&["search", "run.toml", "--out", "run", "-q"], folder.path())
    };
    for key in ["id", "code"] {
        for (number, dtype) in
            [DataType::Float64, DataType::Float32, DataType::Int16, DataType::String, DataType::Decimal(10, 2)]
                .into_iter()
                .enumerate()
        {
            let name = format!("{key}-{number}.parquet");
            write(&at(&name), &known(dtype.clone(), key));
            let output = search(&name, key);
            assert!(output.status.success() && stderr(&output).is_empty(), "{key} as {dtype}: {}", stderr(&output));
        }
        csv("ints.csv", b',', false, &known(DataType::Int64, key));
        csv("floats.csv", b';', true, &known(DataType::Float64, key));
        // To texts, "100,0" is another text.
        let names = ["ints.csv", "floats.csv"];
        for name in &names[..if key == "id" { 2 } else { 1 }] {
            let output = search(name, key);
            assert!(output.status.success() && stderr(&output).is_empty(), "{key} of {name}: {}", stderr(&output));
        }
    }
    assert_eq!(f64s(&results(&folder, "run"), "score"), f64s(&results(&folder, "run"), "weight"));
}

#[test]
fn a_source_that_matches_no_item_is_reported_with_examples_of_both_sides() {
    let folder = libraries();
    let at = |name: &str| folder.path().join(name);
    let said = |file: &str, more: &str| {
        run_file(&folder, "items", &format!("reuse = [\"{file}\"]\nreuse_key = \"name\"\ntrust_scores = true\n{more}"));
        let _ = std::fs::remove_dir_all(at("run"));
        let output = uphill(&["search", "run.toml", "--out", "run", "-q"], folder.path());
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    let none = |file: &str, there: &str| {
        format!(
            "uphill: score.reuse: ./{file}: none of its 2 scores matches an item of this library by `name`: the source has {there}, the library has \"item 0\" (str); no score is reused\n"
        )
    };
    write(&at("cased.parquet"), &df!("name" => ["Item 0", "Item 1"], "score" => [7.0, 8.0]).expect("a frame"));
    assert_eq!(said("cased.parquet", ""), none("cased.parquet", "\"Item 0\" (str)"));
    write(&at("numbers.parquet"), &df!("name" => [1.5, 0.5], "score" => [7.0, 8.0]).expect("a frame"));
    assert_eq!(said("numbers.parquet", ""), none("numbers.parquet", "0.5 (f64)"));
    // A dry run is where one looks before the money is spent.
    let output = uphill(&["search", "run.toml", "--out", "x", "--dry-run"], folder.path());
    assert!(stderr(&output).contains("none of its 2 scores matches an item"), "{}", stderr(&output));

    let nulls = df!("name" => ["item 0", "item 1"], "score" => [None::<f64>, Some(f64::NAN)]).expect("a frame");
    write(&at("nulls.parquet"), &nulls);
    let nothing = "none of its 2 rows has a score and a `name`; no score is reused";
    assert_eq!(said("nulls.parquet", ""), format!("uphill: score.reuse: ./nulls.parquet: {nothing}\n"));
    write(&at("nobody.parquet"), &df!("name" => [None::<&str>, None], "score" => [1.0, 2.0]).expect("a frame"));
    assert_eq!(said("nobody.parquet", ""), format!("uphill: score.reuse: ./nobody.parquet: {nothing}\n"));
    // One that matches is enough for its source.
    write(&at("one.parquet"), &df!("name" => ["item 299", "Item 1"], "score" => [7.0, 8.0]).expect("a frame"));
    assert_eq!(said("one.parquet", ""), "");

    // A run in which every item failed, of the same library.
    std::fs::write(at("fails.py"), "import json, sys\nfor line in sys.stdin:\n    if line.strip():\n        print(json.dumps({'db_idx': json.loads(line)['db_idx'], 'score': None}))\n    else:\n        print(flush=True)\n").expect("written");
    run_file(&folder, "items", "");
    let text = std::fs::read_to_string(at("run.toml")).expect("read").replace("score.py", "fails.py") + "[stop]\n";
    std::fs::write(
        at("fails.toml"),
        text.replacen("[stop]\niterations = 3\n", "", 1) + "iterations = 2\nfailed_share = 1.0\n",
    )
    .expect("written");
    uphill_ok(&["search", "fails.toml", "--out", "failed"], folder.path());
    run_file(&folder, "items", "reuse = [\"failed\"]\ntrust_scores = true\n");
    let output = uphill(&["search", "run.toml", "--out", "again", "-q"], folder.path());
    assert!(stderr(&output).contains("score.reuse: ./failed: none of its "), "{}", stderr(&output));
}

#[test]
fn integers_that_lost_digits_as_floats_are_rejected_as_keys() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let mut frame = items(&clustered(50, 4, 3, &mut rng(7)));
    let ids: Vec<u64> = (0..50).map(|row| u64::MAX - row).collect();
    frame.with_column(Column::new("id".into(), ids)).expect("a column");
    write(&at("items.parquet"), &frame);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let key = frame.column("id").expect("id").cast(&DataType::Float64).expect("cast");
    let score = frame.column("weight").expect("weight").clone().with_name("score".into());
    write(&at("floats.parquet"), &DataFrame::new(50, vec![key, score]).expect("a frame"));
    let run = "[database]\npath = \"items.lance\"\n[stop]\niterations = 1\n[score]\nsql = \"weight\"\nreuse = [\"floats.parquet\"]\nreuse_key = \"id\"\ntrust_scores = true\n";
    std::fs::write(at("run.toml"), run).expect("written");
    let said = stderr(&uphill(&["search", "run.toml", "--out", "run"], folder.path()));
    let message = "./floats.parquet has 1.8446744073709552e19, a float that may have lost digits of an integer; store the key as integers or as text";
    assert_eq!(said, format!("uphill: {message}\n"));
}
