"""E9: are the first steps to blame? The inversion is given the sampler's own predictions for its first k moves.

Nobody who inverts a photograph has them, so this repairs nothing: it says how much of a latent's fault is made in those moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from ... import pictures as plotting
from ...core.ddim import DDIM
from ...core.denoiser import Replayed
from ...core.walk import walk
from ...diagnostics import Diagnosis, Interval, area_sums, bootstrap, plain_area
from ...diagnostics.row import PATCH_ROW
from ...runs.html import Table
from ...uses.sample import sample
from .findings import Claim, Figure, Findings, curve, line
from .lab import GENERATED, Inverted, Lab, Pictures
from .paired import correlations, exceeds, percent, r_together, together

__all__ = ["Swap"]

COLUMNS = {
    "top-20 r": PATCH_ROW,
    "std plain": "std plain",
    "std other": "std other",
    "KL to N(0, 1)": "KL to N(0, 1)",
    "MAE": "MAE",
    "PSNR, dB": "PSNR",
}

ROUNDING = 1e-3
"""Largest difference to the noise, which is about 1, that we call rounding after all float32 moves down and up."""

MOST = 0.5
"""The share of a difference that we call most of it."""

Ways = dict[int, Inverted]


@dataclass(frozen=True)
class Swap:
    """DDIM inversion with the true predictions of sampling for its first k moves.

    Attributes:
        count: Generated images.
        steps: N of the grid.
        swaps: The k to try; 0, the usual inversion, and N, all moves, are tried as well.
    """

    count: int
    steps: int
    swaps: tuple[int, ...]

    def run(self, lab: Lab) -> Findings:
        """Tables and curves over k, beside forward starts of the same k."""
        pictures = lab.generated(self.count, self.steps)
        started = {k: lab.inverted(pictures, forward=str(k), steps=self.steps) for k in self.tried}
        swap, start = (_Series.of(lab, pictures, ways) for ways in (self._swapped(lab, pictures), started))
        return Findings(
            f"{self.count} generated images, {self.steps} steps. The first k moves of DDIM inversion use the predictions that "
            "sampling used there, the others ask the network. Evaluations per image: N to sample and record, N - k for the "
            "inversion, N back; a forward start of k steps takes N - k for the inversion, too, and needs no record. Images in "
            "[-1, 1]; distance is the mean of |latent - noise| over values, 2 / sqrt(pi) = 1.13 for unrelated noise. "
            "k = N gives the noise back: its row tells what the images' own noise has in their plain areas, which need not be "
            "1, since noise makes images plain. 95 % intervals over images (bootstrap; jackknife for r).",
            {"True predictions for the first k moves": swap.table(), "Forward start of k steps": start.table()},
            (
                Figure(
                    "by-k",
                    "Latents and reconstructions against k: with the first k predictions true, and with a forward start.",
                    self._drawing({"true predictions": swap, "forward start": start}),
                ),
            ),
            (*self._claims(swap, pictures), *_exact(swap, self.steps, pictures), *_beside(self.few, swap, start, pictures)),
            {"swap": swap.metrics(), "forward": start.metrics()},
        )

    @property
    def few(self) -> int:
        """The most true steps among those tried that are at most a tenth of all; at least one."""
        return max((k for k in self.swaps if 0 < k <= self.steps // 10), default=1)

    @property
    def tried(self) -> list[int]:
        """All k."""
        return sorted({0, self.few, *self.swaps, self.steps})

    def _swapped(self, lab: Lab, pictures: Pictures) -> Ways:
        noise = _noise(pictures)

        def compute(rows: slice) -> Mapping[str, Tensor]:
            return _swap_rows(lab, noise[rows].to(lab.model.device), self.steps, self.tried)

        tensors = lab.streamed("swap", pictures, compute, steps=self.steps, swaps=self.tried)
        return {
            k: Inverted(tensors[f"latent.{k}"], tensors[f"reconstruction.{k}"].clamp(-1, 1), self.steps - k)
            for k in self.tried
        }

    def _drawing(self, series: Mapping[str, _Series]) -> plotting.Drawing:
        across = f"k of {self.steps}"

        def shown(title: str, name: str, up: str) -> plotting.Panel:
            rows = {label: [diagnosis[name] for diagnosis in one.found.values()] for label, one in series.items()}
            null = rows["forward start"][0].null
            return plotting.Panel(
                title,
                [curve(label, self.tried, line) for label, line in rows.items()],
                across,
                up,
                (null.low, null.high) if null else None,
                log="x",
            )

        apart = [line(label, self.tried, list(one.apart.values())) for label, one in series.items()]
        return plotting.curves(
            shown("correlation", PATCH_ROW, "top-20 r"),
            shown("variance in plain areas", "std plain", "std of the latent"),
            shown("variance elsewhere", "std other", "std of the latent"),
            shown("divergence", "KL to N(0, 1)", "KL to N(0, 1), nats"),
            plotting.Panel("distance to the noise", apart, across, "mean |latent - noise|", log="x"),
            shown("reconstruction", "MAE", "MAE"),
        )

    def _claims(self, swap: _Series, pictures: Pictures) -> list[Claim]:
        k, usual, mended = self.few, swap.found[0], swap.found[self.few]
        r, nearer = mended[PATCH_ROW], bootstrap(swap.distances[0] - swap.distances[k])
        told = [
            Claim(
                f"With {k} of {self.steps} true predictions the correlation is at its floor.",
                f"top-20 r {usual[PATCH_ROW]} becomes {r}; noise {r.noise}",
                r.is_noise,
                GENERATED,
            ),
            Claim(
                "... and the latent lies nearer to its noise.",
                f"mean distance {swap.apart[0]} becomes {swap.apart[k]}; paired fall {nearer}",
                exceeds(nearer, 0),
                GENERATED,
            ),
        ]
        for name, what in {"std": "the variance", "lag1": "the correlation of neighbours"}.items():
            closed, values = _closed(name, pictures, [swap.ways[i].latent for i in (0, k)])
            told.append(
                Claim(
                    f"... and in plain areas {what} comes most of the way to that of their own noise.",
                    f"{name.replace('lag1', 'lag-1')} plain {values}; {percent(closed)} of the difference is closed",
                    exceeds(closed, MOST),
                    GENERATED,
                )
            )
        return told


def _closed(statistic: str, pictures: Pictures, latents: Sequence[Tensor]) -> tuple[Interval, str]:
    """How much of the first latents' difference to their noise, in plain areas, the second have closed; and the values."""
    parts = [area_sums(x, plain_area(pictures.shown, x)).pooled(statistic) for x in (*latents, _noise(pictures))]
    usual, mended, own = (part.interval() for part in parts)
    found = together(parts, lambda usual, mended, own: 1 - np.abs(mended - own) / np.abs(usual - own))
    return found, f"{usual} becomes {mended}; their own noise has {own}"


