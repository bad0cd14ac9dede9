//! Scores of few values: yes or no, and grades.

use std::collections::HashMap;

use ndarray::{Array1, Array2};
use polars::prelude::*;
use rand::RngExt;
use uphill::{Features, LanceDatabase, Runner, SearchLog, StopConditions, SurrogateUpdate};

use crate::common::*;

/// Items near the first of each fifth cluster are relevant. Some items have no score.
struct Library {
    folder: TempDir,
    database: LanceDatabase,
    embeddings: Array2<f32>,
}

const ITEMS: usize = 600;

impl Library {
    fn new() -> Self {
        let folder = folder();
        let embeddings = clustered(ITEMS, 8, 30, &mut rng(7));
        let database = exact_library(&folder, &embeddings);
        Library { folder, database, embeddings }
    }

    fn score(item: u64) -> Option<f64> {
        let is_relevant = item % 30 < 2 && !item.is_multiple_of(7);
        (item % 23 != 5).then_some(f64::from(u8::from(is_relevant)))
    }

    fn runner(&self, rule: SurrogateUpdate, score: fn(u64) -> Option<f64>, evaluations: u64) -> Runner {
        let score = move |items: &DataFrame| -> uphill::Result<Vec<Option<f64>>> {
            Ok(u64s(items, "db_idx").into_iter().map(score).collect())
        };
        let rule = rule.features(Features::Columns(Vec::new()));
        Runner::new(self.database.clone(), score, rule).seed(3).stop(StopConditions::new().evaluations(evaluations))
    }

    fn queries(&self) -> DataFrame {
        uphill::queries_at(&self.database, &[5]).expect("queries")
    }

    fn log(&self, rule: SurrogateUpdate, evaluations: u64) -> SearchLog {
        self.runner(rule, Library::score, evaluations).search(&self.queries(), 1000).expect("a search")
    }
}

/// The results of a run: a frame for each iteration.
fn batches(log: &SearchLog) -> Vec<DataFrame> {
    log.iterations().iter().map(|iteration| log.results(*iteration).expect("results")).collect()
}

fn numbers(frame: &DataFrame, name: &str) -> Vec<Option<f64>> {
    frame.column(name).expect(name).f64().expect("f64").iter().collect()
}

fn chosen_by(frame: &DataFrame) -> Vec<String> {
    let column = frame.column("chosen_by").expect("chosen_by").str().expect("text");
    column.iter().map(|name| name.unwrap_or("none").to_string()).collect()
}

/// Solves `a x = b` by elimination.
fn solve(mut a: Array2<f64>, mut b: Array1<f64>) -> Array1<f64> {
    let n = b.len();
    for pivot in 0..n {
        for row in pivot + 1..n {
            let factor = a[[row, pivot]] / a[[pivot, pivot]];
            for column in pivot..n {
                a[[row, column]] -= factor * a[[pivot, column]];
            }
            b[row] -= factor * b[pivot];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|column| a[[row, column]] * b[column]).sum();
        b[row] = (b[row] - known) / a[[row, row]];
    }
    b
}

/// The model of yes and no, written a second time: what it needs of the library are the squared distances.
struct Oracle {
    squared: Array2<f64>,
    squared_length: f64,
    next_fit: usize,
}

impl Oracle {
    fn new(embeddings: &Array2<f32>) -> Self {
        let x = embeddings.mapv(f64::from);
        let squares = |i: usize, j: usize| (&x.row(i) - &x.row(j)).mapv(|d| d * d).sum();
        Oracle {
            squared: Array2::from_shape_fn((ITEMS, ITEMS), |(i, j)| squares(i, j)),
            squared_length: 1.0,
            next_fit: 0,
        }
    }

    /// The length is a half of the median distance. It is fitted again when there are half again as many observations.
    fn observe(&mut self, items: &[usize]) {
        if items.len() < self.next_fit {
            return;
        }
        let mut pairs: Vec<f64> = (0..items.len())
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| self.squared[[items[i], items[j]]])
            .collect();
        pairs.sort_by(f64::total_cmp);
        self.squared_length = pairs[pairs.len() / 2] / 4.0;
        self.next_fit = items.len() + items.len().div_ceil(2);
    }

    /// The posterior mean of each item of the library.
    fn means(&self, items: &[usize], scores: &[f64]) -> Array1<f64> {
        let kernel = |i: usize, j: usize| {
            let e = (-0.5 * self.squared[[i, j]] / self.squared_length).exp();
            (e + e.powi(4)) / 2.0
        };
        let n = items.len();
        let share = scores.iter().sum::<f64>() / n as f64;
        let mut covariance = Array2::from_shape_fn((n, n), |(i, j)| kernel(items[i], items[j]));
        for (row, score) in scores.iter().enumerate() {
            covariance[[row, row]] += 0.3 * 2.0 * if *score == 1.0 { share } else { 1.0 - share };
        }
        let weights = solve(covariance, Array1::from(scores.to_vec()));
        (0..ITEMS).map(|item| items.iter().zip(&weights).map(|(i, weight)| kernel(*i, item) * weight).sum()).collect()
    }
}

