//! Several scores as one: sums, parts, gates.

use std::sync::{Arc, Mutex};

use polars::prelude::*;
use uphill::{RlUpdate, Runner, SqlScore, SumScore};

use crate::common::*;

#[test]
fn a_weighted_sum_keeps_its_parts_and_a_gate_avoids_the_expensive_score() {
    let folder = folder();
    let database = exact_library(&folder, &normal(100, 4, &mut rng(1))).k(40);
    let queries = uphill::queries_at(&database, &[0, 1]).expect("queries");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let dear = move |items: &DataFrame| -> uphill::Result<Vec<f64>> {
        seen.lock().expect("a lock").extend(u64s(items, "db_idx"));
        Ok(u64s(items, "db_idx").into_iter().map(|item| item as f64).collect())
    };
    let score = SumScore::new().gate("cheap", 10.0, 0.5, SqlScore::new("weight")).part("dear", -2.0, dear);
    let log = Runner::new(database, score, RlUpdate::new(1.0)).search(&queries, 3).expect("a search");
    let all = uphill::collect(log.compile_results().expect("a query")).expect("compiled");
    let (weights, items) = (f64s(&all, "weight"), u64s(&all, "db_idx"));
    let column = |name: &str| all.column(name).expect(name).f64().expect("f64").iter().collect::<Vec<_>>();
    let (score, cheap, dear) = (column("score"), column("cheap"), column("dear"));
    let mut passed = Vec::new();
    for row in 0..all.height() {
        assert_eq!(cheap[row], Some(weights[row]));
        if weights[row] < 0.5 {
            assert_eq!((score[row], dear[row]), (None, None));
            let reason = all.column("reason").expect("reason").str().expect("text").get(row).map(str::to_string);
            assert_eq!(reason, Some(format!("cheap: {} is below 0.5", weights[row])));
        } else {
            assert_eq!(dear[row], Some(items[row] as f64));
            assert_eq!(score[row], Some(10.0 * weights[row] - 2.0 * items[row] as f64));
            passed.push(items[row]);
        }
    }
    let mut asked = asked.lock().expect("a lock").clone();
    asked.sort();
    passed.sort();
    assert_eq!(asked, passed, "the dear score was asked for others than those that passed the gate, or twice");
}

/// Notes each item that it is asked for.
const SCORER: &str = "import json, sys
asked = open('asked.txt', 'a')
for line in sys.stdin:
    if line.strip():
        item = json.loads(line)
        print(item['db_idx'], file=asked, flush=True)
        print(json.dumps({'db_idx': item['db_idx'], 'score': item['db_idx'] % 7}))
    else:
        print(flush=True)
";

