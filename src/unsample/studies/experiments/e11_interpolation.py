"""E11: interpolation between pairs of noises and of latents: are the images in the middle as good as those at the ends?

The paper's measure is a Frechet distance at each point of the path. Beside it stand the diversity of the images, how white the
latents on the path are, and the path from a noise to the latent of its own sample, on which an image should hardly change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from ... import pictures as plotting
from ...diagnostics import Interval, bootstrap
from ...errors import ArgumentError
from ...pictures import Panel
from ...runs.html import Table
from .e11_images import NOISE, USUAL, PathImages
from .findings import Claim, Figure, Findings, Judged, columns, judged, line, numbers, table_of
from .lab import GENERATED, Lab
from .paired import GROUPS
from .verdicts import both, exceeds, falls_short, percent, within

COLUMNS = columns("std", "lag-1", "excess kurtosis", "KL to N(0, 1)")

FLAT, SHOWN = 0.25, 3
"""The change of a Frechet distance, as a share, that we call none; how many pairs a figure shows."""


@dataclass(frozen=True)
class Interpolation:
    """Spherical paths between images 2i and 2i + 1, by what the images were sampled from or inverted to.

    Attributes:
        pairs: Paths of each kind.
        steps: N of the grid, up and down.
        forward: Steps of the forward start.
        points: Of a path, both ends among them; an odd number.
    """

    pairs: int
    steps: int
    forward: int
    points: int

    def run(self, lab: Lab) -> Findings:
        """Tables and curves over the points of the path.

        Raises:
            ArgumentError: An even number of points, which has no middle, or too few pairs.
        """
        if self.points < 3 or self.points % 2 == 0:
            raise ArgumentError(f"points: expected an odd number of at least 3, whose middle is one, given {self.points}")
        if self.pairs < 2 * GROUPS:
            raise ArgumentError(f"pairs: expected at least {2 * GROUPS}, for the interval, given {self.pairs}")
        made = PathImages(lab, self.pairs, self.steps, self.forward, self.points)
        return Findings(
            self._setting(made),
            {
                **{f"Frechet distance to {name}": _table(made, by) for name, by in made.frechet.items()},
                "Diversity, mean distance of two images": _table(made, made.diversity),
                "From a noise to the latent of its own sample": _own_table(made),
                **{f"Latents on the way, {name}": table_of(rows, COLUMNS, "point") for name, rows in made.whiteness.items()},
            },
            (
                Figure("frechet", "Frechet distance and diversity along the way.", plotting.curves(*_panels(made))),
                Figure("pictures", "Ways between the same images.", plotting.picture_rows(_rows(made))),
            ),
            _claims(made),
            _metrics(made),
        )

    def _setting(self, made: PathImages) -> str:
        n, nulls = self.pairs, made.nulls
        floors = "; ".join(f"{name} {null.mean:.3g} +- {null.std:.2g}" for name, null in nulls.items())
        sets = ", and to ".join(f"{len(made.references[name])} {name}" for name in nulls)
        return (
            f"{n} ways between {2 * n} images sampled by DDIM in {self.steps} steps: slerp of whole latents at {self.points} "
            f"points, sampled back on the same grid. Frechet distance of {made.judge.name} features to {sets}, "
            "none of which is an end of a way. It is biased upwards: "
            f"between {n} and {n} of the same set it is {floors}. Compare points, which have as many images. Images in "
            "[-1, 1]; 95 % intervals over pairs (delete-a-group jackknife for Frechet distances, bootstrap elsewhere)."
        )


def _places(points: int) -> list[float]:
    return [i / (points - 1) for i in range(points)]


def _table(made: PathImages, by: Mapping[str, Sequence[Interval]]) -> Table:
    head = ("between", *(f"{place:.2g}" for place in _places(made.points)))
    return Table(head, tuple((name, *map(str, points)) for name, points in by.items()))


def _own_table(made: PathImages) -> Table:
    others = bootstrap((made.ends.shown[0::2] - made.ends.shown[1::2]).double().square().flatten(1).mean(1).sqrt())
    rows = {name: [bootstrap(x) for x in made.apart(name)] for name in made.own}
    table = _table(made, rows)
    last = ("two images of a pair", *[""] * (made.points - 1), str(others))
    return Table(("rms distance to the image, latent", *table.head[1:]), (*table.rows, last))


def _panels(made: PathImages) -> list[Panel]:
    x, across = _places(made.points), "place on the way"
    panels = [
        Panel(f"to {name}", [line(_drawn(kind), x, points) for kind, points in by.items()], across, "Frechet distance")
        for name, by in made.frechet.items()
    ]
    diversity = [line(_drawn(kind), x, points) for kind, points in made.diversity.items()]
    own = [line(kind, x, [bootstrap(point) for point in made.apart(kind)]) for kind in made.own]
    return [
        *panels,
        Panel("diversity", diversity, across, "mean rms distance of two images"),
        Panel("from a noise to the latent of its own sample", own, across, "rms distance to the image"),
    ]


def _drawn(name: str) -> str:
    return "true noise" if name == NOISE else name


def _rows(made: PathImages) -> list[plotting.PictureRow]:
    return [
        plotting.PictureRow(f"{name}, {pair + 1}", images[:, pair])
        for pair in range(SHOWN)
        for name, images in made.images.items()
    ]


def _claims(made: PathImages) -> tuple[Claim, ...]:
    loss, own = made.loss(USUAL), made.apart(USUAL)
    further = bootstrap(own[len(own) // 2] - own[-1])
    return (
        *(claim for name in made.references for claim in judged(f"against {name}", *_claims_against(made, name))),
        *judged(
            GENERATED,
            (
                "Images in the middle between DDIM latents are less diverse (ours).",
                f"change from the ends {percent(loss)}; between noises {percent(made.loss(NOISE))}",
                falls_short(loss, 0),
            ),
            (
                "From a noise to the DDIM latent of its own sample, images leave no further than they do at the latent "
                "(ours).",
                f"rms distance to the image {bootstrap(own[len(own) // 2])} half way, {bootstrap(own[-1])} at the latent",
                falls_short(further, 0),
            ),
        ),
    )


def _claims_against(made: PathImages, reference: str) -> list[Judged]:
    """The paper's three, by the Frechet distance to one reference."""
    rises = {name: made.rise(reference, name) for name in made.images}
    numbers = {name: f"the middle {percent(rise)} above the ends" for name, rise in rises.items()}
    flat = {name: within(rise, -FLAT, FLAT) for name, rise in rises.items()}
    more = made.higher(reference, USUAL)
    return [
        (f"Between noises, images are as good as at the ends (to {FLAT:.0%}; ours).", numbers[NOISE], flat[NOISE]),
        (
            "Between DDIM latents, they are worse in the middle, and by more than between noises.",
            f"{numbers[USUAL]}, {percent(more)} more than between noises",
            both(exceeds(rises[USUAL], 0), exceeds(more, 0)),
        ),
        *((f"By a {name}, they are as good again.", numbers[name], flat[name]) for name in list(rises)[2:]),
    ]


def _metrics(made: PathImages) -> dict[str, Any]:
    return {
        "frechet": {
            reference: {name: [astuple(x) for x in points] for name, points in by.items()}
            for reference, by in made.frechet.items()
        },
        "null": {name: null.mean for name, null in made.nulls.items()},
        "rise": {ref: {name: astuple(made.rise(ref, name)) for name in made.images} for ref in made.references},
        "diversity": {name: [astuple(x) for x in points] for name, points in made.diversity.items()},
        "own": {name: [astuple(bootstrap(x)) for x in made.apart(name)] for name in made.own},
        "latents": numbers(made.whiteness),
    }
