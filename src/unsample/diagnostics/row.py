"""Diagnostics as people read them: a row with its interval and its value on true noise, and the table of all rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ..errors import UnknownNameError
from ._checks import PerImage
from .intervals import FEWEST_IMAGES, Interval, bootstrap
from .null import Null

STAR = "*"
"""What marks a value outside true noise in tables."""

PATCH_ROW = "top-20 patch correlation"
"""Name of the row of the paper's Table 1."""


@dataclass(frozen=True)
class Row:
    """One diagnostic.

    Attributes:
        name: What it is; unique in a diagnosis.
        value: Its value, NaN where it has none (the note says why).
        low: Lower end of its 95 % interval over images, or None.
        high: Upper end, or None.
        null: Its distribution on true noise, or None where noise has none (reconstruction).
        note: Unit, or why there is no value.

    >>> row = Row("std", 0.9, 0.8, 1.0, Null(1.0, 0.01, 0.97, 1.03))
    >>> print(row, "against", row.noise)
    0.900 [0.800, 1.000] against 1.000 [0.970, 1.030]
    >>> row.is_noise
    False
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    null: Null | None = None
    note: str = ""

    @classmethod
    def from_interval(cls, name: str, interval: Interval, null: Null | None = None, note: str = "") -> Row:
        """The row of an estimate with its interval."""
        return cls(name, interval.estimate, interval.low, interval.high, null, note)

    @classmethod
    def over_images(
        cls,
        name: str,
        values: PerImage,
        statistic: Literal["mean", "median"] = "mean",
        *,
        seed: int,
        null: Null | None = None,
        note: str = "",
    ) -> Row:
        """The mean or median of one value per image, NaN without an image; with its bootstrap interval unless they are few."""
        if len(values) < FEWEST_IMAGES:
            return cls(name, _middle(values, statistic), null=null, note=note)
        return cls.from_interval(name, bootstrap(values, statistic, seed=seed), null, note)

    def __str__(self) -> str:
        span = "" if self.low is None or self.high is None else " " + _span(self.low, self.high)
        return format_number(self.value) + span

    def to_dict(self) -> dict[str, Any]:
        """As `json.dumps` takes it: NaN becomes None, an infinite value the string "inf" or "-inf"."""
        return {name: _json(value) for name, value in asdict(self).items()}

    @property
    def noise(self) -> str:
        """Its value on true noise, as text; empty where there is none."""
        if self.null is None or math.isnan(self.null.mean):
            return ""
        return f"{format_number(self.null.mean)} {_span(self.null.low, self.null.high)}"

    @property
    def is_noise(self) -> bool | None:
        """Whether the value lies where 95 % of true noise does; None without a null or a value."""
        if self.null is None or math.isnan(self.value) or math.isnan(self.null.mean):
            return None
        return self.null.low <= self.value <= self.null.high


@dataclass(frozen=True)
class Diagnosis:
    """The rows of `diagnose`, to look up (`diagnosis["MAE"]`), print (`table`) or save (`to_dict`).

    >>> print(Diagnosis(images=2, rows=(Row("std", 0.5, null=Null(1.0, 0.01, 0.97, 1.03)),)))
    diagnostic   value   95 % interval             true noise   note
    std          0.500   -               1.000 [0.970, 1.030]
    no intervals over images: 2 are too few, from 6 on there are some
    """

    images: int
    rows: tuple[Row, ...]

    def __getitem__(self, name: str) -> Row:
        """The row called `name`."""
        by_name = {row.name: row for row in self.rows}
        if name not in by_name:
            raise UnknownNameError("diagnostic", name, by_name)
        return by_name[name]

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Plain text with aligned columns, one line a diagnostic."""
        head = ("diagnostic", "value", "95 % interval", "true noise", "note")
        lines = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        align = (str.ljust, str.rjust, str.ljust, str.rjust, str.ljust)
        padded = [[side(cell, w) for side, cell, w in zip(align, line, widths, strict=True)] for line in lines]
        return "\n".join(["   ".join(line).rstrip() for line in padded] + no_intervals(self.images))

    def to_dict(self) -> dict[str, Any]:
        """As `json.dumps` takes it: NaN becomes None, an infinite value the string "inf" or "-inf"."""
        return {"images": self.images, "rows": [row.to_dict() for row in self.rows]}


def no_intervals(images: int) -> list[str]:
    """A line that says why so many images have no intervals; none if they have some.

    >>> no_intervals(1), no_intervals(6)
    (['no intervals over images: 1 is too few, from 6 on there are some'], [])
    """
    few = f"{images} {'is' if images == 1 else 'are'} too few"
    return [f"no intervals over images: {few}, from {FEWEST_IMAGES} on there are some"] if images < FEWEST_IMAGES else []


def outside_noise(diagnoses: Mapping[str, Diagnosis]) -> list[str]:
    """A line for each diagnosis that names its rows outside the interval of true noise, and what a star in a table is.

    >>> diagnosis = Diagnosis(images=2, rows=(Row("std", 0.5, null=Null(1.0, 0.01, 0.97, 1.03)),))
    >>> outside_noise({"usual inversion": diagnosis})[0]
    'usual inversion: outside true noise: std 0.500'
    """
    lines, any_outside = [], False
    for title, diagnosis in diagnoses.items():
        rows = [f"{row.name} {format_number(row.value)}" for row in diagnosis.rows if row.is_noise is False]
        lines.append(f"{title}: outside true noise: {', '.join(rows) or 'nothing'}")
        any_outside = any_outside or bool(rows)
    return (
        [*lines, f"{STAR} outside true noise: where 95 % of true noise is not; by chance 1 row in 20 is"]
        if any_outside
        else lines
    )


def _middle(values: PerImage, statistic: str) -> float:
    return float(values.mean() if statistic == "mean" or not len(values) else np.median(values.detach().cpu().numpy()))


def _cells(row: Row) -> tuple[str, ...]:
    interval = "-" if row.low is None or row.high is None else _span(row.low, row.high)
    return row.name, format_number(row.value), interval, row.noise or "-", row.note


def _span(low: float, high: float) -> str:
    return f"[{format_number(low)}, {format_number(high)}]"


def format_number(value: float) -> str:
    """Three decimals from 0.1 up, four from 0.001, two significant digits below."""
    if math.isnan(value):
        return "-"
    size = abs(value)
    return f"{value:.3f}" if size >= 0.1 or size == 0 else f"{value:.4f}" if size >= 0.001 else f"{value:.2g}"


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
