//! The rule that asks a model of the scores what is worth paying for.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array2, Axis};
use polars::prelude::*;
use uphill::{
    BlockVisitor, DatasetIdentity, LanceDatabase, Metric, QueryOptions, Runner, SearchLog, SqlFilter, StopConditions,
    SurrogateUpdate, VectorDatabase,
};

use crate::common::*;

/// The negative squared distance to item 0: one peak.
fn hill(embeddings: &Array2<f32>) -> impl Fn(&DataFrame) -> uphill::Result<Vec<f64>> + Send + Sync + 'static {
    let scores: Vec<f64> = embeddings
        .axis_iter(Axis(0))
        .map(|item| -f64::from((&item - &embeddings.row(0)).mapv(|value| value * value).sum()))
        .collect();
    move |items: &DataFrame| Ok(u64s(items, "db_idx").into_iter().map(|item| scores[item as usize]).collect())
}

fn start(database: &LanceDatabase, items: usize, seed: u64) -> DataFrame {
    let items = database.sample(items, &mut uphill::random_stream(seed, "queries", 0, 0)).expect("a sample");
    uphill::queries_at(database, &items).expect("queries")
}

fn budget(evaluations: u64) -> StopConditions {
    StopConditions::new().evaluations(evaluations).nothing_new(20)
}

/// Ids in the order they were asked.
fn asked(log: &SearchLog) -> Vec<u64> {
    let all = uphill::collect(log.compile_results().expect("a query").sort(["evaluation"], Default::default()));
    u64s(&all.expect("compiled"), "db_idx")
}

#[test]
fn it_finds_most_of_the_best_of_one_peak_and_requests_no_item_twice() {
    let folder = folder();
    let library = clustered(3000, 8, 30, &mut rng(3));
    let database = exact_library(&folder, &library);
    let queries = start(&database, 16, 5);
    let mut runner = Runner::new(database, hill(&library), SurrogateUpdate::new()).seed(5).stop(budget(150));
    let log = runner.search(&queries, 1000).expect("a search");
    let asked = asked(&log);
    assert_eq!(asked.len(), 150);
    assert_eq!(asked.iter().collect::<HashSet<_>>().len(), 150);
    let rows: usize = log.iterations().iter().map(|iteration| log.results(*iteration).expect("results").height()).sum();
    assert_eq!(rows, 150, "an item was met twice");
    // The twenty nearest to item 0, by brute force.
    let mut best: Vec<u64> = (0..3000).collect();
    let scores: Vec<f32> =
        library.axis_iter(Axis(0)).map(|item| (&item - &library.row(0)).mapv(|value| value * value).sum()).collect();
    best.sort_by(|a, b| scores[*a as usize].total_cmp(&scores[*b as usize]));
    let found = best[..20].iter().filter(|item| asked.contains(item)).count();
    assert!(found >= 18, "found {found} of the best 20 for 5 % of the library");
}

#[test]
fn the_batch_size_is_as_configured_or_grows_from_5() {
    let folder = folder();
    let library = clustered(2000, 4, 10, &mut rng(4));
    let database = exact_library(&folder, &library);
    let sizes = |update: SurrogateUpdate| -> Vec<usize> {
        let queries = start(&database, 3, 1);
        let mut runner = Runner::new(database.clone(), hill(&library), update).stop(budget(200));
        let log = runner.search(&queries, 1000).expect("a search");
        log.iterations().iter().map(|iteration| log.results(*iteration).expect("results").height()).collect()
    };
    let default = sizes(SurrogateUpdate::new());
    assert_eq!(default[..3], [16, 5, 5]);
    assert!(default.is_sorted_by(|a, b| a <= b || *a == 16) && default.contains(&8), "{default:?}");
    assert_eq!(sizes(SurrogateUpdate::new().batch(40)), [40; 5]);
}

#[test]
fn a_filter_that_few_items_pass_does_not_stop_the_run_early() {
    let folder = folder();
    let library = clustered(5000, 6, 20, &mut rng(6));
    let database = exact_library(&folder, &library);
    let queries = start(&database, 16, 2);
    // Weights are 0, 0.01 … 0.99: one in a hundred passes.
    let mut runner = Runner::new(database, hill(&library), SurrogateUpdate::new())
        .filter(SqlFilter::new("weight = 0.37"))
        .stop(budget(1000));
    let log = runner.search(&queries, 1000).expect("a search");
    let all = uphill::collect(log.compile_results().expect("a query")).expect("compiled");
    assert!(f64s(&all, "weight").iter().all(|weight| *weight == 0.37));
    assert_eq!(all.height(), 50, "all that pass are found in the end");
}

