//! The stages one by one: their contracts, their rules, their edges.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ndarray::{Array2, arr2};
use polars::prelude::*;
use uphill::{Filter, RlUpdate, Runner, SqlFilter, SqlScore, Step, StopConditions, SurrogateUpdate, TopKUpdate};

use crate::common::*;

/// Four items on the corners of a square, and one query in the middle.
fn square(folder: &TempDir) -> (uphill::LanceDatabase, DataFrame) {
    let library = arr2(&[[0.0f32, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]]);
    let queries = uphill::queries(arr2(&[[1.0, 1.0]]).view()).expect("queries");
    (exact_library(folder, &library).k(4), queries)
}

fn scored_by(scores: &'static [f64]) -> impl Fn(&DataFrame) -> uphill::Result<Vec<f64>> + Send + Sync {
    move |items: &DataFrame| Ok(u64s(items, "db_idx").into_iter().map(|item| scores[item as usize]).collect())
}

fn next_vector(next: &DataFrame) -> Vec<f64> {
    uphill::matrix::<f64>(next, "embedding").expect("vectors").view().row(0).to_vec()
}

fn step_with(scores: &'static [f64], update: impl uphill::UpdateRule + 'static) -> Vec<f64> {
    let folder = folder();
    let (database, queries) = square(&folder);
    let next = Runner::new(database, scored_by(scores), update).step(0, &queries, None).expect("a step");
    next_vector(&next)
}

#[test]
fn top_k_takes_the_best_and_weighs_by_score() {
    assert_eq!(step_with(&[1.0, 3.0, 0.0, 0.5], TopKUpdate::new(2)), [1.5, 0.0]);
    assert_eq!(step_with(&[1.0, 3.0, 0.0, 0.5], TopKUpdate::new(2).score_weighting(false)), [1.0, 0.0]);
}

#[test]
fn top_k_ties_go_to_the_nearer_item_then_to_the_lower_id() {
    // All four are equally near: the lowest ids win.
    assert_eq!(step_with(&[1.0, 1.0, 1.0, 1.0], TopKUpdate::new(2)), [1.0, 0.0]);
    assert_eq!(step_with(&[0.0, 1.0, 1.0, 1.0], TopKUpdate::new(1)), [2.0, 0.0]);
}

#[test]
fn top_k_with_negative_scores_stays_among_the_items() {
    // Shifted by the lowest of the three: weights 2.5, 1, 0.
    let moved = step_with(&[1.5, 0.0, -1.0, -9.0], TopKUpdate::new(3));
    assert!((moved[0] - 2.0 / 3.5).abs() < 1e-12 && moved[1] == 0.0, "{moved:?}");
    // All zero, and all the same negative: plain means.
    assert_eq!(step_with(&[0.0; 4], TopKUpdate::new(4)), [1.0, 1.0]);
    assert_eq!(step_with(&[-2.0; 4], TopKUpdate::new(4)), [1.0, 1.0]);
}

#[test]
fn rl_does_not_move_if_scores_are_equal_or_one_item_is_found() {
    assert_eq!(step_with(&[7.0; 4], RlUpdate::new(3.0)), [1.0, 1.0]);
    let folder = folder();
    let (database, queries) = square(&folder);
    let mut runner = Runner::new(database.k(1), scored_by(&[1.0; 4]), RlUpdate::new(3.0));
    assert_eq!(next_vector(&runner.step(0, &queries, None).expect("a step")), [1.0, 1.0]);
}

#[test]
fn rl_with_huge_scores_stays_finite() {
    let moved = step_with(&[1e308, -1e308, 1e308, 0.0], RlUpdate::new(1.0));
    assert!(moved.iter().all(|value| value.is_finite()), "{moved:?}");
}

#[test]
fn failed_items_move_no_query_and_keep_their_reason() {
    let folder = folder();
    let (database, queries) = square(&folder);
    let score = scored_by(&[f64::NAN, 3.0, f64::INFINITY, 1.0]);
    let mut runner = Runner::new(database, score, TopKUpdate::new(1));
    let log = runner.search(&queries, 2).expect("a search");
    let results = log.results(0).expect("results");
    let reasons: Vec<Option<String>> = results
        .column("reason")
        .expect("reason")
        .str()
        .expect("text")
        .iter()
        .map(|reason| reason.map(str::to_string))
        .collect();
    assert_eq!(reasons, [Some("NaN".into()), None, Some("infinite".into()), None]);
    assert_eq!(results.column("score").expect("score").null_count(), 2);
    // NaN is not the best score: the query went to item 1.
    let queries = log.queries(1).expect("queries");
    assert_eq!(next_vector(&queries), [2.0, 0.0]);
    // Failures stand last.
    let compiled = uphill::collect(log.compile_results().expect("a query")).expect("compiled");
    assert_eq!(u64s(&compiled, "db_idx"), [1, 3, 0, 2]);
}

