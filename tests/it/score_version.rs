//! What a scorer is made of is part of the version of its scores: the files that its command names, its prompts and models.

use serde_json::Value;

use crate::common::*;

const SCORE: &str = "command = [\"python3\", \"score.py\", \"prompt.txt\", \"--cache=cache.txt\"]";

/// A library, and a scorer with a prompt and a cache.
fn library() -> TempDir {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(300, 4, 6, &mut rng(1))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let script = "import json, sys\nfor line in sys.stdin:\n    if line.strip():\n        item = json.loads(line)\n        print(json.dumps({'db_idx': item['db_idx'], 'score': item['weight']}))\n    else:\n        print(flush=True)\n";
    for (name, text) in [("score.py", script), ("prompt.txt", "Be fair."), ("cache.txt", "")] {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

fn run_file(folder: &TempDir, score: &str) {
    let head = "seed = 5\n[database]\npath = \"items.lance\"\nk = 8\n[queries]\nsample = 5\n[stop]\niterations = 3\n";
    let text = format!("{head}[update]\nrule = \"top-k\"\n[score]\n{score}\n");
    std::fs::write(folder.path().join("run.toml"), text).expect("written");
}

fn append(folder: &TempDir, name: &str, text: &str) {
    let path = folder.path().join(name);
    let before = std::fs::read_to_string(&path).expect("a file");
    std::fs::write(path, before + text).expect("written");
}

fn search(folder: &TempDir, out: &str, more: &[&str]) -> (i32, String) {
    let output = uphill(&[&["search", "run.toml", "--out", out], more].concat(), folder.path());
    (output.status.code().expect("a status"), stderr(&output))
}

fn manifest(folder: &TempDir, out: &str) -> Value {
    let text = std::fs::read_to_string(folder.path().join(out).join("run.json")).expect("run.json");
    serde_json::from_str(&text).expect("JSON")
}

/// As run.json has it, which is blake3.
fn hash(folder: &TempDir, name: &str) -> String {
    blake3::hash(&std::fs::read(folder.path().join(name)).expect("a file")).to_hex()[..16].to_string()
}

#[test]
fn a_run_records_the_contents_of_the_files_that_its_scorer_names() {
    let folder = library();
    std::fs::create_dir(folder.path().join("model")).expect("a folder");
    std::fs::write(folder.path().join("model/weights.bin"), [7; 100]).expect("written");
    run_file(&folder, &format!("{SCORE}\nfiles = [\"model\", \"prompt.txt\"]"));
    let plan = uphill_ok(&["search", "run.toml", "--out", "run", "--dry-run"], folder.path());
    assert!(plan.contains(&format!("score.py {}", hash(&folder, "score.py"))), "{plan}");
    assert_eq!(search(&folder, "run", &[]).0, 0);
    let recorded = manifest(&folder, "run")["scorer_files"].clone();
    let names: Vec<&String> = recorded.as_object().expect("hashes").keys().collect();
    assert_eq!(names, ["cache.txt", "model", "prompt.txt", "score.py"]);
    for name in ["cache.txt", "prompt.txt", "score.py"] {
        assert_eq!(recorded[name], hash(&folder, name));
    }
    let shown = uphill_ok(&["inspect", "run"], folder.path());
    assert!(shown.contains(&format!("prompt.txt {}", hash(&folder, "prompt.txt"))), "{shown}");

    // A file of a folder is part of it, and so is its name. An interpreter is not, and a version says it all.
    std::fs::rename(folder.path().join("model/weights.bin"), folder.path().join("model/other.bin")).expect("renamed");
    assert_eq!(search(&folder, "other", &[]).0, 0);
    assert_ne!(manifest(&folder, "other")["scorer_files"]["model"], recorded["model"]);
    let python = String::from_utf8(std::process::Command::new("which").arg("python3").output().expect("found").stdout);
    run_file(&folder, &format!("command = [{:?}, \"score.py\"]", python.expect("text").trim()));
    assert_eq!(search(&folder, "third", &[]).0, 0);
    assert_eq!(manifest(&folder, "third")["scorer_files"].as_object().expect("hashes").len(), 1);
    run_file(&folder, &format!("{SCORE}\nversion = \"judge-1\""));
    assert_eq!(search(&folder, "fourth", &[]).0, 0);
    assert_eq!(manifest(&folder, "fourth")["scorer_files"], Value::Null);
}

#[test]
fn a_file_that_does_not_exist_is_refused_before_anything_is_written() {
    let folder = library();
    run_file(&folder, &format!("{SCORE}\nfiles = [\"promt.txt\"]"));
    let (code, said) = search(&folder, "run", &[]);
    assert_eq!(code, 2, "{said}");
    assert!(said.starts_with("uphill: score.files: `promt.txt` does not exist in "), "{said}");
    assert!(!folder.path().join("run").exists());
    run_file(&folder, "sql = \"weight\"\nfiles = [\"prompt.txt\"]");
    let (code, said) = search(&folder, "run", &[]);
    let words = "uphill: score.files: works with `command`, `url` or `call`, not with `sql`; remove it\n";
    assert_eq!((code, said.as_str()), (2, words));
}

#[test]
fn scores_of_a_scorer_that_has_changed_are_not_reused_unless_told_so() {
    let folder = library();
    run_file(&folder, SCORE);
    assert_eq!(search(&folder, "first", &[]).0, 0);
    let reuse = |score: &str| run_file(&folder, &format!("{score}\nreuse = [\"first\"]"));
    reuse(SCORE);
    let (code, said) = search(&folder, "second", &[]);
    assert_eq!(code, 0, "{said}");
    let compared = "score.version is not set, so the settings of the scorer and the contents of `cache.txt`, `prompt.txt`, \
                    `score.py` were compared\n";
    assert!(said.contains(compared), "{said}");
    assert_eq!(manifest(&folder, "second")["ended"]["evaluations"], 0);

    let before = hash(&folder, "prompt.txt");
    append(&folder, "prompt.txt", " Be strict.");
    let (code, said) = search(&folder, "third", &[]);
    let now = hash(&folder, "prompt.txt");
    let change =
        format!("the content of `prompt.txt` was {before}, is {now} (hashes, because score.version is not set)");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("first: its scores are of another version of this score: {change}")), "{said}");
    assert!(!folder.path().join("third").exists());
    assert_eq!(search(&folder, "third", &["--trust-scores"]).0, 0);
    assert_eq!(manifest(&folder, "third")["ended"]["evaluations"], 0);

    // A version overrules the contents.
    run_file(&folder, &format!("{SCORE}\nversion = \"judge-1\""));
    assert_eq!(search(&folder, "named", &[]).0, 0);
    append(&folder, "prompt.txt", " Or not.");
    run_file(&folder, &format!("{SCORE}\nversion = \"judge-1\"\nreuse = [\"named\"]"));
    let (code, said) = search(&folder, "fourth", &[]);
    assert!(code == 0 && !said.contains("score.reuse"), "{said}");
}

