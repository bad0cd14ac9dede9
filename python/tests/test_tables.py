"""Tests of input tables of each library, and of Polars frames as results."""

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

import uphill
from uphill import _uphill


def arrow(molecules: pl.DataFrame) -> pa.Table:
    return molecules.to_arrow()


def pandas(molecules: pl.DataFrame) -> pd.DataFrame:
    columns = {name: molecules[name].to_list() for name in molecules.columns if name != "embedding"}
    return pd.DataFrame({**columns, "embedding": list(molecules["embedding"].to_numpy())})


def relation(molecules: pl.DataFrame) -> duckdb.DuckDBPyRelation:
    table = molecules.to_arrow()
    return duckdb.connect().from_arrow(table)


def chunked(molecules: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([molecules[:7], molecules[7:1500], molecules[1500:]], rechunk=False)


@pytest.mark.parametrize("table", [lambda molecules: molecules, chunked, arrow, pandas, relation])
def test_a_library_is_the_same_whatever_table_it_comes_from(molecules, dataset, table):
    library = uphill.index(table(molecules), "other.lance")
    expected = uphill.open(dataset)
    ids = range(len(expected))
    items = library.take(ids)
    assert isinstance(items, pl.DataFrame)
    assert_frame_equal(items, expected.take(ids))
    assert_frame_equal(items.drop("db_idx"), molecules.select(items.columns[1:]), check_dtypes=False)


def test_a_table_and_its_parquet_file_are_one_library(molecules, dataset):
    molecules.write_parquet("molecules.parquet")
    uphill.index("molecules.parquet", "from_file.lance")
    one, other = (uphill.search(at, score="qed", stop={"iterations": 1}) for at in (dataset, "from_file.lance"))
    ids = [run.manifest["dataset"]["library_id"] for run in (one, other)]
    assert ids[0] == ids[1] != ""


def test_numbers_are_not_copied_on_import_or_export():
    frame = pl.DataFrame({"x": pl.arange(100_000, eager=True).cast(pl.Float64)})
    back = pl.DataFrame(_uphill.Table(frame))
    assert_frame_equal(back, frame)
    where = [table["x"].to_numpy(allow_copy=False).ctypes.data for table in (back, frame)]
    assert where[0] == where[1]


def test_a_table_is_read_in_batches_and_its_invalid_rows_are_counted(caplog):
    vectors = [[1.0, float(row)] for row in range(20_000)]
    vectors[17_000], vectors[18_000] = [1.0], None
    table = pl.DataFrame({"embedding": vectors}, schema={"embedding": pl.List(pl.Float64)})
    with pytest.raises(uphill.Error, match="2 invalid embeddings .*the first is row 17000 of table: 1 .*with skip_invalid$"):
        uphill.index(table, "x.lance")
    library = uphill.index(table, "x.lance", skip_invalid=True)
    assert len(library) == 19_998
    assert library.take([17_000])["source_row"].to_list() == [17_001]
    assert "skipped 2 invalid embeddings" in caplog.text


@pytest.mark.parametrize("nothing", [{"embedding": []}, pl.DataFrame({"embedding": [[1.0]]}).clear()])
def test_a_table_without_rows_is_an_error(nothing):
    with pytest.raises(uphill.Error, match="table: no rows"):
        uphill.index(nothing, "x.lance")


def test_the_error_for_an_invalid_table_names_its_type():
    with pytest.raises(TypeError, match="expected a table .*, found set"):
        _uphill.Table({1, 2})


def test_starting_queries_come_as_a_table(molecules, dataset):
    start = molecules["embedding"].head(3).to_frame()
    run = uphill.search(dataset, score="qed", queries=start, update="rl", stop={"iterations": 1})
    first = run.queries().filter(iteration=0)
    assert_frame_equal(first.select("embedding"), start, check_dtypes=False)
    assert run.results().height > 3
    with pytest.raises(uphill.Error, match="expected vectors of 64 components"):
        uphill.search(dataset, score="qed", queries=pl.DataFrame({"embedding": [[1.0, 2.0]]}))
    with pytest.raises(uphill.Error, match="no column `embedding`"):
        uphill.search(dataset, score="qed", queries=pl.DataFrame({"vector": [[1.0, 2.0]]}))


def test_columns_of_nulls_are_accepted():
    library = uphill.index({"embedding": [[1.0, 0.0], [0.0, 1.0]], "note": [None, None]}, "x.lance")
    assert library.take([1])["note"].to_list() == [None]
    stop = {"iterations": 1, "failed_share": 1}
    run = uphill.search(library, score=lambda items: [None] * items.height, update="rl", stop=stop)
    assert set(run.results()["reason"]) == {"no score"}