/// Compares each batch with the oracle. With `behind`, the batches before it were in flight. Returns the number of batches that a
/// model chose.
fn compare(library: &Library, log: &SearchLog, behind: usize) -> usize {
    let mut oracle = Oracle::new(&library.embeddings);
    let (batches, mut compared, mut start) = (batches(log), 0, 0);
    let (mut items, mut scores): (Vec<usize>, Vec<f64>) = Default::default();
    let mut observed = 0;
    for (iteration, batch) in batches.iter().enumerate() {
        let chosen: Vec<usize> = u64s(batch, "db_idx").into_iter().map(|item| item as usize).collect();
        if chosen_by(batch).iter().any(|name| name != "model") {
            assert_eq!(compared, 0, "iteration {iteration}: {:?}", chosen_by(batch));
            start = iteration + 1;
            continue;
        }
        while observed < start.max((iteration + 1).saturating_sub(behind + 1)) {
            let earlier = &batches[observed];
            items.extend(u64s(earlier, "db_idx").into_iter().map(|item| item as usize));
            scores.extend(numbers(earlier, "score").into_iter().map(|score| score.unwrap_or(0.0)));
            observed += 1;
            if observed >= start {
                oracle.observe(&items);
            }
        }
        let means = oracle.means(&items, &scores);
        let is_taken = |item: usize| {
            batches[..iteration].iter().any(|batch| u64s(batch, "db_idx").contains(&(item as u64)))
                || chosen.contains(&item)
        };
        let best_other = (0..ITEMS).filter(|item| !is_taken(*item)).map(|item| means[item]).fold(f64::MIN, f64::max);
        let predicted = numbers(batch, "predicted");
        for (item, predicted) in chosen.iter().zip(predicted) {
            let mean = means[*item];
            assert!(mean > best_other - 1e-4, "iteration {iteration}: item {item} has {mean}, another {best_other}");
            assert!(
                (predicted.expect("a prediction") - mean).abs() < 1e-4,
                "iteration {iteration}: {predicted:?} {mean}"
            );
        }
        compared += 1;
    }
    compared
}

#[test]
fn a_batch_has_the_highest_posterior_means_of_a_model_written_a_second_time() {
    let library = Library::new();
    let log = library.log(SurrogateUpdate::new(), 120);
    assert!(compare(&library, &log, 0) > 10);
    // A deviation is that of a random choice between yes and no.
    for batch in batches(&log) {
        for (mean, deviation) in numbers(&batch, "predicted").into_iter().zip(numbers(&batch, "deviation")) {
            let share = mean.map(|mean| mean.clamp(0.01, 0.99));
            let expected = share.map(|share| (share * (1.0 - share)).sqrt());
            assert!(expected.unwrap_or(0.0) - deviation.unwrap_or(0.0) < 1e-9, "{mean:?} {deviation:?}");
        }
    }
    let scores: Vec<f64> = batches(&log).iter().flat_map(|batch| numbers(batch, "score")).flatten().collect();
    // Chance would find 7 of the 33.
    let found: f64 = scores.iter().sum();
    assert!(found >= 15.0, "{found} found");
}

#[test]
fn asynchronous_batches_are_chosen_by_the_scores_that_arrived() {
    let library = Library::new();
    let log = library.log(SurrogateUpdate::new().behind(1), 90);
    assert!(compare(&library, &log, 1) > 5);
}

#[test]
fn a_run_that_was_stopped_at_any_iteration_continues_as_if_it_had_not_been() {
    let library = Library::new();
    let whole = library.log(SurrogateUpdate::new(), 60);
    for stopped in [1, 2, 4] {
        let path = library.folder.path().join(format!("run-{stopped}"));
        let mut runner = library.runner(SurrogateUpdate::new(), Library::score, 60);
        runner.search_into(&path, &library.queries(), stopped).expect("a search");
        let log = runner.resume(&path, &library.queries(), 1000).expect("resumed");
        let (a, b) = (batches(&whole), batches(&log));
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(&b) {
            assert!(a.equals_missing(b), "stopped after {stopped}: {a} {b}");
        }
    }
}

