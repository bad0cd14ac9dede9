//! What going on with a run costs: what it fetches again, and how many files it opens.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use polars::prelude::*;
use uphill::{
    BlockVisitor, DatasetIdentity, Error, LanceDatabase, Metric, QueryOptions, RestartUpdate, Result, RlUpdate, Runner,
    Score, SqlScore, Step, TopKDiscreteUpdate, TopKUpdate, UpdateRule, VectorDatabase,
};

use crate::common::*;

/// A library that notes how many items are fetched each time.
#[derive(Clone)]
struct Watched {
    library: LanceDatabase,
    fetched: Arc<Mutex<Vec<usize>>>,
}

impl Watched {
    fn new(library: &LanceDatabase) -> Self {
        Watched { library: library.clone(), fetched: Arc::default() }
    }

    /// What was fetched since this was asked last.
    fn fetched(&self) -> Vec<usize> {
        std::mem::take(&mut self.fetched.lock().expect("no panic"))
    }
}

impl VectorDatabase for Watched {
    fn len(&self) -> u64 {
        self.library.len()
    }
    fn dim(&self) -> usize {
        self.library.dim()
    }
    fn metric(&self) -> Metric {
        self.library.metric()
    }
    fn identity(&self) -> Option<&DatasetIdentity> {
        self.library.identity()
    }
    fn query(&self, queries: &DataFrame, options: QueryOptions<'_>) -> Result<DataFrame> {
        self.library.query(queries, options)
    }
    fn take(&self, db_idx: &[u64]) -> Result<DataFrame> {
        self.fetched.lock().expect("no panic").push(db_idx.len());
        self.library.take(db_idx)
    }
    fn sample(&self, n: usize, rng: &mut uphill::RandomStream) -> Result<Vec<u64>> {
        self.library.sample(n, rng)
    }
    fn scan(&self, visit: &mut BlockVisitor<'_>) -> Result<()> {
        self.library.scan(visit)
    }
}

/// Stays where it is, and notes all that it observes; it says nothing of embeddings.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<DataFrame>>>);

impl UpdateRule for Notes {
    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        self.0.lock().expect("no panic").push(step.results.clone());
        Ok(())
    }
    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        TopKUpdate::new(1).update(step)
    }
}

const ITERATIONS: u32 = 30;

