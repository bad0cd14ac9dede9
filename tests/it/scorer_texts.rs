//! Texts that a scorer returns beside its score, such as the words of a judge: kept as columns, whatever they contain.

use polars::prelude::*;

use crate::common::*;

/// What a scorer of JSON lines answers, as Python: `i` is the item's number, `weight` its column.
fn library(answer: &str) -> TempDir {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(300, 4, 6, &mut rng(1))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let script = format!(
        "import json, sys\nfor line in sys.stdin:\n    if line.strip():\n        item = json.loads(line)\n        \
         i, weight = item['db_idx'], item['weight']\n        print(json.dumps({{'db_idx': i, 'score': weight, **{answer}}}))\n    \
         else:\n        print(flush=True)\n"
    );
    std::fs::write(folder.path().join("score.py"), script).expect("written");
    run_file(&folder, "command = [\"python3\", \"score.py\"]");
    folder
}

fn run_file(folder: &TempDir, score: &str) {
    let head = "seed = 5\n[database]\npath = \"items.lance\"\nk = 8\n[queries]\nsample = 5\n[stop]\niterations = 3\n";
    let text = format!("{head}[update]\nrule = \"top-k\"\n[score]\n{score}\n");
    std::fs::write(folder.path().join("run.toml"), text).expect("written");
}

