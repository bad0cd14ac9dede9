//! Neighbours: exact against brute force, the index against exact, and the edges.

use std::collections::HashSet;

use ndarray::{Array2, Axis, concatenate};
use polars::prelude::*;
use uphill::{IndexKind, IndexOptions, LanceDatabase, Metric, OpenOptions, QueryOptions, VectorDatabase};

use crate::common::*;

fn queries_of(vectors: &Array2<f32>) -> DataFrame {
    uphill::queries(vectors.mapv(f64::from).view()).expect("queries")
}

/// Every distance, in f64, ordered by (distance as f32, id).
fn brute_force(library: &Array2<f32>, query: ndarray::ArrayView1<f32>, k: usize, metric: Metric) -> Vec<(f32, u64)> {
    let dot = |a: ndarray::ArrayView1<f32>, b: ndarray::ArrayView1<f32>| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let mut all: Vec<(f32, u64)> = library
        .rows()
        .into_iter()
        .zip(0..)
        .map(|(item, id)| {
            let distance = match metric {
                Metric::L2 => item.iter().zip(query).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum(),
                Metric::Cosine => 1.0 - dot(item, query) / (dot(item, item).sqrt() * dot(query, query).sqrt()),
                Metric::Dot => 1.0 - dot(item, query),
            };
            (distance as f32, id)
        })
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    all.truncate(k);
    all
}

fn found(results: &DataFrame, query: u32) -> Vec<(f32, u64)> {
    let rows = u32s(results, "query_idx");
    let pairs = f32s(results, "distance").into_iter().zip(u64s(results, "db_idx"));
    pairs.zip(rows).filter(|(_, of)| *of == query).map(|(pair, _)| pair).collect()
}

fn recall(results: &DataFrame, library: &Array2<f32>, queries: &Array2<f32>, k: usize) -> f64 {
    let hits: usize = queries
        .rows()
        .into_iter()
        .zip(0..)
        .map(|(query, number)| {
            let truth: Vec<u64> = brute_force(library, query, k, Metric::L2).into_iter().map(|(_, id)| id).collect();
            found(results, number).into_iter().filter(|(_, id)| truth.contains(id)).count()
        })
        .sum();
    hits as f64 / (queries.nrows() * k) as f64
}

#[test]
fn exact_search_equals_brute_force_under_every_metric_over_two_fragments() {
    let mut rng = rng(1);
    for (name, library) in [("normal", normal(3000, 24, &mut rng)), ("clustered", clustered(3000, 24, 20, &mut rng))] {
        for metric in [Metric::L2, Metric::Cosine, Metric::Dot] {
            let folder = folder();
            // Two files of different lengths; a third of the items stand twice.
            let twice = library.slice(ndarray::s![..1000, ..]).to_owned();
            write(&folder.path().join("a.parquet"), &items(&library));
            write(&folder.path().join("b.parquet"), &items(&twice));
            let dataset = folder.path().join("library.lance");
            let options = IndexOptions::new().metric(metric).index(IndexKind::None);
            uphill::index(folder.path().join("*.parquet"), &dataset, &options).expect("indexed");
            let all = concatenate(Axis(0), &[library.view(), twice.view()]).expect("stacked");
            let queries =
                concatenate(Axis(0), &[normal(70, 24, &mut rng).view(), library.slice(ndarray::s![..30, ..])])
                    .expect("stacked");

            let results = open(&dataset).k(17).query(&queries_of(&queries), QueryOptions::default()).expect("results");

            for (query, number) in queries.rows().into_iter().zip(0..) {
                let (ours, truth) = (found(&results, number), brute_force(&all, query, 17, metric));
                let ids = |pairs: &[(f32, u64)]| pairs.iter().map(|pair| pair.1).collect::<Vec<_>>();
                assert_eq!(ids(&ours), ids(&truth), "{name}, {metric}, query {number}");
                for (ours, truth) in ours.iter().zip(&truth) {
                    assert!((ours.0 - truth.0).abs() <= 1e-6 * (1.0 + truth.0.abs()), "{ours:?} is not {truth:?}");
                }
            }
        }
    }
}

