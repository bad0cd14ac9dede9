//! The ledger has each item once, as it is known, at any instant: with parts side by side, where a failure stops the run, and
//! where failed items are asked again.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use polars::prelude::*;
use uphill::{Result, Runner, Score, SearchLog, SumScore, TopKUpdate};

use crate::common::*;
use crate::faults::*;
use crate::parts::{known, ledger};
use crate::python::python;

/// Notes each item that it is asked for in `$PAID.PART`. Where `$FAILS` names the part, it fails on about every third; where there is
/// `$PLAIN`, it says nothing but the score.
const PART: &str = r#"
import json, os, sys
part = sys.argv[1]
paid = open(f"{os.environ['PAID']}.{part}", "a")
for line in sys.stdin:
    if line.strip():
        n = json.loads(line)["db_idx"]
        print(n, file=paid, flush=True)
        answer = {"score": n * 37 % 101, "strain": n / 2}
        if os.environ.get("PLAIN"):
            del answer["strain"]
        if os.environ.get("FAILS") == part and n // 6 % 3 == 0:
            answer = {"score": None, "reason": "no conformer"}
        print(json.dumps({"db_idx": n, **answer}), flush=True)
    else:
        print(flush=True)
"#;

/// Whether a part that fails does so on an item.
fn fails(item: u64) -> bool {
    (item / 6).is_multiple_of(3)
}

const PARTS: [&str; 2] = ["dear", "quick"];

/// A scene whose score has the parts `dear` and `quick`, side by side: 16 items at a time, and 4 of two workers.
fn two_parts() -> Scene {
    let part = |name: &str, how: &str| {
        format!("[[score.sum]]\nname = '{name}'\ncommand = ['python3', 'part.py', '{name}']\nretries = 0\n{how}\n")
    };
    let parts = part("dear", "batch_size = 16") + &part("quick", "batch_size = 4\nworkers = 2\nweight = 10.0");
    let scene = Scene::new(&parts, 2);
    std::fs::write(scene.path("part.py"), PART).expect("written");
    let run = std::fs::read_to_string(scene.path("run.toml")).expect("a run file").replace("k = 5", "k = 8");
    std::fs::write(scene.path("run.toml"), &run).expect("written");
    std::fs::write(scene.path("stop.toml"), run.replace("[score]\n", "[score]\non_error = 'stop'\n")).expect("written");
    scene
}

/// The items that a part was asked for, in order.
fn paid(scene: &Scene, run: &str, part: &str) -> Vec<u64> {
    let list = std::fs::read_to_string(scene.path(&format!("{run}.paid.{part}"))).unwrap_or_default();
    list.lines().map(|line| line.parse().expect("a number")).collect()
}

/// Searches, by a run file, with a part that fails or none, and other arguments.
fn search(scene: &Scene, file: &str, run: &str, fault: &str, fails: &str, more: &[&str]) -> Command {
    let mut command = scene.command(run, fault, &[&["search", file, "--out", run], more].concat());
    command.env("FAILS", fails);
    command
}

fn go(mut command: Command) -> Output {
    command.output().expect("the binary runs")
}

/// Asserts that each item has one row, and gives the items.
fn assert_once(run: &Path) -> Vec<u64> {
    let items: Vec<u64> = ledger(run).iter().flat_map(|file| u64s(file, "db_idx")).collect();
    assert_eq!(items.iter().collect::<HashSet<_>>().len(), items.len(), "{}: {items:?}", run.display());
    items
}

/// What each part is known of, and was asked for so far.
fn standing(scene: &Scene, run: &str) -> [(Vec<u64>, usize); 2] {
    assert_once(&scene.path(run));
    let ledger = ledger(&scene.path(run));
    PARTS.map(|part| (known(&ledger, part), paid(scene, run, part).len()))
}

/// Asserts that what was known of a part was not asked for again, and of what was not, at most what was in flight.
fn assert_nothing_paid_twice(scene: &Scene, run: &str, before: &[(Vec<u64>, usize); 2], again: [usize; 2]) {
    assert_once(&scene.path(run));
    for ((part, (known, asked)), most) in PARTS.iter().zip(before).zip(again) {
        let paid = paid(scene, run, part);
        let twice: Vec<&u64> = paid[*asked..].iter().filter(|item| known.contains(item)).collect();
        assert!(twice.is_empty(), "{run}: {part} was paid twice for {twice:?}");
        let again = paid.len() - paid.iter().collect::<HashSet<_>>().len();
        assert!(again <= most, "{run}: {part} was asked again for {again} items");
    }
}

