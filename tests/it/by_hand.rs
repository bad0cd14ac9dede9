//! Ask and tell: scores that come from outside, in their own time.

use polars::prelude::*;
use uphill::{ManualScore, RlUpdate, Runner, SearchState, SqlScore, VectorDatabase};

use crate::common::*;

const RUN: &str = "seed = 3\n[database]\npath = \"items.lance\"\nk = 5\n[queries]\nsample = 4\n[stop]\niterations = 4\n\
     # Whoever tells them, the scores stand in a column, which is not to be read.\n[update]\nrule = \"surrogate\"\nfeatures = [\"name\"]\n";

fn library() -> TempDir {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(400, 4, 8, &mut rng(1))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    std::fs::write(folder.path().join("hand.toml"), format!("{RUN}[score]\nby_hand = true\n")).expect("written");
    std::fs::write(folder.path().join("sql.toml"), format!("{RUN}[score]\nsql = \"weight\"\n")).expect("written");
    folder
}

/// The person with the scores: those of the asked items, in another order.
fn scores_of(asked: &DataFrame) -> DataFrame {
    let score = asked.column("weight").expect("weight").clone().with_name("score".into());
    let db_idx = asked.column("db_idx").expect("db_idx").clone();
    DataFrame::new(asked.height(), vec![score, db_idx]).expect("a frame").reverse()
}

#[test]
fn a_run_with_manual_scores_given_in_parts_equals_one_with_a_scorer() {
    let folder = library();
    let at = |name: &str| folder.path().join(name);
    uphill_ok(&["search", "sql.toml", "--out", "sql"], folder.path());
    let mut rounds = 0;
    loop {
        uphill_ok(&["ask", "hand.toml", "--out", "hand", "-o", "asked.parquet"], folder.path());
        let manifest = std::fs::read_to_string(at("hand/run.json")).expect("run.json");
        if serde_json::from_str::<serde_json::Value>(&manifest).expect("JSON")["ended"].is_object() {
            break;
        }
        let asked = read(&at("asked.parquet"));
        uphill_ok(&["ask", "hand.toml", "--out", "hand", "-o", "again.parquet"], folder.path());
        assert!(asked.equals(&read(&at("again.parquet"))), "asking again gave other items");

        let scores = scores_of(&asked);
        let half = scores.height().div_ceil(2) as i64;
        write(&at("half.parquet"), &scores.slice(0, half as usize));
        // From another folder, and twice: no harm.
        std::fs::create_dir_all(at("elsewhere")).expect("a folder");
        uphill_ok(&["tell", "../hand", "../half.parquet"], &at("elsewhere"));
        uphill_ok(&["tell", "hand", "half.parquet"], folder.path());
        uphill_ok(&["ask", "hand.toml", "--out", "hand", "-o", "rest.parquet"], folder.path());
        let rest = read(&at("rest.parquet"));
        if asked.height() > 1 {
            assert_eq!(rest.height(), asked.height() - half as usize);
            write(&at("scores.parquet"), &scores);
            uphill_ok(&["tell", "hand", "scores.parquet"], folder.path());
        }
        rounds += 1;
        assert!(rounds < 20, "the run does not go on");
    }
    for iteration in 0..4 {
        let frame = |run: &str| read(&at(&format!("{run}/results/iteration={iteration:06}/part-0000.parquet")));
        assert!(frame("hand").equals_missing(&frame("sql")), "iteration {iteration}");
    }
}