#[test]
fn exact_search_of_vectors_of_one_component_equals_brute_force() {
    let folder = folder();
    let library = normal(300, 1, &mut rng(16));
    let queries = library.slice(ndarray::s![..20, ..]).to_owned();
    let results = exact_library(&folder, &library).k(5).query(&queries_of(&queries), QueryOptions::default());
    let results = results.expect("results");
    for (query, number) in queries.rows().into_iter().zip(0..) {
        assert_eq!(found(&results, number), brute_force(&library, query, 5, Metric::L2));
    }
}

#[test]
fn items_with_equal_embeddings_are_in_the_order_of_their_ids() {
    let mut rng = rng(2);
    let folder = folder();
    let one = normal(1, 16, &mut rng);
    let library =
        concatenate(Axis(0), &[normal(500, 16, &mut rng).view(), one.broadcast((700, 16)).expect("broadcast")])
            .expect("stacked");
    let results =
        exact_library(&folder, &library).k(5).query(&queries_of(&one), QueryOptions::default()).expect("results");
    assert_eq!(u64s(&results, "db_idx"), [500, 501, 502, 503, 504]);
    assert_eq!(f32s(&results, "distance"), [0.0; 5]);
}

/// Each kind of index, Lance's name for it, and whether Lance searches it for many queries at once.
/// As a large library is opened: the index's own entries are searched.
fn open_files(dataset: &std::path::Path) -> LanceDatabase {
    let options = OpenOptions::new().index_from_bytes(0).index_cache_bytes(1 << 10);
    LanceDatabase::open_with(dataset.to_string_lossy(), &options).expect("opened")
}

const KINDS: [(IndexKind, &str, bool); 5] = [
    (IndexKind::IvfFlat, "IVF_FLAT", true),
    (IndexKind::IvfSq, "IVF_SQ", true),
    (IndexKind::IvfPq, "IVF_PQ", true),
    (IndexKind::IvfRq, "IVF_RQ", true),
    (IndexKind::IvfHnswSq, "IVF_HNSW_SQ", false),
];

#[test]
fn every_kind_of_index_finds_nearly_all_neighbours_with_exact_distances() {
    let mut rng = rng(3);
    let folder = folder();
    let library = clustered(6000, 32, 60, &mut rng);
    let picked: Vec<usize> = (0..200).map(|row| row * 29).collect();
    let queries = library.select(Axis(0), &picked) + normal(200, 32, &mut rng) * 0.3;
    for (index, name, batched) in KINDS {
        let options = IndexOptions::new().index(index).overwrite(true);
        let path = dataset(&folder, &library, &options);
        let shown = uphill(&["inspect", "items.lance"], folder.path());
        assert!(String::from_utf8_lossy(&shown.stdout).lines().any(|line| line == format!("index             {name}")));
        let database = open_files(&path).k(10);
        let plan = database.explain(200).expect("a plan");
        assert_eq!(plan.contains("ANNIvfBatch"), batched, "{index}: {plan}");

        let results = database.query(&queries_of(&queries), QueryOptions::default()).expect("results");

        let recall = recall(&results, &library, &queries, 10);
        println!("{index}: recall@10 {recall}");
        assert!(recall >= 0.95, "{index}: recall@10 {recall}");
        for (query, number) in queries.rows().into_iter().zip(0..) {
            let found = found(&results, number);
            let in_order = found.is_sorted_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).is_lt());
            assert!(in_order, "{index}: query {number} met {found:?}");
            for (distance, id) in found {
                let truth = Metric::L2
                    .distance(query.as_slice().expect("a row"), library.row(id as usize).as_slice().expect("a row"));
                assert_eq!(distance, truth, "{index}: the distance of item {id} is not exact");
            }
        }
    }
}

