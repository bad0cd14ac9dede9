//! kill -9 at any instant loses no finished iteration and no paid score, and a resumed run ends as
//! if nothing had happened.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use polars::prelude::*;
use rand::RngExt;
use uphill::{IndexKind, IndexOptions};

use crate::common::*;
use crate::faults::*;

#[test]
fn a_search_killed_at_any_file_operation_resumes_to_the_same_frames() {
    for score in [COMMAND, SQL] {
        let scene = Scene::new(score, 2);
        let whole = scene.whole();
        let operations = whole.operations().len();
        println!("{operations} operations");
        assert_eq!(whole.durable().is_empty(), score == SQL);
        each(operations, |number| {
            let run = scene.run(format!("killed-{number}"));
            was_killed(&run.go(&format!("{number}:kill")));
            run.assert_goes_on(&whole);
        });
    }
}

#[test]
fn a_search_killed_while_it_starts_another_ledger_file_has_each_answer_once() {
    let scene = Scene::with_an_almost_full_ledger();
    let whole = scene.copied("begun", "whole");
    succeeded(&whole.go(""));
    let answers = |run: &Run<'_>| {
        let mut answers = run.durable();
        answers.sort();
        assert!(answers.is_sorted_by(|a, b| a < b), "{}: an answer stands in the ledger twice", run.name);
        answers
    };
    assert_eq!((answers(&whole).len(), whole.batches().len()), (532, 2));
    let operations = whole.operations().len();
    println!("{operations} operations");
    each(operations, |number| {
        let run = scene.copied("begun", format!("killed-{number}"));
        let before = answers(&run);
        was_killed(&run.go(&format!("{number}:kill")));
        let durable = answers(&run);
        assert!(before.iter().all(|item| durable.contains(item)), "{}: an answer is lost", run.name);
        run.assert_goes_on(&whole);
        assert_eq!(answers(&run), answers(&whole), "{}", run.name);
    });
}

#[test]
fn a_search_killed_repeatedly_while_it_resumes_ends_with_the_same_frames() {
    for score in [COMMAND, SQL] {
        let scene = Scene::new(score, 4);
        let whole = scene.whole();
        let run = scene.run("killed");
        was_killed(&run.go(&format!("{}:kill", whole.operation_that_publishes("results/iteration=000000"))));
        run.goes_on_however_often_it_is_killed(&whole);
    }
}

#[test]
fn a_killed_search_of_an_updated_dataset_resumes_to_the_same_frames() {
    let scene = Scene::new(COMMAND, 4);
    let library = clustered(3000, 4, 6, &mut rng(6));
    let path = dataset(&scene.folder, &library, &IndexOptions::new().index(IndexKind::IvfFlat).overwrite(true));
    update(&path, &items(&(library * 1.01)).slice(0, 1500));
    let whole = scene.whole();
    let run = scene.run("killed");
    was_killed(&run.go(&format!("{}:kill", whole.operation_that_publishes("results/iteration=000000"))));
    run.goes_on_however_often_it_is_killed(&whole);
}

#[test]
fn manual_scores_are_kept_if_tell_is_killed_at_any_file_operation() {
    let scene = Scene::new(BY_HAND, 2);
    let ask = |name: &str, run: &str| {
        let file = format!("{name}-asked.parquet");
        succeeded(&scene.command(name, "", &["ask", "run.toml", "--out", run, "-o", &file]).output().expect("asked"));
        read(&scene.path(&file))
    };
    let tell = |run: &str, scores: &str, fault: &str| {
        scene.command(run, fault, &["tell", run, scores]).output().expect("told")
    };
    let scores_of = |name: &str, asked: &DataFrame| {
        let score = asked.column("weight").expect("weight").clone().with_name("score".into());
        let scores = DataFrame::new(asked.height(), vec![asked.column("db_idx").expect("ids").clone(), score]);
        write(&scene.path(name), &scores.expect("a frame"));
    };
    let first = ask("first", "whole");
    scores_of("first.parquet", &first);
    let start = scene.run("whole");
    let untold: Vec<(PathBuf, Vec<u8>)> = everything(&start.path());
    succeeded(&tell("whole", "first.parquet", ""));
    let second = ask("second", "whole");
    scores_of("second.parquet", &second);
    let operations = scene.operations("whole").len();
    succeeded(&tell("whole", "second.parquet", ""));
    each(operations, |number| {
        let name = format!("killed-{number}");
        for (file, bytes) in &untold {
            let file = scene.path(&name).join(file.strip_prefix(start.path()).expect("below the run"));
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            std::fs::write(file, bytes).expect("a file");
        }
        std::fs::create_dir_all(scene.path(&name).join("ledger")).expect("a folder");
        std::fs::create_dir_all(scene.path(&name).join("results")).expect("a folder");
        was_killed(&tell(&name, "first.parquet", &format!("{number}:kill")));
        let told = !scene.run(&name).batches().is_empty();
        if !told {
            assert!(ask(&name, &name).equals(&first), "{name}: what waits has changed");
            succeeded(&tell(&name, "first.parquet", ""));
        }
        // If the scores are durable, they need not be told again.
        assert!(ask(&name, &name).equals(&second), "{name}: other items wait");
        succeeded(&tell(&name, "second.parquet", ""));
        scene.run(name).assert_equals(&start);
    });
}

