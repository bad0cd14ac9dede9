"""The search, and the same by hand: ask and tell."""

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
    stage,
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
    """Searches a library. Each section of a run file is an argument (`score`, `filter`, `queries`, `update`, `prune`,
    `restart`, `gradient`, `stop`; and `seed`): a dict of its keys, or what stands for the key that says it all: SQL or a
    function for `score` and `filter`, a list of parts for `score`, a number of random items or a table with a column
    `embedding` for `queries`, the rule's name for `update`.

    A `score` that is a function takes a frame of distinct items (`db_idx`, `embedding`, attributes) and gives a number
    for each, as a column of anybody's, or a frame with `score` and, optionally, `db_idx`, `outcome`, `reason` and
    parts of the score. None and NaN are failures, as is what it raises, for all items of that call: it is their
    `reason`; with `on_error="stop"` the run ends with what was raised. A `filter` that is a function says for each row
    of a frame if it may be scored.

    The rule `surrogate` reads the columns that ride along. Which of them a function reads it cannot know: name the others
    by `update={"features": [...]}`, so that it does not read what the score is made of.

    `out` is the run folder. Without it, the run goes when it is no longer used (`Run.keep`). Ctrl-C ends the search
    once the calls that are out are back (a second one has them raise KeyboardInterrupt), with everything kept that came
    back; the same call with `resume=True` goes on.

    >>> dear = {"call": lambda items: items["qed"].to_numpy(), "batch_size": 8, "on_error": "stop"}
    >>> options = {"score": dear, "update": {"rule": "rl", "lr": 2.0}, "seed": 7, "out": "climb"}
    >>> uphill.search("molecules.lance", **options, stop={"iterations": 2}).ended["reason"]
    'iterations'
    >>> uphill.search("molecules.lance", **options, stop={"iterations": 3}, resume=True).ended["iterations"]
    3
    """
    config, functions, start = _told(database, score, sections)
    with _folder(out) as path:
        _uphill.search(config, path, functions=functions, queries=start, resume=resume, retry_failed=retry_failed)
    return Run(path) if out is not None else Run(path)._goes_when_unused()


def ask(
    database: Library | PathLike | DatabaseOptions,
    *,
    out: PathLike,
    score: ScoreOptions | None = None,
    **sections: Unpack[Sections],
) -> pl.DataFrame | None:
    """The next items to score by hand, in a lab, in a queue of your own; `None` when the run has ended. Asked again before
    they are told, the same come. The arguments are those of `uphill.search`.

    >>> options = {"update": {"rule": "surrogate", "features": ["smiles"]}, "stop": {"evaluations": 40}, "out": "lab"}
    >>> while (items := uphill.ask("molecules.lance", **options)) is not None:
    ...     uphill.tell("lab", items.select("db_idx", score="qed"))
    >>> uphill.Run("lab").ended["evaluations"]
    40
    """
    config, functions, start = _told(database, {"by_hand": True, **(score or {})}, sections)
    with _folder(out) as path:
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
    """Takes scores of items that were asked, all or a part: a table of `db_idx` and `score`, optionally `reason` and parts.
    They are durable when this returns; scores that a run which has ended has no use for are an error. It goes on as the
    last `ask` did: a run whose filter is a function needs it here, too; `library` is where the library is now, if it was moved
    since, `stop` what the run is to stop at instead."""
    path = run.path if isinstance(run, Run) else Path(run)
    config, functions = Run(path).manifest["config"] or {}, Functions()
    if filter is not None:
        config["filter"] = stage(filter, "keep", functions)
    if library is not None:
        place = library.options["path"] if isinstance(library, Library) else library
        config["database"]["path"] = place
    if stop is not None:
        config["stop"] = stop
    with _folder(path):
        _uphill.tell(run_file(config), path, stream(scores), functions=functions)


def _told(
    database: Library | PathLike | DatabaseOptions, score: Any, sections: Sections
) -> tuple[str, Functions, Stream | None]:
    """The run file as JSON, its functions, and the queries that it starts at, if those are a table."""
    functions = Functions()
    told: dict[str, Any] = {**sections}
    queries, start = told.get("queries"), None
    if queries is not None and not isinstance(queries, (int, Mapping)):
        told["queries"], start = None, stream(queries)
    shorthand = {"queries": "sample", "update": "rule", "restart": "after"}
    told = {name: section(value, shorthand[name]) if name in shorthand else value for name, value in told.items()}
    told["database"] = database.options if isinstance(database, Library) else section(database, "path")
    told["score"] = stage(score, "score", functions)
    told["filter"] = stage(told.get("filter"), "keep", functions)
    return run_file(told), functions, start


@contextmanager
def _folder(out: PathLike | None) -> Iterator[Path]:
    """The run folder. Where the work in it ends early it is said how to go on, or a folder that was made for it goes."""
    path = Path(mkdtemp(prefix="uphill-") if out is None else out)
    try:
        yield path
    except BaseException as error:
        if any(path.glob("results/*")) or any(path.glob("ledger/*.parquet")):
            _note(error, f"what was finished is in {os.fspath(path)!r}: go on with that as `out` and `resume=True`")
        elif out is None and (path / "run.json").exists():
            _uphill.remove(path, None)
        elif out is None:
            path.rmdir()
        raise


def _note(error: BaseException, note: str) -> None:
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:
        logging.getLogger("uphill").warning("%s", note)