#[test]
fn every_kind_of_index_finds_the_whole_library_for_a_larger_k_and_nearly_all_neighbours_for_a_large_k() {
    let folder = folder();
    let library = clustered(1000, 16, 10, &mut rng(14));
    let queries = library.slice(ndarray::s![..3, ..]).to_owned();
    for (index, _, _) in KINDS {
        let options = IndexOptions::new().index(index).overwrite(true);
        let database = open_files(&dataset(&folder, &library, &options)).nprobes(1);
        for k in [1000, 5000, usize::MAX] {
            let results = database.clone().k(k).query(&queries_of(&queries), QueryOptions::default()).expect("results");
            for query in 0..3 {
                let mut ids: Vec<u64> = found(&results, query).into_iter().map(|pair| pair.1).collect();
                ids.sort();
                assert_eq!(ids, (0..1000).collect::<Vec<u64>>(), "{index}, k = {k}");
            }
        }
        let results = database.k(200).query(&queries_of(&queries), QueryOptions::default()).expect("results");
        assert_eq!(results.height(), 600, "{index}: fewer than k of 1000 items");
    }
}

#[test]
fn every_kind_of_index_supports_cosine_and_dot() {
    let mut rng = rng(15);
    let folder = folder();
    let library = clustered(2000, 16, 20, &mut rng);
    let queries = library.slice(ndarray::s![..50, ..]).to_owned() + normal(50, 16, &mut rng) * 0.3;
    for metric in [Metric::Cosine, Metric::Dot] {
        for (index, _, _) in KINDS {
            let options = IndexOptions::new().index(index).metric(metric).overwrite(true);
            let database = open_files(&dataset(&folder, &library, &options)).k(10);
            let results = database.query(&queries_of(&queries), QueryOptions::default()).expect("results");
            let exact = database.exact(true).query(&queries_of(&queries), QueryOptions::default()).expect("results");
            let pairs = |frame: &DataFrame| -> std::collections::HashSet<(u32, u64)> {
                u32s(frame, "query_idx").into_iter().zip(u64s(frame, "db_idx")).collect()
            };
            let recall = pairs(&results).intersection(&pairs(&exact)).count() as f64 / exact.height() as f64;
            println!("{metric}, {index}: recall@10 {recall}");
            assert!(recall >= 0.95, "{metric}, {index}: recall@10 {recall}");
        }
    }
}

#[test]
fn lance_searches_the_molecules_with_all_queries_in_one_call() {
    let folder = folder();
    let dataset = folder.path().join("molecules.lance");
    let report =
        uphill::index(root().join("data/molecules.parquet"), &dataset, &IndexOptions::default()).expect("indexed");
    assert_eq!((report.rows, report.dim, report.partitions), (20_000, 64, Some(141)));
    let database = open(&dataset);
    assert!(database.explain(16).expect("a plan").contains("ANNIvfBatch"));
    assert!(database.prefilter("mw < 300").explain(16).expect("a plan").contains("ANNIvfBatch"));
}

#[test]
fn a_k_larger_than_the_library_finds_each_item_once() {
    let folder = folder();
    let library = normal(7, 4, &mut rng(4));
    let results =
        exact_library(&folder, &library).k(50).query(&queries_of(&library), QueryOptions::default()).expect("results");
    assert_eq!(results.height(), 49);
    for query in 0..7 {
        let mut ids: Vec<u64> = found(&results, query).into_iter().map(|pair| pair.1).collect();
        ids.sort();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5, 6]);
    }
}

#[test]
fn no_queries_give_an_empty_frame_with_every_column() {
    let folder = folder();
    let library = normal(7, 4, &mut rng(5));
    let none = queries_of(&library).head(Some(0));
    let results = exact_library(&folder, &library).query(&none, QueryOptions::default()).expect("results");
    assert_eq!(results.height(), 0);
    assert_eq!(names(&results), ["query_idx", "db_idx", "distance", "embedding", "name", "weight"]);
}

