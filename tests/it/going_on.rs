//! What a run goes on with is in its run.json, and whatever reads the run reads that; its name stays.

use std::path::PathBuf;

use polars::prelude::*;
use uphill::SearchLog;

use crate::common::*;
use crate::faults::{BY_HAND, Scene, compiled, each, succeeded, was_killed};
use crate::scorers_http::Server;

/// A folder with a library of four hundred items, and run files.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = folder();
        write(&folder.path().join("items.parquet"), &items(&clustered(400, 4, 8, &mut rng(1))));
        uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Whoever gives the scores, they stand in a column, which the model is not to read.
    fn run_file(&self, name: &str, sections: &str) {
        let head = "seed = 3\n[database]\npath = 'items.lance'\nk = 5\n[queries]\nsample = 4\n";
        let rule = if sections.contains("[update]") { "" } else { "[update]\nfeatures = ['name']\n" };
        std::fs::write(self.path(name), format!("{head}{sections}\n{rule}")).expect("written");
    }

    fn ok(&self, arguments: &[&str]) -> String {
        uphill_ok(arguments, self.folder.path())
    }

    /// The exit code and what was said, of a command that fails.
    fn fails(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = uphill(arguments, self.folder.path());
        assert!(!output.status.success(), "{arguments:?}: {}", stderr(&output));
        (output.status.code(), stderr(&output))
    }

    fn manifest(&self, run: &str) -> serde_json::Value {
        let text = std::fs::read_to_string(self.path(run).join("run.json")).expect("run.json");
        serde_json::from_str(&text).expect("JSON")
    }

    fn change_manifest(&self, run: &str, change: impl FnOnce(&mut serde_json::Value)) {
        let mut manifest = self.manifest(run);
        change(&mut manifest);
        std::fs::write(self.path(run).join("run.json"), manifest.to_string()).expect("written");
    }

    fn page(&self, run: &str) -> String {
        self.ok(&["report", run, "-o", "report.html"]);
        std::fs::read_to_string(self.path("report.html")).expect("a page")
    }

    /// Asks for items; `None` when the run has ended.
    fn ask(&self, run_file: &str) -> Option<DataFrame> {
        let _ = std::fs::remove_file(self.path("next.parquet"));
        self.ok(&["ask", run_file, "--out", "lab", "-o", "next.parquet"]);
        self.path("next.parquet").exists().then(|| read(&self.path("next.parquet")))
    }

    /// Writes down the scores of items.
    fn measure(&self, asked: &DataFrame) {
        write(&self.path("scores.parquet"), &scores_of(asked));
    }

    fn tags(&self, library: &str) -> usize {
        std::fs::read_dir(self.path(library).join("_refs/tags")).map_or(0, Iterator::count)
    }
}

fn scores_of(asked: &DataFrame) -> DataFrame {
    df!("db_idx" => u64s(asked, "db_idx"), "score" => f64s(asked, "weight")).expect("scores")
}

/// All of a run's frames.
fn frames(run: &std::path::Path) -> Vec<DataFrame> {
    let log = SearchLog::open(run).expect("a run");
    let iterations = log.iterations().iter();
    iterations.flat_map(|at| [log.queries(*at).expect("queries"), log.results(*at).expect("results")]).collect()
}

fn assert_same(ours: &std::path::Path, theirs: &std::path::Path) {
    let (ours, theirs) = (frames(ours), frames(theirs));
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!(ours.equals_missing(theirs), "{ours} is not {theirs}");
    }
}

#[test]
fn a_run_with_a_raised_budget_accepts_each_manual_score_that_it_requested() {
    let place = Place::new();
    for (name, score) in [("hand.toml", "by_hand = true"), ("sql.toml", "sql = 'weight'")] {
        place.run_file(name, &format!("[score]\n{score}\n[stop]\nevaluations = 6"));
    }
    place.ok(&["search", "sql.toml", "--out", "sql"]);
    place.ok(&["search", "sql.toml", "--out", "sql", "--resume", "--set", "stop.evaluations=14"]);
    let mut asked = 0;
    for budget in [6, 14] {
        place.run_file("hand.toml", &format!("[score]\nby_hand = true\n[stop]\nevaluations = {budget}"));
        while let Some(items) = place.ask("hand.toml") {
            let manifest = place.manifest("lab");
            assert_eq!(manifest["config"]["stop"]["evaluations"], budget, "before it is told");
            assert!(manifest["ended"].is_null(), "items wait: {manifest}");
            asked += items.height();
            assert!(asked <= 14, "scores were thrown away");
            place.measure(&items);
            place.ok(&["tell", "lab", "scores.parquet"]);
        }
    }
    assert_eq!(asked, 14);
    assert_same(&place.path("lab"), &place.path("sql"));
}

