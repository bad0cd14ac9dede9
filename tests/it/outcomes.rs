//! What became of an item: scored, rejected, failed, or not answered, as nobody looked at it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use polars::prelude::*;
use rustix::process::{Pid, Signal, kill_process};
use uphill::{LanceDatabase, Outcome, RlUpdate, Runner, SearchLog, SqlFilter, SqlScore, SurrogateUpdate};

use crate::common::*;
use crate::faults::{Scene, compiled, each, succeeded, was_killed};
use crate::scorers::{assert_same_runs, script};
use crate::scorers_http::Server;

/// A folder with a library of three hundred items, and run files that ask for their `weight`.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = folder();
        exact_library(&folder, &clustered(300, 4, 6, &mut rng(5)));
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).expect("removed");
    }

    /// A run file `NAME.toml` of some sections.
    fn run_file(&self, name: &str, sections: &str) {
        // The surrogate has no use for k.
        let k = if sections.contains("rule = 'rl'") || sections.contains("rule = 'top-k'") { "k = 5\n" } else { "" };
        let head = format!("seed = 3\n[database]\npath = 'items.lance'\n{k}[queries]\nsample = 4\n");
        // The model reads the names alone: the scores stand in a column, whoever gives them.
        let sections = match sections.contains("[update]") {
            true => sections.replace("rule = 'surrogate'\n", "rule = 'surrogate'\nfeatures = ['name']\n"),
            false => format!("{sections}[update]\nrule = 'surrogate'\nfeatures = ['name']\n"),
        };
        self.file(&format!("{name}.toml"), format!("{head}{sections}"));
    }

    /// A score by `outcomes.py`.
    fn command(more: &str) -> String {
        format!("command = ['python3', '{}']\n{more}\n", script("outcomes.py"))
    }

    fn search(&self, file: &str, out: &str, more: &[&str]) -> std::process::Output {
        let file = format!("{file}.toml");
        uphill(&[&["search", &file, "--out", out], more].concat(), self.folder.path())
    }

    fn asked(&self) -> Vec<u64> {
        let list = std::fs::read_to_string(self.path("asked.txt")).unwrap_or_default();
        list.lines().map(|line| line.parse().expect("a number")).collect()
    }

    fn ended(&self, run: &str) -> serde_json::Value {
        let text = std::fs::read_to_string(self.path(run).join("run.json")).expect("run.json");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["ended"].clone()
    }

    fn results(&self, run: &str) -> DataFrame {
        compiled(&self.path(run))
    }

    /// The bytes of everything in a run folder but its lock.
    fn everything(&self, run: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut folders, mut all) = (vec![self.path(run)], BTreeMap::new());
        while let Some(folder) = folders.pop() {
            for path in crate::faults::files(&folder) {
                match path.is_dir() {
                    true => folders.push(path),
                    false => drop(all.insert(path.clone(), std::fs::read(&path).expect("a file"))),
                }
            }
        }
        all.remove(&self.path(run).join("lock"));
        all
    }

    fn assert_same(&self, run: &str, expected: &str) {
        let open = |run: &str| SearchLog::open(self.path(run)).expect("a run");
        assert_same_runs(&open(run), &open(expected));
        let (run, expected) = (open(run), open(expected));
        for iteration in expected.iterations() {
            let queries = |log: &SearchLog| log.queries(*iteration).expect("queries");
            assert!(queries(&run).equals_missing(&queries(&expected)), "queries of iteration {iteration}");
        }
    }
}

/// How many rows have each outcome.
fn counts(results: &DataFrame) -> [usize; 3] {
    let outcomes = results.column("outcome").expect("outcome").str().expect("strings");
    [Outcome::Scored, Outcome::Rejected, Outcome::Failed]
        .map(|outcome| outcomes.iter().filter(|found| *found == Some(outcome.name())).count())
}

