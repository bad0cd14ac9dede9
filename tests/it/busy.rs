//! Every worker has something to do.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polars::prelude::*;
use uphill::{Result, RlUpdate, Runner, Score, SqlScore, StopConditions, SumScore};

use crate::common::*;

/// Scores a batch after a moment, and notes which process scored it.
const SCORER: &str = "
import json, os, sys, time
items = []
for line in sys.stdin:
    if line.strip():
        items.append(json.loads(line)['db_idx'])
        continue
    time.sleep(0.3)
    with open('batches.txt', 'a') as batches:
        batches.write(f'{os.getpid()} {len(items)}\\n')
    for item in items:
        print(json.dumps({'db_idx': item, 'score': item}))
    print(flush=True)
    items = []
";

#[test]
fn twenty_items_keep_eight_workers_busy_and_requests_do_not_exceed_the_batch_size() {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&normal(300, 4, &mut rng(1))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    std::fs::write(folder.path().join("score.py"), SCORER).expect("written");
    let batches = |workers: usize, items: usize, more: &str| {
        let run = format!(
            "[database]\npath = 'items.lance'\nk = {items}\n[queries]\nsample = 1\n[update]\nrule = 'rl'\n\
             [score]\ncommand = ['python3', 'score.py']\nworkers = {workers}\n{more}\n[stop]\niterations = 1\n"
        );
        std::fs::write(folder.path().join("run.toml"), run).expect("written");
        uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
        uphill_ok(&["remove", "run"], folder.path());
        let text = std::fs::read_to_string(folder.path().join("batches.txt")).expect("batches");
        std::fs::remove_file(folder.path().join("batches.txt")).expect("removed");
        let mut of_process: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for line in text.lines() {
            let (process, items) = line.split_once(' ').expect("two words");
            of_process.entry(process.into()).or_default().push(items.parse().expect("a number"));
        }
        let mut sizes: Vec<usize> = of_process.values().flatten().copied().collect();
        sizes.sort_unstable();
        (of_process.len(), sizes)
    };
    assert_eq!(batches(8, 20, ""), (8, vec![2, 2, 2, 2, 3, 3, 3, 3]));
    assert_eq!(batches(8, 3, ""), (3, vec![1, 1, 1]));
    assert_eq!(batches(2, 20, "batch_size = 8").1, [4, 8, 8]);
    assert_eq!(batches(1, 20, "").1, [20]);
}

/// A part of a score that does not answer before the other one was asked for the same items.
struct Meets {
    here: Mutex<Sender<Vec<u64>>>,
    there: Mutex<Receiver<Vec<u64>>>,
    fails: u64,
    asked: Arc<Mutex<Vec<u64>>>,
}

impl Meets {
    /// Two that meet; each fails on multiples of a number.
    fn two(fails: [u64; 2], asked: &Arc<Mutex<Vec<u64>>>) -> [Self; 2] {
        let ((to_one, from_one), (to_other, from_other)) = (channel(), channel());
        let part = |here, there, fails| Meets {
            here: Mutex::new(here),
            there: Mutex::new(there),
            fails,
            asked: asked.clone(),
        };
        [part(to_one, from_other, fails[0]), part(to_other, from_one, fails[1])]
    }
}

impl Score for Meets {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let items = u64s(batch, "db_idx");
        self.asked.lock().expect("no panic").extend(&items);
        let _ = self.here.lock().expect("no panic").send(items.clone());
        let there = self.there.lock().expect("no panic").recv_timeout(Duration::from_secs(20));
        assert_eq!(there.as_ref(), Ok(&items), "the other part is not asked at the same time");
        let score = |item: &u64| (!item.is_multiple_of(self.fails)).then_some(*item as f64);
        Ok(Column::new("score".into(), items.iter().map(score).collect::<Vec<_>>()).into_frame())
    }
}

