//! The later emb-opt's rules: what it does, recorded; names of queries; prunes; resuming.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ndarray::{Array2, ArrayView2, arr2};
use polars::prelude::*;
use uphill::{
    Aggregation, GradientColumn, GradientDatabase, GradientUpdate, GroundTruth, IndexKind, IndexOptions, LanceDatabase,
    Norm, PruneUpdate, QueryGroup, RestartUpdate, RlUpdate, Runner, SearchLog, SqlFilter, Step, TopKDiscreteUpdate,
    TopKPrune, TopKUpdate, UpdateRule,
};

use crate::common::*;
use crate::numpy::RandomState;
use crate::runs::{frames, molecules, run_file};

const TUTORIAL: (usize, usize) = (10_000, 64);
const SMALL: (usize, usize) = (500, 8);

/// The library of emb-opt's tutorial: `rand`, `true_score` (null where `rand >= 0.9`) and `embedding`.
fn library((rows, dim): (usize, usize)) -> DataFrame {
    let mut random = RandomState::new(42);
    let embeddings = random.randn(rows, dim).mapv(|value| value as f32);
    let rand: Vec<f64> = (0..rows)
        .map(|_| {
            // The tutorial's `item`: ten letters.
            (0..10).for_each(|_| assert!(random.randint(26) < 26));
            random.rand()
        })
        .collect();
    let scores = score(embeddings.view());
    let scores: Vec<Option<f64>> =
        scores.iter().zip(&rand).map(|(score, rand)| (*rand < 0.9).then_some(*score)).collect();
    let columns = vec![
        Column::new("rand".into(), rand),
        Column::new("true_score".into(), scores),
        uphill::embedding_column(embeddings.view()).expect("embeddings"),
    ];
    DataFrame::new(rows, columns).expect("items")
}

fn score(embeddings: ArrayView2<f32>) -> Vec<f64> {
    let dim = embeddings.ncols() as f64;
    let of = |embedding: ndarray::ArrayView1<f32>| {
        let away = embedding.iter().map(|value| (f64::from(*value) - 0.75).powi(2)).sum::<f64>().sqrt() / dim.sqrt();
        (-0.5 * (away / 5.0).powi(2)).exp()
    };
    embeddings.rows().into_iter().map(of).collect()
}

struct Case {
    name: &'static str,
    shape: (usize, usize),
    queries: usize,
    iterations: u32,
    scales: Option<&'static [f64]>,
}

fn small(name: &'static str) -> Case {
    Case { name, shape: SMALL, queries: 3, iterations: 4, scales: None }
}

struct Reproduced {
    log: SearchLog,
    items: PathBuf,
    /// Met, filtered or not.
    met: usize,
    _folder: TempDir,
}

/// Searches as the original did; names, ids and order must be equal, vectors and scores within 1e-9.
fn reproduce(case: Case, update: impl UpdateRule + 'static) -> Reproduced {
    let folder = folder();
    let items = folder.path().join("items.parquet");
    write(&items, &library(case.shape));
    let dataset = folder.path().join("items.lance");
    uphill::index(&items, &dataset, &IndexOptions::new().index(IndexKind::None)).expect("indexed");
    let database = open(&dataset).columns(&["rand"]).expect("a column").k(10);

    let start = RandomState::new(40).randn(case.queries, case.shape.1);
    let mut queries = uphill::queries(start.view()).expect("queries");
    let score = |items: &DataFrame| -> uphill::Result<Vec<f64>> {
        Ok(score(uphill::matrix::<f32>(items, "embedding")?.view()))
    };
    let runner = match case.scales {
        None => Runner::new(database, score, update),
        Some(scales) => {
            queries = uphill::with_gradients(&queries, Array2::zeros(start.dim()).view()).expect("gradients");
            Runner::new(GradientDatabase::new(database, GradientColumn, scales), score, update)
        }
    };
    let met = Arc::new(Mutex::new(HashSet::new()));
    let seen = met.clone();
    let below = SqlFilter::new("rand < 0.9");
    let mut runner = runner.filter(move |results: DataFrame| {
        seen.lock().expect("a lock").extend(u64s(&results, "db_idx"));
        uphill::Filter::filter(&below, results)
    });
    let log = runner.search(&queries, case.iterations).expect("a search");

    let fixture = |kind: &str| read(&root().join(format!("tests/emb-opt/{}-{kind}.parquet", case.name)));
    let (golden_queries, golden_results) = (fixture("queries"), fixture("results"));
    for iteration in 0..=case.iterations {
        let (ours, golden) = (log.queries(iteration).expect("queries"), at(&golden_queries, iteration));
        for name in ["query_idx", "parent_idx", "collection_idx"] {
            let column =
                |frame: &DataFrame| frame.column(name).expect(name).u32().expect("u32").iter().collect::<Vec<_>>();
            assert_eq!(column(&ours), column(&golden), "{name} of iteration {iteration}");
        }
        let vectors = |frame: &DataFrame, name: &str| uphill::matrix::<f64>(frame, name).expect("vectors");
        let (ours, golden) = (vectors(&ours, "embedding"), vectors(&golden, "vector"));
        close(ours.view().iter(), golden.view().iter(), iteration);
    }
    for iteration in 0..case.iterations {
        let (ours, golden) = (log.results(iteration).expect("results"), at(&golden_results, iteration));
        assert_eq!(u32s(&ours, "query_idx"), u32s(&golden, "query_idx"), "iteration {iteration}");
        assert_eq!(u64s(&ours, "db_idx"), u64s(&golden, "db_idx"), "iteration {iteration}");
        close(f64s(&ours, "score").iter(), f64s(&golden, "score").iter(), iteration);
    }
    same_paths(&log, &golden_queries, case.iterations);
    let met = met.lock().expect("a lock").len();
    Reproduced { log, items, met, _folder: folder }
}