#[test]
fn a_gate_that_rejects_nearly_everything_costs_no_evaluations() {
    let place = Place::new();
    let parts = format!(
        "[[score.sum]]\nname = 'gate'\nsql = 'weight'\nat_least = 0.97\n[[score.sum]]\nname = 'dear'\n{}",
        Place::command("batch_size = 2")
    );
    for (rule, budget) in [("rl", 4), ("surrogate", 4), ("surrogate", 1000)] {
        let rule = format!("[update]\nrule = '{rule}'\n[restart]\nafter = 1\n")
            .replace("rule = 'surrogate'\n[restart]\nafter = 1\n", "rule = 'surrogate'\n");
        place.run_file("run", &format!("[score]\non_error = 'stop'\n{parts}{rule}[stop]\nevaluations = {budget}\n"));
        let run = format!("run-{budget}-{}", rule.len());
        succeeded(&place.search("run", &run, &[]));
        let (results, asked) = (place.results(&run), place.asked());
        let [scored, rejected, failed] = counts(&results);
        assert!(rejected > 10 * scored && scored > 0 && failed == 0, "{scored} {rejected} {failed}");
        assert_eq!(asked.len(), scored, "only what passed the gate is asked for");
        let ended = place.ended(&run);
        assert_eq!(ended["evaluations"], scored as u64);
        assert_eq!(ended["rejected"], rejected as u64);
        assert_eq!((&ended["failed"], &ended["reused"]), (&0.into(), &0.into()));
        assert_eq!(ended["reason"], if budget == 4 { "evaluations" } else { "nothing_new" });
        if budget == 1000 {
            assert_eq!(results.height(), 300, "nothing is left");
        }
        for row in 0..results.height() {
            let cell = |name: &str| results.column(name).expect(name).get(row).expect("a value").into_static();
            let weight = cell("weight").try_extract::<f64>().expect("a number");
            assert_eq!(cell("gate").try_extract::<f64>().expect("a number"), weight, "the part is kept");
            assert_eq!(cell("evaluation").is_null(), weight < 0.97);
            if weight < 0.97 {
                assert_eq!(cell("reason").get_str(), Some(format!("gate: {weight} is below 0.97").as_str()));
            }
        }
        // Nothing failed: nothing is asked again, and nothing changes.
        let before = place.everything(&run);
        succeeded(&place.search("run", &run, &["--resume", "--retry-failed"]));
        assert_eq!(place.asked(), asked);
        assert_eq!(place.everything(&run), before);
        place.remove("asked.txt");
    }
}

#[test]
fn a_run_in_which_most_items_failed_ends_with_an_error_however_few_there_were() {
    let place = Place::new();
    place.run_file("run", "[score]\nsql = 'weight / 0'\n[stop]\nevaluations = 20\n");
    for more in [&[] as &[&str], &["--resume"]] {
        let output = place.search("run", "run", more);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains("20 of 20 items failed, more than the 50 % allowed"), "{}", stderr(&output));
        assert_eq!(counts(&place.results("run")), [0, 0, 20]);
    }
    succeeded(&place.search("run", "run", &["--resume", "--set", "stop.failed_share=1"]));
    assert_eq!(place.ended("run")["failed"], 20);
}

#[test]
fn an_item_that_a_scorer_rejects_costs_an_evaluation_and_is_not_a_failure() {
    let place = Place::new();
    place.file("rejects", "");
    let stop = "[stop]\nevaluations = 60\nfailed_share = 0.0\n";
    place.run_file("run", &format!("[score]\non_error = 'stop'\n{}{stop}", Place::command("")));
    succeeded(&place.search("run", "run", &[]));
    let results = place.results("run");
    let [scored, rejected, failed] = counts(&results);
    assert!(rejected > 3 && failed == 0 && scored + rejected == 60, "{scored} {rejected} {failed}");
    assert_eq!(results.column("evaluation").expect("evaluation").null_count(), 0);
    let reasons = results.column("reason").expect("reason").str().expect("strings").clone();
    assert!(reasons.iter().flatten().all(|reason| reason == "a known toxin"));
    let asked = place.asked().len();
    succeeded(&place.search("run", "run", &["--resume", "--retry-failed"]));
    assert_eq!(place.asked().len(), asked, "a rejected item is never asked again");
}

