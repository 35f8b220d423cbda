"""What an editing benchmark found: a mean, its interval over entries and how many there were, for every row and number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..diagnostics import Interval, bootstrap
from ..diagnostics.summary import format_number
from ..errors import UnknownNameError
from ..report import Table
from .layout import Failure
from .measures import METRICS

__all__ = ["Scores"]


@dataclass(frozen=True, eq=False)
class Scores:
    """The values of an editing benchmark.

    Attributes:
        values: Row -> name of the number -> key of the entry -> value, of the entries that have one.
        failed: Entries, and edits of them, that are left out.
        reasons: Name of a number -> why it is missing, everywhere or from some entries.
        entries: How many were read.

    >>> scores = Scores({"mine": {"PSNR": {"0": 20.0, "1": 22.0}}}, (), {}, 2)
    >>> scores.mean("mine", "PSNR")
    Interval(estimate=21.0, low=20.0, high=22.0)
    """

    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    failed: tuple[Failure, ...]
    reasons: Mapping[str, str]
    entries: int

    def mean(self, row: str, metric: str) -> Interval:
        """The mean over entries with its 95 % bootstrap interval: no interval of a single entry, NaN of none.

        Raises:
            UnknownNameError: No such row or number.
        """
        if row not in self.values:
            raise UnknownNameError("row", row, self.values)
        if metric not in self.values[row]:
            raise UnknownNameError("number", metric, self.values[row])
        found = list(self.values[row][metric].values())
        if len(found) > 1:
            return bootstrap(found)
        return Interval(found[0] if found else math.nan, math.nan, math.nan)

    def table(self) -> Table:
        """Rows with the mean, its interval and the number of entries."""
        arrows = {"higher": "↑", "lower": "↓"}
        head = ("", *(f"{metric.name} {arrows[metric.better]}" for metric in METRICS))
        return Table(head, tuple((row, *(self._cell(row, metric.name) for metric in METRICS)) for row in self.values))

    def notes(self) -> Iterator[str]:
        """Lines to put below the table: what is missing and why."""
        for metric, reason in self.reasons.items():
            yield f"{metric}: {reason}"
        for failure in self.failed:
            yield f"left out: {failure}"

    def to_dict(self) -> dict[str, Any]:
        """As `json.dumps` takes it: a missing number is None, an infinite one the string "inf"."""
        return {
            "entries": self.entries,
            "better": {metric.name: metric.better for metric in METRICS},
            "rows": {row: {name: self._told(row, name) for name in columns} for row, columns in self.values.items()},
            "values": {
                row: {name: {key: _json(value) for key, value in column.items()} for name, column in columns.items()}
                for row, columns in self.values.items()
            },
            "missing": dict(self.reasons),
            "failed": [{"key": one.key, "row": one.row, "reason": one.reason} for one in self.failed],
        }

    def _told(self, row: str, metric: str) -> dict[str, Any]:
        mean = self.mean(row, metric)
        ends = {"mean": _json(mean.estimate), "low": _json(mean.low), "high": _json(mean.high)}
        return {**ends, "n": len(self.values[row][metric])}

    def _cell(self, row: str, metric: str) -> str:
        if not (found := self.values[row].get(metric)):
            return "-"
        mean = self.mean(row, metric)
        span = "" if math.isnan(mean.low) else f" [{format_number(mean.low)}, {format_number(mean.high)}]"
        return f"{format_number(mean.estimate)}{span} ({len(found)})"


def _json(value: float) -> float | str | None:
    return None if math.isnan(value) else str(value) if math.isinf(value) else value
