"""Runs of the command line, in this process and in another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from unsample import cli
from unsample.io import demo_photos


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def unsample(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call the command line in this process."""

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def photos() -> list[Path]:
    return demo_photos()[:3]


def command(arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-c", "from unsample.cli import main; main()", *map(str, arguments)]


def start(arguments: Sequence[object], **more: object) -> subprocess.Popen[str]:
    """Start the command line in a process of its own, single-threaded as the tests are."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(arguments), env=environment, **pipes, **more)  # type: ignore[call-overload, no-any-return]