#[test]
fn invalid_queries_are_rejected_with_both_values() {
    let folder = folder();
    let library = normal(7, 4, &mut rng(6));
    let database = exact_library(&folder, &library);
    let ask = |vectors: &Array2<f64>| {
        let frame =
            uphill::queries(vectors.view()).and_then(|queries| database.query(&queries, QueryOptions::default()));
        frame.expect_err("refused").to_string()
    };
    let mut wrong = Array2::zeros((3, 4));
    wrong[[1, 2]] = f64::NAN;
    assert_eq!(
        ask(&wrong),
        "queries: column `embedding`: expected finite numbers, found NaN in component 2 of query 1"
    );
    wrong[[1, 2]] = f64::INFINITY;
    assert_eq!(
        ask(&wrong),
        "queries: column `embedding`: expected finite numbers, found inf in component 2 of query 1"
    );
    assert_eq!(ask(&Array2::zeros((3, 5))), "queries: column `embedding`: expected array[f64, 4], found array[f64, 5]");
    let zero =
        database.clone().k(0).query(&queries_of(&library), QueryOptions::default()).expect_err("refused").to_string();
    assert_eq!(zero, "database.k: expected at least 1, found 0");
}

#[test]
fn a_prefilter_and_a_distance_limit_keep_the_nearest_that_match() {
    let folder = folder();
    let library = normal(2000, 8, &mut rng(7));
    let queries = library.slice(ndarray::s![..5, ..]).to_owned();
    for index in [IndexKind::None, IndexKind::IvfFlat] {
        let options = IndexOptions::new().index(index).partitions(8).overwrite(true);
        let database = open(&dataset(&folder, &library, &options)).k(20).nprobes(8);
        let results = database
            .clone()
            .prefilter("weight < 0.2")
            .query(&queries_of(&queries), QueryOptions::default())
            .expect("results");
        assert_eq!(results.height(), 100);
        assert!(f64s(&results, "weight").iter().all(|weight| *weight < 0.2));

        let results =
            database.max_distance(3.0).query(&queries_of(&queries), QueryOptions::default()).expect("results");
        let near = queries.rows().into_iter().map(|query| brute_force(&library, query, 20, Metric::L2));
        let near: usize = near.map(|near| near.iter().filter(|pair| pair.0 <= 3.0).count()).sum();
        assert_eq!(results.height(), near);
    }
}

#[test]
fn exact_searches_find_the_same_with_and_without_cached_embeddings() {
    let mut rng = rng(17);
    let folder = folder();
    let library = normal(20_000, 8, &mut rng);
    let queries = queries_of(&normal(7, 8, &mut rng));
    let options = IndexOptions::new().index(IndexKind::None);
    let path = dataset(&folder, &library, &options);
    let ask = |database: &LanceDatabase| database.query(&queries, QueryOptions::default()).expect("results");
    let sees = |database: &LanceDatabase| {
        let (mut rows, mut sum) = (0, 0);
        let mut visit = |ids: &[u64], items: ndarray::ArrayView2<'_, f32>| {
            assert_eq!(ids.len(), items.nrows());
            for (id, item) in ids.iter().zip(items.rows()) {
                assert_eq!(item, library.row(*id as usize));
                (rows, sum) = (rows + 1, sum + id);
            }
            Ok(())
        };
        database.scan(&mut visit).expect("a scan");
        (rows, sum)
    };
    let open = |index_cache_bytes| {
        let options = OpenOptions::new().index_cache_bytes(index_cache_bytes);
        LanceDatabase::open_with(path.to_string_lossy(), &options).expect("a database")
    };
    let (held, read) = (open(20_000 * 8 * 4), open(20_000 * 8 * 4 - 1));
    let first = ask(&held);
    for database in [&held, &held, &read, &read] {
        assert!(ask(database).equals(&first));
        assert_eq!(sees(database), (20_000, 20_000 * 19_999 / 2));
    }
    // What is held is not taken for what matches.
    let (some, of_read) = (held.clone().prefilter("weight < 0.5"), read.clone().prefilter("weight < 0.5"));
    assert!(f64s(&ask(&some), "weight").iter().all(|weight| *weight < 0.5));
    for _ in 0..2 {
        assert!(ask(&some).equals(&ask(&of_read)));
        assert_eq!(sees(&some), sees(&of_read));
    }
    // Without the files only what is held is seen.
    for entry in std::fs::read_dir(path.join("data")).expect("data") {
        let file = std::fs::OpenOptions::new().write(true).open(entry.expect("a file").path()).expect("opened");
        file.set_len(0).expect("emptied");
    }
    assert_eq!(sees(&held), (20_000, 20_000 * 19_999 / 2));
    assert!(read.scan(&mut |_, _| Ok(())).is_err());
}