/// All files below a folder, and what is in them.
fn everything(folder: &std::path::Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (folders, found): (Vec<PathBuf>, Vec<PathBuf>) = files(folder).into_iter().partition(|path| path.is_dir());
    let mut all: Vec<_> = found.into_iter().map(|file| (file.clone(), std::fs::read(file).expect("a file"))).collect();
    all.extend(folders.iter().flat_map(|folder| everything(folder)));
    all
}

#[test]
fn a_dataset_whose_build_is_killed_is_complete_or_absent() {
    let scene = Scene::new(SQL, 1);
    let index = |name: &str, fault: &str, more: &[&str]| {
        let dataset = format!("{name}.lance");
        let arguments = [&["index", "items.parquet", &dataset], more].concat();
        scene.command(name, fault, &arguments).output().expect("the binary runs")
    };
    let rows = |name: &str| {
        let dataset = scene.path(&format!("{name}.lance"));
        dataset.exists().then(|| uphill::VectorDatabase::len(&open(&dataset)))
    };
    succeeded(&index("new", "", &[]));
    let operations = scene.operations("new").len();
    println!("{operations} operations");
    each(operations, |number| {
        let name = format!("new-{number}");
        was_killed(&index(&name, &format!("{number}:kill"), &[]));
        match rows(&name) {
            None => succeeded(&index(&name, "", &[])),
            whole => assert_eq!(whole, Some(300)),
        }
        assert_eq!(rows(&name), Some(300));
    });

    // Replacing one of a hundred items: the old one or the new one is there after the next start.
    write(&scene.path("old.parquet"), &items(&normal(100, 4, &mut rng(6))));
    let old = |name: &str| {
        succeeded(
            &scene.command("old", "", &["index", "old.parquet", &format!("{name}.lance")]).output().expect("runs"),
        );
    };
    old("over");
    succeeded(&index("over", "", &["--overwrite"]));
    let operations = scene.operations("over").len();
    let absent = std::sync::atomic::AtomicUsize::new(0);
    each(operations, |number| {
        let name = format!("over-{number}");
        old(&name);
        was_killed(&index(&name, &format!("{number}:kill"), &["--overwrite"]));
        match rows(&name) {
            Some(rows) => assert!([100, 300].contains(&rows), "{name}: {rows} rows"),
            None => {
                absent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                // The next start, even one that fails, brings the old one back.
                let output = index(&name, "", &[]);
                assert!(stderr(&output).contains("already exists"), "{}", stderr(&output));
                assert_eq!(rows(&name), Some(100));
            }
        }
        succeeded(&index(&name, "", &["--overwrite"]));
        assert_eq!(rows(&name), Some(300));
        assert!(!scene.path(&format!(".{name}.lance.partial")).exists());
    });
    // Only between the two renames is neither there.
    assert_eq!(absent.into_inner(), 1);
}