#[test]
fn manual_scores_for_an_ended_run_are_an_error_and_are_accepted_with_a_larger_budget() {
    let place = Place::new();
    place.run_file("hand.toml", "[score]\nby_hand = true\n[stop]\nevaluations = 6");
    while let Some(items) = place.ask("hand.toml") {
        place.measure(&items);
        place.ok(&["tell", "lab", "scores.parquet"]);
    }
    // What was told before may be told again.
    place.ok(&["tell", "lab", "scores.parquet"]);
    // As an earlier version left it: its run.json has the first budget, whatever it went on with.
    place.ok(&["ask", "hand.toml", "--out", "lab", "-o", "next.parquet", "--set", "stop.evaluations=12"]);
    place.change_manifest("lab", |manifest| manifest["config"]["stop"]["evaluations"] = 6.into());
    let items = read(&place.path("next.parquet"));
    place.measure(&items);
    let (code, said) = place.fails(&["tell", "lab", "scores.parquet"]);
    let first = u64s(&items, "db_idx")[0];
    let rows = items.height();
    let expected = format!(
        "uphill: lab: the run has ended (the budget is spent) and took no scores: {rows} of the {rows} given items are not \
         pending, for example {first}; to continue the run, raise the stop condition that ended it (stop.evaluations, …) and \
         tell the scores again\n"
    );
    assert_eq!((code, said), (Some(1), expected));
    place.ok(&["tell", "lab", "scores.parquet", "--set", "stop.evaluations=12"]);
    assert_eq!(compiled(&place.path("lab")).height(), 6 + rows);
    assert_eq!(place.manifest("lab")["config"]["stop"]["evaluations"], 12);
    let (code, said) = place.fails(&["tell", "lab", "scores.parquet", "--set", "update.points=5"]);
    assert!(code == Some(2) && said.contains("update.points was 1000, is 5"), "{said}");
}

#[test]
fn a_score_given_for_an_item_that_was_given_as_failed_is_reported() {
    let place = Place::new();
    place.run_file("hand.toml", "[score]\nby_hand = true\n[stop]\nevaluations = 6");
    let items = place.ask("hand.toml").expect("items");
    let item = u64s(&items, "db_idx")[0];
    write(&place.path("failed.parquet"), &df!("db_idx" => [item], "score" => [None::<f64>]).expect("a frame"));
    write(&place.path("scored.parquet"), &df!("db_idx" => [item], "score" => [0.5]).expect("a frame"));
    place.ok(&["tell", "lab", "failed.parquet"]);
    for (file, is_named) in [("failed.parquet", false), ("scored.parquet", true)] {
        let said = stderr(&uphill(&["tell", "lab", file], place.folder.path()));
        assert_eq!(said.contains(&format!("item {item} has failed, not 0.5")), is_named, "{said}");
    }
}

#[test]
fn a_moved_dataset_is_found_by_all_commands_once_the_run_was_resumed_with_it() {
    let place = Place::new();
    place.run_file("hand.toml", "[score]\nby_hand = true\n[stop]\nevaluations = 12");
    let items = place.ask("hand.toml").expect("items");
    place.measure(&items);
    std::fs::rename(place.path("items.lance"), place.path("there.lance")).expect("moved");
    let moved =
        std::fs::read_to_string(place.path("hand.toml")).expect("a run file").replace("items.lance", "there.lance");
    std::fs::write(place.path("hand.toml"), moved).expect("written");
    assert!(place.ask("hand.toml").expect("the same").equals(&items));
    place.ok(&["tell", "lab", "scores.parquet"]);
    assert!(place.page("lab").contains("<svg class=\"map\""));
    let inspected: serde_json::Value = serde_json::from_str(&place.ok(&["inspect", "lab", "--json"])).expect("JSON");
    let there = place.path("there.lance").to_string_lossy().into_owned();
    assert_eq!(inspected["dataset"], there);
    let truth = ["evaluate", "lab", "--truth", "items.parquet", "--score-column", "weight", "--top", "3"];
    assert!(place.ok(&truth).lines().count() > 1);
    assert_eq!(place.tags("there.lance"), 1);
    place.ok(&["remove", "lab"]);
    assert_eq!(place.tags("there.lance"), 0);
}

