//! One writer to a folder, and nothing of anybody else's is touched.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::common::*;
use crate::faults::*;

fn is_refused_as_in_use(output: &std::process::Output, folder: &str) {
    assert_eq!(
        stderr(output),
        format!("uphill: {folder}: in use by another process; wait for it to end, or stop it\n")
    );
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn a_second_writer_is_rejected_and_the_lock_ends_with_the_first() {
    let scene = Scene::new(SQL, 2);
    let whole = scene.whole();
    // From the moment the lock is taken, whatever is there already.
    let operations = whole.operations();
    let locked = operations.iter().position(|operation| operation[0] == "lock").expect("a lock") + 2;
    for number in [locked, locked + 6, whole.operation_that_publishes("results/iteration=000000"), operations.len()] {
        let run = scene.run(format!("run-{number}"));
        let mut first = Pausing::start(&mut run.command(&format!("{number}:stop")));
        assert_eq!(first.wait(), None);
        is_refused_as_in_use(&run.go(""), &run.name);
        let anew = ["search", "run.toml", "--out", &run.name];
        is_refused_as_in_use(&scene.command("second", "", &anew).output().expect("runs"), &run.name);
        if run.path().join("run.json").exists() {
            // Reading is for everybody.
            uphill_ok(&["results", &run.name], scene.folder.path());
        }
        first.signal(Signal::KILL);
        assert_eq!(first.wait(), Some(-9));
        run.assert_goes_on(&whole);
    }
}

#[test]
fn a_process_that_a_scorer_left_running_does_not_keep_the_lock() {
    let scene = Scene::new(COMMAND, 2);
    let whole = scene.whole();
    let scorer = std::fs::read_to_string(scene.path("scorer.sh")).expect("a scorer");
    let stray = "if [ ! -e stray ]; then setsid sleep 600 < /dev/null > /dev/null 2>&1 & echo $! > stray; fi\n";
    std::fs::write(scene.path("scorer.sh"), format!("{stray}{scorer}")).expect("a scorer");
    let run = scene.run("killed");
    was_killed(&run.go(&format!("{}:kill", whole.operation_that_publishes("results/iteration=000000"))));
    let stray = std::fs::read_to_string(scene.path("stray")).expect("a number");
    let stray = Pid::from_raw(stray.trim().parse().expect("a number")).expect("a process");
    let lives = test_kill_process(stray);
    let output = run.go("");
    let _ = kill_process(stray, Signal::KILL);
    lives.expect("what the scorer started outlives the search");
    succeeded(&output);
    run.assert_equals(&whole);
}

/// All that is below a folder: contents and times of change.
fn state(folder: &Path) -> Vec<(PathBuf, SystemTime, Option<Vec<u8>>)> {
    let mut all = Vec::new();
    for path in [folder.to_path_buf()].into_iter().chain(files(folder)) {
        let metadata = std::fs::metadata(&path).expect("there");
        if path != folder && metadata.is_dir() {
            all.extend(state(&path));
        } else {
            let content = metadata.is_file().then(|| std::fs::read(&path).expect("a file"));
            all.push((path, metadata.modified().expect("a time"), content));
        }
    }
    all
}

#[test]
fn a_folder_with_other_files_is_rejected_and_not_changed() {
    let scene = Scene::new(SQL, 2);
    let whole = scene.whole();
    let path = scene.path("other");
    for file in ["notes.txt", "tmp/notes.txt", "results/january/notes.txt", "queries/.hidden", "lock/notes.txt"] {
        std::fs::create_dir_all(path.join(file).parent().expect("a folder")).expect("a folder");
        std::fs::write(path.join(file), "mine").expect("a file");
        let before = state(&path);
        for more in [None, Some("--resume")] {
            let arguments: Vec<&str> = ["search", "run.toml", "--out", "other"].into_iter().chain(more).collect();
            let output = scene.command("other", "", &arguments).output().expect("the binary runs");
            let reason = match more {
                None => "is neither empty nor a run folder; choose another folder",
                Some(_) => "is not a run folder (it has no run.json)",
            };
            assert_eq!(stderr(&output), format!("uphill: other: {reason}\n"), "{file}");
            assert_eq!(output.status.code(), Some(1));
            assert!(state(&path) == before, "{file}: {more:?}: something changed");
        }
        std::fs::remove_dir_all(&path).expect("removed");
    }
    // A file, and a finished run.
    std::fs::write(&path, "mine").expect("a file");
    let output = scene.run("other").go("");
    assert_eq!(stderr(&output), "uphill: other: is not a folder; choose another name\n");
    assert_eq!(std::fs::read(&path).expect("a file"), b"mine");
    let before = state(&whole.path());
    let output = uphill(&["search", "run.toml", "--out", "whole"], scene.folder.path());
    let reason = "already holds a run; resume it with --resume, or choose another folder";
    assert_eq!(stderr(&output), format!("uphill: whole: {reason}\n"));
    assert!(state(&whole.path()) == before, "something changed");
}

#[test]
fn a_folder_of_a_run_that_was_killed_before_run_json_can_be_used_again() {
    let scene = Scene::new(SQL, 2);
    let whole = scene.whole();
    for (name, more) in [("killed", None), ("requeued", Some("--resume"))] {
        let run = scene.run(name);
        was_killed(&run.go(&format!("{}:kill", whole.operation_that_publishes("run.json"))));
        let arguments: Vec<&str> = ["search", "run.toml", "--out", name].into_iter().chain(more).collect();
        let output = scene.command(name, "", &arguments).output().expect("the binary runs");
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stderr(&output).contains("no run to resume; starting a new one"), more.is_some());
        run.assert_equals(&whole);
    }
}

