//! What going on with a run costs: what it fetches again, and how many files it opens.

use std::sync::{Arc, Mutex};

use polars::prelude::*;
use uphill::{
    Identity, LanceDatabase, Metric, QueryUpdate, Request, Restarting, Result, RlUpdate, Runner, Score, SqlScore, Step,
    TopKDiscreteUpdate, TopKUpdate, VectorDatabase, Visit,
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
    fn identity(&self) -> Option<&Identity> {
        self.library.identity()
    }
    fn query(&self, queries: &DataFrame, request: Request<'_>) -> Result<DataFrame> {
        self.library.query(queries, request)
    }
    fn take(&self, db_idx: &[u64]) -> Result<DataFrame> {
        self.fetched.lock().expect("no panic").push(db_idx.len());
        self.library.take(db_idx)
    }
    fn sample(&self, n: usize, rng: &mut rand_chacha::ChaCha8Rng) -> Result<Vec<u64>> {
        self.library.sample(n, rng)
    }
    fn scan(&self, visit: &mut Visit<'_>) -> Result<()> {
        self.library.scan(visit)
    }
}

/// Stays where it is, and notes all that it observes; it says nothing of embeddings.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<DataFrame>>>);

impl QueryUpdate for Notes {
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
fn going_on_fetches_nothing_again_for_rules_that_keep_nothing_of_what_they_met() {
    let folder = folder();
    let watched = Watched::new(&exact_library(&folder, &clustered(400, 4, 8, &mut rng(31))).k(5));
    let queries = uphill::queries_at(&watched, &[0, 70, 140]).expect("queries");
    let rules: [(&str, fn() -> Box<dyn QueryUpdate>); 5] = [
        ("rl", || Box::new(RlUpdate::new(1.0))),
        ("top-k", || Box::new(TopKUpdate::new(2))),
        ("top-k-discrete", || Box::new(TopKDiscreteUpdate::new(1))),
        ("restart", || Box::new(Restarting::new(2, RlUpdate::new(1.0)))),
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
fn a_rule_that_says_nothing_of_embeddings_observes_them_again_and_they_are_fetched_at_once() {
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
fn answers_that_come_one_by_one_are_in_few_files_each_once_in_the_order_asked() {
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
