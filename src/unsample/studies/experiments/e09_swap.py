"""E9: are the first steps to blame? The inversion is given the sampler's own predictions for its first k moves.

Nobody who inverts a photograph has them, so this repairs nothing: it says how much of a latent's fault is made in those moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ... import pictures as plotting
from ...core.corrections import Replayed
from ...core.ddim import DDIM
from ...core.walk import walk
from ...diagnostics import Interval, area_sums, bootstrap, plain_area
from ...diagnostics.row import PATCH_ROW
from ...runs.html import Table
from ...uses.sample import sample
from .findings import Figure, Findings, Judged, columns, curve, judged, line, span
from .lab import GENERATED, Lab, Pictures, RoundTrip
from .paired import bootstrapped
from .sweep import Sweep
from .verdicts import beside_noise, exceeds, percent

COLUMNS = columns("top-20 r", "std plain", "std other", "KL to N(0, 1)", "MAE", "PSNR, dB")

ROUNDING = 1e-3
"""Largest difference to the noise, which is about 1, that we call rounding after all float32 moves down and up."""

PLAIN_STATISTICS = {"std": ("std", "the variance"), "lag1": ("lag-1", "the correlation of neighbours")}
"""Name of a statistic -> what reports call it, and what it is."""

MOST = 0.5
"""The share of a difference that we call most of it."""


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
        swap, start = Sweep.of(pictures, self._swapped(lab, pictures)), Sweep.of(pictures, started)
        return Findings(
            f"{self.count} generated images, {self.steps} steps. The first k moves of DDIM inversion use the predictions that "
            "sampling used there, the others ask the network. Evaluations per image: N to sample and record, N - k for the "
            "inversion, N back; a forward start of k steps takes N - k for the inversion, too, and needs no record. Images in "
            "[-1, 1]; distance is the mean of |latent - noise| over values, 2 / sqrt(pi) = 1.13 for unrelated noise. "
            "k = N gives the noise back: its row tells what the images' own noise has in their plain areas, which need not be "
            "1, since noise makes images plain. 95 % intervals over images (bootstrap; jackknife for r).",
            {"True predictions for the first k moves": _table(swap), "Forward start of k steps": _table(start)},
            (
                Figure(
                    "by-k",
                    "Latents and reconstructions against k: with the first k predictions true, and with a forward start.",
                    self._drawing({"true predictions": swap, "forward start": start}),
                ),
            ),
            judged(GENERATED, *self._claims(swap), _exact(swap, self.steps), *_beside(self.few, swap, start)),
            {"swap": _metrics(swap), "forward": _metrics(start)},
        )

    @property
    def few(self) -> int:
        """The most true steps among those tried that are at most a tenth of all; at least one."""
        return max((k for k in self.swaps if 0 < k <= self.steps // 10), default=1)

    @property
    def tried(self) -> list[int]:
        """All k."""
        return sorted({0, self.few, *self.swaps, self.steps})

    def _swapped(self, lab: Lab, pictures: Pictures) -> dict[int, RoundTrip]:
        noise = pictures.source

        def compute(rows: slice) -> Mapping[str, Tensor]:
            return _swap_rows(lab, noise[rows].to(lab.model.device), self.steps, self.tried)

        tensors = lab.streamed("swap", pictures, compute, steps=self.steps, swaps=self.tried)
        return {
            k: RoundTrip(tensors[f"latent.{k}"], tensors[f"reconstruction.{k}"].clamp(-1, 1), self.steps - k)
            for k in self.tried
        }

    def _drawing(self, series: Mapping[str, Sweep[int]]) -> plotting.Drawing:
        across = f"k of {self.steps}"

        def shown(title: str, name: str, up: str) -> plotting.Panel:
            lines = [curve(label, self.tried, [one[k][name] for k in self.tried]) for label, one in series.items()]
            noise = span(series["forward start"][0][name])
            return plotting.Panel(title, lines, across, up, noise, log="x")

        apart = [line(label, self.tried, list(_apart(one).values())) for label, one in series.items()]
        return plotting.curves(
            shown("correlation", PATCH_ROW, "top-20 r"),
            shown("variance in plain areas", "std plain", "std of the latent"),
            shown("variance elsewhere", "std other", "std of the latent"),
            shown("divergence", "KL to N(0, 1)", "KL to N(0, 1), nats"),
            plotting.Panel("distance to the noise", apart, across, "mean |latent - noise|", log="x"),
            shown("reconstruction", "MAE", "MAE"),
        )

    def _claims(self, swap: Sweep[int]) -> list[Judged]:
        k = self.few
        r, distances, apart = swap[k][PATCH_ROW], swap.distances, _apart(swap)
        nearer = bootstrap(distances[0] - distances[k])
        claims: list[Judged] = [
            (
                f"With {k} of {self.steps} true predictions the correlation is at its floor.",
                beside_noise("top-20 r", swap[0][PATCH_ROW], r),
                r.is_noise,
            ),
            (
                "... and the latent lies nearer to its noise.",
                f"mean distance {apart[0]} becomes {apart[k]}; paired fall {nearer}",
                exceeds(nearer, 0),
            ),
        ]
        for name, (words, what) in PLAIN_STATISTICS.items():
            closed, values = _closed(name, swap, k)
            claims.append(
                (
                    f"... and in plain areas {what} comes most of the way to that of their own noise.",
                    f"{words} plain {values}; {percent(closed)} of the difference is closed",
                    exceeds(closed, MOST),
                )
            )
        return claims


def _closed(statistic: str, swap: Sweep[int], k: int) -> tuple[Interval, str]:
    """How much of the usual latents' difference to their noise, in plain areas, k true predictions close; and the values."""
    pictures = swap.pictures
    latents = (swap.trips[0].latent, swap.trips[k].latent, pictures.source)
    parts = [area_sums(x, plain_area(pictures.shown, x)).pooled(statistic) for x in latents]
    usual, repaired, own = (part.interval() for part in parts)
    closed = bootstrapped(parts, lambda usual, repaired, own: 1 - np.abs(repaired - own) / np.abs(usual - own))
    return closed, f"{usual} becomes {repaired}; their own noise has {own}"


