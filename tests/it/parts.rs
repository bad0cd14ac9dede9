//! Parts of a sum: each is asked as it says of itself, what one answered outlives whatever happens to another, and nothing that
//! it answers is lost.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use polars::prelude::*;
use uphill::{
    AnswerSink, Error, LanceDatabase, OnError, Result, RlUpdate, Runner, Score, SqlScore, StopConditions, SumScore,
    SurrogateUpdate,
};

use crate::common::*;
use crate::faults::{compiled, files};

/// What happened, for those who wait for it.
#[derive(Clone, Default)]
struct Events(Arc<(Mutex<BTreeMap<&'static str, usize>>, Condvar)>);

impl Events {
    fn happened(&self, what: &'static str) {
        *self.0.0.lock().expect("no panic").entry(what).or_default() += 1;
        self.0.1.notify_all();
    }

    fn wait_for(&self, what: &str, times: usize) {
        let not_yet = |events: &mut BTreeMap<&str, usize>| events.get(what).is_none_or(|count| *count < times);
        let waited = self.0.1.wait_timeout_while(self.0.0.lock().expect("no panic"), Duration::from_secs(60), not_yet);
        assert!(!waited.expect("no panic").1.timed_out(), "never {times} times: {what}");
    }
}

/// The calls of a part: their items, and the most at the same time.
#[derive(Default)]
struct Calls {
    batches: Vec<Vec<u64>>,
    running: usize,
    most: usize,
}

impl Calls {
    fn items(&self) -> Vec<u64> {
        let mut items = self.batches.concat();
        items.sort_unstable();
        items
    }
}

/// The item's number by a factor, with a number beside it; each call is noted.
struct Noted {
    workers: usize,
    batch_size: usize,
    factor: f64,
    calls: Arc<Mutex<Calls>>,
    /// As many calls at the same time as are waited for once.
    meet: usize,
    events: Events,
}

impl Noted {
    fn new(workers: usize, batch_size: usize, factor: f64) -> Self {
        let (calls, events) = (Arc::default(), Events::default());
        Noted { workers, batch_size, factor, calls, meet: 1, events }
    }
}

impl Score for Noted {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let items = u64s(batch, "db_idx");
        {
            let mut calls = self.calls.lock().expect("no panic");
            calls.batches.push(items.clone());
            calls.running += 1;
            calls.most = calls.most.max(calls.running);
        }
        self.events.happened("called");
        self.events.wait_for("called", self.meet);
        let values = |factor: f64| items.iter().map(|item| *item as f64 * factor).collect::<Vec<_>>();
        self.calls.lock().expect("no panic").running -= 1;
        Ok(df!("score" => values(self.factor), "strain" => values(-self.factor))?)
    }
    fn workers(&self) -> usize {
        self.workers
    }
    fn batch_size(&self) -> usize {
        self.batch_size
    }
}

fn library(folder: &TempDir) -> (LanceDatabase, DataFrame) {
    let database = exact_library(folder, &clustered(400, 4, 6, &mut rng(5))).k(10);
    let queries = uphill::queries_at(&database, &[1, 2, 3, 4]).expect("queries");
    (database, queries)
}

#[test]
fn each_part_has_its_own_workers_and_batch_size() {
    let folder = folder();
    let (database, queries) = library(&folder);
    let rules: [(&str, Box<dyn uphill::UpdateRule>); 2] =
        [("in turn", Box::new(RlUpdate::new(1.0))), ("behind", Box::new(SurrogateUpdate::new().batch(24).behind(2)))];
    for (name, rule) in rules {
        let (many, one, gated) = (Noted::new(4, 1, 1.0), Noted::new(1, 16, 2.0), Noted::new(2, 5, 3.0));
        let many = Noted { meet: 4, ..many };
        let calls = [&many, &one, &gated].map(|part| part.calls.clone());
        let score = SumScore::new().part("many", 1.0, many).gate("one", 1.0, 100.0, one).part("gated", 1.0, gated);
        let stop = StopConditions::new().evaluations(90);
        let mut runner = Runner::from_parts(Box::new(database.clone()), Box::new(score), rule).stop(stop);
        let log = runner.search(&queries, 50).expect("a search");
        let [many, one, gated] = calls.map(|calls| std::mem::take(&mut *calls.lock().expect("no panic")));
        assert_eq!((many.most, one.most), (4, 1), "{name}: at the same time");
        assert!((1..=2).contains(&gated.most), "{name}: {}", gated.most);
        // As many batches as there must be, of each iteration.
        let (mut ones, mut sizes) = (0, Vec::new());
        for iteration in log.iterations() {
            let results = log.results(*iteration).expect("results");
            let new = results.unique_stable(Some(&["db_idx".to_string()]), UniqueKeepStrategy::First, None);
            let new = new.expect("distinct").height();
            sizes.push(new);
            ones += new.div_ceil(16);
        }
        assert!(many.batches.iter().all(|batch| batch.len() == 1), "{name}");
        assert!(one.batches.iter().all(|batch| batch.len() <= 16), "{name}");
        assert!(gated.batches.iter().all(|batch| batch.len() <= 5), "{name}");
        assert!(one.batches.len() <= ones, "{name}: {} batches for {sizes:?}", one.batches.len());
        assert!(one.batches.iter().any(|batch| batch.len() == 16), "{name}: {sizes:?}");
        assert_eq!((many.items(), many.batches.len()), (one.items(), 90), "{name}: each item once");
        let passed: Vec<u64> = one.items().into_iter().filter(|item| *item >= 50).collect();
        assert_eq!(gated.items(), passed, "{name}: what passes the gate");
    }
}

#[test]
fn a_sum_within_a_sum_respects_the_settings_of_its_parts() {
    let folder = folder();
    let (database, queries) = library(&folder);
    let (one, other, beside) = (Noted::new(1, 7, 1.0), Noted::new(3, 2, 2.0), Noted::new(2, 4, 3.0));
    let calls = [&one, &other, &beside].map(|part| part.calls.clone());
    let inner = SumScore::new().part("one", 1.0, one).part("other", 1.0, other);
    let score = SumScore::new().part("inner", 1.0, inner).part("beside", 1.0, beside);
    let stop = StopConditions::new().evaluations(60);
    let log = Runner::new(database, score, RlUpdate::new(1.0)).stop(stop).search(&queries, 50).expect("a search");
    let all = uphill::collect(log.compile_results().expect("a query")).expect("compiled");
    for (item, score) in u64s(&all, "db_idx").into_iter().zip(f64s(&all, "score")) {
        assert_eq!(score, 6.0 * item as f64);
    }
    for (calls, workers, size) in
        calls.iter().zip([1, 3, 2]).zip([7, 2, 4]).map(|((calls, workers), size)| (calls, workers, size))
    {
        let calls = calls.lock().expect("no panic");
        assert!(calls.most <= workers && calls.batches.iter().all(|batch| batch.len() <= size));
        assert_eq!(calls.items().len(), 60, "each item once");
    }
}

/// How a part ends a run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    /// It fails on an item, where that stops the run.
    Fails,
    Away,
    Refuses,
    Panics,
    Interrupts,
    Never,
}

