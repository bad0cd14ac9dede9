//! Scorers that accept items and do not answer: how long they are borne, and what an item that holds up the others costs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use uphill::{CommandMode, CommandScore, Error, HttpScore, Score};

use crate::scorers::*;

/// A service that counts its requests, and does with each what it is told.
struct Service {
    port: u16,
    requests: Arc<AtomicUsize>,
}

impl Service {
    fn start(serve: impl Fn(&str, &mut TcpStream) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (port, requests) = (listener.local_addr().expect("an address").port(), Arc::new(AtomicUsize::new(0)));
        let count = requests.clone();
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let serve = serve.clone();
                std::thread::spawn(move || serve(&body(&client), &mut client));
            }
        });
        Service { port, requests }
    }

    fn score(&self) -> HttpScore {
        HttpScore::new(format!("http://127.0.0.1:{}/", self.port)).backoff(Duration::from_millis(1)).batch_size(16)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// The body of a request.
fn body(client: &TcpStream) -> String {
    let (mut reader, mut length) = (BufReader::new(client), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    String::from_utf8(body).expect("text")
}

/// Answers each item by its `qed`.
fn answer(body: &str, client: &mut TcpStream) {
    let items: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let items = items["items"].as_array().expect("items").iter();
    // As `batch` has it, to the last digit.
    let scores: Vec<String> = items
        .map(|item| item["db_idx"].as_u64().expect("an id"))
        .map(|id| format!("{{\"db_idx\": {id}, \"score\": {:?}}}", (id as f64 + 0.1) / 7.0))
        .collect();
    let body = format!("[{}]", scores.join(", "));
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = client.write_all((head + &body).as_bytes());
}

fn sleep() {
    std::thread::sleep(Duration::from_secs(600));
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_service_that_never_answers_is_unavailable_after_patience_and_a_few_timeouts() {
    let silent = |_: &str, _: &mut TcpStream| sleep();
    let headers = |_: &str, client: &mut TcpStream| {
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        sleep();
    };
    let trickle = |_: &str, client: &mut TcpStream| {
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
        while client.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    for service in [Service::start(silent), Service::start(headers), Service::start(trickle)] {
        for (timeout, patience, most) in [
            // Three whole batches at most, and two items alone.
            (SECOND, 3 * SECOND, 6),
            // Once the batch, and two items alone.
            (2 * SECOND, SECOND / 2, 3),
            (2 * SECOND, Duration::ZERO, 3),
        ] {
            let before = service.requests();
            let score = service.score().timeout(timeout).patience(patience).retries(5);
            let error = score.score(&batch(16)).expect_err("nobody answered");
            assert!(matches!(error, Error::Unavailable { .. }), "{error}");
            let asked = service.requests() - before;
            assert!((2..=most).contains(&asked), "{timeout:?} {patience:?}: {asked} requests");
        }
    }
}

#[test]
fn many_workers_wait_for_a_silent_service_no_longer_than_one() {
    let service = Service::start(|_, _| sleep());
    let score = service.score().timeout(SECOND).patience(3 * SECOND).workers(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let error = score.score(&batch(16)).expect_err("nobody answered");
                assert!(matches!(error, Error::Unavailable { .. }), "{error}");
            });
        }
    });
    assert!(service.requests() <= 8 * 6, "{} requests", service.requests());
}

#[test]
fn an_item_that_blocks_the_others_fails_alone() {
    for (timeout, patience) in [(3 * SECOND, 300 * SECOND), (3 * SECOND, SECOND)] {
        // The first: nothing of its batch is answered in time.
        let service = Service::start(|body: &str, client: &mut TcpStream| match body.contains("\"db_idx\":0,") {
            true => sleep(),
            false => answer(body, client),
        });
        let score = service.score().timeout(timeout).patience(patience);
        let mut expected = vec![Ok(()); 8];
        expected[0] = Err("timeout after 3 s");
        assert_answers(&score.score(&batch(8)).expect("failures are data"), &expected);
    }
}

#[test]
fn all_items_are_scored_if_a_silent_service_recovers() {
    let silent = Arc::new(AtomicUsize::new(3));
    let left = silent.clone();
    let service = Service::start(move |body: &str, client: &mut TcpStream| {
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => sleep(),
            Err(_) => answer(body, client),
        }
    });
    let score = service.score().timeout(2 * SECOND).patience(60 * SECOND);
    assert_answers(&score.score(&batch(8)).expect("answers"), &[Ok(()); 8]);
    assert_eq!(silent.load(Ordering::SeqCst), 0);
}

#[test]
fn a_connection_that_is_accepted_and_closed_ends_the_run_at_the_first_request() {
    let service = Service::start(|_, _| {});
    let error = service.score().patience(300 * SECOND).score(&batch(6)).expect_err("nobody answered").to_string();
    assert!(error.starts_with("score: connection: "), "{error}");
    assert!(error.ends_with(", for each of 6 items; fix the scorer, then resume with --resume"), "{error}");
    assert!(service.requests() <= 2 + 6, "{} requests", service.requests());
}

/// Notes each process that was started, then reads nothing, or all, and sleeps.
fn sleeper(counter: &Counter, reads: bool) -> CommandScore {
    let script = format!(
        "import os, sys, time\nopen({:?}, 'a').write(f'{{os.getpid()}}\\n')\n{}time.sleep(600)",
        counter.file("counter.pids"),
        if reads { "sys.stdin.readline()\n" } else { "" }
    );
    CommandScore::new(["python3", "-c", &script]).backoff(Duration::from_millis(1)).timeout(SECOND)
}

#[test]
fn a_command_that_never_answers_ends_the_run_at_the_first_request() {
    for (reads, mode) in [(false, CommandMode::Stream), (true, CommandMode::Stream), (false, CommandMode::Batch)] {
        let counter = Counter::new();
        let score = sleeper(&counter, reads).mode(mode);
        let error = score.score(&batch(30)).expect_err("nobody answered").to_string();
        let expected = "score: timeout after 1 s, and none of 30 items was scored; fix the scorer or raise \
                        score.timeout, then resume with --resume";
        assert_eq!(error, expected);
        drop(score);
        // The whole batch twice, and two items alone.
        assert!(counter.processes() <= 4, "{} processes", counter.processes());
        counter.assert_all_gone();
    }
}

#[test]
fn a_command_that_answers_slowly_but_steadily_scores_all_items() {
    let slow = "import json, sys, time\n\
        for line in sys.stdin:\n\
        \x20   if line.strip():\n\
        \x20       item = json.loads(line)\n\
        \x20       time.sleep(1)\n\
        \x20       print(json.dumps({'db_idx': item['db_idx'], 'score': item['qed']}), flush=True)\n\
        \x20   else: print(flush=True)";
    let score = CommandScore::new(["python3", "-c", slow]).timeout(6 * SECOND).backoff(Duration::from_millis(1));
    let begun = Instant::now();
    assert_answers(&score.score(&batch(9)).expect("answers"), &[Ok(()); 9]);
    assert!(begun.elapsed() > 6 * SECOND, "no batch of nine is answered in time");
}