fn at(frame: &DataFrame, iteration: u32) -> DataFrame {
    frame.clone().lazy().filter(col("iteration").eq(lit(iteration))).collect().expect("rows")
}

fn close<'a>(ours: impl Iterator<Item = &'a f64>, golden: impl Iterator<Item = &'a f64>, iteration: u32) {
    let (ours, golden): (Vec<f64>, Vec<f64>) = (ours.copied().collect(), golden.copied().collect());
    assert_eq!(ours.len(), golden.len(), "iteration {iteration}");
    let largest = golden.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    for (ours, golden) in ours.iter().zip(&golden) {
        assert!((ours - golden).abs() <= 1e-9 * largest, "iteration {iteration}: {ours} is not {golden}");
    }
}

/// The paths of the tree, against a walk through the recorded parents.
fn same_paths(log: &SearchLog, golden: &DataFrame, iterations: u32) {
    let parents = golden.column("parent_idx").expect("parents").u32().expect("u32").iter().collect::<Vec<_>>();
    let pruned = golden.column("pruned").expect("pruned").bool().expect("bool").iter().map(|value| value == Some(true));
    let (at, query) = (u32s(golden, "iteration"), u32s(golden, "query_idx"));
    let parent_of: HashMap<(u32, u32), Option<u32>> =
        at.iter().copied().zip(query.iter().copied()).zip(parents.iter().copied()).collect();
    let mut expected = BTreeSet::new();
    for ((iteration, leaf), pruned) in at.iter().copied().zip(query.iter().copied()).zip(pruned) {
        let has_child = parent_of.iter().any(|((at, _), parent)| *at == iteration + 1 && *parent == Some(leaf));
        if iteration == iterations || (has_child && iteration + 1 < iterations) {
            continue;
        }
        let (mut iteration, mut query) = (iteration, leaf);
        loop {
            expected.insert((leaf, pruned, iteration, query));
            let Some(parent) = parent_of[&(iteration, query)] else { break };
            (iteration, query) = (iteration - 1, parent);
        }
    }
    let paths = uphill::collect(log.compile_paths().expect("a query")).expect("paths");
    let flags = paths.column("pruned").expect("pruned").bool().expect("bool").iter().map(|value| value == Some(true));
    let rows =
        u32s(&paths, "leaf_idx").into_iter().zip(flags).zip(u32s(&paths, "iteration")).zip(u32s(&paths, "query_idx"));
    let rows: Vec<(u32, bool, u32, u32)> =
        rows.map(|(((leaf, pruned), iteration), query)| (leaf, pruned, iteration, query)).collect();
    assert!(rows.is_sorted(), "{rows:?}");
    assert_eq!(rows, expected.into_iter().collect::<Vec<_>>());
    let met: usize =
        paths.column("db_idx").expect("db_idx").list().expect("lists").iter().flatten().map(|ids| ids.len()).sum();
    assert!(met > 0);
}

