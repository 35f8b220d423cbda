"""The scores of an editing benchmark: for every row and number a mean, its interval over entries and their count."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from torch import Tensor

from ...diagnostics import Interval, bootstrap
from ...diagnostics.intervals import FEWEST_IMAGES
from ...diagnostics.row import format_number
from ...errors import RunError, UnknownNameError, UnsampleError
from ...runs.html import Table
from .layout import Failure
from .metrics import METRICS, TARGET_CLASS

KINDS = {
    "0": "random",
    "1": "change object",
    "2": "add object",
    "3": "delete object",
    "4": "change content",
    "5": "change pose",
    "6": "change colour",
    "7": "change material",
    "8": "change background",
    "9": "change style",
}
"""`editing_type_id` -> PIE-Bench's type of edit."""

BETTER = {metric.name: metric.better for metric in (*METRICS, TARGET_CLASS)}
ARROWS = {"higher": "↑", "lower": "↓"}

Column = Mapping[str, float]
"""Key of an entry -> value."""

Changed = TypeVar("Changed")


@dataclass(frozen=True, eq=False)
class Scores:
    """The values of an editing benchmark.

    Attributes:
        values: Row -> name of the number -> key of the entry -> value, of the entries that have one.
        failed: Entries, and edits of them, that are left out.
        reasons: Name of a number -> why it is missing, everywhere or from some entries.
        entries: How many were read.
        kinds: Key of the entry -> its `editing_type_id`.

    >>> scores = Scores({"mine": {"PSNR": {"0": 20.0, "1": 22.0}}}, (), {}, 2)
    >>> scores.mean("mine", "PSNR")
    Interval(estimate=21.0, low=20.0, high=22.0)
    """

    values: Mapping[str, Mapping[str, Column]]
    failed: tuple[Failure, ...]
    reasons: Mapping[str, str]
    entries: int
    kinds: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        rows: Sequence[str],
        keys: Sequence[str],
        columns: Mapping[str, Sequence[Tensor]],
        failed: Sequence[Failure],
        reasons: Mapping[str, UnsampleError],
        kinds: Mapping[str, str],
    ) -> Scores:
        """Scores from name of the number -> for each key the values of all rows, NaN where there is none."""
        lists = {name: [values.tolist() for values in column] for name, column in columns.items()}
        values = {
            row: {
                name: {key: value[i] for key, value in zip(keys, column, strict=True) if not math.isnan(value[i])}
                for name, column in lists.items()
            }
            for i, row in enumerate(rows)
        }
        return cls(values, tuple(failed), {name: str(error) for name, error in reasons.items()}, len(keys), kinds)

    def mean(self, row: str, metric: str) -> Interval:
        """The mean over entries with its 95 % bootstrap interval: no interval of a single entry, NaN of none.

        Raises:
            UnknownNameError: No such row or number.
        """
        return _mean(list(self._column(row, metric).values()))

    def difference(self, row: str, other: str, metric: str) -> Interval:
        """The mean of `row` less `other` over entries that both have, each with itself: narrower than two intervals apart.

        NaN, too, where a value is infinite. Raises as `mean`.

        >>> scores = Scores({"a": {"PSNR": {"0": 20.0, "1": 32.0}}, "b": {"PSNR": {"0": 19.0, "1": 30.0}}}, (), {}, 2)
        >>> scores.difference("a", "b", "PSNR")
        Interval(estimate=1.5, low=1.0, high=2.0)
        """
        return _mean(self._differences(row, other, metric))

    def _differences(self, row: str, other: str, metric: str) -> list[float]:
        ours, theirs = self._column(row, metric), self._column(other, metric)
        return [value - theirs[key] for key, value in ours.items() if key in theirs]

    def by_type(self) -> dict[str, Scores]:
        """The type of edit, in words (`KINDS`) -> the scores of its entries; failed edits of entries that were read, too."""
        scores = {}
        for kind in sorted(set(self.kinds.values())):
            keys = {key for key, own in self.kinds.items() if own == kind}
            values = _each(self.values, partial(_chosen, keys))
            failed = tuple(one for one in self.failed if one.key in keys)
            own = {key: kind for key in self.kinds if key in keys}
            scores[KINDS.get(kind, kind or "no type")] = Scores(values, failed, self.reasons, len(keys), own)
        return scores

    def table(self, *, empty: bool = True) -> Table:
        """Rows with the mean, its interval and the number of entries; `empty` shows numbers that no entry has, too."""
        names = self._names(empty)
        rows = tuple((row, *(_cell(columns[name]) for name in names)) for row, columns in self.values.items())
        return Table(_head("", names), rows)

    def against(self, row: str, rows: Collection[str]) -> Table:
        """`difference` of each of `rows` to `row`, of the numbers that there are; a star where 0 lies outside the interval.

        Raises:
            UnknownNameError: No such row.
        """
        names = self._names(empty=False)
        shown = [(each, *(_shown(self._differences(each, row, name), star=True) for name in names)) for each in rows]
        return Table(_head(f"less {row}", names), tuple(shown))

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
            "better": {name: BETTER[name] for name in self._names()},
            "rows": _each(self.values, _summary),
            "values": _each(self.values, lambda column: {key: _json(value) for key, value in column.items()}),
            "missing": dict(self.reasons),
            "kinds": dict(self.kinds),
            "failed": [{"key": one.key, "row": one.row, "reason": one.reason} for one in self.failed],
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Scores:
        """Scores from the result of `to_dict`.

        Raises:
            RunError: Something else was given.
        """
        try:
            values = _each(given["values"], lambda column: {key: float(value) for key, value in column.items()})
            failed = tuple(Failure(one["key"], one["reason"], one["row"]) for one in given["failed"])
            return cls(values, failed, dict(given["missing"]), int(given["entries"]), dict(given["kinds"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"expected the scores of an editing benchmark, given something without {error}") from None

    def _names(self, empty: bool = True) -> list[str]:
        """The numbers; all, or those that an entry has."""
        rows = list(self.values.values())
        return [name for name in (rows[0] if rows else ()) if empty or any(columns.get(name) for columns in rows)]

    def _column(self, row: str, metric: str) -> Column:
        if row not in self.values:
            raise UnknownNameError("row", row, self.values)
        if metric not in self.values[row]:
            raise UnknownNameError("number", metric, self.values[row])
        return self.values[row][metric]


def _each(values: Mapping[str, Mapping[str, Any]], change: Callable[[Any], Changed]) -> dict[str, dict[str, Changed]]:
    """The values with the column of every row and number changed."""
    return {row: {name: change(column) for name, column in columns.items()} for row, columns in values.items()}


def _chosen(keys: Collection[str], column: Column) -> Column:
    return {key: value for key, value in column.items() if key in keys}


def _head(first: str, names: Iterable[str]) -> tuple[str, ...]:
    return (first, *(f"{name} {ARROWS[BETTER[name]]}" for name in names))


def _summary(column: Column) -> dict[str, Any]:
    mean = _mean(list(column.values()))
    return {"mean": _json(mean.estimate), "low": _json(mean.low), "high": _json(mean.high), "n": len(column)}


def _cell(column: Column) -> str:
    return f"{_shown(list(column.values()))} ({len(column)})" if column else "-"


def _mean(values: list[float]) -> Interval:
    """No interval of a single value, NaN of none, or where infinite values cancel."""
    if any(math.isnan(value) for value in values):
        return Interval(math.nan, math.nan, math.nan)
    if len(values) > 1:
        return bootstrap(values)
    return Interval(values[0] if values else math.nan, math.nan, math.nan)


def _shown(values: list[float], *, star: bool = False) -> str:
    """The mean, with its interval unless the values are few."""
    mean = _mean(values)
    if math.isnan(mean.estimate):
        return "-"
    if len(values) < FEWEST_IMAGES:
        return format_number(mean.estimate)
    span = "" if math.isnan(mean.low) else f" [{format_number(mean.low)}, {format_number(mean.high)}]"
    mark = "*" if star and (mean.low > 0 or mean.high < 0) else ""
    return f"{format_number(mean.estimate)}{span}{mark}"


def _json(value: float) -> float | str | None:
    return None if math.isnan(value) else str(value) if math.isinf(value) else value
