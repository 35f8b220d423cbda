"""E7: what inversion loses in plain areas: the error and the spread of latents there and elsewhere (Sec. 3.2 of the paper).

The paper does not say of what its standard deviation is taken; its numbers, far below 1 even elsewhere, would suit absolute
values, whose deviation is sqrt(1 - 2 / pi) = 0.603 on noise. Both are given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import pictures as plotting
from ...diagnostics import Interval, Null, Pooled, area_sums, nulls, plain_area
from ...diagnostics.row import Row
from ...runs.html import Table
from .findings import Figure, Findings, Judged, bar, judged, numbers, span
from .lab import Lab, forward_title
from .paired import bootstrapped
from .verdicts import exceeds, falls_short, row_of, signed

PLAIN, OTHER = "plain", "other"
STD, ABSOLUTE, LAG, ERROR = "std", "std of absolute values", "lag-1", "error"
EXPECTED = {STD: 1.0, ABSOLUTE: math.sqrt(1 - 2 / math.pi), LAG: 0.0, ERROR: 2 / math.sqrt(math.pi)}
"""On true noise, in the mean; the error is that of other noise, and 0 for an inversion that is exact."""

USUAL = "DDIM"

Measured = dict[str, dict[str, Pooled]]
"""Statistic -> area -> the statistic of the area."""

Rows = dict[str, dict[str, Row]]
"""The same with intervals and null."""


@dataclass(frozen=True)
class PlainAreas:
    """Error and spread of latents in plain and other areas.

    Attributes:
        count: Images of each set.
        steps: N of the grid, up and down.
        forward: Steps of the forward start to compare with.
    """

    count: int
    steps: int
    forward: int

    def run(self, lab: Lab) -> Findings:
        """A table for each set of images, and bars."""
        measured: dict[str, dict[str, Measured]] = {}
        rows: dict[str, dict[str, Rows]] = {}
        share: dict[str, float] = {}
        for pictures in lab.sets(self.count, self.steps):
            name, latents = pictures.name, lab.latents(pictures, self.steps, self.forward, usual=USUAL)
            plain = plain_area(pictures.shown, latents[USUAL])
            null = _nulls(latents[USUAL].shape, plain, pictures.noise, lab.seed)
            measured[name] = {start: _measured(latent, plain, pictures.noise) for start, latent in latents.items()}
            rows[name] = {start: _rows(one, null) for start, one in measured[name].items()}
            share[name] = float(plain.double().mean())
        return Findings(
            self._setting(share),
            {f"Plain and other areas, {name}": _table(measured[name], rows[name]) for name in measured},
            _figures(rows),
            tuple(claim for name, by in measured.items() for claim in judged(name, *self._claims(by, rows[name][USUAL]))),
            {name: {"plain share": share[name], **numbers(by)} for name, by in rows.items()},
        )

    def _setting(self, share: Mapping[str, float]) -> str:
        shares = ", ".join(f"{part:.0%} of {name} images" for name, part in share.items())
        return (
            f"{self.count} images inverted by DDIM in {self.steps} steps ({self.steps} evaluations), and with the first "
            f"{self.forward} replaced by forward diffusion ({self.forward} evaluations fewer). Plain: (|dH| + |dW|) / 2 < "
            f"0.025 of an image in [0, 1], in all channels; {shares}. All values of an area are pooled; 95 % bootstrap "
            "intervals over images, those of differences paired. The error is the mean absolute difference of latent and "
            "noise. True noise is taken in the same areas; its error is that of other noise, "
            f"{EXPECTED[ERROR]:.3f} in the mean, where an exact inversion has 0."
        )

    def _claims(self, by: Mapping[str, Measured], rows: Rows) -> list[Judged]:
        usual, repaired = by[USUAL], by[forward_title(self.forward)]
        parts = [one[STD][area] for one in (usual, repaired) for area in (PLAIN, OTHER)]
        narrower = bootstrapped(parts, lambda a, b, c, d: abs(c - d) - abs(a - b))
        return [
            *([_error_claim(usual[ERROR], rows[ERROR])] if ERROR in usual else []),
            *(_spread_claim(statistic, usual[statistic], rows[statistic]) for statistic in (STD, ABSOLUTE)),
            (
                f"... and {self.forward} forward steps narrow the gap of the std (ours).",
                f"plain less other {signed(_difference(usual[STD]))} becomes {signed(_difference(repaired[STD]))}, its size "
                f"changes by {signed(narrower)}",
                falls_short(narrower, 0),
            ),
        ]


def _error_claim(areas: Mapping[str, Pooled], rows: Mapping[str, Row]) -> Judged:
    more = _difference(areas)
    return (
        "The error of the latent is larger in plain areas than elsewhere.",
        f"error {_both(rows)}, paired difference {signed(more)}; other noise {rows[PLAIN].noise} in plain areas, "
        f"{EXPECTED[ERROR]:.3f} in closed form, exact inversion 0",
        exceeds(more, 0),
    )


def _spread_claim(statistic: str, areas: Mapping[str, Pooled], rows: Mapping[str, Row]) -> Judged:
    less = _difference(areas)
    return (
        f"The std of {'values' if statistic == STD else 'absolute values'} is smaller in plain areas than elsewhere.",
        f"{_both(rows)}, paired difference {signed(less)}; noise {rows[PLAIN].noise} in plain areas, "
        f"{EXPECTED[statistic]:.3f} in closed form",
        falls_short(less, 0),
    )


def _measured(latent: Tensor, plain: Tensor, noise: Tensor | None) -> Measured:
    parts = {STD: (latent, "std"), ABSOLUTE: (latent.abs(), "std"), LAG: (latent, "lag1")}
    if noise is not None:
        parts[ERROR] = ((latent - noise).abs(), "mean")
    areas = {PLAIN: plain, OTHER: ~plain}
    return {
        name: {area: area_sums(x, mask).pooled(statistic) for area, mask in areas.items()}
        for name, (x, statistic) in parts.items()
    }


def _nulls(shape: torch.Size, plain: Tensor, noise: Tensor | None, seed: int) -> dict[str, dict[str, Null]]:
    """Statistic -> area -> what true noise takes there."""

    def values(x: Tensor) -> dict[str, float]:
        measured = _measured(x, plain, noise)
        return {f"{name}/{area}": one.value for name, areas in measured.items() for area, one in areas.items()}

    flat = nulls(values, shape, seed=seed)
    return {name: {area: flat[f"{name}/{area}"] for area in (PLAIN, OTHER)} for name in EXPECTED if f"{name}/{PLAIN}" in flat}


def _rows(measured: Measured, null: Mapping[str, Mapping[str, Null]]) -> Rows:
    def row(name: str, area: str, one: Pooled) -> Row:
        if math.isnan(one.value):
            return Row(f"{name} {area}", one.value, null=null[name][area], note="no such pixels in these images")
        return row_of(f"{name} {area}", one.interval(), null[name][area])

    return {name: {area: row(name, area, one) for area, one in areas.items()} for name, areas in measured.items()}


def _difference(areas: Mapping[str, Pooled]) -> Interval:
    """Plain less other, of the same images."""
    return bootstrapped([areas[PLAIN], areas[OTHER]], lambda plain, other: plain - other)


def _both(rows: Mapping[str, Row]) -> str:
    return f"{rows[PLAIN]} in plain areas, {rows[OTHER]} elsewhere"


def _table(measured: Mapping[str, Measured], rows: Mapping[str, Rows]) -> Table:
    names = list(measured[USUAL])
    lines = []
    for start, one in rows.items():
        lines += [(f"{start}, {area}", *(str(one[name][area]) for name in names)) for area in (PLAIN, OTHER)]
        lines += [(f"{start}, plain less other", *(signed(_difference(measured[start][name])) for name in names))]
    lines += [(f"true noise, {area}", *(rows[USUAL][name][area].noise for name in names)) for area in (PLAIN, OTHER)]
    return Table(("latents of", *names), (*lines, ("true noise, in the mean", *(f"{EXPECTED[name]:.3f}" for name in names))))


def _figures(rows: Mapping[str, Mapping[str, Rows]]) -> tuple[Figure, ...]:
    """Bars of each statistic, plain beside other."""
    captions = {
        STD: ("std", "Standard deviation of the latent; 1 on true noise."),
        ABSOLUTE: ("std-absolute", f"Standard deviation of its absolute values; {EXPECTED[ABSOLUTE]:.3f} on true noise."),
        LAG: ("lag1", "Correlation of touching values; 0 on true noise."),
        ERROR: ("error", "Mean absolute difference of latent and noise: 0 if inversion were exact; grey is other noise."),
    }
    figures = []
    for name, (file, caption) in captions.items():
        shown = {f"{start}, {images}": one[name] for images, by in rows.items() for start, one in by.items() if name in one}
        spans = {group: noise for group, areas in shown.items() if (noise := span(areas[PLAIN]))}
        groups = {group: {area: bar(row) for area, row in areas.items()} for group, areas in shown.items()}
        figures.append(Figure(file, f"{caption} Intervals over images.", plotting.bars(groups, name, spans)))
    return tuple(figures)
