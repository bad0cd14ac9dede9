//! A full disk, a permission that is lost, a limit on the size of files: one line that names path and
//! cause, exit code 1, and a run that goes on when there is room again.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use crate::common::*;
use crate::faults::*;

const FAULTS: [(&str, &str); 2] =
    [("enospc", "No space left on device (os error 28)"), ("eacces", "Permission denied (os error 13)")];

/// Asserts one line, `uphill: PATH: CAUSE`, of which it gives the path.
fn path_in_message(output: &Output, cause: &str) -> String {
    let message = stderr(output);
    let path = message.strip_prefix("uphill: ").and_then(|rest| rest.strip_suffix(&format!(": {cause}\n")));
    let path = path.unwrap_or_else(|| panic!("{}: expected {cause}: {message}", output.status));
    assert!(!path.contains('\n'), "{message}");
    assert_eq!(output.status.code(), Some(1), "{message}");
    path.to_string()
}

#[test]
fn a_search_that_fails_at_any_file_operation_names_the_file_and_the_cause_and_can_be_resumed() {
    for (turn, score) in [COMMAND, SQL].into_iter().enumerate() {
        let scene = Scene::new(score, 2);
        let whole = scene.whole();
        let operations = whole.operations();
        each(operations.len(), |number| {
            let (fault, cause) = FAULTS[(number + turn) % 2];
            let run = scene.run(format!("failed-{number}"));
            let output = run.go(&format!("{number}:{fault}"));
            let path = path_in_message(&output, cause);
            let operation = &operations[number - 1];
            let expected = operation.last().expect("a path").replace("whole", &run.name);
            // What is written aside is named by the place it is for.
            let name = expected.rsplit('/').next().unwrap_or_default();
            assert!(path == expected || operation[0] == "write" && path.ends_with(name), "{path}, not {expected}");
            run.assert_goes_on(&whole);
        });
    }
}

#[test]
fn an_index_build_that_fails_at_any_file_operation_leaves_the_old_dataset_or_the_new_one() {
    let scene = Scene::new(SQL, 1);
    write(&scene.path("old.parquet"), &items(&normal(100, 4, &mut rng(6))));
    let index = |items: &str, name: &str, fault: &str| {
        let arguments = ["index", items, &format!("{name}.lance"), "--overwrite"];
        scene.command(name, fault, &arguments).output().expect("the binary runs")
    };
    let rows = |name: &str| uphill::VectorDatabase::len(&open(&scene.path(&format!("{name}.lance"))));
    let list = |name: &str| scene.path(&format!("{name}.operations"));
    succeeded(&index("old.parquet", "whole", ""));
    std::fs::remove_file(list("whole")).expect("removed");
    succeeded(&index("items.parquet", "whole", ""));
    let operations = scene.operations("whole");
    each(operations.len(), |number| {
        let (fault, cause) = FAULTS[number % 2];
        let name = format!("failed-{number}");
        succeeded(&index("old.parquet", &name, ""));
        let output = index("items.parquet", &name, &format!("{number}:{fault}"));
        if operations[number - 1][0] == "remove folder" {
            // Only what is left over stays, until the next start.
            succeeded(&output);
            assert_eq!(rows(&name), 300);
        } else {
            // The folder that the dataset is in, or something of its own.
            let path = path_in_message(&output, cause);
            assert!(path == "." || path.contains(&name), "{path}");
        }
        assert!([100, 300].contains(&rows(&name)), "{name}: {} rows", rows(&name));
        succeeded(&index("items.parquet", &name, ""));
        assert_eq!(rows(&name), 300);
    });
}

