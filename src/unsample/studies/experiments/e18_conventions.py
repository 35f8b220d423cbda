"""E18: how much of a forward start's gain is the start, how much the convention of time, how much an off-by-one level (ours).

The usual DDIM inversion asks the network at the target's time (shifted), others at the source's (matched). Some published code
noises to level k + 1 and steps on as if at level k. Both change latents, so both are told apart from the start here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch

from ... import pictures as plotting
from ...diagnostics import Diagnosis, Interval, area_sums, bootstrap, diagnose, plain_area
from ...diagnostics.intervals import Pooled
from ...diagnostics.row import PATCH_ROW
from ...pictures import Bar, Column
from ...runs.html import Table
from .findings import Claim, Figure, Findings, bar, table_of
from .lab import Inverted, Lab, Pictures
from .paired import Array, both, capped_psnr, correlations, exceeds, falls_short, percent, r_together, signed, together

__all__ = ["Conventions"]

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
"""From the usual inversion on: what is changed, and the way that gives. A part's share depends on what was changed before."""

SHARED = {"std plain": "std plain", "lag-1 plain": "lag-1 plain", PATCH_ROW: "top-20 r"}

COLUMNS = {
    "top-20 r": PATCH_ROW,
    "std plain": "std plain",
    "std other": "std other",
    "lag-1 plain": "lag-1 plain",
    "MAE": "MAE",
    "PSNR, dB": "PSNR",
}

ERRORS = {"error, plain": "error plain", "error, other": "error other"}

MOST = 0.5


@dataclass(frozen=True, eq=False)
class _Ways:
    """Ten ways on one set of images, and functions of several of them."""

    pictures: Pictures
    inverted: Mapping[Key, Inverted]
    diagnoses: Mapping[Key, Diagnosis]

    @classmethod
    def of(cls, lab: Lab, pictures: Pictures, steps: int) -> _Ways:
        """Inverted and diagnosed, or read back."""
        ways = {(t, k): lab.inverted(pictures, TIMES[t], k, steps=steps) for t in TIMES for k in STARTS}
        shown, noise = pictures.shown, pictures.noise
        told = {k: diagnose(w.latent, images=shown, reconstruction=w.reconstruction, noise=noise) for k, w in ways.items()}
        return cls(pictures, ways, told)

    @cached_property
    def _pooled(self) -> dict[tuple[str, Key], Pooled]:
        plain = plain_area(self.pictures.shown, self.inverted[USUAL].latent)
        sums = {key: area_sums(way.latent, plain) for key, way in self.inverted.items()}
        return {
            (f"{name} plain", key): s.pooled(name.replace("-", "")) for name in ("std", "lag-1") for key, s in sums.items()
        }

    @cached_property
    def _correlations(self) -> dict[Key, Array]:
        return {key: correlations(way.latent) for key, way in self.inverted.items()}

    @cached_property
    def _psnr(self) -> dict[Key, torch.Tensor]:
        images = self.pictures.shown
        return {key: capped_psnr(images, way.reconstruction) for key, way in self.inverted.items()}

    def together(self, name: str, value: Callable[..., Any], *keys: Key) -> Interval:
        """A function of one statistic of several ways; linear for the PSNR, which is averaged over images."""
        if name == "PSNR":
            return bootstrap(value(*(self._psnr[key] for key in keys)))
        if name == PATCH_ROW:
            return r_together([self._correlations[key] for key in keys], value)
        return together([self._pooled[name, key] for key in keys], value)

    def closed(self, name: str, before: Key, after: Key) -> Interval:
        """The share of the distance from the usual inversion to true noise that one change goes."""
        null = self.diagnoses[USUAL][name].null
        noise = null.mean if null else math.nan
        return self.together(name, lambda a, b, usual: (b - a) / (noise - usual), before, after, USUAL)

    def gain(self, name: str, ours: Key, theirs: Key) -> Interval:
        """Ours less theirs."""
        return self.together(name, lambda a, b: a - b, ours, theirs)


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
        """A table of the ways and one of their parts for each set of images."""
        sets = {pictures.name: _Ways.of(lab, pictures, self.steps) for pictures in lab.sets(self.count, self.steps)}
        parts = {name: _parts(ways) for name, ways in sets.items()}
        tables: dict[str, Table] = {}
        for name, ways in sets.items():
            columns = COLUMNS if ways.pictures.noise is None else COLUMNS | ERRORS
            titled = {f"{time}, {STARTS[k]}": found for (time, k), found in ways.diagnoses.items()}
            tables[f"The ways, {name}"] = table_of(titled, columns, "inversion")
            tables[f"Share of the distance to true noise that each change goes, {name}"] = _parts_table(parts[name])
        return Findings(
            f"{self.count} images, DDIM inversion in {self.steps} steps, sampled back by DDIM; k steps of forward diffusion "
            "save k evaluations. Shifted time asks the network at the target's time, matched at the source's. 'Next level' "
            "noises to level k + 1 and steps on as if at k. Images in [-1, 1]; 95 % intervals over images (bootstrap; "
            "jackknife for r), of changes and shares over the same images. 'Error' is the mean of |latent - noise|, "
            "noise being what the image was sampled from; after a forward start the latent is another draw, which need not "
            "return it.",
            tables,
            tuple(figure for name, ways in sets.items() for figure in _figures(ways, parts[name])),
            tuple(claim for ways in sets.values() for claim in _claims(ways)),
            {name: _metrics(ways, parts[name]) for name, ways in sets.items()},
        )


