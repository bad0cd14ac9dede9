//! Tests of the ranking of items that a run has not judged.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use ndarray::{Array2, Axis};
use polars::prelude::*;
use uphill::{
    LanceDatabase, RlUpdate, Runner, SearchLog, SqlFilter, SqlScore, StopConditions, SurrogateUpdate, VectorDatabase,
};

use crate::common::*;

/// The negative squared distance to item 0: one peak.
fn hill(embeddings: &Array2<f32>) -> impl Fn(&DataFrame) -> uphill::Result<Vec<f64>> + Send + Sync + 'static {
    let squared = |item: ndarray::ArrayView1<f32>| (&item - &embeddings.row(0)).mapv(|value| value * value).sum();
    let scores: Vec<f64> = embeddings.axis_iter(Axis(0)).map(|item| -f64::from(squared(item))).collect();
    move |items: &DataFrame| Ok(u64s(items, "db_idx").into_iter().map(|item| scores[item as usize]).collect())
}

struct Search {
    folder: TempDir,
    embeddings: Array2<f32>,
    database: LanceDatabase,
}

impl Search {
    fn new() -> Self {
        let (folder, embeddings) = (folder(), clustered(900, 6, 12, &mut rng(11)));
        let database = exact_library(&folder, &embeddings);
        Search { folder, embeddings, database }
    }

    fn runner(&self, behind: usize) -> Runner {
        let rule = SurrogateUpdate::new().batch(12).behind(behind);
        Runner::new(self.database.clone(), hill(&self.embeddings), rule).seed(4)
    }

    fn run(&self, name: &str, mut runner: Runner, iterations: u32) -> (PathBuf, Runner) {
        let items = self.database.sample(8, &mut uphill::random_stream(4, "queries", 0, 0)).expect("a sample");
        let queries = uphill::queries_at(&self.database, &items).expect("queries");
        let run = self.folder.path().join(name);
        runner.search_into(&run, &queries, iterations).expect("a search");
        (run, runner)
    }
}

/// The ids of the items in a run.
fn judged(run: &Path) -> HashSet<u64> {
    let results = SearchLog::open(run).expect("a run").compile_results().expect("a query");
    u64s(&uphill::collect(results).expect("results"), "db_idx").into_iter().collect()
}

fn optional(frame: &DataFrame, name: &str) -> Vec<Option<f64>> {
    frame.column(name).expect(name).f64().expect("f64").iter().collect()
}

/// All files below a folder, with their bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => all.extend(contents(&path)),
            false => drop(all.insert(path.clone(), std::fs::read(&path).expect("a file"))),
        }
    }
    all
}

#[test]
fn items_are_ranked_by_the_posterior_mean_that_an_explanation_gives_them() {
    let search = Search::new();
    let (run, mut runner) = search.run("run", search.runner(0), 10);
    let judged = judged(&run);
    let others: Vec<u64> = (0..900).filter(|item| !judged.contains(item)).collect();
    let before = contents(&run);
    let ranked = runner.rank_unscored(&run, 100).expect("ranked");
    let all = runner.rank_unscored(&run, 10_000).expect("ranked");
    assert!(before == contents(&run), "the ranking changed the run folder");
    assert_eq!((ranked.height(), all.height()), (100, others.len()));
    assert!(all.head(Some(100)).equals_missing(&ranked));
    assert_eq!(names(&ranked), ["db_idx", "name", "weight", "predicted", "deviation"]);

    // `explain` predicts each item on its own.
    let explained = runner.explain(&run, &others).expect("explained");
    let means = optional(&explained, "posterior_mean");
    let (predicted, deviations) = (optional(&explained, "predicted"), optional(&explained, "deviation"));
    let mut expected: HashMap<u64, (f64, Option<f64>, Option<f64>)> = HashMap::new();
    for (row, item) in u64s(&explained, "db_idx").into_iter().enumerate() {
        expected.entry(item).or_insert((means[row].expect("a mean"), predicted[row], deviations[row]));
    }
    let mut order = others.clone();
    order.sort_by(|a, b| expected[b].0.total_cmp(&expected[a].0));
    let ranking = u64s(&all, "db_idx");
    let is_near = |a: u64, b: u64| (expected[&a].0 - expected[&b].0).abs() < 1e-9;
    assert!(ranking.iter().zip(&order).all(|(found, expected)| is_near(*found, *expected)));
    for ((item, predicted), deviation) in
        ranking.iter().zip(optional(&all, "predicted")).zip(optional(&all, "deviation"))
    {
        assert_eq!((predicted, deviation), (expected[item].1, expected[item].2), "item {item}");
    }
    assert!(optional(&ranked, "predicted")[0].is_some());
}

#[test]
fn the_best_of_the_rest_are_near_the_peak_while_it_is_not_exhausted() {
    let search = Search::new();
    let (run, mut runner) = search.run("run", search.runner(0), 5);
    let ranked = runner.rank_unscored(&run, 10_000).expect("ranked");
    let score = hill(&search.embeddings);
    let mean = |items: &DataFrame| {
        let scores = score(items).expect("scores");
        scores.iter().sum::<f64>() / scores.len() as f64
    };
    let (best, rest) = (mean(&ranked.head(Some(10))), mean(&ranked.tail(Some(400))));
    assert!(best > rest + 50.0, "{best} {rest}");
}

