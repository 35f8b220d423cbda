"""E17: the flaw and its repair on photographs the model never saw, and on images like none it was trained on.

The latter are made from the photographs, each from one: solarised (colours and contrasts of no photograph, less plain area),
posterised (few colours, much plain area), and with their tiles moved around (no object left).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from ... import pictures as plotting
from ...diagnostics import MIN_IMAGES, Diagnosis, Interval, area_sums, plain_area
from ...diagnostics.row import PATCH_ROW, Row
from ...pictures import Column
from ...pictures.read import Photo
from .findings import Claim, Figure, Findings, above, bar, below, table_of
from .lab import Inverted, Lab, Pictures
from .paired import both, change_of_psnr, exceeds, percent, signed, together

__all__ = ["Photographs"]

WAYS: Mapping[str, tuple[str, str]] = {
    "DDIM": ("ddim", "0"),
    "forward start, k = 2, DDIM": ("ddim", "2"),
    "forward start, k = 2, look-ahead": ("look-ahead", "2"),
}
USUAL, PAPER, OURS = WAYS

COLUMNS = {
    "plain share": "plain fraction",
    "top-20 r": PATCH_ROW,
    "std plain": "std plain",
    "std other": "std other",
    "lag-1 plain": "lag-1 plain",
    "MAE": "MAE",
    "PSNR, dB": "PSNR",
    "SSIM": "SSIM",
}

CHART = ("top-20 r", "std plain", "lag-1 plain", "PSNR, dB")

LEVELS, TILES = 4, 4
"""Values of a posterised channel; tiles along a side."""

LITTLE, MOST, SHOWN = 2.0, 0.5, 8
"""The loss in dB that we call little; the share that we call most; how many images a figure shows."""


def solarised(image: Tensor) -> Tensor:
    """The bright half of the values turned around, and all stretched to [-1, 1].

    >>> solarised(torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])).tolist()
    [-1.0, 0.0, 1.0, 0.0, -1.0]
    """
    return 1 - 2 * image.abs()


def posterised(image: Tensor) -> Tensor:
    """Each value as the nearest of four, evenly spaced from -1 to 1.

    >>> posterised(torch.tensor([-0.9, -0.2, 0.6])).mul(3).round().tolist()
    [-3.0, -1.0, 1.0]
    """
    steps = LEVELS - 1
    return ((image + 1) / 2 * steps).round() * 2 / steps - 1


def scrambled(image: Tensor) -> Tensor:
    """The sixteen tiles of an image (channels, height, width) in another order, the same for all; a rest at the edge stays.

    >>> scrambled(torch.arange(16.0).reshape(1, 4, 4)).flatten().int().tolist()
    [3, 8, 13, 2, 7, 12, 1, 6, 11, 0, 5, 10, 15, 4, 9, 14]
    """
    height, width = (side // TILES for side in image.shape[1:])
    tiles = image[:, : TILES * height, : TILES * width].unfold(1, height, height).unfold(2, width, width)
    order = (5 * torch.arange(TILES**2) + 3) % TILES**2  # a permutation, since 5 and 16 share no factor, that leaves none
    moved = tiles.flatten(1, 2)[:, order].reshape(-1, TILES, TILES, height, width)
    made = image.clone()
    made[:, : TILES * height, : TILES * width] = moved.permute(0, 1, 3, 2, 4).reshape(-1, TILES * height, TILES * width)
    return made


KINDS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "solarised": solarised,
    "posterised": posterised,
    "scrambled": scrambled,
}


@dataclass(frozen=True, eq=False)
class _Told:
    """One set of images, three ways."""

    pictures: Pictures
    inverted: Mapping[str, Inverted]
    diagnoses: Mapping[str, Diagnosis]

    @classmethod
    def of(cls, lab: Lab, pictures: Pictures, steps: int) -> _Told:
        """Inverted and diagnosed, or read back."""
        ways = {title: lab.inverted(pictures, *way, steps=steps) for title, way in WAYS.items()}
        return cls(pictures, ways, {title: lab.diagnosed(pictures, way) for title, way in ways.items()})

    def together(self, value: Callable[..., Any], *ways: str) -> Interval:
        """A function of the standard deviations in plain areas by several ways."""
        plain = plain_area(self.pictures.shown, self.inverted[USUAL].latent)
        return together([area_sums(self.inverted[way].latent, plain).pooled("std") for way in ways], value)

    @property
    def closed(self) -> Interval:
        """The share of the deviation missing in plain areas that the paper's start gives back."""
        return self.together(lambda usual, paper: (paper - usual) / (1 - usual), USUAL, PAPER)

    @property
    def nearer(self) -> Interval:
        """By how much our way is nearer to a deviation of 1 there than the paper's."""
        return self.together(lambda paper, ours: abs(paper - 1) - abs(ours - 1), PAPER, OURS)

    def change(self, ours: str, theirs: str) -> Interval:
        """Of the PSNR, in dB."""
        return change_of_psnr(self.pictures.shown, self.inverted[ours].reconstruction, self.inverted[theirs].reconstruction)


