"""What a comparison shows: a table, a picture, and the ways that no other beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ... import pictures as plotting
from ...diagnostics import Row
from ...diagnostics.medians import PLAIN_MEDIAN, PSNR_MEDIAN
from ...diagnostics.row import format_number as number
from ...pictures import Drawing
from ...runs.html import Table
from .candidates import Measured, Way

__all__ = ["BRIEF", "COLUMNS", "EXACT", "Comparison", "pareto", "table"]

PATCH = "top-20 patch correlation"

COLUMNS = {
    "top-20 r": PATCH,
    "std plain": "std plain",
    "std plain (median)": PLAIN_MEDIAN,
    "std other": "std other",
    "lag-1 plain": "lag-1 plain",
    "lag-1 other": "lag-1 other",
    "kurtosis": "excess kurtosis",
    "PSNR, dB (mean)": "PSNR",
    "PSNR, dB (median)": PSNR_MEDIAN,
    "SSIM (mean)": "SSIM",
    "MAE (mean)": "MAE",
    "MAE plain": "MAE plain",
}
"""Heading of a column -> the diagnostic it shows: over photos where it says so, otherwise of all their pixels together."""

BRIEF = {name: COLUMNS[name] for name in ("top-20 r", "std plain", "std plain (median)", "lag-1 plain", "PSNR, dB (median)")}
"""The columns that fit a terminal."""

EXACT = 60.0
"""PSNR in dB above which reconstructions count as equal: rounding to 8 bits alone leaves no more than 58.9 dB."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Ways of inverting the same photos at the same cost.

    Attributes:
        ways: What each way gave, grouped by method.
        nfe: The budget: network evaluations on the way up.
        photos: How many were inverted.
    """

    ways: Mapping[Way, Measured]
    nfe: int
    photos: int

    def __str__(self) -> str:
        return self.table()

    @property
    def pareto(self) -> tuple[Way, ...]:
        """The ways that no other beats, the whitest first (`unsample.comparison.pareto`)."""
        return pareto(self.ways)

    @property
    def pareto_unaided(self) -> tuple[Way, ...]:
        """The same of the ways that store nothing besides the latent: maps on the side buy any reconstruction."""
        return pareto(_unaided(self.ways))

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each way that could not be measured: its title and why."""
        return tuple(f"{way.title}: {measured.failure}" for way, measured in self.ways.items() if measured.failure)

    def table(self, columns: Mapping[str, str] = BRIEF) -> str:
        """Plain text with aligned columns, a line a way, true noise last, then what failed; `COLUMNS` is all it can show."""
        made = table(self.ways, columns)
        lines = (made.head, *made.rows)
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        return "\n".join([*("   ".join(map(str.ljust, line, widths)).rstrip() for line in lines), *self.failures])

    def to_dict(self) -> dict[str, Any]:
        """Everything, as `json.dumps` takes it."""
        fronts = {"pareto": self.pareto, "pareto_unaided": self.pareto_unaided}
        ways = [
            _way_dict(way, measured) | {name: way in front for name, front in fronts.items()}
            for way, measured in self.ways.items()
        ]
        return {"nfe": self.nfe, "photos": self.photos, "ways": ways}

    def picture(self) -> Drawing:
        """Whiteness across, reconstruction up, and both fronts; from 60 dB on, points are at the upper edge."""
        places = {way.title: measured.place for way, measured in self.ways.items() if measured.place}
        points = {title: (std.value, reached.value) for title, (std, reached) in places.items()}
        fronts = {"front of all ways": self.pareto, "front of those that store nothing": self.pareto_unaided}
        null = next((std.null for std, _ in places.values() if std.null), None)
        across = f"standard deviation of the latents in plain areas; {self.photos} photos, {self.nfe} evaluations up"
        return plotting.tradeoff(
            points,
            f"{across}. A line is the best reconstruction at that distance from true noise or less.",
            "reconstruction: median PSNR, dB",
            best=1.0,
            bars={title: (_ends(std), _ends(reached)) for title, (std, reached) in places.items()},
            fronts={title: [way.title for way in front] for title, front in fronts.items()},
            band=(null.low, null.high) if null else None,
            limits=(_reach([std for std, _ in points.values()]), (-math.inf, EXACT)),
        )


