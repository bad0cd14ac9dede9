//! A recall is what is asked for: `uphill index` measures what it takes, searches keep to it.

use std::path::Path;

use lance::Dataset;
use lance::index::DatasetIndexExt;
use lance::index::vector::VectorIndexParams;
use lance_index::IndexType;
use lance_linalg::distance::MetricType;
use ndarray::{Array2, ArrayView1, Axis};
use polars::prelude::DataFrame;
use uphill::{IndexKind, IndexOptions, LanceDatabase, OpenOptions, QueryOptions, RecallTable, VectorDatabase};

use crate::common::*;

/// As a network makes embeddings: few properties, of 300 topics, through two layers of random weights.
fn learned(rows: usize, dim: usize, seed: u64) -> Array2<f32> {
    let mut rng = rng(seed);
    let (topics, first, second) = (normal(300, 12, &mut rng), normal(12, 96, &mut rng), normal(96, dim, &mut rng));
    let mut properties = normal(rows, 12, &mut rng) * 0.5;
    for (row, mut item) in properties.rows_mut().into_iter().enumerate() {
        item += &topics.row(row % 300);
    }
    (properties.dot(&first) / 12f32.sqrt()).mapv_into(f32::tanh).dot(&second)
}

/// Items that moved a part of the way towards another.
fn moved(library: &Array2<f32>, n: usize, seed: u64) -> Array2<f32> {
    moved_by(0.2, library, n, seed)
}

fn moved_by(share: f32, library: &Array2<f32>, n: usize, seed: u64) -> Array2<f32> {
    let mut rng = rng(seed);
    let drawn = rand::seq::index::sample(&mut rng, library.nrows(), 2 * n).into_vec();
    library.select(Axis(0), &drawn[..n]) * (1.0 - share) + library.select(Axis(0), &drawn[n..]) * share
}

/// The 300 items nearest to each query, by brute force.
fn nearest(library: &Array2<f32>, queries: &Array2<f32>) -> Vec<Vec<u64>> {
    let distances = |query: ArrayView1<f32>| {
        let distance = |item: ArrayView1<f32>| item.iter().zip(query).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let mut all: Vec<(f64, u64)> = library.rows().into_iter().map(distance).zip(0..).collect();
        all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        all.into_iter().take(300).map(|(_, id)| id).collect()
    };
    queries.rows().into_iter().map(distances).collect()
}

