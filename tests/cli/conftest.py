"""Runs of the command line in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unsample import pictures as plotting
from unsample.pictures.read import demo_photos


@pytest.fixture
def photos() -> list[Path]:
    return demo_photos()[:3]


@pytest.fixture
def without_overview(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at what a run holds besides its picture, which takes longer than a few steps of the small model."""
    monkeypatch.setattr(plotting, "overview", lambda *given, **named: b"")
    monkeypatch.setattr(plotting, "sheet", lambda *given, **named: b"")


def tensors(place: Path) -> dict[str, torch.Tensor]:
    """What a complete run left behind."""
    return load_file(place / "latents.safetensors")


def one_line(outcome, *, reduced: bool = False) -> str:  # type: ignore[no-untyped-def]
    """The message of a command that was refused, after checking that it is one line and all there is.

    Where pictures were `reduced` before, the line that says so stands above it.
    """
    assert outcome.code == 2, outcome.out + outcome.err
    assert outcome.out == ""
    *notes, line = outcome.err.strip().splitlines()
    assert ["reduced from" in note for note in notes] == [True] * reduced, outcome.err
    assert line.startswith("unsample: ")
    return line


CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
"""What a child that is sent Ctrl-C runs first: it inherits that of a job in the background, where it is ignored."""


def start(arguments: Sequence[object], before: str = "", **more: object) -> subprocess.Popen[str]:
    """Start the command line in a process of its own, single-threaded as the tests are; `before` is Python it runs first."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", f"{CTRL_C}\n{before}\nfrom unsample.cli import main; main()", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **pipes, **more)  # type: ignore[call-overload, no-any-return]
