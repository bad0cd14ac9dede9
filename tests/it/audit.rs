//! Tests of audits: random items are scored once, the run stays as it is, and the bound holds.

use std::collections::HashSet;
use std::path::Path;

use polars::prelude::*;
use serde_json::Value;
use uphill::{Audit, AuditState, RlUpdate, Runner, SearchLog, SqlFilter, SqlScore, StopConditions};

use crate::common::*;
use crate::faults::*;
use crate::runs::frames;

fn manifest(run: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(run.join("run.json")).expect("run.json")).expect("JSON")
}

/// The items that an audit drew, in order, from the file in the run folder.
fn drawn(run: &Path) -> DataFrame {
    let items = read(&run.join("audit/part-0000.parquet"));
    assert_eq!(u64s(&items, "draw"), (1..=items.height() as u64).collect::<Vec<_>>());
    items
}

fn audit(scene: &Scene, run: &str, fault: &str, options: &[&str]) -> std::process::Output {
    let arguments = [&["audit", run, "--hit", "60", "-o", "drawn.csv"][..], options].concat();
    scene.command(run, fault, &arguments).output().expect("the binary runs")
}

fn sorted(mut items: Vec<u64>) -> Vec<u64> {
    items.sort_unstable();
    items
}

#[test]
fn an_audit_scores_random_items_once_and_leaves_the_run_as_it_is() {
    let scene = Scene::new(COMMAND, 3);
    let run = scene.whole();
    let (before, searched) = (frames(&run.path()), run.paid());
    let ended = manifest(&run.path())["ended"].clone();

    let output = audit(&scene, "whole", "", &["-n", "40"]);
    succeeded(&output);
    let items = drawn(&run.path());
    let ids = u64s(&items, "db_idx");
    assert!(frames(&run.path()) == before && manifest(&run.path())["ended"] == ended, "the audit changed the run");
    assert_eq!(names(&items), ["draw", "db_idx", "name", "weight", "score", "outcome", "reason"]);
    assert_eq!(f64s(&items, "score"), ids.iter().map(|item| (item * 37 % 101) as f64).collect::<Vec<_>>());
    assert_eq!(ids.iter().filter(|item| searched.contains(item)).count(), 0, "an item of the run was drawn");
    assert_eq!(sorted(run.paid()[searched.len()..].to_vec()), sorted(ids.clone()));
    // The printed rows are those of the file.
    let csv = std::fs::read_to_string(scene.path("drawn.csv")).expect("a file");
    assert_eq!(csv.lines().count(), 41);
    assert!(csv.lines().nth(1).expect("a row").starts_with(&format!("1,{},item {}", ids[0], ids[0])), "{csv}");

    // Again, it pays nothing; more items continue with the same.
    let paid = run.paid();
    succeeded(&audit(&scene, "whole", "", &["-n", "40"]));
    assert!(run.paid() == paid && drawn(&run.path()).equals_missing(&items));
    succeeded(&audit(&scene, "whole", "", &["-n", "60"]));
    assert_eq!(run.paid().len(), paid.len() + 20);
    assert!(drawn(&run.path()).head(Some(40)).equals_missing(&items));

    // The search continues as if there had been no audit, and pays for no item that the audit has paid for.
    let plain = scene.run("plain");
    let more = ["--set", "stop.iterations=8"];
    let go = |name: &str| {
        let arguments = [&["search", "run.toml", "--out", name, "--resume"][..], &more].concat();
        succeeded(&scene.command(name, "", &arguments).output().expect("runs"));
    };
    go("plain");
    go("whole");
    assert!(frames(&run.path()) == frames(&plain.path()));
    let all = run.paid();
    assert_eq!(all.len(), all.iter().collect::<HashSet<_>>().len(), "paid for twice");
    let selected = plain.paid().into_iter().filter(|item| u64s(&drawn(&run.path()), "db_idx").contains(item)).count();
    assert!(selected > 0, "the search selected no item of the audit");
    assert_eq!(manifest(&run.path())["ended"]["evaluations"], manifest(&plain.path())["ended"]["evaluations"]);
    let ledger = run.durable();
    assert_eq!(ledger.len(), ledger.iter().collect::<HashSet<_>>().len());
    assert_eq!(sorted(ledger), sorted(all));

    // Another audit of the longer run: the items that the search has scored are replaced.
    succeeded(&audit(&scene, "whole", "", &["-n", "60"]));
    let kept: Vec<u64> = ids.iter().copied().filter(|item| !plain.paid().contains(item)).collect();
    assert_eq!(u64s(&drawn(&run.path()), "db_idx")[..kept.len()], kept);
}

