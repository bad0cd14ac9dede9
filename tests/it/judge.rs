//! `examples/judge/judge.py`, from a run file to results, against an endpoint of this test that limits, refuses, rambles, fails and
//! goes away: nothing is lost, and nothing is booked that was not judged.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use polars::prelude::*;

use crate::common::*;
use crate::scorers::*;

const KEY: &str = "secret-key-17";

/// An endpoint on this machine.
struct Endpoint {
    child: Child,
    port: u16,
    counter: Counter,
}

impl Endpoint {
    fn start() -> Self {
        Self::on(0, Counter::new())
    }

    fn on(port: u16, counter: Counter) -> Self {
        let mut command = Command::new("python3");
        command.args([script("endpoint.py"), counter.path(), port.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("the port");
        Endpoint { child, port: line.trim().parse().expect("a port"), counter }
    }

    fn stop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    fn start_again(&mut self) {
        let counter = std::mem::replace(&mut self.counter, Counter::new());
        *self = Self::on(self.port, counter);
    }

    fn behaves(&self, mode: &str) {
        std::fs::write(self.counter.file("counter.mode"), mode).expect("written");
    }

    /// The weights of the items that it graded, in order.
    fn graded(&self) -> Vec<String> {
        let lines = std::fs::read_to_string(self.counter.file("counter")).unwrap_or_default();
        lines.lines().map(str::to_string).collect()
    }

    fn requests(&self) -> Vec<serde_json::Value> {
        let lines = std::fs::read_to_string(self.counter.file("counter.bodies")).unwrap_or_default();
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A hundred items, of different weights, and a run of the example that judges them.
struct Scene {
    folder: TempDir,
    endpoint: Endpoint,
}

impl Scene {
    fn new(more: &str) -> Self {
        let folder = folder();
        write(&folder.path().join("items.parquet"), &items(&clustered(100, 4, 4, &mut rng(1))));
        uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
        std::fs::copy(root().join("examples/judge/judge.py"), folder.path().join("judge.py")).expect("copied");
        std::fs::write(folder.path().join("prompt.md"), "Grade it.\n---\nname: {{name}}\nweight: {{weight}}")
            .expect("written");
        let scene = Scene { folder, endpoint: Endpoint::start() };
        scene.run_file("", more);
        scene
    }

    fn run_file(&self, options: &str, more: &str) {
        let command = "\"python3\", \"judge.py\", \"prompt.md\", \"--model\", \"any\", \"--grades\", \"0-9\"";
        let head =
            "seed = 5\n[database]\npath = \"items.lance\"\nk = 6\n[queries]\nsample = 4\n[stop]\niterations = 3\n";
        let text = format!(
            "{head}[update]\nrule = \"top-k\"\n[score]\ncommand = [{command}, \"--wait\", \"1\"{options}]\nfiles = [\"prompt.md\"]\n{more}\n"
        );
        std::fs::write(self.folder.path().join("run.toml"), text).expect("written");
    }

    fn command(&self, out: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uphill"));
        command.args(["search", "run.toml", "--out", out]).args(more).current_dir(self.folder.path());
        command
            .env("OPENAI_API_KEY", KEY)
            .env("OPENAI_BASE_URL", format!("http://127.0.0.1:{}/v1", self.endpoint.port));
        command
    }

    fn search(&self, out: &str, more: &[&str]) -> Output {
        self.command(out, more).output().expect("the binary runs")
    }

    fn succeeds(&self, out: &str, more: &[&str]) -> String {
        let output = self.search(out, more);
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    }

    fn results(&self, out: &str) -> DataFrame {
        uphill_ok(&["results", out, "-o", "results.parquet"], self.folder.path());
        read(&self.folder.path().join("results.parquet"))
    }

    /// The items that the run has booked: those of its ledger.
    fn booked(&self, out: &str) -> usize {
        let files = std::fs::read_dir(self.folder.path().join(out).join("ledger")).expect("a ledger");
        let files = files.map(|file| file.expect("an entry").path());
        let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "parquet"));
        files.map(|file| read(&file).height()).sum()
    }

    fn assert_no_file_has_the_key(&self, out: &str) {
        let mut files: Vec<PathBuf> = vec![self.folder.path().join(out)];
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()));
            } else {
                let bytes = std::fs::read(&path).expect("a file");
                let has_key = bytes.windows(KEY.len()).any(|found| found == KEY.as_bytes());
                assert!(!has_key, "{}", path.display());
            }
        }
    }
}

