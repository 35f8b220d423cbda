"""The result of a comparison: a table, a picture, and the Pareto front of whiteness against reconstruction."""

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
from ...diagnostics.row import no_intervals
from ...errors import counted
from ...pictures import Drawing
from ...runs.html import Table
from .budget import Candidate
from .candidates import Measured

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
"""Heading of a column -> its diagnostic: over photos where the heading says so, otherwise of all their pixels together."""

BRIEF = {name: COLUMNS[name] for name in ("top-20 r", "std plain", "lag-1 plain", "PSNR, dB (median)")}
"""The columns that fit a terminal."""

LEGEND = (
    "N: moves of the grid, as many as the same evaluations afford: a method may need several a move, and a forward start "
    "replaces the first moves; NFE up: network evaluations per photo on the way up; "
    "top-20 r: mean of the 20 largest correlations between places of the latents",
    "plain: where photos are plain, as sky or walls; std: standard deviation of latents; lag-1: correlation of neighbours",
    "stored: what is kept beside the latent, in latents; front: * no other is as white (std plain near 1) and better "
    "reconstructed, or whiter and as well reconstructed; + nor is any that stores nothing",
)
"""What the columns of a table mean."""

BEST = "no other is whiter and reconstructs better"
"""What the front is, on the picture."""

AUTO = "start auto: N is what its first level affords; photos that need more cost up to NFE up, beyond the budget"

EXACT = 60.0
"""PSNR in dB above which reconstructions count as equal: rounding to 8 bits alone leaves no more than 58.9 dB."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Inversions of the same photos at the same cost.

    Attributes:
        candidates: Each candidate's result, grouped by method.
        nfe: The budget: network evaluations on the way up.
        photos: How many were inverted.
    """

    candidates: Mapping[Candidate, Measured]
    nfe: int
    photos: int

    def __str__(self) -> str:
        return self.table()

    @property
    def pareto(self) -> tuple[Candidate, ...]:
        """The candidates that no other beats, the whitest first (`unsample.studies.compare.pareto`)."""
        return pareto(self.candidates)

    @property
    def pareto_unaided(self) -> tuple[Candidate, ...]:
        """The same among candidates that store nothing besides the latent: stored maps buy any reconstruction."""
        return pareto(_unaided(self.candidates))

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each candidate that could not be measured: its title and why."""
        return tuple(f"{one.title}: {measured.failure}" for one, measured in self.candidates.items() if measured.failure)

    def table(self, columns: Mapping[str, str] = BRIEF) -> str:
        """Plain text with aligned columns (any of `COLUMNS`): a line per candidate, true noise last, failures, a legend."""
        made = table(self.candidates, columns)
        lines = (made.head, *made.rows)
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        return "\n".join(
            [*("   ".join(map(str.ljust, line, widths)).rstrip() for line in lines), *self.failures, *self.notes(columns)]
        )

    def notes(self, columns: Mapping[str, str] = BRIEF) -> tuple[str, ...]:
        """What the columns of a table mean, and why cells are empty, a line each."""
        rows = [measured.diagnosis for measured in self.candidates.values() if measured.diagnosis]
        shown = {head: [diagnosis[name] for diagnosis in rows] for head, name in columns.items()}
        empty = {head: cells[0].note for head, cells in shown.items() if cells and all(math.isnan(c.value) for c in cells)}
        auto = any(one.forward.startswith("auto") and one.steps for one in self.candidates)
        return (
            *LEGEND,
            *(no_intervals(self.photos) or ["± is half of a 95 % interval over photos, [ ] are the ends of one"]),
            *(f"{head} has no value: it {why}" for head, why in empty.items() if why),
            *([AUTO] * auto),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, as `json.dumps` takes it."""
        fronts = {"pareto": self.pareto, "pareto_unaided": self.pareto_unaided}
        ways = [
            _as_dict(candidate, measured) | {name: candidate in front for name, front in fronts.items()}
            for candidate, measured in self.candidates.items()
        ]
        return {"nfe": self.nfe, "photos": self.photos, "ways": ways}

    def picture(self) -> Drawing:
        """Whiteness across, reconstruction up, and both fronts; points far off are arrow heads at the edge, with values."""
        places = {one.title: measured.place for one, measured in self.candidates.items() if measured.place}
        points = {title: (std.value, reached.value) for title, (std, reached) in places.items()}
        fronts = {BEST: self.pareto, f"{BEST},\namong those that store nothing": self.pareto_unaided}
        if self.pareto == self.pareto_unaided:
            fronts = {BEST: self.pareto}
        null = next((std.null for std, _ in places.values() if std.null), None)
        spent = f"{counted(self.photos, 'photo')}, {counted(self.nfe, 'evaluation')} up"
        return plotting.tradeoff(
            points,
            f"standard deviation of the latents in plain areas, of true noise 1; {spent}",
            "reconstruction: median PSNR, dB",
            best=1.0,
            bars={title: (_ends(std), _ends(reached)) for title, (std, reached) in places.items()},
            fronts={title: [candidate.title for candidate in front] for title, front in fronts.items()},
            band=(null.low, null.high) if null else None,
            limits=(_reach([std for std, _ in points.values()]), (-math.inf, EXACT)),
        )


