//! A batch is chosen while others are out: the same whatever the times, and whatever happens to the process.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use polars::prelude::*;
use rand::RngExt;
use uphill::{
    Error, LanceDatabase, Result, Runner, Score, SearchContext, SearchLog, Step, StopConditions, StopReason,
    SurrogateUpdate, UpdateRule,
};

use crate::common::*;
use crate::faults::*;

/// A scene of which the rule is the surrogate, so many batches behind.
fn scene(score: &str, behind: usize, evaluations: u64) -> Scene {
    let scene = Scene::new(score, 1);
    write_run(&scene, score, behind, evaluations);
    scene
}

fn write_run(scene: &Scene, score: &str, behind: usize, evaluations: u64) {
    let run = format!(
        "seed = 3\n[database]\npath = 'items.lance'\n[queries]\nsample = 3\n[score]\n{score}\n\
         [update]\nrule = 'surrogate'\nfeatures = []\nbatch = 4\nbehind = {behind}\n[stop]\nevaluations = {evaluations}\n"
    );
    std::fs::write(scene.path("run.toml"), run).expect("a run file");
}

#[test]
fn an_asynchronous_search_killed_at_any_file_operation_resumes_to_the_same_frames() {
    for (score, behind) in [(COMMAND, 1), (COMMAND, 2), (SQL, 1)] {
        let scene = scene(score, behind, 18);
        let whole = scene.whole();
        let operations = whole.operations().len();
        println!("{operations} operations");
        each(operations, |number| {
            let run = scene.run(format!("killed-{number}"));
            was_killed(&run.go(&format!("{number}:kill")));
            run.assert_goes_on(&whole);
        });
    }
}

#[test]
fn an_asynchronous_search_killed_repeatedly_while_it_resumes_ends_with_the_same_frames() {
    let scene = scene(COMMAND, 2, 18);
    let whole = scene.whole();
    let run = scene.run("killed");
    was_killed(&run.go(&format!("{}:kill", whole.operation_that_publishes("results/iteration=000001"))));
    run.goes_on_however_often_it_is_killed(&whole);
}

#[test]
fn an_asynchronous_search_with_a_raised_budget_equals_one_that_had_it_from_the_start() {
    for behind in 1..4 {
        let scene = scene(COMMAND, behind, 120);
        let whole = scene.whole();
        // Batches of four, of which the budgets cut the last, or do not.
        for budget in [97, 98, 100] {
            write_run(&scene, COMMAND, behind, budget);
            let run = scene.run(format!("raised-{budget}"));
            succeeded(&run.go(""));
            assert_eq!(run.paid().len() as u64, budget, "the budget is never exceeded");
            write_run(&scene, COMMAND, behind, 120);
            // Killed while what was cut is written anew.
            was_killed(&run.go(&format!("{}:kill", 12 + budget % 5)));
            succeeded(&run.go(""));
            run.assert_equals(&whole);
            let paid = run.paid();
            let again = paid.len() - paid.iter().collect::<HashSet<_>>().len();
            assert!(again <= 4, "{again} items were asked again");
        }
    }
}

/// What happens, in order.
#[derive(Clone, Default)]
struct Diary(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Diary {
    fn note(&self, what: String) {
        self.0.0.lock().expect("no panic").push(what);
        self.0.1.notify_all();
    }

    fn wait_for(&self, what: &str) {
        let noted = |notes: &mut Vec<String>| !notes.iter().any(|note| note == what);
        let notes = self.0.0.lock().expect("no panic");
        let waited = self.0.1.wait_timeout_while(notes, Duration::from_secs(20), noted).expect("no panic").1;
        assert!(!waited.timed_out(), "never: {what}");
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.0.lock().expect("no panic"))
    }
}

/// Goes from item to item, two at a time, and notes what it is shown.
struct Walk {
    behind: usize,
    /// From so many observations on.
    from: usize,
    observed: usize,
    diary: Diary,
}