#[test]
fn a_run_file_sums_sql_and_a_command_and_invalid_parts_are_rejected() {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&normal(80, 4, &mut rng(2))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    std::fs::write(folder.path().join("score.py"), SCORER).expect("written");
    let head = "[database]\npath = \"items.lance\"\n[stop]\niterations = 2\n";
    let parts = "[[score.sum]]\nname = \"w\"\nweight = 0.5\nsql = \"weight\"\n[[score.sum]]\nname = \"mod\"\ncommand = [\"python3\", \"score.py\"]\n";
    std::fs::write(folder.path().join("run.toml"), format!("{head}{parts}")).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    uphill_ok(&["results", "run", "-o", "results.parquet"], folder.path());
    let results = read(&folder.path().join("results.parquet"));
    for ((item, weight), score) in
        u64s(&results, "db_idx").into_iter().zip(f64s(&results, "weight")).zip(f64s(&results, "score"))
    {
        assert_eq!(score, 0.5 * weight + (item % 7) as f64);
    }

    for (sections, message) in [
        ("[[score.sum]]\nsql = \"weight\"\n", "score.sum: each part needs a `name`"),
        (
            "[[score.sum]]\nname = \"weight\"\nsql = \"weight\"\n",
            "score.sum: the name `weight` of a part is already used or reserved; choose another name",
        ),
        ("[score]\nsql = \"weight\"\nweight = 2.0\n", "score.weight: belongs to a part of a sum, under [[score.sum]]"),
        (
            "[score]\nsql = \"weight\"\n[[score.sum]]\nname = \"w\"\nsql = \"weight\"\n",
            "score: set `sql` or `sum`, not both",
        ),
        (
            "[score]\nworkers = 2\n[[score.sum]]\nname = \"w\"\nsql = \"weight\"\n",
            "score.workers: works with `command` or `call`, not with `sum`; remove it",
        ),
        (
            "[[score.sum]]\nname = \"w\"\nsql = \"weight\"\nworkers = 2\n",
            "score.sum[w].workers: works with `command` or `call`, not with `sql`; remove it",
        ),
        (
            "[[score.sum]]\nname = \"w\"\ncommand = [\"true\"]\nbatch_size = 0\n",
            "score.sum[w].batch_size: expected at least 1, found 0",
        ),
        (
            "[[score.sum]]\nname = \"w\"\nsql = \"weight\"\ndirection = \"minimize\"\n",
            "score.sum[w].direction: belongs to the whole score, under [score]",
        ),
        (
            "[[score.sum]]\nname = \"w\"\n[[score.sum.sum]]\nname = \"v\"\nsql = \"weight\"\n",
            "score.sum[w].sum: belongs to the whole score, under [score]",
        ),
    ] {
        std::fs::write(folder.path().join("run.toml"), format!("{head}{sections}")).expect("written");
        let output = uphill(&["search", "run.toml", "--out", "wrong"], folder.path());
        assert_eq!(stderr(&output), format!("uphill: {message}\n"));
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn a_resumed_run_may_change_how_parts_are_called_but_not_what_they_compute() {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&normal(80, 4, &mut rng(3))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    std::fs::write(folder.path().join("score.py"), SCORER).expect("written");
    let run_file = |name: &str, score: &str, cheap: &str, dear: &str| {
        let text = format!(
            "[database]\npath = \"items.lance\"\n[stop]\niterations = 3\n[score]\n{score}\n\
             [[score.sum]]\nname = \"cheap\"\nsql = \"weight\"\n{cheap}\n\
             [[score.sum]]\nname = \"dear\"\ncommand = [\"python3\", \"score.py\"]\n{dear}\n"
        );
        std::fs::write(folder.path().join(name), text).expect("written");
    };
    let asked = || std::fs::read_to_string(folder.path().join("asked.txt")).expect("asked").lines().count();
    let otherwise = "workers = 2\nbatch_size = 3\ntimeout = 90\nretries = 5";

    run_file("run.toml", "", "weight = 0.7433739727632273", "batch_size = 64");
    uphill_ok(&["search", "run.toml", "--out", "whole"], folder.path());
    let once = asked();
    uphill_ok(&["search", "run.toml", "--out", "run", "--set", "stop.iterations=1"], folder.path());
    run_file("other.toml", "", "weight = 0.7433739727632273", otherwise);
    uphill_ok(&["search", "other.toml", "--out", "run", "--resume"], folder.path());
    assert_eq!(asked(), 2 * once, "the run in two goes asked what the run in one asked");
    for iteration in 0..3 {
        let results =
            |run: &str| read(&folder.path().join(format!("{run}/results/iteration={iteration:06}/part-0000.parquet")));
        assert!(results("run").equals_missing(&results("whole")), "iteration {iteration}");
    }

    // Nor do scores of the same items cost again.
    run_file("other.toml", "reuse = [\"whole\"]\non_error = \"stop\"", "weight = 0.7433739727632273", otherwise);
    uphill_ok(&["search", "other.toml", "--out", "reused", "--set", "stop.iterations=1"], folder.path());
    assert_eq!(asked(), 2 * once);

    for (cheap, dear, difference) in [
        ("weight = 2.0", "", "score.sum[cheap].weight was 0.7433739727632273, is 2.0"),
        ("weight = 0.7433739727632273", "embeddings = true", "score.sum[dear].embeddings was not set, is true"),
    ] {
        run_file("other.toml", "", cheap, dear);
        let output = uphill(&["search", "other.toml", "--out", "run", "--resume"], folder.path());
        assert!(stderr(&output).contains(&format!("{difference};")), "{}", stderr(&output));
        run_file("other.toml", "reuse = [\"whole\"]", cheap, dear);
        let output = uphill(&["search", "other.toml", "--out", "another"], folder.path());
        assert!(stderr(&output).contains("its scores have version "), "{}", stderr(&output));
    }
}