#[test]
fn a_file_size_limit_is_reported_as_an_error() {
    let scene = Scene::new(SQL, 2);
    let whole = scene.whole();
    // In blocks of 512 bytes.
    let limited = |blocks: usize, arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -f \"$0\" && exec \"$@\"", &blocks.to_string(), env!("CARGO_BIN_EXE_uphill")]);
        command.args(arguments).current_dir(scene.folder.path()).output().expect("sh runs")
    };
    each(12, |blocks| {
        let run = scene.run(format!("limited-{blocks}"));
        let output = limited(blocks - 1, &["search", "run.toml", "--out", &run.name]);
        if !output.status.success() {
            let path = path_in_message(&output, "File too large (os error 27)");
            assert!(path.starts_with(&run.name), "{path}");
            println!("{} blocks: {path}", blocks - 1);
        }
        run.assert_goes_on(&whole);
    });
    for blocks in [0, 1, 4] {
        let output = limited(blocks, &["index", "items.parquet", "limited.lance"]);
        println!("{blocks} blocks: {}", stderr(&output));
        assert_eq!(output.status.code(), Some(1), "{}: {}", output.status, stderr(&output));
        let message = stderr(&output);
        assert!(message.starts_with("uphill: .limited.lance.partial/dataset.lance: "), "{message}");
        assert!(message.ends_with("File too large (os error 27)\n"), "{message}");
        assert!(!scene.path("limited.lance").exists() && !scene.path(".limited.lance.partial").exists());
    }
}

#[test]
fn a_full_disk_is_reported_and_the_run_can_be_resumed_when_there_is_space() {
    // A file system of its own, which takes root, or a system that lets everybody be root of a new name space.
    const SCRIPT: &str = r#"
mkdir small
mount -t tmpfs -o size="$1" tmpfs small || exit 77
shift
"$@" --out small/run 2> message
echo $? > code
mount -o remount,size=10m small
if [ -e small/run/run.json ]; then resume=--resume; fi
"$@" --out small/run $resume || exit 1
cp -r small/run run
umount small
"#;
    let mut seen = 0;
    let scene = Scene::new(SQL, 3);
    let whole = scene.whole();
    for (number, size) in ["4k", "16k", "32k", "48k"].into_iter().enumerate() {
        let place = scene.path(&format!("place-{number}"));
        std::fs::create_dir(&place).expect("a folder");
        let mut script = Command::new("unshare");
        script.args(["--mount", "--map-root-user", "sh", "-c", SCRIPT, "sh", size, env!("CARGO_BIN_EXE_uphill")]);
        let output = script.args(["search", "../run.toml"]).current_dir(&place).stdout(Stdio::null()).output();
        let Ok(output) = output.map_err(|error| println!("SKIPPED: no unshare: {error}")) else { return };
        if !output.status.success() && !place.join("code").exists() {
            println!("SKIPPED: no file system of its own may be mounted here: {}", stderr(&output));
            return;
        }
        succeeded(&output);
        let message = std::fs::read_to_string(place.join("message")).expect("a message");
        let code = std::fs::read_to_string(place.join("code")).expect("a code");
        if code != "0\n" {
            assert!(message.starts_with("uphill: small/run"), "{message}");
            assert!(message.ends_with(": No space left on device (os error 28)\n"), "{message}");
            assert_eq!(code, "1\n");
            seen += 1;
        }
        scene.run(format!("place-{number}/run")).assert_equals(&whole);
    }
    assert!(seen >= 2, "{seen}");
}

#[test]
fn a_read_only_folder_is_reported_and_the_run_can_be_resumed_when_it_is_writable() {
    let scene = Scene::new(SQL, 3);
    let whole = scene.whole();
    let run = scene.run("run");
    was_killed(&run.go(&format!("{}:kill", whole.operation_that_publishes("results/iteration=000001"))));
    let allow = |mode: u32| {
        for folder in [run.path(), run.path().join("results"), run.path().join("tmp")] {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).expect("ours");
        }
    };
    let mut command = run.command("");
    command.env_remove("UPHILL_OPERATIONS");
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere; somebody else runs it.
        for folder in [scene.folder.path().to_path_buf(), scene.path("items.lance")] {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("ours");
        }
        command.uid(65534).gid(65534);
    }
    allow(0o555);
    let output = command.output();
    allow(0o755);
    match output {
        Ok(output) => {
            let path = path_in_message(&output, FAULTS[1].1);
            assert!(path.starts_with("run/"), "{path}");
        }
        Err(error) => println!("SKIPPED: another user may not run the binary: {error}"),
    }
    run.assert_goes_on(&whole);
}