fn texts(frame: &DataFrame, name: &str) -> Vec<Option<String>> {
    let column = frame.column(name).expect(name).str().expect("strings");
    column.iter().map(|text| text.map(str::to_string)).collect()
}

/// Whether the endpoint never grades an item.
fn is_stubborn(weight: f64) -> bool {
    weight.to_string().ends_with('9')
}

/// Asserts that each item has the grade of its weight, or has failed where the endpoint gives none.
fn assert_judged(found: &DataFrame) {
    let scores: Vec<Option<f64>> = found.column("score").expect("score").f64().expect("f64").iter().collect();
    let (reasons, words) = (texts(found, "reason"), texts(found, "why"));
    for (row, weight) in f64s(found, "weight").into_iter().enumerate() {
        let (reason, words) = (reasons[row].as_deref(), words[row].as_deref().unwrap_or_default());
        match is_stubborn(weight) {
            false => assert_eq!((scores[row], reason), (Some((weight * 10.0).floor()), None), "{weight}: {words}"),
            true => {
                let expected = ["no grade in the judge's answer", "the judge refuses", "an empty answer"];
                assert!(
                    scores[row].is_none() && expected.contains(&reason.unwrap_or_default()),
                    "{weight}: {reason:?}"
                );
                assert_eq!(words.is_empty(), reason == Some("an empty answer"), "{weight}: {words}");
            }
        }
    }
}

fn assert_each_graded_once(endpoint: &Endpoint, found: &DataFrame) {
    let graded = endpoint.graded();
    let distinct: HashSet<&String> = graded.iter().collect();
    assert_eq!(distinct.len(), graded.len(), "an item was judged twice");
    assert_eq!(graded.len(), found.height() - found.column("score").expect("score").null_count());
}

#[test]
fn what_an_endpoint_says_in_other_words_is_a_grade_and_what_it_does_not_say_is_a_failure_in_its_words() {
    let scene = Scene::new("");
    scene.endpoint.behaves("rambles");
    scene.succeeds("run", &[]);
    let found = scene.results("run");
    assert_judged(&found);
    assert_each_graded_once(&scene.endpoint, &found);
    assert!(texts(&found, "why").iter().flatten().any(|why| why.contains("***")), "the key that it repeats is masked");
    scene.assert_no_file_has_the_key("run");
    // A second request was paid for too.
    let tokens = f64s(&found, "tokens");
    assert!(tokens.contains(&110.0) && tokens.contains(&220.0), "{tokens:?}");
    let stubborn = f64s(&found, "weight").into_iter().position(is_stubborn).expect("some");
    assert_eq!(tokens[stubborn], 220.0);
}

#[test]
fn an_endpoint_that_limits_and_fails_is_waited_for_and_nothing_is_booked_that_it_did_not_judge() {
    let scene = Scene::new("batch_size = 16");
    scene.endpoint.behaves("mixed");
    scene.succeeds("run", &[]);
    let found = scene.results("run");
    assert_judged(&found);
    assert_each_graded_once(&scene.endpoint, &found);
    // As if nothing had happened.
    scene.endpoint.behaves("rambles");
    scene.succeeds("steady", &[]);
    let columns = ["db_idx", "score", "outcome", "evaluation", "iteration"];
    let kept = |frame: &DataFrame| frame.select(columns).expect("columns");
    assert!(kept(&found).equals_missing(&kept(&scene.results("steady"))));
}

#[test]
fn an_endpoint_that_goes_away_ends_the_run_with_what_it_judged_and_the_run_goes_on_with_the_rest() {
    let mut scene = Scene::new("batch_size = 8\npatience = 0.2");
    scene.succeeds("whole", &[]);
    let whole = scene.results("whole");
    for away in ["busy", "denied", "gone"] {
        let before = scene.endpoint.graded().len();
        scene.succeeds(away, &["--set", "stop.iterations=1"]);
        let booked = scene.booked(away);
        match away {
            "gone" => scene.endpoint.stop(),
            mode => scene.endpoint.behaves(mode),
        }
        let output = scene.search(away, &["--resume"]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(75), "{said}");
        let reason = match away {
            "busy" => "score: HTTP 429: slow down; the scorer was unavailable",
            "denied" => "score: HTTP 401: the key *** has expired; the scorer was unavailable",
            _ => "score: no answer: [Errno 111] Connection refused; the scorer was unavailable",
        };
        assert!(said.contains(reason), "{said}");
        assert_eq!(scene.booked(away), booked, "nothing was judged");
        match away {
            "gone" => scene.endpoint.start_again(),
            _ => scene.endpoint.behaves("steady"),
        }
        scene.succeeds(away, &["--resume"]);
        assert!(scene.results(away).equals_missing(&whole), "{away}");
        assert_eq!(scene.endpoint.graded().len() - before, whole.height(), "{away}: each item once");
        scene.assert_no_file_has_the_key(away);
    }
}

