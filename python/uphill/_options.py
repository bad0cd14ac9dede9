"""The sections of a run file as keyword arguments, with the same keys and the same meaning."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from . import _uphill
from ._tables import Function, PathLike, Stream, Table, table_function


class OpenOptions(TypedDict, total=False):
    """`[database]`: how a library is queried."""

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
    """`[database]`: the library, and how it is queried."""

    path: PathLike


class QueriesOptions(TypedDict, total=False):
    """`[queries]`: where the search starts."""

    sample: int
    path: PathLike


class FilterOptions(TypedDict, total=False):
    """`[filter]`: which items may be scored."""

    sql: str
    call: Function


class ScoreOptions(TypedDict, total=False):
    """`[score]`: how items are scored, and how the scorer is called."""

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
    files: Sequence[PathLike]
    timeout: float
    retries: int
    patience: float
    embeddings: bool
    on_error: Literal["null", "stop"]


class UpdateOptions(TypedDict, total=False):
    """`[update]`: how the search chooses what to score next."""

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
    examples: PathLike


class PruneOptions(TypedDict, total=False):
    """`[prune]`: which queries continue."""

    k: int
    worth: Literal["mean", "max"]
    group: Literal["collection", "parent", "global"]


class RestartOptions(TypedDict, total=False):
    """`[restart]`: when a query restarts at a random item."""

    after: int


class GradientOptions(TypedDict, total=False):
    """`[gradient]`: more queries, along the gradient of the score."""

    scales: Sequence[float]
    distance_penalty: float
    max_norm: float
    norm: Literal["l2", "l1", "max"]


class StopOptions(TypedDict, total=False):
    """`[stop]`: when the search ends. The first limit that is reached ends it."""

    iterations: int
    evaluations: int
    nothing_new: int
    seconds: float
    score: float
    hit: float
    no_hit: int
    scores_per_entry: float
    top: int
    failed_share: float


class Sections(TypedDict, total=False):
    """The other sections of a run file. Each is a dict of keys, or the value of its main key."""

    #: SQL, or a function that returns a boolean for each row of a frame: whether it may be scored.
    filter: str | Function | FilterOptions
    #: A number of random items, or a table with a column `embedding`.
    queries: int | Table | QueriesOptions
    #: The name of the rule, or its options.
    update: str | UpdateOptions
    prune: PruneOptions
    #: Iterations in a row without a new item, after which a query restarts.
    restart: int | RestartOptions
    gradient: GradientOptions
    stop: StopOptions
    #: The random seed.
    seed: int


class Functions(dict[str, "Callable[[Any], Stream]"]):
    """The functions of a search, by the names that its run file gives them."""

    def register(self, function: Function, column: str) -> str:
        """Adds a function under a unique name and returns the name."""
        module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
        first = f"{module}.{name}" if name else type(function).__qualname__
        name, number = first, 1
        while name in self:
            number += 1
            name = f"{first} ({number})"
        self[name] = table_function(function, column)
        return name


def section(value: Any, key: str) -> Any:
    """A section as a mapping. A bare value is the value of `key`."""
    return value if value is None or isinstance(value, Mapping) else {key: value}


def stage_options(value: Any, column: str, functions: Functions) -> Any:
    """The section of a score or a filter, given as SQL, a function, a list of parts, or a section with one of them."""
    if callable(value):
        value = {"call": value}
    elif isinstance(value, str):
        value = {"sql": value}
    elif isinstance(value, Sequence):
        value = {"sum": value}
    if value is None:
        return None
    options = dict(value)
    if callable(options.get("call")):
        options["call"] = functions.register(options["call"], column)
    if options.get("sum") is not None:
        options["sum"] = [stage_options(part, column, functions) for part in options["sum"]]
    return options


def run_file(sections: Mapping[str, Any]) -> str:
    """A run file as JSON, without the sections that are None."""
    given = {name: options for name, options in sections.items() if options is not None}
    text = json.dumps(given, default=_to_json_value)
    _reject_non_finite("", json.loads(text))
    return text


def _reject_non_finite(key: str, value: Any) -> None:
    """Rejects NaN and infinities, which JSON does not have. The error names the key."""
    if isinstance(value, dict):
        for name, child in value.items():
            _reject_non_finite(f"{key}.{name}" if key else name, child)
    elif isinstance(value, list):
        for child in value:
            _reject_non_finite(key, child)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _uphill.ConfigError(f"{key}: expected a number, found {value}")


def _to_json_value(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"expected a number, a text, a path, a list or a dict, found {type(value).__qualname__}: {value!r}")
