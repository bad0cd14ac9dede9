"""Libraries: Lance datasets of embedded items."""

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
    """A dataset to search. `uphill.index` builds one, `uphill.open` opens one.

    >>> library = uphill.open("molecules.lance", columns=["name", "qed"])
    >>> len(library), library.dim, library.metric, library.columns
    (2000, 64, 'l2', ['name', 'qed'])
    >>> library.take([7, 3]).columns
    ['db_idx', 'embedding', 'name', 'qed']
    """

    def __init__(self, path: PathLike, **options: Unpack[OpenOptions]) -> None:
        #: The `database` section of a run file.
        self.options: DatabaseOptions = {"path": os.fspath(path), **options}
        self._opened = _uphill.Library(run_file(self.options))

    def __len__(self) -> int:
        return len(self._opened)

    def __repr__(self) -> str:
        return f"Library({os.fspath(self.options['path'])!r}): {len(self)} items of {self.dim} dimensions, {self.metric}"

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return self._opened.dim

    @property
    def metric(self) -> str:
        """Metric of the `distance` column: l2 (squared), cosine or dot."""
        return self._opened.metric

    @property
    def columns(self) -> list[str]:
        """Attribute columns that queries return."""
        return self._opened.columns

    def take(self, db_idx: Iterable[int]) -> pl.DataFrame:
        """The items with these ids, in the given order."""
        return frame(self._opened.take([int(item) for item in db_idx]))


def open(path: PathLike, **options: Unpack[OpenOptions]) -> Library:
    """Opens a dataset. The options are those of the `database` section of a run file.

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
    """Builds a dataset with an index from a table or from Parquet files (a file, a glob, a folder), and opens it.

    The options are those of `uphill index`. The dataset appears only when it is complete.

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