#[test]
fn an_audit_killed_at_any_file_operation_continues_and_pays_for_no_durable_score_again() {
    let scene = Scene::new(COMMAND, 1);
    succeeded(&scene.run("begun").go(""));
    let whole = scene.copied("begun", "whole");
    succeeded(&audit(&scene, "whole", "", &["-n", "20"]));
    let operations = scene.operations("whole").len();
    println!("{operations} operations");
    assert!(operations > 10);
    each(operations, |number| {
        let run = scene.copied("begun", format!("killed-{number}"));
        let killed = ["audit", &run.name, "--hit", "60", "-n", "20", "--format", "csv"];
        was_killed(&scene.command(&run.name, &format!("{number}:kill"), &killed).output().expect("runs"));
        let (durable, paid) = (run.durable(), run.paid());
        succeeded(&scene.command(&run.name, "", &killed).output().expect("runs"));
        let again: Vec<u64> = run.paid()[paid.len()..].to_vec();
        assert!(again.iter().all(|item| !durable.contains(item)), "{}: paid for twice", run.name);
        assert!(again.iter().filter(|item| paid.contains(item)).count() <= BATCH, "{}", run.name);
        assert!(drawn(&run.path()).equals_missing(&drawn(&whole.path())), "{}", run.name);
        assert_eq!(manifest(&run.path())["audit"], manifest(&whole.path())["audit"]);
        assert!(frames(&run.path()) == frames(&whole.path()));
    });
}

/// `C(n, k)` as a logarithm, from logarithms of factorials.
fn ln_choose(factorials: &[f64], n: u64, k: u64) -> f64 {
    factorials[n as usize] - factorials[k as usize] - factorials[(n - k) as usize]
}

/// The largest number of hits among `items` items for which at most `hits` among `drawn` is not improbable, tried one by one.
fn most_hits(items: u64, drawn: u64, hits: u64) -> u64 {
    let factorials: Vec<f64> = (0..=items)
        .scan(0.0, |sum, number| {
            *sum += f64::ln(number.max(1) as f64);
            Some(*sum)
        })
        .collect();
    let probability = |all_hits: u64| {
        let draws = |x: u64| match x <= all_hits && drawn - x <= items - all_hits {
            true => {
                let ways = ln_choose(&factorials, all_hits, x) + ln_choose(&factorials, items - all_hits, drawn - x);
                (ways - ln_choose(&factorials, items, drawn)).exp()
            }
            false => 0.0,
        };
        (0..=hits).map(draws).sum::<f64>()
    };
    (hits..=items - (drawn - hits)).take_while(|all_hits| probability(*all_hits) > 0.05).last().expect("a number")
}

/// Searches a library of 500 items for a few iterations.
fn searched(folder: &TempDir, seed: u64, score: &str, filter: Option<&str>) -> (std::path::PathBuf, Runner) {
    let library = open(&folder.path().join("items.lance"));
    let start = uphill::queries_at(&library, &[3, 14]).expect("queries");
    let mut runner = Runner::new(library, SqlScore::new(score), RlUpdate::new(0.5)).seed(seed);
    if let Some(sql) = filter {
        runner = runner.filter(SqlFilter::new(sql));
    }
    let mut runner = runner.stop(StopConditions::new().hit(1.0).failed_share(1.0));
    let run = folder.path().join(format!("run-{seed}"));
    runner.search_into(&run, &start, 3).expect("a search");
    (run, runner)
}

fn complete(state: AuditState) -> (Audit, DataFrame) {
    match state {
        AuditState::Complete { audit, items } => (audit, items),
        AuditState::Pending(_) => panic!("no scores by hand"),
    }
}

fn library() -> TempDir {
    let folder = folder();
    exact_library(&folder, &clustered(500, 4, 8, &mut rng(2)));
    folder
}