Parts = Mapping[str, Mapping[str, Mapping[str, Interval]]]
"""Path -> change -> statistic -> share of the distance to noise that it goes; of the PSNR the change itself, in dB."""


def _parts(ways: _Ways) -> Parts:
    def part(before: Key, after: Key) -> dict[str, Interval]:
        return {name: ways.closed(name, before, after) for name in SHARED} | {"PSNR": ways.gain("PSNR", after, before)}

    found: dict[str, dict[str, dict[str, Interval]]] = {}
    for path, changes in PATHS.items():
        befores = [USUAL, *(after for _, after in changes)]
        found[path] = {what: part(before, after) for (what, after), before in zip(changes, befores, strict=False)}
    return found


def _parts_table(parts: Parts) -> Table:
    rows = [
        (path, what, *(percent(found[name]) for name in SHARED), signed(found["PSNR"]))
        for path, changes in parts.items()
        for what, found in changes.items()
    ]
    return Table(("from the usual inversion to", "change", *SHARED.values(), "PSNR, dB"), tuple(rows))


def _figures(ways: _Ways, parts: Parts) -> list[Figure]:
    name, shown = (
        ways.pictures.name,
        {"top-20 r": PATCH_ROW, **{n: n for n in ("std plain", "lag-1 plain")}, "PSNR, dB": "PSNR"},
    )
    return [
        Figure(
            f"ways-{name}",
            f"Both conventions of time from each start, {name}.",
            plotting.forest([_ways_column(ways, title, COLUMNS[title]) for title in shown]),
        ),
        Figure(
            f"parts-{name}",
            "What each change closes of the distance from the usual inversion to true noise, in the order it is made, and "
            f"what it does to the reconstruction, {name}.",
            plotting.forest([_parts_column(parts, title, name) for name, title in {**SHARED, "PSNR": "PSNR"}.items()]),
        ),
    ]


def _ways_column(ways: _Ways, title: str, name: str) -> Column:
    null = ways.diagnoses[USUAL][name].null
    rows = {words: {time: bar(ways.diagnoses[time, k][name]) for time in TIMES} for k, words in STARTS.items()}
    return Column(title, rows, (null.low, null.high) if null else None)


def _parts_column(parts: Parts, title: str, name: str) -> Column:
    scale = 1 if name == "PSNR" else 100
    unit = "change of PSNR, dB" if name == "PSNR" else f"{title}: % of the distance to noise"
    rows = {path: {what: _scaled(found[name], scale) for what, found in changes.items()} for path, changes in parts.items()}
    return Column(unit, rows, mark=0.0)


def _scaled(found: Interval, scale: float) -> Bar:
    return Bar(scale * found.estimate, scale * found.low, scale * found.high)


