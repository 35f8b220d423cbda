"""E13: stochastic editing, the several results that draws of a forward start's noise give for one photograph.

The results are compared with each other and with the photograph. Each is made twice: by an inversion that goes all the way up
and back, as in the paper, and by turning around where the start is, which leaves the inversion out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ... import pictures as plotting
from ...core.starts import ForwardNoise
from ...diagnostics import bootstrap
from ...diagnostics.diversity import group_diversity
from ...errors import ArgumentError
from ...runs.html import Table
from ...uses.variations import variations
from .e12_editing import distance
from .findings import Figure, Findings, Judged, judged, line
from .lab import PHOTOGRAPHS, Lab, Pictures
from .verdicts import both, exceeds, falls_short, percent, signed

LITTLE, SHOWN, DRAWS = 0.1, 4, 2
"""The share of the diversity that we call little; how many photographs the figure shows, and how many draws of each."""


@dataclass(frozen=True)
class StochasticEditing:
    """Variations of photographs by how many moves forward diffusion replaces.

    Attributes:
        count: Photographs, at most.
        steps: N of the grid.
        seeds: Draws for each photograph, at least two.
        forwards: k, rising.
    """

    count: int
    steps: int
    seeds: int
    forwards: tuple[int, ...]

    def run(self, lab: Lab) -> Findings:
        """Diversity and fidelity by k.

        Raises:
            ArgumentError: Fewer than two draws, between which there is no distance.
        """
        if self.seeds < DRAWS:
            raise ArgumentError(f"seeds: expected at least {DRAWS}, whose results are compared, given {self.seeds}")
        pictures = lab.photographs(self.count)
        varied = {k: _Varied.of(lab, pictures, self.steps, self.seeds, k) for k in self.forwards}
        drawn = plotting.picture_rows(_rows(pictures, varied))
        whose = "" if lab.data else " (those that come with unsample)"
        return Findings(
            f"{len(pictures)} photographs{whose} that the model never saw, {self.seeds} draws each, N = {self.steps}, no "
            "class; inverted by look-ahead from k forward moves to the noisy end and sampled back, or turned around at k, "
            "which takes k evaluations. Distances are root mean square differences, in units of a pixel in [-1, 1]; 95 % "
            "intervals over photographs (bootstrap).",
            {"Variations": _table(varied)},
            (
                Figure("curves", "How different results are from each other and from the photograph.", _chart(varied)),
                Figure("pictures", "Photographs, and variations of them.", drawn, shows_data=bool(lab.data)),
            ),
            judged(PHOTOGRAPHS, *_claims(varied)),
            {str(k): one.to_dict() for k, one in varied.items()},
        )


@dataclass(frozen=True, eq=False)
class _Varied:
    """Variations from one start, all values one per photograph.

    Attributes:
        whole: All the way up and back, shape (count, seeds, channels, height, width).
        diversity: Mean distance between the results.
        fidelity: Mean distance to the photograph.
        skipped: Distance between the results of both ways, root mean square over draws.
    """

    whole: Tensor
    diversity: Tensor
    fidelity: Tensor
    skipped: Tensor
    nfe: tuple[int, int]

    @classmethod
    def of(cls, lab: Lab, pictures: Pictures, steps: int, seeds: int, k: int) -> _Varied:
        """Made, or read back."""
        whole, short = (_made(lab, pictures, steps, seeds, k, strength) for strength in (1.0, None))
        images = whole["images"].clamp(-1, 1)
        apart = (images - short["images"].clamp(-1, 1)).square().flatten(1).mean(1).sqrt()
        each = torch.stack([distance(pictures.shown, images[:, i]) for i in range(seeds)], dim=1)
        nfe = int(whole["nfe"].max()), int(short["nfe"].max())
        return cls(whole["images"], group_diversity(images).cpu(), each.mean(1), apart, nfe)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        named = {"diversity": self.diversity, "fidelity": self.fidelity, "skipped": self.skipped}
        return {**{name: values.tolist() for name, values in named.items()}, "nfe": self.nfe}


def _made(lab: Lab, pictures: Pictures, steps: int, seeds: int, k: int, strength: float | None) -> dict[str, Tensor]:
    draws = range(lab.seed, lab.seed + seeds)

    def compute(rows: slice) -> dict[str, Tensor]:
        known: dict[str, Any] = {"items": pictures.ids[rows], "start": ForwardNoise(steps=k)}
        made = variations(lab.model, pictures.pixels[rows], seeds=draws, strength=strength, steps=steps, **known)
        return {"images": made.images, "nfe": torch.full((len(made.images),), made.nfe, device="cpu")}

    return lab.streamed("variations", pictures, compute, steps=steps, seeds=seeds, k=k, strength=strength)


def _table(varied: Mapping[int, _Varied]) -> Table:
    head = ("k", "between results", "to the photograph", "by leaving out the inversion", "evaluations", "without inversion")
    rows = [
        (str(k), *(str(bootstrap(v)) for v in (one.diversity, one.fidelity, one.skipped)), *map(str, one.nfe))
        for k, one in varied.items()
    ]
    return Table(head, tuple(rows))


def _chart(varied: Mapping[int, _Varied]) -> plotting.Drawing:
    named = {"between results": "diversity", "to the photograph": "fidelity", "by leaving out the inversion": "skipped"}
    x = [float(k) for k in varied]
    lines = [line(title, x, [bootstrap(getattr(one, name)) for one in varied.values()]) for title, name in named.items()]
    return plotting.curves(plotting.Panel("Variations", lines, "k, moves replaced by forward diffusion", "distance", None))


def _rows(pictures: Pictures, varied: Mapping[int, _Varied]) -> list[plotting.PictureRow]:
    rows = [plotting.PictureRow("photograph", pictures.shown[:SHOWN])]
    for k, one in varied.items():
        rows += [plotting.PictureRow(f"k = {k}, draw {i}", one.whole[:SHOWN, i].clamp(-1, 1)) for i in range(DRAWS)]
    return rows


def _claims(varied: Mapping[int, _Varied]) -> list[Judged]:
    first, last = min(varied), max(varied)
    wider, further = (
        bootstrap(getattr(varied[last], name) - getattr(varied[first], name)) for name in ("diversity", "fidelity")
    )
    shares = {k: bootstrap(one.skipped / one.diversity) for k, one in varied.items()}
    each = [bootstrap(one.diversity) for one in varied.values()]
    return [
        (
            "Draws of forward noise give different results of one photograph.",
            "; ".join(f"k = {k}: {value}" for k, value in zip(varied, each, strict=True)),
            both(*(exceeds(value, 0) for value in each)),
        ),
        (f"The more forward noise, the more they differ (k = {last} against {first}),", signed(wider), exceeds(wider, 0)),
        ("... and the further they are from the photograph.", signed(further), exceeds(further, 0)),
        (
            f"Going up from the start and back adds little (less than {LITTLE:.0%} of the diversity; ours).",
            "; ".join(f"k = {k}: {percent(share)}" for k, share in shares.items()),
            both(*(falls_short(share, LITTLE) for share in shares.values())),
        ),
    ]
