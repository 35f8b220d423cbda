"""E15: can noise be told from its image by distance alone? Nearest neighbours by L2, both ways (the paper's appendix N).

The same for latents in place of the noise: inversion ends nearer to the image than where sampling came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

from torch import Tensor

from ... import pictures as plotting
from ...diagnostics import Interval, Null, bootstrap, nulls
from ...diagnostics.assignment import Assignment, assignment_accuracy
from ...pictures import Bar
from ...runs.html import Table
from .findings import Claim, Figure, Findings, judged
from .lab import GENERATED, Lab
from .verdicts import falls_short, lower, row_of, signed

__all__ = ["AssignmentOf"]

OWN, USUAL, NOISE = "its noise", "DDIM latent", "unrelated noise"
TO_IMAGE, FROM_IMAGE = "finds its image", "is found by its image"


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
        starts = {OWN: noise, **lab.latents(pictures, self.steps, self.forward, USUAL, f"forward k = {self.forward}")}
        found = {name: assignment_accuracy(x, image, self.division) for name, x in starts.items()}
        null = nulls(lambda x: _shares(assignment_accuracy(x, image, self.division)), noise.shape, seed=lab.seed)
        far = {name: _distance(x, image) for name, x in starts.items()}
        others = {name: _distance(x, image.roll(1, 0)) for name, x in starts.items()}
        chance = found[OWN].chance
        return Findings(
            f"{self.count} images sampled by DDIM in {self.steps} steps and inverted on the same grid ({self.steps} "
            f"evaluations; the forward start takes {self.forward} fewer). Each item chooses the nearest of about "
            f"{1 / chance:.0f} by L2: chance is {chance:.2%}. 95 % intervals: Wilson's of shares, bootstrap over images of "
            "distances.",
            {"Nearest neighbours": _table(found, far, others, null)},
            (
                Figure(
                    "accuracy",
                    f"Share of pairs found by distance alone; chance is {chance:.2%}.",
                    plotting.bars(_bars(found, null), "share of pairs found"),
                ),
            ),
            _claims(found, far, others, null),
            {
                **{name: {way: _ends(one) for way, one in _intervals(pair).items()} for name, pair in found.items()},
                "L2 to own image": {name: float(x.mean()) for name, x in far.items()},
                "L2 to another image": {name: float(x.mean()) for name, x in others.items()},
                "chance": chance,
                "null": {way: _ends(one) for way, one in null.items()},
            },
        )


def _intervals(found: Assignment) -> dict[str, Interval]:
    return {TO_IMAGE: found.to_images, FROM_IMAGE: found.to_noise}


def _shares(found: Assignment) -> dict[str, float]:
    return {way: one.estimate for way, one in _intervals(found).items()}


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """[B]: L2 between items."""
    lengths: Tensor = (a.double() - b.double()).flatten(1).norm(dim=1)
    return lengths


def _ends(one: Interval | Null) -> list[float]:
    """A share and the ends of its interval; that of a null may reach below 0."""
    return list(astuple(one)) if isinstance(one, Interval) else [one.mean, max(one.low, 0.0), one.high]


def _bars(found: Mapping[str, Assignment], null: Mapping[str, Null]) -> dict[str, dict[str, Bar]]:
    shown = {name: {way: Bar(*_ends(one)) for way, one in _intervals(pair).items()} for name, pair in found.items()}
    return {**shown, NOISE: {way: Bar(*_ends(one)) for way, one in null.items()}}


def _table(
    found: Mapping[str, Assignment], far: Mapping[str, Tensor], others: Mapping[str, Tensor], null: Mapping[str, Null]
) -> Table:
    rows = [
        (name, *map(_percent, _intervals(pair).values()), str(bootstrap(far[name])), str(bootstrap(others[name])))
        for name, pair in found.items()
    ]
    head = ("of", TO_IMAGE, FROM_IMAGE, "L2 to its image", "L2 to another image")
    return Table(head, (*rows, (NOISE, *map(_percent, null.values()), "", "")))


def _percent(one: Interval | Null) -> str:
    value, low, high = (f"{100 * end:.1f}" for end in _ends(one))
    return f"{value} % [{low}, {high}]"


def _claims(
    found: Mapping[str, Assignment], far: Mapping[str, Tensor], others: Mapping[str, Tensor], null: Mapping[str, Null]
) -> tuple[Claim, ...]:
    to_image, from_image = _intervals(found[OWN]).values()
    nearer, to_others = bootstrap(far[USUAL] - far[OWN]), bootstrap(others[USUAL] - others[OWN])
    return judged(
        GENERATED,
        (
            "Images find their noise far more often than noise finds its image.",
            f"images find their noise {_percent(from_image)}, noise its image {_percent(to_image)}; unrelated noise "
            f"{_percent(null[FROM_IMAGE])} and {_percent(null[TO_IMAGE])}",
            lower(row_of("", to_image), row_of("", from_image)),
        ),
        (
            "Latents are nearer to their images than noise is.",
            f"paired change of L2 {signed(nearer)} of {float(far[OWN].mean()):.1f} to the own image, {signed(to_others)} to "
            f"another's; images find their latents {_percent(found[USUAL].to_noise)}",
            falls_short(nearer, 0),
        ),
    )