#[test]
fn excluded_items_are_replaced_by_the_next_nearest() {
    let folder = folder();
    let library = clustered(3000, 8, 5, &mut rng(8));
    let queries = library.slice(ndarray::s![..4, ..]).to_owned();
    for index in [IndexKind::None, IndexKind::IvfFlat] {
        let options = IndexOptions::new().index(index).partitions(10).overwrite(true);
        let database = open(&dataset(&folder, &library, &options)).k(10).nprobes(10);
        let truth = brute_force(&library, queries.row(0), 40, Metric::L2);
        let exclude = truth[..30].iter().map(|pair| pair.1).collect();
        let options = QueryOptions::new().exclude(&exclude);
        let results = database.query(&queries_of(&queries), options).expect("results");
        let ids: Vec<u64> = found(&results, 0).into_iter().map(|pair| pair.1).collect();
        assert_eq!(ids, truth[30..].iter().map(|pair| pair.1).collect::<Vec<_>>(), "{index:?}");
    }
}

#[test]
fn all_of_a_few_matching_items_are_found_even_if_others_are_excluded() {
    let library = clustered(24_000, 8, 40, &mut rng(51));
    let queries = library.slice(ndarray::s![..8, ..]).to_owned();
    let frame = queries_of(&queries);
    for index in [IndexKind::IvfFlat, IndexKind::IvfRq] {
        let folder = folder();
        let options = IndexOptions::new().index(index).partitions(150);
        // An item in a hundred, a few of them far from a query; then all that match are asked for, and more than do.
        let few = open(&dataset(&folder, &library, &options)).prefilter("weight < 0.01");
        let matching: Vec<usize> = (0..24_000).filter(|row| row * 37 % 100 == 0).collect();
        let of_few = library.select(Axis(0), &matching);
        for (k, left_out) in [(20, 0), (20, 100), (240, 0), (500, 0), (500, 239)] {
            let exclude = matching[..left_out].iter().map(|row| *row as u64).collect();
            let options = QueryOptions::new().k(k).exclude(&exclude);
            let results = few.query(&frame, options).expect("results");
            for (number, query) in (0..).zip(queries.rows()) {
                let truth = brute_force(&of_few, query, 240, Metric::L2).into_iter();
                let truth = truth.map(|(distance, at)| (distance, matching[at as usize] as u64));
                let truth: Vec<_> = truth.filter(|(_, id)| !exclude.contains(id)).take(k).collect();
                assert_eq!(found(&results, number), truth, "{index}, k {k}, {left_out} left out");
            }
        }
    }
}

#[test]
fn rows_that_are_not_indexed_are_found() {
    let mut rng = rng(9);
    let library = clustered(6000, 16, 30, &mut rng);
    let more = clustered(500, 16, 30, &mut rng);
    let all = concatenate(Axis(0), &[library.view(), more.view()]).expect("stacked");
    let queries = more.slice(ndarray::s![..20, ..]).to_owned();
    for (kind, _, batched) in KINDS {
        let folder = folder();
        let path = dataset(&folder, &library, &IndexOptions::new().index(kind));
        append(&path, &more);
        let database = open_files(&path).k(10).nprobes(77);
        let index = database.identity().and_then(|identity| identity.index.clone()).expect("an index");
        assert_eq!(index.unindexed_rows, 500);
        assert_eq!(database.explain(3).expect("a plan").contains("ANNIvfBatch"), batched, "{kind}");
        for database in [database, open(&path).k(10).nprobes(77)] {
            let results = database.query(&queries_of(&queries), QueryOptions::default()).expect("results");
            for (query, number) in queries.rows().into_iter().zip(0..) {
                let found = found(&results, number);
                assert_eq!(found[0].1, 6000 + u64::from(number), "{kind}");
                let truth = brute_force(&all, query, 10, Metric::L2);
                let hits = found.iter().filter(|pair| truth.iter().any(|truth| truth.1 == pair.1)).count();
                assert!(hits >= 9, "{kind}: query {number} found {hits} of 10");
            }
        }
    }
}

