"""Run folders: results, evaluation, reports and plots."""

from __future__ import annotations

import html
import json
import os
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import polars as pl

from . import _uphill
from ._options import Functions, run_file, stage_options
from ._tables import Function, PathLike, Table, as_parquet_file, frame, is_path, stream

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class Forecast(TypedDict):
    """How many of the next scores are expected to enter the best ones."""

    #: How many best scores count.
    top: int
    #: The number of next scores.
    items: int
    #: The expected number of entries.
    entries: float
    #: The interval of the number of entries, both ends included.
    low: int
    high: int


class Hits(TypedDict):
    """Scores that reach the threshold `stop["hit"]`."""

    threshold: float
    #: Items that are hits, including those with a reused score.
    found: int
    #: The last 100 scores, or fewer at the start, and the hits among them.
    recent_scores: int
    recent_hits: int
    scores_since_hit: int


class Audit(TypedDict):
    """The result of a random audit: how many hits a run may have missed."""

    threshold: float
    #: Evaluations of the run when it was audited.
    evaluations: int
    #: Hits that the search had found.
    found: int
    #: Items without an outcome that pass the filter, of which `drawn` were drawn.
    unscored: int
    drawn: int
    failed: int
    #: Hits among the drawn items.
    hits: int
    #: Upper bound of the hits that were neither found nor drawn, at a confidence of 95 %.
    missing: int
    #: Lower bound of the share of all hits that were found or drawn. `None` if there are no hits.
    recall: float | None


class RunSummary(TypedDict):
    """Why a run ended, and what it cost."""

    #: `evaluations`, `iterations`, …. After an error it is `error`, or `away` if the scorer was unavailable.
    reason: str
    #: The message of the error that ended the run, if there was one.
    error: NotRequired[str]
    iterations: int
    evaluations: int
    #: Evaluations that gave a score. Absent in runs of versions that did not record it.
    scored: int
    #: Items whose score came from an earlier run, at no cost.
    reused: int
    rejected: int
    failed: int
    #: Items that were scored again after a kill, because their answers had not been stored.
    asked_again: int
    retries: int
    #: Relevance weight of each feature column, as learned by the rule.
    learned: list[tuple[str, float]]
    #: What the next scores were expected to bring. Absent without a forecast.
    forecast: NotRequired[Forecast]
    #: The hits of the run. Absent without `stop["hit"]`.
    hits: NotRequired[Hits]
    #: End time, in seconds since 1970.
    at: int