#[test]
fn failed_items_are_retried_under_every_rule_and_their_answers_replace_the_failures() {
    let walks = "[restart]\nafter = 1";
    for rule in ["rule = 'surrogate'".into(), format!("rule = 'rl'\n{walks}"), format!("rule = 'top-k'\n{walks}")] {
        let place = Place::new();
        place.file("fails", "");
        place.run_file(
            "run",
            &format!("[score]\n{}[update]\n{rule}\n[stop]\nevaluations = 50\nfailed_share = 1\n", Place::command("")),
        );
        succeeded(&place.search("run", "run", &[]));
        let before = place.results("run");
        let [scored, _, failed] = counts(&before);
        assert!(failed > 2 && scored + failed == 50, "{rule}: {scored} {failed}");
        assert_eq!(place.ended("run")["failed"], failed as u64);
        let iterations = SearchLog::open(place.path("run")).expect("a run").iterations().to_vec();

        // They fail again: nothing changes but that they were asked.
        succeeded(&place.search("run", "run", &["--resume", "--retry-failed"]));
        assert_eq!(place.asked().len(), 50 + failed, "{rule}");
        assert!(place.results("run").equals_missing(&before), "{rule}");

        place.remove("fails");
        succeeded(&place.search("run", "run", &["--resume", "--retry-failed"]));
        let after = place.results("run");
        assert_eq!(counts(&after), [50, 0, 0], "{rule}");
        assert_eq!(place.asked().len(), 50 + 2 * failed, "{rule}: each was asked once more");
        let ended = place.ended("run");
        assert_eq!((&ended["failed"], &ended["evaluations"]), (&0.into(), &50.into()), "{rule}");
        assert_eq!(SearchLog::open(place.path("run")).expect("a run").iterations(), iterations);
        let key = |frame: &DataFrame| {
            let sorted = frame.sort(["evaluation"], Default::default()).expect("sorted");
            sorted.select(["db_idx", "evaluation", "iteration"]).expect("columns")
        };
        assert!(key(&after).equals_missing(&key(&before)), "{rule}: each stands where it failed");
        // And the run goes on from there, also after a stop.
        let more = ["--resume", "--set", "stop.evaluations=70"];
        succeeded(&place.search("run", "run", &more));
        assert_eq!(counts(&place.results("run")), [70, 0, 0], "{rule}");
        assert_eq!(place.asked().len(), 70 + 2 * failed, "{rule}");
    }
}

/// A search by the binary that runs beside the test, and what it says.
struct Running {
    child: Child,
    messages: PathBuf,
}

impl Running {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let messages = place.path("messages");
        let mut command = Command::new(env!("CARGO_BIN_EXE_uphill"));
        command.args(arguments).current_dir(place.folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(&messages).expect("a file"));
        Running { child: command.spawn().expect("it runs"), messages }
    }

    fn messages(&self) -> String {
        std::fs::read_to_string(&self.messages).unwrap_or_default()
    }

    /// Waits until something holds; it must hold before the search ends.
    fn until(&mut self, what: &str, holds: impl Fn(&str) -> bool) {
        let until = Instant::now() + Duration::from_secs(120);
        while !holds(&self.messages()) {
            assert!(self.child.try_wait().expect("a status").is_none(), "ended before {what}: {}", self.messages());
            assert!(Instant::now() < until, "never {what}: {}", self.messages());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signalled");
    }

    fn code(mut self) -> (Option<i32>, String) {
        (self.child.wait().expect("a status").code(), self.messages())
    }
}

fn waits(messages: &str) -> usize {
    messages.matches("for the scorer (score.patience)").count()
}

#[test]
fn an_outage_of_a_service_does_not_change_the_frames() {
    let place = Place::new();
    place.run_file("calm", "[score]\nsql = 'weight'\n[stop]\nevaluations = 120\n");
    succeeded(&place.search("calm", "calm", &[]));
    for how in ["refused", "503", "429"] {
        let mut server = Server::start();
        let score = format!("[score]\nurl = '{}'\nbatch_size = 4\n", server.url("weight"));
        place.run_file("run", &format!("{score}[stop]\nevaluations = 120\n"));
        let mut run = Running::start(&place, &["search", "run.toml", "--out", how]);
        run.until("some items are scored", |_| server.counter.items().len() >= 20);
        match how {
            "refused" => server.stop(),
            status => std::fs::write(server.counter.file("counter.status"), status).expect("written"),
        }
        run.until("it waits", |messages| waits(messages) == 1);
        match how {
            "refused" => server.start_again(),
            _ => std::fs::remove_file(server.counter.file("counter.status")).expect("removed"),
        }
        let (code, messages) = run.code();
        assert_eq!(code, Some(0), "{how}: {messages}");
        assert_eq!(waits(&messages), 1, "{how}: one line says so: {messages}");
        assert!(messages.contains("the scorer is available again"), "{how}: {messages}");
        place.assert_same(how, "calm");
        let mut asked = server.counter.items();
        let all = asked.len();
        asked.dedup();
        assert!(asked.len() == 120 && all <= 124, "{how}: {all}");
        assert_eq!(place.ended(how)["failed"], 0);
    }
}

