//! What tests of crashes share: a small run whose n-th file operation is made to end or fail, and what
//! must hold of the folder it leaves.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use polars::prelude::*;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use uphill::{IndexKind, IndexOptions, SearchLog};

use crate::common::*;

/// The most items that a kill may let be asked again: one batch, as there is one worker.
pub const BATCH: usize = 8;
pub const SQL: &str = "sql = 'weight'";
pub const COMMAND: &str = "command = ['sh', 'scorer.sh']\nbatch_size = 8\nretries = 0";
pub const BY_HAND: &str = "by_hand = true";

/// Writes each item that it is asked for to the file `$PAID`, then answers. While there is a file `slow`, it waits.
const SCORER: &str = r#"
while IFS= read -r line; do
    case $line in
    '') echo ;;
    *)
        item=${line#*\"db_idx\":}
        item=${item%%[!0-9]*}
        echo "$item" >> "$PAID"
        while [ -e slow ]; do sleep 0.02; done
        echo "{\"db_idx\":$item,\"score\":$(right_score "$item")}"
        ;;
    esac
done
"#;

fn right_score(item: u64) -> f64 {
    (item * 37 % 101) as f64
}

/// A folder with a library of three hundred items and a run file.
pub struct Scene {
    pub folder: TempDir,
}

impl Scene {
    pub fn new(score: &str, iterations: u32) -> Self {
        let folder = folder();
        let options = IndexOptions::new().index(IndexKind::None);
        dataset(&folder, &clustered(300, 4, 6, &mut rng(5)), &options);
        let run = format!(
            "seed = 3\n[database]\npath = 'items.lance'\nk = 5\n[queries]\nsample = 3\n[score]\n{score}\n\
             [update]\nrule = 'rl'\nlr = 1.0\n[stop]\niterations = {iterations}\n"
        );
        std::fs::write(folder.path().join("run.toml"), run).expect("a run file");
        let scorer = SCORER.replace("$(right_score \"$item\")", "$((item * 37 % 101))");
        std::fs::write(folder.path().join("scorer.sh"), scorer).expect("a scorer");
        Scene { folder }
    }

    /// One whose run `begun` has asked for almost as many items as a file of the ledger holds, and whose run file now
    /// wants some more, in small batches.
    pub fn with_an_almost_full_ledger() -> Self {
        let scene = Scene::new(COMMAND, 1);
        let options = IndexOptions::new().index(IndexKind::None).overwrite(true);
        dataset(&scene.folder, &normal(3000, 8, &mut rng(8)), &options);
        let run = |batch_size: usize, stop: &str| {
            let run = format!(
                "seed = 3\n[database]\npath = 'items.lance'\nk = 5\n[queries]\nsample = 109\n[score]\n\
                 command = ['sh', 'scorer.sh']\nbatch_size = {batch_size}\nretries = 0\n\
                 [update]\nrule = 'rl'\nlr = 1.0\n[stop]\n{stop}\n"
            );
            std::fs::write(scene.path("run.toml"), run).expect("a run file");
        };
        run(1000, "iterations = 1");
        succeeded(&scene.run("begun").go(""));
        let paid = scene.run("begun").durable().len();
        println!("{paid} items");
        assert!((490..512).contains(&paid), "{paid}");
        run(BATCH, "evaluations = 532");
        scene
    }

    /// A run that is a copy of another.
    pub fn copied(&self, from: &str, name: impl Into<String>) -> Run<'_> {
        let run = self.run(name);
        copy_tree(&self.path(from), &run.path());
        run
    }

    /// A run in this folder, not started yet.
    pub fn run(&self, name: impl Into<String>) -> Run<'_> {
        Run { scene: self, name: name.into() }
    }

    /// A run that nothing happened to.
    pub fn whole(&self) -> Run<'_> {
        let run = self.run("whole");
        succeeded(&run.go(""));
        run
    }

    /// The binary in this folder, with a fault (`17:kill`; none if empty) and a list of its operations.
    pub fn command(&self, name: &str, fault: &str, arguments: &[&str]) -> Command {
        let at = |suffix: &str| self.folder.path().join(format!("{name}.{suffix}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_uphill"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("UPHILL_FAIL_AT", fault).env("UPHILL_OPERATIONS", at("operations")).env("PAID", at("paid"));
        command.env("POLARS_MAX_THREADS", "2");
        command
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The file operations listed under a name: what, and the paths.
    pub fn operations(&self, name: &str) -> Vec<Vec<String>> {
        let list = std::fs::read_to_string(self.path(&format!("{name}.operations"))).unwrap_or_default();
        list.lines().map(|line| line.split('\t').map(str::to_string).collect()).collect()
    }
}

/// A run folder, the run file of which is that of the scene.
pub struct Run<'a> {
    scene: &'a Scene,
    pub name: String,
}

impl Run<'_> {
    pub fn path(&self) -> PathBuf {
        self.scene.path(&self.name)
    }

    /// What a user would type: begins the run, or goes on with it if it has begun.
    pub fn command(&self, fault: &str) -> Command {
        let resume = self.path().join("run.json").exists().then_some("--resume");
        let arguments: Vec<&str> = ["search", "run.toml", "--out", &self.name].into_iter().chain(resume).collect();
        self.scene.command(&self.name, fault, &arguments)
    }

    pub fn go(&self, fault: &str) -> Output {
        self.command(fault).output().expect("the binary runs")
    }

    pub fn operations(&self) -> Vec<Vec<String>> {
        self.scene.operations(&self.name)
    }

    /// The number, from 1, of the operation that gives a file or folder its name.
    pub fn operation_that_publishes(&self, end_of_path: &str) -> usize {
        let is_it = |operation: &Vec<String>| operation[0] == "rename" && operation[2].ends_with(end_of_path);
        self.operations().iter().position(is_it).expect(end_of_path) + 1
    }

    /// The items that the scorer was asked for, in order.
    pub fn paid(&self) -> Vec<u64> {
        let list = std::fs::read_to_string(self.scene.path(&format!("{}.paid", self.name))).unwrap_or_default();
        list.lines().map(|line| line.parse().expect("a number")).collect()
    }

    /// The files of the ledger that hold scores.
    pub fn batches(&self) -> Vec<PathBuf> {
        let is_parquet = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "parquet");
        files(&self.path().join("ledger")).into_iter().filter(is_parquet).collect()
    }

    /// The items whose scores are durable. Asserts that they are right.
    pub fn durable(&self) -> Vec<u64> {
        let mut items = Vec::new();
        for file in self.batches() {
            let batch = read(&file);
            let ids = u64s(&batch, "db_idx");
            assert_eq!(f64s(&batch, "score"), ids.iter().map(|item| right_score(*item)).collect::<Vec<_>>());
            items.extend(ids);
        }
        items
    }

    pub fn committed(&self) -> u32 {
        std::fs::read_dir(self.path().join("results")).map_or(0, |entries| entries.count() as u32)
    }

    /// Everything that is published of the run's frames: the bytes of the files.
    fn published(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let folders = ["queries", "results"].map(|kind| self.path().join(kind));
        let files = folders.iter().flat_map(|folder| files(folder)).flat_map(|partition| files(&partition));
        files
            .map(|file| {
                let bytes = std::fs::read(&file).expect("a file");
                (file.strip_prefix(self.path()).expect("below the run").to_path_buf(), bytes)
            })
            .collect()
    }

    /// Killed at its first operation, then at its second, and so on, until it ends: nothing is paid for twice, and it ends as
    /// the whole run. (A kill at the first operation of a resume makes no progress, one at a later does, in the end.)
    pub fn goes_on_however_often_it_is_killed(&self, whole: &Run) {
        let mut number = 0;
        loop {
            number += 1;
            self.assert_sound(whole);
            let (durable, before) = (self.durable(), self.paid().len());
            let output = self.go(&format!("{number}:kill"));
            assert!(self.paid()[before..].iter().all(|item| !durable.contains(item)), "paid for twice");
            if output.status.success() {
                break;
            }
            was_killed(&output);
        }
        println!("killed {number} times");
        assert!(number > 10, "{number}");
        self.assert_equals(whole);
    }

    /// Asserts that whatever is there is as in a run that nothing happened to: iterations from the
    /// first on, whole; no result without its queries.
    pub fn assert_sound(&self, whole: &Run<'_>) {
        let expected = whole.published();
        for (file, bytes) in self.published() {
            assert!(expected.get(&file) == Some(&bytes), "{}: {}", self.name, file.display());
        }
        for iteration in 0..self.committed() {
            for kind in ["queries", "results"] {
                let part = format!("{kind}/iteration={iteration:06}/part-0000.parquet");
                assert!(self.path().join(&part).exists(), "{}: no {part}", self.name);
            }
        }
    }

    /// Asserts that the frames are those of a run that nothing happened to, byte for byte.
    pub fn assert_equals(&self, whole: &Run<'_>) {
        self.assert_sound(whole);
        assert_eq!(self.published().len(), whole.published().len(), "{}", self.name);
        let (ours, theirs) = (compiled(&self.path()), compiled(&whole.path()));
        assert!(ours.equals_missing(&theirs), "{}: {ours}\n{theirs}", self.name);
    }

    /// Goes on with a run that ended before its time, to the end; asserts that its frames are those of a
    /// run that nothing happened to, that no durable score was asked for again, and of the others at most a batch.
    pub fn assert_goes_on(&self, whole: &Run<'_>) {
        self.assert_sound(whole);
        let (durable, before) = (self.durable(), self.paid().len());
        succeeded(&self.go(""));
        self.assert_equals(whole);
        let after = self.paid();
        let twice: Vec<&u64> = after[before..].iter().filter(|item| durable.contains(item)).collect();
        assert!(twice.is_empty(), "{}: paid for twice: {twice:?}", self.name);
        let again = after.len() - after.iter().collect::<HashSet<_>>().len();
        assert!(again <= BATCH, "{}: {again} items were asked again", self.name);
    }
}