/// A part that ends the run while the other is busy.
struct Quick {
    how: How,
    events: Events,
}

impl Score for Quick {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let items = u64s(batch, "db_idx");
        if self.how != How::Never {
            self.events.wait_for("dear was asked", 1);
        }
        self.events.happened("quick has answered");
        match self.how {
            How::Away => return Err(Error::Unavailable { reason: "nobody there".into() }),
            How::Refuses => return Err(Error::Config("the quick part refuses".into())),
            How::Interrupts => return Err(Error::Interrupted),
            How::Panics => panic!("the quick part panics"),
            How::Fails | How::Never => {}
        }
        let score = |item: &u64| (self.how == How::Never || *item != items[0]).then_some(1.0);
        Ok(Column::new("score".into(), items.iter().map(score).collect::<Vec<_>>()).into_frame())
    }
}

/// A part that answers when the other has, one item after the other.
struct Dear {
    waits: bool,
    events: Events,
    asked: Arc<Mutex<Vec<u64>>>,
}

impl Score for Dear {
    fn score(&self, _: &DataFrame) -> Result<DataFrame> {
        unreachable!("answers come one by one")
    }

    fn score_into(&self, batch: &DataFrame, sink: &mut AnswerSink<'_>) -> Result<()> {
        let items = u64s(batch, "db_idx");
        self.asked.lock().expect("no panic").extend(&items);
        self.events.happened("dear was asked");
        if self.waits {
            self.events.wait_for("quick has answered", 1);
            // For what it said to be heard. If that takes longer, the other comes first, which is as good.
            std::thread::sleep(Duration::from_millis(100));
        }
        for item in items {
            sink(df!("db_idx" => [item], "score" => [item as f64], "strain" => [item as f64 / 2.0])?)?;
        }
        Ok(())
    }

    fn batch_size(&self) -> usize {
        4
    }
}

