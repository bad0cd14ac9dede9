"""Tests of run folders: location, resuming, scores by hand, reports."""

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import uphill

SLOW = """
import sys, time, uphill

def score(items):
    print("asked", flush=True)
    time.sleep(float(sys.argv[2]))
    return items["qed"]

uphill.search(
    sys.argv[1], score={"call": score, "batch_size": 4}, update="rl", seed=5,
    stop={"evaluations": 40}, out="run", resume=len(sys.argv) > 3,
)
print("done", flush=True)
"""


def start(*arguments: object) -> "subprocess.Popen[str]":
    Path("slow.py").write_text(SLOW)
    return subprocess.Popen(
        [sys.executable, "slow.py", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def interrupt(process: "subprocess.Popen[str]", after: int) -> None:
    assert process.stdout is not None
    for _ in range(after):
        assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)


def test_ctrl_c_ends_the_search_after_the_running_call_and_it_can_be_resumed(dataset):
    process = start(dataset, 0.3)
    interrupt(process, after=4)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT, stderr
    assert "KeyboardInterrupt" in stderr and "pass it as `out` with `resume=True` to resume" in stderr
    assert "Fatal" not in stderr and "panicked" not in stderr, stderr
    assert stdout == "", "nothing is requested after it"
    assert uphill.Run("run").ended["reason"] == "interrupted"
    paid = pl.read_parquet("run/ledger/*.parquet").height
    assert paid == 16, "the result of the running call is kept"

    process = start(dataset, 0, "resume")
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert stdout.count("asked") == (40 - paid) / 4
    undisturbed = uphill.search(dataset, score="qed", update="rl", seed=5, stop={"evaluations": 40})
    assert_frame_equal(uphill.Run("run").results(), undisturbed.results())


def test_a_second_ctrl_c_interrupts_the_call_itself(dataset):
    Path("busy.py").write_text(SLOW.replace("time.sleep(float(sys.argv[2]))", "[time.sleep(0.01) for _ in range(10**6)]"))
    process = subprocess.Popen(
        [sys.executable, "busy.py", dataset, "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    interrupt(process, after=1)
    time.sleep(0.5)
    assert process.poll() is None, "the call is waited for"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT, stderr
    assert "Fatal" not in stderr and "panicked" not in stderr, stderr


def test_the_exception_of_another_signal_handler_ends_the_search(dataset):
    class Late(Exception):
        pass

    def handler(*_: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(Late):
            uphill.search(
                dataset, score=lambda items: time.sleep(0.05) or items["qed"], update="rl", stop={"seconds": 30.0}
            )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_run_without_a_folder_is_removed_when_it_is_no_longer_used(dataset, tmp_path):
    run = uphill.search(dataset, score="qed", stop={"evaluations": 20})
    path, results = run.path, run.results()
    tags = set(os.listdir(dataset / "_refs" / "tags"))
    assert path.is_dir() and results.height == 20
    kept = uphill.search(dataset, score="qed", stop={"evaluations": 20}).keep()
    del run
    gc.collect()
    assert not path.exists() and kept.is_dir()
    assert len(tags - set(os.listdir(dataset / "_refs" / "tags"))) == 1, "its tag is removed"
    uphill.Run(kept).remove()
    assert not kept.exists()


def test_scores_survive_an_error_in_a_run_without_a_folder(dataset):
    calls = []

    def score(items: pl.DataFrame) -> pl.Series:
        calls.append(items)
        if len(calls) > 2:
            raise ValueError
        return items["qed"]

    dear: uphill.ScoreOptions = {"call": score, "batch_size": 5, "on_error": "stop"}
    with pytest.raises(ValueError) as raised:
        uphill.search(dataset, score=dear, update="rl")
    if sys.version_info >= (3, 11):
        kept = re.search("in '(.*)': pass it", raised.value.__notes__[0])
        assert kept and pl.read_parquet(f"{kept[1]}/ledger/*.parquet").height == 10


def test_scores_by_hand_give_the_same_run_as_a_search(dataset):
    asked = 0
    options = {"update": "rl", "stop": {"evaluations": 60}, "seed": 2, "filter": lambda rows: rows["mw"] < 400}
    while (items := uphill.ask(dataset, out="lab", **options)) is not None:
        again = uphill.ask(dataset, out="lab", **options)
        assert_frame_equal(items, again)
        half = items.head(max(1, items.height // 2)).select("db_idx", score="qed")
        asked += half.height
        uphill.tell("lab", half.to_arrow(), filter=options["filter"])
    assert asked == 60
    searched = uphill.search(dataset, score="qed", **options)
    assert_frame_equal(uphill.Run("lab").results(), searched.results())
    with pytest.raises(uphill.Error, match="takes no manual scores"):
        uphill.tell(searched, pl.DataFrame({"db_idx": [1], "score": [1.0]}), filter=options["filter"])


def test_a_run_by_hand_continues_with_the_options_of_the_last_ask(dataset, tmp_path):
    library = tmp_path / "here.lance"
    shutil.copytree(dataset, library)

    def rounds(path: Path, budget: int) -> int:
        asked = 0
        while (items := uphill.ask(path, out="lab", update="rl", stop={"evaluations": budget})) is not None:
            asked += items.height
            assert asked <= budget, "scores were discarded"
            uphill.tell("lab", items.select("db_idx", score="qed"))
        return asked

    assert rounds(library, 20) == 20
    with pytest.raises(uphill.Error, match="has ended"):
        uphill.tell("lab", pl.DataFrame({"db_idx": [2999], "score": [1.0]}))
    assert rounds(library, 50) == 30
    assert uphill.Run("lab").manifest["config"]["stop"]["evaluations"] == 50
    moved = library.rename(tmp_path / "there.lance")
    items = uphill.ask(moved, out="lab", update="rl", stop={"evaluations": 70})
    again = moved.rename(tmp_path / "once_more.lance")
    scores = items.select("db_idx", score="qed")
    with pytest.raises(uphill.Error, match="if it was moved"):
        uphill.tell("lab", scores)
    uphill.tell("lab", scores, library=again)
    assert rounds(again, 70) + items.height == 20
    assert '<svg class="map"' in uphill.Run("lab").report()
    last = again.rename(tmp_path / "last.lance")
    assert '<svg class="map"' in uphill.Run("lab").report(library=last)
    # Other tests' runs have tags there too.
    tag = last / "_refs" / "tags" / f"{uphill.Run('lab').manifest['version_tag']}.json"
    assert tag.exists()
    uphill.Run("lab").remove(library=last)
    assert not tag.exists()


def test_a_run_records_the_error_that_ended_it(dataset):
    def score(items: pl.DataFrame) -> pl.Series:
        raise ValueError("out of ink")

    with pytest.raises(ValueError, match="out of ink"):
        uphill.search(dataset, score={"call": score, "on_error": "stop"}, update="rl", out="run")
    ended = uphill.Run("run").ended
    assert ended["reason"] == "error" and "out of ink" in ended["error"]
    assert "out of ink" in repr(uphill.Run("run"))


def test_a_run_has_a_notebook_view_a_report_and_a_plot(dataset, molecules):
    one, other = (
        uphill.search(dataset, score="qed", stop={"evaluations": 40}, seed=seed, out=f"run-{seed}") for seed in (1, 2)
    )
    shown = one._repr_html_()
    assert shown.startswith("<iframe srcdoc=") and "<!doctype html>" not in shown.lower()
    assert "&lt;!doctype html&gt;" in shown.lower()
    page = uphill.report([one, "run-2"], "both.html", truth=molecules, score_column="qed", top=10)
    assert Path("both.html").read_bytes() == page.encode() and "run-2" in page
    assert uphill.plot(one, "curve.svg").lstrip().startswith("<svg")
    assert repr(one) == "Run('run-1'): 40 items scored (evaluations)"
    with pytest.raises(uphill.Error, match="is not a run folder"):
        uphill.Run("nowhere")


def test_items_are_explained_without_the_functions_of_the_search(dataset, tmp_path):
    calls = []

    def score(items: pl.DataFrame) -> pl.Series:
        calls.append(items.height)
        return items["qed"]

    update: uphill.UpdateOptions = {"rule": "surrogate", "features": ["smiles", "mw"]}
    run = uphill.search(
        dataset, score=score, filter=lambda rows: rows["mw"] < 400, update=update, stop={"evaluations": 60}, out="run"
    )
    paid, before = len(calls), {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    results = run.results()
    explained = run.explain(results["db_idx"])
    assert len(calls) == paid and before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert explained["db_idx"].unique(maintain_order=True).equals(results["db_idx"])
    predicted = explained.unique("db_idx", maintain_order=True)["predicted"]
    assert predicted.is_null().to_list() == results["predicted"].is_null().to_list()
    assert (predicted - results["predicted"]).abs().max() < 1e-9
    sums = explained.drop_nulls("posterior_mean").group_by("db_idx").agg(
        pl.first("posterior_mean"), pl.sum("contribution"), pl.sum("share")
    )
    assert sums.height > 30
    assert (sums["contribution"] - sums["posterior_mean"]).abs().max() < 1e-9
    assert (sums["share"] - 1).abs().max() < 1e-9
    best = int(results["db_idx"][0])
    assert run.explain(best).equals(explained.filter(db_idx=best))
    groups = [name for name in explained.columns if name.startswith("distance_share_")]
    assert groups == ["distance_share_embedding", "distance_share_smiles", "distance_share_mw"]
    other = uphill.search(dataset, score="qed", update="rl", stop={"iterations": 2}, out="other")
    with pytest.raises(uphill.ConfigError, match="has no model of the scores"):
        other.explain(best)
    moved = dataset.rename(tmp_path / "moved.lance")
    try:
        assert run.explain(best, library=moved).equals(explained.filter(db_idx=best))
    finally:
        moved.rename(dataset)


def test_an_output_with_another_extension_is_rejected(dataset, tmp_path):
    run = uphill.search(dataset, score="qed", stop={"evaluations": 20}, out="run")
    with pytest.raises(uphill.ConfigError, match=r"page.pdf: unsupported extension .pdf; use .html or .htm"):
        run.report("page.pdf")
    with pytest.raises(uphill.ConfigError, match=r"curve.png: unsupported extension .png; use .svg"):
        uphill.plot(run, "curve.png")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_small_library_is_evaluated_by_as_many_items_as_have_a_score(molecules):
    few = molecules.head(40)
    run = uphill.search(uphill.index(few, "few.lance"), score="qed", stop={"evaluations": 10}, out="run")
    judged = run.evaluate(few, "qed")
    assert judged["scored"].to_list() == [1, 2, 10], "2 % and 5 % are reached, 1 % is less than one item"
    assert judged["recall"][-1] == 10 / 40
    assert "10 of 40" in run.report(truth=few, score_column="qed")
    for judge in (lambda: run.evaluate(few, "qed", top=100), lambda: run.report(truth=few, score_column="qed", top=100)):
        with pytest.raises(uphill.Error, match="expected 1 to 40, the number of scores in this file, found 100"):
            judge()


def test_evaluations_and_scored_items_are_counted_separately(dataset):
    stop: uphill.StopOptions = {"evaluations": 20, "failed_share": 1}
    light = "CASE WHEN mw < 300 THEN qed END"
    run = uphill.search(dataset, score=light, update="rl", stop=stop, out="run")
    scored = run.results()["score"].count()
    assert 0 < scored < 20 and run.ended["scored"] == scored
    assert repr(run) == f"Run('run'): 20 evaluations: {scored} items scored (evaluations)"


def test_a_run_by_hand_warns_of_leakage_once(dataset, caplog):
    # By default, the rule reads the column that holds the score.
    while (items := uphill.ask(dataset, out="lab", stop={"evaluations": 60})) is not None:
        uphill.tell("lab", items.select("db_idx", score="qed"))
        uphill.Run("lab").report()
    assert caplog.text.count("the column `qed` nearly determines the score") == 1


def test_one_run_folder_has_one_writer(dataset):
    first = start(dataset, 30)
    assert first.stdout is not None and first.stdout.readline() == "asked\n"
    try:
        _, stderr = start(dataset, 0, "resume").communicate(timeout=60)
        assert "LockedError: run: in use by another process" in stderr, stderr
    finally:
        first.kill()
        first.communicate()