/// The share of the true top 1, 5, 10 and 50 that a run found.
fn shares(reproduced: &Reproduced) -> [f64; 4] {
    let truth = GroundTruth::new(&reproduced.items, "true_score");
    [1, 5, 10, 50].map(|top| {
        let evaluation = uphill::evaluate(&reproduced.log, &truth, top).expect("an evaluation");
        f64s(&evaluation.at_shares(&[]).expect("a frame"), "recall")[0]
    })
}

#[test]
fn the_tutorial_of_emb_opt() {
    let case = Case { name: "tutorial", shape: TUTORIAL, queries: 5, iterations: 15, scales: None };
    let reproduced = reproduce(case, RlUpdate::new(0.25));
    assert_eq!(reproduced.met, 186);
    assert_eq!(shares(&reproduced), [1.0, 0.4, 0.4, 0.2]);
}

#[test]
fn several_learning_rates_and_a_prune_to_one() {
    let case = Case { name: "branching", shape: TUTORIAL, queries: 3, iterations: 3, scales: None };
    let reproduced = reproduce(case, PruneUpdate::new(TopKPrune::new(1), RlUpdate::branching([0.25, 1.0, 5.0])));
    assert_eq!(reproduced.met, 112);
    assert_eq!(shares(&reproduced), [1.0, 0.4, 0.3, 0.12]);
}

#[test]
fn the_best_items_as_queries() {
    let prune = TopKPrune::new(4).aggregation(Aggregation::Max).group(QueryGroup::Global);
    reproduce(small("discrete"), PruneUpdate::new(prune, TopKDiscreteUpdate::new(2)));
}

#[test]
fn the_unweighted_mean_of_the_best_items() {
    reproduce(small("continuous"), TopKUpdate::new(3).score_weighting(false));
}

#[test]
fn gradients_clipped_by_each_norm() {
    let rule = |penalty: f64| RlUpdate::new(0.5).distance_penalty(penalty).scale_distance_penalty(false);
    reproduce(small("clip-l1"), rule(0.3).max_norm(1.0).norm(Norm::L1));
    reproduce(small("clip-l2"), rule(0.3).max_norm(0.4));
    reproduce(small("clip-max"), rule(0.0).max_norm(0.2).norm(Norm::Max));
}

#[test]
fn pruning_by_each_group_and_aggregation() {
    let rule = || RlUpdate::branching([0.2, 0.5, 1.0]);
    reproduce(small("prune-collection-max"), PruneUpdate::new(TopKPrune::new(2).aggregation(Aggregation::Max), rule()));
    reproduce(small("prune-parent-mean"), PruneUpdate::new(TopKPrune::new(2).group(QueryGroup::Parent), rule()));
    reproduce(small("prune-global-mean"), PruneUpdate::new(TopKPrune::new(3).group(QueryGroup::Global), rule()));
}

#[test]
fn queries_along_the_gradient_of_the_parents_neighbours() {
    let rule = GradientUpdate::new(RlUpdate::new(0.3)).distance_penalty(0.1).max_norm(1.0);
    reproduce(Case { scales: Some(&[0.0, 0.1, 0.5]), ..small("gradient") }, rule);
    let rule = GradientUpdate::new(PruneUpdate::new(TopKPrune::new(1), TopKDiscreteUpdate::new(3)));
    reproduce(Case { scales: Some(&[0.0, 0.2]), ..small("gradient-branching") }, rule);
    // The gradient is there for what survives, so the order of the two does not matter.
    let rule = PruneUpdate::new(TopKPrune::new(1), GradientUpdate::new(TopKDiscreteUpdate::new(3)));
    reproduce(Case { scales: Some(&[0.0, 0.2]), ..small("gradient-branching") }, rule);
}

/// Six items on a line, scored by their position.
fn line(folder: &TempDir) -> LanceDatabase {
    let library = arr2(&[[0.0f32, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0], [5.0, 0.0]]);
    exact_library(folder, &library).k(2)
}

fn by_position(items: &DataFrame) -> uphill::Result<Vec<f64>> {
    Ok(u64s(items, "db_idx").into_iter().map(|item| item as f64).collect())
}

fn names_of(queries: &DataFrame) -> Vec<(u32, Option<u32>, u32)> {
    let parents = queries.column("parent_idx").expect("parents").u32().expect("u32").iter().collect::<Vec<_>>();
    let rows = u32s(queries, "query_idx").into_iter().zip(parents).zip(u32s(queries, "collection_idx"));
    rows.map(|((query, parent), collection)| (query, parent, collection)).collect()
}