#[test]
fn tell_report_and_remove_accept_the_new_path_of_a_dataset() {
    let place = Place::new();
    place.run_file("hand.toml", "[score]\nby_hand = true\n[stop]\nevaluations = 12");
    place.measure(&place.ask("hand.toml").expect("items"));
    copy_tree(&place.path("lab"), &place.path("other"));
    std::fs::rename(place.path("items.lance"), place.path("there.lance")).expect("moved");
    let (code, said) = place.fails(&["tell", "lab", "scores.parquet"]);
    assert!(code == Some(1) && said.contains("if it was moved, set its new path: --set database.path=…"), "{said}");
    // Relative to where one is.
    std::fs::create_dir(place.path("elsewhere")).expect("a folder");
    let path = "database.path=../there.lance";
    uphill_ok(&["tell", "../lab", "../scores.parquet", "--set", path], &place.path("elsewhere"));
    place.ok(&["tell", "lab", "scores.parquet"]);
    assert!(place.page("lab").contains("<svg class=\"map\""));

    let page = place.page("other");
    assert!(
        page.contains("does not exist; if it was moved, pass its new path with --library DATASET"),
        "no way to go on"
    );
    place.ok(&["report", "other", "-o", "report.html", "--library", "there.lance"]);
    assert!(std::fs::read_to_string(place.path("report.html")).expect("a page").contains("<svg class=\"map\""));
    let (code, said) = place.fails(&["report", "lab", "other", "--library", "there.lance"]);
    assert!(code == Some(2) && said.contains("only the report of a single run has a map"), "{said}");
    let said = stderr(&uphill(&["remove", "other"], place.folder.path()));
    assert!(said.contains(".tags.delete(\"uphill-run-"), "{said}");
    assert_eq!(place.tags("there.lance"), 1, "both runs have one tag, as one is a copy");
    place.change_manifest("lab", |manifest| {
        let before = place.path("items.lance").to_string_lossy().into_owned();
        manifest["config"]["database"]["path"] = before.into();
    });
    let output = uphill(&["remove", "lab", "--library", "there.lance"], place.folder.path());
    assert_eq!((stderr(&output).as_str(), place.tags("there.lance")), ("lab: removed\n", 0));
}

#[test]
fn remove_warns_if_another_dataset_is_at_the_path_of_the_run() {
    let place = Place::new();
    place.run_file("run.toml", "[score]\nsql = 'weight'\n[stop]\nevaluations = 12");
    place.ok(&["search", "run.toml", "--out", "run"]);
    std::fs::rename(place.path("items.lance"), place.path("there.lance")).expect("moved");
    place.ok(&["index", "items.parquet", "items.lance"]);
    let said = stderr(&uphill(&["remove", "run"], place.folder.path()));
    assert!(said.contains("items.lance: has no tag uphill-run-") && said.ends_with("run: removed\n"), "{said}");
}

