"""Find the best-scoring items of an embedded library while scoring only a small share of it.

>>> import polars as pl, uphill
>>> molecules = pl.read_parquet(data / "molecules.parquet", n_rows=2000)
>>> library = uphill.index(molecules, "molecules.lance")
>>> def score(items: pl.DataFrame) -> pl.Series:
...     return items["qed"]
>>> reads = {"rule": "surrogate", "features": ["smiles", "mw"]}  # not what the score is made of
>>> run = uphill.search(library, score=score, filter="mw < 500", update=reads, stop={"evaluations": 100})
>>> best = run.results()
>>> best["score"].is_sorted(descending=True), run.ended["evaluations"]
(True, 100)

Tables of Polars, pyarrow, pandas and DuckDB (whatever has `__arrow_c_stream__`) go in without copies; Polars frames come
back. The options are those of the run file, section by section.
"""

from ._library import Library, index, open
from ._options import (
    DatabaseOptions,
    FilterOptions,
    GradientOptions,
    OpenOptions,
    PruneOptions,
    QueriesOptions,
    RestartOptions,
    ScoreOptions,
    Sections,
    StopOptions,
    UpdateOptions,
)
from ._run import Ended, Run, plot, report
from ._search import ask, search, tell
from ._uphill import AwayError, ConfigError, Error, LockedError

__all__ = [
    "AwayError",
    "ConfigError",
    "DatabaseOptions",
    "Ended",
    "Error",
    "FilterOptions",
    "GradientOptions",
    "Library",
    "LockedError",
    "OpenOptions",
    "PruneOptions",
    "QueriesOptions",
    "RestartOptions",
    "Run",
    "ScoreOptions",
    "Sections",
    "StopOptions",
    "UpdateOptions",
    "ask",
    "index",
    "open",
    "plot",
    "report",
    "search",
    "tell",
]