#[test]
fn a_query_that_finds_nothing_stays_while_others_branch() {
    let folder = folder();
    let database = line(&folder);
    let queries = uphill::queries_at(&database, &[0, 5, 2]).expect("queries");
    let filter = |results: DataFrame| {
        let kept = BooleanChunked::from_iter(u32s(&results, "query_idx").into_iter().map(|query| Some(query != 1)));
        Ok(results.filter(&kept).expect("filtered"))
    };
    let mut runner = Runner::new(database, by_position, TopKDiscreteUpdate::new(2)).filter(filter);
    let next = runner.step(0, &queries, None).expect("a step");
    let expected = [(1, Some(1), 1), (3, Some(0), 0), (4, Some(0), 0), (5, Some(2), 2), (6, Some(2), 2)];
    assert_eq!(names_of(&next), expected);
    let vectors = uphill::matrix::<f64>(&next, "embedding").expect("vectors");
    assert_eq!(vectors.view().column(0).to_vec(), [5.0, 1.0, 0.0, 2.0, 1.0]);
}

#[test]
fn ids_of_pruned_queries_are_not_used_again() {
    let folder = folder();
    let database = line(&folder);
    let queries = uphill::queries_at(&database, &[5, 0, 1]).expect("queries");
    // Query 0 is the best and goes on alone, as it meets one item; then it branches.
    let filter = |results: DataFrame| {
        let once = u32s(&results, "query_idx").len() == 6;
        let kept = u64s(&results, "db_idx").into_iter().map(|item| Some(!once || item != 4));
        Ok(results.filter(&BooleanChunked::from_iter(kept)).expect("filtered"))
    };
    let prune = TopKPrune::new(1).group(QueryGroup::Global);
    let mut runner =
        Runner::new(database, by_position, PruneUpdate::new(prune, TopKDiscreteUpdate::new(2))).filter(filter);
    let log = runner.search(&queries, 2).expect("a search");
    assert_eq!(names_of(&log.queries(1).expect("queries")), [(0, Some(0), 0)]);
    // 1 and 2 have been.
    assert_eq!(names_of(&log.queries(2).expect("queries")), [(3, Some(0), 0), (4, Some(0), 0)]);
}

#[test]
fn a_query_that_finds_nothing_new_restarts_at_an_item_and_others_continue() {
    let folder = folder();
    let database = line(&folder);
    let queries = uphill::queries_at(&database, &[0, 5]).expect("queries");
    // Query 0 stays and meets items 0 and 1 each time; query 1 goes down the line.
    let walk = |step: &Step<'_>| {
        let mut vectors = uphill::matrix::<f64>(step.queries, "embedding")?.view().to_owned();
        vectors[[1, 0]] -= 1.0;
        uphill::next_queries(step.queries, vectors.view())
    };
    let mut runner = Runner::new(database, by_position, RestartUpdate::new(2, walk)).seed(4);
    let log = runner.search(&queries, 3).expect("a search");
    for iteration in [1, 2] {
        let next = log.queries(iteration).expect("queries");
        assert_eq!(names_of(&next), [(0, Some(0), 0), (1, Some(1), 1)]);
    }
    let last = log.queries(3).expect("queries");
    assert_eq!(names_of(&last), [(0, None, 0), (1, Some(1), 1)]);
    let vectors = uphill::matrix::<f64>(&last, "embedding").expect("vectors");
    let (place, going) = (vectors.view().row(0).to_vec(), vectors.view().row(1).to_vec());
    assert!((0..6).any(|item| place == [f64::from(item), 0.0]), "{place:?} is no item");
    assert_eq!(going, [2.0, 0.0]);
}

