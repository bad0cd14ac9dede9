//! Golden tests of terminal screens with three widths, in `tests/terminal`: the progress block, tables, and the end of a search.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use polars::prelude::*;

use crate::common::*;
use crate::screen::Screen;

const WIDTHS: [u16; 3] = [80, 140, 200];

/// Forty items in a row, each worth more than the one before; the texts are as long as those of molecules.
fn molecules() -> DataFrame {
    let places = ndarray::Array2::from_shape_fn((40, 2), |(item, side)| if side == 0 { item as f32 } else { 0.0 });
    let number = |of: &dyn Fn(f64) -> f64| (0..40).map(|item| of(f64::from(item))).collect::<Vec<f64>>();
    let names: Vec<String> = (0..40).map(|item| format!("molecule number {item}")).collect();
    let smiles: Vec<String> = (0..40).map(|item| format!("CC(=O)Nc1ccc({}O)cc1", "C".repeat(item))).collect();
    let columns = vec![
        Column::new("name".into(), names),
        Column::new("smiles".into(), smiles),
        uphill::embedding_column(places.view()).expect("embeddings"),
        Column::new("mw".into(), number(&|item| 151.16256 + 14.02658 * item)),
        Column::new("qed".into(), number(&|item| (item + 1.0) / 41.0)),
    ];
    DataFrame::new(40, columns).expect("molecules")
}

const RUN: &str = "[database]\npath = \"items.lance\"\nk = 10\n[queries]\npath = \"start.parquet\"\n\
    [update]\nrule = \"rl\"\nlr = 20\n[stop]\nevaluations = 30\niterations = 9\n[score]\n";

/// A library, two starting queries, and a run file with that score.
fn library(items: &DataFrame, score: &str) -> TempDir {
    let folder = folder();
    write(&folder.path().join("items.parquet"), items);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let start = ndarray::arr2(&[[5.25f32, 0.0], [21.25, 0.0]]);
    let start = DataFrame::new(2, vec![uphill::embedding_column(start.view()).expect("embeddings")]);
    write(&folder.path().join("start.parquet"), &start.expect("queries"));
    std::fs::write(folder.path().join("run.toml"), format!("{RUN}{score}")).expect("written");
    folder
}

/// The screen with times, rates and bars replaced, as they vary between runs.
fn timeless(screen: &str) -> String {
    let part = |part: &str| match part {
        part if part.ends_with(" left") => "TIME left".into(),
        part if ["/s", "/min", "/h"].iter().any(|unit| part.ends_with(unit)) => "RATE".into(),
        part if part.contains('━') => "━━━".to_string(),
        part => part.to_string(),
    };
    let line = |line: &str| match line {
        line if line.contains(" s: ") => "TIME".into(),
        line if is_forecast(line) => without_numbers(line),
        line if line.starts_with("first search") => {
            let words = line.split(' ').collect::<Vec<_>>();
            let seconds = words.iter().position(|word| word.parse::<f64>().is_ok_and(|_| word.contains('.')));
            let shown = |(at, word): (usize, &&str)| if Some(at) == seconds { "TIME" } else { *word }.to_string();
            words.iter().enumerate().map(shown).collect::<Vec<_>>().join(" ")
        }
        line => line.split("  ").map(part).collect::<Vec<_>>().join("  "),
    };
    screen.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn is_forecast(line: &str) -> bool {
    line.contains("scores") && line.contains("next ")
}

/// A text with every number replaced.
fn without_numbers(line: &str) -> String {
    let is_number = |c: char| c.is_ascii_digit() || c == '.' || c == ',';
    line.split(is_number).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("N")
}

/// Compares a screen with the golden one. Where it should have changed, what is written into the target folder is looked at,
/// and takes the place of the golden one.
fn assert_golden(name: &str, screen: &str) {
    let golden = root().join("tests/terminal").join(name);
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    if expected.trim_end() != screen.trim_end() {
        let found = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&found, format!("{screen}\n")).expect("written");
        panic!("{} is not {}:\n{screen}\nbut\n{expected}", found.display(), golden.display());
    }
}

