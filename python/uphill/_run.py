"""Runs: what a search found, and how it shows."""

from __future__ import annotations

import html
import json
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import polars as pl

from . import _uphill
from ._tables import PathLike, Table, as_file, frame, is_path

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class Ended(TypedDict):
    """How a run ended, and what it cost."""

    #: `evaluations`, `iterations`, …; `away` and `error` where an error ended it, which `error` tells.
    reason: str
    error: NotRequired[str]
    iterations: int
    evaluations: int
    #: Those of them that have a score (not of runs that ended before this was noted).
    scored: int
    reused: int
    rejected: int
    failed: int
    asked_again: int
    retries: int
    #: How much each column says about the score, as far as the rule learned it.
    learned: list[tuple[str, float]]
    #: Seconds since 1970.
    at: int


class Run:
    """A run folder: one that `uphill.search` gives, or any other, of the command too, also while it is written.

    >>> run = uphill.search("molecules.lance", score="qed", stop={"evaluations": 60}, out="run")
    >>> uphill.Run("run").results(limit=3).select("db_idx", "score").height
    3
    """

    def __init__(self, path: PathLike) -> None:
        #: Where it is.
        self.path = Path(path)
        self._removal: weakref.finalize[Any, Any] | None = None
        if not (self.path / "run.json").exists():
            raise _uphill.Error(f"{self.path}: is not a run folder")

    def __repr__(self) -> str:
        ended = self.ended
        if ended is None:
            how = "goes on, waits for scores, or was killed"
        else:
            how = f"{_cost(ended)} ({ended.get('error', ended['reason'])})"
        return f"Run({os.fspath(self.path)!r}): {how}"

    def _repr_html_(self) -> str:
        page = html.escape(self.report())
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 48em; border: 0" title="A run"></iframe>'

    @property
    def manifest(self) -> dict[str, Any]:
        """run.json: what it goes on with, the dataset version it reads, how it ended."""
        return cast("dict[str, Any]", json.loads((self.path / "run.json").read_text()))

    @property
    def ended(self) -> Ended | None:
        """How it ended, by itself or by an error; `None` while it goes on or waits for scores, or if it was killed."""
        return cast("Ended | None", self.manifest.get("ended"))

    def results(self, limit: int | None = None) -> pl.DataFrame:
        """The items met, the best first, one row each."""
        return frame(_uphill.results(self.path, limit))

    def queries(self) -> pl.DataFrame:
        """The query vectors of each iteration."""
        return frame(_uphill.queries(self.path))

    def trajectories(self, *, paths: bool = False) -> pl.DataFrame:
        """The path of each query and the scores it met; with `paths`, a path from its start for each leaf of the tree
        that branching queries make."""
        return frame(_uphill.trajectories(self.path, paths))

    def evaluate(
        self,
        truth: PathLike | Table,
        score_column: str,
        *,
        top: int | None = None,
        key: str | None = None,
        curve: bool = False,
    ) -> pl.DataFrame:
        """How much of the best it found, at what cost, where the scores of all items are known: within 1, 2 and 5 % of the
        library, as far as it went, and in all, or with `curve` after each item.

        `truth` is what was indexed, in the same order, or with a `key` any table or file (Parquet, CSV) that has it. The
        best are `top` items: 100, or as many as have a true score, if those are fewer.

        >>> uphill.Run("run").evaluate(molecules, "qed", top=10).columns
        ['share', 'budget', 'scored', 'found', 'recall', 'best', 'top_sum']
        """
        with as_file(truth) as file:
            assert file is not None
            return frame(
                _uphill.evaluate(self.path, truth=file, score_column=score_column, top=top, key=key, curve=curve)
            )

    def report(
        self,
        output: PathLike | None = None,
        *,
        truth: PathLike | Table | None = None,
        score_column: str | None = None,
        top: int | None = None,
        key: str | None = None,
        smiles: str | None = None,
        picture: str | None = None,
        library: PathLike | None = None,
    ) -> str:
        """A page of HTML that shows it, without a network; written to `output`, too, if that is given. `library` is where
        the dataset is now, if it was moved."""
        return report(
            [self],
            output,
            truth=truth,
            score_column=score_column,
            top=top,
            key=key,
            smiles=smiles,
            picture=picture,
            library=library,
        )

    def keep(self) -> Path:
        """Keeps a run that was given no folder from going when it is no longer used, and says where it is."""
        if self._removal is not None:
            self._removal.detach()
        return self.path

    def remove(self, *, library: PathLike | None = None) -> None:
        """Removes the folder, and the tag that keeps the dataset version it reads. `library` is where the dataset is now, if
        it was moved."""
        self.keep()
        _uphill.remove(self.path, None if library is None else os.fspath(library))

    def _goes_when_unused(self) -> Run:
        self._removal = weakref.finalize(self, _discard, self.path)
        return self


def _discard(path: Path) -> None:
    if path.exists():
        _uphill.remove(path, None)


def _cost(ended: Ended) -> str:
    evaluations = ended["evaluations"]
    scored = ended.get("scored", evaluations)
    return f"{scored} items scored" if scored == evaluations else f"{evaluations} evaluations: {scored} items scored"


def _folders(runs: Run | PathLike | Sequence[Run | PathLike]) -> list[Path]:
    many = [runs] if isinstance(runs, Run) or is_path(runs) else runs
    return [run.path if isinstance(run, Run) else Path(run) for run in cast("Sequence[Run | PathLike]", many)]


def report(
    runs: Run | PathLike | Sequence[Run | PathLike],
    output: PathLike | None = None,
    *,
    truth: PathLike | Table | None = None,
    score_column: str | None = None,
    top: int | None = None,
    key: str | None = None,
    smiles: str | None = None,
    picture: str | None = None,
    library: PathLike | None = None,
) -> str:
    """A page of HTML that shows a run, or compares several; written to `output`, too, if that is given. `library` is where
    the dataset of the run is now, if it was moved."""
    to = _file(output, ".html", ".htm")
    with as_file(truth) as file:
        page = _uphill.report(
            _folders(runs),
            truth=file,
            score_column=score_column,
            top=top,
            key=key,
            smiles=smiles,
            picture=picture,
            library=None if library is None else os.fspath(library),
        )
    return _written(page, to)


def plot(
    runs: Run | PathLike | Sequence[Run | PathLike],
    output: PathLike | None = None,
    *,
    truth: PathLike | Table | None = None,
    score_column: str | None = None,
    top: int | None = None,
    key: str | None = None,
) -> str:
    """The curves of a run, or of several, as SVG for a paper; written to `output`, too, if that is given."""
    to = _file(output, ".svg")
    with as_file(truth) as file:
        drawn = _uphill.plot(_folders(runs), truth=file, score_column=score_column, top=top, key=key)
    return _written(drawn, to)


def _file(output: PathLike | None, *known: str) -> Path | None:
    """Where it is to be written; a name that promises another format is refused before anything is done."""
    if output is None:
        return None
    file = Path(output)
    if file.suffix.lower() not in ("", *known):
        raise _uphill.ConfigError(f"{file}: {file.suffix} is not written here; name it {' or '.join(known)}")
    return file


def _written(text: str, file: Path | None) -> str:
    if file is not None:
        file.write_text(text, encoding="utf-8")
    return text
