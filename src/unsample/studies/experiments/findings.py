"""What an experiment finds: tables, figures, numbers, and judgements of the paper's claims.

Below, what most experiments need to say it: diagnoses as a table, as curves and as bars, and whether a value is noise's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...diagnostics import Diagnosis, Interval, Row
from ...pictures import Bar, Curve, Drawing, Panel
from ...runs.html import Table

__all__ = [
    "Claim",
    "Figure",
    "Findings",
    "above",
    "apart",
    "bar",
    "below",
    "curve",
    "line",
    "lower",
    "panel",
    "table_of",
]


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, and whether our numbers bear it out.

    Attributes:
        sentence: What is claimed.
        numbers: What was measured, with intervals, and what true noise gives.
        holds: Yes, no, or None where these images cannot tell.
        images: Which images it was judged on.

    >>> Claim("Latents are correlated.", "r 0.37 [0.36, 0.38]; noise 0.22 [0.21, 0.23]", True).verdict
    'holds'
    """

    sentence: str
    numbers: str
    holds: bool | None
    images: str = ""

    @property
    def verdict(self) -> str:
        """In words."""
        return {True: "holds", False: "does not hold", None: "cannot be told"}[self.holds]


@dataclass(frozen=True)
class Figure:
    """A drawing with the name of its files and a sentence that says what to see.

    Attributes:
        shows_data: Whether photographs of the data can be seen in it, which not everybody may pass on.
    """

    name: str
    caption: str
    drawing: Drawing = field(repr=False)
    shows_data: bool = False


@dataclass(frozen=True)
class Findings:
    """What an experiment returns.

    Attributes:
        setting: What was done, in a sentence or two: images, steps, units, what the intervals are over.
        tables: Heading -> table.
        figures: In the order of the report.
        claims: Judged by this run alone.
        metrics: The numbers, as `json.dumps` takes them but for NaN, which becomes null.
    """

    setting: str
    tables: Mapping[str, Table]
    figures: tuple[Figure, ...]
    claims: tuple[Claim, ...]
    metrics: Mapping[str, Any]


def table_of(found: Mapping[str, Diagnosis], columns: Mapping[str, str], head: str = "") -> Table:
    """Diagnoses as rows, diagnostics as columns (heading -> name), true noise last.

    >>> from unsample.diagnostics import Null
    >>> noise = Null(1.0, 0.01, 0.98, 1.02)
    >>> found = {"DDIM": Diagnosis(2, (Row("std plain", 0.5, 0.4, 0.6, noise),))}
    >>> print(table_of(found, {"std": "std plain"}).markdown())
    |  | std |
    | --- | --- |
    | DDIM | 0.500 [0.400, 0.600] |
    | true noise | 1.000 [0.980, 1.020] |
    """
    rows = [(title, *(str(diagnosis[name]) for name in columns.values())) for title, diagnosis in found.items()]
    last = next(iter(found.values()))
    return Table((head, *columns), (*rows, ("true noise", *(last[name].noise for name in columns.values()))))


def panel(
    title: str, across: str, found: Mapping[float, Diagnosis], names: Mapping[str, str], up: str, log: str = ""
) -> Panel:
    """Diagnostics (label -> name) as curves over a number, with intervals, and what true noise takes."""
    rows = {label: [diagnosis[name] for diagnosis in found.values()] for label, name in names.items()}
    null = next((row.null for line in rows.values() for row in line if row.null), None)
    lines = [curve(label, list(found), line) for label, line in rows.items()]
    return Panel(title, lines, across, up, (null.low, null.high) if null else None, log)


def curve(name: str, x: Sequence[float], rows: Sequence[Row]) -> Curve:
    """Rows over a number as a curve; intervals where all have one."""
    low, high = [row.low for row in rows], [row.high for row in rows]
    ends = (None, None) if None in low or None in high else (low, high)
    return Curve(name, x, [row.value for row in rows], *ends)


def bar(row: Row) -> Bar:
    """A row as a bar."""
    return Bar(row.value, row.low, row.high)


def above(row: Row) -> bool | None:
    """Whether the whole interval lies above what true noise takes; None where only the value does, or there is no interval.

    >>> from unsample.diagnostics import Null
    >>> noise = Null(0.0, 0.5, -1.0, 1.0)
    >>> [above(Row("r", value, value - 1, value + 1, noise)) for value in (3.0, 1.5, 0.5)]
    [True, None, False]
    """
    if row.low is None or row.null is None:
        return None
    return True if row.low > row.null.high else None if row.value > row.null.high else False


def below(row: Row) -> bool | None:
    """Whether the whole interval lies below what true noise takes; None where only the value does, or there is no interval."""
    if row.high is None or row.null is None:
        return None
    return True if row.high < row.null.low else None if row.value < row.null.low else False


def apart(row: Row) -> bool | None:
    """Whether the whole interval lies outside what true noise takes, on either side; None where only the value does.

    >>> from unsample.diagnostics import Null
    >>> noise = Null(0.0, 0.5, -1.0, 1.0)
    >>> [apart(Row("r", value, value - 1, value + 1, noise)) for value in (-3.0, -1.5, 0.5)]
    [True, None, False]
    """
    return True if above(row) or below(row) else False if row.is_noise and above(row) is False else None


def lower(row: Row, other: Row) -> bool | None:
    """Whether one value lies below another by intervals that do not meet; None if they do, or there are none.

    >>> a, b, c = (Row("", value, value - 1, value + 1) for value in (0.0, 1.0, 3.0))
    >>> lower(a, c), lower(a, b), lower(c, a)
    (True, None, False)
    """
    if row.low is None or row.high is None or other.low is None or other.high is None:
        return None
    return True if row.high < other.low else False if other.high < row.low else None


def line(name: str, x: Sequence[float], intervals: Sequence[Interval]) -> Curve:
    """Estimates over a number as a curve with their intervals."""
    values, low, high = zip(*((found.estimate, found.low, found.high) for found in intervals), strict=True)
    return Curve(name, x, values, low, high)