#[test]
fn a_file_system_without_locks_is_rejected_with_advice_and_nothing_is_written() {
    let scene = Scene::new(SQL, 2);
    let whole = scene.whole();
    let number =
        |name: &str| scene.operations(name).iter().position(|operation| operation[0] == "lock").expect("a lock") + 1;
    let index = ["index", "items.parquet", "new.lance"];
    succeeded(&scene.command("built", "", &["index", "items.parquet", "built.lance"]).output().expect("runs"));
    for (fault, cause) in [
        ("enolck", "No locks available (os error 37)"),
        ("enotsup", "Operation not supported (os error 95)"),
        ("enosys", "Function not implemented (os error 38)"),
    ] {
        let run = scene.run(fault);
        let begun = run.go(&format!("{}:{fault}", number("whole")));
        let built = scene.command("new", &format!("{}:{fault}", number("built")), &index).output().expect("runs");
        for (output, folder) in [(&begun, fault), (&built, ".new.lance.partial")] {
            assert_eq!(
                stderr(output),
                format!(
                    "uphill: {folder}: this file system does not support file locks ({cause}), which keep out a second \
                     process; use a folder on another file system, such as a local disk, and copy it after the run, or mount \
                     this one with locks (Lustre: `-o flock`; NFS: with its lock service)\n"
                )
            );
            assert_eq!(output.status.code(), Some(1));
        }
        assert!(!scene.path("new.lance").exists());
        run.assert_goes_on(&whole);
    }
}

#[test]
fn two_concurrent_builds_of_one_dataset_exclude_each_other() {
    let scene = Scene::new(SQL, 1);
    let index = |name: &str, fault: &str, more: &[&str]| {
        let arguments = [&["index", "items.parquet", "new.lance"], more].concat();
        scene.command(name, fault, &arguments)
    };
    let number = |name: &str, what: &str| {
        scene.operations(name).iter().position(|operation| operation[0] == what).expect(what) + 1
    };
    succeeded(&scene.command("whole", "", &["index", "items.parquet", "whole.lance"]).output().expect("runs"));

    let (published, lock) = (number("whole", "rename"), number("whole", "lock"));
    let mut first = Pausing::start(&mut index("first", &format!("{published}:stop"), &[]));
    assert_eq!(first.wait(), None);
    is_refused_as_in_use(&index("second", "", &[]).output().expect("runs"), "new.lance");

    // The second has opened the lock file, which goes with the first; the third makes it anew.
    let mut second = Pausing::start(&mut index("second", &format!("{lock}:stop"), &["--overwrite"]));
    assert_eq!(second.wait(), None);
    first.go_on();
    assert_eq!(first.wait(), Some(0));
    let mut third = Pausing::start(&mut index("third", &format!("{published}:stop"), &["--overwrite"]));
    assert_eq!(third.wait(), None);
    second.go_on();
    assert_eq!(second.wait(), Some(4), "a lock on a file that is gone keeps nobody out");
    third.go_on();
    assert_eq!(third.wait(), Some(0));

    let output = index("fourth", "", &[]).output().expect("runs");
    assert_eq!(
        stderr(&output),
        "uphill: new.lance: already exists; choose another name, or replace it with --overwrite\n"
    );
    assert!(!scene.path(".new.lance.partial").exists());
}