#[test]
fn a_run_whose_scorer_has_changed_is_not_resumed_unless_told_so() {
    let folder = library();
    run_file(&folder, &format!("{SCORE}\nfiles = [\"prompt.txt\"]"));
    assert_eq!(search(&folder, "run", &["--set", "stop.iterations=1"]).0, 0);
    for name in ["score.py", "prompt.txt"] {
        let (before, kept) = (hash(&folder, name), std::fs::read(folder.path().join(name)).expect("a file"));
        append(&folder, name, "\n# changed");
        let now = hash(&folder, name);
        let (code, said) = search(&folder, "run", &["--resume"]);
        let words = format!(
            "uphill: score: `{name}` has changed since the run scored items: its content was {before}, is {now} (hashes), so that \
             the scores would be of two versions; restore it, start a new run, or set score.trust_scores = true to resume anyway\n"
        );
        assert_eq!((code, said), (2, words));
        std::fs::write(folder.path().join(name), kept).expect("written");
    }
    assert_eq!(search(&folder, "run", &["--resume", "--set", "stop.iterations=2"]).0, 0);

    let before = hash(&folder, "prompt.txt");
    append(&folder, "prompt.txt", " Be strict.");
    let (code, said) = search(&folder, "run", &["--resume", "--set", "score.trust_scores=true"]);
    assert!(code == 0 && said.contains("`prompt.txt` has changed"), "{said}");
    // It has scores of both, and is not taken for a run of either.
    let both = format!("{before} {}", hash(&folder, "prompt.txt"));
    assert_eq!(manifest(&folder, "run")["scorer_files"]["prompt.txt"], both);
    assert_eq!(search(&folder, "run", &["--resume", "--set", "stop.iterations=4"]).0, 0, "it goes on as it is");
    run_file(&folder, &format!("{SCORE}\nfiles = [\"prompt.txt\"]\nreuse = [\"run\"]"));
    let (code, said) = search(&folder, "other", &[]);
    assert!(code == 1 && said.contains(&both.replace(' ', ", then ")), "{said}");
}