/// What only a power cut would show: the page cache survives a kill.
#[test]
fn every_file_is_synced_before_it_is_renamed_and_every_rename_before_the_next_operation() {
    let scene = Scene::new(COMMAND, 2);
    let whole = scene.whole();
    was_killed(&scene.run("killed").go("40:kill"));
    std::fs::remove_file(scene.path("killed.operations")).expect("removed");
    succeeded(&scene.run("killed").go(""));
    let built = ["index", "items.parquet", "built.lance"];
    succeeded(&scene.command("built", "", &built).output().expect("the binary runs"));
    for name in ["whole", "killed", "built"] {
        let operations = scene.operations(name);
        // What each path has been through since it was last on the disk.
        let mut unsynced: HashMap<String, String> = HashMap::new();
        let mut published = 0;
        for (number, operation) in operations.iter().enumerate() {
            let (what, path) = (operation[0].as_str(), operation[1].as_str());
            let parent = |path: &str| match path.rsplit_once('/') {
                Some((parent, _)) => parent.to_string(),
                None => ".".to_string(),
            };
            match what {
                "create" | "write" => {
                    unsynced.insert(path.to_string(), format!("{what} {path}"));
                }
                "sync" => {
                    unsynced.remove(path);
                }
                "rename" => {
                    let target = &operation[2];
                    let below: Vec<_> = unsynced.iter().filter(|(open, _)| open.starts_with(path)).collect();
                    assert!(below.is_empty(), "{name}: {target} gets its name before its content is safe: {below:?}");
                    let next = operations.get(number + 1).map(|next| next.join(" "));
                    let expected = format!("sync {}", parent(target));
                    assert_eq!(next, Some(expected), "{name}: the name {target} is not safe at once");
                    unsynced.insert(parent(target), operation.join(" "));
                    published += 1;
                }
                _ => {}
            }
        }
        println!("{name}: {published} renames");
        assert!(published >= 1);
    }
    // The dataset's files are written by Lance; all of them are made safe before it gets its name.
    let built = scene.operations("built");
    let named = built.iter().position(|operation| operation[0] == "rename").expect("a rename");
    for file in everything(&scene.path("built.lance")).iter().map(|(file, _)| file) {
        let inside = file.strip_prefix(scene.path("built.lance")).expect("below the dataset").display().to_string();
        let synced = vec!["sync".to_string(), format!(".built.lance.partial/dataset.lance/{inside}")];
        assert!(built[..named].contains(&synced), "{inside}");
    }
    let published: Vec<String> = whole
        .operations()
        .into_iter()
        .filter(|operation| operation[0] == "rename" && !operation[2].contains("/tmp/"))
        .map(|operation| operation[2].trim_start_matches("whole/").to_string())
        .collect();
    let [first, second] = [0, 1].map(|iteration| format!("results/iteration={iteration:06}"));
    let at = |name: &str| published.iter().position(|published| published == name).expect(name);
    // Each batch gives the file of the ledger its name anew.
    let batches: Vec<usize> =
        (0..published.len()).filter(|number| published[*number] == "ledger/batch-000000.parquet").collect();
    let (paid, last) = (batches[0], *batches.last().expect("a batch"));
    // Queries before their results, paid batches before the iteration that paid for them.
    assert!(at("run.json") < at("queries/iteration=000000") && at("queries/iteration=000000") < paid);
    assert!(paid < at(&first) && at(&first) < at("queries/iteration=000001"));
    assert!(
        at("queries/iteration=000001") < last && last < at(&second) && at(&second) < at("queries/iteration=000002")
    );
    assert!(published.iter().rposition(|name| name == "run.json") > Some(at("queries/iteration=000002")));
    // Each file and each partition was written once.
    for partition in files(&whole.path().join("results")) {
        let folder = partition.strip_prefix(whole.path()).expect("below the run").to_string_lossy().into_owned();
        assert_eq!(published.iter().filter(|name| **name == folder).count(), 1);
    }
}

#[test]
fn a_search_killed_a_hundred_times_at_random_ends_with_the_same_frames() {
    killed_at_random(100, 1);
}

#[test]
#[ignore = "takes minutes"]
fn a_search_killed_three_thousand_times_at_random_ends_with_the_same_frames() {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    killed_at_random(3000, seed);
}

/// Kills a search, and the search that goes on with it, and so on; begins another when it is through.
fn killed_at_random(kills: usize, seed: u64) {
    let scene = Scene::new(COMMAND, 12);
    let started = Instant::now();
    let whole = scene.whole();
    let length = started.elapsed().as_micros() as u64;
    let mut rng = rng(seed);
    let (mut killed, mut runs, mut committed) = (0, 0, 0);
    while killed < kills {
        runs += 1;
        let run = scene.run(format!("killed-{runs}"));
        let mut before = 0;
        loop {
            let (durable, paid) = (run.durable(), run.paid().len());
            let mut child = Pausing::start(&mut run.command(""));
            std::thread::sleep(Duration::from_micros(rng.random_range(0..length)));
            child.signal(rustix::process::Signal::KILL);
            let code = child.wait();
            run.assert_sound(&whole);
            assert!(run.committed() >= before, "an iteration is lost");
            before = run.committed();
            assert!(run.paid()[paid..].iter().all(|item| !durable.contains(item)), "paid for twice");
            match code {
                Some(0) => break,
                code => assert_eq!(code, Some(-9)),
            }
            killed += 1;
        }
        committed += before;
        run.assert_equals(&whole);
    }
    println!("{killed} kills in {runs} runs of {committed} iterations");
}