#[test]
fn each_item_is_scored_once_however_many_queries_find_it() {
    let folder = folder();
    let library = normal(40, 4, &mut rng(1));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let score = move |items: &DataFrame| -> uphill::Result<Vec<f64>> {
        let ids = u64s(items, "db_idx");
        seen.lock().expect("a lock").extend(ids.iter().copied());
        Ok(ids.into_iter().map(|id| id as f64).collect())
    };
    let database = exact_library(&folder, &library).k(10);
    let queries = uphill::queries_at(&database, &[0, 1, 2, 3]).expect("queries");
    let mut runner = Runner::new(database, score, RlUpdate::new(0.5));
    let log = runner.search(&queries, 8).expect("a search");
    let mut asked = asked.lock().expect("a lock").clone();
    let all = uphill::collect(log.compile_results().expect("a query")).expect("compiled");
    let total = asked.len();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), total, "an item was asked twice");
    assert_eq!(all.height(), total);
    assert_eq!(log.manifest().ended.as_ref().expect("ended").evaluations, total as u64);
    let mut ordinals = u64s(&all, "evaluation");
    ordinals.sort();
    assert_eq!(ordinals, (1..=total as u64).collect::<Vec<_>>());
}

#[test]
fn a_filter_may_only_remove_rows() {
    let run = |filter: fn(DataFrame) -> uphill::Result<DataFrame>| {
        let folder = folder();
        let (database, queries) = square(&folder);
        let mut runner = Runner::new(database, scored_by(&[1.0; 4]), RlUpdate::new(1.0)).filter(filter);
        runner.step(3, &queries, None).expect_err("refused").to_string()
    };
    let changed = run(|mut results| {
        results.with_column(Column::new("weight".into(), [9.0; 4])).expect("a column");
        Ok(results)
    });
    assert_eq!(
        changed,
        "filter in iteration 3: column `rows`: expected rows of its input, unchanged, found changed values"
    );
    let twice = run(|results| Ok(results.vstack(&results).expect("stacked")));
    let expected =
        "expected rows of its input, each at most once, found item 0 of query 0, which is new or a duplicate";
    assert_eq!(twice, format!("filter in iteration 3: column `db_idx`: {expected}"));
    let lost = run(|results| Ok(results.drop("name").expect("dropped")));
    assert!(lost.starts_with("filter in iteration 3: column `columns`: expected query_idx u32, "), "{lost}");
}

#[test]
fn a_filter_may_reorder_and_drop_rows() {
    let folder = folder();
    let (database, queries) = square(&folder);
    let filter = |results: DataFrame| Ok(results.reverse().head(Some(2)));
    let mut runner = Runner::new(database, scored_by(&[1.0; 4]), RlUpdate::new(1.0)).filter(filter);
    let log = runner.search(&queries, 1).expect("a search");
    assert_eq!(u64s(&log.results(0).expect("results"), "db_idx"), [3, 2]);
}

#[test]
fn sql_filters_keep_rows_that_are_true_and_drop_nulls() {
    let frame = df!("query_idx" => [0u32, 0, 0], "x" => [Some(1.0), None, Some(3.0)]).expect("a frame");
    let kept = SqlFilter::new("x > 0 AND x < 2").filter(frame).expect("kept");
    assert_eq!(kept.height(), 1);
}

