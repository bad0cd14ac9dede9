"""Conversion of tables and columns of Polars, pyarrow, pandas, DuckDB and NumPy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeAlias

import polars as pl

from . import _uphill


class Stream(Protocol):
    """A table that exports an Arrow stream."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


#: A table of Polars, pyarrow, pandas or DuckDB, or anything that `polars.DataFrame` accepts, such as a dict of columns.
Table: TypeAlias = Any
#: A path of a file or folder.
PathLike: TypeAlias = str | os.PathLike[str]
#: A function that takes a frame of items and returns a number or a boolean for each: a column of any library, or a list. A
#: score may also return a frame: `score` and, optionally, `db_idx`, `outcome`, `reason` and parts.
Function: TypeAlias = Callable[[pl.DataFrame], Any]


def is_path(value: object) -> bool:
    return isinstance(value, (str, os.PathLike))


def stream(table: Table) -> Stream:
    """The table itself if it exports an Arrow stream, else a frame made from it."""
    if not hasattr(table, "__arrow_c_stream__"):
        table = pl.DataFrame(table)
    # Polars exports an all-null column with a type that other libraries reject.
    return cast_null_columns(table, pl.String()) if isinstance(table, pl.DataFrame) else table


def cast_null_columns(frame: pl.DataFrame, dtype: pl.DataType) -> pl.DataFrame:
    return frame.cast({pl.Null: dtype}) if pl.Null in frame.dtypes else frame


def frame(table: _uphill.Table) -> pl.DataFrame:
    return pl.DataFrame(table)


def table_function(function: Function, column: str) -> Callable[[_uphill.Table], Stream]:
    """Wraps a user function so that it takes and returns tables. A single column gets the name `column`."""

    def call(items: _uphill.Table) -> Stream:
        returned = function(frame(items))
        if isinstance(returned, pl.DataFrame):
            return cast_null_columns(returned, pl.Float64())
        if hasattr(returned, "columns") or hasattr(returned, "column_names"):
            return stream(returned)
        return cast_null_columns(pl.Series(column, returned, strict=False).to_frame(), pl.Float64())

    return call


@contextmanager
def as_parquet_file(items: PathLike | Table | None) -> Iterator[Path | None]:
    """Yields the path of the items. A table is written to a temporary Parquet file."""
    if items is None or is_path(items):
        yield None if items is None else Path(items)
        return
    with TemporaryDirectory(prefix="uphill-") as folder:
        path = Path(folder) / "items.parquet"
        pl.DataFrame(stream(items)).write_parquet(path)
        yield path