#[test]
fn a_sum_of_concurrent_parts_killed_at_any_file_operation_resumes_to_the_same_frames() {
    let scene = two_parts();
    let whole = scene.whole();
    let operations = whole.operations().len();
    println!("{operations} operations");
    assert_eq!(known(&ledger(&whole.path()), "score"), known(&ledger(&whole.path()), "quick.strain"));
    each(operations, |number| {
        let run = scene.run(format!("killed-{number}"));
        was_killed(&run.go(&format!("{number}:kill")));
        run.assert_sound(&whole);
        let before = standing(&scene, &run.name);
        succeeded(&run.go(""));
        run.assert_equals(&whole);
        assert_nothing_paid_twice(&scene, &run.name, &before, [16, 8]);
    });
}

#[test]
fn a_sum_stopped_by_a_failure_and_killed_at_any_file_operation_keeps_the_answers_of_the_other_part() {
    let scene = two_parts();
    let whole = scene.whole();
    let stopped = go(search(&scene, "stop.toml", "stopped", "", "quick", &[]));
    assert!(stderr(&stopped).contains("failed: quick: no conformer"), "{}", stderr(&stopped));
    let dear = paid(&scene, "stopped", "dear");
    assert!(!dear.is_empty());
    assert_eq!(standing(&scene, "stopped")[0].0.len(), dear.len(), "what came back is durable");
    let operations = scene.operations("stopped").len();
    println!("{operations} operations");
    each(operations, |number| {
        let run = scene.run(format!("stopped-{number}"));
        // How far the other part came when it ended is a matter of time.
        let output = go(search(&scene, "stop.toml", &run.name, &format!("{number}:kill"), "quick", &[]));
        assert!(!output.status.success(), "{number}");
        let before = standing(&scene, &run.name);
        succeeded(&run.go(""));
        run.assert_equals(&whole);
        // Of those that failed, the quick part is asked again.
        assert_nothing_paid_twice(&scene, &run.name, &before, [16, 8]);
    });
}

#[test]
fn a_retry_of_failed_parts_may_be_killed_at_any_file_operation() {
    let scene = two_parts();
    succeeded(&go(search(&scene, "run.toml", "whole", "", "quick", &[])));
    let retry =
        |run: &str, fault: &str| go(search(&scene, "run.toml", run, fault, "", &["--resume", "--retry-failed"]));
    let items = assert_once(&scene.path("whole"));
    let failed = items.iter().filter(|item| fails(**item)).count();
    assert!(failed > 3 && known(&ledger(&scene.path("whole")), "score").len() == items.len() - failed);
    drop(scene.copied("whole", "calm"));
    succeeded(&retry("calm", ""));
    let calm = compiled(&scene.path("calm"));
    assert_eq!(calm.column("score").expect("scores").null_count(), 0);
    assert_eq!(assert_once(&scene.path("calm")), items, "each stands where it stood");
    assert_eq!(known(&ledger(&scene.path("calm")), "score").len(), items.len());
    let operations = scene.operations("calm").len();
    println!("{operations} operations");
    each(operations, |number| {
        let run = scene.copied("whole", format!("retried-{number}"));
        was_killed(&retry(&run.name, &format!("{number}:kill")));
        let before = standing(&scene, &run.name);
        succeeded(&run.go(""));
        succeeded(&retry(&run.name, ""));
        assert_nothing_paid_twice(&scene, &run.name, &before, [0, 8]);
        assert!(paid(&scene, &run.name, "dear").is_empty(), "{}: it is known", run.name);
        assert!(compiled(&run.path()).equals_missing(&calm), "{}", run.name);
        assert_eq!(assert_once(&run.path()), items);
    });
}