#[test]
fn scores_that_break_the_contract_are_reported_with_both_values() {
    let run = |score: fn(&DataFrame) -> uphill::Result<DataFrame>| {
        let folder = folder();
        let (database, queries) = square(&folder);
        Runner::new(database, score, RlUpdate::new(1.0)).step(2, &queries, None).expect_err("refused").to_string()
    };
    assert_eq!(
        run(|_| Ok(df!("score" => [1.0, 2.0]).expect("a frame"))),
        "score in iteration 2: column `rows`: expected 4 scores, one for each item, \
         found 2 (add a `db_idx` column to return scores in another order, or to leave items out)"
    );
    assert_eq!(
        run(|_| Ok(df!("score" => ["a", "b", "c", "d"]).expect("a frame"))),
        "score in iteration 2: column `score`: expected a number, found str"
    );
    assert_eq!(
        run(|_| Ok(df!("points" => [1.0; 4]).expect("a frame"))),
        "score in iteration 2: column `score`: expected a column, found no such column (there are: points)"
    );
    assert_eq!(
        run(|_| Ok(df!("db_idx" => [0u64, 1, 2, 9], "score" => [1.0; 4]).expect("a frame"))),
        "score in iteration 2: column `db_idx`: expected items that were requested, found 9, which was not requested"
    );
    assert_eq!(
        run(|_| Ok(df!("db_idx" => [0u64, 1, 1], "score" => [1.0; 3]).expect("a frame"))),
        "score in iteration 2: column `db_idx`: expected each item once, found 1 twice"
    );
}

#[test]
fn parts_with_reserved_names_are_ignored() {
    let folder = folder();
    let (database, queries) = square(&folder);
    let score = |_: &DataFrame| -> uphill::Result<DataFrame> {
        Ok(df!("score" => [1.0; 4], "weight" => [7.0; 4], "_x" => [1; 4], "note" => ["a"; 4], "part" => [2.0; 4])?)
    };
    let log = Runner::new(database, score, RlUpdate::new(1.0)).search(&queries, 1).expect("a search");
    let results = log.results(0).expect("results");
    let expected = [
        "query_idx",
        "db_idx",
        "distance",
        "name",
        "weight",
        "score",
        "outcome",
        "reason",
        "note",
        "part",
        "evaluation",
    ];
    assert_eq!(names(&results), expected);
    assert!(f64s(&results, "weight").iter().all(|weight| *weight != 7.0));
}

#[test]
fn scores_may_be_in_any_order_and_have_parts() {
    let folder = folder();
    let (database, queries) = square(&folder);
    let score = |_: &DataFrame| -> uphill::Result<DataFrame> {
        Ok(df!("db_idx" => [2u64, 0, 1], "score" => [20i32, 0, 10], "penalty" => [2.0, 0.0, 1.0]).expect("a frame"))
    };
    let log = Runner::new(database, score, RlUpdate::new(1.0)).search(&queries, 1).expect("a search");
    let results = log.results(0).expect("results");
    let all = |name: &str| results.column(name).expect(name).f64().expect("f64").iter().collect::<Vec<_>>();
    assert_eq!(all("score"), [Some(0.0), Some(10.0), Some(20.0), None]);
    assert_eq!(all("penalty"), [Some(0.0), Some(1.0), Some(2.0), None]);
    assert_eq!(results.column("reason").expect("reason").str().expect("text").get(3), Some("no score"));
}

#[test]
fn parts_of_the_score_may_appear_late_if_all_earlier_items_failed() {
    let folder = folder();
    let (database, queries) = square(&folder);
    let calls = AtomicUsize::new(0);
    let score = move |items: &DataFrame| -> uphill::Result<DataFrame> {
        let rows = items.height();
        Ok(match calls.fetch_add(1, Ordering::Relaxed) {
            0 => df!("score" => vec![None::<f64>; rows]).expect("a frame"),
            _ => df!("score" => vec![1.0; rows], "penalty" => vec![2.0; rows]).expect("a frame"),
        })
    };
    // Two neighbours of one corner, then two of the other.
    let elsewhere = |step: &uphill::Step<'_>| uphill::queries_at(step.database, &[3]);
    let path = folder.path().join("run");
    let mut runner = Runner::new(database.k(2), score, elsewhere);
    let log = runner.search_into(&path, &queries, 2).expect("a search");
    let best = uphill::collect(log.compile_results().expect("a query")).expect("compiled");
    let penalty: Vec<_> = best.column("penalty").expect("penalty").f64().expect("f64").iter().collect();
    assert!(penalty.contains(&Some(2.0)) && penalty.contains(&None), "{best}");
    drop(log);
    let log = runner.resume(&path, &queries, 3).expect("a search");
    assert_eq!(log.iterations(), [0, 1, 2]);
}

