"""Bars with rate and time left, on standard error, for anything that reports (done, total)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ..core.batching import OnStep

__all__ = ["bytes_bar", "counted", "progress_bar"]


def counted(count: int, what: str, several: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "picture"), counted(2, "picture"), counted(0, "entry", "entries")
    ('1 picture', '2 pictures', '0 entries')
    """
    return f"{count} {what if count == 1 else several or f'{what}s'}"


@contextmanager
def progress_bar(what: str) -> Iterator[OnStep]:
    """Show a bar called `what` while the block runs, if a person can see it; what it yields is an `on_step`."""
    rate = TextColumn("moves, {task.fields[rate]}")
    bar = _bar(MofNCompleteColumn(), rate, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with bar:
        task = bar.add_task(what, total=None, rate="")

        def on_step(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:.0f}/s" if speed else "")

        yield on_step


@contextmanager
def bytes_bar(what: str) -> Iterator[OnStep]:
    """The same, of bytes."""
    with _bar(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _bar(*columns: ProgressColumn) -> Progress:
    console = Console(stderr=True)
    whole = TextColumn("{task.description}"), BarColumn(), *columns
    return Progress(*whole, console=console, transient=True, disable=not console.is_terminal)