#[test]
fn a_service_that_stays_unavailable_or_denies_access_stops_the_run_and_costs_no_evaluation() {
    let place = Place::new();
    place.run_file("calm", "[score]\nsql = 'weight'\n[stop]\nevaluations = 60\n");
    succeeded(&place.search("calm", "calm", &[]));
    for (status, code, last) in [
        ("503", 75, "uphill: score: HTTP 503; the scorer was unavailable for longer than score.patience"),
        ("401", 1, "uphill: score in iteration "),
        ("403", 1, "uphill: score in iteration "),
        ("404", 1, "uphill: score in iteration "),
    ] {
        let server = Server::start();
        let score = format!("[score]\nurl = '{}'\nbatch_size = 4\npatience = 1\n", server.url("weight"));
        place.run_file("run", &format!("{score}[stop]\nevaluations = 60\n"));
        // The service changes its mind after the items of the first iteration.
        std::fs::write(server.counter.file("counter.status"), format!("{status} after 16")).expect("written");
        let output = place.search("run", status, &[]);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        let said = stderr(&output);
        let line = said.lines().last().unwrap_or_default();
        assert!(line.starts_with(last), "{said}");
        if code == 1 {
            let words = format!("HTTP {status}: `no entry`; fix the cause, then resume with --resume");
            assert!(line.ends_with(&words), "{said}");
            assert_eq!(said.lines().count(), 1, "at the first batch: {said}");
        }
        let results = place.results(status);
        assert_eq!(counts(&results), [16, 0, 0]);
        std::fs::remove_file(server.counter.file("counter.status")).expect("removed");
        succeeded(&place.search("run", status, &["--resume"]));
        place.assert_same(status, "calm");
        let asked = server.counter.items();
        assert_eq!(asked.len(), 60, "each item is scored once");
    }
}

#[test]
fn a_command_that_never_answers_stops_the_run_and_costs_no_evaluation() {
    let place = Place::new();
    place.file("broken.py", "import no_such_module\n");
    place.run_file("run", "[score]\ncommand = ['python3', 'broken.py']\nretries = 1\n[stop]\nevaluations = 60\n");
    let output = place.search("run", "run", &[]);
    assert_eq!(output.status.code(), Some(1));
    let last =
        "score in iteration 0: exited with status 1, for each of 10 items; fix the scorer, then resume with --resume";
    assert!(stderr(&output).trim_end().ends_with(last), "{}", stderr(&output));
    assert_eq!(SearchLog::open(place.path("run")).expect("a run").iterations().len(), 0);
    std::fs::copy(script("outcomes.py"), place.path("broken.py")).expect("mended");
    succeeded(&place.search("run", "run", &["--resume"]));
    assert_eq!(counts(&place.results("run")), [60, 0, 0]);
}

/// Answers with `good` for a score, but for items before the number in `numbers`.
const TEXTS: &str = "
import json, os, sys
form = sys.argv[1]
def score(n):
    return n if n < int(open('numbers').read()) else 'good'
def asked(items):
    print(*items, sep='\\n', file=open('asked.txt', 'a'))
if form == 'jsonl':
    for line in sys.stdin:
        if line.strip():
            n = json.loads(line)['db_idx']
            asked([n])
            print(json.dumps({'db_idx': n, 'score': score(n)}), flush=True)
        else:
            print(flush=True)
else:
    import pyarrow as pa, pyarrow.parquet as pq
    items = pq.read_table(sys.argv[2])['db_idx'].to_pylist()
    asked(items)
    pq.write_table(pa.table({'db_idx': items, 'score': [str(score(n)) for n in items]}), sys.argv[3])
";

#[test]
fn a_scorer_that_returns_text_instead_of_numbers_stops_the_run_at_its_first_request_and_no_item_has_failed() {
    for (form, more) in [("jsonl", "format = 'jsonl'"), ("parquet", "mode = 'batch'")] {
        let place = Place::new();
        place.file("texts.py", TEXTS);
        place.file("numbers", "0");
        let score = format!(
            "[score]\ncommand = ['{}', 'texts.py', '{form}']\nbatch_size = 4\n{more}\n",
            crate::python::python().display()
        );
        place.run_file("run", &format!("{score}[stop]\nevaluations = 40\n"));
        let output = place.search("run", "run", &[]);
        assert_eq!(output.status.code(), Some(1), "{form}: {}", stderr(&output));
        let words =
            "returned text instead of a number: `good`, for each of 4 items; fix the scorer, then resume with --resume";
        assert!(stderr(&output).trim_end().ends_with(words), "{form}: {}", stderr(&output));
        assert_eq!(place.asked().len(), 4, "{form}: the first batch");
        assert!(crate::parts::ledger(&place.path("run")).is_empty(), "{form}: nothing is booked");
        if form == "jsonl" {
            place.file("numbers", "300");
            succeeded(&place.search("run", "run", &["--resume"]));
            assert_eq!(counts(&place.results("run")), [40, 0, 0]);
        }
    }
    // Where others of a batch have numbers, it is the items that fail.
    let place = Place::new();
    place.file("texts.py", TEXTS);
    place.file("numbers", "240");
    let stop = "[stop]\nevaluations = 60\nfailed_share = 1\n";
    place.run_file(
        "run",
        &format!("[score]\ncommand = ['python3', 'texts.py', 'jsonl']\nbatch_size = 64\n[update]\nrule = 'rl'\n{stop}"),
    );
    succeeded(&place.search("run", "run", &["--set", "database.k=40"]));
    let [scored, rejected, failed] = counts(&place.results("run"));
    assert!(scored > 0 && rejected == 0 && failed > 0, "{scored} {rejected} {failed}");
    assert_eq!(place.asked().len(), 60, "none is asked again");
}

