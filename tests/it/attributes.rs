//! Attributes are fetched for what decides, and for what is scored: candidates that nobody wants cost no text.

use std::sync::{Arc, Mutex};

use polars::prelude::*;
use uphill::{
    BlockVisitor, DatasetIdentity, Features, Filter, IndexKind, IndexOptions, LanceDatabase, Metric, OpenOptions,
    QueryOptions, Result, Runner, SearchLog, SqlFilter, SqlScore, StopConditions, SurrogateUpdate, TopKUpdate,
    VectorDatabase,
};

use crate::common::*;

/// What was asked of a library: attributes that a search or a take wanted (all where `None`), and rows taken with all.
#[derive(Default)]
struct Asked {
    searches: Vec<Option<Vec<String>>>,
    some: Vec<Vec<String>>,
    whole: usize,
}

/// A library that notes what it is asked for.
struct Watched {
    library: LanceDatabase,
    asked: Arc<Mutex<Asked>>,
}

impl VectorDatabase for Watched {
    fn len(&self) -> u64 {
        self.library.len()
    }
    fn dim(&self) -> usize {
        self.library.dim()
    }
    fn metric(&self) -> Metric {
        self.library.metric()
    }
    fn identity(&self) -> Option<&DatasetIdentity> {
        self.library.identity()
    }
    fn query(&self, queries: &DataFrame, options: QueryOptions<'_>) -> Result<DataFrame> {
        if queries.height() > 0 {
            self.asked.lock().expect("no panic").searches.push(options.columns.map(<[String]>::to_vec));
        }
        self.library.query(queries, options)
    }
    fn take(&self, db_idx: &[u64]) -> Result<DataFrame> {
        self.asked.lock().expect("no panic").whole += db_idx.len();
        self.library.take(db_idx)
    }
    fn take_columns(&self, db_idx: &[u64], columns: &[String]) -> Result<DataFrame> {
        self.asked.lock().expect("no panic").some.push(columns.to_vec());
        self.library.take_columns(db_idx, columns)
    }
    fn sample(&self, n: usize, rng: &mut uphill::RandomStream) -> Result<Vec<u64>> {
        self.library.sample(n, rng)
    }
    fn scan(&self, visit: &mut BlockVisitor<'_>) -> Result<()> {
        self.library.scan(visit)
    }
    fn features(&self, wanted: &Features, hidden: &[String]) -> Result<uphill::ItemFeatures> {
        self.library.features(wanted, hidden)
    }
}

/// 120 items asked of 1500 by the default rule, which reads embeddings only; what it asked of the library.
fn search(library: &LanceDatabase, filter: impl Filter + 'static) -> (SearchLog, Asked) {
    let asked = Arc::default();
    let watched = Watched { library: library.clone(), asked: Arc::clone(&asked) };
    let start = library.sample(16, &mut uphill::random_stream(5, "queries", 0, 0)).expect("a sample");
    let queries = uphill::queries_at(library, &start).expect("queries");
    let rule = SurrogateUpdate::new().features(Features::columns([] as [&str; 0]));
    let stop = StopConditions::new().evaluations(120).nothing_new(20);
    let log = Runner::new(watched, SqlScore::new("weight"), rule)
        .filter(filter)
        .seed(5)
        .stop(stop)
        .search(&queries, 1000)
        .expect("a search");
    let asked = std::mem::take(&mut *asked.lock().expect("no panic"));
    (log, asked)
}

fn results(log: &SearchLog) -> DataFrame {
    uphill::collect(log.compile_results().expect("a query")).expect("rows")
}

#[test]
fn all_attributes_are_fetched_only_for_scored_items() {
    let folder = folder();
    let library = exact_library(&folder, &clustered(1500, 6, 12, &mut rng(41)));
    let (log, asked) = search(&library, SqlFilter::new("name NOT LIKE '%7'"));
    assert!(!asked.searches.is_empty());
    for wanted in
        asked.searches.iter().map(|wanted| wanted.as_deref()).chain(asked.some.iter().map(|some| Some(&some[..])))
    {
        assert!(wanted.is_some_and(|wanted| wanted.iter().all(|column| column == "name")), "{wanted:?}");
    }
    // The last batch was cut to the budget.
    assert!((120..130).contains(&asked.whole), "{} rows fetched whole", asked.whole);

    let found = results(&log);
    assert_eq!(found.height(), 120);
    let rows = library.take(&u64s(&found, "db_idx")).expect("items");
    for column in library.column_names() {
        let (found, rows) = (found.column(column).expect("an attribute"), rows.column(column).expect("an attribute"));
        assert_eq!(found.as_materialized_series(), rows.as_materialized_series(), "{column}");
    }
    let names = found.column("name").expect("names").str().expect("text").clone();
    assert!(names.iter().flatten().all(|name| !name.ends_with('7')), "the filter decides by what it is given");
}

#[test]
fn a_filter_that_does_not_name_its_columns_gets_all_attributes_and_the_run_is_the_same() {
    let folder = folder();
    let library = exact_library(&folder, &clustered(1500, 6, 12, &mut rng(42)));
    let attributes = library.column_names().len();
    let (by_name, _) = search(&library, SqlFilter::new("weight < 0.5"));
    let (opaque, asked) = search(&library, move |results: DataFrame| {
        assert_eq!(results.width(), 4 + attributes, "a filter that was not given all");
        let keep = results.column("weight")?.f64()?.lt(0.5);
        Ok(results.filter(&keep)?)
    });
    assert!(asked.searches.iter().all(Option::is_none), "{:?}", asked.searches);
    assert!(results(&by_name).equals_missing(&results(&opaque)), "two runs that differ");
}