/// The share of the k nearest that is found, in the mean; and its standard error.
fn recall(database: &LanceDatabase, queries: &Array2<f32>, nearest: &[Vec<u64>], k: usize) -> (f64, f64) {
    let frame = uphill::queries(queries.mapv(f64::from).view()).expect("queries");
    let found = database.query(&frame, QueryOptions::new().k(k)).expect("results");
    let mut hits = vec![0.0; queries.nrows()];
    for (query, id) in u32s(&found, "query_idx").into_iter().zip(u64s(&found, "db_idx")) {
        hits[query as usize] += f64::from(u8::from(nearest[query as usize][..k].contains(&id)));
    }
    hits.iter_mut().for_each(|hits| *hits /= k as f64);
    let n = hits.len() as f64;
    let mean = hits.iter().sum::<f64>() / n;
    let variance = hits.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

#[test]
fn queries_that_were_not_measured_reach_the_target_recall() {
    for (what, library) in
        [("clustered", clustered(25_000, 32, 60, &mut rng(41))), ("learned", learned(25_000, 32, 42))]
    {
        // At items, between two, half way, and beyond one, away from another.
        let kinds = [0.0, 0.2, 0.5, -0.5].map(|share| {
            let queries = moved_by(share, &library, 120, 43);
            let nearest = nearest(&library, &queries);
            (share, queries, nearest)
        });
        for index in [IndexKind::IvfFlat, IndexKind::IvfRq, IndexKind::IvfSq] {
            let folder = folder();
            let path = dataset(&folder, &library, &IndexOptions::new().index(index));
            let files = OpenOptions::new().index_from_bytes(0);
            let files = LanceDatabase::open_with(path.to_string_lossy(), &files).expect("a dataset");
            for (share, queries, nearest) in &kinds {
                for asked in [0.9, 0.99, 0.999] {
                    for (database, k) in
                        [1, 10, 40, 100, 300].map(|k| (open(&path), k)).into_iter().chain([(files.clone(), 10)])
                    {
                        let (found, error) = recall(&database.recall(asked), queries, nearest, k);
                        println!("{what}, {index}, {share}: recall@{k} of {found:.4} for {asked}");
                        let told = format!("{what}, {index}, moved by {share}: recall@{k} {found}, asked {asked}");
                        assert!(found + 2.0 * error + 0.002 >= asked, "{told}");
                    }
                }
            }
            // It is not looked at everything instead.
            let table = files.recall_table().expect("measured");
            let level = table.levels.iter().find(|level| level.k == 10 && level.recall == 0.9).expect("a level");
            assert!(4 * level.nprobes < table.partitions, "{what}, {index}: {table}");
        }
    }
}

#[test]
fn a_recall_of_1_compares_with_every_item_and_nprobes_overrides_it() {
    let library = learned(3000, 16, 44);
    let folder = folder();
    let path = dataset(&folder, &library, &IndexOptions::new().index(IndexKind::IvfFlat));
    let queries = moved(&library, 50, 45);
    let nearest = nearest(&library, &queries);
    let all = open(&path).recall(1.0);
    assert!(!all.uses_index());
    assert_eq!(recall(&all, &queries, &nearest, 20).0, 1.0);
    let one = |recall: f64| self::recall(&open(&path).recall(recall).nprobes(1), &queries, &nearest, 20);
    assert_eq!(one(0.9), one(1.0));
    assert!(one(1.0).0 < 0.9);
}

#[test]
fn between_measured_k_the_larger_one_applies_and_beyond_them_parameters_are_extrapolated() {
    let library = learned(25_000, 16, 46);
    let folder = folder();
    let path = dataset(&folder, &library, &IndexOptions::new().index(IndexKind::IvfFlat));
    let database = open(&path).recall(0.95);
    let table = database.recall_table().expect("measured").clone();
    let level = |k| *table.levels.iter().find(|level| level.k == k && level.recall == 0.95).expect("a level");
    let (ten, hundred) = (level(10), level(100));
    assert!(ten.relative_distance < hundred.relative_distance && ten.nprobes < hundred.nprobes, "{table}");
    let queries = moved(&library, 50, 50);
    let frame = uphill::queries(queries.mapv(f64::from).view()).expect("queries");
    let finds = |k| database.query(&frame, QueryOptions::new().k(k)).expect("results");
    let first = |found: &DataFrame, k: usize| {
        let mut first: Vec<Vec<u64>> = vec![Vec::new(); 50];
        for (query, id) in u32s(found, "query_idx").into_iter().zip(u64s(found, "db_idx")) {
            first[query as usize].push(id);
        }
        first.iter_mut().for_each(|ids| ids.truncate(k));
        first
    };
    for (few, many) in [(1, 10), (11, 100), (50, 100)] {
        assert_eq!(first(&finds(few), few), first(&finds(many), few), "k {few} searches what k {many} does");
    }
    assert_ne!(first(&finds(10), 10), first(&finds(100), 10), "k 100 searches more than k 10");
    assert_ne!(first(&finds(100), 100), first(&finds(600), 100), "beyond, more partitions are searched");
}

#[test]
fn a_recall_table_of_an_earlier_version_searches_its_number_of_partitions() {
    let library = learned(5000, 16, 51);
    let folder = folder();
    let path = dataset(&folder, &library, &IndexOptions::new().index(IndexKind::IvfFlat));
    let queries = moved(&library, 20, 52);
    let nearest = nearest(&library, &queries);
    let mut table = serde_json::to_value(open(&path).recall_table().expect("measured")).expect("JSON");
    for level in table["levels"].as_array_mut().expect("levels") {
        level.as_object_mut().expect("a level").remove("margin");
        level["nprobes"] = 3.into();
    }
    change(&path, async |mut dataset| {
        dataset.update_metadata([("uphill.recall", table.to_string().as_str())]).await.map(|_| ())
    });
    let of = |database: &LanceDatabase| recall(database, &queries, &nearest, 10);
    assert_eq!(of(&open(&path)), of(&open(&path).nprobes(3)));
}

/// The library, built by the command, and what it said.
fn built(folder: &TempDir, arguments: &[&str]) -> String {
    write(&folder.path().join("items.parquet"), &items(&learned(5000, 16, 47)));
    let output =
        uphill(&[&["index", "items.parquet", "items.lance", "--overwrite"], arguments].concat(), folder.path());
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

fn inspected(folder: &TempDir) -> serde_json::Value {
    serde_json::from_str(&uphill_ok(&["inspect", "items.lance", "--json"], folder.path())).expect("JSON")
}

#[test]
fn the_recall_table_is_printed_stored_and_shown() {
    let folder = folder();
    let said = built(&folder, &["--index", "ivf-rq"]);
    let table: RecallTable = serde_json::from_value(inspected(&folder)["recall"].clone()).expect("a table");
    assert_eq!(table.levels.len(), 8);
    assert_eq!(said.lines().skip(1).collect::<Vec<_>>(), table.to_string().lines().collect::<Vec<_>>());
    assert!(said.contains("\nrecall@10: 0.9 with ") && said.contains(" of 71 partitions"), "{said}");
    let shown = uphill_ok(&["inspect", "items.lance"], folder.path());
    assert!(shown.contains("\nrecall            recall@10: 0.9 with "), "{shown}");
    assert_eq!(built(&folder, &["--index", "none"]).lines().count(), 1);
    assert!(inspected(&folder)["recall"].is_null());
}

#[test]
fn a_recall_outside_of_0_to_1_is_rejected() {
    let folder = folder();
    built(&folder, &[]);
    for (value, expected) in [("0", "found 0"), ("1.01", "found 1.01"), ("nan", "found nan")] {
        std::fs::write(
            folder.path().join("run.toml"),
            "[database]\npath = \"items.lance\"\n[score]\nsql = \"weight\"\n",
        )
        .expect("written");
        let set = format!("database.recall={value}");
        let output = uphill(&["search", "run.toml", "--out", "run", "--set", &set], folder.path());
        assert_eq!(output.status.code(), Some(2), "{value}: {}", stderr(&output));
        assert!(stderr(&output).contains("database.recall: expected a "), "{}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

/// Changes a dataset by Lance itself, as another program would.
fn change<F: Future<Output = lance::Result<()>>>(path: &Path, change: impl FnOnce(Dataset) -> F) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let uri = path.to_string_lossy().into_owned();
    runtime.block_on(async { change(Dataset::open(&uri).await?).await }).expect("changed");
}

#[test]
fn a_recall_table_that_is_unreadable_or_of_another_index_is_ignored() {
    let library = learned(5000, 16, 48);
    let folder = folder();
    let path = dataset(&folder, &library, &IndexOptions::new().index(IndexKind::IvfFlat));
    let queries = moved(&library, 20, 49);
    let nearest = nearest(&library, &queries);
    let set = |text: String| {
        change(&path, async |mut dataset| dataset.update_metadata([("uphill.recall", text.as_str())]).await.map(|_| ()))
    };
    let default = |database: &LanceDatabase| {
        assert!(database.recall_table().is_none());
        let (asked, sixteen) = (database.clone(), database.clone().nprobes(16));
        assert_eq!(recall(&asked, &queries, &nearest, 10), recall(&sixteen, &queries, &nearest, 10));
    };
    let table = open(&path).recall_table().cloned().expect("measured");
    let without = RecallTable { levels: Vec::new(), ..table.clone() };
    let mut nothing = table.clone();
    nothing.levels[0].nprobes = 0;
    let json = |table: &RecallTable| serde_json::to_string(table).expect("JSON");
    for text in ["", "{", "[]", "null", "{\"levels\": 3}", &json(&without), &json(&nothing)] {
        set(text.into());
        default(&open(&path));
    }
    set(json(&table));
    assert_eq!(open(&path).recall_table(), Some(&table));
    change(&path, async |mut dataset| {
        let (params, name) = (VectorIndexParams::ivf_flat(71, MetricType::L2), Some("embedding_idx".to_string()));
        dataset.create_index(&["embedding"], IndexType::Vector, name, &params, true).await.map(|_| ())
    });
    default(&open(&path));
}

#[test]
fn a_resumed_run_uses_the_recall_table_of_its_start() {
    let folder = folder();
    built(&folder, &["--index", "ivf-flat"]);
    let text = "seed = 3\n[database]\npath = \"items.lance\"\nk = 30\n[queries]\nsample = 20\n[update]\nrule = \"rl\"\nlr = 2.0\n\
                [stop]\niterations = 5\n[score]\nsql = \"weight\"\n";
    std::fs::write(folder.path().join("run.toml"), text).expect("written");
    let search = |run: &str, more: &[&str]| {
        uphill_ok(&[&["search", "run.toml", "--out", run], more].concat(), folder.path());
        uphill_ok(&["trajectories", run, "--format", "json"], folder.path())
    };
    let whole = search("whole", &[]);
    search("run", &["--set", "stop.iterations=2"]);
    let mut table: RecallTable = serde_json::from_value(inspected(&folder)["recall"].clone()).expect("a table");
    table.levels.iter_mut().for_each(|level| level.relative_distance = Some(0.0));
    let table = serde_json::to_string(&table).expect("JSON");
    change(&folder.path().join("items.lance"), async |mut dataset| {
        dataset.update_metadata([("uphill.recall", table.as_str())]).await.map(|_| ())
    });
    assert_eq!(search("run", &["--resume"]), whole);
    assert_ne!(search("new", &[]), whole, "the other table makes a difference");
}

#[test]
fn a_damaged_recall_table_is_reported_and_ignored() {
    let folder = folder();
    let options = IndexOptions::new().index(IndexKind::IvfFlat);
    let path = dataset(&folder, &clustered(2000, 8, 20, &mut rng(95)), &options);
    let table = open(&path).recall_table().cloned().expect("a table");
    let text = serde_json::to_string(&table).expect("JSON");
    let mut reversed = table.clone();
    reversed.levels.reverse();
    let mut beyond = table.clone();
    beyond.levels[0].recall = 7.0;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for damaged in [
        text[..text.len() / 2].to_string(),
        "[]".into(),
        serde_json::to_string(&reversed).expect("JSON"),
        serde_json::to_string(&beyond).expect("JSON"),
    ] {
        runtime.block_on(async {
            let mut dataset = lance::Dataset::open(&path.to_string_lossy()).await.expect("opened");
            dataset.update_metadata([("uphill.recall", damaged.as_str())]).await.expect("written");
        });
        assert!(open(&path).recall_table().is_none(), "{damaged}");
        let said = stderr(&uphill(&["inspect", "items.lance"], folder.path()));
        assert!(said.contains("uphill.recall of the dataset is damaged: "), "{damaged}: {said}");
    }
}
