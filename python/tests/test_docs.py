"""Tests of the documentation: docstrings, and the Python code of the README and of docs/python.md."""

import doctest
import re
import shutil

import pytest
from conftest import ROOT

import uphill
from uphill import _library, _run, _search


def test_docstrings(molecules):
    names = {"data": ROOT / "data", "uphill": uphill, "molecules": molecules.head(2000)}
    # In this order: the first builds the library that the others open.
    for module in (uphill, _library, _run, _search):
        failed, tried = doctest.testmod(module, extraglobs=names)
        assert tried > 0 and failed == 0, module.__name__


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_of_a_page(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert blocks
    shutil.copytree(ROOT / "data", "data")
    names = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_every_public_name_has_a_docstring():
    for name in uphill.__all__:
        thing = getattr(uphill, name)
        assert thing.__doc__, name


