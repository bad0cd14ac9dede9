//! Scoring by an external command: right answers, and every way of getting none.

use std::time::Duration;

use uphill::{CommandFormat, CommandMode, CommandScore, Score, SqlScore};

use crate::common::*;
use crate::python::python;
use crate::scorers::*;

const OK: Result<(), &str> = Ok(());

fn jsonl(counter: &Counter, behaviour: &str, more: &[&str]) -> CommandScore {
    let arguments = ["python3", &script("jsonl.py"), &counter.path(), behaviour].map(str::to_string);
    CommandScore::new(arguments.into_iter().chain(more.iter().map(|more| more.to_string())))
        .retries(1)
        .backoff(Duration::from_millis(1))
        .stderr(counter.file("stderr.log"))
}

fn arrow(counter: &Counter, behaviour: &str, more: &[&str]) -> CommandScore {
    let arguments = [python().to_string_lossy().into_owned(), script("arrow.py"), counter.path(), behaviour.into()];
    CommandScore::new(arguments.into_iter().chain(more.iter().map(|more| more.to_string())))
        .format(CommandFormat::Arrow)
        .retries(1)
        .backoff(Duration::from_millis(1))
        .stderr(counter.file("stderr.log"))
}

fn parquet(counter: &Counter, behaviour: &str) -> CommandScore {
    let arguments = [python().to_string_lossy().into_owned(), script("parquet.py"), counter.path(), behaviour.into()];
    CommandScore::new(arguments)
        .mode(CommandMode::Batch)
        .retries(1)
        .backoff(Duration::from_millis(1))
        .stderr(counter.file("stderr.log"))
}

/// Scores six items by a scorer that misbehaves, and asserts what comes of it.
fn outcome(score: CommandScore, counter: &Counter, expected: [Result<(), &str>; 6], again: u64, processes: usize) {
    let answers = score.score(&batch(6)).expect("failures are data");
    assert_answers(&answers, &expected);
    assert_eq!(score.retry_count(), again, "items asked again");
    drop(score);
    assert_eq!(counter.processes(), processes, "processes started");
    counter.assert_all_gone();
}

/// Asks for six items a scorer that answers none of them, and has never answered: asserts the words it stops the run with.
fn stops(score: CommandScore, counter: &Counter, reason: &str, processes: usize) {
    let error = score.score(&batch(6)).expect_err("nothing came").to_string();
    assert_eq!(error, format!("score: {reason}, for each of 6 items; fix the scorer, then resume with --resume"));
    drop(score);
    assert_eq!(counter.processes(), processes, "processes started");
    counter.assert_all_gone();
}

/// As [`outcome`], of a scorer of which each process answers two items of a batch, then fails: asked for one at a time, it
/// answers them all.
fn two_by_two(behaviour: &str) {
    let counter = Counter::new();
    let score = jsonl(&counter, behaviour, &[]).timeout(Duration::from_secs(3));
    outcome(score, &counter, [OK; 6], 4, 2);
    assert_eq!(counter.items(), [0, 1, 2, 3, 4, 5], "what was answered before the failure is not asked again");
}

#[test]
fn the_answers_of_a_process_that_fails_are_kept_and_the_other_items_are_retried_one_by_one() {
    for behaviour in ["exits", "killed", "hangs", "closes", "prints", "long line"] {
        two_by_two(behaviour);
    }
}

#[test]
fn the_item_that_breaks_the_scorer_fails_alone_and_its_reason_says_how() {
    for (behaviour, reason) in [
        ("exits", "exited with status 3"),
        ("killed", "killed by signal 9"),
        ("closes", "closed its standard output"),
        ("prints", "timeout after 3 s (it printed `Loading model`)"),
        ("hangs", "timeout after 3 s"),
    ] {
        let counter = Counter::new();
        let score = jsonl(&counter, &format!("{behaviour} at 2"), &[]).timeout(Duration::from_secs(3));
        let answers = score.score(&batch(6)).expect("failures are data");
        assert_answers(&answers, &[OK, OK, Err(reason), OK, OK, OK]);
        drop(score);
        counter.assert_all_gone();
    }
}