#[test]
fn parts_of_a_sum_run_concurrently_unless_a_gate_is_between_them() {
    let folder = folder();
    let database = exact_library(&folder, &normal(100, 4, &mut rng(2))).k(30);
    let queries = uphill::queries_at(&database, &[0, 1]).expect("queries");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let [one, other] = Meets::two([7, 5], &asked);
    let last = asked.clone();
    let last = move |batch: &DataFrame| -> Result<Vec<f64>> {
        last.lock().expect("no panic").extend(u64s(batch, "db_idx").iter().map(|item| item + 1000));
        Ok(vec![0.5; batch.height()])
    };
    let score = SumScore::new()
        .gate("free", 0.0, 0.3, SqlScore::new("weight"))
        .part("one", 1.0, one)
        .gate("other", 2.0, 40.0, other)
        .part("last", 4.0, last);
    let stop = StopConditions::new().evaluations(40);
    let log = Runner::new(database, score, RlUpdate::new(1.0)).stop(stop).search(&queries, 3).expect("a search");
    let all = uphill::collect(log.compile_results().expect("a query")).expect("compiled");
    let column = |name: &str| all.column(name).expect(name).f64().expect("f64").iter().collect::<Vec<_>>();
    let (weights, scores) = (f64s(&all, "weight"), column("score"));
    let (ones, others, lasts) = (column("one"), column("other"), column("last"));
    let reasons = all.column("reason").expect("reason").str().expect("text").clone();
    let mut expected = Vec::new();
    for (row, item) in u64s(&all, "db_idx").into_iter().enumerate() {
        let value = item as f64;
        let (one, other) = ((item % 7 != 0).then_some(value), (item % 5 != 0).then_some(value));
        let below = format!("free: {} is below 0.3", weights[row]);
        let low = format!("other: {item} is below 40");
        let (parts, reason, score) = if weights[row] < 0.3 {
            ((None, None, None), Some(below.as_str()), None)
        } else {
            expected.extend([item, item]);
            // Both were asked, whatever the other said; of two that fail the first is the reason.
            match (one, other) {
                (None, _) => ((one, other, None), Some("one: no score"), None),
                (_, None) => ((one, other, None), Some("other: no score"), None),
                _ if value < 40.0 => ((one, other, None), Some(low.as_str()), None),
                _ => {
                    expected.push(item + 1000);
                    ((one, other, Some(0.5)), None, Some(3.0 * value + 2.0))
                }
            }
        };
        assert_eq!((ones[row], others[row], lasts[row]), parts, "item {item}");
        assert_eq!((reasons.get(row), scores[row]), (reason, score), "item {item}");
    }
    let mut asked = asked.lock().expect("no panic").clone();
    asked.sort_unstable();
    expected.sort_unstable();
    assert_eq!(asked, expected, "a part was asked twice, or in vain, or not at all");
}

#[test]
fn a_warning_names_the_number_of_idle_workers_if_batches_are_too_small() {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&normal(300, 4, &mut rng(1))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let said = |update: &str, score: &str| {
        let run = format!(
            "[database]\npath = 'items.lance'\n[update]\n{update}\n[score]\n{score}\n[stop]\nevaluations = 0\n"
        );
        std::fs::write(folder.path().join("run.toml"), run).expect("written");
        let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
        assert!(output.status.success(), "{}", stderr(&output));
        uphill_ok(&["remove", "run"], folder.path());
        stderr(&output)
    };
    let command = |workers: usize| format!("command = ['cat']\nworkers = {workers}");
    let surrogate = |more: &str| format!("rule = 'surrogate'\n{more}");
    let words = "update.batch: at most 6 items are scored at a time, so 2 of 8 workers are idle; set it to 8";
    assert!(said(&surrogate("batch = 6"), &command(8)).contains(words));
    let words = "update.batch: at most 32 items are scored at a time, so 32 of 64 workers are idle; set it to 64";
    assert!(said(&surrogate(""), "url = 'http://127.0.0.1:9/'\nconcurrency = 64").contains(words));
    for (update, workers) in [(surrogate("batch = 8"), 8), (surrogate(""), 32), ("rule = 'rl'".into(), 64)] {
        let said = said(&update, &command(workers));
        assert!(!said.contains("update.batch"), "{said}");
    }
}
