"""Who is there: a session for each visitor, forgotten when it was not used for a while, and a limit of files kept of all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..core.model import Model
from ..errors import ArgumentError
from .session import Session

KEPT = 30 * 60
"""Seconds that what a visitor has is kept after the last use."""

MOST = 100
"""Visitors remembered; another one takes the place of whoever was away longest."""

QUOTA = 1_000_000_000
"""Bytes of files kept of all visitors."""


@dataclass
class Visitor:
    """What one has, and whether they want to go on."""

    session: Session | None = None
    other: Session | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    used: float = 0.0


@dataclass
class Visitors:
    """All of them, by a key that only they have.

    Attributes:
        model: What inverts, for all.
        folder: Where their files are; None for nowhere.
        clock: Seconds.
    """

    model: Model
    folder: Path | None = None
    clock: Callable[[], float] = time.monotonic
    _there: dict[str, Visitor] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return len(self._there)

    def __getitem__(self, key: str) -> Visitor:
        """The visitor, who is new if not seen for long."""
        with self._lock:
            now = self.clock()
            found = self._there.pop(key, None) or Visitor()
            found.used, self._there[key] = now, found  # the last used is last
            for other in list(self._there)[:-1]:
                if now - self._there[other].used > KEPT or len(self._there) > MOST:
                    self._there.pop(other).stop.set()
            return found

    def left(self, key: str) -> None:
        """A visitor closed the page: what goes on for them ends."""
        with self._lock:
            gone = self._there.pop(key, None)
        if gone:
            gone.stop.set()

    def session(self, key: str) -> Session:
        """What the visitor has made.

        Raises:
            ArgumentError: Nothing, or it was forgotten.
        """
        session = self[key].session
        if session is None:
            raise ArgumentError('there is no inverted picture: choose one and press "There and back"')
        return session

    def opened(self, key: str, place: str | None, steps: int, label: str | None) -> Session:
        """The visitor's session with this picture and these settings; the one that is there if they are the same.

        Raises:
            ArgumentError: No picture, or settings that do not fit.
            ImageError: A picture that is too large, too small, or none.
        """
        visitor = self[key]
        visitor.session = self.session_of(visitor, visitor.session, place, steps, label)
        return visitor.session

    def session_of(
        self, visitor: Visitor, before: Session | None, place: str | None, steps: int, label: str | None
    ) -> Session:
        """`before`, or a new one if it is of another picture or other settings."""
        if not place:
            raise ArgumentError("there is no picture: choose one, drop one in, or paste one")
        if before and (str(before.place), before.steps, before.label) == (place, steps, label):
            return before
        if self.folder:
            sweep(self.folder, QUOTA, Path(place))
        return Session.open(self.model, place, steps=steps, label=label, stop=visitor.stop)


def sweep(folder: Path, quota: int, kept: Path) -> None:
    """Remove the oldest files of a folder until those left are no more than so many bytes; `kept` stays."""
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in files)
    for path in files:
        if total > quota and path != kept:
            total -= path.stat().st_size
            path.unlink(missing_ok=True)
