"""Tables and columns, whoever's they are."""

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
    """A table that is handed over as an Arrow stream."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


#: A table of Polars, pyarrow, pandas or DuckDB; or what `polars.DataFrame` takes, such as a dict of columns.
Table: TypeAlias = Any
#: Where something is.
PathLike: TypeAlias = str | os.PathLike[str]
#: A function of the items, a frame, that gives a number or a truth value for each: a column of anybody's, or a list. A
#: score may give a frame, too: `score`, optionally `db_idx`, `outcome`, `reason` and parts.
Function: TypeAlias = Callable[[pl.DataFrame], Any]


def is_path(value: object) -> bool:
    return isinstance(value, (str, os.PathLike))


def stream(table: Table) -> Stream:
    """The table itself where it gives a stream, else a frame of it."""
    if not hasattr(table, "__arrow_c_stream__"):
        table = pl.DataFrame(table)
    # Polars streams a column of nothing but nulls in a form that others refuse.
    return with_typed_nulls(table, pl.String()) if isinstance(table, pl.DataFrame) else table


def with_typed_nulls(frame: pl.DataFrame, dtype: pl.DataType) -> pl.DataFrame:
    return frame.cast({pl.Null: dtype}) if pl.Null in frame.dtypes else frame


def frame(table: _uphill.Table) -> pl.DataFrame:
    return pl.DataFrame(table)


def called(function: Function, column: str) -> Callable[[_uphill.Table], Stream]:
    """A function of the caller as the library calls it: tables in and out, a lone column under its name."""

    def call(items: _uphill.Table) -> Stream:
        given = function(frame(items))
        if isinstance(given, pl.DataFrame):
            return with_typed_nulls(given, pl.Float64())
        if hasattr(given, "columns") or hasattr(given, "column_names"):
            return stream(given)
        return with_typed_nulls(pl.Series(column, given, strict=False).to_frame(), pl.Float64())

    return call


@contextmanager
def as_file(items: PathLike | Table | None) -> Iterator[Path | None]:
    """Where the items are: at their path, or for now in a file of their own."""
    if items is None or is_path(items):
        yield None if items is None else Path(items)
        return
    with TemporaryDirectory(prefix="uphill-") as folder:
        path = Path(folder) / "items.parquet"
        pl.DataFrame(stream(items)).write_parquet(path)
        yield path
