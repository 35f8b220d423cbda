"""How far work is, on standard error, for anything that reports (done, total): a bar in a terminal, else a line now and then.

Nothing is shown unless a program asks for it, as the command line does: a library does not write to its caller's terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..core.batching import OnStep
from ..errors import printable

SHARE, PAUSE, LONGEST_PAUSE = 0.1, 10.0, 30.0
"""A line for each tenth of the work, but none within 10 seconds of another; and one every 30 seconds in any case."""

WRITING = "drawing and writing"
"""What goes on when all moves are made."""


@dataclass
class Shown:
    """Who is told of progress, and whether anything began."""

    say: Callable[[str], None]
    began: bool = False


_shown: ContextVar[Shown | None] = ContextVar("_shown", default=None)


@contextmanager
def show_progress(say: Callable[[str], None]) -> Iterator[Shown]:
    """Show progress while the block runs: bars in a terminal, lines by `say` elsewhere."""
    before = _shown.set(shown := Shown(say))
    try:
        yield shown
    finally:
        _shown.reset(before)


def progress_bar(what: str) -> AbstractContextManager[OnStep]:
    """Show how far `what` is while the block runs; what it yields is an `on_step`. Without a call it shows the time alone."""
    return _bar(what, "moves", 1)


def pictures_bar(what: str) -> AbstractContextManager[OnStep]:
    """The same, of pictures."""
    return _bar(what, "pictures", 1)


def bytes_bar(what: str) -> AbstractContextManager[OnStep]:
    """The same, of bytes."""
    return _bar(what, "MB", 1_000_000)


def progress_line(text: str) -> None:
    """A line about what is done, where there is no terminal for a bar, and progress is shown."""
    shown = _shown.get()
    if shown is not None and not Console(stderr=True).is_terminal:
        shown.say(printable(text))


@contextmanager
def _bar(what: str, unit: str, size: int) -> Iterator[OnStep]:
    what, pace, shown = printable(what), Pace(unit, size), _shown.get()
    if shown is None:
        yield lambda done, total: None
        return
    shown.began, say = True, shown.say
    if not (console := Console(stderr=True)).is_terminal:
        yield lambda done, total: say(f"{what}: {pace.note(done, total)}") if pace.is_due(done, total) else None
    else:
        columns = TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[note]}", markup=False)
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
            task = bar.add_task(what, total=None, note="")

            def on_step(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total, note=pace.note(done, total))
                if done >= total and len(bar.tasks) == 1:
                    bar.add_task(WRITING, total=None, note="")

            yield on_step


@dataclass
class Pace:
    """How fast work goes, in words, and when it is time for another line about it.

    Attributes:
        unit: What is counted.
        size: How many of what is reported are one of them.
    """

    unit: str = "moves"
    size: int = 1
    began: float = field(default_factory=lambda: time.monotonic())
    last: float = 0.0
    share: float = 0.0

    def note(self, done: int, total: int) -> str:
        """`30 of 100 moves, 5.0 a second, 14 s left`."""
        seconds = max(self._seconds(done), 1e-3)
        rate = done / seconds
        left = f", {(total - done) / rate:.0f} s left" if done else ""
        return f"{done / self.size:.0f} of {total / self.size:.0f} {self.unit}, {rate / self.size:.1f} a second{left}"

    def is_due(self, done: int, total: int) -> bool:
        """Whether it is time for a line; if so, the next is not due at once."""
        seconds, share = self._seconds(done), done / max(total, 1)
        waited = seconds - self.last
        due = waited >= LONGEST_PAUSE or (waited >= PAUSE and share - self.share >= SHARE - 1e-9)
        if due:
            self.last, self.share = seconds, share
        return due

    def _seconds(self, done: int) -> float:
        """Of work: it begins when nothing is reported to be done, as after a model was loaded."""
        if not done:
            self.began = time.monotonic()
        return time.monotonic() - self.began
