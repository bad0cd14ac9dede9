//! The same answer everywhere: threads, time zones, languages and settings of the libraries underneath do not change a
//! run's frames. Compared as values after reading, floats by their bits.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use polars::prelude::*;
use uphill::{GradientDatabase, LanceDatabase, QueryOptions, RlUpdate, Runner, SearchLog, SqlScore, VectorDatabase};

use crate::common::*;

/// Environments that may not matter.
fn environments() -> Vec<Vec<(&'static str, &'static str)>> {
    const THREADS: [&str; 6] = [
        "POLARS_MAX_THREADS",
        "RAYON_NUM_THREADS",
        "TOKIO_WORKER_THREADS",
        "LANCE_CPU_THREADS",
        "LANCE_IO_THREADS",
        "MATMUL_NUM_THREADS",
    ];
    let mut all: Vec<Vec<_>> = ["1", "2", "8"].map(|n| THREADS.map(|name| (name, n)).to_vec()).to_vec();
    all.push(vec![("TZ", "Asia/Kathmandu"), ("LANG", "tr_TR.UTF-8"), ("LC_ALL", "de_DE.UTF-8")]);
    all.push(vec![("TZ", "America/St_Johns"), ("LANG", "C"), ("LC_ALL", "C")]);
    all.push(vec![
        ("POLARS_IDEAL_MORSEL_SIZE", "7"),
        ("POLARS_FMT_MAX_ROWS", "2"),
        ("POLARS_ROW_INDEX_TYPE", "u32"),
        ("POLARS_AUTO_NEW_STREAMING", "1"),
        ("POLARS_FORCE_NEW_STREAMING", "1"),
        ("POLARS_MAX_CONCURRENT_SCANS", "1"),
    ]);
    all.push(vec![
        ("LANCE_DEFAULT_BATCH_SIZE", "100"),
        ("LANCE_DEFAULT_FRAGMENT_READAHEAD", "1"),
        ("LANCE_PROCESS_IO_THREADS_LIMIT", "1"),
        ("LANCE_AUTO_NPROBES_MIN", "1"),
        ("DATAFUSION_EXECUTION_BATCH_SIZE", "64"),
        ("DATAFUSION_EXECUTION_TARGET_PARTITIONS", "3"),
    ]);
    all
}

/// All frames below a folder, by path.
fn frames(run: &Path) -> Vec<(PathBuf, DataFrame)> {
    let mut files = Vec::new();
    let mut folders = vec![run.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.extension().is_some_and(|extension| extension == "parquet") {
                true => files.push(path),
                false if path.is_dir() => folders.push(path),
                false => {}
            }
        }
    }
    files.sort();
    files.into_iter().map(|file| (file.strip_prefix(run).expect("below").to_path_buf(), read(&file))).collect()
}

/// The values of a frame, a number for each float.
fn bits(frame: &DataFrame) -> Vec<String> {
    let columns = frame.columns().iter().map(|column| {
        let numbers = match column.dtype() {
            DataType::Array(inner, _) if **inner == DataType::Float64 => {
                let matrix = uphill::matrix::<f64>(frame, column.name()).expect("a matrix");
                matrix.view().iter().map(|value| value.to_bits().to_string()).collect()
            }
            DataType::Float64 => {
                column.f64().expect("f64").iter().map(|value| format!("{:?}", value.map(f64::to_bits))).collect()
            }
            DataType::Float32 => {
                column.f32().expect("f32").iter().map(|value| format!("{:?}", value.map(f32::to_bits))).collect()
            }
            _ => (0..column.len()).map(|row| column.get(row).expect("a value").to_string()).collect::<Vec<_>>(),
        };
        format!("{} {}: {}", column.name(), column.dtype(), numbers.join(" "))
    });
    columns.collect()
}

fn assert_same_frames(run: &Path, expected: &Path, what: &str) {
    let (run, expected) = (frames(run), frames(expected));
    assert!(expected.len() > 4, "nothing to compare");
    let names = |frames: &[(PathBuf, DataFrame)]| frames.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&run), names(&expected), "{what}");
    for ((path, found), (_, expected)) in run.iter().zip(&expected) {
        for (found, expected) in bits(found).into_iter().zip(bits(expected)) {
            assert!(found == expected, "{what}: {}:\n{found}\nis not\n{expected}", path.display());
        }
    }
}