@dataclass(frozen=True, eq=False)
class _Series:
    """What was measured at each k."""

    ways: Ways
    found: Mapping[int, Diagnosis]
    distances: Mapping[int, Tensor]

    @classmethod
    def of(cls, lab: Lab, pictures: Pictures, ways: Ways) -> _Series:
        """Diagnoses, and the distance to its noise of each latent."""
        noise = _noise(pictures)
        found = {k: lab.diagnosed(pictures, way) for k, way in ways.items()}
        return cls(ways, found, {k: (way.latent - noise).abs().flatten(1).mean(1) for k, way in ways.items()})

    @cached_property
    def apart(self) -> dict[int, Interval]:
        """Mean distance to the noise."""
        return {k: bootstrap(each) for k, each in self.distances.items()}

    def table(self) -> Table:
        """By k, true noise last."""
        head = ("k", "evaluations up", *COLUMNS, "distance to the noise")
        names = COLUMNS.values()
        rows = [
            (str(k), str(self.ways[k].nfe_up), *(str(found[name]) for name in names), str(self.apart[k]))
            for k, found in self.found.items()
        ]
        return Table(head, (*rows, ("true noise", "", *(self.found[0][name].noise for name in names), "0")))

    def metrics(self) -> dict[str, Any]:
        """By k."""
        return {
            f"k={k}": {**found.to_dict(), "distance": asdict(self.apart[k]), "nfe_up": self.ways[k].nfe_up}
            for k, found in self.found.items()
        }


def _noise(pictures: Pictures) -> Tensor:
    assert pictures.noise is not None  # they were generated
    return pictures.noise


def _swap_rows(lab: Lab, noise: Tensor, steps: int, swaps: Sequence[int]) -> dict[str, Tensor]:
    """Latents and reconstructions of some items for every k; what is recorded is given up with the batch."""
    model, grid = lab.model, lab.model.grid(steps)
    denoiser, x0, recorded = model.denoiser(), noise, dict[int, Tensor]()
    for moved in walk(denoiser, noise, grid.down(), DDIM()):
        x0 = moved.x
        recorded[moved.step.src.index] = moved.eps
    found = {}
    for k in swaps:
        known, x = Replayed({i: eps for i, eps in recorded.items() if i <= k}, otherwise=denoiser), x0
        for moved in walk(known, x, grid.up(), DDIM()):
            x = moved.x
        found[f"latent.{k}"] = x
        found[f"reconstruction.{k}"] = sample(model, x, grid=grid).images
    return found


def _exact(swap: _Series, steps: int, pictures: Pictures) -> list[Claim]:
    """A check of ours: with all predictions true nothing is left to be wrong."""
    largest = float((swap.ways[steps].latent - _noise(pictures)).abs().max())
    numbers = f"largest difference to the noise {largest:.2g}; rounding is taken to be below {ROUNDING:g}"
    return [
        Claim("With all predictions true the latent is the noise, but for rounding.", numbers, largest < ROUNDING, GENERATED)
    ]


def _beside(k: int, swap: _Series, start: _Series, pictures: Pictures) -> list[Claim]:
    """The same k in both ways."""
    latents = [series.ways[k].latent for series in (start, swap)]
    plain = plain_area(pictures.shown, latents[0])
    parts = [area_sums(latent, plain).pooled("std") for latent in latents]
    r = r_together([correlations(latent) for latent in latents], lambda theirs, ours: theirs - ours)
    nearer = together(parts, lambda theirs, ours: np.abs(theirs - 1) - np.abs(ours - 1))
    here, there = swap.found[k], start.found[k]
    return [
        Claim(
            f"True predictions for {k} moves leave less correlation than a forward start of {k} steps.",
            f"top-20 r {here[PATCH_ROW]} and {there[PATCH_ROW]}; noise {here[PATCH_ROW].noise}; less by {r} (paired)",
            exceeds(r, 0),
            GENERATED,
        ),
        Claim(
            "... and bring plain areas nearer to the variance of noise.",
            f"std plain {here['std plain']} and {there['std plain']}; noise {here['std plain'].noise}; "
            f"nearer to 1 by {nearer} (paired)",
            exceeds(nearer, 0),
            GENERATED,
        ),
    ]
