"""Tests of functions as scores and filters: their input, their results, and their exceptions."""

import threading
import time
import traceback

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

import uphill

BUDGET = {"evaluations": 60}


def qed(items: pl.DataFrame) -> pl.Series:
    return items["qed"]


@pytest.fixture
def expected(dataset) -> pl.DataFrame:
    return uphill.search(dataset, score="qed", filter="mw < 400", stop=BUDGET, seed=3, update=RULE).results()


#: Without features: uphill knows which columns a SQL score reads, but not which a function reads.
RULE: uphill.UpdateOptions = {"rule": "surrogate", "features": []}


@pytest.mark.parametrize(
    "score",
    [
        qed,
        lambda items: items["qed"].to_numpy(),
        lambda items: items["qed"].to_list(),
        lambda items: items["qed"].to_arrow(),
        lambda items: pa.chunked_array([items["qed"].to_arrow()]),
        lambda items: pd.Series(items["qed"].to_list()),
        lambda items: items.select(score="qed"),
        lambda items: items.select("db_idx", score="qed").reverse(),
        lambda items: pd.DataFrame({"score": items["qed"].to_list()}),
        lambda items: items.select(score="qed").to_arrow(),
    ],
    ids=["Polars", "NumPy", "list", "pyarrow", "chunked", "pandas", "frame", "frame by id", "pandas frame", "table"],
)
def test_a_score_may_return_any_type_of_column(dataset, expected, score):
    mask = lambda results: results["mw"] < 400  # noqa: E731
    run = uphill.search(dataset, score=score, filter=mask, stop=BUDGET, seed=3, update=RULE)
    assert_frame_equal(run.results(), expected)


@pytest.mark.parametrize("mask", [list, np.array, pa.array, pd.Series])
def test_a_filter_may_return_any_type_of_column(dataset, expected, mask):
    run = uphill.search(
        dataset, score="qed", filter=lambda rows: mask([mw < 400 for mw in rows["mw"]]), stop=BUDGET, seed=3, update=RULE
    )
    assert_frame_equal(run.results(), expected)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda rows: rows["mw"], "expected one boolean for each row of its input, found a column of f64"),
        (lambda rows: [True], "expected one boolean for each row of its input, found 1 rows for"),
        (lambda rows: rows, "expected one boolean for each row of its input, found .* columns"),
    ],
)
def test_an_invalid_result_of_a_filter_is_rejected(dataset, result, message):
    with pytest.raises(uphill.Error, match=message):
        uphill.search(dataset, score="qed", filter=result)


def test_a_function_gets_whole_frames_of_distinct_items(dataset):
    frames = []

    def score(items: pl.DataFrame) -> pl.Series:
        frames.append(items)
        return items["qed"]

    run = uphill.search(dataset, score={"call": score, "batch_size": 8}, update="rl", stop={"iterations": 3})
    assert all(items.columns[:2] == ["db_idx", "embedding"] and items.height <= 8 for items in frames)
    requested = pl.concat(frames)
    assert requested["embedding"].dtype == pl.Array(pl.Float32, 64)
    assert requested["db_idx"].is_unique().all() and requested.height == run.ended["evaluations"]


def test_an_exception_is_the_reason_of_the_items_of_the_call(dataset):
    def score(items: pl.DataFrame) -> pl.Series:
        if (items["mw"] > 350).any():
            raise ValueError("too\nheavy")
        return items["qed"]

    run = uphill.search(dataset, score={"call": score, "batch_size": 1}, stop=BUDGET, update="rl")
    results = run.results()
    assert set(results.filter(pl.col("mw") > 350)["outcome"]) == {"failed"}
    assert set(results.filter(pl.col("mw") > 350)["reason"]) == {"ValueError: too\nheavy"}
    assert set(results.filter(pl.col("mw") <= 350)["outcome"]) == {"scored"}
    assert run.ended["evaluations"] == 60


def test_on_error_stop_ends_the_run_with_the_exception_and_its_traceback(dataset):
    calls = []

    def score(items: pl.DataFrame) -> pl.Series:
        calls.append(items.height)
        if len(calls) == 3:
            raise LookupError("no licence left")
        return items["qed"]

    options = {"update": "rl", "stop": BUDGET, "out": "run", "seed": 1}
    dear: uphill.ScoreOptions = {"call": score, "batch_size": 5, "on_error": "stop"}
    with pytest.raises(LookupError, match="no licence left") as raised:
        uphill.search(dataset, score=dear, **options)
    assert "no licence left\")" in "".join(traceback.format_tb(raised.tb)), "the line that raised"
    assert any("resume=True" in note for note in getattr(raised.value, "__notes__", ["resume=True"]))

    run = uphill.search(dataset, score=dear, **options, resume=True)
    assert run.ended["evaluations"] == 60 == sum(calls) - calls[2], "only items without an answer were requested twice"
    undisturbed = uphill.search(dataset, score="qed", update="rl", stop=BUDGET, seed=1)
    assert_frame_equal(run.results(), undisturbed.results())


def test_a_function_that_does_not_look_at_items_ends_the_run_and_costs_nothing(dataset):
    calls = []

    def score(items: pl.DataFrame) -> pl.DataFrame:
        calls.append(items.height)
        if len(calls) == 2:
            raise uphill.UnavailableError("the queue is full")
        left = pl.when(pl.int_range(pl.len()) % 2 == 1).then(pl.lit("unavailable")) if len(calls) == 3 else None
        return items.select("db_idx", score="qed", outcome=left)

    options = {"update": "rl", "stop": BUDGET, "seed": 1}
    dear: uphill.ScoreOptions = {"call": score, "batch_size": 8}
    with pytest.raises(uphill.UnavailableError, match="the queue is full"):
        uphill.search(dataset, score=dear, **options, out="run")
    with pytest.raises(uphill.UnavailableError, match="the scorer did not look at the item"):
        uphill.search(dataset, score=dear, **options, out="run", resume=True)
    run = uphill.search(dataset, score=dear, **options, out="run", resume=True)
    assert run.ended["evaluations"] == 60 and run.ended["failed"] == 0
    assert sum(calls) == 60 + calls[1] + calls[2] // 2, "only items without an answer were requested twice"
    assert_frame_equal(run.results(), uphill.search(dataset, score="qed", **options).results())