fn search(folder: &TempDir, more: &[&str]) -> String {
    let arguments = [&["search", "run.toml", "--out", "run"], more].concat();
    let output = uphill(&arguments, folder.path());
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

fn results(folder: &TempDir, run: &str) -> DataFrame {
    uphill_ok(&["results", run, "-o", "results.parquet"], folder.path());
    read(&folder.path().join("results.parquet"))
}

fn texts(frame: &DataFrame, name: &str) -> Vec<Option<String>> {
    let column = frame.column(name).unwrap_or_else(|_| panic!("no {name} in {:?}", names(frame)));
    column.str().expect("strings").iter().map(|text| text.map(str::to_string)).collect()
}

#[test]
fn the_words_of_a_scorer_are_a_column_of_the_results_and_of_the_ledger() {
    let folder = library(
        "({'why': f'item {i} is fine', 'tokens': 7} if i % 3 else {'score': None, 'reason': 'no', 'why': 'I cannot'})",
    );
    search(&folder, &[]);
    let found = results(&folder, "run");
    for (item, why) in u64s(&found, "db_idx").into_iter().zip(texts(&found, "why")) {
        // Of a failure too.
        let expected = if item % 3 == 0 { "I cannot".to_string() } else { format!("item {item} is fine") };
        assert_eq!(why, Some(expected));
    }
    let file = folder.path().join("run/ledger/batch-000000.parquet");
    assert_eq!(texts(&read(&file), "why").len(), found.height());
    // Beside the numbers, by name.
    let columns = names(&found);
    let first = columns.iter().position(|name| *name == "reason").expect("a reason");
    assert_eq!(columns[first + 1..first + 3], ["tokens", "why"]);
}

#[test]
fn a_run_in_two_parts_has_the_texts_of_one_and_missing_ones_are_null() {
    // The first iteration has no text at all.
    let folder = library("({'why': f'{i}'} if os.path.exists('later') and i % 2 else {'why': None})");
    let script = std::fs::read_to_string(folder.path().join("score.py")).expect("a script");
    std::fs::write(folder.path().join("score.py"), format!("import os\n{script}")).expect("written");
    search(&folder, &["--set", "stop.iterations=1"]);
    assert!(!names(&results(&folder, "run")).contains(&"why"));
    std::fs::write(folder.path().join("later"), "").expect("written");
    search(&folder, &["--resume", "--set", "stop.iterations=2"]);
    search(&folder, &["--resume"]);
    let found = results(&folder, "run");
    let iterations = u32s(&found, "iteration");
    for ((item, why), iteration) in u64s(&found, "db_idx").into_iter().zip(texts(&found, "why")).zip(iterations) {
        let expected = (iteration > 0 && item % 2 == 1).then(|| item.to_string());
        assert_eq!(why, expected, "item {item} of iteration {iteration}");
    }
    // The texts of a ledger without results are there again.
    let whole = folder.path().join("run");
    copy_tree(&whole, &folder.path().join("killed"));
    std::fs::remove_dir_all(folder.path().join("killed/results/iteration=000002")).expect("removed");
    let _ = std::fs::remove_dir_all(folder.path().join("killed/queries/iteration=000003"));
    uphill_ok(&["search", "run.toml", "--out", "killed", "--resume"], folder.path());
    assert!(results(&folder, "killed").equals_missing(&found));
}

#[test]
fn a_part_of_a_sum_keeps_its_texts_under_its_name() {
    let folder = library("{'why': f'item {i}'}");
    let part = |name: &str| format!("[[score.sum]]\nname = \"{name}\"\ncommand = [\"python3\", \"score.py\"]\n");
    run_file(&folder, &(part("judge") + "at_least = 0.3\n" + &part("second")));
    search(&folder, &["--set", "stop.iterations=1"]);
    search(&folder, &["--resume"]);
    let found = results(&folder, "run");
    let (first, second) = (texts(&found, "judge.why"), texts(&found, "second.why"));
    for ((item, weight), (first, second)) in
        u64s(&found, "db_idx").into_iter().zip(f64s(&found, "weight")).zip(first.into_iter().zip(second))
    {
        let words = Some(format!("item {item}"));
        assert_eq!((&first, second), (&words, words.clone().filter(|_| weight >= 0.3)));
    }
}

#[test]
fn hostile_texts_leave_files_and_reports_whole() {
    let hostile = "a,\"b\"\n;</script><script>alert(1)</script>\x1b[31m\u{0}<img src=x>&'";
    let folder = library(&format!("{{'why': json.loads({:?})}}", serde_json::Value::from(hostile).to_string()));
    search(&folder, &["--set", "stop.iterations=1"]);
    let found = results(&folder, "run");
    assert!(texts(&found, "why").iter().all(|why| why.as_deref() == Some(hostile)));
    uphill_ok(&["results", "run", "-o", "results.csv"], folder.path());
    let csv = LazyCsvReader::new(PlRefPath::new(folder.path().join("results.csv").to_string_lossy()));
    let back = csv.finish().expect("a query").collect().expect("CSV");
    assert_eq!(texts(&back, "why"), texts(&found, "why"));
    uphill_ok(&["report", "run", "-o", "run.html"], folder.path());
    let report = std::fs::read_to_string(folder.path().join("run.html")).expect("a report");
    assert!(!report.contains("<script>alert") && !report.contains("<img src=x>"));
}

#[test]
fn a_text_of_any_length_is_cut() {
    let folder = library("{'why': 'ü' * 20000}");
    search(&folder, &["--set", "stop.iterations=1"]);
    for why in texts(&results(&folder, "run"), "why") {
        let why = why.expect("a text");
        assert_eq!((why.chars().count(), why.chars().last()), (10_001, Some('…')));
    }
}

#[test]
fn a_column_keeps_the_kind_of_its_first_value() {
    // Batches of two: the first value is what the first batch has.
    let score = "command = [\"python3\", \"score.py\"]\nbatch_size = 2";
    let answer = |first: &str, later: &str| format!("{{'why': {first} if os.path.getsize('asked') < 3 else {later}}}");
    for (first, later, kept) in [("'text'", "1.5", Some("1.5")), ("1", "'text'", None)] {
        let folder = library(&answer(first, later));
        let script = std::fs::read_to_string(folder.path().join("score.py")).expect("a script");
        let script = script.replace("        i, weight", "        open('asked', 'a').write('x')\n        i, weight");
        std::fs::write(folder.path().join("score.py"), format!("import os\n{script}")).expect("written");
        run_file(&folder, score);
        let said = search(&folder, &[]);
        let warning = "score: ignoring texts in `why`, because earlier answers of this run have numbers in it";
        assert_eq!(said.matches(warning).count(), usize::from(kept.is_none()), "{said}");
        let found = results(&folder, "run");
        let column = found.column("why").expect("a column");
        match kept {
            Some(kept) => {
                let texts = texts(&found, "why");
                assert_eq!(texts.iter().flatten().filter(|text| *text == kept).count(), found.height() - 2);
            }
            None => assert_eq!((column.dtype(), column.null_count()), (&DataType::Float64, found.height() - 2)),
        }
        // All files of the ledger fit together.
        let files = std::fs::read_dir(folder.path().join("run/ledger")).expect("a ledger");
        let dtypes = files.map(|file| read(&file.expect("a file").path()).column("why").expect("why").dtype().clone());
        assert!(dtypes.collect::<Vec<_>>().windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[test]
fn words_told_by_hand_and_those_of_a_function_are_kept() {
    let folder = library("{}");
    run_file(&folder, "by_hand = true");
    uphill_ok(&["ask", "run.toml", "--out", "run", "-o", "asked.parquet"], folder.path());
    let asked = u64s(&read(&folder.path().join("asked.parquet")), "db_idx");
    let rows: String = asked.iter().map(|item| format!("{item},0.5,\"read, and \"\"liked\"\"\"\n")).collect();
    std::fs::write(folder.path().join("told.csv"), format!("db_idx,score,why\n{rows}")).expect("written");
    uphill_ok(&["tell", "run", "told.csv"], folder.path());
    let found = results(&folder, "run");
    assert!(texts(&found, "why").iter().all(|why| why.as_deref() == Some("read, and \"liked\"")));

    let database = open(&folder.path().join("items.lance")).k(5);
    let queries = uphill::queries_at(&database, &[1, 2]).expect("queries");
    let score = |batch: &DataFrame| -> uphill::Result<DataFrame> {
        let words: Vec<String> = u64s(batch, "db_idx").iter().map(|item| format!("item {item}")).collect();
        Ok(df!("score" => vec![1.0; batch.height()], "why" => words, "name" => vec!["x"; batch.height()])?)
    };
    let log = uphill::Runner::new(database, score, uphill::RlUpdate::new(1.0)).search(&queries, 2).expect("a search");
    let found = uphill::collect(log.compile_results().expect("results")).expect("results");
    for (item, why) in u64s(&found, "db_idx").into_iter().zip(texts(&found, "why")) {
        assert_eq!(why, Some(format!("item {item}")));
    }
    assert!(texts(&found, "name").iter().flatten().all(|name| name.starts_with("item ")), "an item's own column stays");
}