#[test]
fn what_a_hanging_process_started_is_killed_with_it() {
    let counter = Counter::new();
    let score = jsonl(&counter, "spawns", &[]).timeout(Duration::from_secs(3)).retries(0);
    let reason = Err("timeout after 3 s");
    // The second of the two processes is what the first one started.
    outcome(score, &counter, [OK, OK, reason, reason, reason, reason], 0, 2);
}

#[test]
fn a_new_process_scores_the_items_that_the_first_left_out() {
    for behaviour in ["exits", "killed"] {
        let counter = Counter::new();
        let once = counter.file("once").to_string_lossy().into_owned();
        outcome(jsonl(&counter, behaviour, &[&once]), &counter, [OK; 6], 4, 2);
        assert_eq!(counter.items(), [0, 1, 2, 3, 4, 5], "each item is paid for once");
    }
}

#[test]
fn too_few_answers_leave_items_without_one() {
    let counter = Counter::new();
    outcome(jsonl(&counter, "few", &[]), &counter, [OK, OK, OK, OK, OK, Err("no answer")], 1, 1);
    let counter = Counter::new();
    outcome(arrow(&counter, "few", &[]), &counter, [OK, OK, OK, OK, OK, Err("no answer")], 1, 1);
    let counter = Counter::new();
    outcome(parquet(&counter, "few"), &counter, [OK, OK, OK, OK, OK, Err("no answer")], 1, 2);
}

#[test]
fn wrong_ids_discard_all_answers_of_an_attempt() {
    for (behaviour, reason) in [
        ("many", "returned item 1000000, which was not requested"),
        ("twice", "returned item 5 twice"),
        ("wrong ids", "returned item 6, which was not requested"),
        ("float ids", "returned `db_idx` as 5.0, expected a whole number as it was sent"),
        ("text ids", "returned `db_idx` as `\"5\"`, expected a whole number as it was sent"),
    ] {
        // The second attempt asks for the items one by one, each of a process of its own.
        let counter = Counter::new();
        stops(jsonl(&counter, behaviour, &[]), &counter, reason, 7);
    }
    for (behaviour, reason) in [
        ("many", "returned item 1000000, which was not requested"),
        ("twice", "returned item 5 twice"),
        ("wrong ids", "returned item 6, which was not requested"),
    ] {
        let counter = Counter::new();
        stops(arrow(&counter, behaviour, &[]), &counter, reason, 7);
    }
}

#[test]
fn an_item_without_a_finite_score_has_failed_and_is_not_retried() {
    for (behaviour, reason, arrow_reason) in
        [("nan", "NaN", "NaN"), ("infinite", "infinite", "infinite"), ("own reason", "no conformer", "no conformer")]
    {
        let counter = Counter::new();
        outcome(jsonl(&counter, behaviour, &[]), &counter, [OK, Err(reason), OK, Err(reason), OK, Err(reason)], 0, 1);
        assert_eq!(counter.items(), [0, 1, 2, 3, 4, 5]);
        let counter = Counter::new();
        outcome(
            arrow(&counter, behaviour, &[]),
            &counter,
            [OK, Err(arrow_reason), OK, Err(arrow_reason), OK, Err(arrow_reason)],
            0,
            1,
        );
        assert_eq!(counter.items(), [0, 1, 2, 3, 4, 5]);
    }
    let text = Err("returned text instead of a number: `good`");
    let counter = Counter::new();
    outcome(jsonl(&counter, "text", &[]), &counter, [OK, text, OK, text, OK, text], 0, 1);
    let none = Err("no score");
    let counter = Counter::new();
    outcome(arrow(&counter, "text", &[]), &counter, [none, text, none, text, none, text], 0, 1);
}

#[test]
fn an_incomplete_or_invalid_arrow_stream_is_retried() {
    for (behaviour, reason) in [
        ("exits", "exited with status 3"),
        ("closes", "closed its standard output"),
        ("too long", "returned an Arrow stream of more than 64 MiB"),
        ("without ids", "returned no column `db_idx` (there are: score)"),
    ] {
        let counter = Counter::new();
        stops(arrow(&counter, behaviour, &[]), &counter, reason, 7);
        let counter = Counter::new();
        let once = counter.file("once").to_string_lossy().into_owned();
        outcome(arrow(&counter, behaviour, &[&once]), &counter, [OK; 6], 6, 2);
    }
}

