"""E18: how much of a forward start's gain is the start, how much the convention of time, how much an off-by-one level (ours).

The usual DDIM inversion asks the network at the target's time (shifted), others at the source's (matched). Some published code
noises to level k + 1 and steps on as if at level k. Both change latents, so both are separated from the start here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ... import pictures as plotting
from ...diagnostics import Interval
from ...diagnostics.row import PATCH_ROW
from ...pictures import Bar, Column
from ...runs.html import Table
from .findings import Figure, Findings, Judged, bar, columns, joined, judged, numbers, span, table_of
from .lab import Lab, Pictures
from .sweep import Sweep
from .verdicts import beside_noise, both, exceeds, falls_short, percent, signed

Key = tuple[str, str]
"""Convention of time, and start."""

TIMES = {"shifted": "ddim", "matched": "ddim:eval_at=source"}
STARTS = {"0": "k = 0", "1": "k = 1", "1@next": "k = 1, next level", "2": "k = 2", "2@next": "k = 2, next level"}

USUAL, PAPER, SLIPPED = ("shifted", "0"), ("shifted", "2"), ("shifted", "2@next")
MATCHED, BOTH, ALL = ("matched", "0"), ("matched", "2"), ("matched", "2@next")

START, TIME, SLIP = "forward start", "matched time", "next level"

PATHS: Mapping[str, tuple[tuple[str, Key], ...]] = {
    "shifted time": ((START, PAPER), (SLIP, SLIPPED)),
    "matched time, changed first": ((TIME, MATCHED), (START, BOTH), (SLIP, ALL)),
    "matched time, changed after the start": ((START, PAPER), (TIME, BOTH), (SLIP, ALL)),
}
"""From the usual inversion on: what is changed, and the result. A part's share depends on what was changed before."""

SHARED = {"std plain": "std plain", "lag-1 plain": "lag-1 plain", PATCH_ROW: "top-20 r"}

COLUMNS = columns("top-20 r", "std plain", "std other", "lag-1 plain", "MAE", "PSNR, dB")

ERRORS = {"error, plain": "error plain", "error, other": "error other"}

MOST = 0.5
"""The share of a change that we call most of it."""


@dataclass(frozen=True)
class Conventions:
    """DDIM in both conventions of time, from both levels.

    Attributes:
        count: Images of each set.
        steps: N of the grid, up and down; at least 4.
    """

    count: int
    steps: int

    def run(self, lab: Lab) -> Findings:
        """A table of the inversions and one of their parts for each set of images."""
        return joined(self._of(lab, pictures) for pictures in lab.sets(self.count, self.steps))

    def _of(self, lab: Lab, pictures: Pictures) -> Findings:
        name, settings = pictures.name, {(time, start): (TIMES[time], start) for time in TIMES for start in STARTS}
        made = Sweep.inverted(lab, pictures, settings, self.steps, pictures.noise)
        parts = _parts(made)
        titled = {f"{time}, {STARTS[start]}": diagnosis for (time, start), diagnosis in made.diagnoses.items()}
        return Findings(
            f"{self.count} images, DDIM inversion in {self.steps} steps, sampled back by DDIM; k steps of forward diffusion "
            "save k evaluations. Shifted time asks the network at the target's time, matched at the source's. 'Next level' "
            "noises to level k + 1 and steps on as if at k. Images in [-1, 1]; 95 % intervals over images (bootstrap; "
            "jackknife for r), of changes and shares over the same images. 'Error' is the mean of |latent - noise|, "
            "noise being what the image was sampled from; after a forward start the latent is another draw, which need not "
            "return it.",
            {
                f"The ways, {name}": table_of(titled, COLUMNS if pictures.noise is None else COLUMNS | ERRORS, "inversion"),
                f"Share of the distance to true noise that each change goes, {name}": _parts_table(parts),
            },
            _figures(made, parts),
            judged(name, *_claims_of_time(made), *_claims_of_level(made)),
            {name: numbers({"ways": {", ".join(key): each for key, each in made.diagnoses.items()}, "parts": parts})},
        )


Parts = Mapping[str, Mapping[str, Mapping[str, Interval]]]
"""Path -> change -> statistic -> share of the distance to noise that it goes; of the PSNR the change itself, in dB."""


def _parts(made: Sweep[Key]) -> Parts:
    def part(before: Key, after: Key) -> dict[str, Interval]:
        return {name: _closed(made, name, before, after) for name in SHARED} | {"PSNR": made.gain("PSNR", after, before)}

    parts: dict[str, dict[str, dict[str, Interval]]] = {}
    for path, changes in PATHS.items():
        befores = [USUAL, *(after for _, after in changes)]
        parts[path] = {what: part(before, after) for (what, after), before in zip(changes, befores, strict=False)}
    return parts


def _closed(made: Sweep[Key], name: str, before: Key, after: Key) -> Interval:
    """The share of the distance from the usual inversion to true noise that one change goes."""
    null = made[USUAL][name].null
    noise = null.mean if null else math.nan
    return made.paired(name, lambda a, b, usual: (b - a) / (noise - usual), before, after, USUAL)


