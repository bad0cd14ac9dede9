"""Fixtures: a library of molecules, and a separate folder for each test."""

from pathlib import Path

import polars as pl
import pytest

import uphill

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def molecules() -> pl.DataFrame:
    return pl.read_parquet(ROOT / "data" / "molecules.parquet", n_rows=3000)


@pytest.fixture(scope="session")
def dataset(molecules: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("library") / "molecules.lance"
    uphill.index(molecules, path)
    return path


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