def _table(swept: Sweep[int]) -> Table:
    """By k, true noise last."""
    names, apart = COLUMNS.values(), _apart(swept)
    rows = [
        (str(k), str(swept.trips[k].nfe_up), *(str(diagnosis[name]) for name in names), str(apart[k]))
        for k, diagnosis in swept.diagnoses.items()
    ]
    last = ("true noise", "", *(swept[0][name].noise for name in names), "0")
    return Table(("k", "evaluations up", *COLUMNS, "distance to the noise"), (*rows, last))


def _apart(swept: Sweep[int]) -> dict[int, Interval]:
    """Mean distance to the noise, by k."""
    return {k: bootstrap(each) for k, each in swept.distances.items()}


def _metrics(swept: Sweep[int]) -> dict[str, Any]:
    apart = _apart(swept)
    return {
        f"k={k}": {**diagnosis.to_dict(), "distance": asdict(apart[k]), "nfe_up": swept.trips[k].nfe_up}
        for k, diagnosis in swept.diagnoses.items()
    }


def _swap_rows(lab: Lab, noise: Tensor, steps: int, swaps: Sequence[int]) -> dict[str, Tensor]:
    """Latents and reconstructions of some items for every k; what is recorded is given up with the batch."""
    model, grid = lab.model, lab.model.grid(steps)
    denoiser, x0, recorded = model.denoiser(), noise, dict[int, Tensor]()
    for moved in walk(denoiser, noise, grid.down(), DDIM()):
        x0 = moved.x
        recorded[moved.step.src.index] = moved.eps
    tensors = {}
    for k in swaps:
        known, x = Replayed({i: eps for i, eps in recorded.items() if i <= k}, otherwise=denoiser), x0
        for moved in walk(known, x, grid.up(), DDIM()):
            x = moved.x
        tensors[f"latent.{k}"] = x
        tensors[f"reconstruction.{k}"] = sample(model, x, grid=grid).images
    return tensors


def _exact(swap: Sweep[int], steps: int) -> Judged:
    """A check of ours: with all predictions true nothing is left to be wrong."""
    largest = float((swap.trips[steps].latent - swap.pictures.source).abs().max())
    numbers = f"largest difference to the noise {largest:.2g}; rounding is taken to be below {ROUNDING:g}"
    return "With all predictions true the latent is the noise, but for rounding.", numbers, largest < ROUNDING


def _beside(k: int, swap: Sweep[int], start: Sweep[int]) -> list[Judged]:
    """True predictions and a forward start, of the same k."""
    compared = Sweep(swap.pictures, {"start": start.trips[k], "swap": swap.trips[k]}, {})
    r = compared.gain(PATCH_ROW, "start", "swap")
    nearer = compared.paired("std plain", lambda theirs, ours: np.abs(theirs - 1) - np.abs(ours - 1), "start", "swap")
    here, there = swap[k], start[k]
    return [
        (
            f"True predictions for {k} moves leave less correlation than a forward start of {k} steps.",
            f"top-20 r {here[PATCH_ROW]} and {there[PATCH_ROW]}; noise {here[PATCH_ROW].noise}; less by {r} (paired)",
            exceeds(r, 0),
        ),
        (
            "... and bring plain areas nearer to the variance of noise.",
            f"std plain {here['std plain']} and {there['std plain']}; noise {here['std plain'].noise}; "
            f"nearer to 1 by {nearer} (paired)",
            exceeds(nearer, 0),
        ),
    ]
