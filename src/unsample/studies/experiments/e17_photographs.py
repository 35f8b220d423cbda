"""E17: DDIM, its flaw and the repair, on photographs the model never saw, and on images like none it was trained on.

The latter are made from the photographs, each from one: solarised (colours and contrasts of no photograph, less plain area),
posterised (few colours, much plain area), and with their tiles moved around (no object left).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ... import pictures as plotting
from ...diagnostics import MIN_IMAGES
from ...diagnostics.row import PATCH_ROW, Row
from ...pictures import Column
from ...pictures.read import Photo
from .findings import Claim, Figure, Findings, Judged, bar, columns, judged, numbers, span, table_of
from .lab import GENERATED, PHOTOGRAPHS, Lab, Pictures
from .sweep import Sweep
from .verdicts import Verdict, above, below, both, exceeds, percent, signed

INVERSIONS: Mapping[str, tuple[str, str]] = {
    "DDIM": ("ddim", "0"),
    "forward start, k = 2, DDIM": ("ddim", "2"),
    "forward start, k = 2, look-ahead": ("look-ahead", "2"),
}
USUAL, PAPER, OURS = INVERSIONS

COLUMNS = columns("plain share", "top-20 r", "std plain", "std other", "lag-1 plain", "MAE", "PSNR, dB", "SSIM")

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
    places = torch.arange(TILES**2, device="cpu")
    order = (5 * places + 3) % TILES**2  # a permutation, since 5 and 16 share no factor, that leaves none
    moved = tiles.flatten(1, 2)[:, order].reshape(-1, TILES, TILES, height, width)
    made = image.clone()
    made[:, : TILES * height, : TILES * width] = moved.permute(0, 1, 3, 2, 4).reshape(-1, TILES * height, TILES * width)
    return made


KINDS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "solarised": solarised,
    "posterised": posterised,
    "scrambled": scrambled,
}


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
        sweeps = {pictures.name: Sweep.inverted(lab, pictures, INVERSIONS, self.steps) for pictures in sets}
        return Findings(
            self._setting(len(photographs), bool(lab.data)),
            {name.capitalize(): table_of(one.diagnoses, COLUMNS, "inversion") for name, one in sweeps.items()},
            (
                Figure("sets", "Each set of images, each way; the grey bands are true noise.", _chart(sweeps)),
                Figure(
                    "pictures",
                    "Images, and their latents by DDIM from the image and from a forward start; each row of latents in units "
                    "of true noise.",
                    plotting.picture_rows(_rows(sweeps)),
                    shows_data=bool(lab.data),
                ),
            ),
            _claims(sweeps),
            {name: numbers(one.diagnoses) for name, one in sweeps.items()},
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


def _chart(sweeps: Mapping[str, Sweep[str]]) -> plotting.Drawing:
    def column(title: str) -> Column:
        bars = {name: {how: bar(d[COLUMNS[title]]) for how, d in one.diagnoses.items()} for name, one in sweeps.items()}
        spans = {name: noise for name, one in sweeps.items() if (noise := span(one[USUAL][COLUMNS[title]]))}
        return Column(title, bars, spans or None)

    return plotting.forest([column(title) for title in CHART])


def _rows(sweeps: Mapping[str, Sweep[str]]) -> list[plotting.PictureRow]:
    rows = []
    for name, one in sweeps.items():
        rows.append(plotting.PictureRow(name, one.pictures.shown[:SHOWN]))
        rows += [plotting.PictureRow(f"latent: {how}", one.trips[how].latent[:SHOWN], "latent") for how in (USUAL, PAPER)]
    return rows


def _claims(sweeps: Mapping[str, Sweep[str]]) -> tuple[Claim, ...]:
    seen = {
        PHOTOGRAPHS: "On photographs that the model never saw",
        ", ".join(KINDS): "On images like none that it was trained on",
    }
    return tuple(
        claim for names, where in seen.items() for claim in judged(names, *_claims_of(sweeps, names.split(", "), where))
    )


def _claims_of(sweeps: Mapping[str, Sweep[str]], names: Sequence[str], where: str) -> list[Judged]:
    """The flaw, its repair and its price, on each of the sets, beside generated images."""

    def claim(sentence: str, judge: Callable[[Sweep[str]], tuple[Verdict, str]]) -> Judged:
        numbers = [f"{name} {judge(sweeps[name])[1]}" for name in (*names, GENERATED)]
        return sentence, "; ".join(numbers), both(*(judge(sweeps[name])[0] for name in names))

    floor = f"{where}, a forward start of k = 2 brings the correlation to its floor,"
    return [
        claim(f"{where}, DDIM latents of plain areas have too little noise,", partial(_judged, USUAL, "std plain", below)),
        claim("... and are correlated.", partial(_judged, USUAL, PATCH_ROW, above)),
        claim(floor, partial(_judged, PAPER, PATCH_ROW, lambda row: row.is_noise)),
        claim("... gives plain areas most of the deviation they miss,", _gap),
        claim(f"... at little cost in reconstruction (less than {LITTLE:g} dB; the bound is ours).", _cost),
        claim("Look-ahead from the same start is whiter still in plain areas, and reconstructs better (ours).", _ours),
    ]


def _judged(how: str, name: str, judge: Callable[[Row], Verdict], one: Sweep[str]) -> tuple[Verdict, str]:
    row = one[how][name]
    return (None, "-") if math.isnan(row.value) else (judge(row), f"{row} (noise {row.noise})")


def _gap(one: Sweep[str]) -> tuple[Verdict, str]:
    """The share of the deviation missing in plain areas that the paper's start gives back."""
    closed = one.paired("std plain", lambda usual, paper: (paper - usual) / (1 - usual), USUAL, PAPER)
    usual, paper = (one[how]["std plain"] for how in (USUAL, PAPER))
    return exceeds(closed, MOST), f"{usual} becomes {paper}, {percent(closed)} of what is missing"


def _cost(one: Sweep[str]) -> tuple[Verdict, str]:
    change = one.gain("PSNR", PAPER, USUAL)
    return exceeds(change, -LITTLE), signed(change, " dB")


def _ours(one: Sweep[str]) -> tuple[Verdict, str]:
    """By how much our inversion is nearer to a deviation of 1 in plain areas than the paper's, and how it reconstructs."""
    nearer = one.paired("std plain", lambda paper, ours: abs(paper - 1) - abs(ours - 1), PAPER, OURS)
    change, std = one.gain("PSNR", OURS, PAPER), one[OURS]["std plain"]
    numbers = f"std {std}, {signed(change, ' dB')} against DDIM from that start"
    return both(exceeds(nearer, 0), exceeds(change, 0)), numbers