#[test]
fn while_all_scores_are_equal_items_are_chosen_at_random() {
    let library = Library::new();
    let score = |item: u64| Some(f64::from(u8::from(item % 50 == 49)));
    let log = library.runner(SurrogateUpdate::new(), score, 200).search(&library.queries(), 1000).expect("a search");
    let mut seen_hit = false;
    for batch in batches(&log) {
        let by_model = chosen_by(&batch).iter().all(|name| name == "model");
        assert_eq!(by_model, seen_hit, "{batch}");
        assert_eq!(numbers(&batch, "predicted").iter().all(Option::is_some), seen_hit, "{batch}");
        seen_hit |= numbers(&batch, "score").contains(&Some(1.0));
    }
    assert!(seen_hit);
    let none = library.runner(SurrogateUpdate::new(), |_| Some(0.0), 60);
    let log = { none }.search(&library.queries(), 1000).expect("a search");
    assert!(batches(&log).iter().flat_map(chosen_by).all(|name| name != "model"));
}

#[test]
fn grades_are_predicted_in_their_own_units() {
    let library = Library::new();
    let score = |item: u64| Some([3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0][(item % 30 / 3) as usize]);
    let log = library.runner(SurrogateUpdate::new(), score, 150).search(&library.queries(), 1000).expect("a search");
    let batches = batches(&log);
    let (early, late) = (&batches[0], &batches[5..]);
    assert!(numbers(early, "predicted").iter().all(Option::is_none));
    let predicted: Vec<f64> = late.iter().flat_map(|batch| numbers(batch, "predicted")).flatten().collect();
    assert!(predicted.len() > 50 && predicted.iter().all(|score| (0.5..=3.5).contains(score)), "{predicted:?}");
    let best: usize =
        batches.iter().flat_map(|batch| numbers(batch, "score")).filter(|score| *score == Some(3.0)).count();
    assert!(best >= 35, "{best} of 60 found");
}

const RUN: &str = "seed = 3\n[database]\npath = \"items.lance\"\n[stop]\nevaluations = 40\n[update]\nfeatures = []\n";
const SQL: &str = "[score]\nsql = \"CASE WHEN weight > 0.9 THEN 1 ELSE 0 END\"\n";

/// The items of a run in the order of evaluation.
fn results(folder: &TempDir, run: &str) -> DataFrame {
    uphill_ok(&["results", run, "-o", "results.parquet"], folder.path());
    let results = read(&folder.path().join("results.parquet"));
    results.sort(["iteration", "evaluation", "db_idx"], SortMultipleOptions::default()).expect("sorted")
}

fn library_folder() -> TempDir {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(400, 4, 8, &mut rng(1))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    folder
}

#[test]
fn one_known_item_is_an_example_that_costs_nothing_and_shortens_the_start() {
    let folder = library_folder();
    let weights: HashMap<String, f64> = {
        let items = read(&folder.path().join("items.parquet"));
        let names: Vec<String> =
            items.column("name").expect("name").str().expect("text").iter().flatten().map(str::to_string).collect();
        names.into_iter().zip(f64s(&items, "weight")).collect()
    };
    let known = weights.iter().find(|(_, weight)| **weight > 0.9).expect("a good item").0.clone();
    write(
        &folder.path().join("examples.parquet"),
        &df!("name" => [known.as_str()], "score" => [1.0]).expect("a frame"),
    );
    std::fs::write(folder.path().join("run.toml"), format!("{RUN}examples = \"examples.parquet\"\n{SQL}"))
        .expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let found = results(&folder, "run");
    let evaluated = found.height() - found.column("evaluation").expect("evaluation").null_count();
    assert_eq!((found.height(), evaluated), (41, 40));
    // The first batch has the example and three random items. Then a model chooses, if there are two different scores.
    let first = found.clone().lazy().filter(col("iteration").eq(0)).collect().expect("filtered");
    assert_eq!(first.height(), 4);
    let example = first.lazy().filter(col("evaluation").is_null()).collect().expect("filtered");
    assert_eq!((f64s(&example, "score"), example.height()), (vec![1.0], 1));
    let second = found.lazy().filter(col("iteration").eq(1)).collect().expect("filtered");
    assert!(chosen_by(&second).iter().all(|name| name == "model"), "{second}");

    // Stopped and resumed, it is the same run.
    uphill_ok(&["search", "run.toml", "--out", "again", "--set", "stop.iterations=2"], folder.path());
    uphill_ok(&["search", "run.toml", "--out", "again", "--resume"], folder.path());
    assert!(results(&folder, "again").equals_missing(&results(&folder, "run")));
}