def test_texts_of_a_function_are_kept_beside_its_numbers(dataset):
    def score(items: pl.DataFrame) -> pl.DataFrame:
        return items.select("db_idx", score="qed", why=pl.format("item {}", "db_idx"), tokens=pl.lit(7))

    results = uphill.search(dataset, score=score, update="rl", stop=BUDGET).results()
    assert results["why"].to_list() == [f"item {item}" for item in results["db_idx"]]
    assert set(results["tokens"]) == {7.0}


def test_an_exception_in_a_filter_ends_the_run(dataset):
    def filter(rows: pl.DataFrame) -> pl.Series:
        raise ZeroDivisionError("here")

    with pytest.raises(ZeroDivisionError, match="here"):
        uphill.search(dataset, score="qed", filter=filter)


def test_nan_none_and_infinite_are_failures(dataset):
    odd = [float("nan"), None, float("inf"), 0.5]
    run = uphill.search(
        dataset,
        score={"call": lambda items: [odd[item % 4] for item in items["db_idx"]]},
        update="rl",
        stop={**BUDGET, "failed_share": 1},
    )
    results = run.results().with_columns(kind=pl.col("db_idx") % 4)
    reasons = {kind: set(results.filter(kind=kind)["reason"]) for kind in range(4)}
    assert reasons == {0: {"NaN"}, 1: {"no score"}, 2: {"infinite"}, 3: {None}}


def test_a_run_with_too_many_failures_is_an_error_and_keeps_its_results(dataset):
    with pytest.raises(uphill.Error, match="items failed, more than the 50 % allowed"):
        uphill.search(dataset, score=lambda items: [None] * items.height, update="rl", stop=BUDGET, out="failed")
    assert set(uphill.Run("failed").results()["outcome"]) == {"failed"}


def test_reasons_outcomes_and_parts_of_a_function_are_kept(dataset):
    def score(items: pl.DataFrame) -> pl.DataFrame:
        heavy = pl.col("mw") > 350
        return items.select(
            "db_idx",
            score=pl.when(~heavy).then("qed"),
            outcome=pl.when(heavy).then(pl.lit("rejected")),
            reason=pl.when(heavy).then(pl.lit("heavy")),
            half=pl.col("qed") / 2,
        )

    results = uphill.search(dataset, score=score, update="rl", stop=BUDGET).results()
    assert set(results.filter(pl.col("mw") > 350)["reason"]) == {"heavy"}
    assert (results["half"] == results["qed"] / 2).all()


def test_parts_of_a_sum_may_be_functions(dataset):
    parts: list[uphill.ScoreOptions] = [
        {"name": "likeness", "sql": "qed", "at_least": 0.4},
        {"name": "weight", "call": lambda items: items["mw"] / 1000, "weight": -1.0},
        {"name": "more", "call": lambda items: [1.0] * items.height},
    ]
    scored = uphill.search(dataset, score=parts, update="rl", stop=BUDGET).results().drop_nulls("score")
    assert scored.height > 0
    assert np.allclose(scored["score"], scored["qed"] - scored["mw"] / 1000 + 1)


def test_a_function_may_be_minimised_and_is_reused_by_its_version_only(dataset):
    light: uphill.ScoreOptions = {"call": lambda items: items["mw"], "direction": "minimize", "version": "mw-1"}
    first = uphill.search(dataset, score=light, update="rl", stop=BUDGET, out="first")
    assert first.results()["raw_score"].is_sorted()
    again = uphill.search(dataset, score={**light, "reuse": ["first"]}, update="rl", stop=BUDGET)
    assert again.ended["reused"] > 0
    del light["version"]
    with pytest.raises(uphill.ConfigError, match="set score.version"):
        uphill.search(dataset, score={**light, "reuse": ["first"]})


def test_calls_run_in_parallel_if_there_are_several_workers(dataset):
    most, now, lock = 0, 0, threading.Lock()

    def score(items: pl.DataFrame) -> pl.Series:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.2)
        with lock:
            now -= 1
        return items["qed"]

    options = {"update": "rl", "stop": {"iterations": 1}}
    uphill.search(dataset, score={"call": score, "batch_size": 10, "workers": 4}, **options)
    assert 2 <= most <= 4
    most = 0
    uphill.search(dataset, score={"call": score, "batch_size": 50}, **options)
    assert most == 1


def test_a_search_may_be_started_from_any_thread_and_inside_a_function(dataset):
    found = []

    def score(items: pl.DataFrame) -> pl.Series:
        inner = uphill.search(dataset, score="qed", stop={"evaluations": 5})
        found.append(inner.ended["evaluations"])
        return items["qed"]

    def work() -> None:
        uphill.search(dataset, score=score, update="rl", stop={"iterations": 2})

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [5, 5]


def test_a_report_shows_the_name_of_the_function(dataset):
    page = uphill.search(dataset, score=qed, stop={"evaluations": 20}, update=RULE, out="run").report()
    assert "Best score, qed against items scored" in page
    page = uphill.search(dataset, score=lambda items: items["qed"], stop={"evaluations": 20}, update=RULE).report()
    assert "Best score, score against items scored" in page
