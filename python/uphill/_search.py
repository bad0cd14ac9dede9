"""Searches, and the ask-and-tell interface for scores given by hand."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import polars as pl

from . import _uphill
from ._library import Library
from ._options import (
    DatabaseOptions,
    Functions,
    ScoreOptions,
    Sections,
    StopOptions,
    run_file,
    section,
    stage_options,
)
from ._run import Run
from ._tables import Function, PathLike, Stream, Table, frame, stream

if TYPE_CHECKING:
    from typing_extensions import Unpack


def search(
    database: Library | PathLike | DatabaseOptions,
    *,
    score: str | Function | Sequence[ScoreOptions] | ScoreOptions,
    out: PathLike | None = None,
    resume: bool = False,
    retry_failed: bool = False,
    **sections: Unpack[Sections],
) -> Run:
    """Searches a library. Each section of a run file is an argument: `score`, `filter`, `queries`, `update`, `prune`,
    `restart`, `gradient` and `stop`, and the `seed`. A section is a dict of its keys, or a shorthand for its main key:
    SQL or a function for `score` and `filter`, a list of parts for `score`, a number of random items or a table with a
    column `embedding` for `queries`, the name of the rule for `update`.

    A `score` function takes a frame of distinct items (`db_idx`, `embedding`, attributes). It returns a number for each
    as a column of any library, or a frame with `score` and, optionally, `db_idx`, `outcome`, `reason` and parts of the
    score. None and NaN are failures. An exception makes all items of that call fail, with its message as their `reason`.
    With `on_error="stop"`, it ends the run and is raised. A `filter` function returns a boolean for each row of a frame:
    whether it may be scored.

    The rule `surrogate` reads the attribute columns. It cannot know which of them a score function reads. If the score is
    computed from a column, exclude that column: list the other columns in `update={"features": [...]}`.

    `out` is the run folder. Without it, the run is temporary and is removed with the `Run` object (see `Run.keep`). Ctrl-C
    ends the search when the running calls have returned, and keeps their scores. A second Ctrl-C raises KeyboardInterrupt
    in these calls. To resume, repeat the same call with `resume=True`.

    >>> expensive = {"call": lambda items: items["qed"].to_numpy(), "batch_size": 8, "on_error": "stop"}
    >>> options = {"score": expensive, "update": {"rule": "rl", "lr": 2.0}, "seed": 7, "out": "climb"}
    >>> uphill.search("molecules.lance", **options, stop={"iterations": 2}).ended["reason"]
    'iterations'
    >>> uphill.search("molecules.lance", **options, stop={"iterations": 3}, resume=True).ended["iterations"]
    3
    """
    config, functions, start = _request(database, score, sections)
    with _run_folder(out) as path:
        _uphill.search(config, path, functions=functions, queries=start, resume=resume, retry_failed=retry_failed)
    return Run(path) if out is not None else Run(path)._remove_when_unused()


def ask(
    database: Library | PathLike | DatabaseOptions,
    *,
    out: PathLike,
    score: ScoreOptions | None = None,
    **sections: Unpack[Sections],
) -> pl.DataFrame | None:
    """The next items to score by hand, in a lab or in your own queue, or `None` when the run has ended. Until `tell` gives
    scores, further calls return the same items. The arguments are those of `uphill.search`.

    >>> options = {"update": {"rule": "surrogate", "features": ["smiles"]}, "stop": {"evaluations": 40}, "out": "lab"}
    >>> while (items := uphill.ask("molecules.lance", **options)) is not None:
    ...     uphill.tell("lab", items.select("db_idx", score="qed"))
    >>> uphill.Run("lab").ended["evaluations"]
    40
    """
    config, functions, start = _request(database, {"by_hand": True, **(score or {})}, sections)
    with _run_folder(out) as path:
        items = _uphill.ask(config, path, functions=functions, queries=start)
    return None if items is None else frame(items)


def tell(
    run: Run | PathLike,
    scores: Table,
    *,
    filter: Function | None = None,
    library: Library | PathLike | None = None,
    stop: StopOptions | None = None,
) -> None:
    """Gives scores of pending items, all or some of them: a table of `db_idx` and `score`, optionally `reason` and parts.
    They are durable when this returns. Scores for a run that has ended are an error. The run continues with the options of
    the last `ask`. If its `filter` is a function, pass that again. `library` is the new path of the library, if it was moved.
    `stop` replaces the limits of the run."""
    path = run.path if isinstance(run, Run) else Path(run)
    config, functions = Run(path).manifest["config"] or {}, Functions()
    if filter is not None:
        config["filter"] = stage_options(filter, "keep", functions)
    if library is not None:
        config["database"]["path"] = library.options["path"] if isinstance(library, Library) else library
    if stop is not None:
        config["stop"] = stop
    with _run_folder(path):
        _uphill.tell(run_file(config), path, stream(scores), functions=functions)


def _request(
    database: Library | PathLike | DatabaseOptions, score: Any, sections: Sections
) -> tuple[str, Functions, Stream | None]:
    """The run file as JSON, its functions, and the starting queries if they are a table."""
    functions = Functions()
    config: dict[str, Any] = {**sections}
    queries, start = config.get("queries"), None
    if queries is not None and not isinstance(queries, (int, Mapping)):
        config["queries"], start = None, stream(queries)
    shorthand = {"queries": "sample", "update": "rule", "restart": "after"}
    config = {name: section(value, shorthand[name]) if name in shorthand else value for name, value in config.items()}
    config["database"] = database.options if isinstance(database, Library) else section(database, "path")
    config["score"] = stage_options(score, "score", functions)
    config["filter"] = stage_options(config.get("filter"), "keep", functions)
    return run_file(config), functions, start


@contextmanager
def _run_folder(out: PathLike | None) -> Iterator[Path]:
    """The run folder. If the work fails, adds a note to the error on how to resume. Removes an unused temporary folder."""
    path = Path(mkdtemp(prefix="uphill-") if out is None else out)
    try:
        yield path
    except BaseException as error:
        if any(path.glob("results/*")) or any(path.glob("ledger/*.parquet")):
            _add_note(error, f"the scores so far are in {os.fspath(path)!r}: pass it as `out` with `resume=True` to resume")
        elif out is None and (path / "run.json").exists():
            _uphill.remove(path, None)
        elif out is None:
            path.rmdir()
        raise


def _add_note(error: BaseException, note: str) -> None:
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:
        logging.getLogger("uphill").warning("%s", note)
