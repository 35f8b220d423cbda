"""E8: which steps of an inversion are wrong, and where in the image (section 3.3 of the paper).

Along a path of the sampler each move of DDIM inversion is tried from the true state before it. Its error is
xi(t) = mean |eps(x_t, t) - eps(x_{t-1}, t)|, and what it recovers the variance of the noise it arrives with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import pictures as plotting
from ...core.ddim import DDIM
from ...core.grid import Grid, Step
from ...core.walk import walk
from ...diagnostics import Interval, StepErrors, plain_area, step_sums
from ...runs.html import Table
from ...uses.sample import sample
from .findings import Figure, Findings, Judged, joined, judged, line, numbers
from .lab import Lab, Pictures
from .paired import bootstrapped
from .verdicts import exceeds, within

AREAS = ("plain", "other")

PATH_METHOD, PATH_FORWARD = "look-ahead", "2"
"""Where paths that end in photographs come from: latents that are nearly noise, sampled back."""


@dataclass(frozen=True)
class StepError:
    """Error and recovered variance of every step.

    Attributes:
        count: Images of each set.
        steps: N of the grid.
    """

    count: int
    steps: int

    def run(self, lab: Lab) -> Findings:
        """Curves over steps for each set of images."""
        return joined(self._of(lab, pictures) for pictures in lab.sets(self.count, self.steps))

    def _of(self, lab: Lab, pictures: Pictures) -> Findings:
        name, curves = pictures.name, _Curves(_errors(lab, pictures, self.steps), lab.model.grid(self.steps))
        return Findings(
            f"{self.count} images, {self.steps} steps; step 1 is the inversion's first, next to the image. Each move starts "
            "from the sampler's own state, so it shows its own error and none of earlier moves; two evaluations a step. "
            "xi is in units of eps, averaged over the pixels of an area. Recovered variance is that of the noise part "
            "x_t - alpha_t x_0 of the state one inversion move from x_{t-1} arrives at, over that of the true x_t, both "
            "over the area's pixels of all images: 1 where nothing is lost. (The variance of whole states, in brackets in the "
            "table, is mostly the image's in the first steps and so hides the loss.) Intervals are 95 %, bootstrap over "
            "images. Generated images are on the path they were sampled along; a photograph is on the path that DDIM samples "
            f"from its latent by {PATH_METHOD}, forward start {PATH_FORWARD}, which ends near it.",
            {f"Error and recovered variance by step, {name}": curves.table()},
            (
                Figure(
                    f"by-step-{name}",
                    f"Error of a single move, the noise it recovers, and the part of all error made so far; {name}. Step 1 is "
                    "next to the image; its axis is logarithmic.",
                    curves.drawing(),
                ),
            ),
            judged(name, *curves.claims()),
            {name: curves.metrics()},
        )


def _errors(lab: Lab, pictures: Pictures, steps: int) -> dict[str, StepErrors]:
    """Sums for `plain` and `other`, of the noise part and (`... state`) of the whole state."""
    if pictures.noise is None:
        start = lab.inverted(pictures, PATH_METHOD, PATH_FORWARD, steps=steps).latent
        path = {"path": f"{PATH_METHOD} {PATH_FORWARD}"}
    else:
        start, path = pictures.noise, {}

    def compute(rows: slice) -> Mapping[str, Tensor]:
        return _sums_along(lab, pictures, start[rows].to(lab.model.device), rows, lab.model.grid(steps))

    tensors = lab.streamed("step-error", pictures, compute, steps=steps, **path)
    return {name: StepErrors(sums.numpy()) for name, sums in tensors.items()}


def _sums_along(lab: Lab, pictures: Pictures, noise: Tensor, rows: slice, grid: Grid) -> dict[str, Tensor]:
    """Down the sampler's path, with one inversion move back from every state; [B, N, 6] each."""
    model = lab.model
    denoiser = model.denoiser()
    pixels = pictures.pixels[rows] if pictures.noise is not None else sample(model, noise, grid=grid).images
    clean = model.codec.encode(pixels.to(noise))
    plain = plain_area(pictures.shown[rows], noise)
    x, kept = noise, list[dict[str, Tensor]]()
    for moved in walk(denoiser, x, grid.down(), DDIM()):
        back = DDIM().step(denoiser, moved.x, Step(moved.step.dst, moved.step.src))
        image = moved.step.src.alpha * clean
        sums = {}
        for area, mask in zip(AREAS, (plain, ~plain), strict=True):
            sums[area] = step_sums(moved.eps, back.eps, x - image, back.x - image, mask)
            sums[f"{area} state"] = step_sums(moved.eps, back.eps, x, back.x, mask)
        kept.append(sums)
        x = moved.x
    return {name: torch.stack([sums[name] for sums in reversed(kept)], dim=1) for name in kept[0]}


