//! `uphill remove`: a run goes whole, or the next removal finishes it; nothing of anybody else's goes with it.

use rustix::process::Signal;
use uphill::SearchLog;

use crate::common::*;
use crate::faults::*;

fn tags(scene: &Scene) -> Vec<String> {
    let refs = scene.path("items.lance/_refs/tags");
    let mut names: Vec<String> = std::fs::read_dir(refs)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_removal_killed_at_any_file_operation_is_finished_by_the_next_one() {
    let scene = Scene::new(COMMAND, 2);
    let whole = scene.whole();
    let remove = |name: &str, fault: &str| {
        scene.command(&format!("remove-{name}"), fault, &["remove", name]).output().expect("the binary runs")
    };
    let first = scene.run("first");
    succeeded(&first.go(""));
    let kept = tags(&scene);
    assert_eq!(kept.len(), 2);
    succeeded(&remove("first", ""));
    assert!(!first.path().exists());
    assert_eq!(tags(&scene).len(), 1);
    let operations = scene.operations("remove-first").len();
    println!("{operations} operations");
    each(operations, |number| {
        let run = scene.run(format!("run-{number}"));
        succeeded(&run.go(""));
        was_killed(&remove(&run.name, &format!("{number}:kill")));
        // It is a run, with all that it has, or it is none.
        match SearchLog::open(run.path()) {
            Ok(_) => run.assert_equals(&whole),
            Err(error) => {
                let said = error.to_string();
                let is_empty = files(&run.path()).is_empty();
                assert!(
                    is_empty || said.ends_with("its run is being removed; `uphill remove` finishes that"),
                    "{said}"
                );
                // Nobody takes what is left for a run, or for room for one.
                let again = scene.command("again", "", &["search", "run.toml", "--out", &run.name]).output();
                assert_eq!(again.expect("the binary runs").status.success(), is_empty);
            }
        }
        if run.path().join("run.json").exists() || run.path().join("removed.json").exists() {
            succeeded(&remove(&run.name, ""));
            assert!(!run.path().exists());
        }
    });
    assert_eq!(tags(&scene).len(), 1, "only the whole run's");
}

#[test]
fn remove_deletes_only_files_of_a_run_that_no_process_writes() {
    let scene = Scene::new(SQL, 2);
    let whole = scene.whole();
    let remove = |name: &str| uphill(&["remove", name], scene.folder.path());
    for (name, reason) in [
        ("nowhere", "is not a run folder (it has no run.json)"),
        ("items.lance", "is not a run folder (it has no run.json)"),
    ] {
        let output = remove(name);
        assert_eq!((stderr(&output), output.status.code()), (format!("uphill: {name}: {reason}\n"), Some(1)));
    }
    assert!(!scene.path("items.lance/lock").exists());

    let busy = scene.run("busy");
    let at = whole.operation_that_publishes("results/iteration=000000");
    let mut writer = Pausing::start(&mut busy.command(&format!("{at}:stop")));
    assert_eq!(writer.wait(), None);
    let output = remove("busy");
    let said = "uphill: busy: in use by another process; wait for it to end, or stop it\n";
    assert_eq!((stderr(&output).as_str(), output.status.code()), (said, Some(4)));
    writer.signal(Signal::KILL);
    assert_eq!(writer.wait(), Some(-9));
    busy.assert_goes_on(&whole);

    std::fs::write(busy.path().join("notes.txt"), "mine").expect("written");
    let output = remove("busy");
    let said = "uphill: busy: the folder stays, because it has other files: notes.txt\nbusy: removed\n";
    assert_eq!((stderr(&output).as_str(), output.status.code()), (said, Some(0)));
    let left: Vec<_> = files(&busy.path());
    assert_eq!(left, [busy.path().join("notes.txt")]);
}

#[test]
fn a_run_whose_dataset_is_missing_or_moved_can_be_removed() {
    let scene = Scene::new(SQL, 2);
    scene.whole();
    std::fs::rename(scene.path("items.lance"), scene.path("elsewhere.lance")).expect("moved");
    // From inside the folder itself: run.json says where the dataset was, from anywhere.
    let output = uphill(&["remove", "."], &scene.path("whole"));
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.lines().count() == 2 && said.contains("items.lance: deleting the tag uphill-run-"), "{said}");
    assert!(
        said.contains("if the dataset still exists, it keeps version 2 until you delete the tag: lance.dataset("),
        "{said}"
    );
    assert!(!scene.path("whole").exists());
}

#[test]
fn a_run_folder_behind_a_link_is_removed() {
    let scene = Scene::new(SQL, 2);
    scene.whole();
    std::os::unix::fs::symlink("whole", scene.path("latest")).expect("a link");
    succeeded(&uphill(&["remove", "latest"], scene.folder.path()));
    assert!(!scene.path("whole").exists() && !scene.path("latest").is_symlink());
}