fn command(environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uphill"));
    for (name, _) in environments().concat() {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    command
}

#[test]
fn runs_do_not_depend_on_threads_time_zones_languages_and_settings_of_dependencies() {
    let folder = folder();
    let data = root().join("data/molecules.parquet");
    uphill_ok(&["index", &data.to_string_lossy(), "indexed.lance"], folder.path());
    uphill_ok(&["index", &data.to_string_lossy(), "exact.lance", "--index", "none"], folder.path());
    for library in ["indexed", "exact"] {
        for (rule, update) in [("rl", "lr = 1.0\ndistance_penalty = 0.1"), ("top-k", "k = 3")] {
            let text = format!(
                "seed = 7\n[database]\npath = \"{library}.lance\"\nk = 10\n[queries]\nsample = 70\n[filter]\nsql = \"mw < 500\"\n\
                 [score]\nsql = \"0.7 * qed - abs(mw - 300) / 1000\"\n[update]\nrule = \"{rule}\"\n{update}\n[stop]\niterations = 4\n"
            );
            std::fs::write(folder.path().join("run.toml"), text).expect("written");
            let base = format!("{library}-{rule}");
            uphill_ok(&["search", "run.toml", "--out", &base], folder.path());
            for (at, environment) in environments().iter().enumerate() {
                let out = format!("{base}-{at}");
                let mut search = command(environment);
                let output = search
                    .args(["search", "run.toml", "--out", &out])
                    .current_dir(folder.path())
                    .output()
                    .expect("runs");
                assert!(output.status.success(), "{environment:?}: {}", stderr(&output));
                let what = format!("{base} with {environment:?}");
                assert_same_frames(&folder.path().join(&out), &folder.path().join(&base), &what);
                std::fs::remove_dir_all(folder.path().join(out)).expect("removed");
            }
            // And once more in the same environment: the same seed, the same run.
            uphill_ok(&["search", "run.toml", "--out", "again"], folder.path());
            assert_same_frames(&folder.path().join("again"), &folder.path().join(&base), "the same seed");
            std::fs::remove_dir_all(folder.path().join("again")).expect("removed");
        }
    }
}

#[test]
fn what_commands_print_does_not_depend_on_the_environment() {
    let folder = folder();
    let mut frame = items(&clustered(400, 4, 5, &mut rng(1)));
    let times = Column::new("when".into(), (0..400i64).map(|day| day * 86_400_000_000).collect::<Vec<_>>());
    frame.with_column(times.cast(&DataType::Datetime(TimeUnit::Microseconds, None)).expect("times")).expect("a column");
    write(&folder.path().join("items.parquet"), &frame);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let run = "[database]\npath = \"items.lance\"\n[stop]\niterations = 3\n[score]\nsql = \"weight\"\n";
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    for arguments in [
        &["results", "run"][..],
        &["results", "run", "--format", "json"],
        &["results", "run", "--format", "table"],
        &["trajectories", "run"],
        &["queries", "run"],
        &["inspect", "run"],
    ] {
        let expected = uphill_ok(arguments, folder.path());
        for environment in environments() {
            let output = command(&environment).args(arguments).current_dir(folder.path()).output().expect("runs");
            assert!(String::from_utf8_lossy(&output.stdout) == expected, "{arguments:?} with {environment:?}");
        }
    }
}

/// In a process of its own, as threads are counted once: this test runs itself.
#[test]
fn gradient_queries_do_not_depend_on_threads() {
    const ME: &str = "determinism::gradient_queries_do_not_depend_on_threads";
    if let (Some(dataset), Some(out)) = (std::env::var_os("UPHILL_TEST_DATASET"), std::env::var_os("UPHILL_TEST_OUT")) {
        let database = LanceDatabase::open(dataset.to_string_lossy()).expect("a dataset").k(10);
        let start = uphill::queries_at(&database, &(0..70).map(|n| n * 13).collect::<Vec<u64>>()).expect("queries");
        // To the mean of the queries: each gradient depends on all vectors.
        let gradient = |queries: ndarray::ArrayView2<'_, f64>| {
            // Of no queries, as the runner asks first, there is no mean.
            queries.mean_axis(ndarray::Axis(0)).map_or(queries.to_owned(), |mean| &queries - &mean)
        };
        let database = GradientDatabase::new(database, gradient, [0.0, 0.1, 0.5]);
        let mut runner = Runner::new(database, SqlScore::new("weight"), RlUpdate::new(0.5));
        runner.search_into(out, &start, 4).expect("a search");
        return;
    }
    let folder = folder();
    dataset(&folder, &clustered(6_000, 16, 40, &mut rng(2)), &Default::default());
    let run = |out: &str, environment: &[(&str, &str)]| {
        let output = Command::new(std::env::current_exe().expect("this test"))
            .args([ME, "--exact"])
            .env("UPHILL_TEST_DATASET", folder.path().join("items.lance"))
            .env("UPHILL_TEST_OUT", folder.path().join(out))
            .envs(environment.iter().copied())
            .output()
            .expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        folder.path().join(out)
    };
    let expected = run("base", &[]);
    assert_eq!(SearchLog::open(&expected).expect("a run").iterations(), [0, 1, 2, 3]);
    for (at, environment) in environments().iter().enumerate() {
        assert_same_frames(&run(&at.to_string(), environment), &expected, &format!("{environment:?}"));
    }
}