def pareto(ways: Mapping[Way, Measured]) -> tuple[Way, ...]:
    """The ways that no other beats, the whitest first.

    One way beats another if it is better in whiteness, |std plain - 1|, or in reconstruction, the median PSNR, and at least as
    good in the other. All PSNR from 60 dB on are equal: rounding to 8 bits costs more than what distinguishes them.
    """
    places = {way: (abs(m.place[0].value - 1), -min(m.place[1].value, EXACT)) for way, m in ways.items() if m.place}
    front: list[Way] = []
    for way in sorted(places, key=places.__getitem__):
        if not front or places[way][1] < places[front[-1]][1] or places[way] == places[front[-1]]:
            front.append(way)
    return tuple(front)


def _unaided(ways: Mapping[Way, Measured]) -> dict[Way, Measured]:
    return {way: measured for way, measured in ways.items() if not measured.stored}


def table(found: Mapping[Way, Measured], columns: Mapping[str, str] = COLUMNS) -> Table:
    """Ways as rows, diagnostics as columns, true noise last.

    Behind a median is its 95 % interval; ± is half the width of one. `stored` is in latents. A star is for the
    front, a plus for that of the ways that store nothing.
    """
    rows: list[tuple[str, ...]] = []
    front, unaided = pareto(found), pareto(_unaided(found))
    heads, null = list(columns), [""] * len(columns)
    for way, measured in found.items():
        begins = (way.title, str(way.steps or ""))
        if measured.diagnosis is None:
            rows.append((*begins, "", measured.failure.partition(":")[0], *[""] * (len(columns) + 1)))
            continue
        cells = [measured.diagnosis[name] for name in columns.values()]
        heads = [_heading(head, cell) for head, cell in zip(columns, cells, strict=True)]
        null = [_shown(replace(c, value=c.null.mean, low=c.null.low, high=c.null.high)) if c.null else "" for c in cells]
        ends = (f"{measured.stored:.3g}", "*" * (way in front) + "+" * (way in unaided))
        rows.append((*begins, str(measured.nfe_up), *map(_shown, cells), *ends))
    rows.append(("true noise", "", "", *null, "", ""))
    return Table(("inversion", "N", "NFE up", *heads, "stored", "front"), tuple(rows))


def _heading(name: str, row: Row) -> str:
    """With the number of photos, where not all count."""
    return f"{name[:-1]} of {row.note})" if row.name == PLAIN_MEDIAN else name


def _shown(row: Row) -> str:
    if row.low is None or row.high is None or math.isinf(row.low):
        return number(row.value)
    if row.name in (PLAIN_MEDIAN, PSNR_MEDIAN) or math.isinf(row.high):
        return f"{number(row.value)} [{number(row.low)}, {number(row.high)}]"
    return f"{number(row.value)} ± {number((row.high - row.low) / 2)}"


def _way_dict(way: Way, measured: Measured) -> dict[str, Any]:
    """One way for JSON, with two measures of how far from white it is; None where there is none."""
    known = {name: getattr(measured, name) for name in ("nfe_up", "seconds", "failure", "stored")}
    if measured.diagnosis is None:
        return asdict(way) | known
    r, std = measured.diagnosis[PATCH], measured.diagnosis["std plain"].value
    off = {
        "top_20_r_excess": r.value - r.null.mean if r.null else None,
        "std_plain_distance": None if math.isnan(std) else abs(std - 1),
    }
    return asdict(way) | known | off | measured.diagnosis.to_dict()


def _ends(row: Row) -> tuple[float, float] | None:
    return None if row.low is None or row.high is None else (row.low, row.high)


def _reach(stds: Sequence[float]) -> tuple[float, float]:
    """Around 1, wide enough for nine of ten points."""
    reach = float(np.quantile(np.abs(np.array(stds) - 1), 0.9, method="higher")) if stds else 1.0
    reach = max(1.2 * reach, 0.05)
    return 1 - reach, 1 + reach
