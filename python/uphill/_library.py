"""Libraries: datasets of embedded items."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import polars as pl

from . import _uphill
from ._options import DatabaseOptions, OpenOptions, run_file
from ._tables import PathLike, Table, frame, is_path, stream

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Library:
    """A dataset that is searched: made by `uphill.index`, opened by `uphill.open`.

    >>> library = uphill.open("molecules.lance", columns=["name", "qed"])
    >>> len(library), library.dim, library.metric, library.columns
    (2000, 64, 'l2', ['name', 'qed'])
    >>> library.take([7, 3]).columns
    ['db_idx', 'embedding', 'name', 'qed']
    """

    def __init__(self, path: PathLike, **options: Unpack[OpenOptions]) -> None:
        #: The section `database` of a run file.
        self.options: DatabaseOptions = {"path": os.fspath(path), **options}
        self._opened = _uphill.Library(run_file(self.options))

    def __len__(self) -> int:
        return len(self._opened)

    def __repr__(self) -> str:
        return f"Library({os.fspath(self.options['path'])!r}): {len(self)} items of {self.dim} dimensions, {self.metric}"

    @property
    def dim(self) -> int:
        """Components of an embedding."""
        return self._opened.dim

    @property
    def metric(self) -> str:
        """What `distance` means: l2 (squared), cosine or dot."""
        return self._opened.metric

    @property
    def columns(self) -> list[str]:
        """The attributes that ride along."""
        return self._opened.columns

    def take(self, db_idx: Iterable[int]) -> pl.DataFrame:
        """The items of those ids, in their order."""
        return frame(self._opened.take([int(item) for item in db_idx]))


def open(path: PathLike, **options: Unpack[OpenOptions]) -> Library:
    """Opens a dataset; the options are those of the section `database` of a run file.

    >>> uphill.open("molecules.lance", k=20)
    Library('molecules.lance'): 2000 items of 64 dimensions, l2
    """
    return Library(path, **options)


def index(
    items: PathLike | Table,
    dataset: PathLike,
    *,
    embedding_column: str | None = None,
    metric: Literal["l2", "cosine", "dot"] = "l2",
    index: Literal["auto", "none", "ivf-flat", "ivf-sq", "ivf-pq", "ivf-rq", "ivf-hnsw-sq"] = "auto",
    partitions: int | None = None,
    rename: Mapping[str, str] | None = None,
    skip_invalid: bool = False,
    overwrite: bool = False,
) -> Library:
    """Builds a dataset of a table, or of Parquet files (a file, a glob, a folder), with an index, and opens it.

    The options are those of `uphill index`. The dataset appears when it is complete, or not at all.

    >>> import numpy as np
    >>> texts = {"text": ["a", "b", "c"], "embedding": np.eye(3, dtype="f4")}
    >>> uphill.index(texts, "texts.lance", metric="cosine")
    Library('texts.lance'): 3 items of 3 dimensions, cosine
    """
    _uphill.index(
        os.fspath(items) if is_path(items) else stream(items),
        os.fspath(dataset),
        embedding_column=embedding_column,
        metric=metric,
        index=index,
        partitions=partitions,
        rename=list((rename or {}).items()),
        skip_invalid=skip_invalid,
        overwrite=overwrite,
    )
    return Library(dataset)