class Run:
    """A run folder, written by `uphill.search` or by the command. It can be read while the run continues.

    >>> run = uphill.search("molecules.lance", score="qed", stop={"evaluations": 60}, out="run")
    >>> uphill.Run("run").results(limit=3).select("db_idx", "score").height
    3
    """

    def __init__(self, path: PathLike) -> None:
        #: The run folder.
        self.path = Path(path)
        self._removal: weakref.finalize[Any, Any] | None = None
        if not (self.path / "run.json").exists():
            raise _uphill.Error(f"{self.path}: is not a run folder")

    def __repr__(self) -> str:
        summary = self.ended
        if summary is None:
            state = "running, waiting for scores, or killed"
        else:
            state = f"{_cost(summary)} ({summary.get('error', summary['reason'])})"
        return f"Run({os.fspath(self.path)!r}): {state}"

    def _repr_html_(self) -> str:
        page = html.escape(self.report())
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 48em; border: 0" title="A run"></iframe>'

    @property
    def manifest(self) -> dict[str, Any]:
        """The contents of run.json: the configuration, the dataset version, and the summary of an ended run."""
        return cast("dict[str, Any]", json.loads((self.path / "run.json").read_text()))

    @property
    def ended(self) -> RunSummary | None:
        """The summary of a run that has ended. `None` while it runs or waits for scores, or if it was killed."""
        return cast("RunSummary | None", self.manifest.get("ended"))

    def results(self, limit: int | None = None) -> pl.DataFrame:
        """The items found, best first, one row each."""
        return frame(_uphill.results(self.path, limit))

    def queries(self) -> pl.DataFrame:
        """The query vectors of each iteration."""
        return frame(_uphill.queries(self.path))

    def trajectories(self, *, paths: bool = False) -> pl.DataFrame:
        """The path of each query, with the scores of the items that it found. Branching queries form a tree. With `paths`, the
        result has one path from the start for each leaf of that tree."""
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
        """How many of the best items the run found, and at what cost. This needs the true scores of all items. There are rows at
        1, 2 and 5 % of the library, as far as the run went, and at its end. With `curve`, there is a row for each evaluation.

        `truth` is the indexed table, in the same order. With a `key`, it is any table or file (Parquet, CSV) with that column.
        The best items are the `top` items with the best true score. The default is 100, or all items with a true score if
        those are fewer.

        >>> uphill.Run("run").evaluate(molecules, "qed", top=10).columns
        ['share', 'budget', 'scored', 'found', 'recall', 'best', 'top_sum']
        """
        with as_parquet_file(truth) as file:
            assert file is not None
            return frame(
                _uphill.evaluate(self.path, truth=file, score_column=score_column, top=top, key=key, curve=curve)
            )

    def explain(self, db_idx: int | Iterable[int], *, library: PathLike | None = None) -> pl.DataFrame:
        """Why the model expects the scores of items: the scored items and the feature groups that the predictions come from.
        An item of the run is explained by the model that chose it, any other item of the library by the model after the last
        iteration. For this, the run is replayed: nothing is scored or written. `library` is the new path of the dataset, if it
        was moved.

        An item has a row for each of the five scored items (`neighbour_idx`) that contribute most, and one for all the others
        together. `share` is the share of the prediction that a `contribution` makes up. `distance_share_…` is the share of a
        feature group in the distance to the neighbour. An item that no model chose has one row without a prediction. Rules
        without a model are an error.

        >>> run = uphill.Run("run")
        >>> best = run.results(limit=2)["db_idx"]
        >>> run.explain(best).columns[:7]
        ['db_idx', 'iteration', 'chosen_by', 'score', 'predicted', 'deviation', 'posterior_mean']
        """
        items = [db_idx] if isinstance(db_idx, int) else [int(item) for item in db_idx]
        return frame(_uphill.explain(self.path, items, None if library is None else os.fspath(library)))

    def unscored(
        self, n: int = 100, *, filter: Function | None = None, library: PathLike | None = None
    ) -> pl.DataFrame:
        """The `n` items that the run has not judged and that its model predicts to be best, with `predicted` and `deviation`.
        These are items that were neither scored, nor rejected, nor failed, and that pass the filter. For this, the run is
        replayed: nothing is scored or written. If the `filter` of the run is a function, pass it again. `library` is the new path
        of the dataset, if it was moved. Rules without a model are an error.

        >>> uphill.Run("run").unscored(5).columns[-2:]
        ['predicted', 'deviation']
        """
        config, functions = self._request(None, filter, library)
        return frame(_uphill.unscored(run_file(config), self.path, n, functions=functions))

    def audit(
        self,
        n: int,
        *,
        hit: float | None = None,
        scores: Table | None = None,
        score: Function | None = None,
        filter: Function | None = None,
        library: PathLike | None = None,
    ) -> pl.DataFrame:
        """Scores `n` random items that the run has not judged, to bound the hits that it has missed. The figures are in
        `Run.audited`. Returns the drawn items with their scores, in the order of their draws. The run itself stays as it is. An
        audit that was interrupted continues when it is called again, as does one of more items.

        `hit` is the threshold of a hit, in the scorer's own direction. The default is `stop["hit"]` of the run. If the run is by
        hand, the items that wait for scores are returned: call the method again with their `scores`, as for `uphill.tell`. If the
        `score` or the `filter` of the run is a function, pass it again. `library` is the new path of the dataset, if it was moved.

        >>> run = uphill.Run("run")
        >>> run.audit(20, hit=0.9).height
        20
        >>> run.audited["drawn"]
        20
        """
        config, functions = self._request(score, filter, library)
        if hit is not None:
            config["stop"] = {**(config.get("stop") or {}), "hit": hit}
        given = None if scores is None else stream(scores)
        return frame(_uphill.audit(run_file(config), self.path, n, given, functions=functions))

    @property
    def audited(self) -> Audit | None:
        """The result of the last audit. `None` if the run was not audited."""
        return cast("Audit | None", self.manifest.get("audit"))

    def _request(
        self, score: Function | None, filter: Function | None, library: PathLike | None
    ) -> tuple[dict[str, Any], Functions]:
        """The run file of the run, with functions in the place of those that it names."""
        config, functions = self.manifest["config"] or {}, Functions()
        if score is not None:
            options = stage_options(score, "score", functions)
            config["score"] = {**config["score"], **options}
        if filter is not None:
            config["filter"] = stage_options(filter, "keep", functions)
        if library is not None:
            config["database"]["path"] = os.fspath(library)
        return config, functions

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
        """An HTML page that shows the run and needs no network. With `output`, it is also written to that file. `library` is
        the new path of the dataset, if it was moved."""
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
        """Keeps the temporary folder of a run without `out`, which would otherwise be removed with this object."""
        if self._removal is not None:
            self._removal.detach()
        return self.path

    def remove(self, *, library: PathLike | None = None) -> None:
        """Removes the folder, and the tag that keeps its dataset version. `library` is the new path of the dataset, if it was
        moved."""
        self.keep()
        _uphill.remove(self.path, None if library is None else os.fspath(library))

    def _remove_when_unused(self) -> Run:
        self._removal = weakref.finalize(self, _remove_folder, self.path)
        return self


