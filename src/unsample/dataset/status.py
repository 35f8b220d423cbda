"""How far a dataset is, from the lines of its shards alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ..errors import counted
from .plan import DATA, REJECTED, Plan
from .shards import Line, every_line, read_rows
from .store import Store


@dataclass(frozen=True)
class Status:
    """What is done, and what is not.

    Attributes:
        place: Where the dataset is.
        plan: What it is to be.
        lines: The shards that are done, by number.
        damaged: Shards that were done, and of which a file is missing or was changed.
    """

    place: str
    plan: Plan = field(repr=False)
    lines: Mapping[int, Line] = field(repr=False)
    damaged: tuple[int, ...] = ()

    @classmethod
    def of(cls, store: Store, plan: Plan) -> Status:
        """The status of a place.

        Raises:
            RunError: It cannot be read.
        """
        every = every_line(store, plan)
        lines = {number: line for number, line in every.items() if line}
        return cls(store.place, plan, lines, tuple(number for number in every if number not in lines))

    @property
    def missing(self) -> list[int]:
        """The shards that are to be made."""
        return [number for number in range(self.plan.shards) if number not in self.lines]

    @property
    def complete(self) -> bool:
        """Whether all are done."""
        return len(self.lines) == self.plan.shards

    @property
    def rows(self) -> int:
        """Pictures that are done."""
        return sum(line.rows for line in self.lines.values())

    @property
    def rejected(self) -> int:
        """Pictures that were left out."""
        return sum(line.rejected for line in self.lines.values())

    @property
    def bytes(self) -> int:
        """Of the rows that are done."""
        return sum(line.sizes.get(DATA, 0) for line in self.lines.values())

    @property
    def rate(self) -> float:
        """Pictures a second of all workers together, from when the first began until the last was done; pauses count."""
        ends = [(datetime.fromisoformat(line.finished), timedelta(seconds=line.seconds)) for line in self.lines.values()]
        if not ends:
            return 0.0
        whole = max(end for end, _ in ends) - min(end - spent for end, spent in ends)
        return (self.rows + self.rejected) / max(whole.total_seconds(), 1e-3)

    @property
    def seconds_left(self) -> float | None:
        """At this rate; None while there is none."""
        left = sum(self.plan.rows(number)[1] for number in self.missing)
        return left / self.rate if self.rate else None

    def to_dict(self) -> dict[str, Any]:
        """As `json.dumps` takes it."""
        left = self.seconds_left
        return {
            "place": self.place,
            "command": self.plan.command,
            "images": self.plan.images,
            "shards": {
                "all": self.plan.shards,
                "done": len(self.lines),
                "missing": self.missing,
                "damaged": list(self.damaged),
            },
            "rows": self.rows,
            "rejected": self.rejected,
            "bytes": self.bytes,
            "images_per_second": round(self.rate, 3),
            "seconds_left": None if left is None else round(left, 1),
        }

    def __str__(self) -> str:
        words = f"{self.rows + self.rejected} of {counted(self.plan.images, 'picture')} done"
        words += f", {len(self.lines)} of {counted(self.plan.shards, 'shard')}"
        if self.damaged:
            words += f" ({len(self.damaged)} damaged)"
        if self.rejected:
            words += f"; {counted(self.rejected, 'picture')} left out"
        if not self.complete and self.seconds_left is not None:
            words += f"; {self.rate:.1f} pictures a second, {timedelta(seconds=round(self.seconds_left))} left"
        return words


def rejected_rows(store: Store, status: Status, limit: int | None = None) -> list[tuple[str, str]]:
    """Ids of pictures that were left out, and why; at most `limit`.

    Raises:
        RunError: A list is missing or damaged.
    """
    rows: list[tuple[str, str]] = []
    for line in status.lines.values():
        if REJECTED in line.sizes and (limit is None or len(rows) < limit):
            table = read_rows(store, line, REJECTED, line.rejected, "id", "reason")
            rows += [(each["id"], each["reason"]) for each in table.to_pylist()]
    return rows[:limit]