#[test]
fn a_search_ends_with_its_best_items_its_cost_and_the_next_steps() {
    let folder = library(&molecules(), "sql = \"qed\"");
    for columns in WIDTHS {
        let out = format!("run-{columns}");
        let screen = Screen::of(&["search", "run.toml", "--out", &out], folder.path(), columns);
        assert_golden(&format!("search-{columns}.txt"), &timeless(&screen));
    }
}

#[test]
fn the_next_steps_of_a_search_can_be_run() {
    let folder = library(&molecules(), "sql = \"qed\"");
    // A shell, and SQL, would take these for something else.
    let run = "a run's [1] $HOME";
    let screen = Screen::of(&["search", "run.toml", "--out", run, "--set", "database.k=15"], folder.path(), 200);
    let commands: Vec<&str> = screen.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    let of = |program: &str| commands.iter().find(|line| line.starts_with(program)).expect("a command").to_string();
    let uphill = Path::new(env!("CARGO_BIN_EXE_uphill")).parent().expect("a folder");
    let shell = |command: &str| {
        let path = format!("{}:{}", uphill.display(), std::env::var("PATH").expect("a path"));
        let mut shell = Command::new("bash");
        shell.args(["-c", command]).current_dir(folder.path()).env("PATH", path);
        crate::python::succeeds(&mut shell)
    };
    shell(of("uphill report").strip_suffix(" --open").expect("--open"));
    assert!(folder.path().join("report.html").exists());
    shell(&of("uphill search"));
    let results = uphill_ok(&["results", run, "--format", "csv"], folder.path());
    assert!(results.lines().count() > 1 + 30, "beyond the budget: {results}");
    // What DuckDB is asked, by the shell's own reading of the line.
    let asked = shell(&of("duckdb").replacen("duckdb -c", "printf %s", 1));
    let script = "import duckdb, sys; print(duckdb.sql(sys.argv[1]).fetchall()[0])";
    let python = crate::python::python();
    let found = crate::python::succeeds(Command::new(python).args(["-c", script, &asked]).current_dir(folder.path()));
    assert!(found.contains("'molecule number 39'") && found.contains("0.975609756097561"), "{found}");
}

/// Answers the first items it is asked for, and no more until there is a file `go`.
const SCORER: &str = r#"
import json, os, sys, time
answered = 0
for line in sys.stdin:
    if not line.strip():
        print(flush=True)
        continue
    while answered >= int(sys.argv[1]) and not os.path.exists("go"):
        time.sleep(0.01)
    item = json.loads(line)
    print(json.dumps({"db_idx": item["db_idx"], "score": item["qed"]}), flush=True)
    answered += 1
"#;

fn command(answers: usize) -> String {
    format!("command = [\"python3\", \"score.py\", \"{answers}\"]\nbatch_size = 2\n")
}

#[test]
fn a_search_draws_one_block_with_its_progress_and_pending_evaluations() {
    for columns in WIDTHS {
        let folder = library(&molecules(), &command(24));
        std::fs::write(folder.path().join("score.py"), SCORER).expect("written");
        let mut search = Screen::start(&["search", "run.toml", "--out", "run"], folder.path(), columns);
        let screen = search.wait_for(|screen| screen.contains("iteration 1 of 9") && screen.contains("  6 pending"));
        assert_eq!(screen.lines().count(), 2, "one block: {screen}");
        assert_golden(&format!("progress-{columns}.txt"), &timeless(&screen));
        std::fs::write(folder.path().join("go"), "").expect("written");
        let (screen, code) = search.end();
        assert_eq!(code, 0, "{screen}");
        assert!(!screen.contains('━') && screen.contains("30 items scored"), "the block is gone: {screen}");
    }
}