#[test]
fn resuming_fetches_no_embeddings_for_rules_that_do_not_observe_them() {
    let folder = folder();
    let watched = Watched::new(&exact_library(&folder, &clustered(400, 4, 8, &mut rng(31))).k(5));
    let queries = uphill::queries_at(&watched, &[0, 70, 140]).expect("queries");
    type Rule = fn() -> Box<dyn UpdateRule>;
    let rules: [(&str, Rule); 5] = [
        ("rl", || Box::new(RlUpdate::new(1.0))),
        ("top-k", || Box::new(TopKUpdate::new(2))),
        ("top-k-discrete", || Box::new(TopKDiscreteUpdate::new(1))),
        ("restart", || Box::new(RestartUpdate::new(2, RlUpdate::new(1.0)))),
        ("closure", || Box::new(|step: &Step<'_>| Ok(step.queries.clone()))),
    ];
    for (name, rule) in rules {
        let run = folder.path().join(name);
        let runner =
            || Runner::from_parts(Box::new(watched.clone()), Box::new(SqlScore::new("weight")), rule()).seed(4);
        let log = runner().search_into(&run, &queries, ITERATIONS).expect("a search");
        let last = log.results(ITERATIONS - 1).expect("results").height();
        let next = log.queries(ITERATIONS).expect("queries");
        drop(log);
        watched.fetched();
        drop(runner().resume(&run, &queries, ITERATIONS).expect("resumed"));
        assert_eq!(watched.fetched(), Vec::<usize>::new(), "{name}");
        // The next queries come of what the last iteration met.
        std::fs::remove_dir_all(run.join(format!("queries/iteration={ITERATIONS:06}"))).expect("removed");
        let log = runner().resume(&run, &queries, ITERATIONS).expect("resumed");
        assert_eq!(watched.fetched().first(), Some(&last), "{name}");
        assert!(log.queries(ITERATIONS).expect("queries").equals_missing(&next), "{name}");
    }
}

#[test]
fn by_default_a_rule_observes_embeddings_which_a_resume_fetches_at_once() {
    let folder = folder();
    let watched = Watched::new(&exact_library(&folder, &clustered(400, 4, 8, &mut rng(32))).k(5));
    let queries = uphill::queries_at(&watched, &[0, 70, 140]).expect("queries");
    let run = folder.path().join("run");
    let search = |notes: &Notes| Runner::new(watched.clone(), SqlScore::new("weight"), notes.clone());
    let (then, again) = (Notes::default(), Notes::default());
    drop(search(&then).search_into(&run, &queries, ITERATIONS).expect("a search"));
    watched.fetched();
    drop(search(&again).resume(&run, &queries, ITERATIONS).expect("resumed"));
    let (then, again) = (then.0.lock().expect("no panic"), again.0.lock().expect("no panic"));
    assert_eq!((then.len(), again.len()), (ITERATIONS as usize, ITERATIONS as usize));
    for (then, again) in then.iter().zip(again.iter()) {
        assert!(then.equals_missing(again), "{then} is not {again}");
    }
    // All but the last, and the last.
    let met = |iterations: &[DataFrame]| iterations.iter().map(DataFrame::height).sum::<usize>();
    let (last, before) = then.split_last().expect("iterations");
    assert_eq!(watched.fetched(), [met(before), last.height()]);
}

/// The attribute `weight`, paid for one by one.
struct OneByOne;

impl Score for OneByOne {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        assert_eq!(batch.height(), 1);
        Ok(batch.column("weight")?.clone().with_name("score".into()).into_frame())
    }
    fn batch_size(&self) -> usize {
        1
    }
}

#[test]
fn single_answers_are_stored_in_few_files_once_each_in_the_order_of_requests() {
    let folder = folder();
    let library = exact_library(&folder, &normal(1500, 4, &mut rng(33))).k(1500);
    let run = folder.path().join("run");
    let queries = uphill::queries_at(&library, &[7]).expect("queries");
    let log = Runner::new(library, OneByOne, TopKUpdate::new(1)).search_into(&run, &queries, 1).expect("a search");
    let mut files: Vec<_> =
        std::fs::read_dir(run.join("ledger")).expect("a ledger").map(|file| file.expect("a file").path()).collect();
    files.sort();
    assert_eq!(files.len(), 3, "{files:?}");
    let ledger: Vec<DataFrame> = files.iter().map(|file| read(file)).collect();
    let column = |name| ledger.iter().flat_map(|file| u64s(file, name)).collect::<Vec<_>>();
    assert_eq!(column("evaluation"), (1..=1500).collect::<Vec<_>>());
    assert_eq!(column("db_idx"), u64s(&log.results(0).expect("results"), "db_idx"));
}

/// Of each seventh item nothing is known but that it fails, of the next that it is rejected; the others have a part.
struct Late {
    asked: Arc<AtomicUsize>,
    breaks_at: usize,
}

impl Score for Late {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        if self.asked.fetch_add(1, Ordering::Relaxed) == self.breaks_at {
            return Err(Error::Config("the scorer broke".into()));
        }
        let item = u64s(batch, "db_idx")[0];
        let text = |name: &str, text: &str| Column::new(name.into(), [text]);
        let columns = match item % 7 {
            0 => vec![Column::new("score".into(), [None::<f64>]), text("reason", "nothing to see")],
            1 => vec![Column::new("score".into(), [None::<f64>]), text("outcome", "rejected")],
            _ => vec![Column::new("score".into(), [item as f64]), Column::new("part".into(), [item as f64 / 2.0])],
        };
        Ok(DataFrame::new(1, columns)?)
    }
    fn batch_size(&self) -> usize {
        1
    }
}

#[test]
fn answers_with_different_columns_share_a_ledger_file_and_are_read_unchanged() {
    let folder = folder();
    let library = exact_library(&folder, &normal(200, 4, &mut rng(34))).k(60);
    let asked = Arc::new(AtomicUsize::new(0));
    let runner = |breaks_at| Runner::new(library.clone(), Late { asked: asked.clone(), breaks_at }, TopKUpdate::new(1));
    // The first item, which the query is at, fails: what is known of others shows later.
    let queries = uphill::queries_at(&library, &[7]).expect("queries");
    let calm = runner(usize::MAX).search_into(folder.path().join("calm"), &queries, 2).expect("a search");
    let paid = asked.swap(0, Ordering::Relaxed);
    let run = folder.path().join("broken");
    let error = runner(40).search_into(&run, &queries, 2).err().expect("broken").to_string();
    assert!(error.contains("the scorer broke"), "{error}");
    let broken = runner(usize::MAX).resume(&run, &queries, 2).expect("resumed");
    // The item that it broke at was asked again.
    assert_eq!(asked.load(Ordering::Relaxed), paid + 1);
    for iteration in 0..2 {
        let (ours, theirs) = (broken.results(iteration).expect("results"), calm.results(iteration).expect("results"));
        assert!(ours.equals_missing(&theirs), "{ours} is not {theirs}");
    }
    assert!(broken.results(0).expect("results").column("part").expect("a part").null_count() > 0);
    let files = std::fs::read_dir(run.join("ledger")).expect("a ledger").map(|file| file.expect("a file").path());
    assert_eq!(files.filter(|file| file.extension().is_some_and(|extension| extension == "parquet")).count(), 1);
}