fn ids(frame: &DataFrame) -> Vec<u64> {
    let mut ids = u64s(frame, "db_idx");
    ids.sort_unstable();
    ids
}

impl UpdateRule for Walk {
    fn k(&self, _queries: usize) -> Option<usize> {
        Some(2)
    }

    fn revisits(&self) -> bool {
        false
    }

    fn batches_in_flight(&self) -> usize {
        if self.observed >= self.from { self.behind } else { 0 }
    }

    fn begin(&mut self, _context: &SearchContext<'_>) -> Result<()> {
        self.observed = 0;
        Ok(())
    }

    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        assert_eq!(step.results.column("outcome")?.null_count(), 0);
        self.observed += 1;
        self.diary.note(format!("observed {}", step.iteration));
        Ok(())
    }

    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        let out: Vec<Vec<u64>> = step.pending.iter().map(ids).collect();
        assert!(step.pending.iter().all(|frame| frame.column("score").is_err() && frame.column("embedding").is_ok()));
        let scored = step.results.column("score").is_ok();
        assert_eq!(scored, step.pending.is_empty(), "a step that is out has no scores");
        self.diary.note(format!("update after {}, out {}", step.iteration, out.len()));
        Ok(step.queries.clone())
    }
}

/// Scores of items by their number, each asked alone, noted; some wait for others to be asked.
struct Noting {
    diary: Diary,
    workers: usize,
    /// Iteration 2 is not answered before 3 is asked for.
    waits: bool,
}

impl Score for Noting {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let item = u64s(batch, "db_idx")[0];
        self.diary.note(format!("asked {}", item / 2));
        if self.waits && item / 2 == 2 {
            self.diary.wait_for("asked 3");
        }
        Ok(Column::new("score".into(), [item as f64]).into_frame())
    }
    fn batch_size(&self) -> usize {
        1
    }
    fn workers(&self) -> usize {
        self.workers
    }
}

/// Items on a line, so that the two nearest that are not booked are 2 t and 2 t + 1.
fn line(folder: &TempDir) -> LanceDatabase {
    exact_library(folder, &ndarray::Array2::from_shape_fn((100, 2), |(row, column)| (row * (1 - column)) as f32))
}

#[test]
fn the_scores_that_the_rule_knows_depend_only_on_the_number_of_batches() {
    let folder = folder();
    let database = line(&folder);
    let queries = uphill::queries_at(&database, &[0]).expect("queries");
    let run = |name: &str, behind: usize, from: usize, iterations: &[u32]| {
        let diary = Diary::default();
        let mut notes = Vec::new();
        for iterations in iterations {
            let score = Noting { diary: diary.clone(), workers: 2, waits: false };
            let walk = Walk { behind, from, observed: 0, diary: diary.clone() };
            let mut runner = Runner::new(database.clone(), score, walk);
            let path = folder.path().join(name);
            let log = runner.ask(&path, &queries, *iterations).expect("a search");
            assert!(matches!(log, uphill::SearchState::Ended(_)));
            notes.push(diary.take().into_iter().filter(|note| !note.starts_with("asked")).collect::<Vec<_>>());
        }
        notes
    };
    let expected = [
        "observed 0",
        "update after 0, out 0",
        "update after 1, out 1",
        "update after 2, out 2",
        "observed 1",
        "update after 3, out 2",
        "observed 2",
        "update after 4, out 2",
        // It ends, and what is out comes in.
        "observed 3",
        "observed 4",
    ];
    assert_eq!(run("whole", 2, 1, &[5]), [expected]);
    let begun = run("begun", 2, 1, &[3, 5]);
    assert_eq!(begun[0], [&expected[..4], &["observed 1", "observed 2"]].concat());
    // The first alone is known to the rule; then as if it had not stopped.
    assert_eq!(begun[1], [&["observed 0", "update after 2, out 2"], &expected[4..]].concat());
    let none = run("none", 0, 0, &[2]);
    assert_eq!(none, [["observed 0", "update after 0, out 0", "observed 1", "update after 1, out 0"]]);
    // Behind from the start: the second batch is chosen with nothing known.
    let blind = run("blind", 1, 0, &[3]);
    let expected = [
        "update after 0, out 1",
        "observed 0",
        "update after 1, out 1",
        "observed 1",
        "update after 2, out 1",
        "observed 2",
    ];
    assert_eq!(blind, [expected]);
}