/// Appends to a dataset with Lance itself, as another program would.
pub fn append(dataset: &std::path::Path, embeddings: &Array2<f32>) {
    use arrow::array::RecordBatchIterator;
    let frame = items(embeddings);
    let batch = uphill::to_arrow(&frame).expect("a batch");
    let uri = dataset.to_string_lossy().into_owned();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut dataset = lance::Dataset::open(&uri).await.expect("opened");
        let schema = arrow::datatypes::Schema::from(dataset.schema());
        let columns: Vec<_> = schema
            .fields()
            .iter()
            .map(|field| {
                arrow::compute::cast(batch.column_by_name(field.name()).expect("a column"), field.data_type())
                    .expect("cast")
            })
            .collect();
        let batch = arrow::array::RecordBatch::try_new(schema.into(), columns).expect("a batch");
        let schema = batch.schema();
        dataset.append(RecordBatchIterator::new([Ok(batch)], schema), None).await.expect("appended");
    });
}

#[test]
fn a_sample_of_contiguous_ids_equals_a_sample_of_their_list() {
    let folder = folder();
    let path = dataset(&folder, &normal(500, 4, &mut rng(24)), &IndexOptions::default());
    // A prefilter, though all match it, needs the list.
    let assert_as_listed = |there: &[u64]| {
        let (database, listed) = (open(&path), open(&path).prefilter("weight >= 0"));
        for n in [0, 1, 7, 100, 499, 500, 900] {
            for seed in 0..20 {
                let [sample, expected] = [&database, &listed].map(|database| {
                    database.sample(n, &mut uphill::random_stream(seed, "sample", 0, 0)).expect("a sample")
                });
                assert_eq!(sample, expected, "{n} of {}", there.len());
            }
        }
        assert_eq!(database.sample(900, &mut uphill::random_stream(1, "sample", 0, 0)).expect("all"), there);
    };
    assert_as_listed(&(0..500).collect::<Vec<_>>());
    let uri = path.to_string_lossy().into_owned();
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let mut dataset = lance::Dataset::open(&uri).await.expect("opened");
        dataset.delete("name IN ('item 0', 'item 77', 'item 499')").await.expect("deleted");
    });
    let there: Vec<u64> = (0..500).filter(|id| ![0, 77, 499].contains(id)).collect();
    assert_as_listed(&there);
    // As many as there were, but with ids beyond that.
    append(&path, &normal(3, 4, &mut rng(25)));
    assert_as_listed(&[there, vec![500, 501, 502]].concat());
}

#[test]
fn a_metric_that_differs_from_the_index_is_rejected_unless_the_search_is_exact() {
    let folder = folder();
    let library = normal(6000, 8, &mut rng(10));
    let path = dataset(&folder, &library, &IndexOptions::new().index(IndexKind::IvfFlat));
    let options = OpenOptions::new().metric(Metric::Cosine);
    let database = LanceDatabase::open_with(path.to_string_lossy(), &options).expect("opened");
    let queries = queries_of(&library.slice(ndarray::s![..2, ..]).to_owned());
    let message = database.query(&queries, QueryOptions::default()).expect_err("refused").to_string();
    assert_eq!(
        message,
        "database.metric is cosine but the index `embedding_idx` was built for l2; set that metric, or set exact = true"
    );
    let results = database.exact(true).query(&queries, QueryOptions::default()).expect("results");
    let truth = brute_force(&library, library.row(0), 10, Metric::Cosine);
    assert_eq!(
        found(&results, 0).iter().map(|pair| pair.1).collect::<Vec<_>>(),
        truth.iter().map(|pair| pair.1).collect::<Vec<_>>()
    );
}