#[test]
fn a_file_that_a_scorer_may_write_itself_is_a_warning_and_a_scorer_that_has_answered_nothing_may_change() {
    let folder = library();
    run_file(&folder, SCORE);
    assert_eq!(search(&folder, "run", &["--set", "stop.iterations=1"]).0, 0);
    append(&folder, "cache.txt", "17: 0.5");
    let (code, said) = search(&folder, "run", &["--resume"]);
    assert!(code == 0 && said.contains("score: `cache.txt` has changed"), "{said}");

    let script = std::fs::read_to_string(folder.path().join("score.py")).expect("a script");
    std::fs::write(folder.path().join("score.py"), "raise SystemExit('no licence')").expect("written");
    let (code, said) = search(&folder, "broken", &[]);
    assert!(code == 1 && said.contains("fix the scorer, then resume with --resume"), "{said}");
    std::fs::write(folder.path().join("score.py"), script).expect("written");
    let (code, said) = search(&folder, "broken", &["--resume"]);
    assert!(code == 0 && !said.contains("changed"), "{said}");
    assert_eq!(manifest(&folder, "broken")["scorer_files"]["score.py"], hash(&folder, "score.py"));
}

#[test]
fn a_scorer_that_was_fixed_for_failed_items_retries_them_with_a_warning() {
    let folder = library();
    let script = std::fs::read_to_string(folder.path().join("score.py")).expect("a script");
    let broken = script.replace("item['weight']", "item['weight'] if item['db_idx'] % 3 else None");
    std::fs::write(folder.path().join("score.py"), broken).expect("written");
    run_file(&folder, SCORE);
    assert_eq!(search(&folder, "run", &["--set", "stop.iterations=1"]).0, 0);
    assert_ne!(manifest(&folder, "run")["ended"]["failed"], 0);
    std::fs::write(folder.path().join("score.py"), script).expect("written");
    let (code, said) = search(&folder, "run", &["--resume", "--dry-run"]);
    assert!(code == 2 && said.contains("`score.py` has changed"), "a dry run says it too: {said}");
    let (code, said) = search(&folder, "run", &["--resume", "--retry-failed"]);
    assert!(code == 0 && said.contains("`score.py` has changed"), "{said}");
    assert_eq!(manifest(&folder, "run")["ended"]["failed"], 0);
    let contents = manifest(&folder, "run")["scorer_files"]["score.py"].as_str().expect("hashes").to_string();
    assert_eq!(contents.split(' ').count(), 2, "{contents}");
}

#[test]
fn a_run_of_an_earlier_version_has_no_hashes_and_goes_on_as_before() {
    let folder = library();
    run_file(&folder, SCORE);
    assert_eq!(search(&folder, "run", &["--set", "stop.iterations=1"]).0, 0);
    let mut old = manifest(&folder, "run");
    old.as_object_mut().expect("an object").remove("scorer_files");
    std::fs::write(folder.path().join("run/run.json"), old.to_string()).expect("written");
    append(&folder, "score.py", "\n# changed");
    let (code, said) = search(&folder, "run", &["--resume"]);
    assert!(code == 0 && !said.contains("changed"), "{said}");
    assert_eq!(manifest(&folder, "run")["scorer_files"], Value::Null);
    run_file(&folder, &format!("{SCORE}\nreuse = [\"run\"]"));
    let (code, said) = search(&folder, "other", &[]);
    let words = "so the settings of the scorer were compared, but not the contents of `cache.txt`, `prompt.txt`, `score.py`, which \
                 it did not record";
    assert!(code == 0 && said.contains(words), "{said}");
}

#[test]
fn the_files_of_a_part_of_a_sum_count_too() {
    let folder = library();
    let score = format!("[[score.sum]]\nname = \"judge\"\n{SCORE}\nfiles = [\"prompt.txt\"]");
    run_file(&folder, &score);
    assert_eq!(search(&folder, "run", &["--set", "stop.iterations=1"]).0, 0);
    append(&folder, "prompt.txt", " Be strict.");
    let (code, said) = search(&folder, "run", &["--resume"]);
    assert!(code == 2 && said.contains("`prompt.txt` has changed"), "{said}");
    run_file(
        &folder,
        &score.replace("prompt.txt\"]", "none.txt\"]").replace(SCORE, "command = [\"python3\", \"score.py\"]"),
    );
    let (code, said) = search(&folder, "other", &[]);
    assert!(code == 2 && said.contains("score.sum[judge].files: `none.txt` does not exist"), "{said}");
}
