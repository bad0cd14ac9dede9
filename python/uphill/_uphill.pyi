from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, final

from ._tables import Stream

__all__ = [
    "ConfigError",
    "Error",
    "Library",
    "LockedError",
    "Table",
    "UnavailableError",
    "ask",
    "audit",
    "command",
    "evaluate",
    "explain",
    "index",
    "plot",
    "queries",
    "remove",
    "report",
    "results",
    "search",
    "tell",
    "trajectories",
    "unscored",
]

class Error(Exception): ...
class ConfigError(Error): ...
class LockedError(Error): ...
class UnavailableError(Error): ...

@final
class Table:
    def __new__(cls, table: Stream) -> Table: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

@final
class Library:
    def __new__(cls, section: str) -> Library: ...
    def __len__(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def metric(self) -> str: ...
    @property
    def columns(self) -> list[str]: ...
    def take(self, db_idx: Sequence[int]) -> Table: ...

def command(arguments: Sequence[str]) -> int: ...
def index(
    items: str | PathLike[str] | Stream,
    dataset: str | PathLike[str],
    *,
    embedding_column: str | None,
    metric: str,
    index: str,
    partitions: int | None,
    rename: Sequence[tuple[str, str]],
    skip_invalid: bool,
    overwrite: bool,
) -> None: ...
def search(
    config: str,
    out: str | PathLike[str],
    *,
    functions: Mapping[str, Callable[[Any], Stream]],
    queries: Stream | None,
    resume: bool,
    retry_failed: bool,
) -> None: ...
def ask(
    config: str,
    out: str | PathLike[str],
    *,
    functions: Mapping[str, Callable[[Any], Stream]],
    queries: Stream | None,
) -> Table | None: ...
def tell(
    config: str,
    run: str | PathLike[str],
    scores: Stream,
    *,
    functions: Mapping[str, Callable[[Any], Stream]],
) -> None: ...
def results(run: str | PathLike[str], limit: int | None) -> Table: ...
def queries(run: str | PathLike[str]) -> Table: ...
def trajectories(run: str | PathLike[str], paths: bool) -> Table: ...
def evaluate(
    run: str | PathLike[str],
    *,
    truth: str | PathLike[str],
    score_column: str,
    top: int | None,
    key: str | None,
    curve: bool,
) -> Table: ...
def explain(run: str | PathLike[str], db_idx: Sequence[int], library: str | None) -> Table: ...
def unscored(
    config: str,
    run: str | PathLike[str],
    n: int,
    *,
    functions: Mapping[str, Callable[[Any], Stream]],
) -> Table: ...
def audit(
    config: str,
    run: str | PathLike[str],
    n: int,
    scores: Stream | None,
    *,
    functions: Mapping[str, Callable[[Any], Stream]],
) -> Table: ...
def report(
    runs: Sequence[str | PathLike[str]],
    *,
    truth: str | PathLike[str] | None,
    score_column: str | None,
    top: int | None,
    key: str | None,
    smiles: str | None,
    picture: str | None,
    library: str | None,
) -> str: ...
def plot(
    runs: Sequence[str | PathLike[str]],
    *,
    truth: str | PathLike[str] | None,
    score_column: str | None,
    top: int | None,
    key: str | None,
) -> str: ...
def remove(run: str | PathLike[str], library: str | None) -> None: ...