#[test]
fn with_batches_in_flight_the_ranking_is_by_all_scores_of_the_run() {
    let search = Search::new();
    let (run, mut asynchronous) = search.run("run", search.runner(2), 12);
    let ranked = asynchronous.rank_unscored(&run, 50).expect("ranked");
    let judged = judged(&run);
    let items = u64s(&ranked, "db_idx");
    assert!(items.len() == 50 && items.iter().all(|item| !judged.contains(item)));
    // The last two batches are observed, so the next ones of a run that continues are not predicted as before them.
    let explained = asynchronous.explain(&run, &items[..1]).expect("explained");
    assert_ne!(optional(&explained, "predicted")[0], optional(&ranked, "predicted")[0]);
    assert!(asynchronous.rank_unscored(&run, 50).expect("ranked").equals_missing(&ranked), "ranked again");
}

#[test]
fn only_items_that_pass_the_filter_are_ranked_and_a_rejected_or_failed_item_is_not() {
    let search = Search::new();
    let runner = search.runner(0).filter(SqlFilter::new("weight < 0.5"));
    let (run, mut runner) = search.run("run", runner, 8);
    let ranked = runner.rank_unscored(&run, 10_000).expect("ranked");
    let judged = judged(&run);
    let expected: HashSet<u64> = (0..900).filter(|item| item * 37 % 100 < 50 && !judged.contains(item)).collect();
    assert_eq!(u64s(&ranked, "db_idx").into_iter().collect::<HashSet<_>>(), expected);
    // A closure, which reads whatever it wants.
    let filter = |results: DataFrame| {
        let weights = f64s(&results, "weight");
        assert!(results.column("embedding").is_ok());
        let rows: IdxCa = (0u32..).zip(weights).filter(|(_, weight)| *weight < 0.5).map(|(row, _)| Some(row)).collect();
        Ok(results.take(&rows)?)
    };
    let again = search.runner(0).filter(filter).rank_unscored(&run, 10_000).expect("ranked");
    assert_eq!(u64s(&again, "db_idx"), u64s(&ranked, "db_idx"));
    let error = search.runner(0).filter(SqlFilter::new("distance < 5")).rank_unscored(&run, 5).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "filter.sql reads `distance`, which only the neighbours of a query have, so it cannot be applied to all items"
    );

    // Half of the items fail: they are decided.
    let score = SqlScore::new("CASE WHEN weight < 0.5 THEN weight END");
    let rule = SurrogateUpdate::new().batch(12);
    let runner = Runner::new(search.database.clone(), score, rule).seed(4);
    let (run, mut runner) = search.run("failing", runner.stop(StopConditions::new().failed_share(1.0)), 8);
    let ranked = u64s(&runner.rank_unscored(&run, 10_000).expect("ranked"), "db_idx");
    let judged = self::judged(&run);
    assert!(ranked.len() + judged.len() == 900 && ranked.iter().all(|item| !judged.contains(item)));
}

#[test]
fn the_command_ranks_as_the_library_does_and_refuses_a_run_without_a_model() {
    let folder = folder();
    dataset(&folder, &clustered(400, 4, 8, &mut rng(1)), &uphill::IndexOptions::new());
    let file = |update: &str, evaluations: u32| {
        format!(
            "[database]\npath = \"items.lance\"\n[queries]\nsample = 4\n[score]\nsql = \"weight\"\n[update]\n{update}\n\
             [stop]\nevaluations = {evaluations}\n"
        )
    };
    let search = |name: &str, update: &str, evaluations: u32| {
        std::fs::write(folder.path().join("run.toml"), file(update, evaluations)).expect("written");
        uphill_ok(&["search", "run.toml", "--out", name], folder.path());
    };
    search("run", "features = [\"name\"]", 60);
    uphill_ok(&["results", "run", "--unscored", "-n", "50", "-o", "next.parquet"], folder.path());
    let next = read(&folder.path().join("next.parquet"));
    let config = uphill::Config::from_run(&SearchLog::open(folder.path().join("run")).expect("a run"), &[]);
    let mut runner = config.expect("a run file").ranker(&folder.path().join("run")).expect("a runner");
    assert!(next.equals_missing(&runner.rank_unscored(folder.path().join("run"), 50).expect("ranked")));
    let csv = uphill_ok(&["results", "run", "--unscored"], folder.path());
    assert_eq!(csv.lines().count(), 101, "the default is 100 items");
    assert_eq!(csv.lines().next(), Some("db_idx,name,weight,predicted,deviation"));
    // A moved dataset.
    std::fs::rename(folder.path().join("items.lance"), folder.path().join("moved.lance")).expect("moved");
    let moved = uphill_ok(&["results", "run", "--unscored", "--library", "moved.lance"], folder.path());
    assert_eq!(moved, csv);
    std::fs::rename(folder.path().join("moved.lance"), folder.path().join("items.lance")).expect("moved");

    search("rl", "rule = \"rl\"\nlr = 1.0", 60);
    let output = uphill(&["results", "rl", "--unscored"], folder.path());
    let message = "uphill: unscored items: the rule of this run has no model of the scores; only runs of the rule `surrogate` \
                   rank them\n";
    assert_eq!((stderr(&output).as_str(), output.status.code()), (message, Some(2)));
    search("start", "features = [\"name\"]", 3);
    let output = uphill(&["results", "start", "--unscored"], folder.path());
    let message = "uphill: unscored items: the run has no model yet, because it is still in its random start; resume it with a \
                   larger budget, then rank them\n";
    assert_eq!((stderr(&output).as_str(), output.status.code()), (message, Some(2)));
    let error = Runner::new(open(&folder.path().join("items.lance")), SqlScore::new("weight"), RlUpdate::new(1.0))
        .rank_unscored(folder.path().join("rl"), 5)
        .expect_err("refused");
    assert!(error.to_string().contains("has no model of the scores"), "{error}");
}
