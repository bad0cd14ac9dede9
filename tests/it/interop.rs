//! A run folder is plain Parquet: DuckDB, Polars and pyarrow read it.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use polars::prelude::*;

use crate::common::*;
use crate::predictions::Place;
use crate::python::{python, succeeds};

const ITEMS: usize = 2000;
const DIM: usize = 16;
const TITLES: [&str; 9] = [
    "the ten best items",
    "the best score so far, by evaluations",
    "iterations",
    "items without a score",
    "how far the queries moved",
    "calibration: scores within 1.28 deviations of the prediction, by hundred scores",
    "parity: predicted against scored, by hundred scores",
    "the scores per entry into the best 100, by hundred scores",
    "forecast against truth: entries of each batch",
];

/// A finished run of twelve iterations, in `run`. One item in ten has no score.
fn a_run() -> (TempDir, PathBuf) {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(ITEMS, DIM, 20, &mut rng(11))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    let run_file = "
seed = 7
[database]
path = 'items.lance'
[queries]
sample = 8
[score]
sql = 'CASE WHEN weight >= 0.9 THEN NULL ELSE weight END'
[update]
rule = 'rl'
lr = 0.3
[stop]
iterations = 12
";
    std::fs::write(folder.path().join("run.toml"), run_file).expect("a run file");
    uphill_ok(&["search", "run.toml", "--out", "run"], folder.path());
    let run = folder.path().join("run");
    (folder, run)
}

/// Runs a Python script, which must succeed, in a folder.
fn run_python(script: &str, arguments: &[&str], folder: &Path) -> String {
    // A file, so that a traceback shows the line.
    let mut file = tempfile::Builder::new().suffix(".py").tempfile().expect("a file");
    file.write_all(script.as_bytes()).expect("a script");
    succeeds(Command::new(python()).arg(file.path()).args(arguments).current_dir(folder))
}

fn csv(text: impl AsRef<[u8]>) -> DataFrame {
    let options = CsvReadOptions::default().with_infer_schema_length(None);
    options.into_reader_with_file_handle(Cursor::new(text.as_ref())).finish().expect("CSV")
}

#[test]
fn analyse_sql_finds_in_duckdb_what_the_command_prints() {
    const SCRIPT: &str = r#"
import sys
import duckdb, polars as pl
connection = duckdb.connect()
frames = []
for statement in connection.extract_statements(open(sys.argv[1]).read()):
    table = connection.execute(statement).to_arrow_table()
    if statement.type == duckdb.StatementType.SELECT:
        frames.append(pl.from_arrow(table))
best, best_so_far, by_iteration, failed, movement, calibration, parity, entry_cost, forecasts = frames
assert best_so_far["best_so_far"].is_sorted() and best_so_far["best_so_far"][-1] == best["score"][0], best_so_far
assert by_iteration["iteration"].to_list() == list(range(12)), by_iteration
assert by_iteration["new_items"].cum_sum().to_list() == by_iteration["evaluations"].to_list(), by_iteration
assert failed["reason"].to_list() == ["no score"] and failed["outcome"].to_list() == ["failed"] and failed["items"][0] > 0, failed
assert movement["iteration"].to_list() == list(range(1, 13)) and movement["mean_step"].min() > 0, movement
# The rule has no model.
assert calibration.is_empty() and parity.is_empty() and forecasts.is_empty(), frames
assert entry_cost["scores"].sum() <= by_iteration["evaluations"].max(), entry_cost
print(best.write_csv(), end="")
"#;
    let (_folder, run) = a_run();
    let sql = root().join("examples/analyse.sql");
    let theirs = run_python(SCRIPT, &[&sql.to_string_lossy()], &run);
    let ours = uphill_ok(&["results", ".", "--format", "csv", "-n", "10"], &run);
    let (theirs, ours) = (csv(theirs), csv(ours));
    assert_eq!(ours.height(), 10);
    assert!(ours.equals_missing(&theirs), "{ours}\n{theirs}");
}