#[test]
fn a_batch_is_requested_while_the_previous_one_is_in_flight() {
    let folder = folder();
    let database = line(&folder);
    let queries = uphill::queries_at(&database, &[0]).expect("queries");
    let diary = Diary::default();
    let score = Noting { diary: diary.clone(), workers: 4, waits: true };
    let walk = Walk { behind: 1, from: 1, observed: 0, diary: diary.clone() };
    let log = Runner::new(database, score, walk).search(&queries, 6).expect("a search");
    let all = uphill::collect(log.compile_results().expect("results")).expect("results");
    assert_eq!(all.height(), 12);
    assert_eq!(f64s(&all, "score"), (0..12).rev().map(f64::from).collect::<Vec<_>>());
}

/// The items' weight, each after a random time.
struct Uneven {
    workers: usize,
    asked: Arc<Mutex<Vec<u64>>>,
}

impl Score for Uneven {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        self.asked.lock().expect("no panic").extend(u64s(batch, "db_idx"));
        std::thread::sleep(Duration::from_micros(rand::rng().random_range(0..3000)));
        let items = u64s(batch, "db_idx");
        let score = |item: &u64| (!item.is_multiple_of(9)).then(|| (item * 37 % 101) as f64);
        Ok(Column::new("score".into(), items.iter().map(score).collect::<Vec<_>>()).into_frame())
    }
    fn batch_size(&self) -> usize {
        1
    }
    fn workers(&self) -> usize {
        self.workers
    }
}

#[test]
fn times_and_workers_do_not_change_the_frames_and_items_are_requested_once() {
    let folder = folder();
    let database = exact_library(&folder, &clustered(400, 4, 6, &mut rng(5)));
    let queries = uphill::queries_at(&database, &[1, 2, 3]).expect("queries");
    for behind in [1, 3] {
        let run = |workers: usize| {
            let asked = Arc::default();
            let score = Uneven { workers, asked: Arc::clone(&asked) };
            let rule = SurrogateUpdate::new().batch(6).behind(behind);
            let stop = StopConditions::new().evaluations(100);
            let log =
                Runner::new(database.clone(), score, rule).stop(stop).search(&queries, u32::MAX).expect("a search");
            let asked = asked.lock().expect("no panic").clone();
            assert_eq!((asked.len(), asked.iter().collect::<HashSet<_>>().len()), (100, 100));
            let ended = log.manifest().ended.clone().expect("ended");
            assert_eq!((ended.reason, ended.evaluations), (StopReason::Evaluations, 100));
            uphill::collect(log.compile_results().expect("results")).expect("results")
        };
        let alone = run(1);
        assert!(alone.equals_missing(&run(7)), "7 workers, {behind} behind");
    }
}

/// Of the items beyond a number nothing comes but an error, or a panic.
struct Breaks {
    beyond: u64,
    panics: bool,
    answered: Arc<Mutex<Vec<u64>>>,
}

impl Score for Breaks {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let item = u64s(batch, "db_idx")[0];
        if item >= self.beyond {
            assert!(!self.panics, "the scorer panics over {item}");
            return Err(Error::Config(format!("the scorer broke over {item}")));
        }
        self.answered.lock().expect("no panic").push(item);
        Ok(Column::new("score".into(), [item as f64]).into_frame())
    }
    fn batch_size(&self) -> usize {
        1
    }
    fn workers(&self) -> usize {
        3
    }
}