#[test]
fn resuming_an_ended_run_changes_only_the_path_of_its_dataset() {
    let place = Place::new();
    place.run_file("run.toml", "[score]\nsql = 'weight'\n[stop]\nevaluations = 20");
    place.ok(&["search", "run.toml", "--out", "run"]);
    let then = place.manifest("run");
    // A smaller budget is no budget that it went on with.
    place.ok(&["search", "run.toml", "--out", "run", "--resume", "--set", "stop.evaluations=10"]);
    assert_eq!(place.manifest("run"), then);
    std::fs::rename(place.path("items.lance"), place.path("there.lance")).expect("moved");
    place.ok(&["search", "run.toml", "--out", "run", "--resume", "--set", "database.path=there.lance"]);
    let (mut now, there) = (place.manifest("run"), place.path("there.lance").to_string_lossy().into_owned());
    assert_eq!((&now["config"]["database"]["path"], &now["dataset"]["uri"]), (&there.clone().into(), &there.into()));
    now["config"]["database"]["path"] = then["config"]["database"]["path"].clone();
    now["dataset"]["uri"] = then["dataset"]["uri"].clone();
    assert_eq!(now, then);
    assert!(place.page("run").contains("<svg class=\"map\""));
    place.ok(&["remove", "run"]);
    assert_eq!(place.tags("there.lance"), 0);
}

#[test]
fn a_run_of_the_rust_api_finds_its_dataset_from_any_folder_and_after_a_move() {
    let place = Place::new();
    let run = place.path("run");
    let search = |library: &str, iterations: u32, goes_on: bool| {
        let database = open(&place.path(library)).k(4);
        let queries = uphill::queries_at(&database, &[3, 14]).expect("queries");
        let mut runner = uphill::Runner::new(database, uphill::SqlScore::new("weight"), uphill::RlUpdate::new(1.0));
        match goes_on {
            true => drop(runner.resume(&run, &queries, iterations).expect("resumed")),
            false => drop(runner.search_into(&run, &queries, iterations).expect("a search")),
        }
    };
    search("items.lance", 1, false);
    std::fs::rename(place.path("items.lance"), place.path("there.lance")).expect("moved");
    search("there.lance", 2, true);
    assert!(place.page("run").contains("<svg class=\"map\""));
    assert_eq!(place.manifest("run")["config"], serde_json::Value::Null);
    uphill::remove(&run).expect("removed");
    assert_eq!(place.tags("there.lance"), 0);
}

#[test]
fn the_settings_of_a_resumed_run_are_recorded_and_the_report_reproduces_it_from_the_first_budget() {
    let place = Place::new();
    place.run_file("run.toml", "[score]\nsql = 'weight'\n[stop]\nevaluations = 20");
    place.ok(&["search", "run.toml", "--out", "run"]);
    let then = place.manifest("run");
    let more = ["--resume", "--set", "stop.evaluations=60", "--set", "database.index_cache_mb=100"];
    place.ok(&[&["search", "run.toml", "--out", "run"][..], &more].concat());
    let now = place.manifest("run");
    assert_eq!(now["config"]["stop"]["evaluations"], 60);
    assert_eq!(now["config"]["database"]["index_cache_mb"], 100);
    assert_eq!((&now["run_id"], &now["planned"]), (&then["run_id"], &20.into()));
    assert!(now["run_id"].as_str().is_some_and(|id| id.len() == 32), "{now}");

    let page = place.page("run");
    assert!(page.contains("evaluations = 60") && !page.contains("evaluations = 20"));
    // The model planned with the first budget.
    let commands =
        ["uphill search run.toml --out again --set stop.evaluations=20", "uphill search run.toml --out again --resume"];
    assert!(page.contains(&commands.join("\n")));
    let file =
        page.split("<pre class=\"file\" tabindex=\"0\"><code>").nth(1).and_then(|rest| rest.split("</code>").next());
    let file = file.expect("a run file").replace("&quot;", "\"").replace("&#x2f;", "/").replace("&#x27;", "'");
    std::fs::write(place.path("run.toml"), file).expect("written");
    for command in commands {
        place.ok(&command.split(' ').skip(1).collect::<Vec<_>>());
    }
    assert_same(&place.path("again"), &place.path("run"));
}

#[test]
fn runs_of_one_configuration_are_grouped_whatever_the_paths_of_their_datasets() {
    let place = Place::new();
    place.run_file("run.toml", "[score]\nsql = 'weight'\n[update]\nrule = 'rl'\n[stop]\niterations = 2");
    place.ok(&["search", "run.toml", "--out", "first"]);
    std::fs::rename(place.path("items.lance"), place.path("there.lance")).expect("moved");
    place.ok(&["search", "run.toml", "--out", "second", "--set", "seed=4", "--set", "database.path=there.lance"]);
    place.ok(&["report", "first", "second", "-o", "report.html"]);
    let page = std::fs::read_to_string(place.path("report.html")).expect("a page");
    assert!(page.contains("first and 1 more seeds"));
}