#[test]
fn the_later_of_two_equal_queries_continues_and_queries_that_found_nothing_come_last() {
    let kept = |scores: fn(u32) -> Option<f64>, prune: TopKPrune| -> Vec<u32> {
        let folder = folder();
        let database = line(&folder);
        let queries = uphill::queries_at(&database, &[0, 2, 4]).expect("queries");
        let score = move |items: &DataFrame| -> uphill::Result<Vec<f64>> {
            let of = |item: u64| scores(item as u32 / 2).unwrap_or(f64::NAN);
            Ok(u64s(items, "db_idx").into_iter().map(of).collect())
        };
        let rule = |step: &Step<'_>| Ok(step.queries.clone());
        let mut runner = Runner::new(database.k(1), score, PruneUpdate::new(prune, rule));
        u32s(&runner.step(0, &queries, None).expect("a step"), "query_idx")
    };
    let all = TopKPrune::new(2).group(QueryGroup::Global);
    assert_eq!(kept(|_| Some(1.0), all), [1, 2]);
    assert_eq!(kept(|query| (query != 2).then_some(-1e300), all), [0, 1]);
    assert_eq!(kept(|query| (query == 0).then_some(-5.0), all), [0, 2]);
    assert_eq!(kept(|_| None, all), [1, 2]);
    // Each start is a collection; without parents, they are one group.
    assert_eq!(kept(|query| Some(query.into()), TopKPrune::new(1)), [0, 1, 2]);
    assert_eq!(kept(|query| Some(query.into()), TopKPrune::new(1).group(QueryGroup::Parent)), [2]);
}

#[test]
fn invalid_settings_are_rejected_with_both_values() {
    let refused = |rule: Box<dyn UpdateRule>| {
        let folder = folder();
        let database = line(&folder);
        let queries = uphill::queries_at(&database, &[0, 5]).expect("queries");
        Runner::new(database, by_position, rule).search(&queries, 40).err().expect("refused").to_string()
    };
    assert_eq!(
        refused(Box::new(RlUpdate::branching([]))),
        "update.lr: expected at least one learning rate, found none"
    );
    assert_eq!(
        refused(Box::new(RlUpdate::new(1.0).max_norm(0.0))),
        "update.max_norm: expected a number above 0, found 0"
    );
    assert_eq!(refused(Box::new(TopKDiscreteUpdate::new(0))), "update.k: expected at least 1, found 0");
    let rule = PruneUpdate::new(TopKPrune::new(0), RlUpdate::new(1.0));
    assert_eq!(refused(Box::new(rule)), "prune.k: expected at least 1, found 0");
    let rule = RestartUpdate::new(0, RlUpdate::new(1.0));
    assert_eq!(refused(Box::new(rule)), "restart.after: expected at least 1, found 0");
    let rule = PruneUpdate::new(|_: &Step<'_>| Ok(vec![1, 7]), RlUpdate::new(1.0));
    assert_eq!(
        refused(Box::new(rule)),
        "prune in iteration 0: column `query_idx`: expected queries of the step, found 7"
    );
    // 2, 4, 8, … queries: the sixteenth doubling is too many.
    assert_eq!(
        refused(Box::new(TopKDiscreteUpdate::new(2))),
        "update in iteration 15: column `rows`: expected at most 100000 queries, \
         found more; if the rule branches, prune the queries"
    );
}

#[test]
fn a_search_along_gradients_needs_them_in_the_queries() {
    let folder = folder();
    let database = GradientDatabase::new(line(&folder), GradientColumn, [0.0, 1.0]);
    let queries = uphill::queries_at(&database, &[0, 5]).expect("queries");
    let error = Runner::new(database, by_position, RlUpdate::new(1.0)).step(0, &queries, None).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "queries in iteration 0: column `gradient`: expected gradients, found none; \
         add it to the starting queries (with_gradients), and use a rule that writes it (GradientUpdate)"
    );
}

/// The rules of this file as sections of a run file; `[update]` is open.
const RULES: [&str; 8] = [
    "rule = \"rl\"\nlr = [0.5, 1.0, 3.0]\nmax_norm = 1.0\nnorm = \"l1\"\n[prune]\nk = 1",
    "rule = \"top-k\"\nk = 3\nscore_weighting = false\n[prune]\nk = 9\nworth = \"max\"\ngroup = \"global\"",
    "rule = \"top-k-discrete\"\nk = 3\n[prune]\nk = 2\ngroup = \"parent\"\nworth = \"max\"",
    "rule = \"rl\"\nlr = 1.0\n[gradient]\nscales = [0.0, 0.5]\ndistance_penalty = 0.1\nmax_norm = 2.0",
    "rule = \"top-k-discrete\"\nk = 2\n[prune]\nk = 1\n[gradient]\nscales = [0.0, 0.5]\nnorm = \"max\"\nmax_norm = 2",
    "rule = \"top-k\"\nk = 3",
    "rule = \"top-k-discrete\"\nk = 2\n[prune]\nk = 1\n[restart]\nafter = 1\n[gradient]\nscales = [0.0, 0.5]",
    "rule = \"surrogate\"\npoints = 60",
];