#[test]
fn the_bound_is_that_of_counting_all_cases_and_the_population_is_what_the_filter_passes() {
    let folder = library();
    // Hits, rejected by null, and failures, by the weight, which says nothing about the embedding.
    let score = "CASE WHEN weight > 0.9 THEN 1.0 WHEN weight < 0.2 THEN NULL ELSE 0.0 END";
    let weight = |item: u64| (item * 37 % 100) as f64 / 100.0;
    for (seed, filter, n) in
        [(1, None, 60), (2, Some("weight > 0.5"), 100), (3, None, 10_000), (4, Some("weight < 0.6"), 80)]
    {
        let (run, mut runner) = searched(&folder, seed, score, filter);
        let log = SearchLog::open(&run).expect("a run");
        let results = uphill::collect(log.compile_results().expect("a query")).expect("results");
        let judged: HashSet<u64> = u64s(&results, "db_idx").into_iter().collect();
        let (audit, items) = complete(runner.audit(&run, n).expect("an audit"));
        let passes = |item: u64| match seed {
            2 => weight(item) > 0.5,
            4 => weight(item) < 0.6,
            _ => true,
        };
        let population: HashSet<u64> = (0..500).filter(|item| passes(*item) && !judged.contains(item)).collect();
        let ids = u64s(&items, "db_idx");
        assert!(ids.iter().all(|item| population.contains(item)), "{ids:?}");
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        let count = |is: &dyn Fn(f64) -> bool| ids.iter().filter(|item| is(weight(**item))).count() as u64;
        let (hits, failed) = (count(&|weight| weight > 0.9), count(&|weight| weight < 0.2));
        let found = judged.iter().filter(|item| weight(**item) > 0.9).count() as u64;
        assert_eq!(
            (audit.unscored, audit.drawn, audit.hits, audit.failed, audit.found),
            (population.len() as u64, n.min(population.len() as u64), hits, failed, found)
        );
        let missing = most_hits(audit.unscored, audit.drawn - failed, hits) - hits;
        assert_eq!(audit.missing, missing, "{audit:?}");
        let known = (found + hits) as f64;
        let recall = (known + missing as f64 > 0.0).then(|| known / (known + missing as f64));
        assert_eq!(audit.recall, recall);
        println!("{audit}");
        // It stands in the run folder.
        let log = SearchLog::open(&run).expect("a run");
        assert_eq!(log.manifest().audit, Some(audit));
        assert!(log.audited_items().expect("items").expect("items").equals_missing(&items));
    }
}

#[test]
fn of_many_audits_all_but_one_in_twenty_bound_the_hits_that_are_missing() {
    let folder = library();
    let weight = |item: u64| (item * 37 % 100) as f64 / 100.0;
    let (mut wrong, mut drawn_often) = (0, vec![0; 500]);
    let audits = 200;
    for seed in 0..audits {
        let (run, mut runner) = searched(&folder, seed, "CASE WHEN weight > 0.9 THEN 1.0 ELSE 0.0 END", None);
        let (audit, items) = complete(runner.audit(&run, 60).expect("an audit"));
        let all = (0..500).filter(|item| weight(*item) > 0.9).count() as u64;
        wrong += u64::from(all - audit.found - audit.hits > audit.missing);
        u64s(&items, "db_idx").into_iter().for_each(|item| drawn_often[item as usize] += 1);
    }
    // 5 % of 200 are 10, with a standard deviation of 3.
    println!("{wrong} of {audits} bounds are too small");
    assert!(wrong <= 20, "{wrong}");
    // An item is drawn in about 60 of 480 audits: 25 of 200, with a standard deviation of 5.
    let never = drawn_often.iter().filter(|times| **times == 0).count();
    assert!(drawn_often.iter().all(|times| *times < 55) && never < 30, "{drawn_often:?}");
}