#[test]
fn unusual_scores_and_libraries_are_supported() {
    let folder_a = folder();
    let mut library = clustered(300, 5, 5, &mut rng(7));
    for row in 0..100 {
        let first = library.row(0).to_owned();
        library.row_mut(row).assign(&first);
    }
    let database = exact_library(&folder_a, &library);
    let queries = start(&database, 4, 3);
    let spend = |score: fn(u64) -> f64| -> (usize, usize) {
        let score = move |items: &DataFrame| -> uphill::Result<Vec<f64>> {
            Ok(u64s(items, "db_idx").into_iter().map(score).collect())
        };
        let mut runner = Runner::new(database.clone(), score, SurrogateUpdate::new()).stop(budget(120));
        let log = runner.search(&queries, 200).expect("a search");
        let all = uphill::collect(log.compile_results().expect("a query")).expect("compiled");
        (all.height(), all.column("score").expect("score").null_count())
    };
    assert_eq!(spend(|_| 0.0), (120, 0), "equal scores");
    assert_eq!(spend(|_| f64::NAN), (120, 120), "only failures");
    assert_eq!(spend(|item| if item % 2 == 0 { f64::NAN } else { item as f64 }).0, 120, "some failures");
    assert_eq!(spend(|item| if item == 7 { 1e300 } else { -1e300 }), (120, 0), "huge scores");
    assert_eq!(spend(|item| (item as f64).exp().min(1e120)), (120, 0), "a heavy tail");

    // One dimension, and fewer items than a batch.
    for rows in [1, 3, 40] {
        let folder = folder();
        let line = Array2::from_shape_fn((rows, 1), |(row, _)| row as f32);
        let database = exact_library(&folder, &line);
        let queries = start(&database, 2, 3);
        let mut runner = Runner::new(database, hill(&line), SurrogateUpdate::new()).stop(budget(1000));
        assert_eq!(asked(&runner.search(&queries, 100).expect("a search")).len(), rows);
    }
}

#[test]
fn a_resumed_run_equals_one_that_was_not_stopped() {
    let folder = folder();
    let library = clustered(2000, 6, 10, &mut rng(8));
    let database = exact_library(&folder, &library);
    let queries = start(&database, 16, 9);
    let runner = || {
        Runner::new(database.clone(), hill(&library), SurrogateUpdate::new().points(60))
            .seed(9)
            .stop(StopConditions::default())
    };
    let whole = runner().search_into(folder.path().join("whole"), &queries, 24).expect("a search");
    let parts = folder.path().join("parts");
    runner().search_into(&parts, &queries, 1).expect("a search");
    for until in [2, 13, 24] {
        runner().resume(&parts, &queries, until).expect("a resumed search");
    }
    let parts = SearchLog::open(&parts).expect("a log");
    for iteration in 0..24 {
        let (a, b) = (whole.results(iteration).expect("results"), parts.results(iteration).expect("results"));
        assert!(a.equals_missing(&b), "results of iteration {iteration}: {a} and {b}");
        let (a, b) = (whole.queries(iteration).expect("queries"), parts.queries(iteration).expect("queries"));
        assert!(a.equals_missing(&b), "queries of iteration {iteration}");
    }
}

/// The share of items without a score among those asked, over three seeds.
fn share_without_a_score(
    database: &LanceDatabase,
    score: impl Fn(u64) -> Option<f64> + Clone + Send + Sync + 'static,
    evaluations: u64,
) -> f64 {
    let shares = [1, 2, 3].map(|seed| {
        let score = score.clone();
        let score = move |items: &DataFrame| -> uphill::Result<Vec<Option<f64>>> {
            Ok(u64s(items, "db_idx").into_iter().map(&score).collect())
        };
        let mut runner =
            Runner::new(database.clone(), score, SurrogateUpdate::new()).seed(seed).stop(budget(evaluations));
        let log = runner.search(&start(database, 16, seed), 1000).expect("a search");
        let all = uphill::collect(log.compile_results().expect("a query")).expect("compiled");
        assert_eq!(all.height(), evaluations as usize);
        let without = all.column("score").expect("score").null_count();
        println!(
            "seed {seed}: {without} of {evaluations} have no score; the best {:?}",
            f64s(&all.head(Some(3)), "score")
        );
        without as f64 / evaluations as f64
    });
    shares.iter().sum::<f64>() / 3.0
}

#[test]
fn a_region_that_always_fails_is_avoided() {
    let folder = folder();
    let library = normal(6000, 6, &mut rng(9));
    let database = exact_library(&folder, &library);
    // The score grows along the first component, and a quarter of the library, where it would be best, fails.
    let along: Vec<f64> = library.column(0).iter().map(|value| f64::from(*value)).collect();
    let share = share_without_a_score(&database, move |item| Some(along[item as usize]).filter(|at| *at < 0.67), 300);
    assert!(share < 0.3, "{share} of the items asked failed");
}