@dataclass(frozen=True)
class Photographs:
    """DDIM, the paper's start, and the library's default, on five sets of images.

    Attributes:
        count: Images of each set.
        steps: N of the grid, up and down.
    """

    count: int
    steps: int

    def run(self, lab: Lab) -> Findings:
        """A table for each set, and all sets side by side."""
        photographs = lab.photographs(self.count)
        sets = [lab.generated(self.count, self.steps), photographs, *(_made(photographs, kind) for kind in KINDS)]
        told = {pictures.name: _Told.of(lab, pictures, self.steps) for pictures in sets}
        return Findings(
            self._setting(len(photographs), bool(lab.data)),
            {name.capitalize(): table_of(one.diagnoses, COLUMNS, "inversion") for name, one in told.items()},
            (
                Figure("sets", "Each set of images, each way; the grey bands are true noise.", _chart(told)),
                Figure(
                    "pictures",
                    "Images, and their latents by DDIM from the image and from a forward start; each row of latents in units "
                    "of true noise.",
                    plotting.pictures(_rows(told)),
                    shows_data=bool(lab.data),
                ),
            ),
            tuple(_claims(told)),
            {name: {title: d.to_dict() for title, d in one.diagnoses.items()} for name, one in told.items()},
        )

    def _setting(self, photographs: int, given: bool) -> str:
        whose = "" if given else " (the eight that come with unsample)"
        few = "" if photographs >= MIN_IMAGES else f" They are fewer than {MIN_IMAGES}: of them r cannot be told."
        return (
            f"{self.count} generated images, and {photographs} photographs{whose} that the model never saw, each also "
            "solarised (the bright half of the values turned around: less plain area), posterised (four values a channel: "
            f"more), and scrambled (its sixteen tiles moved around), none of which it was trained on.{few} N = {self.steps}, "
            "sampled back by DDIM; a forward start of k = 2 saves two evaluations, of which look-ahead spends one. Images in "
            "[-1, 1]; 95 % intervals over images (bootstrap; jackknife for r)."
        )


def _made(pictures: Pictures, kind: str) -> Pictures:
    """Out-of-distribution images, one from each picture."""
    return Pictures(kind, tuple(Photo.of(KINDS[kind](photo.pixels), photo.name) for photo in pictures.photos))


def _chart(told: Mapping[str, _Told]) -> plotting.Drawing:
    def column(title: str) -> Column:
        rows = {name: {way: d[COLUMNS[title]] for way, d in one.diagnoses.items()} for name, one in told.items()}
        nulls = {name: next(iter(row.values())).null for name, row in rows.items()}
        spans = {name: (null.low, null.high) for name, null in nulls.items() if null}
        return Column(title, {n: {way: bar(r) for way, r in row.items()} for n, row in rows.items()}, spans or None)

    return plotting.forest([column(title) for title in CHART])


def _rows(told: Mapping[str, _Told]) -> list[plotting.Row]:
    rows = []
    for name, one in told.items():
        latents = {way: one.inverted[way].latent[:SHOWN] for way in (USUAL, PAPER)}
        rows.append(plotting.Row(name, one.pictures.shown[:SHOWN]))
        rows += [plotting.Row(f"latent: {way}", latent, "latent") for way, latent in latents.items()]
    return rows


def _claims(told: Mapping[str, _Told]) -> list[Claim]:
    seen = {"photographs": told["photographs"]}, "On photographs that the model never saw"
    strange = {kind: told[kind] for kind in KINDS}, "On images like none that it was trained on"
    generated = told["generated"]
    return [
        *(replace(claim, images="photographs") for claim in _claims_of(*seen, generated)),
        *(replace(claim, images=", ".join(KINDS)) for claim in _claims_of(*strange, generated)),
    ]


def _claims_of(sets: Mapping[str, _Told], where: str, generated: _Told) -> list[Claim]:
    """The flaw, its repair and its price, on each of the sets, beside generated images."""

    def claim(sentence: str, judge: Judge) -> Claim:
        verdicts = [judge(one)[0] for one in sets.values()]
        numbers = [f"{name} {judge(one)[1]}" for name, one in {**sets, "generated": generated}.items()]
        return Claim(sentence, "; ".join(numbers), reduce(both, verdicts))

    return [
        claim(f"{where}, DDIM latents of plain areas have too little noise,", partial(_judged, USUAL, "std plain", below)),
        claim("... and are correlated.", partial(_judged, USUAL, PATCH_ROW, above)),
        claim(
            f"{where}, a forward start of k = 2 brings the correlation to its floor,",
            partial(_judged, PAPER, PATCH_ROW, _floor),
        ),
        claim("... gives plain areas most of the deviation they miss,", _gap),
        claim(f"... at little cost in reconstruction (less than {LITTLE:g} dB; the bound is ours).", _cost),
        claim("Look-ahead from the same start is whiter still in plain areas, and reconstructs better (ours).", _ours),
    ]


Judge = Callable[[_Told], tuple[bool | None, str]]
"""From the ways on a set of images to a verdict and its numbers."""


def _judged(way: str, name: str, judge: Callable[[Row], bool | None], told: _Told) -> tuple[bool | None, str]:
    row = told.diagnoses[way][name]
    return (None, "-") if math.isnan(row.value) else (judge(row), f"{row} (noise {row.noise})")


def _floor(row: Row) -> bool | None:
    return row.is_noise


def _gap(told: _Told) -> tuple[bool | None, str]:
    usual, paper = (told.diagnoses[way]["std plain"] for way in (USUAL, PAPER))
    return exceeds(told.closed, MOST), f"{usual} becomes {paper}, {percent(told.closed)} of what is missing"


def _cost(told: _Told) -> tuple[bool | None, str]:
    change = told.change(PAPER, USUAL)
    return exceeds(change, -LITTLE), signed(change, " dB")


def _ours(told: _Told) -> tuple[bool | None, str]:
    change, std = told.change(OURS, PAPER), told.diagnoses[OURS]["std plain"]
    return both(
        exceeds(told.nearer, 0), exceeds(change, 0)
    ), f"std {std}, {signed(change, ' dB')} against DDIM from that start"