#[test]
fn a_scorer_that_fails_or_panics_ends_the_search_with_its_message_and_no_score_is_lost() {
    let folder = folder();
    let database = line(&folder);
    let queries = uphill::queries_at(&database, &[0]).expect("queries");
    let runner = |beyond: u64, panics: bool, answered: &Arc<Mutex<Vec<u64>>>| {
        let walk = Walk { behind: 2, from: 1, observed: 0, diary: Diary::default() };
        Runner::new(database.clone(), Breaks { beyond, panics, answered: answered.clone() }, walk)
    };
    let whole = runner(u64::MAX, false, &Arc::default()).search(&queries, 8).expect("a search");
    for (name, panics) in [("breaks", false), ("panics", true)] {
        let answered = Arc::default();
        let path = folder.path().join(name);
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runner(9, panics, &answered).search_into(&path, &queries, 8).map(drop)
        }));
        match broken {
            Ok(error) => assert!(!panics && error.expect_err("broken").to_string().contains("the scorer broke over ")),
            Err(words) => assert!(panics && words.downcast_ref::<String>().expect("words").contains("panics over")),
        }
        let log = runner(u64::MAX, false, &answered).resume(&path, &queries, 8).expect("resumed");
        let mut answered = answered.lock().expect("no panic").clone();
        answered.sort_unstable();
        assert_eq!(answered, (0..16).collect::<Vec<_>>(), "{name}: each item is paid for once");
        for iteration in 0..8 {
            let (ours, theirs) = (log.results(iteration).expect("results"), whole.results(iteration).expect("results"));
            assert!(ours.equals_missing(&theirs), "{name}: iteration {iteration}");
        }
    }
}

/// The items' numbers, of one with a number beside it; another one is answered when that is known.
struct Rare {
    diary: Diary,
    /// Iteration 3 is not answered before that of the rare number is.
    waits: bool,
    breaks_at: u64,
    /// An item that fails.
    fails: u64,
}

const RARE: u64 = 10;

impl Score for Rare {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let item = u64s(batch, "db_idx")[0];
        if self.waits && item == 6 {
            self.diary.wait_for("asked for what follows the rare one");
        }
        if item > RARE {
            self.diary.note("asked for what follows the rare one".into());
        }
        if item >= self.breaks_at {
            return Err(Error::Config("the scorer broke".into()));
        }
        let score = Column::new("score".into(), [Some(item as f64).filter(|_| item != self.fails)]);
        // What was asked again has it too.
        let is_rare = item == RARE || item == 2 && self.fails != 2;
        Ok(DataFrame::new(
            1,
            [Some(score), is_rare.then(|| Column::new("rare".into(), [1.0]))].into_iter().flatten().collect(),
        )?)
    }
    fn batch_size(&self) -> usize {
        1
    }
    fn workers(&self) -> usize {
        2
    }
}

#[test]
fn the_columns_of_an_iteration_depend_on_the_answers_up_to_it_and_not_on_their_order() {
    let folder = folder();
    let database = line(&folder);
    let queries = uphill::queries_at(&database, &[0]).expect("queries");
    let runner = |waits: bool, breaks_at: u64, fails: u64| {
        let diary = Diary::default();
        let walk = Walk { behind: 3, from: 1, observed: 0, diary: Diary::default() };
        Runner::new(database.clone(), Rare { diary, waits, breaks_at, fails }, walk)
    };
    let shows = |log: &SearchLog| {
        let has = |iteration: &u32| log.results(*iteration).expect("results").column("rare").is_ok();
        log.iterations().iter().map(has).collect::<Vec<_>>()
    };
    let from = |first: u32| (0..8).map(|iteration| iteration >= first).collect::<Vec<_>>();
    for waits in [false, true] {
        let log = runner(waits, u64::MAX, 2).search(&queries, 8).expect("a search");
        assert_eq!(shows(&log), from(5), "{waits}");
    }
    // It is durable when the run ends, before its iteration is there.
    let path = folder.path().join("run");
    let ended = runner(true, RARE + 1, 2).search_into(&path, &queries, 8).map(drop);
    assert!(ended.expect_err("it broke").to_string().contains("the scorer broke"));
    let committed = SearchLog::open(&path).expect("a run").iterations().len();
    assert!(committed <= 5, "{committed}");
    let log = runner(false, u64::MAX, 2).resume(&path, &queries, 8).expect("resumed");
    assert_eq!(shows(&log), from(5));
    drop(log);
    // What is answered when it is asked again shows where it failed, and from there on.
    let log = runner(false, u64::MAX, u64::MAX).retry_failed(true).resume(&path, &queries, 8).expect("resumed");
    assert_eq!(shows(&log), from(1));
    let rare = log.results(1).expect("results").column("rare").expect("shows").f64().expect("numbers").clone();
    assert_eq!(rare.iter().flatten().count(), 1, "it is kept");
    let all = log.scan_results().expect("a query").expect("rows").collect().expect("rows");
    assert_eq!(all.column("rare").expect("shows").null_count(), all.height() - 2);
}