/// A search by the default rule, whose scorer waits after twelve answers.
fn forecasting() -> TempDir {
    let folder = library(&molecules(), &command(12));
    let run = std::fs::read_to_string(folder.path().join("run.toml")).expect("a run file");
    let rule = "rule = \"surrogate\"\nbatch = 4\nfeatures = []\n[stop]\ntop = 5";
    let run = run.replace("rule = \"rl\"\nlr = 20\n[stop]", rule);
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    std::fs::write(folder.path().join("score.py"), SCORER).expect("written");
    folder
}

#[test]
fn the_block_of_a_search_has_a_forecast_and_the_latest_entries() {
    for columns in WIDTHS {
        let folder = forecasting();
        let mut search = Screen::start(&["search", "run.toml", "--out", "run"], folder.path(), columns);
        let screen = search.wait_for(|screen| screen.contains("iteration 3 of 9") && screen.contains("  4 pending"));
        assert_eq!(screen.lines().count(), 3, "one block: {screen}");
        assert!(screen.lines().all(|line| line.chars().count() < columns.into()), "{screen}");
        assert_golden(&format!("forecast-{columns}.txt"), &timeless(&screen));
        std::fs::write(folder.path().join("go"), "").expect("written");
        let (screen, code) = search.end();
        assert!(code == 0 && !screen.contains('━'), "the block is gone: {screen}");
    }
}

#[test]
fn without_a_terminal_a_search_prints_progress_lines() {
    let folder = library(&molecules(), &command(24));
    std::fs::write(folder.path().join("score.py"), SCORER).expect("written");
    let mut search = Command::new(env!("CARGO_BIN_EXE_uphill"));
    search.args(["search", "run.toml", "--out", "run"]).current_dir(folder.path());
    let mut search = search.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut said = BufReader::new(search.stderr.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    // The scorer does not go on before it is said.
    let line = said.next().expect("a line");
    let parts: Vec<&str> = line.split("  ").collect();
    assert_eq!((parts[0], parts[2]), ("best 0.658537", "20 of 30 evaluations"), "{line}");
    assert!(parts[1].starts_with("iteration 1 of 9: mean ") && line.contains(" pending"), "{line}");
    std::fs::write(folder.path().join("go"), "").expect("written");
    let rest: Vec<String> = said.collect();
    assert!(search.wait().expect("it ends").success(), "{rest:?}");
    assert!(rest[0].contains("30 items scored"), "{rest:?}");
}

#[test]
fn without_a_terminal_progress_lines_end_with_the_forecast() {
    let folder = forecasting();
    let mut search = Command::new(env!("CARGO_BIN_EXE_uphill"));
    search.args(["search", "run.toml", "--out", "run"]).current_dir(folder.path());
    let mut search = search.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut said = BufReader::new(search.stderr.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    let line = said.next().expect("a line");
    let forecast = line.rsplit("  ").next().expect("a part");
    let expected = "the last N scores brought N new entries into the best N; the next N are expected to bring N (N to N): N \
        scores each";
    assert_eq!(without_numbers(forecast), expected, "{line}");
    std::fs::write(folder.path().join("go"), "").expect("written");
    said.for_each(drop);
    assert!(search.wait().expect("it ends").success());
}

#[test]
fn a_json_log_has_one_object_per_line_and_per_iteration() {
    let score = "sql = \"qed\"\ndirection = \"minimize\"";
    let folder = library(&molecules(), score);
    let output = uphill(&["search", "run.toml", "--out", "run", "--log-format", "json"], folder.path());
    let events: Vec<serde_json::Value> =
        stderr(&output).lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let (ended, iterations) = events.split_last().expect("events");
    assert!(iterations.iter().all(|event| event["event"] == "iteration"), "{events:?}");
    let numbers: Vec<u64> = iterations.iter().map(|event| event["iteration"].as_u64().expect("a number")).collect();
    assert_eq!(numbers, (0..iterations.len() as u64).collect::<Vec<_>>());
    // In the scorer's own terms, and so far: smaller and smaller.
    let bests: Vec<f64> = iterations.iter().map(|event| event["best"].as_f64().expect("a number")).collect();
    assert!(bests.is_sorted_by(|a, b| a >= b) && bests[0] > 0.0, "{bests:?}");
    let lowest = iterations.iter().map(|event| event["best_of_iteration"].as_f64().expect("a number"));
    assert_eq!(bests.last().copied(), lowest.reduce(f64::min));
    let new: u64 = iterations.iter().map(|event| event["new"].as_u64().expect("a number")).sum();
    assert_eq!((ended["event"].as_str(), ended["evaluations"].as_u64()), (Some("ended"), Some(new)));

    // Warnings and errors are objects too.
    let output = uphill(&["search", "run.toml", "--out", "run", "--log-format", "json"], folder.path());
    let error: serde_json::Value = serde_json::from_str(&stderr(&output)).expect("an object");
    assert_eq!(error["event"], "error");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("already holds a run")), "{error}");
}

