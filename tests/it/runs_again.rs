//! A runner used twice searches as one made anew would, with every rule.

use polars::prelude::*;
use uphill::{
    Features, GradientColumn, GradientDatabase, GradientUpdate, LanceDatabase, ManualScore, PruneUpdate, QueryGroup,
    RestartUpdate, RlUpdate, Runner, Score, SearchLog, SearchState, SqlScore, SurrogateUpdate, TopKDiscreteUpdate,
    TopKPrune, TopKUpdate, UpdateRule, VectorDatabase,
};

use crate::common::*;

const ITERATIONS: u32 = 6;

/// By name, so that each run can have a rule of its own.
const RULES: [&str; 8] =
    ["rl", "rl branching", "top-k", "top-k-discrete", "restarting", "gradient", "boxed surrogate", "surrogate"];

fn rule(name: &str) -> Box<dyn UpdateRule> {
    let few = || TopKPrune::new(3).group(QueryGroup::Global);
    match name {
        "rl" => Box::new(RlUpdate::new(1.0)),
        "rl branching" => Box::new(PruneUpdate::new(few(), RlUpdate::branching([0.5, 2.0]))),
        "top-k" => Box::new(TopKUpdate::new(2)),
        "top-k-discrete" => Box::new(PruneUpdate::new(few(), TopKDiscreteUpdate::new(2))),
        "restarting" => Box::new(RestartUpdate::new(1, PruneUpdate::new(few(), TopKDiscreteUpdate::new(2)))),
        "gradient" => Box::new(GradientUpdate::new(PruneUpdate::new(few(), TopKDiscreteUpdate::new(2)))),
        "boxed surrogate" => Box::new(RestartUpdate::new(1, Box::new(surrogate()) as Box<dyn UpdateRule>)),
        _ => Box::new(surrogate()),
    }
}

/// Whether the score is told by hand or read from a column: the model must not read that column.
fn surrogate() -> SurrogateUpdate {
    SurrogateUpdate::new().features(Features::columns(["name"]))
}

fn runner(name: &str, database: &LanceDatabase, score: impl Score + 'static) -> Runner {
    let database: Box<dyn VectorDatabase> = match name {
        "gradient" => Box::new(GradientDatabase::new(database.clone(), GradientColumn, [0.0, 0.5])),
        _ => Box::new(database.clone()),
    };
    Runner::from_parts(database, Box::new(score), rule(name)).seed(4)
}

fn start(name: &str, database: &LanceDatabase) -> DataFrame {
    let queries = uphill::queries_at(database, &[0, 70, 140]).expect("queries");
    match name {
        "gradient" => uphill::with_gradients(&queries, ndarray::Array2::zeros((3, 4)).view()).expect("gradients"),
        _ => queries,
    }
}

fn assert_same(ours: &SearchLog, fresh: &SearchLog, what: &str) {
    for iteration in 0..ITERATIONS {
        let (ours, fresh) = (ours.results(iteration).expect("results"), fresh.results(iteration).expect("results"));
        assert!(ours.equals_missing(&fresh), "{what}: results of iteration {iteration}: {ours} {fresh}");
    }
    for iteration in 0..=ITERATIONS {
        let (ours, fresh) = (ours.queries(iteration).expect("queries"), fresh.queries(iteration).expect("queries"));
        assert!(ours.equals_missing(&fresh), "{what}: queries of iteration {iteration}: {ours} {fresh}");
    }
}

/// Of each rule: the database, the starting queries and what a runner of its own finds.
fn with_each_rule(check: impl Fn(&str, &LanceDatabase, &DataFrame, &SearchLog)) {
    let folder = folder();
    let database = exact_library(&folder, &clustered(400, 4, 8, &mut rng(21))).k(5);
    for name in RULES {
        let queries = start(name, &database);
        let fresh =
            runner(name, &database, SqlScore::new("weight")).search(&queries, ITERATIONS).expect("a fresh search");
        check(name, &database, &queries, &fresh);
    }
}

#[test]
fn two_searches_with_one_runner_are_equal() {
    with_each_rule(|name, database, queries, fresh| {
        let mut runner = runner(name, database, SqlScore::new("weight"));
        runner.search(queries, 4).expect("a first search");
        assert_same(&runner.search(queries, ITERATIONS).expect("a second"), fresh, name);
    });
}

#[test]
fn a_search_resumed_by_the_same_runner_equals_one_that_never_stopped() {
    with_each_rule(|name, database, queries, fresh| {
        let (folder, mut runner) = (folder(), runner(name, database, SqlScore::new("weight")));
        let path = folder.path().join("run");
        drop(runner.search_into(&path, queries, 3).expect("a search"));
        drop(runner.resume(&path, queries, 5).expect("resumed"));
        assert_same(&runner.resume(&path, queries, ITERATIONS).expect("resumed again"), fresh, name);
    });
}

#[test]
fn ask_and_tell_in_a_loop_equals_a_search_with_a_scorer() {
    with_each_rule(|name, database, queries, fresh| {
        let (folder, mut runner) = (folder(), runner(name, database, ManualScore::new()));
        let path = folder.path().join("run");
        let mut asked = runner.ask(&path, queries, ITERATIONS).expect("asked");
        let log = loop {
            let items = match asked {
                SearchState::Pending(items) => items,
                SearchState::Ended(log) => break log,
            };
            let scores = df!("db_idx" => u64s(&items, "db_idx"), "score" => f64s(&items, "weight")).expect("scores");
            asked = runner.tell(&path, queries, ITERATIONS, &scores).expect("told");
        };
        assert_same(&log, fresh, name);
    });
}