#[test]
fn if_a_gate_rejects_99_of_100_items_the_others_are_found() {
    let folder = folder();
    let library = clustered(10_000, 8, 100, &mut rng(10));
    let database = exact_library(&folder, &library);
    // One cluster in a hundred passes.
    let away: Vec<f64> = library.axis_iter(Axis(0)).map(|item| f64::from(item.dot(&item)).sqrt()).collect();
    let share = share_without_a_score(&database, move |item| (item % 100 == 7).then(|| -away[item as usize]), 400);
    assert!(share < 0.9, "{share} of the items asked were rejected");
}

/// A database that notes the most rows that one search asked for, and has an embedding that is not finite.
struct Watched {
    library: LanceDatabase,
    most: Arc<AtomicUsize>,
    broken: Option<u64>,
}

impl Watched {
    /// The frame, with the embedding of the broken item broken.
    fn broken(&self, mut items: DataFrame) -> uphill::Result<DataFrame> {
        if let Some(broken) = self.broken {
            let mut embeddings = uphill::matrix::<f32>(&items, "embedding")?.view().to_owned();
            for (row, item) in u64s(&items, "db_idx").into_iter().enumerate() {
                if item == broken {
                    embeddings[[row, 1]] = f32::NAN;
                }
            }
            items.with_column(uphill::embedding_column(embeddings.view())?)?;
        }
        Ok(items)
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
    fn query(&self, queries: &DataFrame, options: QueryOptions<'_>) -> uphill::Result<DataFrame> {
        self.most.fetch_max(options.k.unwrap_or(0) * queries.height(), Ordering::Relaxed);
        self.broken(self.library.query(queries, options)?)
    }
    fn take(&self, db_idx: &[u64]) -> uphill::Result<DataFrame> {
        self.broken(self.library.take(db_idx)?)
    }
    fn sample(&self, n: usize, rng: &mut uphill::RandomStream) -> uphill::Result<Vec<u64>> {
        self.library.sample(n, rng)
    }
    fn scan(&self, visit: &mut BlockVisitor<'_>) -> uphill::Result<()> {
        self.library.scan(visit)
    }
}

#[test]
fn the_rows_of_one_search_are_bounded_however_few_items_pass_the_filter_and_all_of_these_are_found() {
    let folder = folder();
    let library = normal(12_000, 4, &mut rng(13));
    let database = exact_library(&folder, &library);
    // Without the bound, 42 queries would ask for all 12,000 items each.
    for (filter, queries, passing) in
        [("weight < 0", 16, 0), ("weight = 0.37 AND name LIKE '%301'", 16, 12), ("weight >= 0", 3000, 3000)]
    {
        let most = Arc::new(AtomicUsize::new(0));
        let watched = Watched { library: database.clone(), most: most.clone(), broken: None };
        let stop = StopConditions::new().evaluations(3000).nothing_new(20);
        let mut runner =
            Runner::new(watched, hill(&library), SurrogateUpdate::new()).filter(SqlFilter::new(filter)).stop(stop);
        let found = asked(&runner.search(&start(&database, queries, 4), 1000).expect("a search"));
        let most = most.load(Ordering::Relaxed);
        println!("{filter}: {} found, at most {most} rows a search", found.len());
        assert!(most <= 50_000, "{filter}: {most} rows");
        assert!(found.len() >= passing, "{filter}: {} of {passing} found", found.len());
    }
}

#[test]
fn an_embedding_that_is_not_finite_is_rejected_by_name_before_the_first_evaluation() {
    let folder = folder();
    let library = clustered(200, 3, 5, &mut rng(14));
    let database = exact_library(&folder, &library);
    let paid = Arc::new(AtomicUsize::new(0));
    let counter = paid.clone();
    let score = move |items: &DataFrame| -> uphill::Result<Vec<f64>> {
        counter.fetch_add(items.height(), Ordering::Relaxed);
        Ok(f64s(items, "weight"))
    };
    let watched = Watched { library: database.clone(), most: Arc::default(), broken: Some(33) };
    let queries = uphill::queries_at(&database, &[33, 34]).expect("queries");
    let error = Runner::new(watched, score, SurrogateUpdate::new()).search(&queries, 9).err().expect("refused");
    let expected = "column `embedding`: expected finite numbers, found NaN in component 1 of item 33";
    assert_eq!(error.to_string(), format!("database in iteration 0: {expected}"));
    assert_eq!(paid.load(Ordering::Relaxed), 0);
}

const UNTUNED: &str =
    "seed = 3\n[database]\npath = \"items.lance\"\n[score]\nsql = \"weight\"\n[stop]\nevaluations = 90\n";

/// A library of 800 items as `items.lance`, and a run file that names no rule.
fn untuned() -> TempDir {
    let folder = folder();
    dataset(&folder, &clustered(800, 6, 8, &mut rng(12)), &Default::default());
    std::fs::write(folder.path().join("run.toml"), UNTUNED).expect("written");
    folder
}

#[test]
fn a_run_file_without_a_rule_uses_the_surrogate_and_spends_its_budget() {
    let folder = untuned();
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("run/run.json")).expect("run.json")).expect("JSON");
    assert_eq!(manifest["config"]["update"]["rule"], "surrogate");
    assert_eq!(manifest["ended"]["evaluations"], 90, "{manifest}");
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let folder = untuned();
    let results: Vec<DataFrame> = ["1", "3"]
        .iter()
        .map(|threads| {
            let out = format!("run-{threads}");
            let run = std::process::Command::new(env!("CARGO_BIN_EXE_uphill"))
                .args(["search", "run.toml", "--out", &out])
                .current_dir(folder.path())
                .envs(["RAYON_NUM_THREADS", "MATMUL_NUM_THREADS"].map(|name| (name, threads)))
                .output()
                .expect("the binary runs");
            assert!(run.status.success(), "{}", stderr(&run));
            uphill_ok(&["results", &out, "-o", &format!("{out}.parquet")], folder.path());
            read(&folder.path().join(format!("{out}.parquet")))
        })
        .collect();
    assert_eq!(results[0].height(), 90);
    assert!(results[0].equals_missing(&results[1]), "{} {}", results[0], results[1]);
}

