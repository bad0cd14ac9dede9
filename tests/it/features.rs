//! What the surrogate reads of the items beside their embeddings.

use std::collections::HashSet;

use ndarray::{Array2, Axis};
use polars::prelude::*;
use rand::RngExt;
use uphill::{
    BlockVisitor, Feature, FeatureGroup, Features, IndexKind, IndexOptions, ItemFeatures, LanceDatabase, QueryOptions,
    Role, Runner, SearchLog, StopConditions, SurrogateUpdate, VectorDatabase,
};

use crate::common::*;

const ITEMS: usize = 2000;

/// Items whose `score` has nothing to do with their embedding: a number, a text and a kind make it. `noise` says nothing.
fn attributed(seed: u64) -> DataFrame {
    let mut rng = rng(seed);
    let embeddings = clustered(ITEMS, 6, 12, &mut rng);
    let mut columns = items(&embeddings).into_columns();
    let mut normal = || -> Vec<f64> { normal(ITEMS, 1, &mut rng).iter().map(|value| f64::from(*value)).collect() };
    let (size, noise) = (normal(), normal());
    let kinds: Vec<usize> = (0..ITEMS).map(|row| row * 7919 % 5).collect();
    let rings: Vec<usize> = (0..ITEMS).map(|row| row * 104_729 % 7).collect();
    let score: Vec<f64> =
        (0..ITEMS).map(|row| size[row] + 0.5 * rings[row] as f64 + if kinds[row] == 3 { 1.0 } else { 0.0 }).collect();
    let text: Vec<String> = rings.iter().map(|rings| format!("C{}N", "c1ccccc1".repeat(*rings))).collect();
    columns.retain(|column| column.name() == "embedding");
    columns.push(Column::new("size".into(), size));
    columns.push(Column::new("kind".into(), kinds.iter().map(|kind| format!("kind {kind}")).collect::<Vec<_>>()));
    columns.push(Column::new("smiles".into(), text));
    columns.push(Column::new("noise".into(), noise));
    columns.push(Column::new("worth".into(), score));
    DataFrame::new(ITEMS, columns).expect("items")
}

fn library(folder: &TempDir, items: &DataFrame) -> LanceDatabase {
    write(&folder.path().join("items.parquet"), items);
    let dataset = folder.path().join("items.lance");
    let options = IndexOptions::new().index(IndexKind::None).overwrite(true);
    uphill::index(folder.path().join("items.parquet"), &dataset, &options).expect("an index");
    open(&dataset)
}

fn start(database: &dyn VectorDatabase) -> DataFrame {
    let items = database.sample(16, &mut uphill::random_stream(3, "queries", 0, 0)).expect("a sample");
    uphill::queries_at(database, &items).expect("queries")
}

fn searched(database: LanceDatabase, rule: SurrogateUpdate, evaluations: u64) -> SearchLog {
    let queries = start(&database);
    let stop = StopConditions::new().evaluations(evaluations);
    let mut runner = Runner::new(database, uphill::SqlScore::new("worth"), rule).seed(3).stop(stop);
    runner.search(&queries, 1000).expect("a search")
}

/// How many of the best 50 were found.
fn found(log: &SearchLog, items: &DataFrame) -> usize {
    let mut best = f64s(items, "worth");
    best.sort_by(|a, b| b.total_cmp(a));
    let scores = f64s(&uphill::collect(log.compile_results().expect("a query")).expect("results"), "score");
    scores.iter().filter(|score| **score >= best[49]).count()
}

fn relevance(log: &SearchLog) -> Vec<(String, f32)> {
    log.manifest().ended.as_ref().expect("an end").relevance.clone()
}

fn share(log: &SearchLog, column: &str) -> f32 {
    relevance(log).iter().find(|(name, _)| name == column).map_or(f32::NAN, |(_, share)| *share)
}