#[test]
fn minimized_scores_are_negated_once_and_kept_as_raw_score() {
    let folder = folder();
    let (database, queries) = square(&folder);
    let mut runner = Runner::new(database, scored_by(&[4.0, -1.0, 2.0, 3.0]), TopKUpdate::new(1)).minimize(true);
    let log = runner.search(&queries, 1).expect("a search");
    let best = uphill::collect(log.compile_results().expect("a query")).expect("compiled");
    assert_eq!(f64s(&best, "score"), [1.0, -2.0, -3.0, -4.0]);
    assert_eq!(f64s(&best, "raw_score"), [-1.0, 2.0, 3.0, 4.0]);
    assert_eq!(next_vector(&log.queries(1).expect("queries")), [2.0, 0.0]);
}

#[test]
fn the_evaluation_budget_is_never_exceeded_and_the_last_iteration_is_committed() {
    let folder = folder();
    let library = clustered(500, 4, 5, &mut rng(2));
    let database = exact_library(&folder, &library).k(7);
    let queries = uphill::queries_at(&database, &[0, 100, 200]).expect("queries");
    for budget in [0, 1, 5, 21, 22, 40] {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let score = move |items: &DataFrame| -> uphill::Result<Vec<f64>> {
            counter.fetch_add(items.height(), Ordering::Relaxed);
            Ok(f64s(items, "weight"))
        };
        let stop = StopConditions::new().evaluations(budget);
        let mut runner = Runner::new(database.clone(), score, RlUpdate::new(2.0)).stop(stop);
        let log = runner.search(&queries, 50).expect("a search");
        let ended = log.manifest().ended.clone().expect("ended");
        assert_eq!(asked.load(Ordering::Relaxed) as u64, ended.evaluations);
        assert!(ended.evaluations <= budget);
        if ended.reason == uphill::StopReason::Evaluations {
            assert_eq!(ended.evaluations, budget);
        }
        let all = uphill::collect(log.compile_results().expect("a query")).expect("compiled");
        assert_eq!(all.height() as u64, ended.evaluations);
    }
}

#[test]
fn nothing_new_ends_a_search_if_configured_and_an_empty_iteration_does_not() {
    let folder = folder();
    let (database, queries) = square(&folder);
    let stop = StopConditions::new().nothing_new(3);
    let mut runner = Runner::new(database.clone(), SqlScore::new("weight"), RlUpdate::new(0.1)).stop(stop);
    let log = runner.search(&queries, 50).expect("a search");
    let ended = log.manifest().ended.clone().expect("ended");
    assert_eq!((ended.reason, ended.iterations), (uphill::StopReason::NothingNew, 4));

    let mut runner =
        Runner::new(database, SqlScore::new("weight"), RlUpdate::new(0.1)).filter(SqlFilter::new("weight < 0"));
    let log = runner.search(&queries, 5).expect("a search");
    assert_eq!(log.iterations(), [0, 1, 2, 3, 4]);
    assert_eq!(
        names(&log.results(4).expect("results")),
        ["query_idx", "db_idx", "distance", "name", "weight", "score", "outcome", "reason", "evaluation"]
    );
}

#[test]
fn the_stages_run_in_the_order_of_the_drawing() {
    let folder = folder();
    let (database, queries) = square(&folder);
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |what: &'static str| {
        let order = order.clone();
        move || order.lock().expect("a lock").push(what)
    };
    let (filtered, selected) = (note("filter"), note("select"));
    let (scored, updated) = (note("score"), note("update"));
    let filter = move |results: DataFrame| {
        if results.height() > 0 {
            filtered();
        }
        Ok(results)
    };
    let select = move |step: &Step<'_>| {
        selected();
        Ok(step.results.clone())
    };
    let score = move |items: &DataFrame| -> uphill::Result<Vec<f64>> {
        scored();
        Ok(vec![1.0; items.height()])
    };
    let update = move |step: &Step<'_>| {
        updated();
        Ok(step.queries.clone())
    };
    let mut runner = Runner::new(database, score, update).filter(filter).select(select);
    runner.search(&queries, 2).expect("a search");
    // Nothing is new in the second iteration, so nothing is scored.
    let expected = ["filter", "select", "score", "update", "filter", "select", "update"];
    assert_eq!(*order.lock().expect("a lock"), expected);
}