#[test]
fn invalid_settings_are_rejected() {
    let folder = untuned();
    for (set, message) in [
        ("batch=0", "update.batch: expected at least 1, found 0"),
        ("points=1", "update.points: expected at least 2, found 1"),
    ] {
        let out = format!("run-{set}");
        let set = format!("update.{set}");
        let arguments = ["search", "run.toml", "--out", &out, "--set", "update.rule=surrogate", "--set", &set];
        let output = uphill(&arguments, folder.path());
        assert!(!output.status.success());
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
        assert!(!folder.path().join(out).exists(), "refused before anything is written");
    }
}

#[test]
fn it_chooses_its_own_queries_and_rejects_prune_and_gradient() {
    let folder = untuned();
    for set in ["prune.k=1", "restart.after=3", "gradient.scales=[0.0, 0.5]"] {
        let output = uphill(&["search", "run.toml", "--out", "run", "--set", set], folder.path());
        assert_eq!(output.status.code(), Some(2), "{set}: {}", stderr(&output));
        let section = set.split('.').next().expect("a section");
        let message = format!(
            "{section}: does not work with the rule `surrogate`, which chooses its own queries; remove [{section}], or set "
        );
        assert!(stderr(&output).contains(&message), "{}", stderr(&output));
        assert!(!folder.path().join("run").exists(), "refused before anything is written");
    }
}

/// A library of which one row has no finite embedding: searches pass over it, and it is never drawn.
struct WithOneOff(LanceDatabase);

impl VectorDatabase for WithOneOff {
    fn len(&self) -> u64 {
        self.0.len() + 1
    }
    fn dim(&self) -> usize {
        self.0.dim()
    }
    fn metric(&self) -> Metric {
        self.0.metric()
    }
    fn query(&self, queries: &DataFrame, options: QueryOptions<'_>) -> uphill::Result<DataFrame> {
        self.0.query(queries, options)
    }
    fn take(&self, db_idx: &[u64]) -> uphill::Result<DataFrame> {
        self.0.take(db_idx)
    }
    fn sample(&self, n: usize, rng: &mut uphill::RandomStream) -> uphill::Result<Vec<u64>> {
        self.0.sample(n, rng)
    }
    fn scan(&self, visit: &mut BlockVisitor<'_>) -> uphill::Result<()> {
        self.0.scan(visit)?;
        visit(&[self.0.len()], Array2::from_elem((1, self.0.dim()), f32::NAN).view())
    }
}

#[test]
fn a_row_that_is_not_finite_and_never_found_does_not_matter() {
    let folder = folder();
    let library = clustered(500, 4, 8, &mut rng(15));
    let database = exact_library(&folder, &library);
    let queries = start(&database, 16, 3);
    let search = |database: Box<dyn VectorDatabase>| {
        let rule = Box::new(SurrogateUpdate::new());
        let mut runner = Runner::from_parts(database, Box::new(hill(&library)), rule).seed(3).stop(budget(80));
        asked(&runner.search(&queries, 100).expect("a search"))
    };
    // The columns are not the point: they are read by neither.
    let bare = database.columns(&[] as &[&str]).expect("columns");
    assert_eq!(search(Box::new(WithOneOff(bare.clone()))), search(Box::new(bare)));
}
