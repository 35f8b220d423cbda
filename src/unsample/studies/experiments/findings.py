"""What an experiment returns: tables, figures, numbers, and judgements of the paper's claims.

Below, what most experiments need for it: diagnoses as a table, as curves and as bars.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...diagnostics import Diagnosis, Interval, Row
from ...diagnostics.row import PATCH_ROW
from ...pictures import Bar, Curve, Drawing, Panel
from ...runs.html import Table
from .verdicts import Verdict

DIAGNOSTICS = {"top-20 r": PATCH_ROW, "PSNR, dB": "PSNR", "plain share": "plain fraction"}
"""Heading of a column -> the diagnostic it shows, where they differ."""

Judged = tuple[str, str, Verdict]
"""A claim's sentence, its numbers, and whether it holds."""


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
    holds: Verdict
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


def joined(parts: Iterable[Findings]) -> Findings:
    """The findings on several sets of images as one, under the setting of the first."""
    every = list(parts)
    return Findings(
        every[0].setting,
        {title: table for one in every for title, table in one.tables.items()},
        tuple(figure for one in every for figure in one.figures),
        tuple(claim for one in every for claim in one.claims),
        {name: metrics for one in every for name, metrics in one.metrics.items()},
    )


def numbers(value: Any) -> Any:
    """Rows, intervals and diagnoses, in whatever mappings and sequences, as `json.dumps` takes them.

    >>> numbers({"E1": [Interval(0.5, 0.4, 0.6)]})
    {'E1': [{'estimate': 0.5, 'low': 0.4, 'high': 0.6}]}
    """
    if isinstance(value, Mapping):
        return {name: numbers(part) for name, part in value.items()}
    if isinstance(value, list):
        return [numbers(part) for part in value]
    return value.to_dict() if isinstance(value, Row | Diagnosis) else asdict(value) if isinstance(value, Interval) else value


def judged(images: str, *claims: Judged) -> tuple[Claim, ...]:
    """Sentences with their numbers and verdicts, as claims about one set of images."""
    return tuple(Claim(*claim, images) for claim in claims)


def columns(*headings: str) -> dict[str, str]:
    """Headings -> the diagnostics they stand for, as `table_of` takes them.

    >>> columns("top-20 r", "std plain")
    {'top-20 r': 'top-20 patch correlation', 'std plain': 'std plain'}
    """
    return {heading: DIAGNOSTICS.get(heading, heading) for heading in headings}


def table_of(diagnoses: Mapping[str, Diagnosis], columns: Mapping[str, str], head: str = "") -> Table:
    """Diagnoses as rows, diagnostics as columns (heading -> name), true noise last.

    >>> from unsample.diagnostics import Null
    >>> noise = Null(1.0, 0.01, 0.98, 1.02)
    >>> diagnoses = {"DDIM": Diagnosis(2, (Row("std plain", 0.5, 0.4, 0.6, noise),))}
    >>> print(table_of(diagnoses, {"std": "std plain"}).markdown())
    |  | std |
    | --- | --- |
    | DDIM | 0.500 [0.400, 0.600] |
    | true noise | 1.000 [0.980, 1.020] |
    """
    rows = [(title, *(str(diagnosis[name]) for name in columns.values())) for title, diagnosis in diagnoses.items()]
    last = next(iter(diagnoses.values()))
    return Table((head, *columns), (*rows, ("true noise", *(last[name].noise for name in columns.values()))))


def panel(
    title: str, across: str, diagnoses: Mapping[float, Diagnosis], names: Mapping[str, str], up: str, log: str = ""
) -> Panel:
    """Diagnostics (label -> name) as curves over a number, with intervals, and what true noise takes."""
    rows = {label: [diagnosis[name] for diagnosis in diagnoses.values()] for label, name in names.items()}
    null = next((row for line in rows.values() for row in line if row.null), None)
    lines = [curve(label, list(diagnoses), line) for label, line in rows.items()]
    return Panel(title, lines, across, up, span(null) if null else None, log)


def span(row: Row) -> tuple[float, float] | None:
    """Where 95 % of true noise lies, which charts shade; None where noise has no value."""
    return (row.null.low, row.null.high) if row.null else None


def curve(name: str, x: Sequence[float], rows: Sequence[Row]) -> Curve:
    """Rows over a number as a curve; intervals where all have one."""
    low, high = [row.low for row in rows], [row.high for row in rows]
    ends = (None, None) if None in low or None in high else (low, high)
    return Curve(name, x, [row.value for row in rows], *ends)


def line(name: str, x: Sequence[float], intervals: Sequence[Interval]) -> Curve:
    """Estimates over a number as a curve with their intervals."""
    values, low, high = zip(*((interval.estimate, interval.low, interval.high) for interval in intervals), strict=True)
    return Curve(name, x, values, low, high)


def bar(value: Row | Interval) -> Bar:
    """A row or an interval as a bar."""
    return Bar(value.value if isinstance(value, Row) else value.estimate, value.low, value.high)