#[test]
fn examples_without_a_column_to_find_the_items_by_are_an_error() {
    let folder = library_folder();
    let search = |examples: &DataFrame| {
        write(&folder.path().join("examples.parquet"), examples);
        std::fs::write(folder.path().join("run.toml"), format!("{RUN}examples = \"examples.parquet\"\n{SQL}"))
            .expect("written");
        let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    let message = search(&df!("title" => ["item 3"], "score" => [1.0]).expect("a frame"));
    assert!(
        message.contains("update.examples: expected a column `db_idx`") && message.contains("found none"),
        "{message}"
    );
    let message = search(&df!("name" => ["item 3"], "weight" => [0.5], "score" => [1.0]).expect("a frame"));
    assert!(message.contains("found name, weight"), "{message}");
    let message = search(&df!("name" => ["item 3"]).expect("a frame"));
    assert!(message.contains("no column `score`"), "{message}");
    std::fs::remove_file(folder.path().join("examples.parquet")).expect("removed");
    let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
    assert!(stderr(&output).contains("no such file (update.examples)"), "{}", stderr(&output));
}

#[test]
fn yes_and_no_by_hand_are_chosen_as_if_the_run_had_scored_itself() {
    let folder = library_folder();
    std::fs::write(folder.path().join("sql.toml"), format!("{RUN}{SQL}")).expect("written");
    std::fs::write(folder.path().join("hand.toml"), format!("{RUN}[score]\nby_hand = true\n")).expect("written");
    uphill_ok(&["search", "sql.toml", "--out", "sql"], folder.path());
    for _ in 0..60 {
        uphill_ok(&["ask", "hand.toml", "--out", "hand", "-o", "asked.parquet"], folder.path());
        let manifest = std::fs::read_to_string(folder.path().join("hand/run.json")).expect("run.json");
        if serde_json::from_str::<serde_json::Value>(&manifest).expect("JSON")["ended"].is_object() {
            break;
        }
        let asked = read(&folder.path().join("asked.parquet"));
        let scores: Vec<f64> = f64s(&asked, "weight").iter().map(|weight| f64::from(u8::from(*weight > 0.9))).collect();
        let answers = df!("db_idx" => u64s(&asked, "db_idx"), "score" => scores).expect("a frame").reverse();
        write(&folder.path().join("answers.parquet"), &answers);
        uphill_ok(&["tell", "hand", "answers.parquet"], folder.path());
    }
    let (a, b) = (results(&folder, "sql"), results(&folder, "hand"));
    for name in ["db_idx", "score", "predicted", "iteration"] {
        assert!(a.column(name).expect(name).equals_missing(b.column(name).expect(name)), "{name}: {a} {b}");
    }
}

#[test]
fn long_texts_are_read_as_documents_if_scores_are_yes_or_no() {
    let folder = folder();
    let rng = &mut rng(11);
    // Embeddings say nothing. Relevant documents share some of their words.
    let mut frame = items(&normal(500, 4, rng));
    let is_relevant: Vec<bool> = (0..500).map(|_| rng.random_bool(0.08)).collect();
    let text = |relevant: bool, rng: &mut rand_chacha::ChaCha8Rng| {
        let word = |rng: &mut rand_chacha::ChaCha8Rng| match relevant && rng.random_bool(0.15) {
            true => format!("opioid{}", rng.random_range(0..4)),
            false => format!("w{}", rng.random_range(0..3000) * 7919),
        };
        (0..80).map(|_| word(rng)).collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> = is_relevant.iter().map(|relevant| text(*relevant, rng)).collect();
    let labels: Vec<f64> = is_relevant.iter().map(|relevant| f64::from(u8::from(*relevant))).collect();
    frame.with_column(Column::new("abstract".into(), texts)).expect("a column");
    frame.with_column(Column::new("label".into(), &labels)).expect("a column");
    write(&folder.path().join("items.parquet"), &frame);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let run = RUN
        .replace("features = []", "features = [\"abstract\", \"name\"]")
        .replace("evaluations = 40", "evaluations = 150");
    std::fs::write(folder.path().join("run.toml"), format!("{run}[score]\nsql = \"label\"\n")).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let found: f64 = f64s(&results(&folder, "run"), "score").iter().sum();
    let relevant: f64 = labels.iter().sum();
    assert!(found > 0.8 * relevant, "{found} of {relevant} found");
    // All models of the run have the same columns.
    let explained = uphill_ok(&["explain", "run", "3", "7", "--format", "csv"], folder.path());
    let header = explained.lines().next().expect("a header");
    assert!(header.ends_with(",distance_share_abstract,distance_share_name"), "{header}");
    // Its name is that of the column, once.
    let inspected = uphill_ok(&["inspect", "run"], folder.path());
    assert_eq!(inspected.matches("abstract").count(), 1, "{inspected}");
}