#[test]
fn relevant_columns_get_weight_and_irrelevant_ones_little() {
    let folder = folder();
    let items = attributed(31);
    let database = library(&folder, &items);
    let whole = searched(database.clone(), SurrogateUpdate::new(), 160);
    let embedded = searched(database, SurrogateUpdate::new().features(Features::columns([] as [&str; 0])), 160);
    let (whole_found, embedded_found) = (found(&whole, &items), found(&embedded, &items));
    assert!(whole_found >= 3 * embedded_found.max(5), "{whole_found} of the best 50, without columns {embedded_found}");
    let names: HashSet<String> = relevance(&whole).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["embedding", "size", "kind", "smiles", "noise"].map(String::from).into());
    assert!((relevance(&whole).iter().map(|(_, share)| share).sum::<f32>() - 1.0).abs() < 1e-5);
    assert!(share(&whole, "size") > 0.2 && share(&whole, "smiles") > 0.1, "{:?}", relevance(&whole));
    assert!(share(&whole, "noise") < 0.1, "{:?}", relevance(&whole));
    assert_eq!(relevance(&embedded), [("embedding".to_string(), 1.0)]);
}

#[test]
fn a_library_too_large_to_be_ranked_is_also_searched_by_its_columns() {
    let folder = folder();
    let items = attributed(32);
    let database = library(&folder, &items);
    // So many points that their kernels with all items would not fit.
    let rule = || SurrogateUpdate::new().points(100_000);
    let whole = found(&searched(database.clone(), rule(), 160), &items);
    let none = Features::columns([] as [&str; 0]);
    let embedded = found(&searched(database, rule().features(none), 160), &items);
    assert!(whole >= 3 * embedded.max(5), "{whole} of the best 50, without columns {embedded}");
}

#[test]
fn a_prefilter_and_a_filter_apply_to_the_candidates_that_the_model_proposes() {
    let folder = folder();
    let items = attributed(33);
    for points in [1000, 100_000] {
        let database = library(&folder, &items).prefilter("noise < 0");
        let queries = start(&database);
        let rule = SurrogateUpdate::new().points(points);
        let stop = StopConditions::new().evaluations(120);
        let mut runner = Runner::new(database, uphill::SqlScore::new("worth"), rule).seed(3).stop(stop);
        runner = runner.filter(uphill::SqlFilter::new("kind <> 'kind 2'"));
        let log = runner.search(&queries, 1000).expect("a search");
        let results = uphill::collect(log.compile_results().expect("a query")).expect("results");
        assert_eq!(results.height(), 120);
        assert!(f64s(&results, "noise").iter().all(|noise| *noise < 0.0));
        let kinds = results.column("kind").expect("kind").str().expect("text");
        assert!(kinds.iter().flatten().all(|kind| kind != "kind 2"));
    }
}

fn run_file(folder: &TempDir, sections: &str) {
    let head = "seed = 5\n[database]\npath = 'items.lance'\n[stop]\nevaluations = 60\n";
    std::fs::write(folder.path().join("run.toml"), format!("{head}{sections}")).expect("written");
}