#[test]
fn the_items_of_a_request_that_timed_out_are_not_evaluated() {
    let counter = Counter::new();
    for mut score in [arrow(&counter, "hangs", &[]), parquet(&counter, "hangs")] {
        // It has answered before: one that never has is broken, and not away.
        let mut session = uphill::Session::default();
        session.has_answers = true;
        score.begin(&session);
        let score = score.timeout(Duration::from_secs(3)).retries(0).patience(Duration::ZERO);
        let error = score.score(&batch(6)).expect_err("nobody answered");
        assert!(matches!(error, uphill::Error::Unavailable { .. }), "{error}");
        assert!(error.to_string().starts_with("score: timeout after 3 s; "), "{error}");
    }
    counter.assert_all_gone();
}

#[test]
fn in_batch_mode_a_process_fails_by_its_status_or_its_output_file() {
    for (behaviour, reason) in [
        ("exits", "exited with status 3"),
        ("nothing", "wrote no output file"),
        ("not parquet", "wrote an output file that is not Parquet"),
    ] {
        let counter = Counter::new();
        stops(parquet(&counter, behaviour), &counter, reason, 7);
        let messages = std::fs::read_to_string(counter.file("stderr.log")).expect("captured");
        assert!(messages.contains("a line that is no answer"), "what it prints is kept with its errors: {messages}");
    }
}

#[test]
fn a_flood_of_messages_neither_blocks_nor_fills_the_disk() {
    let counter = Counter::new();
    outcome(jsonl(&counter, "floods", &[]), &counter, [OK; 6], 0, 1);
    let kept = std::fs::metadata(counter.file("stderr.log")).expect("captured").len();
    assert!((16 << 20..17 << 20).contains(&kept), "{kept} bytes");
    let counter = Counter::new();
    outcome(arrow(&counter, "floods", &[]), &counter, [OK; 6], 0, 1);
}

#[test]
fn a_missing_empty_line_costs_the_process_but_no_score() {
    let counter = Counter::new();
    outcome(jsonl(&counter, "no empty line", &[]), &counter, [OK; 6], 0, 1);
}

#[test]
fn output_between_two_requests_is_not_an_answer() {
    let counter = Counter::new();
    let score = jsonl(&counter, "stray", &[]);
    for _ in 0..3 {
        assert_answers(&score.score(&batch(6)).expect("answers"), &[OK; 6]);
    }
    drop(score);
    counter.assert_all_gone();
}

#[test]
fn one_process_answers_many_requests() {
    let counter = Counter::new();
    for score in [jsonl(&counter, "good", &[]), arrow(&counter, "good", &[])] {
        for items in [6, 1, 300, 0, 2] {
            assert_answers(&score.score(&batch(items)).expect("answers"), &vec![OK; items as usize]);
        }
    }
    assert_eq!(counter.processes(), 2);
    counter.assert_all_gone();
}

#[test]
fn other_numbers_and_texts_are_parts_of_the_score_but_columns_that_were_sent_are_not() {
    let counter = Counter::new();
    for (score, parts) in
        [(jsonl(&counter, "parts", &[]), &["energy", "note"][..]), (arrow(&counter, "parts", &[]), &["energy"])]
    {
        let answers = score.score(&batch(3)).expect("answers");
        assert_eq!(names(&answers), [&["db_idx", "score", "outcome", "reason"], parts].concat());
        let energies: Vec<f64> = f64s(&answers, "score").iter().map(|score| -score).collect();
        assert_eq!(f64s(&answers, "energy"), energies);
    }
}

#[test]
fn embeddings_are_sent_only_if_configured() {
    let echo = "import sys, json\n\
        for line in sys.stdin:\n\
        \x20   if line.strip():\n\
        \x20       item = json.loads(line)\n\
        \x20       print(json.dumps({'db_idx': item['db_idx'], 'score': len(item.get('embedding', []))}))\n\
        \x20   else: print(flush=True)";
    let scores = |embeddings: bool| {
        let score = CommandScore::new(["python3", "-c", echo]).embeddings(embeddings);
        f64s(&score.score(&batch(2)).expect("answers"), "score")
    };
    assert_eq!(scores(false), [0.0, 0.0]);
    assert_eq!(scores(true), [3.0, 3.0]);
}

