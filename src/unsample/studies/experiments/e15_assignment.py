"""E15: can noise be told from its image by distance alone? Nearest neighbours by L2, noise to image and back (appendix N).

The same for latents in place of the noise: inversion ends nearer to the image than where sampling came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

from torch import Tensor

from ... import pictures as plotting
from ...diagnostics import Interval, bootstrap, nulls
from ...diagnostics.assignment import Assignment, assignment_accuracy
from ...runs.html import Table
from .findings import Figure, Findings, Judged, bar, judged
from .lab import DDIM_LATENT, GENERATED, Lab
from .verdicts import falls_short, lower, row_of, signed

OWN, NOISE = "its noise", "unrelated noise"
TO_IMAGE, FROM_IMAGE = "finds its image", "is found by its image"

Shares = Mapping[str, Interval]
"""Of noises or latents that find their image, and of those that their image finds."""


@dataclass(frozen=True)
class AssignmentOf:
    """How often noise and latents find their image by distance, and images them.

    Attributes:
        count: Images.
        steps: N of the grid, up and down.
        forward: Steps of the forward start to compare with.
        division: Items to choose from; the paper's 1024.
    """

    count: int
    steps: int
    forward: int
    division: int

    def run(self, lab: Lab) -> Findings:
        """A table and bars for noise, DDIM latents and latents of a forward start."""
        pictures = lab.generated(self.count, self.steps)
        noise = pictures.source
        image = lab.encoded(pictures).to(noise)
        starts = {OWN: noise, **lab.latents(pictures, self.steps, self.forward)}
        assignments = {name: assignment_accuracy(x, image, self.division) for name, x in starts.items()}
        null = nulls(lambda x: _estimates(assignment_accuracy(x, image, self.division)), noise.shape, seed=lab.seed)
        shares = {name: _shares(one) for name, one in assignments.items()}
        shares[NOISE] = {name: Interval(one.mean, max(one.low, 0.0), one.high) for name, one in null.items()}
        far = {name: _distance(x, image) for name, x in starts.items()}
        others = {name: _distance(x, image.roll(1, 0)) for name, x in starts.items()}
        chance = assignments[OWN].chance
        ends = {name: {which: list(astuple(one)) for which, one in both.items()} for name, both in shares.items()}
        return Findings(
            f"{self.count} images sampled by DDIM in {self.steps} steps and inverted on the same grid ({self.steps} "
            f"evaluations; the forward start takes {self.forward} fewer). Each item chooses the nearest of about "
            f"{1 / chance:.0f} by L2: chance is {chance:.2%}. 95 % intervals: Wilson's of shares, bootstrap over images of "
            "distances.",
            {"Nearest neighbours": _table(shares, far, others)},
            (
                Figure(
                    "accuracy",
                    f"Share of pairs found by distance alone; chance is {chance:.2%}.",
                    plotting.bars(
                        {name: {which: bar(one) for which, one in both.items()} for name, both in shares.items()},
                        "share of pairs found",
                    ),
                ),
            ),
            judged(GENERATED, *_claims(shares, far, others)),
            {
                **{name: ends[name] for name in assignments},
                "L2 to own image": {name: float(x.mean()) for name, x in far.items()},
                "L2 to another image": {name: float(x.mean()) for name, x in others.items()},
                "chance": chance,
                "null": ends[NOISE],
            },
        )


def _shares(assignment: Assignment) -> dict[str, Interval]:
    return {TO_IMAGE: assignment.to_images, FROM_IMAGE: assignment.to_noise}


def _estimates(assignment: Assignment) -> dict[str, float]:
    return {name: one.estimate for name, one in _shares(assignment).items()}


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """[B]: L2 between items."""
    lengths: Tensor = (a.double() - b.double()).flatten(1).norm(dim=1)
    return lengths


def _table(shares: Mapping[str, Shares], far: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Table:
    rows = []
    for name, both in shares.items():
        lengths = (str(bootstrap(x[name])) if name in x else "" for x in (far, others))
        rows.append((name, *map(_percent, both.values()), *lengths))
    return Table(("of", TO_IMAGE, FROM_IMAGE, "L2 to its image", "L2 to another image"), tuple(rows))


def _percent(one: Interval) -> str:
    value, low, high = (f"{100 * end:.1f}" for end in astuple(one))
    return f"{value} % [{low}, {high}]"


def _claims(shares: Mapping[str, Shares], far: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> list[Judged]:
    own, noise = shares[OWN], shares[NOISE]
    nearer, to_others = bootstrap(far[DDIM_LATENT] - far[OWN]), bootstrap(others[DDIM_LATENT] - others[OWN])
    return [
        (
            "Images find their noise far more often than noise finds its image.",
            f"images find their noise {_percent(own[FROM_IMAGE])}, noise its image {_percent(own[TO_IMAGE])}; unrelated noise "
            f"{_percent(noise[FROM_IMAGE])} and {_percent(noise[TO_IMAGE])}",
            lower(row_of("", own[TO_IMAGE]), row_of("", own[FROM_IMAGE])),
        ),
        (
            "Latents are nearer to their images than noise is.",
            f"paired change of L2 {signed(nearer)} of {float(far[OWN].mean()):.1f} to the own image, {signed(to_others)} to "
            f"another's; images find their latents {_percent(shares[DDIM_LATENT][FROM_IMAGE])}",
            falls_short(nearer, 0),
        ),
    ]