#[test]
fn the_answers_of_a_part_are_kept_however_another_part_ends_the_run() {
    let folder = folder();
    let (database, queries) = library(&folder);
    let runner = |how: How, asked: &Arc<Mutex<Vec<u64>>>, behind: usize| {
        let events = Events::default();
        let dear = Dear { waits: how != How::Never, events: events.clone(), asked: asked.clone() };
        let score = SumScore::new().part("dear", 1.0, dear).part("quick", 10.0, Quick { how, events });
        let rule = SurrogateUpdate::new().batch(8).behind(behind);
        Runner::new(database.clone(), score, rule).on_error(OnError::Stop).stop(StopConditions::new().evaluations(40))
    };
    for behind in [0, 2] {
        let whole = folder.path().join(format!("whole-{behind}"));
        drop(runner(How::Never, &Arc::default(), behind).search_into(&whole, &queries, 50).expect("a search"));
        for how in [How::Fails, How::Away, How::Refuses, How::Panics, How::Interrupts] {
            let (asked, path) = (Arc::default(), folder.path().join(format!("{how:?}-{behind}")));
            let ended = catch_unwind(AssertUnwindSafe(|| {
                runner(how, &asked, behind).search_into(&path, &queries, 50).map(|log| log.manifest().ended.clone())
            }));
            match (how, ended) {
                (How::Panics, Err(words)) => {
                    assert_eq!(words.downcast_ref::<&str>(), Some(&"the quick part panics"));
                }
                (How::Interrupts, Ok(Ok(ended))) => {
                    assert_eq!(ended.expect("ended").reason, uphill::StopReason::Interrupted);
                }
                (How::Fails, Ok(Err(error))) => {
                    let error = error.to_string();
                    assert!(error.contains("failed: quick: no score"), "{error}");
                }
                (How::Away | How::Refuses, Ok(Err(_))) => {}
                (how, _) => panic!("{how:?} ended otherwise"),
            }
            let before = asked.lock().expect("no panic").clone();
            assert!(!before.is_empty(), "{how:?}");
            let ledger = ledger(&path);
            assert_eq!(known(&ledger, "dear"), sorted(before), "{how:?}, {behind}: what came back is durable");
            assert_eq!(known(&ledger, "dear.strain"), known(&ledger, "dear"), "{how:?}");
            drop(runner(How::Never, &asked, behind).resume(&path, &queries, 50).expect("resumed"));
            let asked = sorted(asked.lock().expect("no panic").clone());
            assert_eq!(asked.len(), 40, "{how:?}, {behind}: {asked:?}");
            assert!(asked.is_sorted_by(|a, b| a < b), "{how:?}, {behind}: paid for twice: {asked:?}");
            assert!(compiled(&path).equals_missing(&compiled(&whole)), "{how:?}, {behind}");
        }
    }
}

fn sorted(mut items: Vec<u64>) -> Vec<u64> {
    items.sort_unstable();
    items
}

/// The files of a run's ledger.
pub fn ledger(run: &std::path::Path) -> Vec<DataFrame> {
    let is_parquet = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "parquet");
    files(&run.join("ledger")).into_iter().filter(is_parquet).map(|file| read(&file)).collect()
}

/// The items of which a column of the ledger is known.
pub fn known(ledger: &[DataFrame], column: &str) -> Vec<u64> {
    let known = |file: &DataFrame| {
        let Ok(column) = file.column(column) else { return Vec::new() };
        let known = column.is_not_null();
        let items = u64s(file, "db_idx").into_iter().zip(known.iter());
        items.filter(|(_, known)| *known == Some(true)).map(|(item, _)| item).collect()
    };
    sorted(ledger.iter().flat_map(known).collect())
}

#[test]
fn other_numbers_of_parts_are_separate_columns() {
    let folder = folder();
    let (database, queries) = library(&folder);
    let score = || {
        SumScore::new().gate("free", 0.0, 0.3, SqlScore::new("weight")).part("dock", 1.0, Noted::new(2, 3, 1.0)).part(
            "pose",
            1.0,
            Noted::new(1, 9, 2.0),
        )
    };
    let stop = |evaluations| StopConditions::new().evaluations(evaluations);
    let search = |run: &str, stop| {
        let runner = Runner::new(database.clone(), score(), RlUpdate::new(1.0));
        drop(runner.stop(stop).search_into(folder.path().join(run), &queries, 50).expect("a search"));
    };
    search("run", stop(30));
    let resumed = Runner::new(database.clone(), score(), RlUpdate::new(1.0)).stop(stop(60));
    { resumed }.resume(folder.path().join("run"), &queries, 50).expect("resumed");
    search("whole", stop(60));
    let (run, whole) = (compiled(&folder.path().join("run")), compiled(&folder.path().join("whole")));
    assert!(run.equals_missing(&whole), "{run} is not {whole}");
    let values = |name: &str| run.column(name).expect(name).f64().expect("numbers").iter().collect::<Vec<_>>();
    let (dock, pose) = (values("dock.strain"), values("pose.strain"));
    for (row, score) in values("score").into_iter().enumerate() {
        let item = u64s(&run, "db_idx")[row] as f64;
        assert_eq!((dock[row], pose[row]), (score.map(|_| -item), score.map(|_| -2.0 * item)));
    }
    assert!(dock.contains(&None) && dock.iter().any(Option::is_some));
    let ledger = ledger(&folder.path().join("run"));
    assert_eq!(known(&ledger, "dock.strain").len(), 60);
}

#[test]
fn manual_scores_cannot_be_a_part() {
    let folder = folder();
    let (database, queries) = library(&folder);
    let score = SumScore::new().part("lab", 1.0, uphill::ManualScore::new());
    let error = Runner::new(database, score, RlUpdate::new(1.0)).search(&queries, 1).err().expect("refused");
    assert_eq!(
        error.to_string(),
        "score.sum: part `lab`: manual scores cannot be a part; give scores of the whole sum instead"
    );
}