def _metrics(ways: _Ways, parts: Parts) -> dict[str, Any]:
    told = {f"{time}, {k}": diagnosis.to_dict() for (time, k), diagnosis in ways.diagnoses.items()}
    return {
        "ways": told,
        "parts": {p: {w: {n: asdict(i) for n, i in f.items()} for w, f in c.items()} for p, c in parts.items()},
    }


def _claims(ways: _Ways) -> list[Claim]:
    return [*_claims_of_time(ways), *_claims_of_level(ways)]


def _claims_of_time(ways: _Ways) -> list[Claim]:
    """What the matched time does, without a start and with one."""
    name, usual, matched, both = ways.pictures.name, *(ways.diagnoses[key] for key in (USUAL, MATCHED, BOTH))
    std, r, loss = (ways.gain(row, MATCHED, USUAL) for row in ("std plain", PATCH_ROW, "PSNR"))
    return [
        Claim(
            "Matched time alone makes DDIM latents of plain areas whiter.",
            f"std {usual['std plain']} becomes {matched['std plain']} (paired change {signed(std)}; "
            f"{percent(ways.closed('std plain', USUAL, MATCHED))} of the distance to noise); noise {usual['std plain'].noise}",
            exceeds(std, 0),
            name,
        ),
        Claim(
            "... and less correlated,",
            f"top-20 r {usual[PATCH_ROW]} becomes {matched[PATCH_ROW]} (paired change {signed(r)}); "
            f"noise {usual[PATCH_ROW].noise}",
            falls_short(r, 0),
            name,
        ),
        Claim("... at a cost in reconstruction.", f"paired change of PSNR {signed(loss, ' dB')}", falls_short(loss, 0), name),
        Claim(
            "With matched time too, k = 2 brings the correlation to its floor.",
            f"top-20 r {both[PATCH_ROW]}; noise {both[PATCH_ROW].noise}",
            both[PATCH_ROW].is_noise,
            name,
        ),
    ]


def _claims_of_level(ways: _Ways) -> list[Claim]:
    """What the published start owes to the start, and what to the level it slips to."""
    name, usual, slipped = ways.pictures.name, ways.diagnoses[USUAL], ways.diagnoses[SLIPPED]
    start, r = (ways.together(row, _first_share, USUAL, PAPER, SLIPPED) for row in ("std plain", PATCH_ROW))
    cost = ways.together("PSNR", lambda usual, paper, slipped: (slipped - paper) - (paper - usual), USUAL, PAPER, SLIPPED)
    pairs = ((PAPER, USUAL), (SLIPPED, PAPER), (BOTH, SLIPPED))
    own, slip, back = (ways.gain("PSNR", ours, theirs) for ours, theirs in pairs)
    time = ways.together("std plain", _first_share, PAPER, BOTH, SLIPPED)
    return [
        Claim(
            "Most of what a start at the next level gains in plain areas is the start's own, not the level's.",
            f"std {usual['std plain']} becomes {slipped['std plain']}; {percent(start)} of that at the right level",
            exceeds(start, MOST),
            name,
        ),
        Claim(
            "... and of what it takes from the correlation,",
            f"top-20 r {usual[PATCH_ROW]} becomes {slipped[PATCH_ROW]}; {percent(r)} of that at the right level",
            exceeds(r, MOST),
            name,
        ),
        Claim(
            "... while most of what it loses in reconstruction is the level's.",
            f"paired change of PSNR by the start {signed(own, ' dB')}, by the level {signed(slip, ' dB')}; difference "
            f"{signed(cost, ' dB')}",
            falls_short(cost, 0),
            name,
        ),
        Claim(
            "Matched time after the start gives most of the deviation that the next level adds, and a better reconstruction.",
            f"{percent(time)} of that level's change of std in plain areas; PSNR against it {signed(back, ' dB')}",
            both(exceeds(time, MOST), exceeds(back, 0)),
            name,
        ),
    ]


def _first_share(usual: Any, paper: Any, slipped: Any) -> Any:
    """Of the change from the first to the last, what the second has."""
    return (paper - usual) / (slipped - usual)
