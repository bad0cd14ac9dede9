//! Scoring by an HTTP service: right answers, and every way of getting none.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use uphill::{HttpScore, Score, SqlScore};

use crate::common::*;
use crate::scorers::*;

const OK: Result<(), &str> = Ok(());

/// A service of our own on this machine.
pub struct Server {
    child: Child,
    port: u16,
    pub counter: Counter,
}

impl Server {
    pub fn start() -> Self {
        let counter = Counter::new();
        let mut command = Command::new("python3");
        command.args([script("server.py"), counter.path()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("the port");
        Server { child, port: line.trim().parse().expect("a port"), counter }
    }

    pub fn url(&self, behaviour: &str) -> String {
        format!("http://127.0.0.1:{}/{behaviour}", self.port)
    }

    fn score(&self, behaviour: &str) -> HttpScore {
        HttpScore::new(self.url(behaviour)).retries(1).backoff(Duration::from_millis(1))
    }

    /// Scores six items, and asserts what comes of it.
    fn outcome(&self, behaviour: &str, expected: [Result<(), &str>; 6], again: u64) {
        let score = self.score(behaviour);
        assert_answers(&score.score(&batch(6)).expect("failures are data"), &expected);
        assert_eq!(score.asked_again(), again, "{behaviour}: items asked again");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn scores_come_as_objects_or_as_numbers_in_order() {
    let server = Server::start();
    for behaviour in ["good", "bare", "numbers"] {
        server.outcome(behaviour, [OK; 6], 0);
    }
}

#[test]
fn a_server_that_is_busy_or_broken_for_a_while_is_asked_again() {
    let server = Server::start();
    // 429 comes with Retry-After: 1; the server answers 404 to who comes earlier.
    for behaviour in ["429/1", "500/1", "503/1", "reset/1"] {
        server.outcome(behaviour, [OK; 6], 6);
    }
    assert_eq!(server.counter.items().len(), 4 * 6, "each item is scored once by each");
}

#[test]
fn a_server_that_stays_broken_fails_the_items() {
    let server = Server::start();
    server.outcome("429", [Err("HTTP 429"); 6], 6);
    server.outcome("500", [Err("HTTP 500"); 6], 6);
    let score = server.score("reset");
    let answers = score.score(&batch(2)).expect("failures are data");
    assert_eq!(answers.column("score").expect("score").null_count(), 2);
    let reason =
        answers.column("reason").expect("reason").str().expect("strings").get(0).expect("a reason").to_string();
    assert!(reason.starts_with("connection: "), "{reason}");
    assert_eq!(score.asked_again(), 2);
}

#[test]
fn a_body_that_comes_too_slowly_is_a_timeout() {
    let server = Server::start();
    let score = server.score("slow").timeout(Duration::from_secs(2)).retries(0);
    assert_answers(&score.score(&batch(6)).expect("failures are data"), &[Err("timeout after 2 s"); 6]);
    let score = server.score("slow/1").timeout(Duration::from_secs(4));
    assert_answers(&score.score(&batch(6)).expect("answers"), &[OK; 6]);
}

#[test]
fn nobody_listening_is_a_failure_of_the_items() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let score = HttpScore::new(format!("http://127.0.0.1:{port}")).retries(0);
    let answers = score.score(&batch(1)).expect("failures are data");
    let reason =
        answers.column("reason").expect("reason").str().expect("strings").get(0).expect("a reason").to_string();
    assert!(reason.starts_with("connection: "), "{reason}");
}

#[test]
fn what_will_not_get_better_is_not_asked_again() {
    let server = Server::start();
    server.outcome("html", [Err("answered what is not JSON: `<html>Welcome</html>`"); 6], 0);
    server.outcome("other-json", [Err("answered JSON without a list `scores`: `{\"results\": []}`"); 6], 0);
    server.outcome("404", [Err("HTTP 404: `no such model: None`"); 6], 0);
    server.outcome("302", [Err("HTTP 302"); 6], 0);
    server.outcome("huge", [Err("answered more than 64 MiB"); 6], 0);
}

#[test]
fn items_are_matched_and_checked_as_for_commands() {
    let server = Server::start();
    for (behaviour, reason) in [
        ("nan", "NaN"),
        ("infinite", "infinite"),
        ("text", "answered text for a number: `good`"),
        ("null", "no conformer"),
    ] {
        server.outcome(behaviour, [OK, Err(reason), OK, Err(reason), OK, Err(reason)], 0);
    }
    server.outcome("few", [OK, OK, OK, OK, OK, Err("no answer")], 1);
    server.outcome("many", [Err("answered for item 1000000, which was not asked"); 6], 6);
    server.outcome("few-numbers", [Err("answered 5 numbers for 6 items"); 6], 6);
    server.outcome("wrong-ids", [Err("answered for item 6, which was not asked"); 6], 6);
}

#[test]
fn embeddings_are_sent_only_when_asked_for() {
    let server = Server::start();
    let scores = |embeddings: bool| {
        let answers = server.score("embeddings").embeddings(embeddings).score(&batch(2)).expect("answers");
        f64s(&answers, "score")
    };
    assert_eq!(scores(false), [0.0, 0.0]);
    assert_eq!(scores(true), [3.0, 3.0]);
}

#[test]
fn services_that_cannot_be_asked_are_refused_before_anything_is() {
    let check = |score: HttpScore| score.check(&batch(0)).expect_err("refused").to_string();
    assert_eq!(
        check(HttpScore::new("ftp://a/b?key=1")),
        "score.url: `ftp://a/b` does not begin with http:// or https://"
    );
    assert_eq!(check(HttpScore::new("no url")), "score.url: `no url` is not a URL");
    assert_eq!(
        check(HttpScore::new("http://me:hunter2@a/b")),
        "score.url: `the URL` has a user name or password in it: send them in a header, by score.headers"
    );
    assert_eq!(
        check(HttpScore::new("http://a").header("Authorization", "UPHILL_NO_SUCH_VARIABLE")),
        "score.headers: `Authorization`: the environment variable `UPHILL_NO_SUCH_VARIABLE` is not set"
    );
    assert_eq!(check(HttpScore::new("http://a").header("a b", "PATH")), "score.headers: `a b` is not a header's name");
}

#[test]
fn a_service_with_four_in_flight_gives_the_run_that_the_sql_score_gives() {
    let folder = folder();
    let dataset = molecules(&folder);
    let expected = search(&dataset, SqlScore::new("qed"));
    for in_flight in [1, 4] {
        let server = Server::start();
        let log = search(&dataset, server.score("good").batch_size(9).workers(in_flight));
        assert_same_runs(&log, &expected);
        assert_eq!(server.counter.items(), asked(&expected), "each item is asked once");
    }
}

#[test]
fn secrets_reach_the_service_and_nothing_else() {
    let server = Server::start();
    let folder = folder();
    molecules(&folder);
    let run = |behaviour: &str, out: &str| {
        let toml = format!(
            "[database]\npath = \"molecules.lance\"\n[queries]\nsample = 2\n[stop]\niterations = 1\n\
             [score]\nurl = \"{}\"\nretries = 0\nheaders = {{ Authorization = \"UPHILL_TEST_TOKEN\" }}\n",
            server.url(behaviour)
        );
        std::fs::write(folder.path().join("run.toml"), toml).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_uphill"));
        command
            .args(["search", "run.toml", "--out", out])
            .current_dir(folder.path())
            .env("UPHILL_TEST_TOKEN", "Bearer hunter2");
        let output = command.output().expect("the binary runs");
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(!format!("{}{}", stderr(&output), String::from_utf8_lossy(&output.stdout)).contains("hunter2"));
        let results = read(&folder.path().join(out).join("results/iteration=000000/part-0000.parquet"));
        let mut files = vec![folder.path().join(out)];
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()));
            } else {
                let bytes = std::fs::read(&path).expect("a file");
                assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "{}", path.display());
            }
        }
        results
    };
    assert_eq!(run("token", "A").column("score").expect("score").null_count(), 0, "the service got the token");
    // A server that repeats it.
    let results = run("404", "B");
    let reason =
        results.column("reason").expect("reason").str().expect("strings").get(0).expect("a reason").to_string();
    assert_eq!(reason, "HTTP 404: `no such model: ***`");
}
