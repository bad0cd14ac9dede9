"""Tests that the options of Python and of run files are the same."""

import json
import re
import subprocess
import sys
import typing

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import uphill

RUN_FILE = """
seed = 11
[database]
path = "{path}"
columns = ["name", "mw", "qed"]
k = 12
[queries]
sample = 5
[filter]
sql = "mw < 450"
[score]
sql = "qed"
direction = "minimize"
[update]
rule = "rl"
lr = [0.5, 2.0]
[prune]
k = 2
[restart]
after = 2
[stop]
evaluations = 150
"""

SAME = {
    "database": {"columns": ["name", "mw", "qed"], "k": 12},
    "queries": 5,
    "filter": "mw < 450",
    "score": {"sql": "qed", "direction": "minimize"},
    "update": {"rule": "rl", "lr": [0.5, 2.0]},
    "prune": {"k": 2},
    "restart": 2,
    "stop": {"evaluations": 150},
    "seed": 11,
}


def command(*arguments: object) -> str:
    done = subprocess.run([sys.executable, "-m", "uphill", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("shows", ["results", "queries", "trajectories"])
def test_python_and_the_command_give_the_same_frames(dataset, molecules, shows):
    with open("run.toml", "w") as file:
        file.write(RUN_FILE.format(path=dataset))
    command("search", "run.toml", "--out", "by_command")
    same = dict(SAME)
    library = uphill.open(dataset, **same.pop("database"))
    run = uphill.search(library, **same, out="by_python")

    command(shows, "by_command", "--format", "parquet", "-o", "shown.parquet")
    shown = pl.read_parquet("shown.parquet", hive_partitioning=False)
    assert_frame_equal(getattr(run, shows)(), shown)
    assert_frame_equal(getattr(uphill.Run("by_command"), shows)(), shown)

    configs = [uphill.Run(name).manifest["config"] for name in ("by_command", "by_python")]
    assert configs[0] == configs[1]

    molecules.write_parquet("truth.parquet")
    command("evaluate", "by_command", "--truth", "truth.parquet", "--score-column", "qed", "-o", "evaluated.parquet")
    assert_frame_equal(run.evaluate(molecules, "qed"), pl.read_parquet("evaluated.parquet"))
    command("report", "by_command", "-o", "report.html")
    with open("report.html") as file:
        assert file.read() == uphill.Run("by_command").report()


def section_keys(section: str, **beside: object) -> set[str]:
    """The keys of a section, as listed in the error for an unknown key."""
    config = {"database": {"path": "x"}, "score": {"sql": "x"}}
    config[section] = {**beside, "": 0}
    with pytest.raises(uphill.ConfigError) as refused:
        uphill._uphill.search(json.dumps(config), "x", functions={}, queries=None, resume=False, retry_failed=False)
    return set(re.findall(r"[a-z_]+", str(refused.value).split("valid keys are")[1]))


RULES = ("surrogate", "rl", "top-k", "top-k-discrete")


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (uphill.DatabaseOptions, lambda: section_keys("database")),
        (uphill.QueriesOptions, lambda: section_keys("queries")),
        (uphill.FilterOptions, lambda: section_keys("filter")),
        (uphill.ScoreOptions, lambda: section_keys("score")),
        (uphill.UpdateOptions, lambda: set().union({"rule"}, *(section_keys("update", rule=rule) for rule in RULES))),
        (uphill.PruneOptions, lambda: section_keys("prune")),
        (uphill.RestartOptions, lambda: section_keys("restart")),
        (uphill.GradientOptions, lambda: section_keys("gradient")),
        (uphill.StopOptions, lambda: section_keys("stop")),
    ],
)
def test_every_key_of_the_run_file_is_typed(typed, keys):
    assert set(typing.get_type_hints(typed)) == keys()


def test_every_section_of_the_run_file_is_typed():
    with pytest.raises(uphill.ConfigError) as refused:
        uphill.search("x", score="qed", **{"": 0})
    sections = set(re.findall(r"[a-z]+", str(refused.value).split("valid keys are")[1]))
    assert set(typing.get_type_hints(uphill.Sections)) | {"database", "score"} == sections


def test_invalid_options_are_reported_before_anything_is_written(dataset, tmp_path):
    cases = [
        ({"update": {"rule": "rl", "lrr": 2}}, "unknown key `lrr`; did you mean `lr`"),
        ({"stopp": {"iterations": 2}}, "unknown key `stopp`; did you mean `stop`"),
        ({"filter": "weight < 3"}, "weight"),
        ({"filter": {"sql": "mw < 3", "call": len}}, "`sql` or `call`, not both"),
        ({"queries": 0}, "queries.sample: expected at least 1"),
        ({"score": {"call": len, "batch_size": 0}}, "score.batch_size: expected at least 1"),
        ({"score": {"sql": "qed", "batch_size": 3}}, "score.batch_size: works with `command`, `url` or `call`, not with `sql`"),
        ({"score": {"call": len, "timeout": 3.0}}, "score.timeout: works with `command` or `url`, not with `call`"),
        ({"score": {}}, "set one of `sql`, `command`, `url`, `call`, `by_hand` or `sum`"),
    ]
    for options, says in cases:
        with pytest.raises(uphill.ConfigError, match=says):
            uphill.search(dataset, **{"score": "qed", **options})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(uphill.Error, match="nowhere.lance"):
        uphill.open("nowhere.lance")
    with pytest.raises(TypeError, match="found object"):
        uphill.search(dataset, score={"sql": object()})


def test_the_command_reports_a_function_that_it_cannot_call(dataset):
    uphill.search(dataset, score=lambda items: items["qed"], stop={"evaluations": 20}, out="run")
    config = uphill.Run("run").manifest["config"]
    assert "<lambda>" in config["score"]["call"]
    with open("run.toml", "w") as file:
        file.write(f"[database]\npath = '{dataset}'\n[score]\ncall = '{config['score']['call']}'\n")
    done = subprocess.run(
        [sys.executable, "-m", "uphill", "search", "run.toml", "--out", "other"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "this program has no function" in done.stderr, done.stderr
    page = uphill.Run("run").report()
    assert "by the program whose functions it calls" in page


@pytest.mark.parametrize("update", [{"batch": 8}, {"features": []}, {}, {"rule": None, "batch": 8}, None])
def test_an_update_section_without_a_rule_uses_the_default_rule(dataset, update):
    run = uphill.search(dataset, score="qed", update=update, stop={"evaluations": 16})
    assert run.manifest["config"]["update"]["rule"] == "surrogate"


def test_messages_name_the_section_and_none_means_unset(dataset):
    for options, says in [
        ({"update": {"batch": "many"}}, "^update"),
        ({"update": "rl", "prune": {}}, "^prune: missing key `k`"),
        ({"update": "rl", "gradient": {"max_norm": 1.0}}, "^gradient: missing key `scales`"),
        ({"prune": 3}, "^prune: .*expected a section"),
        ({"score": [{"name": "a", "sqk": "qed"}]}, "^score.*did you mean `sql`"),
        ({"stop": {"seconds": float("nan")}}, "^stop.seconds: expected a number, found nan"),
        ({"update": {"rule": "rl", "lr": [0.5, float("inf")]}}, "^update.lr: expected a number, found inf"),
    ]:
        with pytest.raises(uphill.ConfigError, match=says):
            uphill.search(dataset, **{"score": "qed", **options})
    nothing = {"filter": {"sql": None}, "stop": {"evaluations": 16, "failed_share": None}, "queries": {"sample": None}}
    assert uphill.search(dataset, score={"sql": "qed", "reuse": None}, **nothing).ended["evaluations"] == 16
