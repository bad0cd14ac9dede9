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
        Self::on(0, Counter::new(), None)
    }

    /// One that speaks TLS, with a certificate of `tests/tls`.
    pub fn with_certificate(name: &str) -> Self {
        Self::on(0, Counter::new(), Some(name))
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Goes away, so that nobody listens.
    pub fn stop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// Comes back where it was.
    pub fn start_again(&mut self) {
        let counter = std::mem::replace(&mut self.counter, Counter::new());
        *self = Self::on(self.port, counter, None);
    }

    fn on(port: u16, counter: Counter, certificate: Option<&str>) -> Self {
        let mut command = Command::new("python3");
        command.args([script("server.py"), counter.path(), port.to_string()]);
        command.args(certificate.map(|name| root().join("tests/tls").join(name)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
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
        assert_eq!(score.retry_count(), again, "{behaviour}: items asked again");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn scores_are_objects_or_numbers_in_order() {
    let server = Server::start();
    for behaviour in ["good", "bare", "numbers"] {
        server.outcome(behaviour, [OK; 6], 0);
    }
}

#[test]
fn a_server_that_is_unavailable_or_broken_for_a_while_is_retried() {
    let server = Server::start();
    // 429 comes with Retry-After: 1; the server answers 404 to who comes earlier.
    for (behaviour, again) in [("429/1", 0), ("503/1", 0), ("500/1", 6), ("reset/1", 6)] {
        server.outcome(behaviour, [OK; 6], again);
    }
    assert_eq!(server.counter.items().len(), 4 * 6, "each item is scored once by each");
}

#[test]
fn items_are_not_evaluated_if_the_server_stays_unavailable() {
    let server = Server::start();
    for (behaviour, reason) in [("429", "HTTP 429"), ("503", "HTTP 503")] {
        let score = server.score(behaviour).patience(Duration::from_secs(2)).backoff(Duration::from_millis(100));
        let error = score.score(&batch(6)).expect_err("nobody answered");
        assert!(matches!(error, uphill::Error::Unavailable { .. }), "{error}");
        assert!(error.to_string().starts_with(&format!("score: {reason}; ")), "{error}");
        assert_eq!(score.retry_count(), 0);
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let score = HttpScore::new(format!("http://127.0.0.1:{port}")).patience(Duration::ZERO);
    // A name that nobody knows yet is no other thing than a port that nobody listens at.
    let unknown = HttpScore::new("http://nobody.invalid/").patience(Duration::ZERO);
    for score in [score, unknown] {
        let error = score.score(&batch(1)).expect_err("nobody answered");
        assert!(matches!(error, uphill::Error::Unavailable { .. }), "{error}");
        assert!(error.to_string().starts_with("score: connection: "), "{error}");
    }
}

#[test]
fn a_server_that_has_never_answered_stops_the_run_with_its_message() {
    let server = Server::start();
    let stops = |behaviour: &str| server.score(behaviour).score(&batch(6)).expect_err("stopped").to_string();
    let mend = "for each of 6 items; fix the scorer, then resume with --resume";
    assert_eq!(stops("500"), format!("score: HTTP 500, {mend}"));
    assert!(stops("reset").starts_with("score: connection: "));
    // These would cost the same again, or are refusals: they are not asked a second time.
    assert_eq!(stops("html"), format!("score: returned invalid JSON: `<html>Welcome</html>`, {mend}"));
    let other = "returned JSON without a list `scores`: `{\"results\": []}`";
    assert_eq!(stops("other-json"), format!("score: {other}, {mend}"));
    assert_eq!(stops("huge"), format!("score: returned more than 64 MiB, {mend}"));
    let mend = "fix the cause, then resume with --resume";
    assert_eq!(stops("404"), format!("score: HTTP 404: `no such model: None`; {mend}"));
    assert_eq!(stops("302"), format!("score: HTTP 302; {mend}"));
    let score = server.score("html");
    assert!(score.score(&batch(6)).is_err());
    assert_eq!(score.retry_count(), 0);
}

#[test]
fn a_body_that_comes_too_slowly_is_a_timeout() {
    let server = Server::start();
    let score = server.score("slow").timeout(Duration::from_secs(2)).retries(0).patience(Duration::ZERO);
    let error = score.score(&batch(6)).expect_err("nobody answered").to_string();
    assert!(error.starts_with("score: timeout after 2 s; "), "{error}");
    let score = server.score("slow/1").timeout(Duration::from_secs(4));
    assert_answers(&score.score(&batch(6)).expect("answers"), &[OK; 6]);
}

#[test]
fn requests_for_the_same_items_have_the_same_idempotency_key() {
    let server = Server::start();
    let keys = |behaviour: &str, items: u64| {
        server.score(behaviour).score(&batch(items)).expect("answers");
        let lines = std::fs::read_to_string(server.counter.file("counter.keys")).expect("keys");
        std::fs::remove_file(server.counter.file("counter.keys")).expect("removed");
        lines.lines().map(str::to_string).collect::<Vec<_>>()
    };
    // The answer to the first request is lost on its way.
    let twice = keys("reset/1", 1);
    assert_eq!(twice.len(), 2, "{twice:?}");
    assert_eq!(twice[0], twice[1]);
    assert_eq!(twice[0].len(), 32);
    let others = keys("good", 2);
    assert_ne!(others[0], twice[0]);
}

#[test]
fn items_are_matched_and_checked_as_for_commands() {
    let server = Server::start();
    for (behaviour, reason) in [
        ("nan", "NaN"),
        ("infinite", "infinite"),
        ("text", "returned text instead of a number: `good`"),
        ("null", "no conformer"),
    ] {
        server.outcome(behaviour, [OK, Err(reason), OK, Err(reason), OK, Err(reason)], 0);
    }
    server.outcome("few", [OK, OK, OK, OK, OK, Err("no answer")], 1);
    for (behaviour, reason) in [
        ("many", "returned item 1000000, which was not requested"),
        ("wrong-ids", "returned item 6, which was not requested"),
        ("float-ids", "returned `db_idx` as 5.0, expected a whole number as it was sent"),
    ] {
        let error = server.score(behaviour).score(&batch(6)).expect_err("nothing counts").to_string();
        assert!(error.starts_with(&format!("score: {reason}, for each of 6 items; ")), "{error}");
    }
    let rejected = server.score("rejects").score(&batch(4)).expect("answers");
    let outcomes = rejected.column("outcome").expect("outcome").str().expect("strings");
    assert_eq!(outcomes.iter().flatten().collect::<Vec<_>>(), ["rejected", "scored", "scored", "rejected"]);
}

#[test]
fn embeddings_are_sent_only_if_configured() {
    let server = Server::start();
    let scores = |embeddings: bool| {
        let answers = server.score("embeddings").embeddings(embeddings).score(&batch(2)).expect("answers");
        f64s(&answers, "score")
    };
    assert_eq!(scores(false), [0.0, 0.0]);
    assert_eq!(scores(true), [3.0, 3.0]);
}

#[test]
fn invalid_services_are_rejected_before_the_first_request() {
    let check = |score: HttpScore| score.check(&batch(0)).expect_err("refused").to_string();
    assert_eq!(
        check(HttpScore::new("ftp://a/b?page=1")),
        "score.url: `ftp://a/b` does not begin with http:// or https://"
    );
    assert_eq!(check(HttpScore::new("no url")), "score.url: `no url` is not a valid URL");
    assert_eq!(
        check(HttpScore::new("http://me:hunter2@a/b")),
        "score.url: `the URL` contains a user name or password; send them in a header instead (score.headers)"
    );
    assert_eq!(
        check(HttpScore::new("http://a").header("Authorization", "UPHILL_NO_SUCH_VARIABLE")),
        "score.headers: `Authorization`: the environment variable `UPHILL_NO_SUCH_VARIABLE` is not set"
    );
    assert_eq!(
        check(HttpScore::new("http://a/b?model=2&api_key=hunter2")),
        "score.url: `http://a/b` contains a secret; use an environment variable instead: api_key=${API_KEY}"
    );
    assert_eq!(
        check(HttpScore::new("http://a/b?api_key=${UPHILL_NO_SUCH_VARIABLE}")),
        "score.url: the environment variable `UPHILL_NO_SUCH_VARIABLE` is not set"
    );
    assert_eq!(
        check(HttpScore::new("http://a").header("a b", "PATH")),
        "score.headers: `a b` is not a valid header name"
    );
}

#[test]
fn a_service_with_four_concurrent_requests_gives_the_same_run_as_the_sql_score() {
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
fn secrets_are_sent_to_the_service_and_appear_nowhere_else() {
    let server = Server::start();
    let folder = folder();
    molecules(&folder);
    let run = |behaviour: &str, out: &str, (token, key): (&str, &str), code: i32| {
        // What ASCII does not have, a header of one's own may.
        let header = if token.is_ascii() { "Authorization" } else { "X-Token" };
        let toml = format!(
            "[database]\npath = \"molecules.lance\"\n[queries]\nsample = 2\n[stop]\niterations = 1\nfailed_share = 1\n\
             [score]\nurl = \"{}?key=${{UPHILL_TEST_KEY}}\"\nretries = 0\nheaders = {{ {header} = \"UPHILL_TEST_TOKEN\" }}\n",
            server.url(behaviour)
        );
        std::fs::write(folder.path().join("run.toml"), toml).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_uphill"));
        command
            .args(["search", "run.toml", "--out", out])
            .current_dir(folder.path())
            .env("UPHILL_TEST_TOKEN", token)
            .env("UPHILL_TEST_KEY", key);
        let output = command.output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        let mut said = vec![output.stderr.clone(), output.stdout.clone()];
        let mut files = vec![folder.path().join(out)];
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()));
            } else {
                said.push(std::fs::read(&path).expect("a file"));
            }
        }
        let last = token.split(' ').next_back().unwrap_or_default();
        for secret in [last, key].into_iter().filter(|secret| secret.chars().count() > 3) {
            let secret = secret.as_bytes();
            assert!(!said.iter().any(|bytes| bytes.windows(secret.len()).any(|found| found == secret)), "{behaviour}");
        }
        stderr(&output)
    };
    let reason = |out: &str| {
        let results = read(&folder.path().join(out).join("results/iteration=000000/part-0000.parquet"));
        let reasons = results.column("reason").expect("reason").str().expect("strings").clone();
        (results.column("score").expect("score").null_count(), reasons.get(0).map(str::to_string))
    };
    run("token", "A", ("Bearer hunter2", "hunter2-too"), 0);
    assert_eq!(reason("A"), (0, None), "the service got the token");
    // A service that repeats it, in a good answer too.
    let repeated = Some("no score for *** of /repeats?key=***".to_string());
    for (out, secrets) in [
        ("B", ("Bearer hunter2", "hunter2-too")),
        ("C", ("Bearer pässwört", "k%C3%A4%2Fse")),
        ("D", ("Basic dXNlcjpoaWRkZW4=", "a7")),
        ("E", ("x", "y")),
        ("F", (r#"a/b"c\d"#, "one&two=three")),
    ] {
        run("repeats", out, secrets, 0);
        assert_eq!(reason(out).1, repeated, "{secrets:?}");
        let results = read(&folder.path().join(out).join("results/iteration=000000/part-0000.parquet"));
        let why = results.column("why").expect("a text").str().expect("strings").get(0).map(str::to_string);
        assert_eq!(why, repeated, "{secrets:?}");
    }
    // As JSON escapes it, in an error's words.
    for (out, secrets) in [("G", ("Bearer pässwört", "k%C3%A4%2Fse")), ("H", (r#"a/b"c\d"#, "ab"))] {
        let said = run("repeats-and-refuses", out, secrets, 1);
        assert!(said.contains(r#"HTTP 401: `{"error": "*** of /repeats-and-refuses?key=***"}`"#), "{said}");
    }
}

#[test]
fn invalid_environment_variables_are_rejected() {
    let folder = folder();
    exact_library(&folder, &normal(20, 4, &mut rng(1)));
    for (score, value, words) in [
        (
            "url = 'http://127.0.0.1:1/?key=${UPHILL_TEST_KEY}&model=2'",
            "ab#hidden",
            "contains a character that is not allowed in a URL",
        ),
        (
            "url = 'http://127.0.0.1:1/'\nheaders = { Authorization = 'UPHILL_TEST_KEY' }",
            "Bearer hidden ä",
            "contains characters outside of ASCII",
        ),
    ] {
        let run = format!("[database]\npath = 'items.lance'\n[score]\n{score}\n");
        std::fs::write(folder.path().join("run.toml"), run).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_uphill"));
        command.args(["search", "run.toml", "--out", "run"]).current_dir(folder.path()).env("UPHILL_TEST_KEY", value);
        let output = command.output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        let expected = format!("the environment variable `UPHILL_TEST_KEY` {words}");
        assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
        assert!(!stderr(&output).contains("hidden"), "{}", stderr(&output));
    }
}