fn columns_read(folder: &TempDir, run: &str) -> HashSet<String> {
    let log = SearchLog::open(folder.path().join(run)).expect("a run");
    relevance(&log).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn columns_that_the_score_its_gates_or_the_filter_read_are_not_read_unless_they_are_named() {
    let folder = folder();
    library(&folder, &attributed(34));
    let cases = [
        ("[score]\nsql = 'worth'\n", vec!["size", "kind", "smiles", "noise"]),
        ("[score]\nsql = 'worth + 2 * abs(noise)'\n", vec!["size", "kind", "smiles"]),
        ("[score]\nsql = 'worth'\n[filter]\nsql = \"kind <> 'kind 1'\"\n", vec!["size", "smiles", "noise"]),
        (
            "[[score.sum]]\nname = 'gate'\nsql = 'size'\nat_least = -9\n[[score.sum]]\nname = 'rest'\nsql = 'worth'\n",
            vec!["kind", "smiles", "noise"],
        ),
        ("[score]\nsql = 'worth'\n[update]\nrule = 'surrogate'\nfeatures = ['worth']\n", vec!["worth"]),
        ("[score]\nsql = 'worth'\n[update]\nrule = 'surrogate'\nfeatures = []\n", vec![]),
        (
            "[score]\nsql = 'worth'\n[update]\nrule = 'surrogate'\nfeatures = ['size', { column = 'kind', role = 'text' }]\n",
            vec!["size", "kind"],
        ),
        (
            "[score]\nsql = 'worth'\n[update]\nrule = 'surrogate'\nfeatures = 'auto'\n",
            vec!["size", "kind", "smiles", "noise"],
        ),
    ];
    for (number, (sections, columns)) in cases.into_iter().enumerate() {
        run_file(&folder, sections);
        let run = format!("run-{number}");
        uphill_ok(&["search", "run.toml", "--out", &run], folder.path());
        let expected: HashSet<String> = columns.into_iter().chain(["embedding"]).map(String::from).collect();
        assert_eq!(columns_read(&folder, &run), expected, "{sections}");
    }
    let shown = uphill_ok(&["inspect", "run-0", "--json"], folder.path());
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert!(shown["columns that say about the score"]["size"].as_f64().is_some_and(|share| share > 0.0), "{shown}");
}

#[test]
fn columns_that_do_not_support_their_role_are_rejected_before_the_first_evaluation() {
    let folder = folder();
    library(&folder, &attributed(35));
    for (features, message) in [
        ("['sice']", "update.features: no column `sice` in ./items.lance; did you mean `size`?"),
        (
            "[{ column = 'smiles', role = 'numeric' }]",
            "update.features: column `smiles` is str; role `numeric` does not support it",
        ),
        (
            "[{ column = 'size', role = 'text' }]",
            "update.features: column `size` is f64; role `text` does not support it",
        ),
        ("[{ column = 'size', role = 'number' }]", "unknown"),
        (
            "['smiles', { column = 'smiles', role = 'category' }]",
            "update.features: column `smiles` is named twice, as its type suggests and as category; name it once",
        ),
        (
            "[{ column = 'kind', role = 'text' }, { column = 'kind', role = 'category' }]",
            "update.features: column `kind` is named twice, as text and as category; name it once",
        ),
        ("['size', 'noise', 'size']", "update.features: column `size` is named twice"),
        ("['size', 'embedding']", "update.features: `embedding` contains the embeddings, which the model always reads"),
        ("3", "expected \"auto\" or a list of columns"),
        ("'smiles'", "expected \"auto\" or a list of columns"),
    ] {
        run_file(&folder, &format!("[score]\nsql = 'worth'\n[update]\nrule = 'surrogate'\nfeatures = {features}\n"));
        let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
        assert_eq!(output.status.code(), Some(2), "{features}: {}", stderr(&output));
        assert!(stderr(&output).contains(message), "{features}: {}", stderr(&output));
    }
}

#[test]
fn a_column_that_leaks_the_score_is_reported_once() {
    let folder = folder();
    let mut items = attributed(36);
    let twice: Vec<f64> = f64s(&items, "worth").iter().map(|worth| 3.0 - 2.0 * worth).collect();
    items.with_column(Column::new("copy".into(), twice)).expect("a column");
    library(&folder, &items);
    run_file(&folder, "[score]\nsql = 'worth'\n");
    let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
    assert!(output.status.success());
    let said = stderr(&output);
    assert_eq!(said.matches("the column `copy` nearly determines the score").count(), 1, "{said}");
    assert_eq!(said.matches("nearly determines").count(), 1, "{said}");
}

#[test]
fn features_are_computed_by_index_and_again_if_they_are_missing_or_damaged() {
    let folder = folder();
    library(&folder, &attributed(37));
    let kept = folder.path().join("items.lance/_uphill");
    let files = || -> Vec<std::path::PathBuf> {
        let mut files: Vec<_> =
            std::fs::read_dir(&kept).expect("a folder").map(|file| file.expect("a file").path()).collect();
        files.sort();
        files
    };
    assert_eq!(files().len(), 5);
    let contents = || files().iter().map(|file| std::fs::read(file).expect("a file")).collect::<Vec<_>>();
    let first = contents();
    run_file(&folder, "[score]\nsql = 'worth'\n");
    uphill_ok(&["search", "run.toml", "--out", "whole"], folder.path());
    let results = |run: &str| uphill_ok(&["results", run, "--format", "csv"], folder.path());
    for (number, damage) in ["one byte", "cut", "gone", "all gone", "read-only"].into_iter().enumerate() {
        // That of a column which the model reads.
        let is_of_size = |file: &std::path::PathBuf| {
            String::from_utf8_lossy(&std::fs::read(file).expect("a file")).contains("\"size\"")
        };
        let file = files().into_iter().find(is_of_size).unwrap_or_else(|| kept.join("none"));
        let bytes = std::fs::read(&file).unwrap_or_default();
        match damage {
            "one byte" => {
                let mut other = bytes.clone();
                other[bytes.len() / 2] ^= 1;
                std::fs::write(&file, other).expect("written");
            }
            "cut" => std::fs::write(&file, &bytes[..bytes.len() / 3]).expect("written"),
            "gone" => std::fs::remove_file(&file).expect("removed"),
            _ => std::fs::remove_dir_all(&kept).expect("removed"),
        }
        if damage == "read-only" {
            // A file where the folder would be: nothing can be written there.
            std::fs::write(&kept, "").expect("written");
        }
        let run = format!("run-{number}");
        uphill_ok(&["search", "run.toml", "--out", &run], folder.path());
        assert_eq!(results(&run), results("whole"), "{damage}");
        match damage {
            "one byte" | "cut" | "gone" => assert!(contents() == first, "{damage}"),
            // All but the score's own, which nobody asked for.
            "all gone" => assert_eq!(files().len(), 4),
            _ => {}
        }
    }
}

/// The squared distances of items in a view, all pairs, as the library has them.
fn distances(features: &ItemFeatures, rows: usize) -> Array2<f64> {
    let values = features.rows(&(0..rows as u64).collect::<Vec<_>>()).mapv(f64::from);
    Array2::from_shape_fn((rows, rows), |(a, b)| (&values.row(a) - &values.row(b)).mapv(|off| off * off).sum())
}

/// So that all pairs have the mean 1.
fn scaled(mut distances: Array2<f64>) -> Array2<f64> {
    let mean = distances.mean().expect("some");
    distances /= mean;
    distances
}

fn assert_close(found: &Array2<f64>, expected: &Array2<f64>, within: f64) {
    for ((at, found), expected) in found.indexed_iter().zip(expected) {
        assert!((found - expected).abs() <= within * (1.0 + expected), "{at:?}: {found}, not {expected}");
    }
}

#[test]
fn features_equal_those_of_an_independent_computation() {
    let folder = folder();
    let rows = 50;
    let mut rng = rng(38);
    let texts: Vec<String> = (0..rows)
        .map(|_| (0..rng.random_range(0..30)).map(|_| ['C', 'N', 'é', '(', '1'][rng.random_range(0..5)]).collect())
        .collect();
    let numbers: Vec<Option<f64>> = (0..rows)
        .map(|row| match row % 10 {
            0 => None,
            1 => Some(f64::NAN),
            2 => Some(1e30),
            _ => Some((row * row % 17) as f64),
        })
        .collect();
    let kinds: Vec<Option<&str>> = (0..rows).map(|row| [Some("a"), Some("b"), None][row * 7 % 3]).collect();
    let mut columns = vec![items(&clustered(rows, 3, 2, &mut rng)).column("embedding").expect("embedding").clone()];
    columns.push(Column::new("text".into(), texts.clone()));
    columns.push(Column::new("number".into(), numbers.clone()));
    columns.push(Column::new("kind".into(), kinds.clone()));
    columns.push(Column::new("same".into(), vec![4.0; rows]));
    let database = library(&folder, &DataFrame::new(rows, columns).expect("items"));
    let view = |column: &str, role| {
        let wanted = Features::Columns(vec![Feature { column: column.into(), role }]);
        database.features(&wanted, &[]).expect("features")
    };

    // Text: the counts of all runs of up to four characters; fifty texts fit into 64 directions.
    let runs = |text: &str| -> std::collections::HashMap<String, f64> {
        let characters: Vec<char> = text.chars().collect();
        let mut counts = std::collections::HashMap::new();
        for start in 0..characters.len() {
            for end in start + 1..=(start + 4).min(characters.len()) {
                *counts.entry(characters[start..end].iter().collect::<String>()).or_insert(0.0) += 1.0;
            }
        }
        counts.into_iter().map(|(run, count): (String, f64)| (run, (1.0 + count).ln())).collect()
    };
    let counts: Vec<_> = texts.iter().map(|text| runs(text)).collect();
    let between = |a: usize, b: usize| -> f64 {
        let keys: HashSet<&String> = counts[a].keys().chain(counts[b].keys()).collect();
        let value = |item: usize, key: &String| counts[item].get(key).copied().unwrap_or(0.0);
        keys.into_iter().map(|key| (value(a, key) - value(b, key)).powi(2)).sum()
    };
    let expected = scaled(Array2::from_shape_fn((rows, rows), |(a, b)| between(a, b)));
    // Two runs in 16,384 may share a number.
    assert_close(&distances(&view("text", Some(Role::Text)), rows), &expected, 0.05);

    // Numbers: cut at four robust standard deviations, what is none at the median and known to be none.
    let mut known: Vec<f64> = numbers.iter().flatten().copied().filter(|value| value.is_finite()).collect();
    known.sort_by(f64::total_cmp);
    let quantile = |share: f64| known[((known.len() as f64 - 1.0) * share).round() as usize];
    let scale = (quantile(0.75) - quantile(0.25)) / 1.349;
    let pair = |row: usize| match numbers[row].filter(|value| value.is_finite()) {
        Some(value) => [((value - quantile(0.5)) / scale).clamp(-4.0, 4.0), 0.0],
        None => [0.0, 1.0],
    };
    let between = |a: usize, b: usize| (0..2).map(|at| (pair(a)[at] - pair(b)[at]).powi(2)).sum::<f64>();
    let expected = scaled(Array2::from_shape_fn((rows, rows), |(a, b)| between(a, b)));
    assert_close(&distances(&view("number", None), rows), &expected, 1e-4);

    // Categories: equal or not, null being one.
    let expected = scaled(Array2::from_shape_fn((rows, rows), |(a, b)| if kinds[a] == kinds[b] { 0.0 } else { 2.0 }));
    assert_close(&distances(&view("kind", None), rows), &expected, 1e-4);

    // A column of one value says nothing; all others are views of their own.
    assert!(view("same", None).groups().is_empty());
    let all = database.features(&Features::Auto, &["kind".into()]).expect("features");
    let roles: Vec<(&str, Role)> = all.groups().iter().map(|view| (view.name.as_str(), view.role)).collect();
    assert_eq!(roles, [("text", Role::Text), ("number", Role::Numeric)]);
}

#[test]
fn another_list_of_numbers_is_a_feature_if_it_is_named() {
    let folder = folder();
    let mut rng = rng(39);
    let (first, second) = (clustered(300, 4, 3, &mut rng), normal(300, 5, &mut rng));
    let mut columns = vec![items(&first).column("embedding").expect("embedding").clone()];
    columns.push(items(&second).column("embedding").expect("embedding").clone().with_name("second".into()));
    write(&folder.path().join("items.parquet"), &DataFrame::new(300, columns).expect("items"));
    let dataset = folder.path().join("items.lance");
    let options = IndexOptions::new().embedding_column("embedding");
    uphill::index(folder.path().join("items.parquet"), &dataset, &options).expect("an index");
    let features = open(&dataset).features(&Features::columns(["second"]), &[]).expect("features");
    let between = |a: usize, b: usize| f64::from((&second.row(a) - &second.row(b)).mapv(|off| off * off).sum());
    let expected = scaled(Array2::from_shape_fn((300, 300), |(a, b)| between(a, b)));
    assert_close(&distances(&features, 300), &expected, 1e-4);
}

/// A database of the caller's own, which says more of its items than stands in the dataset.
struct Described {
    inner: LanceDatabase,
    worth: Vec<f64>,
}

impl VectorDatabase for Described {
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn dim(&self) -> usize {
        self.inner.dim()
    }
    fn metric(&self) -> uphill::Metric {
        self.inner.metric()
    }
    fn query(&self, queries: &DataFrame, options: QueryOptions<'_>) -> uphill::Result<DataFrame> {
        self.inner.query(queries, options)
    }
    fn take(&self, db_idx: &[u64]) -> uphill::Result<DataFrame> {
        self.inner.take(db_idx)
    }
    fn sample(&self, n: usize, rng: &mut uphill::RandomStream) -> uphill::Result<Vec<u64>> {
        self.inner.sample(n, rng)
    }
    fn scan(&self, visit: &mut BlockVisitor<'_>) -> uphill::Result<()> {
        self.inner.scan(visit)
    }
    fn features(&self, _wanted: &Features, _hidden: &[String]) -> uphill::Result<ItemFeatures> {
        let ids: Vec<u64> = (0..self.worth.len() as u64).rev().collect();
        let values: Vec<f32> = self.worth.iter().rev().map(|worth| *worth as f32 / 4.0).collect();
        let view = FeatureGroup { name: "own".into(), role: Role::Numeric, components: 0..1 };
        let values = Array2::from_shape_vec((ids.len(), 1), values).expect("a column");
        ItemFeatures::new(&ids, vec![view], values)
    }
}

#[test]
fn a_custom_database_may_provide_features() {
    let folder = folder();
    let items = attributed(40);
    let inner = library(&folder, &items);
    let queries = start(&inner);
    let database = Described { inner, worth: f64s(&items, "worth") };
    let stop = StopConditions::new().evaluations(80);
    let mut runner = Runner::new(database, uphill::SqlScore::new("worth"), SurrogateUpdate::new()).seed(3).stop(stop);
    let log = runner.search(&queries, 1000).expect("a search");
    assert!(share(&log, "own") > 0.5, "{:?}", relevance(&log));
    assert!(found(&log, &items) >= 40, "{} of the best 50", found(&log, &items));
}

#[test]
fn features_that_do_not_match_their_items_are_rejected() {
    let view = |end: usize| vec![FeatureGroup { name: "x".into(), role: Role::Numeric, components: 0..end }];
    let message = |ids: &[u64], end: usize, values: Array2<f32>| {
        ItemFeatures::new(ids, view(end), values).expect_err("refused").to_string()
    };
    assert!(message(&[0, 1], 1, Array2::zeros((3, 1))).contains("expected a row for each of 2 items, found 3"));
    assert!(
        message(&[0, 1], 2, Array2::zeros((2, 1))).contains("expected components below 1, found components 0 to 2")
    );
    assert!(
        message(&[0, 1], 1, Array2::from_elem((2, 1), f32::NAN))
            .contains("expected finite numbers, found NaN for item 0")
    );
    assert!(message(&[7, 7], 1, Array2::zeros((2, 1))).contains("expected unique ids, found a duplicate"));
    let values = Array2::from_shape_vec((2, 1), vec![1.0, 2.0]).expect("a column");
    let features = ItemFeatures::new(&[9, 4], view(1), values).expect("features");
    assert_eq!(
        features.rows(&[4, 5, 9]).index_axis(Axis(1), 0).to_vec(),
        [2.0, 0.0, 1.0],
        "an item without has the mean"
    );
}

#[test]
fn the_start_and_the_batch_sizes_depend_on_the_first_budget_of_the_run() {
    let folder = folder();
    library(&folder, &attributed(41));
    run_file(&folder, "[score]\nsql = 'worth'\n");
    let batches = |run: &str, budget: &str, more: &[&str]| -> Vec<usize> {
        let set = format!("stop.evaluations={budget}");
        uphill_ok(&[&["search", "run.toml", "--out", run, "--set", &set], more].concat(), folder.path());
        let log = SearchLog::open(folder.path().join(run)).expect("a run");
        log.iterations().iter().map(|iteration| log.results(*iteration).expect("results").height()).collect()
    };
    // A sixth of the budget, at least 4; then a fortieth of it, at most 5.
    assert_eq!(batches("tiny", "18", &[])[..4], [4, 1, 1, 1]);
    assert_eq!(batches("small", "60", &[])[..4], [10, 1, 1, 1]);
    assert_eq!(batches("large", "240", &[])[..4], [16, 5, 5, 5]);
    let raised = batches("tiny", "40", &["--resume"]);
    assert_eq!((raised[..4].to_vec(), raised.iter().sum::<usize>()), (vec![4, 1, 1, 1], 40));
}