@dataclass(frozen=True, eq=False)
class _Curves:
    """One set of images: the sums of `_errors`, and the levels of the steps."""

    sums: Mapping[str, StepErrors]
    grid: Grid

    @property
    def first(self) -> int:
        """The first tenth of the steps, at least one."""
        return max(1, round(self.grid.steps / 10))

    @property
    def whole(self) -> StepErrors:
        """Of whole images."""
        return StepErrors(self.sums["plain"].sums + self.sums["other"].sums)

    @cached_property
    def intervals(self) -> dict[str, list[Interval]]:
        """By step."""
        intervals = {f"xi {area}": [step.interval() for step in self.sums[area].error] for area in AREAS}
        intervals |= {f"recovered {name}": [step.interval() for step in sums.recovered] for name, sums in self.sums.items()}
        return intervals

    @property
    def steps(self) -> range:
        """Their numbers, from 1."""
        return range(1, self.grid.steps + 1)

    @property
    def weights(self) -> list[float]:
        """How much of its xi a move puts into the state, in units of the noise there: 1 - S_src / S_dst."""
        return [1 - step.src.ratio / step.dst.ratio for step in self.grid.up()]

    @property
    def best(self) -> list[float]:
        """Recovered variance of the best denoiser where the image has none (docs/theory.md, "Why plain areas")."""
        return [
            ((1 + step.src.alpha / step.dst.alpha * weight) * (1 - weight)) ** 2
            for step, weight in zip(self.grid.up(), self.weights, strict=True)
        ]

    def drawing(self) -> plotting.Drawing:
        """Three panels over the steps."""
        across = f"step of {self.grid.steps}"

        def panel(title: str, up: str, *curves: plotting.Curve, log: str = "x") -> plotting.Panel:
            return plotting.Panel(title, curves, across, up, log=log)

        def curves(what: str) -> list[plotting.Curve]:
            return [line(f"{area} areas", self.steps, self.intervals[f"{what} {area}"]) for area in AREAS]

        even = plotting.Curve("all alike", self.steps, [step / self.grid.steps for step in self.steps])
        best = plotting.Curve("best denoiser, image constant", self.steps, self.best)
        shares = {"xi": self._shares(None), "xi as it enters the state": self._shares(self.weights)}
        return plotting.curves(
            panel("error of one move", "xi, in units of eps", *curves("xi"), log="xy"),
            panel("noise recovered by one move", "recovered variance (1: all)", *curves("recovered"), best),
            panel(
                "part of all error made so far",
                "share",
                *(plotting.Curve(name, self.steps, values) for name, values in shares.items()),
                even,
            ),
        )

    def _shares(self, weights: Sequence[float] | None) -> list[float]:
        return [self.whole.share(step, weights).value for step in self.steps]

    def table(self) -> Table:
        """The first ten steps, then every fifth and the last."""
        shown = [step for step in self.steps if step <= 10 or step % 5 == 0 or step == self.grid.steps]
        names = [f"{what} {area}" for what in ("xi", "recovered") for area in AREAS]
        rows = []
        for step in shown:
            cells = [str(self.intervals[name][step - 1]) for name in names]
            states = [self.intervals[f"recovered {area} state"][step - 1].estimate for area in AREAS]
            cells[2:] = [f"{cell} ({state:.4g})" for cell, state in zip(cells[2:], states, strict=True)]
            rows.append((str(step), *cells, f"{self.best[step - 1]:.3g}"))
        head = ("step", "xi plain", "xi other", "recovered plain (state)", "recovered other (state)", "best, constant image")
        return Table(head, tuple(rows))

    def metrics(self) -> dict[str, Any]:
        """All intervals."""
        rest = {"best denoiser, constant image": self.best, "weights": self.weights}
        return {**numbers(self.intervals), **rest}

    def claims(self) -> list[Judged]:
        """Of the first steps, and of plain areas beside others."""
        return [*self._claims_of_steps(), *self._claims_of_areas()]

    def _claims_of_steps(self) -> list[Judged]:
        share, entered = (self.whole.share(self.first, weights).interval() for weights in (None, self.weights))
        alike = self.first / self.grid.steps
        return [
            (
                "The first inversion steps err more than the others.",
                f"share of all xi in the first {self._part}: {share}; all alike: {alike:.3g}",
                exceeds(share, alike),
            ),
            (
                "... and most of the error that enters the state is theirs.",
                f"share of xi times (1 - S_src / S_dst) in the first {self._part}: {entered}",
                exceeds(entered, 0.5),
            ),
        ]

    def _claims_of_areas(self) -> list[Judged]:
        ratio = self.sums["plain"].error_ratio(self.sums["other"], self.first).interval()
        turn, steps = self.sums["plain"].crossing(self.sums["other"]).interval(), self.grid.steps
        plain, other = (self.intervals[f"recovered {area}"][0] for area in AREAS)
        less = bootstrapped([self.sums[area].recovered[0] for area in AREAS], lambda plain, other: np.asarray(other - plain))
        return [
            (
                "In the first steps plain areas err more than others.",
                f"xi of plain areas over that of others, first {self._part}: {ratio}",
                exceeds(ratio, 1),
            ),
            (
                "... and later the order turns around.",
                f"first step at which plain areas err no more than others: {turn} ({steps + 1}: none)",
                within(turn, 2, steps),
            ),
            (
                "The first move recovers less noise in plain areas than in others.",
                f"recovered variance {plain} in plain areas, {other} elsewhere, less by {less}; 1 is all",
                exceeds(less, 0),
            ),
        ]

    @property
    def _part(self) -> str:
        return f"{self.first} of {self.grid.steps} steps ({100 * self.first / self.grid.steps:.0f} %)"