#[test]
fn a_quiet_search_prints_nothing_and_a_verbose_one_a_line_per_iteration() {
    let folder = library(&molecules(), "sql = \"qed\"");
    let output = uphill(&["search", "run.toml", "--out", "quiet", "-q"], folder.path());
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 11, "the best are no message");
    let output = uphill(&["search", "run.toml", "--out", "quiet", "-q"], folder.path());
    assert!(stderr(&output).starts_with("uphill: quiet: already holds a run"), "errors are said");
    let output = uphill(&["-v", "search", "run.toml", "--out", "verbose"], folder.path());
    let said = stderr(&output);
    let iterations = said.lines().filter(|line| line.contains("iteration ") && line.contains("score 0.")).count();
    assert_eq!(iterations, said.lines().count() - 2, "{said}");
    assert!(iterations > 1, "{said}");
}

/// Items with so many numbers and a text that is as wide as it is long, or twice that.
fn wide() -> DataFrame {
    let mut items = molecules();
    for column in 0..30 {
        let values: Vec<f64> = (0..40).map(|item| f64::from(item * column) / 7.0).collect();
        items.with_column(Column::new(format!("descriptor {column}").into(), values)).expect("a column");
    }
    let titles: Vec<String> = (0..40).map(|item| format!("{item} 分子の名前は長い🧪 {}", "字".repeat(item))).collect();
    items.with_column(Column::new("題名".into(), titles)).expect("a column");
    items
}

#[test]
fn no_line_of_a_table_is_wider_than_the_terminal_and_the_score_is_shown() {
    let folder = library(&wide(), "sql = \"qed\"");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    for columns in WIDTHS {
        let screen = Screen::of(&["results", "run", "-n", "5"], folder.path(), columns);
        assert_golden(&format!("results-{columns}.txt"), &screen);
    }
    for columns in [1, 12, 30, 43, 80, 121, 400] {
        let screen = Screen::of(&["results", "run", "-n", "5", "-q"], folder.path(), columns);
        if columns > 20 {
            // A header, a rule, five rows, what is left out: a wrapped line would be one more.
            assert!(screen.lines().count() <= 8, "{columns}: {screen}");
            assert!(screen.lines().next().is_some_and(|line| line.contains("score (qed)")), "{columns}: {screen}");
        }
    }
    // In files and pipes nothing is cut, left out or called otherwise.
    let csv = uphill_ok(&["results", "run", "--format", "csv"], folder.path());
    let header = csv.lines().next().expect("a header");
    assert!(header.contains("qed,descriptor 0") && header.contains("題名,score,outcome,reason"), "{header}");
}

#[test]
fn a_dry_run_is_printed_at_every_width() {
    let folder = library(&molecules(), &command(0));
    std::fs::write(folder.path().join("score.py"), SCORER).expect("written");
    for columns in WIDTHS {
        let screen = Screen::of(&["search", "run.toml", "--out", "run", "--dry-run"], folder.path(), columns);
        assert_golden(&format!("plan-{columns}.txt"), &timeless(&screen));
    }
}