#[test]
fn take_keeps_the_requested_order_and_rejects_unknown_items() {
    let folder = folder();
    let library = normal(50, 4, &mut rng(11));
    let database = exact_library(&folder, &library);
    let taken = database.take(&[31, 2, 31, 7]).expect("items");
    assert_eq!(u64s(&taken, "db_idx"), [31, 2, 31, 7]);
    let vectors = uphill::matrix::<f32>(&taken, "embedding").expect("vectors");
    assert_eq!(vectors.view().row(1), library.row(2));
    let message = database.take(&[3, 50]).expect_err("refused").to_string();
    assert!(message.ends_with("no item with row id 50"), "{message}");
}

#[test]
fn calls_from_inside_an_async_runtime_work() {
    let folder = folder();
    let library = normal(50, 4, &mut rng(12));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let results = runtime.block_on(async {
        let database = exact_library(&folder, &library);
        database.query(&queries_of(&library), QueryOptions::default())
    });
    assert_eq!(results.expect("results").height(), 500);
}

#[test]
fn a_dataset_of_another_program_uses_its_id_column() {
    let mut rng = rng(13);
    let folder = folder();
    let library = normal(100, 4, &mut rng);
    let path = folder.path().join("theirs.lance");
    let ids: Vec<u64> = (0..100).map(|row| 1000 - row * 3).collect();
    let mut frame = items(&library);
    frame.with_column(Column::new("key".into(), ids.clone())).expect("a column");
    let batch = uphill::to_arrow(&frame).expect("a batch");
    let uri = path.to_string_lossy().into_owned();
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let schema = batch.schema();
        let reader = arrow::array::RecordBatchIterator::new([Ok(batch)], schema);
        lance::Dataset::write(reader, uri.as_str(), None).await.expect("written");
    });
    let options = OpenOptions::new().id_column("key");
    let database = LanceDatabase::open_with(path.to_string_lossy(), &options).expect("opened").k(1);
    let results = database.query(&queries_of(&library), QueryOptions::default()).expect("results");
    assert_eq!(u64s(&results, "db_idx"), ids);
    assert_eq!(u64s(&database.take(&[1000, 703]).expect("items"), "db_idx"), [1000, 703]);
}

#[test]
fn an_id_column_with_fractions_is_rejected() {
    let folder = folder();
    let mut frame = items(&normal(3, 4, &mut rng(14)));
    frame.with_column(Column::new("key".into(), [1.0, 1.5, 2.0])).expect("a column");
    let batch = uphill::to_arrow(&frame).expect("a batch");
    let uri = folder.path().join("theirs.lance").to_string_lossy().into_owned();
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let schema = batch.schema();
        let reader = arrow::array::RecordBatchIterator::new([Ok(batch)], schema);
        lance::Dataset::write(reader, uri.as_str(), None).await.expect("written");
    });
    let error = LanceDatabase::open_with(&uri, &OpenOptions::new().id_column("key")).err().expect("a fraction");
    let expected = format!("database.id_column: `key` in {uri} does not contain non-negative integers: found 1.5");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_small_library_in_memory_finds_the_same_as_its_index_files() {
    for metric in [Metric::L2, Metric::Cosine, Metric::Dot] {
        let seed = fresh_seed();
        println!("{metric}, seed {seed}");
        let mut rng = rng(seed);
        let (folder, vectors) = (folder(), clustered(4000, 24, 30, &mut rng));
        let options = IndexOptions::new().metric(metric).index(IndexKind::IvfFlat).partitions(50);
        let path = dataset(&folder, &vectors, &options);
        let files = open_files(&path);
        let queries = queries_of(&normal(80, 24, &mut rng));
        let booked: HashSet<u64> = (0..4000).filter(|item| item % 3 > 0).collect();
        for (nprobes, k, exclude) in
            [(1, 10, None), (6, 10, None), (6, 10, Some(&booked)), (50, 500, None), (3, 300, None)]
        {
            let ask = |library: &LanceDatabase| {
                let options = QueryOptions::new().k(k);
                let options = exclude.map_or(options, |items| options.exclude(items));
                library.clone().nprobes(nprobes).query(&queries, options).expect("results")
            };
            let (in_memory, from_files) = (ask(&open(&path)), ask(&files));
            if exclude.is_none() {
                assert!(in_memory.equals(&from_files), "{nprobes} partitions, k {k}");
            } else {
                // Of the files more was asked, and of more partitions: what is left out is known only afterwards.
                assert!(u64s(&in_memory, "db_idx").iter().all(|item| item % 3 == 0));
                assert_eq!(in_memory.height(), from_files.height());
            }
        }
    }
}