#[test]
fn an_audit_for_rare_hits_says_that_it_cannot_tell_and_how_many_draws_could() {
    let folder = folder();
    let embeddings = clustered(3000, 4, 8, &mut rng(2));
    exact_library(&folder, &embeddings);
    // 30 items are hits, of which the search starts at one: item 27 has the weight 0.99.
    let start = uphill::embedding_column(embeddings.slice(ndarray::s![27..28, ..])).expect("a column");
    write(&folder.path().join("start.parquet"), &DataFrame::new(1, vec![start]).expect("a frame"));
    let run = "[database]\npath = \"items.lance\"\n[queries]\npath = \"start.parquet\"\n[score]\nsql = \"CASE WHEN weight > 0.985 THEN 1.0 ELSE 0.0 END\"\n\
               [update]\nrule = \"rl\"\nlr = 1.0\n[stop]\niterations = 1\nhit = 1\n";
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let output = uphill(&["audit", "run", "-n", "20"], folder.path());
    succeeded(&output);
    let audit = manifest(&folder.path().join("run"))["audit"].clone();
    let number = |key: &str| audit[key].as_u64().unwrap_or_else(|| panic!("{key}: {audit}"));
    let [found, unscored, missing] = ["found", "unscored", "missing"].map(number);
    assert!(found > 0 && number("hits") == 0 && missing > found, "{audit}");
    // The smallest number of draws, tried one by one.
    let draws = (1..=unscored).find(|draws| most_hits(unscored, *draws, 0) <= found).expect("a number");
    let said = stderr(&output);
    for text in [
        format!(
            "0 hits among 20 random items of the {unscored} without a score; with a confidence of 95 %, at most {missing} of"
        ),
        format!(
            "this audit cannot tell how many are missing: the search found {found} among 3000 items, which is too rare for 20 draws"
        ),
        format!("; {draws} draws without a hit would show that at most as many are missing as were found"),
    ] {
        assert!(said.contains(&text), "`{text}` is not in: {said}");
    }
    // It is shown elsewhere, too.
    let shown = uphill_ok(&["inspect", "run"], folder.path());
    assert!(shown.lines().any(|line| line.starts_with("audit ") && said.contains(line[5..].trim())), "{shown}");
    let json: Value = serde_json::from_str(&uphill_ok(&["inspect", "run", "--json"], folder.path())).expect("JSON");
    assert_eq!(json["audit"], audit);
    uphill_ok(&["report", "run", "-o", "report.html"], folder.path());
    let page = std::fs::read_to_string(folder.path().join("report.html")).expect("a page");
    assert!(page.contains("Hits missing") && page.contains(&format!("at most {missing}")));
    let output = uphill(&["--log-format", "json", "audit", "run", "-n", "20"], folder.path());
    let event: Value = serde_json::from_str(stderr(&output).lines().last().expect("a line")).expect("an object");
    assert!(event["event"] == "audit" && event["missing"] == missing, "{event}");
    // No hit was found at all.
    let output = uphill(&["audit", "run", "-n", "20", "--hit", "7"], folder.path());
    assert!(stderr(&output).contains("the search found no hit, so no audit can show a recall"), "{}", stderr(&output));
}

#[test]
fn a_run_by_hand_is_audited_by_hand() {
    let folder = folder();
    exact_library(&folder, &clustered(300, 4, 8, &mut rng(2)));
    let run = "[database]\npath = \"items.lance\"\n[queries]\nsample = 4\n[score]\nby_hand = true\n[update]\nfeatures = []\n\
               [stop]\nevaluations = 30\nhit = 0.9\n";
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    let by_hand = |items: DataFrame, file: &str| {
        let scores = items.lazy().select([col("db_idx"), col("weight").alias("score")]).collect().expect("scores");
        write(&folder.path().join(file), &scores);
    };
    let ask = || uphill_ok(&["ask", "run.toml", "--out", "hand", "-o", "asked.parquet"], folder.path());
    ask();
    let output = uphill(&["audit", "hand", "-n", "25"], folder.path());
    assert!(
        stderr(&output).contains("has no complete iteration to audit; resume the run first"),
        "{}",
        stderr(&output)
    );
    by_hand(read(&folder.path().join("asked.parquet")), "scores.parquet");
    uphill_ok(&["tell", "hand", "scores.parquet"], folder.path());
    ask();
    let (waiting, before) = (read(&folder.path().join("asked.parquet")), frames(&folder.path().join("hand")));

    let output = uphill(&["audit", "hand", "-n", "25", "-o", "drawn.parquet"], folder.path());
    let message =
        "25 drawn items are waiting for scores; give them with: uphill audit hand -n 25 --scores SCORES.parquet\n";
    assert_eq!(stderr(&output), message);
    let items = read(&folder.path().join("drawn.parquet"));
    assert_eq!(names(&items), ["db_idx", "embedding", "name", "weight"]);
    by_hand(items.head(Some(10)), "some.parquet");
    let output =
        uphill(&["audit", "hand", "-n", "25", "--scores", "some.parquet", "-o", "rest.parquet"], folder.path());
    assert!(stderr(&output).starts_with("15 drawn items are waiting"), "{}", stderr(&output));
    assert!(read(&folder.path().join("rest.parquet")).equals(&items.tail(Some(15))));
    by_hand(items.clone(), "all.parquet");
    uphill_ok(&["audit", "hand", "-n", "25", "--scores", "all.parquet", "-o", "audited.csv"], folder.path());
    let audited = drawn(&folder.path().join("hand"));
    assert_eq!(u64s(&audited, "db_idx"), u64s(&items, "db_idx"));
    assert_eq!(f64s(&audited, "score"), f64s(&items, "weight"));
    let hits = f64s(&items, "weight").into_iter().filter(|weight| *weight >= 0.9).count();
    assert_eq!(manifest(&folder.path().join("hand"))["audit"]["hits"], hits);
    // What `ask` returned before is what waits, and the run continues with it.
    assert!(frames(&folder.path().join("hand")) == before);
    ask();
    let now: Vec<u64> = u64s(&read(&folder.path().join("asked.parquet")), "db_idx");
    let expected: Vec<u64> =
        u64s(&waiting, "db_idx").into_iter().filter(|item| !u64s(&items, "db_idx").contains(item)).collect();
    assert_eq!(now, expected, "an item that the audit has scored waits no more");
}