#[test]
fn resumed_runs_with_each_rule_equal_those_that_never_stopped() {
    for rule in RULES {
        // Queries multiply by 3/2 at most where a prune is by parent.
        let folder = molecules(&run_file(rule, "iterations = 5"));
        uphill_ok(&["search", "run.toml", "--out", "whole"], folder.path());
        for stop in ["1", "2", "4"] {
            let set = format!("stop.iterations={stop}");
            let mut arguments = vec!["search", "run.toml", "--out", "parts", "--set", &set];
            if stop != "1" {
                arguments.push("--resume");
            }
            uphill_ok(&arguments, folder.path());
            // As if it had been killed before the next queries were there: they are made anew.
            let next =
                folder.path().join(format!("parts/queries/iteration={:06}", stop.parse::<u32>().expect("a number")));
            std::fs::remove_dir_all(next).expect("removed");
        }
        uphill_ok(&["search", "run.toml", "--out", "parts", "--resume"], folder.path());
        assert!(frames(&folder.path().join("whole")) == frames(&folder.path().join("parts")), "{rule}");
    }
}

#[test]
fn killed_runs_with_each_rule_resume_to_the_same_frames() {
    for rule in RULES {
        let folder = molecules(&run_file(rule, "iterations = 8"));
        uphill_ok(&["search", "run.toml", "--out", "whole"], folder.path());
        let start = |resume: bool| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_uphill"));
            command.args(["search", "run.toml", "--out", "killed"]).current_dir(folder.path());
            command.args(resume.then_some("--resume"));
            let quiet = std::process::Stdio::null;
            command.stdout(quiet()).stderr(quiet()).spawn().expect("the binary runs")
        };
        let mut child = start(false);
        for committed in [1, 4] {
            let waited_for = folder.path().join(format!("killed/results/iteration={committed:06}"));
            while !waited_for.exists() && child.try_wait().expect("a child").is_none() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            child.kill().expect("killed");
            child.wait().expect("reaped");
            child = start(true);
        }
        assert!(child.wait().expect("a child").success(), "{rule}");
        assert!(frames(&folder.path().join("whole")) == frames(&folder.path().join("killed")), "{rule}");
    }
}

#[test]
fn a_run_file_means_what_the_same_rules_mean_in_rust() {
    let clipped = RlUpdate::branching([0.5, 1.0, 3.0]).max_norm(1.0).norm(Norm::L1);
    let best = TopKPrune::new(9).aggregation(Aggregation::Max).group(QueryGroup::Global);
    let along = GradientUpdate::new(RlUpdate::new(1.0)).distance_penalty(0.1).max_norm(2.0);
    let rules: [(&str, Box<dyn UpdateRule>, bool); 3] = [
        (RULES[0], Box::new(PruneUpdate::new(TopKPrune::new(1), clipped)), false),
        (RULES[1], Box::new(PruneUpdate::new(best, TopKUpdate::new(3).score_weighting(false))), false),
        (RULES[3], Box::new(along), true),
    ];
    for (sections, rule, gradient) in rules {
        let folder = molecules(&run_file(sections, "iterations = 4"));
        uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
        let theirs = SearchLog::open(folder.path().join("run")).expect("a run");
        let database = open(&folder.path().join("molecules.lance")).k(10).nprobes(16);
        let start = theirs.queries(0).expect("queries");
        let score = uphill::SqlScore::new("qed");
        let runner = match gradient {
            true => Runner::new(GradientDatabase::new(database, GradientColumn, [0.0, 0.5]), score, rule),
            false => Runner::new(database, score, rule),
        };
        let ours = runner.filter(SqlFilter::new("mw < 500")).seed(7).search(&start, 4).expect("a search");
        for iteration in 0..=4 {
            let (ours, theirs) =
                (ours.queries(iteration).expect("queries"), theirs.queries(iteration).expect("queries"));
            assert!(ours.equals_missing(&theirs), "{sections}: iteration {iteration}: {ours} {theirs}");
        }
    }
}