#[test]
fn a_selector_chooses_among_filtered_candidates_in_the_order_of_scoring() {
    let folder = folder();
    let (database, queries) = square(&folder);
    // The last two of those that passed, the last first, and only every other iteration.
    let select = |step: &Step<'_>| {
        assert!(step.results.column("score").is_err(), "scored before it was chosen");
        Ok(step.results.reverse().head(Some(if step.iteration.is_multiple_of(2) { 2 } else { 0 })))
    };
    let filter = |results: DataFrame| {
        let kept = u64s(&results, "db_idx").into_iter().map(|item| Some(item != 3));
        Ok(results.filter(&BooleanChunked::from_iter(kept)).expect("filtered"))
    };
    let mut runner =
        Runner::new(database.clone(), scored_by(&[1.0; 4]), RlUpdate::new(1.0)).filter(filter).select(select);
    let log = runner.search(&queries, 2).expect("a search");
    let results = log.results(0).expect("results");
    assert_eq!((u64s(&results, "db_idx"), u64s(&results, "evaluation")), (vec![2, 1], vec![1, 2]));
    assert_eq!(log.results(1).expect("results").height(), 0);

    // It stands in for a rule's own, which would have scored all four.
    let one = |step: &Step<'_>| Ok(step.results.head(Some(1)));
    let mut runner = Runner::new(database, scored_by(&[1.0; 4]), SurrogateUpdate::new()).select(one);
    assert_eq!(runner.search(&queries, 1).expect("a search").results(0).expect("results").height(), 1);
}

#[test]
fn a_selector_may_only_return_unchanged_candidates() {
    let run = |select: fn(&Step<'_>) -> uphill::Result<DataFrame>| {
        let folder = folder();
        let (database, queries) = square(&folder);
        let mut runner = Runner::new(database, scored_by(&[1.0; 4]), RlUpdate::new(1.0)).select(select);
        runner.step(3, &queries, None).expect_err("refused").to_string()
    };
    let twice = run(|step| Ok(step.results.vstack(step.results).expect("stacked")));
    let expected =
        "expected rows of its input, each at most once, found item 0 of query 0, which is new or a duplicate";
    assert_eq!(twice, format!("select in iteration 3: column `db_idx`: {expected}"));
    let lost = run(|step| Ok(step.results.drop("name").expect("dropped")));
    assert!(lost.starts_with("select in iteration 3: column `columns`: expected query_idx u32, "), "{lost}");
}

#[test]
fn mistakes_in_sql_show_before_anything_is_scored() {
    let folder = folder();
    let (database, queries) = square(&folder);
    let search = |filter: &str, score: &str| {
        let mut runner =
            Runner::new(database.clone(), SqlScore::new(score), RlUpdate::new(1.0)).filter(SqlFilter::new(filter));
        runner.search(&queries, 1).err().expect("refused").to_string()
    };
    assert!(search("wieght < 1", "weight").starts_with("filter.sql: cannot evaluate `wieght < 1`: "));
    assert_eq!(search("weight + 1", "weight"), "filter.sql: expected a boolean from `weight + 1`, found f64");
    assert_eq!(search("weight < 9", "name"), "score.sql: expected `name` to be a number, found str");
    assert!(search("weight < 9", "(SELECT 1)").starts_with("score.sql: cannot evaluate `(SELECT 1)`: "));
}

#[test]
fn a_step_gives_the_same_queries_with_and_without_a_log() {
    let folder = folder();
    let (database, queries) = square(&folder);
    let mut alone = Runner::new(database.clone(), scored_by(&[1.0, 3.0, 0.0, 0.5]), RlUpdate::new(0.3));
    let next = alone.step(0, &queries, None).expect("a step");
    let mut logged = Runner::new(database, scored_by(&[1.0, 3.0, 0.0, 0.5]), RlUpdate::new(0.3));
    let log = logged.search(&queries, 1).expect("a search");
    assert_eq!(next_vector(&next), next_vector(&log.queries(1).expect("queries")));
}

#[test]
fn embedding_columns_become_matrices_and_back() {
    let values: Array2<f32> = normal(5, 3, &mut rng(3));
    let column = uphill::embedding_column(values.view()).expect("a column");
    let frame = DataFrame::new(5, vec![column]).expect("a frame");
    assert_eq!(uphill::matrix::<f32>(&frame, "embedding").expect("a matrix").view(), values);
    let sliced = frame.slice(1, 3);
    assert_eq!(
        uphill::matrix::<f32>(&sliced, "embedding").expect("a matrix").view(),
        values.slice(ndarray::s![1..4, ..])
    );
    let back = uphill::to_polars(&uphill::to_arrow(&sliced).expect("a batch")).expect("a frame");
    assert!(back.equals(&sliced));
}