#[test]
fn all_attributes_are_fetched_at_once_for_a_rule_that_scores_all_candidates() {
    let folder = folder();
    let embeddings = clustered(1500, 6, 12, &mut rng(43));
    let options = IndexOptions::new().index(IndexKind::IvfFlat);
    let library = open(&dataset(&folder, &embeddings, &options));
    let asked: Arc<Mutex<Asked>> = Arc::default();
    let watched = Watched { library: library.clone(), asked: Arc::clone(&asked) };
    let queries = uphill::queries_at(&library, &[3, 300, 900]).expect("queries");
    let mut runner =
        Runner::new(watched, SqlScore::new("weight"), TopKUpdate::new(2)).filter(SqlFilter::new("weight > 0"));
    let log = runner.search(&queries, 5).expect("a search");
    let asked = asked.lock().expect("no panic");
    assert!(asked.searches.len() == 5 && asked.searches.iter().all(Option::is_none), "{:?}", asked.searches);
    assert_eq!(asked.whole, 0, "nothing is fetched a second time");
    assert!(results(&log).height() > 0);
}

/// Overwrites the data of a dataset in its place, so that who reads it again gets something else.
fn spoil(dataset: &std::path::Path) {
    for file in std::fs::read_dir(dataset.join("data")).expect("data files") {
        let path = file.expect("a file").path();
        let bytes = std::fs::metadata(&path).expect("a size").len() as usize;
        let mut file = std::fs::OpenOptions::new().write(true).open(&path).expect("a file");
        std::io::Write::write_all(&mut file, &vec![0u8; bytes]).expect("zeros");
    }
}

/// Items of every kind of attribute, some of them null.
fn of_many_types(rows: usize, text: usize) -> DataFrame {
    let embeddings = clustered(rows, 6, 12, &mut rng(44));
    let some = |row: usize| !row.is_multiple_of(7);
    let mut items = items(&embeddings);
    let long = (0..rows).map(|row| some(row).then(|| format!("{row} ").repeat(text)));
    let flags: BooleanChunked = (0..rows).map(|row| some(row).then_some(row.is_multiple_of(3))).collect();
    let days: Vec<Option<i32>> = (0..rows).map(|row| some(row).then_some(row as i32)).collect();
    let small: Vec<Option<u16>> = (0..rows).map(|row| some(row).then_some(row as u16)).collect();
    for column in [
        StringChunked::from_iter_options("long".into(), long).into_column(),
        flags.with_name("flag".into()).into_column(),
        Column::new("day".into(), days).cast(&DataType::Date).expect("dates"),
        Column::new("small".into(), small),
    ] {
        items.with_column(column).expect("a column");
    }
    items
}

/// The dataset of some items and the library in it, once it was searched.
fn searched(folder: &tempfile::TempDir, items: &DataFrame, bytes: usize) -> (std::path::PathBuf, LanceDatabase) {
    let (parquet, dataset) = (folder.path().join("items.parquet"), folder.path().join(format!("{bytes}.lance")));
    write(&parquet, items);
    uphill::index(&parquet, &dataset, &IndexOptions::new().index(IndexKind::IvfFlat)).expect("an index");
    let options = OpenOptions::new().index_cache_bytes(bytes);
    let library = LanceDatabase::open_with(dataset.to_string_lossy(), &options).expect("a library");
    let queries = uphill::queries_at(&library, &[3]).expect("queries");
    library.query(&queries, QueryOptions::new()).expect("neighbours");
    (dataset, library)
}

#[test]
fn attributes_of_a_small_library_are_read_once_and_equal_those_in_the_files() {
    let folder = folder();
    let items = of_many_types(1500, 3);
    let (_, from_files) = searched(&folder, &items, 1 << 10);
    let (dataset, library) = searched(&folder, &items, 64 << 20);
    // Another choice each time, in another order.
    let choice = |time: u64| (0..50).map(|item| (item * 331 + time * 17) % 1500).collect::<Vec<u64>>();
    for time in 0..6 {
        let (taken, expected) = (library.take(&choice(time)), from_files.take(&choice(time)));
        assert!(taken.expect("items").equals_missing(&expected.expect("items")), "time {time}");
    }
    spoil(&dataset);
    let columns = ["small", "name", "long"].map(String::from);
    for time in 6..9 {
        let (taken, expected) = (library.take(&choice(time)), from_files.take(&choice(time)));
        assert!(taken.expect("items").equals_missing(&expected.expect("items")), "time {time}");
        let some = library.take_columns(&choice(time), &columns).expect("items");
        let expected = from_files.take_columns(&choice(time), &columns).expect("items");
        assert!(some.equals_missing(&expected), "time {time}: {some}");
    }
}

#[test]
fn attributes_that_exceed_the_cache_are_not_cached() {
    let items = of_many_types(1500, 800);
    // Of the first the text is long, of the others it is null: what they take does not tell what all of it does.
    for fetched in [[8, 9, 10], [0, 7, 14]] {
        let folder = folder();
        let (dataset, library) = searched(&folder, &items, 4 << 20);
        let (long, others) = (["long".to_string()], ["weight", "flag"].map(String::from));
        let before = library.take_columns(&[5, 6], &others).expect("items");
        for _ in 0..6 {
            library.take(&fetched).expect("items");
        }
        let long_before = library.take_columns(&[5, 6], &long).expect("items");
        spoil(&dataset);
        assert!(library.take_columns(&[5, 6], &others).expect("items").equals_missing(&before));
        let read_again = library.take_columns(&[5, 6], &long);
        assert!(!read_again.is_ok_and(|items| items.equals_missing(&long_before)), "3 MB of text were held in 256 kB");
    }
}
