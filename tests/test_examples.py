"""Every example runs as printed, with few steps."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example), "4"])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out


def test_examples_are_short():
    assert len(EXAMPLES) == 7
    assert all(len(example.read_text().splitlines()) < 60 for example in EXAMPLES)