#[test]
fn a_run_of_an_earlier_version_keeps_its_run_id_when_it_is_resumed_with_other_settings() {
    let place = Place::new();
    place.run_file("run.toml", "[score]\nsql = 'weight'\n[stop]\nevaluations = 20");
    place.ok(&["search", "run.toml", "--out", "run"]);
    // It had no name in it, and was named by what it has.
    place.change_manifest("run", |manifest| drop(manifest.as_object_mut().expect("an object").shift_remove("run_id")));
    let name = || SearchLog::open(place.path("run")).expect("a run").manifest().run_id.clone();
    let then = name();
    assert_eq!(then.len(), 32);
    for budget in [30, 40] {
        let budget = format!("stop.evaluations={budget}");
        place.ok(&["search", "run.toml", "--out", "run", "--resume", "--set", &budget]);
        assert_eq!((name(), place.manifest("run")["run_id"].as_str()), (then.clone(), Some(then.as_str())));
    }
}

#[test]
fn idempotency_keys_do_not_depend_on_the_settings_of_a_resumed_run() {
    let place = Place::new();
    let server = Server::start();
    let away = server.counter.file("counter.status");
    let sections = |stop: &str, patience: &str| {
        let score = format!("[score]\nurl = '{}'\nretries = 0\npatience = {patience}\n", server.url("weight"));
        place.run_file("run.toml", &format!("{score}[update]\nrule = 'rl'\n[stop]\n{stop}"));
    };
    let keys = || std::fs::read_to_string(server.counter.file("counter.keys")).expect("keys");
    sections("iterations = 1", "0");
    std::fs::write(&away, "503").expect("written");
    assert_eq!(place.fails(&["search", "run.toml", "--out", "run"]).0, Some(75));
    let first = keys();
    std::fs::remove_file(&away).expect("removed");
    sections("iterations = 3", "60");
    place.ok(&["search", "run.toml", "--out", "run", "--resume"]);
    assert_eq!(place.manifest("run")["config"]["score"]["patience"], 60.0);
    let again = keys().split_off(first.len());
    assert_eq!(again.lines().next(), first.lines().next(), "the same items in one request: {first}{again}");
    assert!(again.lines().count() > 1, "{again}");
}

#[test]
fn a_rejected_resume_is_not_recorded() {
    let place = Place::new();
    place.run_file("run.toml", "[score]\nsql = 'weight'\n[stop]\nevaluations = 20");
    place.ok(&["search", "run.toml", "--out", "run"]);
    let before = std::fs::read(place.path("run/run.json")).expect("run.json");
    let larger = "stop.evaluations=90";
    place.run_file("other.toml", "[score]\nsql = 'weight'\n[filter]\nsql = 'weight < 2'\n[stop]\nevaluations = 90");
    place.fails(&["search", "other.toml", "--out", "run", "--resume"]);
    place.fails(&["search", "run.toml", "--out", "run", "--resume", "--set", larger, "--set", "stop.failed_share=7"]);
    place.fails(&["search", "run.toml", "--out", "run", "--resume", "--set", larger, "--set", "seed=4"]);
    place.fails(&[
        "search",
        "run.toml",
        "--out",
        "run",
        "--resume",
        "--set",
        larger,
        "--set",
        "database.path=no.lance",
    ]);
    uphill_ok(&["search", "run.toml", "--out", "run", "--resume", "--dry-run", "--set", larger], place.folder.path());
    // Another library where the first was.
    std::fs::rename(place.path("items.lance"), place.path("aside.lance")).expect("moved");
    write(&place.path("items.parquet"), &items(&clustered(400, 4, 8, &mut rng(2))));
    place.ok(&["index", "items.parquet", "items.lance"]);
    place.fails(&["search", "run.toml", "--out", "run", "--resume", "--set", larger]);
    assert_eq!(std::fs::read(place.path("run/run.json")).expect("run.json"), before);
}