#[test]
fn analyse_py_prints_each_frame_under_its_title() {
    let (folder, run) = a_run();
    let script = root().join("examples/analyse.py");
    let stdout = succeeds(Command::new(python()).arg(script).arg(&run).current_dir(folder.path()));
    for title in TITLES {
        assert!(stdout.lines().any(|line| line == title), "{title}: {stdout}");
    }
    // Ten items of eight columns, twelve iterations, one outcome and reason, twelve updates.
    // The rule has no model: no calibration, no parity, no forecasts.
    for shape in ["(10, 8)", "(12, 6)", "(1, 3)", "(12, 4)", "(0, 4)"] {
        assert!(stdout.lines().any(|line| line == format!("shape: {shape}")), "{shape}: {stdout}");
    }
    let best = csv(uphill_ok(&["results", "run", "--format", "csv", "-n", "10"], folder.path()));
    let first = best.column("name").expect("name").str().expect("text").get(0).expect("a name").to_string();
    let printed = stdout.lines().find(|line| line.starts_with("│ ") && line.contains("┆ item ")).expect("an item");
    assert!(printed.contains(&format!("┆ {first} ")), "{first}: {stdout}");
}

#[test]
fn analyse_sql_and_py_agree_with_plain_python_on_predictions() {
    const SCRIPT: &str = r#"
import importlib.machinery, importlib.util, runpy, statistics, sys
from collections import defaultdict
import duckdb, polars as pl
from polars.testing import assert_frame_equal
sql, py, benchmark = sys.argv[1:]
connection = duckdb.connect()
frames = []
for statement in connection.extract_statements(open(sql).read()):
    table = connection.execute(statement).to_arrow_table()
    if statement.type == duckdb.StatementType.SELECT:
        frames.append(pl.from_arrow(table))
in_sql = dict(zip(["calibration", "parity", "entry_cost", "forecasts"], frames[-4:]))
sys.argv = [py, "."]
in_polars = runpy.run_path(py)
for name, frame in in_sql.items():
    assert_frame_equal(frame, in_polars[name].collect(), check_dtypes=False, abs_tol=1e-5)

loader = importlib.machinery.SourceFileLoader("forecast", benchmark)
forecast = importlib.util.module_from_spec(importlib.util.spec_from_loader("forecast", loader))
loader.exec_module(forecast)
results = pl.read_parquet("results/**/*.parquet", hive_partitioning=True).sort("iteration", "evaluation")
expected = forecast.forecasts(results)
assert len(expected) > 10
found = in_polars["forecasts"].collect().select("items", "forecast", "entries").rows()
assert len(found) == len(expected), (found, expected)
for (items, mean, entries), (height, entries_forecast, came, *_) in zip(found, expected):
    assert (items, entries) == (height, came) and abs(mean - entries_forecast) < 1e-9 * mean, (found, expected)

def mean_ranks(values):
    ascending, descending = sorted(values), sorted(values, reverse=True)
    return [ascending.index(value) - descending.index(value) for value in values]

hundreds = defaultdict(list)
for row in results.iter_rows(named=True):
    if row["score"] is not None and row["predicted"] is not None:
        hundreds[(row["evaluation"] + 99) // 100].append(row)
calibration, parity = (in_polars[name].collect().rows_by_key("hundred", named=True, unique=True) for name in ["calibration", "parity"])
assert set(hundreds) == set(calibration) == set(parity) == {1, 2, 3}, (calibration, parity)
for hundred, rows in hundreds.items():
    predicted, scores = ([row[name] for row in rows] for name in ["predicted", "score"])
    off = [score - mean for mean, score in zip(predicted, scores)]
    within = sum(abs(error) < 1.2816 * row["deviation"] for error, row in zip(off, rows)) / len(rows)
    found, ranks = calibration[hundred], statistics.correlation(mean_ranks(predicted), mean_ranks(scores))
    assert found["predictions"] == len(rows) and abs(found["covered"] - within) < 1e-9, (found, within)
    assert abs(found["mean_error"] - statistics.fmean(off)) < 1e-9, found
    assert abs(parity[hundred]["rank_correlation"] - ranks) < 1e-9, (parity, ranks)
    assert abs(parity[hundred]["predicted"] - statistics.fmean(predicted)) < 1e-9, parity

entry_cost = in_polars["entry_cost"].collect()
# Without the batches that were scored before 100 scores were known.
first = len(results) - sum(height for height, *_ in expected)
assert entry_cost["scores"].sum() == len(results) - first and entry_cost["entries"].sum() == sum(came for _, _, came, *_ in expected), entry_cost
for hundred, scores, entries, each in entry_cost.rows():
    assert each is None if entries == 0 else abs(each - scores / entries) < 1e-9, entry_cost
"#;
    let place = Place::new();
    // Some scores are equal, and some items have none.
    place.run_file(220, "sql = 'CASE WHEN value > -0.2 THEN round(value, 2) END'\n", ("", "", ""));
    place.search("run", &[]);
    let paths = ["examples/analyse.sql", "examples/analyse.py", "benches/forecast"].map(|path| root().join(path));
    run_python(SCRIPT, &paths.each_ref().map(|path| path.to_str().expect("text")), &place.path("run"));
}

#[test]
fn duckdb_polars_and_pyarrow_read_the_documented_types() {
    const SCRIPT: &str = r#"
import sys
import duckdb, polars as pl, pyarrow as pa, pyarrow.dataset as ds
dim = int(sys.argv[1])

def expect(engine, found, **wanted):
    for name, dtype in wanted.items():
        assert found[name] == dtype, (engine, name, found[name], dtype)

def of_duckdb(kind):
    described = duckdb.sql(f"describe from read_parquet('{kind}/*/*.parquet', hive_types = {{'iteration': uinteger}})")
    return {row[0]: row[1] for row in described.fetchall()}
expect("duckdb", of_duckdb("queries"), query_idx="UINTEGER", parent_idx="UINTEGER", collection_idx="UINTEGER",
       embedding="DOUBLE[]", iteration="UINTEGER")
expect("duckdb", of_duckdb("results"), query_idx="UINTEGER", db_idx="UBIGINT", distance="FLOAT", name="VARCHAR",
       weight="DOUBLE", score="DOUBLE", outcome="VARCHAR", reason="VARCHAR", evaluation="UBIGINT", iteration="UINTEGER")

def of_polars(kind):
    return pl.scan_parquet(f"{kind}/*/*.parquet", hive_partitioning=True).collect_schema()
expect("polars", of_polars("queries"), query_idx=pl.UInt32, parent_idx=pl.UInt32, collection_idx=pl.UInt32,
       embedding=pl.Array(pl.Float64, dim), iteration=pl.Int64)
expect("polars", of_polars("results"), query_idx=pl.UInt32, db_idx=pl.UInt64, distance=pl.Float32, name=pl.String,
       weight=pl.Float64, score=pl.Float64, outcome=pl.String, reason=pl.String, evaluation=pl.UInt64, iteration=pl.Int64)

def of_pyarrow(kind):
    schema = ds.dataset(kind, partitioning="hive").schema
    return {field.name: field.type for field in schema}
queries, results = of_pyarrow("queries"), of_pyarrow("results")
vectors = queries["embedding"]
assert pa.types.is_fixed_size_list(vectors) and vectors.list_size == dim and vectors.value_type == pa.float64(), vectors
expect("pyarrow", queries, query_idx=pa.uint32(), parent_idx=pa.uint32(), collection_idx=pa.uint32(), iteration=pa.int32())
expect("pyarrow", results, query_idx=pa.uint32(), db_idx=pa.uint64(), distance=pa.float32(), weight=pa.float64(),
       score=pa.float64(), evaluation=pa.uint64(), iteration=pa.int32())
for name in ["name", "reason"]:
    dtype = results[name]
    assert pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype), (name, dtype)

# An embedding is never without a value. DuckDB sees the folder names unasked, but as text: they are padded with zeros.
table = ds.dataset("queries", partitioning="hive").to_table()
assert table["embedding"].null_count == 0 and table["iteration"].to_pylist()[-1] == 12
assert duckdb.sql("select max(iteration::int) from 'results/*/*.parquet'").fetchall() == [(11,)]
assert "embedding" not in results
"#;
    let (_folder, run) = a_run();
    run_python(SCRIPT, &[&DIM.to_string()], &run);
}