#[test]
fn commands_that_cannot_run_are_rejected_before_the_first_request() {
    let check = |score: CommandScore| score.check(&batch(0)).expect_err("refused").to_string();
    assert_eq!(check(CommandScore::new(["no-such-program"])), "score.command: program `no-such-program` not found");
    assert_eq!(
        check(CommandScore::new(["./score.py"]).working_directory("/tmp")),
        "score.command: program `./score.py` not found"
    );
    assert_eq!(check(CommandScore::new([""; 0])), "score.command: expected a program and its arguments, found nothing");
    let score = CommandScore::new(["python3"]).timeout(Duration::ZERO);
    assert_eq!(check(score), "score.timeout: expected more than 0 seconds, found 0");
    let missing = CommandScore::new(["no-such-program"]).score(&batch(1)).expect_err("refused").to_string();
    assert!(missing.starts_with("score.command: cannot run `no-such-program`"), "{missing}");
}

#[test]
fn every_kind_of_command_gives_the_same_run_as_the_sql_score() {
    let folder = folder();
    let dataset = molecules(&folder);
    let expected = search(&dataset, SqlScore::new("qed"));
    for workers in [1, 4] {
        for kind in ["jsonl", "arrow", "parquet"] {
            if (kind, workers) == ("parquet", 1) {
                continue;
            }
            let counter = Counter::new();
            let score = match kind {
                "jsonl" => jsonl(&counter, "good", &[]),
                "arrow" => arrow(&counter, "good", &[]),
                _ => parquet(&counter, "good"),
            };
            let log = search(&dataset, score.batch_size(9).workers(workers));
            assert_same_runs(&log, &expected);
            assert_eq!(counter.items(), asked(&expected), "{kind} with {workers} in flight: each item is asked once");
            counter.assert_all_gone();
        }
    }
}

#[test]
fn a_command_runs_in_the_folder_of_the_run_file_and_its_messages_are_kept_in_the_run_folder() {
    let folder = folder();
    molecules(&folder);
    let scorer = "import sys, json\n\
        print('hello from', sys.argv[1], file=sys.stderr)\n\
        for line in sys.stdin:\n\
        \x20   item = json.loads(line) if line.strip() else None\n\
        \x20   print(json.dumps({'db_idx': item['db_idx'], 'score': item['qed']}) if item else '', flush=True)\n";
    std::fs::write(folder.path().join("score.py"), scorer).expect("written");
    let score =
        "command = [\"python3\", \"score.py\", \"run\"]\nbatch_size = 4\nworkers = 2\ntimeout = 60\nretries = 1";
    std::fs::write(folder.path().join("run.toml"), run_file(score)).expect("written");
    std::fs::write(folder.path().join("sql.toml"), run_file("sql = \"qed\"")).expect("written");
    let elsewhere = self::folder();
    for name in ["run", "sql"] {
        let file = folder.path().join(format!("{name}.toml"));
        uphill_ok(&["search", &file.to_string_lossy(), "--out", name], elsewhere.path());
    }
    let results = |name: &str, iteration: u32| {
        read(&elsewhere.path().join(name).join(format!("results/iteration={iteration:06}/part-0000.parquet")))
    };
    for iteration in 0..2 {
        assert!(results("run", iteration).equals_missing(&results("sql", iteration)));
    }
    let messages = std::fs::read_to_string(elsewhere.path().join("run/stderr/command.log")).expect("captured");
    assert!(messages.contains("hello from run\n"), "{messages}");
}