/// Asks for an interrupt when it is asked for an item.
struct Interrupts {
    at: u64,
    flag: Arc<AtomicBool>,
}

impl Score for Interrupts {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let item = u64s(batch, "db_idx")[0];
        if item == self.at {
            self.flag.store(true, Ordering::Relaxed);
        }
        Ok(Column::new("score".into(), [item as f64]).into_frame())
    }
    fn batch_size(&self) -> usize {
        1
    }
}

#[test]
fn an_interrupted_asynchronous_search_records_the_right_counts_and_can_be_resumed() {
    let folder = folder();
    let database = line(&folder);
    let queries = uphill::queries_at(&database, &[0]).expect("queries");
    let runner = |at: u64, flag: &Arc<AtomicBool>| {
        let walk = Walk { behind: 2, from: 1, observed: 0, diary: Diary::default() };
        Runner::new(database.clone(), Interrupts { at, flag: flag.clone() }, walk).interrupt(flag.clone())
    };
    let whole = runner(u64::MAX, &Arc::default()).search(&queries, 8).expect("a search");
    let path = folder.path().join("run");
    let log = runner(8, &Arc::default()).search_into(&path, &queries, 8).expect("interrupted");
    let ended = log.manifest().ended.clone().expect("ended");
    assert_eq!(ended.reason, StopReason::Interrupted);
    assert_eq!(ended.iterations as usize, log.iterations().len());
    let committed: usize = log.iterations().iter().map(|at| log.results(*at).expect("results").height()).sum();
    assert_eq!(ended.evaluations, committed as u64, "what is not committed is not counted");
    drop(log);
    let log = runner(u64::MAX, &Arc::default()).resume(&path, &queries, 8).expect("resumed");
    for iteration in 0..8 {
        let (ours, theirs) = (log.results(iteration).expect("results"), whole.results(iteration).expect("results"));
        assert!(ours.equals_missing(&theirs), "iteration {iteration}");
    }
}

#[test]
fn manual_scores_are_rejected_with_asynchronous_batches() {
    let scene = scene(BY_HAND, 1, 30);
    let output = scene.command("run", "", &["ask", "run.toml", "--out", "run"]).output().expect("runs");
    let words = "uphill: update.behind: asynchronous batches do not work with manual scores (score.by_hand); remove update.behind\n";
    assert_eq!((stderr(&output).as_str(), output.status.code()), (words, Some(2)));
}

#[test]
fn an_ended_asynchronous_run_does_not_change_when_it_is_resumed() {
    let scene = scene(COMMAND, 2, 30);
    let whole = scene.whole();
    let files = || {
        let mut folders = vec![whole.path()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for path in files(&folder) {
                match path.is_dir() {
                    true => folders.push(path),
                    false => found.push((path.clone(), std::fs::read(&path).expect("a file"))),
                }
            }
        }
        found
    };
    let (before, paid) = (files(), whole.paid());
    succeeded(&whole.go(""));
    assert!(files() == before, "a file changed");
    assert_eq!(whole.paid(), paid);
}