pub fn compiled(run: &Path) -> DataFrame {
    let log = SearchLog::open(run).expect("a run");
    uphill::collect(log.compile_results().expect("a query")).expect("compiled")
}

pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

pub fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, stderr(output));
}

pub fn was_killed(output: &Output) {
    assert_eq!(output.status.signal(), Some(9), "{}: {}", output.status, stderr(output));
}

/// Does the same for each number from 1 to `count`, two at a time.
pub fn each(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(1);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|next| *next <= count) {
                    work(number);
                }
            });
        }
    });
}

/// A process that stops by itself, at a fail point; killed when dropped.
pub struct Pausing {
    child: Child,
    id: Pid,
    /// Its exit code, negative for a signal.
    code: Option<i32>,
}

impl Pausing {
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
        Pausing { id: Pid::from_child(&child), child, code: None }
    }

    fn look(&mut self, options: WaitOptions) -> bool {
        let Some((_, status)) = waitpid(Some(self.id), options).expect("a child") else { return false };
        if !status.stopped() {
            self.code = status.exit_status().or(status.terminating_signal().map(|signal| -signal));
        }
        true
    }

    /// Waits until it stops or ends: `None` if it stopped, else its exit code, negative for a signal.
    pub fn wait(&mut self) -> Option<i32> {
        if self.code.is_none() {
            self.look(WaitOptions::UNTRACED);
        }
        self.code
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.code.is_none() {
            self.look(WaitOptions::NOHANG);
        }
        self.code.is_some()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.id, signal).expect("signalled");
    }

    /// Lets it go on from where it stopped.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }
}

impl Drop for Pausing {
    fn drop(&mut self) {
        // Once it is reaped, its number may be another's.
        if self.code.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
