//! Ctrl-C and SIGTERM: the first ends the process resumably, the second at once.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use uphill::{IndexKind, IndexOptions, StopReason};

use crate::common::*;
use crate::faults::*;

const SIGNALS: [(Signal, i32); 2] = [(Signal::INT, 130), (Signal::TERM, 143)];

/// A test that waits for ever says nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Signals again and again until the process has ended. Signals that come too fast count as one.
fn signal_until_it_ends(process: &mut Pausing, signal: Signal) -> i32 {
    let started = Instant::now();
    while !process.has_ended() {
        assert!(started.elapsed() < PATIENCE, "signals do not end it");
        process.signal(signal);
        std::thread::sleep(Duration::from_millis(20));
    }
    process.wait().expect("it has ended")
}

#[test]
fn a_signal_at_any_file_operation_ends_a_search_which_resumes_to_the_same_frames() {
    let scene = Scene::new(COMMAND, 2);
    let whole = scene.whole();
    each(whole.operations().len(), |number| {
        let (signal, code) = SIGNALS[number % 2];
        let run = scene.run(format!("interrupted-{number}"));
        let mut search = Pausing::start(&mut run.command(&format!("{number}:stop")));
        assert_eq!(search.wait(), None);
        let committed = run.committed();
        search.signal(signal);
        search.go_on();
        let ended = search.wait();
        let log = uphill::SearchLog::open(run.path()).expect("a run");
        let is_over = log.manifest().ended.as_ref().is_some_and(|ended| ended.reason != StopReason::Interrupted);
        assert_eq!(ended, Some(if is_over { 0 } else { code }), "{number}");
        assert!(run.committed() <= committed + 1, "{number}: it went on");
        assert!(run.path().join("run.json").exists(), "{number}: what was begun is ended properly");
        run.assert_goes_on(&whole);
        assert_eq!(run.paid(), whole.paid(), "{number}: a scored batch was not kept");
    });
}