def _parts_table(parts: Parts) -> Table:
    rows = [
        (path, what, *(percent(shares[name]) for name in SHARED), signed(shares["PSNR"]))
        for path, changes in parts.items()
        for what, shares in changes.items()
    ]
    return Table(("from the usual inversion to", "change", *SHARED.values(), "PSNR, dB"), tuple(rows))


def _figures(made: Sweep[Key], parts: Parts) -> tuple[Figure, ...]:
    name, shown = made.pictures.name, ("top-20 r", "std plain", "lag-1 plain", "PSNR, dB")
    return (
        Figure(
            f"ways-{name}",
            f"Both conventions of time from each start, {name}.",
            plotting.forest([_inversions_column(made, title, COLUMNS[title]) for title in shown]),
        ),
        Figure(
            f"parts-{name}",
            "What each change closes of the distance from the usual inversion to true noise, in the order it is made, and "
            f"what it does to the reconstruction, {name}.",
            plotting.forest([_parts_column(parts, title, name) for name, title in {**SHARED, "PSNR": "PSNR"}.items()]),
        ),
    )


def _inversions_column(made: Sweep[Key], title: str, name: str) -> Column:
    rows = {words: {time: bar(made[time, start][name]) for time in TIMES} for start, words in STARTS.items()}
    return Column(title, rows, span(made[USUAL][name]))


def _parts_column(parts: Parts, title: str, name: str) -> Column:
    scale = 1 if name == "PSNR" else 100
    unit = "change of PSNR, dB" if name == "PSNR" else f"{title}: % of the distance to noise"
    rows = {path: {what: _scaled(shares[name], scale) for what, shares in changes.items()} for path, changes in parts.items()}
    return Column(unit, rows, mark=0.0)


def _scaled(interval: Interval, scale: float) -> Bar:
    return Bar(scale * interval.estimate, scale * interval.low, scale * interval.high)


def _claims_of_time(made: Sweep[Key]) -> list[Judged]:
    """What the matched time does, without a start and with one."""
    usual, matched, started = (made[key] for key in (USUAL, MATCHED, BOTH))
    std, r, loss = (made.gain(row, MATCHED, USUAL) for row in ("std plain", PATCH_ROW, "PSNR"))
    closed = _closed(made, "std plain", USUAL, MATCHED)
    return [
        (
            "Matched time alone makes DDIM latents of plain areas whiter.",
            f"std {usual['std plain']} becomes {matched['std plain']} (paired change {signed(std)}; "
            f"{percent(closed)} of the distance to noise); noise {usual['std plain'].noise}",
            exceeds(std, 0),
        ),
        (
            "... and less correlated,",
            f"top-20 r {usual[PATCH_ROW]} becomes {matched[PATCH_ROW]} (paired change {signed(r)}); "
            f"noise {usual[PATCH_ROW].noise}",
            falls_short(r, 0),
        ),
        ("... at a cost in reconstruction.", f"paired change of PSNR {signed(loss, ' dB')}", falls_short(loss, 0)),
        (
            "With matched time too, k = 2 brings the correlation to its floor.",
            beside_noise("top-20 r", started[PATCH_ROW]),
            started[PATCH_ROW].is_noise,
        ),
    ]


def _claims_of_level(made: Sweep[Key]) -> list[Judged]:
    """What the published start owes to the start, and what to the level it slips to."""
    usual, slipped = made[USUAL], made[SLIPPED]
    start, r = (made.paired(row, _share_of_change, USUAL, PAPER, SLIPPED) for row in ("std plain", PATCH_ROW))
    cost = made.paired("PSNR", lambda usual, paper, slipped: (slipped - paper) - (paper - usual), USUAL, PAPER, SLIPPED)
    pairs = ((PAPER, USUAL), (SLIPPED, PAPER), (BOTH, SLIPPED))
    own, slip, back = (made.gain("PSNR", ours, theirs) for ours, theirs in pairs)
    time = made.paired("std plain", _share_of_change, PAPER, BOTH, SLIPPED)
    return [
        (
            "Most of what a start at the next level gains in plain areas is the start's own, not the level's.",
            f"std {usual['std plain']} becomes {slipped['std plain']}; {percent(start)} of that at the right level",
            exceeds(start, MOST),
        ),
        (
            "... and of what it takes from the correlation,",
            f"top-20 r {usual[PATCH_ROW]} becomes {slipped[PATCH_ROW]}; {percent(r)} of that at the right level",
            exceeds(r, MOST),
        ),
        (
            "... while most of what it loses in reconstruction is the level's.",
            f"paired change of PSNR by the start {signed(own, ' dB')}, by the level {signed(slip, ' dB')}; difference "
            f"{signed(cost, ' dB')}",
            falls_short(cost, 0),
        ),
        (
            "Matched time after the start gives most of the deviation that the next level adds, and a better reconstruction.",
            f"{percent(time)} of that level's change of std in plain areas; PSNR against it {signed(back, ' dB')}",
            both(exceeds(time, MOST), exceeds(back, 0)),
        ),
    ]


def _share_of_change(usual: Any, paper: Any, slipped: Any) -> Any:
    """Of the change from the first to the last, what the second has."""
    return (paper - usual) / (slipped - usual)
