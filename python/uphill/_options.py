"""The sections of a run file, as keyword arguments: the same keys, the same meaning."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from . import _uphill
from ._tables import Function, PathLike, Stream, Table, called


class OpenOptions(TypedDict, total=False):
    """`[database]`: how a library is asked."""

    embedding_column: str
    id_column: str
    metric: Literal["l2", "cosine", "dot"]
    columns: Sequence[str]
    k: int
    recall: float
    nprobes: int
    exact: bool
    prefilter: str
    max_distance: float
    index_cache_mb: int
    metadata_cache_mb: int


class DatabaseOptions(OpenOptions, total=False):
    """`[database]`: the library and how it is asked."""

    path: PathLike


class QueriesOptions(TypedDict, total=False):
    """`[queries]`: where the search starts."""

    sample: int
    path: PathLike


class FilterOptions(TypedDict, total=False):
    """`[filter]`: what may be scored."""

    sql: str
    call: Function


class ScoreOptions(TypedDict, total=False):
    """`[score]`: what items are worth, and how the scorer is asked."""

    sql: str
    command: Sequence[str]
    url: str
    call: Function
    by_hand: bool
    sum: Sequence[ScoreOptions]
    name: str
    weight: float
    at_least: float
    reuse: Sequence[PathLike]
    reuse_key: str
    version: str
    trust_scores: bool
    direction: Literal["maximize", "minimize"]
    mode: Literal["stream", "batch"]
    format: Literal["jsonl", "arrow"]
    batch_size: int
    workers: int
    concurrency: int
    headers: Mapping[str, str]
    timeout: float
    retries: int
    patience: float
    embeddings: bool
    on_error: Literal["null", "stop"]


class UpdateOptions(TypedDict, total=False):
    """`[update]`: how the queries move."""

    rule: Literal["surrogate", "rl", "top-k", "top-k-discrete"]
    lr: float | Sequence[float]
    distance_penalty: float
    scale_distance_penalty: bool
    max_norm: float
    norm: Literal["l2", "l1", "max"]
    k: int
    score_weighting: bool
    batch: int
    points: int
    behind: int
    features: Literal["auto"] | Sequence[str | Mapping[str, str]]


class PruneOptions(TypedDict, total=False):
    """`[prune]`: which queries go on."""

    k: int
    worth: Literal["mean", "max"]
    group: Literal["collection", "parent", "global"]


class RestartOptions(TypedDict, total=False):
    """`[restart]`: when a query begins again at a random item."""

    after: int


class GradientOptions(TypedDict, total=False):
    """`[gradient]`: where queries ask along the gradient of the score."""

    scales: Sequence[float]
    distance_penalty: float
    max_norm: float
    norm: Literal["l2", "l1", "max"]


class StopOptions(TypedDict, total=False):
    """`[stop]`: when the search ends, whichever comes first."""

    iterations: int
    evaluations: int
    nothing_new: int
    seconds: float
    score: float
    failed_share: float


class Sections(TypedDict, total=False):
    """The sections beside `database` and `score`: dicts of their keys, or what stands for the key that says it all."""

    #: SQL, or a function that says for each row of a frame if it may be scored.
    filter: str | Function | FilterOptions
    #: So many random items, or a table with a column `embedding`.
    queries: int | Table | QueriesOptions
    #: The rule.
    update: str | UpdateOptions
    prune: PruneOptions
    #: Iterations in a row without a new item.
    restart: int | RestartOptions
    gradient: GradientOptions
    stop: StopOptions
    #: Of everything random.
    seed: int


class Functions(dict[str, "Callable[[Any], Stream]"]):
    """The functions of a search by the names that its run file has for them."""

    def named(self, function: Function, column: str) -> str:
        module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
        first = f"{module}.{name}" if name else type(function).__qualname__
        name, number = first, 1
        while name in self:
            number += 1
            name = f"{first} ({number})"
        self[name] = called(function, column)
        return name


def section(value: Any, key: str) -> Any:
    """A section of which only that one key was given, or all of it."""
    return value if value is None or isinstance(value, Mapping) else {key: value}


def stage(value: Any, column: str, functions: Functions) -> Any:
    """A score or a filter: SQL, a function, parts, or a section with one of them."""
    if callable(value):
        value = {"call": value}
    elif isinstance(value, str):
        value = {"sql": value}
    elif isinstance(value, Sequence):
        value = {"sum": value}
    if value is None:
        return None
    told = dict(value)
    if callable(told.get("call")):
        told["call"] = functions.named(told["call"], column)
    if told.get("sum") is not None:
        told["sum"] = [stage(part, column, functions) for part in told["sum"]]
    return told


def run_file(sections: Mapping[str, Any]) -> str:
    """A run file as JSON, without the sections of which nothing is said."""
    told = json.dumps({name: told for name, told in sections.items() if told is not None}, default=_plain)
    _refuse_odd_numbers("", json.loads(told))
    return told


def _refuse_odd_numbers(place: str, value: Any) -> None:
    """JSON has neither NaN nor infinities; the key is named."""
    if isinstance(value, dict):
        for key, below in value.items():
            _refuse_odd_numbers(f"{place}.{key}" if place else key, below)
    elif isinstance(value, list):
        for below in value:
            _refuse_odd_numbers(place, below)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _uphill.ConfigError(f"{place}: expected a number, found {value}")


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"expected a number, a text, a path, a list or a dict, found {type(value).__qualname__}: {value!r}")