#[test]
fn a_second_signal_ends_a_search_at_once() {
    let scene = Scene::new(SQL, 2);
    let whole = scene.whole();
    for (signal, code) in SIGNALS {
        let run = scene.run(format!("stuck-{code}"));
        let number = whole.operation_that_publishes("results/iteration=000001");
        let mut search = Pausing::start(&mut run.command(&format!("{number}:hang")));
        let started = Instant::now();
        while run.operations().len() < number {
            assert!(started.elapsed() < PATIENCE && !search.has_ended(), "it does not come that far");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(signal_until_it_ends(&mut search, signal), code);
        assert_eq!(run.committed(), 1);
        run.assert_goes_on(&whole);
    }
}

#[test]
fn a_signal_ends_a_search_whose_scorer_hangs_and_its_answers_are_kept() {
    let scene = Scene::new(COMMAND, 2);
    let whole = scene.whole();
    for (signal, code) in SIGNALS {
        let run = scene.run(format!("slow-{code}"));
        // The scorer hangs at the first item of the third batch.
        let number = whole.operation_that_publishes("results/iteration=000000");
        let mut search = Pausing::start(&mut run.command(&format!("{number}:stop")));
        assert_eq!(search.wait(), None);
        std::fs::write(scene.path("slow"), "").expect("a file");
        let (paid, started) = (run.paid().len(), Instant::now());
        search.go_on();
        while run.paid().len() == paid {
            assert!(started.elapsed() < PATIENCE && !search.has_ended(), "the scorer is not asked");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(signal_until_it_ends(&mut search, signal), code);
        std::fs::remove_file(scene.path("slow")).expect("removed");
        assert_eq!((run.committed(), run.durable().len()), (1, paid));
        run.assert_goes_on(&whole);
    }
}

#[test]
fn a_signal_at_any_file_operation_of_an_index_build_leaves_a_complete_dataset_or_none() {
    let scene = Scene::new(SQL, 1);
    let index =
        |name: &str, fault: &str| scene.command(name, fault, &["index", "items.parquet", &format!("{name}.lance")]);
    succeeded(&index("whole", "").output().expect("the binary runs"));
    let operations = scene.operations("whole");
    let published = 1 + operations.iter().position(|operation| operation[0] == "rename").expect("a rename");
    each(operations.len(), |number| {
        let (signal, code) = SIGNALS[number % 2];
        let name = format!("interrupted-{number}");
        let dataset = scene.path(&format!("{name}.lance"));
        let partial = scene.path(&format!(".{name}.lance.partial"));
        let mut process = Pausing::start(&mut index(&name, &format!("{number}:stop")));
        assert_eq!(process.wait(), None);
        process.signal(signal);
        process.go_on();
        // Until the dataset gets its name it is given up, with nothing left behind; then it is done.
        assert_eq!(process.wait(), Some(if number < published { code } else { 0 }), "{number}");
        assert_eq!(dataset.exists(), number >= published, "{number}");
        assert!(!partial.exists());
        if number < published {
            succeeded(&index(&name, "").output().expect("the binary runs"));
        }
        assert_eq!(uphill::VectorDatabase::len(&crate::common::open(&dataset)), 300);
    });

    // Stuck where the dataset is built: the second signal leaves nothing under its name.
    let mut stuck = Pausing::start(&mut index("stuck", &format!("{published}:hang")));
    let started = Instant::now();
    while scene.operations("stuck").len() < published {
        assert!(started.elapsed() < PATIENCE && !stuck.has_ended(), "it does not come that far");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(signal_until_it_ends(&mut stuck, Signal::INT), 130);
    assert!(!scene.path("stuck.lance").exists());
    succeeded(&index("stuck", "").output().expect("the binary runs"));
    assert!(!scene.path(".stuck.lance.partial").exists());
}

#[test]
fn an_interrupt_after_the_rows_are_read_ends_every_index_build_without_a_dataset() {
    let folder = folder();
    let parquet = folder.path().join("items.parquet");
    write(&parquet, &items(&clustered(3000, 8, 20, &mut rng(91))));
    for index in [IndexKind::IvfFlat, IndexKind::IvfSq, IndexKind::IvfPq, IndexKind::IvfRq, IndexKind::IvfHnswSq] {
        let (flag, dataset) = (Arc::new(AtomicBool::new(false)), folder.path().join("items.lance"));
        let stop = flag.clone();
        let options = IndexOptions::new().index(index).stop(flag).progress(move |progress| {
            if let uphill::IndexProgress::Building(_) = progress {
                stop.store(true, Ordering::Relaxed);
            }
        });
        let built = uphill::index(&parquet, &dataset, &options);
        assert!(matches!(built, Err(uphill::Error::Interrupted)), "{index}: {built:?}");
        let left = files(folder.path());
        assert_eq!(left, std::slice::from_ref(&parquet), "{index}");
    }
}

#[test]
fn a_command_that_only_reads_ends_at_the_first_signal() {
    let scene = Scene::new(SQL, 1);
    let options = IndexOptions::new().index(IndexKind::None).overwrite(true);
    dataset(&scene.folder, &normal(4000, 4, &mut rng(92)), &options);
    succeeded(
        &scene
            .command("run", "", &["search", "run.toml", "--out", "run", "--set", "database.k=4000"])
            .output()
            .expect("it runs"),
    );
    for (signal, code) in SIGNALS {
        // Nobody reads what it writes.
        let mut command = Command::new(env!("CARGO_BIN_EXE_uphill"));
        command.args(["results", "run", "--format", "csv"]).current_dir(scene.folder.path());
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it runs");
        // It has begun to write when there is something to read.
        let mut first = [0];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut first).expect("a byte");
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).expect("signalled");
        let started = Instant::now();
        let ended = loop {
            if let Some(status) = child.try_wait().expect("a child") {
                break status;
            }
            if started.elapsed() > PATIENCE {
                child.kill().expect("killed");
                panic!("the first signal does not end it");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(ended.code(), Some(code));
    }
}