#[test]
fn an_index_does_not_depend_on_threads_and_is_the_same_each_time() {
    let one_thread = [("RAYON_NUM_THREADS", "1"), ("LANCE_CPU_THREADS", "1"), ("TOKIO_WORKER_THREADS", "1")];
    for (rows, dim, arguments) in [
        // More rows than codes are learnt from, and more partitions than are learnt at once.
        (70_000, 16, ["ivf-flat", "l2", "auto"]),
        (70_000, 16, ["ivf-sq", "cosine", "auto"]),
        (70_000, 4, ["ivf-pq", "cosine", "auto"]),
        (70_000, 4, ["ivf-pq", "dot", "auto"]),
        (70_000, 16, ["ivf-rq", "l2", "auto"]),
        (3_000, 16, ["ivf-hnsw-sq", "l2", "2"]),
        // Centroids of more than a million components, which Lance puts into a graph.
        (1_000, 4096, ["ivf-flat", "l2", "250"]),
        (1_000, 4096, ["ivf-flat", "l2", "300"]),
    ] {
        let folder = folder();
        write(&folder.path().join("items.parquet"), &items(&clustered(rows, dim, 40, &mut rng(31))));
        let queries = uphill::queries(clustered(50, dim, 40, &mut rng(32)).mapv(f64::from).view()).expect("queries");
        let dataset = folder.path().join("items.lance");
        let [kind, metric, partitions] = arguments;
        let built: Vec<_> = [&one_thread[..], &[], &[]]
            .iter()
            .map(|environment| {
                let mut index = command(environment);
                index.args(["index", "items.parquet", "items.lance", "--overwrite", "--index", kind]);
                index.args(["--metric", metric, "--partitions", partitions]).current_dir(folder.path());
                let output = index.output().expect("runs");
                assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
                let found = open(&dataset).k(20).nprobes(1).query(&queries, QueryOptions::default()).expect("found");
                (found, index_files(&dataset))
            })
            .collect();
        for (found, files) in &built[1..] {
            let (expected, expected_files) = &built[0];
            assert!(found == expected, "{arguments:?}: other neighbours:\n{found}\nare not\n{expected}");
            assert!(files == expected_files, "{arguments:?}: the files of the index differ");
        }
    }
}

/// Names and bytes of the files of the one index. The bytes are sorted, as Lance writes metadata in any order.
fn index_files(dataset: &Path) -> Vec<(OsString, Vec<u8>)> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect()
    };
    let folders = entries(&dataset.join("_indices"));
    let [folder] = folders.as_slice() else { panic!("one index, found {folders:?}") };
    let mut files: Vec<(OsString, Vec<u8>)> = entries(folder)
        .iter()
        .map(|file| (file.file_name().expect("a name").into(), std::fs::read(file).expect("bytes")))
        .collect();
    files.sort();
    files.iter_mut().for_each(|(_, bytes)| bytes.sort_unstable());
    files
}