#[test]
fn a_part_that_a_retry_adds_is_shown_from_its_iteration_on_even_if_the_retry_is_killed() {
    let score = "command = ['python3', 'part.py', 'alone']\nretries = 0\nbatch_size = 8";
    let scene = Scene::new(score, 3);
    std::fs::write(scene.path("part.py"), PART).expect("written");
    let mut first = search(&scene, "run.toml", "whole", "", "alone", &[]);
    first.env("PLAIN", "yes");
    succeeded(&go(first));
    let retry =
        |run: &str, fault: &str| go(search(&scene, "run.toml", run, fault, "", &["--resume", "--retry-failed"]));
    // In which iterations it shows, and of which items it is known.
    let strain = |run: &Path| {
        let log = SearchLog::open(run).expect("a run");
        let frames: Vec<DataFrame> = log.iterations().iter().map(|at| log.results(*at).expect("results")).collect();
        let shows: Vec<bool> = frames.iter().map(|frame| frame.column("strain").is_ok()).collect();
        assert!(shows.is_sorted(), "a later iteration lacks what an earlier one has: {shows:?}");
        // Read as one table, in any state.
        log.scan_results().expect("a query").map(|rows| rows.collect().expect("rows"));
        (shows, known(&frames, "strain"))
    };
    assert_eq!(strain(&scene.path("whole")).0, [false; 3]);
    drop(scene.copied("whole", "calm"));
    succeeded(&retry("calm", ""));
    let (shows, items) = strain(&scene.path("calm"));
    assert!(shows[2] && !items.is_empty() && items.iter().all(|item| fails(*item)), "{shows:?} {items:?}");
    let operations = scene.operations("calm").len();
    println!("{operations} operations");
    each(operations, |number| {
        let run = scene.copied("whole", format!("retried-{number}"));
        was_killed(&retry(&run.name, &format!("{number}:kill")));
        strain(&run.path());
        succeeded(&retry(&run.name, ""));
        assert_eq!(strain(&run.path()), (shows.clone(), items.clone()), "{}", run.name);
        assert!(compiled(&run.path()).equals_missing(&compiled(&scene.path("calm"))), "{}", run.name);
    });
}

/// Says of ledgers how many rows and items they have, and of how many each part is known.
const READER: &str = r#"
import sys, duckdb
for run in sys.stdin:
    counts = "count(*), count(distinct db_idx), count(dear), count(quick), count(*) filter (outcome = 'open')"
    print(*duckdb.sql(f"select {counts} from '{run.strip()}/ledger/*.parquet'").fetchall()[0], flush=True)
"#;

