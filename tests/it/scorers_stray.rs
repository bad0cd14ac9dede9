//! What a scorer's libraries print to standard output between its answers.

use std::time::Duration;

use uphill::{CommandFormat, CommandScore, Score};

use crate::common::*;
use crate::python::python;
use crate::scorers::*;

/// A scorer of JSON lines that does something at its start, at each item, and at the end of a batch.
struct Chatty {
    folder: TempDir,
    score: CommandScore,
}

impl Chatty {
    fn new(start: &str, each: &str, end: &str) -> Self {
        let folder = folder();
        let script = format!(
            "import json, os, sys, time\n\
             open('processes', 'a').write('1')\n\
             {start}\n\
             for line in sys.stdin:\n\
             \x20   if line.strip():\n\
             \x20       item = json.loads(line)\n\
             \x20       n, score = item['db_idx'], item['qed']\n\
             \x20       open('asked', 'a').write(f'{{n}}\\n')\n\
             \x20       {each}\n\
             \x20   else:\n\
             \x20       {end}\n"
        );
        let path = folder.path().join("score.py");
        std::fs::write(&path, script).expect("written");
        let score = CommandScore::new(["python3".to_string(), path.to_string_lossy().into_owned()])
            .working_directory(folder.path())
            .stderr(folder.path().join("stderr.log"))
            .backoff(Duration::from_millis(1));
        Chatty { folder, score }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

const ANSWER: &str = "print(json.dumps({'db_idx': n, 'score': score}))";
const END: &str = "print(flush=True)";

#[test]
fn unexpected_lines_lose_no_answer_and_are_saved_with_standard_error() {
    for (start, each, kept) in [
        ("print('AutoDock Vina v1.2.5\\n#### If you used ... ####', flush=True)", "", "AutoDock Vina v1.2.5"),
        ("print('\\n\\nWelcome\\n', flush=True)", "", "Welcome"),
        ("print('\\nWelcome', flush=True); time.sleep(2); print('\\nReady', flush=True)", "time.sleep(0.5); ", "Ready"),
        ("", "n % 3 or print('RDKit WARNING: not removing hydrogen atom'); ", "RDKit WARNING"),
        ("", "n % 3 or print('\\nWARNING\\n', flush=True); ", "WARNING"),
        ("", "sys.stdout.write('\\rscoring 10%|#   |'); ", ""),
        ("", "sys.stdout.write('\\rscoring 10%|#   |\\n'); ", "scoring 10%"),
        ("", "print(42); print(0.5); print('null'); print([1]); print('\"text\"'); ", "42"),
        ("", "print('\\x1b[32mok\\x1b[0m'); ", "ok"),
        ("", "print(json.dumps({'level': 'info', 'step': n})); ", "\"level\": \"info\""),
        ("", "print({'db_idx': n}); ", "{'db_idx': 0}"),
        ("", "sys.stdout.flush(); sys.stdout.buffer.write(b'\\xe4\\xff\\n'); sys.stdout.buffer.flush(); ", "\u{fffd}"),
        ("os.write(1, b'no end of line: ')", "", ""),
    ] {
        let chatty = Chatty::new(start, &format!("{each}{ANSWER}"), END);
        for items in [6, 1, 4] {
            let answers = chatty.score.score(&batch(items)).expect("answers");
            assert_answers(&answers, &vec![Ok(()); items as usize]);
        }
        assert_eq!(chatty.score.retry_count(), 0, "{start}{each}");
        assert_eq!(chatty.read("asked").lines().count(), 11, "each item is paid for once: {start}{each}");
        assert_eq!(chatty.read("processes"), "1", "{start}{each}");
        let errors = std::fs::read(chatty.folder.path().join("stderr.log")).unwrap_or_default();
        assert!(String::from_utf8_lossy(&errors).contains(kept), "{start}{each}");
    }
}

#[test]
fn the_first_answer_may_come_long_after_a_banner() {
    // Longer than a scorer in doubt is left alone: it is busy, and reads nothing meanwhile.
    let chatty = Chatty::new("print('\\nWelcome\\n', flush=True); time.sleep(12)", ANSWER, END);
    assert_answers(&chatty.score.score(&batch(3)).expect("answers"), &[Ok(()); 3]);
    assert_answers(&chatty.score.score(&batch(3)).expect("answers"), &[Ok(()); 3]);
    assert_eq!((chatty.score.retry_count(), chatty.read("processes").as_str()), (0, "1"));
}

#[test]
fn lines_between_two_requests_do_not_restart_the_process() {
    let chatty = Chatty::new("", ANSWER, "print('', flush=True); print('that was a batch', flush=True)");
    for _ in 0..3 {
        assert_answers(&chatty.score.score(&batch(4)).expect("answers"), &[Ok(()); 4]);
    }
    assert_eq!(chatty.read("processes"), "1");
}

#[test]
fn a_scorer_that_prints_only_other_text_ends_the_run_at_the_first_request_with_that_text() {
    for (each, end, words) in [
        // To the end of the batch, and one that never ends it.
        ("print('hello')", END, "no answer (it printed `hello`)"),
        ("print({'db_idx': n, 'score': score})", END, "no answer (it printed `{'db_idx': 0, 'score': 0.01"),
        ("print('hello', flush=True)", "pass", "no answer (it printed `hello`)"),
        ("pass", END, "no answer, "),
        ("print('usage: score', flush=True); sys.exit(2)", END, "exited with status 2 (it printed `usage: score`)"),
    ] {
        let chatty = Chatty::new("", each, end);
        let error = chatty.score.score(&batch(4)).expect_err("nobody answered").to_string();
        assert!(error.starts_with(&format!("score: {words}")), "{error}");
        assert!(error.ends_with(", for each of 4 items; fix the scorer, then resume with --resume"), "{error}");
    }
}

#[test]
fn unexpected_output_has_a_size_limit() {
    let endless = Chatty::new("while True: print('y' * 1000)", ANSWER, END);
    let error = endless.score.score(&batch(2)).expect_err("nobody answered").to_string();
    assert!(
        error.starts_with("score: printed more than 64 MiB of output that is not an answer (it printed `yyyy"),
        "{error}"
    );
    let kept = std::fs::metadata(endless.folder.path().join("stderr.log")).expect("captured").len();
    assert!(kept < 17 << 20, "{kept} bytes");
}

#[test]
fn unexpected_lines_before_an_arrow_stream_lose_no_answer() {
    let script = "import sys, pyarrow as pa\n\
        print('\\n\\nWelcome\\n', flush=True)\n\
        while sys.stdin.buffer.peek(1):\n\
        \x20   items = pa.ipc.open_stream(sys.stdin.buffer).read_all()\n\
        \x20   print('RDKit WARNING', flush=True)\n\
        \x20   answers = pa.table({'db_idx': items['db_idx'], 'score': items['qed']})\n\
        \x20   with pa.ipc.new_stream(sys.stdout.buffer, answers.schema) as stream:\n\
        \x20       print('a warning', flush=True)\n\
        \x20       stream.write_table(answers)\n\
        \x20   sys.stdout.flush()\n\
        \x20   print('that was a batch', flush=True)\n";
    let folder = folder();
    let python = python().to_string_lossy().into_owned();
    let score = CommandScore::new([python.as_str(), "-c", script]).format(CommandFormat::Arrow);
    let score = score.stderr(folder.path().join("stderr.log")).retries(0);
    for items in [6, 1, 4] {
        assert_answers(&score.score(&batch(items)).expect("answers"), &vec![Ok(()); items as usize]);
    }
    let errors = std::fs::read_to_string(folder.path().join("stderr.log")).expect("captured");
    assert!(errors.contains("Welcome") && errors.contains("RDKit WARNING"), "{errors}");
}

#[test]
fn a_run_warns_once_about_unexpected_output() {
    let folder = folder();
    molecules(&folder);
    let scorer = "import sys, json\n\
        print('Welcome', flush=True)\n\
        for line in sys.stdin:\n\
        \x20   if line.strip():\n\
        \x20       item = json.loads(line)\n\
        \x20       print('a warning')\n\
        \x20       print(json.dumps({'db_idx': item['db_idx'], 'score': item['qed']}))\n\
        \x20   else: print(flush=True)\n";
    std::fs::write(folder.path().join("score.py"), scorer).expect("written");
    let run = run_file("command = [\"python3\", \"score.py\"]\nbatch_size = 4\nworkers = 2");
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        stderr(&output).matches("output of the scorer that is not an answer, such as `Welcome`").count(),
        1,
        "{}",
        stderr(&output)
    );
    let kept = std::fs::read_to_string(folder.path().join("run/stderr/command.log")).expect("captured");
    assert!(kept.contains("a warning\n"), "{kept}");
}
