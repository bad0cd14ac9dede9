//! Ctrl-C and SIGTERM: the first ends the process resumably, the second at once.

use std::time::{Duration, Instant};

use rustix::process::Signal;

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
fn one_signal_at_any_file_operation_ends_a_search_which_then_goes_on_as_if_nothing_had_happened() {
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
        assert_eq!(search.wait(), Some(code), "{number}");
        assert!(run.committed() <= committed + 1, "{number}: it went on");
        assert!(run.path().join("run.json").exists(), "{number}: what was begun is ended properly");
        run.assert_goes_on(&whole);
        assert_eq!(run.paid(), whole.paid(), "{number}: a scored batch was not kept");
    });
}

#[test]
fn a_second_signal_ends_at_once_a_search_that_cannot_finish_its_step() {
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
fn signals_end_a_search_whose_scorer_hangs_and_keep_what_it_answered() {
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
fn a_signal_at_any_file_operation_of_an_index_leaves_a_whole_dataset_or_none() {
    let scene = Scene::new(SQL, 1);
    let index =
        |name: &str, fault: &str| scene.command(name, fault, &["index", "items.parquet", &format!("{name}.lance")]);
    succeeded(&index("whole", "").output().expect("the binary runs"));
    let operations = scene.operations("whole");
    let built = operations.iter().position(|operation| operation[0] == "sync").expect("a sync");
    each(operations.len(), |number| {
        let (signal, code) = SIGNALS[number % 2];
        let name = format!("interrupted-{number}");
        let dataset = scene.path(&format!("{name}.lance"));
        let partial = scene.path(&format!(".{name}.lance.partial"));
        let mut process = Pausing::start(&mut index(&name, &format!("{number}:stop")));
        assert_eq!(process.wait(), None);
        process.signal(signal);
        process.go_on();
        assert_eq!(process.wait(), Some(code), "{number}");
        // Before the rows are read it is given up, with nothing left behind; after that it is finished.
        assert_eq!(dataset.exists(), number > built, "{number}");
        assert!(!partial.exists());
        if number <= built {
            succeeded(&index(&name, "").output().expect("the binary runs"));
        }
        assert_eq!(uphill::VectorDatabase::len(&crate::common::open(&dataset)), 300);
    });

    // Stuck where the dataset is built: the second signal leaves nothing under its name.
    let mut stuck = Pausing::start(&mut index("stuck", &format!("{}:hang", built + 1)));
    let started = Instant::now();
    while scene.operations("stuck").len() <= built {
        assert!(started.elapsed() < PATIENCE && !stuck.has_ended(), "it does not come that far");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(signal_until_it_ends(&mut stuck, Signal::INT), 130);
    assert!(!scene.path("stuck.lance").exists());
    succeeded(&index("stuck", "").output().expect("the binary runs"));
    assert!(!scene.path(".stuck.lance.partial").exists());
}