def pareto(candidates: Mapping[Candidate, Measured]) -> tuple[Candidate, ...]:
    """The candidates that no other beats, the whitest first.

    One beats another if it is better in whiteness, |std plain - 1|, or in reconstruction, the median PSNR, and at least as
    good in the other. All PSNR from 60 dB on are equal: rounding to 8 bits costs more than what distinguishes them.
    """
    places = {one: (abs(m.place[0].value - 1), -min(m.place[1].value, EXACT)) for one, m in candidates.items() if m.place}
    front: list[Candidate] = []
    for candidate in sorted(places, key=places.__getitem__):
        place, last = places[candidate], places[front[-1]] if front else None
        if last is None or place[1] < last[1] or place == last:
            front.append(candidate)
    return tuple(front)


def _unaided(candidates: Mapping[Candidate, Measured]) -> dict[Candidate, Measured]:
    return {candidate: measured for candidate, measured in candidates.items() if not measured.stored}


def table(candidates: Mapping[Candidate, Measured], columns: Mapping[str, str] = COLUMNS) -> Table:
    """Candidates as rows, diagnostics as columns, true noise last.

    A median is followed by its 95 % interval; ± is half the width of one. `stored` is in latents. A star marks the front, a
    plus the front of those that store nothing.
    """
    rows: list[tuple[str, ...]] = []
    front, unaided = pareto(candidates), pareto(_unaided(candidates))
    heads, null = list(columns), [""] * len(columns)
    for candidate, measured in candidates.items():
        begins = (candidate.title, str(candidate.steps or ""))
        if measured.diagnosis is None:
            rows.append((*begins, "", measured.failure.partition(":")[0], *[""] * (len(columns) + 1)))
            continue
        cells = [measured.diagnosis[name] for name in columns.values()]
        heads = [_heading(head, cell) for head, cell in zip(columns, cells, strict=True)]
        null = [_shown(replace(c, value=c.null.mean, low=c.null.low, high=c.null.high)) if c.null else "" for c in cells]
        ends = (f"{measured.stored:.3g}", "*" * (candidate in front) + "+" * (candidate in unaided))
        rows.append((*begins, str(measured.nfe_up), *map(_shown, cells), *ends))
    rows.append(("true noise", "", "", *null, "", ""))
    return Table(("inversion", "N", "NFE up", *heads, "stored", "front"), tuple(rows))


def _heading(name: str, row: Row) -> str:
    """The heading, with the number of photos where not all count."""
    return f"{name[:-1]} of {row.note})" if row.name == PLAIN_MEDIAN else name


def _shown(row: Row) -> str:
    if row.low is None or row.high is None or math.isinf(row.low):
        return number(row.value)
    if row.name in (PLAIN_MEDIAN, PSNR_MEDIAN) or math.isinf(row.high):
        return f"{number(row.value)} [{number(row.low)}, {number(row.high)}]"
    return f"{number(row.value)} ± {number((row.high - row.low) / 2)}"


def _as_dict(candidate: Candidate, measured: Measured) -> dict[str, Any]:
    """One candidate for JSON, with two distances from whiteness; None where they are unknown."""
    known = {name: getattr(measured, name) for name in ("nfe_up", "seconds", "failure", "stored")}
    if measured.diagnosis is None:
        return asdict(candidate) | known
    r, std = measured.diagnosis[PATCH], measured.diagnosis["std plain"].value
    off = {
        "top_20_r_excess": r.value - r.null.mean if r.null else None,
        "std_plain_distance": None if math.isnan(std) else abs(std - 1),
    }
    return asdict(candidate) | known | off | measured.diagnosis.to_dict()


def _ends(row: Row) -> tuple[float, float] | None:
    return None if row.low is None or row.high is None else (row.low, row.high)


def _reach(stds: Sequence[float]) -> tuple[float, float]:
    """Limits of the axis: around 1, wide enough for four of five points, so that a few far off do not squeeze the others."""
    reach = float(np.quantile(np.abs(np.array(stds) - 1), 0.8, method="higher")) if stds else 1.0
    reach = max(1.2 * reach, 0.05)
    return 1 - reach, 1 + reach
