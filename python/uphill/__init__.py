"""Find the best-scoring items of an embedded library while scoring only a small share of it.

>>> import polars as pl, uphill
>>> molecules = pl.read_parquet(data / "molecules.parquet", n_rows=2000)
>>> library = uphill.index(molecules, "molecules.lance")
>>> def score(items: pl.DataFrame) -> pl.Series:
...     return items["qed"]
>>> update = {"rule": "surrogate", "features": ["smiles", "mw"]}  # not `qed`, which is the score
>>> run = uphill.search(library, score=score, filter="mw < 500", update=update, stop={"evaluations": 100})
>>> best = run.results()
>>> best["score"].is_sorted(descending=True), run.ended["evaluations"]
(True, 100)

Input tables may come from Polars, pyarrow, pandas or DuckDB: anything with `__arrow_c_stream__`, passed without copies.
Results are Polars frames. The options are those of the run file, section by section.
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
from ._run import Run, RunSummary, plot, report
from ._search import ask, search, tell
from ._uphill import ConfigError, Error, LockedError, UnavailableError

__all__ = [
    "ConfigError",
    "DatabaseOptions",
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
    "RunSummary",
    "ScoreOptions",
    "Sections",
    "StopOptions",
    "UnavailableError",
    "UpdateOptions",
    "ask",
    "index",
    "open",
    "plot",
    "report",
    "search",
    "tell",
]