#[test]
fn scores_of_items_that_are_not_pending_are_rejected_and_no_score_is_lost() {
    let folder = library();
    uphill_ok(&["ask", "hand.toml", "--out", "hand", "-o", "asked.parquet"], folder.path());
    let asked = read(&folder.path().join("asked.parquet"));
    let waiting = u64s(&asked, "db_idx");
    let stranger = (0..400).find(|item| !waiting.contains(item)).expect("a stranger");
    let wrong = df!("db_idx" => [stranger], "score" => [1.0]).expect("a frame");
    write(&folder.path().join("wrong.parquet"), &wrong);
    let output = uphill(&["tell", "hand", "wrong.parquet"], folder.path());
    let message = format!(
        "score in iteration 0: column `db_idx`: expected items that were requested, found {stranger}, which was not requested"
    );
    assert_eq!(stderr(&output), format!("uphill: {message}\n"));
    assert_eq!(output.status.code(), Some(1));
    uphill_ok(&["ask", "hand.toml", "--out", "hand", "-o", "again.parquet"], folder.path());
    assert!(asked.equals(&read(&folder.path().join("again.parquet"))));

    let output = uphill(&["ask", "sql.toml", "--out", "sql"], folder.path());
    assert_eq!(stderr(&output), "uphill: ask: the run file does not set score.by_hand = true\n");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_given_score_is_kept_and_a_different_one_is_reported() {
    let folder = library();
    uphill_ok(&["ask", "hand.toml", "--out", "hand", "-o", "asked.parquet"], folder.path());
    let scores = scores_of(&read(&folder.path().join("asked.parquet")));
    write(&folder.path().join("scores.parquet"), &scores.head(Some(1)));
    let tell = || stderr(&uphill(&["tell", "hand", "scores.parquet"], folder.path()));
    assert!(!tell().contains("another score") && !tell().contains("another score"));
    let (item, score) = (u64s(&scores, "db_idx")[0], f64s(&scores, "score")[0]);
    let other = df!("db_idx" => [item], "score" => [score + 1.0]).expect("a frame");
    write(&folder.path().join("scores.parquet"), &other);
    let said = tell();
    assert!(said.contains(&format!("item {item} has {score}, not {}", score + 1.0)), "{said}");
}

#[test]
fn the_rust_api_asks_and_tells_too() {
    let folder = folder();
    let database = exact_library(&folder, &clustered(200, 4, 5, &mut rng(2))).k(6);
    let queries = uphill::queries_at(&database, &[0, 50, 100]).expect("queries");
    let path = folder.path().join("run");
    let mut asked =
        Runner::new(database.clone(), ManualScore::new(), RlUpdate::new(1.0)).ask(&path, &queries, 3).expect("asked");
    let log = loop {
        match asked {
            SearchState::Pending(items) => {
                let mut runner = Runner::new(database.clone(), ManualScore::new(), RlUpdate::new(1.0));
                asked = runner.tell(&path, &queries, 3, &scores_of(&items)).expect("told");
            }
            SearchState::Ended(log) => break log,
        }
    };
    let itself =
        Runner::new(database, SqlScore::new("weight"), RlUpdate::new(1.0)).search(&queries, 3).expect("a search");
    for iteration in 0..3 {
        let (ours, theirs) = (log.results(iteration).expect("results"), itself.results(iteration).expect("results"));
        assert!(ours.equals_missing(&theirs));
    }
}

#[test]
fn a_failed_item_is_requested_again_only_with_retry_failed_and_counts_once() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let folder = folder();
    let database = exact_library(&folder, &clustered(100, 4, 5, &mut rng(3))).k(5);
    let queries = uphill::queries_at(&database, &[0, 50]).expect("queries");
    let calls = Arc::new(AtomicUsize::new(0));
    let runner = |broken: bool| {
        let calls = calls.clone();
        let score = move |items: &DataFrame| -> uphill::Result<Vec<Option<f64>>> {
            calls.fetch_add(items.height(), Ordering::Relaxed);
            Ok(u64s(items, "db_idx").iter().map(|item| (!broken || item % 2 == 0).then_some(*item as f64)).collect())
        };
        // A rule that stays: the same items are met in each iteration.
        Runner::new(database.clone(), score, |step: &uphill::Step<'_>| Ok(step.queries.clone()))
    };
    let path = folder.path().join("run");
    let log = runner(true).search_into(&path, &queries, 1).expect("a search");
    let first = log.results(0).expect("results");
    let failed = first.column("score").expect("score").null_count();
    let asked = calls.load(Ordering::Relaxed);
    assert!(failed > 0);
    assert_eq!(log.manifest().ended.as_ref().map(|ended| ended.failed), Some(failed as u64));
    drop(log);

    drop(runner(false).resume(&path, &queries, 2).expect("resumed"));
    assert_eq!(calls.load(Ordering::Relaxed), asked, "a failed item was asked again");
    let log = runner(false).retry_failed(true).resume(&path, &queries, 3).expect("resumed");
    assert_eq!(calls.load(Ordering::Relaxed), asked + failed);
    let all = uphill::collect(log.compile_results().expect("a query")).expect("compiled");
    assert_eq!((all.height(), all.column("score").expect("score").null_count()), (asked, 0));
    let ended = log.manifest().ended.clone().expect("ended");
    assert_eq!((ended.evaluations, ended.failed), (asked as u64, 0));
    let _ = database.len();
}

#[test]
fn a_run_stops_at_a_target_score_in_the_direction_of_the_scorer() {
    let folder = folder();
    let database = exact_library(&folder, &clustered(300, 4, 5, &mut rng(4))).k(5);
    let queries = uphill::queries_at(&database, &[0, 50]).expect("queries");
    for (minimize, target) in [(false, 0.9), (true, 0.1)] {
        let stop = uphill::StopConditions::new().score(target);
        let mut runner =
            Runner::new(database.clone(), SqlScore::new("weight"), RlUpdate::new(1.0)).stop(stop).minimize(minimize);
        let log = runner.search(&queries, 200).expect("a search");
        let ended = log.manifest().ended.clone().expect("ended");
        assert_eq!(ended.reason, uphill::StopReason::Score);
        let best = |until: u32| {
            let scores = (0..until).flat_map(|iteration| f64s(&log.results(iteration).expect("results"), "score"));
            scores.fold(f64::NEG_INFINITY, f64::max)
        };
        let target = if minimize { -target } else { target };
        assert!(best(ended.iterations) >= target && best(ended.iterations - 1) < target);
    }
}

#[test]
fn a_run_in_which_too_many_items_fail_stops_and_keeps_its_scores() {
    let folder = folder();
    let database = exact_library(&folder, &clustered(500, 4, 5, &mut rng(5))).k(60);
    let queries = uphill::queries_at(&database, &[0, 1, 2, 3]).expect("queries");
    let score = |items: &DataFrame| -> uphill::Result<Vec<Option<f64>>> {
        Ok(u64s(items, "db_idx").iter().map(|item| (item % 10 == 0).then_some(1.0)).collect())
    };
    let stop = uphill::StopConditions::new().failed_share(0.5);
    let path = folder.path().join("run");
    let mut runner = Runner::new(database, score, RlUpdate::new(1.0)).stop(stop);
    let message = runner.search_into(&path, &queries, 5).err().expect("refused").to_string();
    let end = "more than the 50 % allowed (for example: no score); fix the scorer and continue with --resume --retry-failed, or raise stop.failed_share";
    assert!(message.starts_with("score in iteration 0: ") && message.ends_with(end), "{message}");
    assert_eq!(uphill::SearchLog::open(&path).expect("a run").iterations(), [0]);
}

/// Asks and tells until the run ends; what was said on the way.
fn to_the_end(folder: &TempDir, scores: impl Fn(&DataFrame) -> DataFrame) -> String {
    let at = |name: &str| folder.path().join(name);
    let mut said = String::new();
    for _ in 0..40 {
        for command in [
            ["ask", "hand.toml", "--out", "hand", "-o", "asked.parquet"].as_slice(),
            &["tell", "hand", "scores.parquet"],
        ] {
            let output = uphill(command, folder.path());
            assert!(output.status.success(), "{}", stderr(&output));
            said += &stderr(&output);
            let manifest = std::fs::read_to_string(at("hand/run.json")).expect("run.json");
            if serde_json::from_str::<serde_json::Value>(&manifest).expect("JSON")["ended"].is_object() {
                return said;
            }
            write(&at("scores.parquet"), &scores(&read(&at("asked.parquet"))));
        }
    }
    panic!("the run does not end: {said}");
}

#[test]
fn a_warning_of_a_rule_is_printed_once_per_run_however_often_it_is_resumed() {
    let folder = library();
    let at = |name: &str| folder.path().join(name);
    // The column that is told is read, and the rule sees that.
    let reads = RUN.replace("features = [\"name\"]\n", "").replace("iterations = 4", "evaluations = 80");
    std::fs::write(at("hand.toml"), format!("{reads}[score]\nby_hand = true\n")).expect("written");
    let said = to_the_end(&folder, scores_of);
    assert_eq!(said.matches("the column `weight` nearly determines the score").count(), 1, "{said}");
    // A search that goes on says it no more.
    std::fs::write(at("score.py"), SCORER).expect("written");
    let scored = format!("{reads}[score]\ncommand = [\"python3\", \"score.py\"]\n");
    std::fs::write(at("run.toml"), scored).expect("written");
    let first = uphill(&["search", "run.toml", "--out", "run"], folder.path());
    let again = ["search", "run.toml", "--out", "run", "--resume", "--set", "stop.evaluations=120"];
    let again = uphill(&again, folder.path());
    let named = |output| stderr(output).matches("nearly determines the score").count();
    assert_eq!((named(&first), named(&again)), (1, 0), "{}{}", stderr(&first), stderr(&again));

    // The same of another rule and another thing to say.
    std::fs::remove_dir_all(at("hand")).expect("removed");
    let top_k = RUN.replace("rule = \"surrogate\"\nfeatures = [\"name\"]\n", "rule = \"top-k\"\n");
    std::fs::write(at("hand.toml"), format!("{top_k}[score]\nby_hand = true\n")).expect("written");
    let below = |asked: &DataFrame| {
        let less = scores_of(asked).lazy().with_column(col("score") - lit(2.0));
        less.collect().expect("scores")
    };
    let said = to_the_end(&folder, below);
    assert_eq!(said.matches("top-k: some scores are negative").count(), 1, "{said}");
}

/// Gives the weight back.
const SCORER: &str = r#"
import json, sys
for line in sys.stdin:
    if line.strip():
        item = json.loads(line)
        print(json.dumps({"db_idx": item["db_idx"], "score": item["weight"]}))
    else:
        print(flush=True)
"#;