#[test]
fn an_audit_needs_a_threshold_and_an_item_and_scores_are_for_runs_by_hand() {
    let scene = Scene::new(SQL, 1);
    succeeded(&scene.run("run").go(""));
    write(&scene.path("scores.parquet"), &df!("db_idx" => [1u64], "score" => [1.0]).expect("a frame"));
    for (options, message) in [
        (&["-n", "5"][..], "audit: the run has no threshold of a hit; pass --hit, or set stop.hit in the run file"),
        (&["-n", "0", "--hit", "0.5"], "audit: expected at least 1 item to draw, found 0"),
        (&["-n", "5", "--hit", "inf"], "stop.hit: expected a finite number, found inf"),
        (
            &["-n", "5", "--hit", "0.5", "--scores", "scores.parquet"],
            "audit: this run has a scorer, so it takes no manual scores; call the audit without scores",
        ),
    ] {
        let output = uphill(&[&["audit", "run"][..], options].concat(), scene.folder.path());
        assert_eq!(
            (stderr(&output).lines().last(), output.status.code()),
            (Some(&*format!("uphill: {message}")), Some(2))
        );
        assert!(!scene.path("run/audit").exists());
    }
}

#[test]
fn a_new_run_reuses_the_scores_of_an_audit_in_the_direction_of_the_scorer() {
    let folder = folder();
    exact_library(&folder, &clustered(300, 4, 8, &mut rng(2)));
    let run = "[database]\npath = \"items.lance\"\n[queries]\nsample = 4\n[score]\nsql = \"weight\"\ndirection = \"minimize\"\n\
               [update]\nfeatures = []\n[stop]\nevaluations = 30\nhit = 0.1\n";
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "first"], folder.path());
    uphill_ok(&["audit", "first", "-n", "50", "-o", "drawn.csv"], folder.path());
    let audited = drawn(&folder.path().join("first"));
    let hits = f64s(&audited, "raw_score").into_iter().filter(|score| *score <= 0.1).count();
    assert_eq!(manifest(&folder.path().join("first"))["audit"]["hits"], hits);
    let reuse = ["--set", "score.reuse=[\"first\"]", "--set", "stop.evaluations=5"];
    uphill_ok(&[&["search", "run.toml", "--out", "second"][..], &reuse].concat(), folder.path());
    assert_eq!(manifest(&folder.path().join("second"))["ended"]["reused"], 80);
    let results = read_results(&folder.path().join("second"));
    let weight = |item: u64| (item * 37 % 100) as f64 / 100.0;
    let expected: Vec<f64> = u64s(&results, "db_idx").into_iter().map(weight).collect();
    assert_eq!(f64s(&results, "raw_score"), expected);
    // By a column, too.
    let by_key = [&reuse[..], &["--set", "score.reuse_key=name"]].concat();
    uphill_ok(&[&["search", "run.toml", "--out", "third"][..], &by_key].concat(), folder.path());
    assert_eq!(manifest(&folder.path().join("third"))["ended"]["reused"], 80);
    // The whole folder of a run is removed.
    uphill_ok(&["remove", "first"], folder.path());
    assert!(!folder.path().join("first").exists());
}

fn read_results(run: &Path) -> DataFrame {
    let log = SearchLog::open(run).expect("a run");
    uphill::collect(log.compile_results().expect("a query")).expect("results")
}