#[test]
fn parts_with_reserved_names_are_ignored_with_one_warning() {
    let place = Place::new();
    let counter = place.path("counter");
    place.file(
        "score.py",
        "import json, sys\n\
         for line in sys.stdin:\n\
         \x20   if line.strip():\n\
         \x20       n = json.loads(line)['db_idx']\n\
         \x20       open('counter', 'a').write(f'{n}\\n')\n\
         \x20       print(json.dumps(dict(db_idx=n, score=n, distance=1, iteration=2, evaluation=3, _x=4, energy=-n)))\n\
         \x20   else: print(flush=True)\n",
    );
    place.run_file("run", "[score]\ncommand = ['python3', 'score.py']\nbatch_size = 4\n[stop]\nevaluations = 60\n");
    let output = place.search("run", "run", &[]);
    succeeded(&output);
    for name in ["distance", "iteration", "evaluation", "_x"] {
        let warning = format!("score: ignoring column `{name}` of the scorer");
        assert_eq!(stderr(&output).matches(&warning).count(), 1, "{}", stderr(&output));
    }
    let results = place.results("run");
    assert_eq!(counts(&results), [60, 0, 0]);
    assert_eq!(f64s(&results, "energy"), f64s(&results, "score").iter().map(|score| -score).collect::<Vec<_>>());
    assert_eq!(std::fs::read_to_string(counter).expect("asked").lines().count(), 60);
}

#[test]
fn answers_before_a_stop_are_kept_and_only_the_other_items_are_requested_again() {
    for how in [Signal::INT, Signal::TERM, Signal::KILL] {
        let place = Place::new();
        // A first batch of sixteen items.
        let score = Place::command("retries = 20");
        let sixteen = "[stop]\nevaluations = 16\n[update]\nrule = 'surrogate'\nbatch = 16\n";
        place.run_file("run", &format!("[score]\n{score}{sixteen}"));
        place.run_file("calm", &format!("[score]\nsql = 'weight'\n{sixteen}"));
        succeeded(&place.search("calm", "calm", &[]));
        // What is asked last.
        let last = {
            let first = read(&place.path("calm/results/iteration=000000/part-0000.parquet"));
            *u64s(&first, "db_idx").last().expect("an item")
        };
        let mut run = match how {
            // Kept before the scorer is waited for, which a kill in that time shows.
            Signal::KILL => {
                place.file("exits", last.to_string());
                let mut run = Running::start(&place, &["search", "run.toml", "--out", "run"]);
                run.until("it waits for the next retry", |messages| messages.contains("retrying 1 of 16"));
                run
            }
            _ => {
                place.file("stalls", last.to_string());
                let mut run = Running::start(&place, &["search", "run.toml", "--out", "run"]);
                run.until("fifteen are answered", |_| place.path("stalled").exists());
                run
            }
        };
        run.signal(how);
        run.child.wait().expect("a status");
        assert_eq!(place.asked().len(), 15);
        let _ = (std::fs::remove_file(place.path("exits")), std::fs::remove_file(place.path("stalls")));
        succeeded(&place.search("run", "run", &["--resume"]));
        assert_eq!(place.asked().len(), 16, "{how:?}: one item is asked again");
        place.assert_same("run", "calm");
    }
}