#[test]
fn trajectories_in_parts_are_the_same_whatever_the_size_of_a_part() {
    // Branching and pruned queries, filters after which some meet nothing, and queries of an iteration that never was.
    let folder = molecules(&run_file(RULES[0], "iterations = 5"));
    let set = ["--set", "filter.sql=\"mw < 250\""];
    uphill_ok(&[&["search", "run.toml", "--out", "run"], &set[..]].concat(), folder.path());
    let log = SearchLog::open(folder.path().join("run")).expect("a run");
    let keys = [col("iteration"), col("query_idx")];
    let met = log.scan_results().expect("a query").expect("results");
    let met = met.group_by_stable(keys.clone()).agg([col("db_idx"), col("score")]);
    let queries = log.scan_queries().expect("a query").expect("queries");
    let all = queries.join(met, keys.clone(), keys, JoinArgs::new(JoinType::Left));
    let all = all.sort(["query_idx", "iteration"], Default::default()).collect().expect("joined");
    let nothing = all.column("score").expect("score").null_count();
    assert!(nothing > 0 && nothing < all.height(), "{nothing} of {} met nothing", all.height());
    let lists = |frame: &DataFrame, name: &str| -> Vec<Vec<AnyValue<'static>>> {
        let lists = frame.column(name).expect(name).list().expect("lists").clone();
        let list =
            |row| lists.get_as_series(row).map_or(Vec::new(), |list| list.iter().map(AnyValue::into_static).collect());
        (0..lists.len()).map(list).collect()
    };
    let same = |ours: &DataFrame, what: &str| {
        assert_eq!(names(ours), names(&all), "{what}");
        let steps = |frame: &DataFrame| frame.drop("db_idx").and_then(|frame| frame.drop("score")).expect("steps");
        assert!(steps(ours).equals_missing(&steps(&all)), "{what}: {ours} {all}");
        for name in ["db_idx", "score"] {
            assert_eq!(ours.column(name).expect(name).null_count(), 0);
            assert_eq!(lists(ours, name), lists(&all, name), "{what}");
        }
    };
    for (bytes, several) in [(1, true), (20_000, true), (1 << 30, false)] {
        let parts: Vec<DataFrame> = log.trajectories(bytes).expect("parts").map(|part| part.expect("a part")).collect();
        assert_eq!(parts.len() > 1, several, "{} parts of {bytes} bytes", parts.len());
        let together = parts.into_iter().reduce(|all, part| all.vstack(&part).expect("the same columns"));
        same(&together.expect("a part"), &format!("parts of {bytes} bytes"));
    }
    same(&uphill::collect(log.compile_trajectories().expect("a query")).expect("trajectories"), "the query");
    uphill_ok(&["trajectories", "run", "-o", "all.parquet"], folder.path());
    same(&read(&folder.path().join("all.parquet")), "the command");
    for most in [0, 1, 7] {
        let limit = most.to_string();
        assert_eq!(uphill_ok(&["trajectories", "run", "-n", &limit], folder.path()).lines().count(), 1 + most);
    }
}

#[test]
fn paths_come_from_the_command_line() {
    let folder = molecules(&run_file(RULES[0], "iterations = 3"));
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    uphill_ok(&["trajectories", "run", "--paths", "-o", "paths.parquet"], folder.path());
    let paths = read(&folder.path().join("paths.parquet"));
    assert_eq!(
        names(&paths),
        [
            "leaf_idx",
            "pruned",
            "iteration",
            "query_idx",
            "parent_idx",
            "collection_idx",
            "embedding",
            "db_idx",
            "score"
        ]
    );
    // 16 starts; of each, 3 children, of which one goes on, and 3 of that: 2 leaves of length 2, 3 of length 3.
    assert_eq!(paths.height(), 16 * (2 * 2 + 3 * 3));
    let queries = uphill_ok(&["queries", "run"], folder.path());
    assert_eq!(queries.lines().count(), 1 + 16 * (1 + 3 + 3));
}

#[test]
fn errors_for_wrong_rules_name_the_key() {
    let refused = |rule: &str| {
        let folder = molecules(&run_file(rule, "iterations = 1"));
        let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
        assert_eq!(output.status.code(), Some(2), "{rule}");
        stderr(&output)
    };
    assert!(refused("rule = \"rl\"\nlr = \"fast\"").ends_with("expected a number or a list of numbers\n"));
    assert!(
        refused("rule = \"rl\"\n[prune]\nk = 1\nwroth = \"max\"")
            .contains("unknown key `wroth`; did you mean `worth`?")
    );
    assert!(
        refused("rule = \"rl\"\n[gradient]\nscales = []")
            .contains("gradient.scales: expected at least one number, found an empty list")
    );
    assert!(refused("rule = \"rl\"\n[prune]\nk = 0").contains("prune.k: expected at least 1, found 0"));
}