#[test]
fn duckdb_reads_each_item_once_between_any_two_file_operations_of_a_sum_that_stops_and_retries() {
    let scene = two_parts();
    let mut duckdb = Command::new(python())
        .args(["-c", READER])
        .current_dir(scene.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python");
    let (mut ask, answers) = (duckdb.stdin.take().expect("a pipe"), duckdb.stdout.take().expect("a pipe"));
    let mut answers = BufReader::new(answers);
    let run = scene.run("run");
    let (mut before, mut looks) = ([0; 3], 0);
    let mut look = || {
        if run.batches().is_empty() {
            return [0; 4];
        }
        writeln!(ask, "run").expect("Python listens");
        let mut answer = String::new();
        answers.read_line(&mut answer).expect("an answer");
        let counts: Vec<usize> = answer.split_whitespace().map(|count| count.parse().expect("a number")).collect();
        assert_eq!(counts[0], counts[1], "rows, items");
        let now = [counts[0], counts[2], counts[3]];
        assert!(now.iter().zip(before).all(|(now, before)| *now >= before), "{now:?} after {before:?}");
        (before, looks) = (now, looks + 1);
        [counts[0], counts[2], counts[3], counts[4]]
    };
    let mut watch = |file: &str, fails: &str, more: &[&str]| {
        let mut search = Pausing::start(&mut search(&scene, file, "run", "*:stop", fails, more));
        let code = loop {
            if let Some(code) = search.wait() {
                break code;
            }
            look();
            search.go_on();
        };
        (code, look())
    };
    let (code, [.., open]) = watch("stop.toml", "quick", &[]);
    assert!(code == 1 && open > 0, "{code} {open}");
    let (code, [rows, dear, quick, open]) = watch("run.toml", "quick", &["--resume"]);
    assert!(code == 0 && dear == rows && quick < rows && open == 0, "{code} {rows} {dear} {quick} {open}");
    let (code, counts) = watch("run.toml", "", &["--resume", "--retry-failed"]);
    assert_eq!((code, counts), (0, [rows, rows, rows, 0]));
    println!("{looks} looks");
    drop(ask);
    duckdb.wait().expect("reaped");
}

#[test]
fn the_ledger_of_a_free_score_has_a_file_without_rows() {
    let scene = Scene::new(SQL, 2);
    let whole = scene.whole();
    let [file] = &ledger(&whole.path())[..] else { panic!("one file") };
    assert_eq!((file.height(), names(file)), (0, vec!["evaluation", "db_idx", "score", "outcome", "reason"]));
    assert_eq!(file.column("db_idx").expect("ids").dtype(), &DataType::UInt64);
}

#[test]
fn a_ledger_of_an_earlier_version_with_duplicate_items_has_each_once_after_a_resume() {
    let scene = two_parts();
    let whole = scene.whole();
    let more = ["--set", "stop.iterations=1"];
    succeeded(&go(search(&scene, "run.toml", "run", "", "", &more)));
    let run = scene.run("run");
    let [rows] = &ledger(&run.path())[..] else { panic!("one file") };
    let (half, all) = (rows.height() / 2, rows.height());
    // As rows of parts that were known were followed by rows that were complete.
    let mut open = rows.drop("quick").expect("a part");
    let nothing = |name: &str| Column::full_null(name.into(), all, rows.column(name).expect(name).dtype());
    open.with_column(nothing("quick")).expect("a column").with_column(nothing("score")).expect("a column");
    open.with_column(Column::new("outcome".into(), vec!["open"; all])).expect("a column");
    let mut first = open.select(names(rows)).expect("columns").vstack(&rows.head(Some(half))).expect("rows");
    first.align_chunks();
    write(&run.path().join("ledger/batch-000000.parquet"), &first);
    write(&run.path().join("ledger/batch-000001.parquet"), &rows.slice(half as i64, all - half));
    std::fs::remove_dir_all(run.path().join("results/iteration=000000")).expect("removed");
    std::fs::remove_dir_all(run.path().join("queries/iteration=000001")).expect("removed");
    let before = PARTS.map(|part| paid(&scene, "run", part).len());
    succeeded(&run.go(""));
    run.assert_equals(&whole);
    assert_eq!(assert_once(&run.path()).len(), known(&ledger(&run.path()), "score").len());
    for (part, before) in PARTS.iter().zip(before) {
        let paid = paid(&scene, "run", part);
        assert_eq!(paid.iter().collect::<HashSet<_>>().len(), paid.len(), "{part}: nothing is paid twice");
        assert!(paid.len() > before);
    }
}

/// The item's number; notes how many it was asked for at once.
struct Counted {
    batch_size: usize,
    sizes: Arc<Mutex<Vec<usize>>>,
}

impl Score for Counted {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        self.sizes.lock().expect("no panic").push(batch.height());
        let items = u64s(batch, "db_idx").into_iter().map(|item| item as f64);
        Ok(Column::new("score".into(), items.collect::<Vec<_>>()).into_frame())
    }
    fn batch_size(&self) -> usize {
        self.batch_size
    }
}

#[test]
fn many_items_with_pending_parts_are_in_small_files() {
    let folder = folder();
    let library = exact_library(&folder, &normal(1500, 4, &mut rng(33))).k(1500);
    let queries = uphill::queries_at(&library, &[7]).expect("queries");
    let sizes: [Arc<Mutex<Vec<usize>>>; 2] = Default::default();
    let [large, small] =
        [(2000, &sizes[0]), (100, &sizes[1])].map(|(batch_size, sizes)| Counted { batch_size, sizes: sizes.clone() });
    let score = SumScore::new().gate("large", 1.0, 0.0, large).part("small", 1.0, small);
    let run = folder.path().join("run");
    drop(Runner::new(library, score, TopKUpdate::new(1)).search_into(&run, &queries, 1).expect("a search"));
    let heights: Vec<usize> = ledger(&run).iter().map(DataFrame::height).collect();
    assert_eq!(heights, [512, 512, 476]);
    assert_once(&run);
    let [large, small] = sizes.map(|sizes| sizes.lock().expect("no panic").clone());
    assert_eq!((large, small), (vec![1500], vec![100; 15]));
}