def _remove_folder(path: Path) -> None:
    if path.exists():
        _uphill.remove(path, None)


def _cost(summary: RunSummary) -> str:
    evaluations = summary["evaluations"]
    scored = summary.get("scored", evaluations)
    return f"{scored} items scored" if scored == evaluations else f"{evaluations} evaluations: {scored} items scored"


def _run_folders(runs: Run | PathLike | Sequence[Run | PathLike]) -> list[Path]:
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
    """An HTML page that shows a run or compares several. With `output`, it is also written to that file. `library` is the new
    path of the dataset, if it was moved."""
    output_file = _output_path(output, ".html", ".htm")
    with as_parquet_file(truth) as truth_file:
        page = _uphill.report(
            _run_folders(runs),
            truth=truth_file,
            score_column=score_column,
            top=top,
            key=key,
            smiles=smiles,
            picture=picture,
            library=None if library is None else os.fspath(library),
        )
    return _write(page, output_file)


def plot(
    runs: Run | PathLike | Sequence[Run | PathLike],
    output: PathLike | None = None,
    *,
    truth: PathLike | Table | None = None,
    score_column: str | None = None,
    top: int | None = None,
    key: str | None = None,
) -> str:
    """The curves of one or several runs as SVG, for a paper. With `output`, the SVG is also written to that file."""
    output_file = _output_path(output, ".svg")
    with as_parquet_file(truth) as truth_file:
        drawing = _uphill.plot(_run_folders(runs), truth=truth_file, score_column=score_column, top=top, key=key)
    return _write(drawing, output_file)


def _output_path(output: PathLike | None, *extensions: str) -> Path | None:
    """The path to write. Raises an error if it has another extension."""
    if output is None:
        return None
    file = Path(output)
    if file.suffix.lower() not in ("", *extensions):
        raise _uphill.ConfigError(f"{file}: unsupported extension {file.suffix}; use {' or '.join(extensions)}")
    return file


def _write(text: str, file: Path | None) -> str:
    if file is not None:
        file.write_text(text, encoding="utf-8")
    return text