#[test]
fn the_results_of_a_search_do_not_depend_on_the_cache_size() {
    let mut rng = rng(61);
    let library = clustered(8000, 24, 60, &mut rng);
    let queries = queries_of(&(library.slice(ndarray::s![..60, ..]).to_owned() + normal(60, 24, &mut rng)));
    let booked: HashSet<u64> = (0..8000).filter(|item| item % 3 > 0).collect();
    for (kind, ..) in KINDS {
        let folder = folder();
        let path = dataset(&folder, &library, &IndexOptions::new().index(kind));
        let ask = |bytes: usize, options: QueryOptions<'_>| {
            let open_options = OpenOptions::new().index_cache_bytes(bytes);
            let database = LanceDatabase::open_with(path.to_string_lossy(), &open_options).expect("opened").recall(0.9);
            [0, 1].map(|_| database.query(&queries, options).expect("results"))
        };
        for options in [QueryOptions::new(), QueryOptions::new().exclude(&booked)] {
            let [kept, kept_again] = ask(384 << 20, options);
            let [read, read_again] = ask(0, options);
            assert!(kept.equals(&kept_again) && kept.equals(&read) && kept.equals(&read_again), "{kind}");
        }
    }
}

#[test]
fn an_updated_item_is_found_once_at_its_new_position() {
    let library = clustered(4000, 16, 30, &mut rng(62));
    for kind in [IndexKind::IvfFlat, IndexKind::IvfSq, IndexKind::IvfRq] {
        let folder = folder();
        let path = dataset(&folder, &library, &IndexOptions::new().index(kind));
        // A half moved a little, and one item far away.
        let mut now = library.clone();
        now.slice_mut(ndarray::s![..2000, ..]).mapv_inplace(|value| value * 1.01);
        now.row_mut(7).fill(40.0);
        update(&path, &items(&now).slice(0, 2000));
        let queries = now.slice(ndarray::s![..40, ..]).to_owned();
        for database in [open(&path), open_files(&path), open(&path).exact(true)] {
            assert_eq!(database.len(), 4000);
            let results =
                database.k(10).recall(0.999).query(&queries_of(&queries), QueryOptions::new()).expect("results");
            assert_eq!(results.height(), 400, "{kind}");
            for (query, number) in queries.rows().into_iter().zip(0..) {
                let met = found(&results, number);
                let ids: HashSet<u64> = met.iter().map(|(_, id)| *id).collect();
                assert_eq!(ids.len(), 10, "{kind}: query {number} met {met:?}");
                assert_eq!(met[0], (0.0, u64::from(number)), "{kind}: the item itself, where it is now");
                for (distance, id) in met {
                    let item = now.row(id as usize);
                    let truth = Metric::L2.distance(query.as_slice().expect("a row"), item.as_slice().expect("a row"));
                    assert_eq!(distance, truth, "{kind}");
                }
            }
        }
    }
}