#[test]
fn the_answer_of_a_part_is_kept_if_a_later_part_is_unavailable() {
    let place = Place::new();
    let parts = |second: &str| {
        let [first, second] = ["first.txt", second].map(|asked| {
            format!(
                "command = ['python3', '{}', '{asked}']\nretries = 0\npatience = 0\nbatch_size = 4\n",
                script("outcomes.py")
            )
        });
        format!(
            "[[score.sum]]\nname = 'first'\n{first}[[score.sum]]\nname = 'second'\nweight = 2.0\n{second}\
             [stop]\nevaluations = 40\n"
        )
    };
    place.run_file("run", &parts("second.txt"));
    let lines = |name: &str| std::fs::read_to_string(place.path(name)).unwrap_or_default().lines().count();
    // The second part cannot even begin: a folder stands where it writes.
    std::fs::create_dir(place.path("second.txt")).expect("a folder");
    let output = place.search("run", "run", &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    // What it has answered is known, however often the second part fails to come.
    let known = || crate::parts::known(&crate::parts::ledger(&place.path("run")), "first").len();
    assert!(lines("first.txt") >= 4 && lines("first.txt") == known(), "at least the first batch");
    assert_eq!(place.search("run", "run", &["--resume"]).status.code(), Some(75));
    assert!(lines("first.txt") <= 40 && lines("first.txt") == known(), "each once");
    std::fs::remove_dir(place.path("second.txt")).expect("removed");
    succeeded(&place.search("run", "run", &["--resume"]));
    assert_eq!((lines("first.txt"), lines("second.txt")), (40, 40), "each part of each item is paid for once");
    let results = place.results("run");
    let sums: Vec<f64> = f64s(&results, "weight").iter().map(|weight| weight + 2.0 * weight).collect();
    assert_eq!(f64s(&results, "score"), sums);
    for part in ["first", "second"] {
        assert_eq!(f64s(&results, part), f64s(&results, "weight"), "each part is there");
    }

    // A part that failed is asked again, the one before it is not.
    place.file("fails", "");
    let more = ["--resume", "--set", "stop.evaluations=60"];
    succeeded(&place.search("run", "run", &more));
    let [.., failed] = counts(&place.results("run"));
    assert!(failed > 0);
    place.remove("fails");
    let (first, second) = (lines("first.txt"), lines("second.txt"));
    succeeded(&place.search("run", "run", &["--resume", "--retry-failed", "--set", "stop.evaluations=60"]));
    assert_eq!((lines("first.txt"), lines("second.txt")), (first + failed, second + failed));
    assert_eq!(counts(&place.results("run")), [60, 0, 0]);
}

#[test]
fn an_ended_run_does_not_change_when_it_is_resumed() {
    for (rule, stop) in [("rl", "iterations = 3"), ("surrogate", "evaluations = 41"), ("rl", "nothing_new = 2")] {
        let place = Place::new();
        place.file("fails", "");
        let sections =
            format!("[score]\n{}[update]\nrule = '{rule}'\n[stop]\n{stop}\n", Place::command("batch_size = 7"));
        place.run_file("run", &sections);
        succeeded(&place.search("run", "run", &[]));
        let before = place.everything("run");
        succeeded(&place.search("run", "run", &["--resume"]));
        assert_eq!(place.everything("run"), before, "{rule}, {stop}");
    }
}

#[test]
fn iterations_without_a_new_item_are_counted_across_resumes() {
    let place = Place::new();
    place.run_file("run", "[score]\nsql = 'weight'\n[update]\nrule = 'rl'\n[stop]\niterations = 60\nnothing_new = 5\n");
    succeeded(&place.search("run", "whole", &[]));
    let iterations = place.ended("whole")["iterations"].as_u64().expect("a number");
    assert_eq!(place.ended("whole")["reason"], "nothing_new");
    for stopped in [iterations - 4, iterations - 1] {
        let run = format!("stopped-{stopped}");
        succeeded(&place.search("run", &run, &["--set", &format!("stop.iterations={stopped}")]));
        succeeded(&place.search("run", &run, &["--resume"]));
        assert_eq!(place.ended(&run)["iterations"], iterations, "stopped after {stopped}");
        place.assert_same(&run, "whole");
    }
}

#[test]
fn a_run_with_a_raised_budget_equals_one_that_had_it_from_the_start() {
    for (rule, score) in [("rl", "sql"), ("surrogate", "sql"), ("surrogate", "command"), ("top-k", "command")] {
        let place = Place::new();
        place.file("rejects", "");
        let score = if score == "sql" { "sql = 'weight'\n".into() } else { Place::command("") };
        place.run_file("run", &format!("[score]\n{score}[update]\nrule = '{rule}'\n[stop]\nevaluations = 24\n"));
        succeeded(&place.search("run", "whole", &[]));
        let asked = place.asked().len();
        for budgets in [&[13, 24][..], &[17, 20, 24]] {
            let run = format!("raised-{}", budgets.len());
            for budget in budgets {
                let set = format!("stop.evaluations={budget}");
                let resume = place.path(&run).exists().then_some("--resume");
                let more: Vec<&str> = ["--set", set.as_str()].into_iter().chain(resume).collect();
                succeeded(&place.search("run", &run, &more));
                assert_eq!(place.ended(&run)["evaluations"], *budget);
            }
            place.assert_same(&run, "whole");
        }
        assert_eq!(place.asked().len(), 3 * asked, "{rule}: nothing is paid for twice");
    }
}

#[test]
fn an_iteration_limited_by_the_budget_is_completed_later_even_if_that_is_interrupted() {
    for (how, old_budget_between) in
        [(Signal::INT, false), (Signal::INT, true), (Signal::KILL, false), (Signal::KILL, true)]
    {
        let place = Place::new();
        let sixteen = "[stop]\nevaluations = 24\n[update]\nrule = 'surrogate'\nbatch = 16\n";
        place.run_file("run", &format!("[score]\n{}{sixteen}", Place::command("batch_size = 1")));
        succeeded(&place.search("run", "whole", &[]));
        let first = read(&place.path("whole/results/iteration=000000/part-0000.parquet"));
        let fifteenth = u64s(&first, "db_idx")[14];
        place.remove("asked.txt");
        succeeded(&place.search("run", "run", &["--set", "stop.evaluations=13"]));
        place.file("stalls", fifteenth.to_string());
        let mut run = Running::start(&place, &["search", "run.toml", "--out", "run", "--resume"]);
        run.until("the fifteenth is asked", |_| place.path("stalled").exists());
        run.signal(how);
        run.child.wait().expect("a status");
        place.remove("stalls");
        if old_budget_between {
            // With the old budget it is what it was.
            succeeded(&place.search("run", "run", &["--resume", "--set", "stop.evaluations=13"]));
            assert_eq!(counts(&place.results("run")), [13, 0, 0]);
        }
        succeeded(&place.search("run", "run", &["--resume"]));
        place.assert_same("run", "whole");
        assert_eq!(place.asked().len(), 24, "{how:?}: nothing is paid for twice");
    }
}

#[test]
fn a_run_whose_filter_nothing_passes_ends_with_that_reason() {
    let place = Place::new();
    for rule in ["rl", "surrogate"] {
        let sections = format!("[filter]\nsql = 'weight > 7'\n[score]\nsql = 'weight'\n[update]\nrule = '{rule}'\n");
        place.run_file("run", &format!("{sections}[stop]\nevaluations = 40\n"));
        let output = place.search("run", rule, &[]);
        succeeded(&output);
        assert!(stderr(&output).contains("(no candidate passes the filter)"), "{}", stderr(&output));
        assert_eq!(place.ended(rule)["evaluations"], 0);
    }
    // Nothing new is something else.
    let folder = folder();
    let database = exact_library(&folder, &normal(20, 4, &mut rng(1))).k(20);
    let queries = uphill::queries_at(&database, &[0]).expect("queries");
    let stop = uphill::StopConditions::new().nothing_new(2);
    let mut runner = Runner::new(database, SqlScore::new("weight"), RlUpdate::new(1.0)).stop(stop);
    runner = runner.filter(SqlFilter::new("weight < 0.5"));
    let log = runner.search(&queries, 9).expect("a search");
    assert_eq!(log.manifest().ended.as_ref().expect("ended").reason, uphill::StopReason::NothingNew);
}

#[test]
fn ids_of_manual_scores_are_whole_numbers_or_rejected() {
    let place = Place::new();
    place.run_file("run", "[score]\nby_hand = true\n[stop]\nevaluations = 16\n");
    let ask = || {
        uphill_ok(&["ask", "run.toml", "--out", "run", "-o", "next.parquet"], place.folder.path());
        read(&place.path("next.parquet"))
    };
    let asked = u64s(&ask(), "db_idx");
    let tell = |ids: Vec<f64>| {
        let scores = df!("db_idx" => &ids, "score" => vec![1.0; ids.len()]).expect("a frame");
        write(&place.path("scores.parquet"), &scores);
        uphill(&["tell", "run", "scores.parquet"], place.folder.path())
    };
    let output = tell(vec![asked[0] as f64, asked[1] as f64 + 0.9]);
    assert_eq!(output.status.code(), Some(1));
    let message = format!("expected whole numbers as they were sent, found {}.9 in row 1", asked[1]);
    assert!(stderr(&output).contains(&message), "{}", stderr(&output));
    assert_eq!(u64s(&ask(), "db_idx"), asked, "nothing was taken");
    // What pandas makes of integers beside a null.
    succeeded(&tell(vec![asked[0] as f64]));
    assert_eq!(u64s(&ask(), "db_idx"), asked[1..]);
}

#[test]
fn reasons_have_a_limit() {
    let folder = folder();
    let database = exact_library(&folder, &normal(20, 4, &mut rng(1)));
    let queries = uphill::queries_at(&database, &[0]).expect("queries");
    let score = |items: &DataFrame| -> uphill::Result<DataFrame> {
        let long = vec!["é".repeat(10_000); items.height()];
        Ok(df!("score" => vec![None::<f64>; items.height()], "reason" => long)?)
    };
    let log = Runner::new(database, score, RlUpdate::new(1.0)).search(&queries, 1).expect("a search");
    let results = log.results(0).expect("results");
    let reason =
        results.column("reason").expect("reason").str().expect("strings").get(0).expect("a reason").to_string();
    assert_eq!(reason.chars().count(), 501);
}

/// Of the items that the service is asked for some are rejected and some fail, and every sixth request finds it away.
#[test]
fn a_run_with_every_outcome_killed_at_any_file_operation_resumes_to_the_same_frames() {
    let server = Server::start();
    let score = format!("url = '{}'\nbatch_size = 8\npatience = 60", server.url("mixed"));
    let scene = Scene::new(&score, 2);
    let whole = scene.whole();
    let results = compiled(&whole.path());
    let found = counts(&results);
    assert!(found.iter().all(|rows| *rows > 0), "every outcome is there: {found:?}");
    let operations = whole.operations().len();
    println!("{operations} operations");
    each(operations, |number| {
        let run = scene.run(format!("killed-{number}"));
        was_killed(&run.go(&format!("{number}:kill")));
        run.assert_sound(&whole);
        succeeded(&run.go(""));
        run.assert_equals(&whole);
    });
}

/// Asking again is killed at any of its operations, and then done again.
#[test]
fn a_retry_of_failed_items_may_be_killed_at_any_file_operation() {
    let score = format!("command = ['python3', '{}']\nbatch_size = 8", script("outcomes.py"));
    let scene = Scene::new(&score, 2);
    std::fs::write(scene.path("fails"), "").expect("written");
    succeeded(&scene.whole().go(""));
    let copy = |name: &str| {
        let status = Command::new("cp").arg("-r").arg(scene.path("whole")).arg(scene.path(name)).status();
        assert!(status.expect("cp runs").success());
    };
    let retry = |name: &str, fault: &str| {
        let arguments = ["search", "run.toml", "--out", name, "--resume", "--retry-failed"];
        scene.command(name, fault, &arguments).output().expect("the binary runs")
    };
    std::fs::remove_file(scene.path("fails")).expect("removed");
    copy("calm");
    succeeded(&retry("calm", ""));
    let expected = compiled(&scene.path("calm"));
    assert_eq!(counts(&expected)[2], 0);
    let operations = scene.operations("calm").len();
    println!("{operations} operations");
    each(operations, |number| {
        let name = format!("retried-{number}");
        copy(&name);
        was_killed(&retry(&name, &format!("{number}:kill")));
        // Whatever was answered comes to light without being asked for again.
        succeeded(&scene.run(&name).go(""));
        succeeded(&retry(&name, ""));
        let found = compiled(&scene.path(&name));
        assert!(found.equals_missing(&expected), "{name}: {found}");
    });
}

#[test]
fn a_surrogate_learns_from_retried_items() {
    let folder = folder();
    let database = || -> LanceDatabase { open(&folder.path().join("items.lance")).k(10) };
    dataset(&folder, &clustered(300, 4, 6, &mut rng(5)), &Default::default());
    let queries = uphill::queries_at(&database(), &[0, 1, 2, 3]).expect("queries");
    let failing = |items: &DataFrame| -> uphill::Result<Vec<Option<f64>>> {
        let scores = u64s(items, "db_idx").into_iter().zip(f64s(items, "weight"));
        Ok(scores.map(|(item, weight)| (item % 2 == 0).then_some(weight)).collect())
    };
    let stop = |evaluations| uphill::StopConditions::new().evaluations(evaluations);
    let out = folder.path().join("run");
    let rule = || SurrogateUpdate::new().batch(8);
    let mut first = Runner::new(database(), failing, rule()).stop(stop(40));
    first.search_into(&out, &queries, 99).expect("a search");
    let mut again = Runner::new(database(), SqlScore::new("weight"), rule()).stop(stop(60)).retry_failed(true);
    again.resume(&out, &queries, 99).expect("a search");
    // A run that is resumed once more sees the same.
    let mut third = Runner::new(database(), SqlScore::new("weight"), rule()).stop(stop(60));
    let log = third.resume(&out, &queries, 99).expect("a search");
    let results = uphill::collect(log.compile_results().expect("a query")).expect("results");
    assert_eq!(counts(&results), [60, 0, 0]);
}