#[test]
fn keys_of_another_kind_of_scorer_are_rejected() {
    let folder = folder();
    molecules(&folder);
    let refused = |score: &str| {
        let file = folder.path().join("run.toml");
        std::fs::write(&file, run_file(score)).expect("written");
        let runner = uphill::Config::read(&file, &[]).and_then(|config| config.runner(config.database(None)?));
        runner.map(|_| ()).expect_err("refused").to_string()
    };
    assert_eq!(refused(""), "score: set one of `sql`, `command`, `url`, `call`, `by_hand` or `sum`");
    assert_eq!(refused("sql = \"qed\"\nurl = \"http://a\""), "score: set `sql` or `url`, not both");
    assert_eq!(
        refused("sql = \"qed\"\nworkers = 4"),
        "score.workers: works with `command` or `call`, not with `sql`; remove it"
    );
    assert_eq!(
        refused("command = [\"a\"]\nconcurrency = 4"),
        "score.concurrency: works with `url`, not with `command`; remove it"
    );
    assert_eq!(
        refused("url = \"http://a\"\nworkers = 4"),
        "score.workers: works with `command` or `call`, not with `url`; remove it"
    );
    assert_eq!(refused("command = [\"a\"]\nworkers = 0"), "score.workers: expected at least 1, found 0");
    assert_eq!(refused("url = \"http://a\"\ntimeout = -1"), "score.timeout: expected more than 0 seconds, found -1");
    assert!(refused("command = [\"a\"]\nworker = 4").contains("unknown key `worker`; did you mean `workers`?"));
}

#[test]
fn on_error_stop_ends_the_run_and_keeps_the_scores() {
    let folder = folder();
    molecules(&folder);
    let counter = Counter::new();
    let command = |behaviour: &str| {
        format!(
            "command = [\"python3\", {:?}, {:?}, {behaviour:?}]\nretries = 0\non_error = \"stop\"",
            script("jsonl.py"),
            counter.path()
        )
    };
    std::fs::write(folder.path().join("run.toml"), run_file(&command("exits"))).expect("written");
    let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("score in iteration 0: item "), "{}", stderr(&output));
    assert!(stderr(&output).contains(" failed: exited with status 3"), "{}", stderr(&output));
    let paid = counter.items();
    assert_eq!(paid.len(), 2);
    assert_eq!(read(&folder.path().join("run/ledger/batch-000000.parquet")).height(), 2);
}

#[test]
fn a_killed_run_does_not_repeat_finished_requests() {
    let folder = folder();
    molecules(&folder);
    let counter = Counter::new();
    let command = |behaviour: &str| {
        let command = format!("[\"python3\", {:?}, {:?}, {behaviour:?}]", script("jsonl.py"), counter.path());
        run_file(&format!("command = {command}\nworkers = 2\nbatch_size = 2"))
    };
    std::fs::write(folder.path().join("run.toml"), command("slow")).expect("written");
    std::fs::write(folder.path().join("sql.toml"), run_file("sql = \"qed\"")).expect("written");
    let mut run = std::process::Command::new(env!("CARGO_BIN_EXE_uphill"));
    let mut run = run.args(["search", "run.toml", "--out", "run"]).current_dir(folder.path()).spawn().expect("it runs");
    while counter.items().len() < 12 {
        assert!(run.try_wait().expect("a status").is_none(), "the run ended too early");
        std::thread::sleep(Duration::from_millis(1));
    }
    run.kill().expect("killed");
    run.wait().expect("reaped");
    // Its scorers end with their standard input, and what they have answered was paid for.
    counter.assert_all_gone();

    uphill_ok(&["search", "run.toml", "--out", "run", "--resume"], folder.path());
    uphill_ok(&["search", "sql.toml", "--out", "sql"], folder.path());
    for iteration in 0..2 {
        let results = |name: &str| {
            read(&folder.path().join(format!("{name}/results/iteration={iteration:06}/part-0000.parquet")))
        };
        assert!(results("run").equals_missing(&results("sql")), "iteration {iteration}");
    }
    let asked = counter.items();
    let mut distinct = asked.clone();
    distinct.dedup();
    let twice = asked.len() - distinct.len();
    assert!(twice <= 4, "more than the batches in flight were asked twice: {asked:?}");

    // The run says so: what was in flight, and so may have been paid twice.
    let inspected: serde_json::Value =
        serde_json::from_str(&uphill_ok(&["inspect", "run", "--json"], folder.path())).expect("JSON");
    let again = inspected["items asked again after a stop"].as_u64().expect("a number");
    assert!((twice as u64..=4).contains(&again), "{twice} were asked twice, the run says {again}");
    let shown = stderr(&uphill(&["results", "run"], folder.path()));
    let expected = format!("{} items scored, {again} scored again after a kill", distinct.len());
    assert!(shown.contains(&expected) || again == 0, "{shown}");
}