#[test]
fn the_file_of_starting_queries_may_move_or_vanish_but_not_change() {
    let place = Place::new();
    let queries = |name: &str, seed: u64| {
        let column = uphill::embedding_column(normal(3, 4, &mut rng(seed)).view()).expect("a column");
        write(&place.path(name), &DataFrame::new(3, vec![column]).expect("queries"));
    };
    queries("first.parquet", 1);
    queries("other.parquet", 2);
    std::fs::write(
        place.path("hand.toml"),
        "[database]\npath = 'items.lance'\n[queries]\npath = 'first.parquet'\n[score]\nby_hand = true\n\
         [update]\nrule = 'rl'\n[stop]\niterations = 3\n",
    )
    .expect("written");
    place.measure(&place.ask("hand.toml").expect("items"));
    let before = std::fs::read(place.path("lab/run.json")).expect("run.json");
    let other = ["ask", "hand.toml", "--out", "lab", "--set", "queries.path=other.parquet"];
    let (code, said) = place.fails(&other);
    assert!(code == Some(2) && said.contains("other.parquet has changed since the run was started"), "{said}");
    assert_eq!(std::fs::read(place.path("lab/run.json")).expect("run.json"), before);

    std::fs::rename(place.path("first.parquet"), place.path("moved.parquet")).expect("moved");
    place.ok(&["tell", "lab", "scores.parquet"]);
    place.ok(&["ask", "hand.toml", "--out", "lab", "-o", "next.parquet", "--set", "queries.path=moved.parquet"]);
    let path = place.manifest("lab")["config"]["queries"]["path"].clone();
    assert!(path.as_str().is_some_and(|path| path.ends_with("moved.parquet")), "{path}");
    // Changed in place.
    queries("moved.parquet", 2);
    let (code, said) = place.fails(&["tell", "lab", "scores.parquet"]);
    assert!(code == Some(2) && said.contains("moved.parquet has changed since the run was started"), "{said}");
}

#[test]
fn a_run_with_a_raised_budget_accepts_each_manual_score_however_often_it_is_killed() {
    let stop = |budget: u64| format!("[update]\nrule = 'rl'\nlr = 1.0\n[stop]\nevaluations = {budget}\n");
    let scene = Scene::new(BY_HAND, 9);
    let run_file = std::fs::read_to_string(scene.path("run.toml")).expect("a run file");
    let head = run_file.split("[update]").next().expect("a head").to_string();
    std::fs::write(scene.path("small.toml"), format!("{head}{}", stop(11))).expect("written");
    std::fs::write(scene.path("large.toml"), format!("{head}{}", stop(26))).expect("written");
    let free = head.replace("by_hand = true", "sql = 'weight'");
    std::fs::write(scene.path("free.toml"), format!("{free}{}", stop(26))).expect("written");
    succeeded(&scene.command("free", "", &["search", "free.toml", "--out", "free"]).output().expect("the binary runs"));

    // Each step is killed at one of its operations, and taken again.
    each(12, |turn| {
        let number = 3 * turn - 2;
        let name = format!("hand-{number}");
        let (next, scores) = (format!("{name}-next.parquet"), format!("{name}-scores.parquet"));
        let step = |arguments: &[&str]| {
            let killed = scene.command(&name, &format!("{number}:kill"), arguments).output().expect("the binary runs");
            if !killed.status.success() {
                was_killed(&killed);
                succeeded(&scene.command(&name, "", arguments).output().expect("the binary runs"));
            }
        };
        let mut told = 0;
        for run_file in ["small.toml", "large.toml"] {
            loop {
                let _ = std::fs::remove_file(scene.path(&next));
                step(&["ask", run_file, "--out", &name, "-o", &next]);
                if !scene.path(&next).exists() {
                    break;
                }
                let items = read(&scene.path(&next));
                told += items.height();
                assert!(told <= 26, "{name}: scores were thrown away");
                write(&scene.path(&scores), &scores_of(&items));
                step(&["tell", &name, &scores]);
            }
        }
        assert_eq!(told, 26, "{name}");
        assert!(compiled(&scene.path(&name)).equals_missing(&compiled(&scene.path("free"))), "{name}");
    });
}