#[test]
fn a_run_that_is_killed_goes_on_and_keeps_what_a_moody_judge_said_before() {
    let scene = Scene::new("batch_size = 4");
    scene.succeeds("whole", &[]);
    let (whole, before) = (scene.results("whole"), scene.endpoint.graded().len());
    let mut run = scene.command("run", &[]).stderr(Stdio::null()).spawn().expect("it runs");
    while scene.endpoint.graded().len() < before + 9 {
        assert!(run.try_wait().expect("a status").is_none(), "it ended too early");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    run.kill().expect("killed");
    run.wait().expect("reaped");
    let booked = scene.booked("run");
    scene.succeeds("run", &["--resume"]);
    assert!(scene.results("run").equals_missing(&whole));
    let again = scene.endpoint.graded().len() - before - whole.height();
    assert!(booked > 0 && again <= 4, "a batch in flight at most: {again}");

    scene.succeeds("moody", &["--set", "stop.iterations=1"]);
    scene.endpoint.behaves("moody");
    scene.succeeds("moody", &["--resume", "--set", "stop.iterations=2"]);
    let found = scene.results("moody");
    let (weights, iterations) = (f64s(&found, "weight"), u32s(&found, "iteration"));
    for ((score, weight), iteration) in f64s(&found, "score").into_iter().zip(weights).zip(iterations) {
        let grade = (weight * 10.0).floor();
        assert_eq!(score, if iteration == 0 { grade } else { 9.0 - grade });
    }
}

#[test]
fn several_items_in_a_request_are_told_apart_and_those_left_out_are_asked_for_again() {
    let scene = Scene::new("");
    scene.run_file(", \"--items\", \"4\", \"--price\", \"1000000,2000000\"", "");
    scene.endpoint.behaves("half");
    scene.succeeds("run", &[]);
    let found = scene.results("run");
    for (score, weight) in f64s(&found, "score").into_iter().zip(f64s(&found, "weight")) {
        assert_eq!(score, (weight * 10.0).floor());
    }
    assert_each_graded_once(&scene.endpoint, &found);
    let graded: usize = scene.endpoint.requests().len();
    assert!(graded < found.height(), "{graded} requests for {} items", found.height());
    // A hundred tokens of input at 1, ten of output at 2, shared by the items of a request.
    let (tokens, costs) = (f64s(&found, "tokens"), f64s(&found, "cost"));
    assert!(tokens.iter().zip(&costs).all(|(tokens, cost)| (cost - tokens * 120.0 / 110.0).abs() < 1e-9));
}

#[test]
fn an_endpoint_without_structured_output_is_asked_without_it_and_a_rejected_request_is_a_failure() {
    let scene = Scene::new("batch_size = 4");
    scene.endpoint.behaves("plain");
    scene.succeeds("run", &["--set", "stop.iterations=1"]);
    let requests = scene.endpoint.requests();
    let format = &requests[0]["response_format"]["json_schema"]["schema"]["properties"]["grades"]["items"];
    assert_eq!(format["properties"]["grade"]["enum"].as_array().map(Vec::len), Some(10));
    let last = requests.last().expect("requests").as_object().expect("an object").clone();
    assert_eq!(
        last.keys().collect::<Vec<_>>(),
        ["model", "messages"],
        "it is not asked twice for what it does not know"
    );

    scene.endpoint.behaves("long");
    scene.succeeds("long", &["--set", "stop.iterations=1"]);
    let found = scene.results("long");
    let reasons = texts(&found, "reason");
    for (row, weight) in f64s(&found, "weight").into_iter().enumerate() {
        let expected = weight.to_string().ends_with('5').then_some("the endpoint rejects the request");
        assert_eq!(reasons[row].as_deref(), expected, "{weight}");
    }
}

#[test]
fn a_prompt_that_names_no_column_stops_the_run_with_its_name() {
    let scene = Scene::new("");
    std::fs::write(scene.folder.path().join("prompt.md"), "Grade it.\n---\n{{abstract}}").expect("written");
    let output = scene.search("run", &[]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("prompt.md: no column {{abstract}} (there are: "), "{said}");
    assert!(scene.endpoint.requests().is_empty());
}
