"""E6: the triangle of an image, the noise it was sampled from, and the latent that inversion returns (the paper's appendix H).

Angles and sides belong to an image and are averaged afterwards. Two nulls: true noise in place of the latent, measured, which
keeps what image and noise have in common; and the closed form for three that know nothing of each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ... import pictures as plotting
from ...diagnostics import Null, Triangle, bootstrap, independent_angles, most_probable_triangle, nulls, triangle, true_noise
from ...diagnostics.row import Row, format_number
from ...pictures import Curve, Panel
from ...runs.html import Table
from .findings import Claim, Figure, Findings, judged, numbers
from .lab import DDIM_LATENT, GENERATED, Lab
from .verdicts import below, row_of

NOISE, UNRELATED = "true noise", "all unrelated, closed form"
ANGLES = ("angle at image", "angle at noise", "angle at latent")
SIDES = ("noise to latent", "image to latent", "image to noise")
RIGHT = 90.0

Rows = dict[str, Row]
Angles = tuple[float, float, float]


@dataclass(frozen=True)
class TriangleOf:
    """Angles and sides of the triangle of image, noise and latent.

    Attributes:
        count: Images.
        steps: N of the grid, up and down.
        forward: Steps of the forward start to compare with.
        bins: Of the histograms of the most probable triangle, in 180 degrees; 180 in the paper, fewer for few images.
    """

    count: int
    steps: int
    forward: int
    bins: int

    def run(self, lab: Lab) -> Findings:
        """A table, and the triangles drawn."""
        pictures = lab.generated(self.count, self.steps)
        noise = pictures.source
        latents = lab.latents(pictures, self.steps, self.forward)
        latents[NOISE] = true_noise(noise.shape, seed=lab.seed, draw=-1)  # none of the draws of the null
        image = lab.encoded(pictures).to(noise)
        null = nulls(lambda x: _means(triangle(image, noise, x)), noise.shape, seed=lab.seed)
        shapes = {name: triangle(image, noise, latent) for name, latent in latents.items()}
        rows = {name: _rows(shape, null) for name, shape in shapes.items()}
        likely = {name: most_probable_triangle(shape, self.bins) for name, shape in shapes.items()}
        angles, sides = _unrelated(image)
        return Findings(
            f"{self.count} images sampled by DDIM in {self.steps} steps and inverted on the same grid ({self.steps} "
            f"evaluations; the forward start takes {self.forward} fewer). Angles in degrees, sides in L2 over all "
            f"{noise[0].numel()} values. 95 % bootstrap intervals over images. The most probable triangle is that of "
            f"histograms with bins of {180 / self.bins:g} degrees.",
            {"Angles": _table(ANGLES, rows, angles, likely), "Sides": _table(SIDES, rows, sides)},
            self._figures(shapes, likely, angles),
            _claims(rows[DDIM_LATENT], shapes[DDIM_LATENT]),
            numbers({**rows, "most probable": likely, UNRELATED: angles}),
        )

    def _figures(self, shapes: Mapping[str, Triangle], likely: Mapping[str, Angles], unrelated: Angles) -> tuple[Figure, ...]:
        return (
            Figure(
                "triangles",
                "Triangles of image, noise and latent, the side from noise to image drawn equally long: the most probable "
                "one, or the mean one where no three bins of the histograms make a triangle. To compare: true noise in "
                "place of the latent, and three that know nothing of each other.",
                plotting.triangles({**_drawn(likely, shapes), UNRELATED: unrelated}),
            ),
            Figure(
                "histograms",
                "Share of images by angle. Where they fall into kinds, the mean triangle is none of them.",
                plotting.curves(*(_histogram(name, shapes, self.bins) for name in ANGLES)),
            ),
        )


def _parts(triangles: Triangle) -> dict[str, Tensor]:
    """[B] values by name."""
    angles = dict(zip(ANGLES, triangles.angles.unbind(1), strict=True))
    return angles | dict(zip(SIDES, (triangles.noise_latent, triangles.image_latent, triangles.image_noise), strict=True))


def _means(measured: Triangle) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in _parts(measured).items()}


def _rows(measured: Triangle, null: Mapping[str, Null]) -> Rows:
    return {name: row_of(name, bootstrap(values), null[name]) for name, values in _parts(measured).items()}


def _unrelated(image: Tensor) -> tuple[Angles, Angles]:
    """Angles (image, noise, latent) and sides where the three are unrelated, at the root mean square s of all images.

    Sides are those of `SIDES`: sqrt(2 d) from noise to noise, sqrt((1 + s^2) d) from an image to either.
    """
    rms, values = float(image.double().square().mean().sqrt()), image[0].numel()
    at_image, at_noise, at_latent = (angle.mean for angle in independent_angles(rms, values))
    to_noise = math.sqrt((1 + rms**2) * values)
    return (at_image, at_noise, at_latent), (math.sqrt(2 * values), to_noise, to_noise)


def _table(
    names: tuple[str, ...],
    rows: Mapping[str, Rows],
    unrelated: Angles,
    likely: Mapping[str, Angles] | None = None,
) -> Table:
    first = next(iter(rows.values()))
    lines = [(title, *(str(parts[name]) for name in names)) for title, parts in rows.items() if title != NOISE]
    null = [row.noise if row.null and row.null.std else str(row) for row in (first[name] for name in names)]
    lines += [(NOISE, *null), (UNRELATED, *map(format_number, unrelated))]
    if likely is None:
        return Table(("with", *names), tuple(lines))
    shown = {title: " / ".join(f"{angle:.0f}" for angle in angles) for title, angles in likely.items()}
    table = tuple((*line, shown.get(line[0], "").replace("nan / nan / nan", "too few images")) for line in lines)
    return Table(("with", *names, "most probable triangle"), table)


def _drawn(likely: Mapping[str, Angles], shapes: Mapping[str, Triangle]) -> dict[str, Angles]:
    """Most probable triangles, mean ones in place of those that do not exist."""
    drawn = {}
    for name, angles in likely.items():
        if math.isnan(angles[0]):
            image, noise, latent = shapes[name].angles.mean(0).tolist()
            drawn[f"{name}, mean"] = (image, noise, latent)
        else:
            drawn[f"{name}, most probable"] = angles
    return drawn


def _histogram(angle: str, shapes: Mapping[str, Triangle], bins: int) -> Panel:
    width = 180 / bins
    middles = [(i + 0.5) * width for i in range(bins)]

    def share(values: Tensor) -> list[float]:
        index = (values / width).long().clamp(0, bins - 1)
        shares: list[float] = (index.bincount(minlength=bins).double() / len(index)).tolist()
        return shares

    lines = [Curve(name, middles, share(_parts(shape)[angle])) for name, shape in shapes.items()]
    return Panel("", lines, f"{angle}, degrees", "share of images", marks=False)


def _claims(rows: Rows, shape: Triangle) -> tuple[Claim, ...]:
    angle, side = rows[ANGLES[2]], rows[SIDES[0]]
    assert angle.low is not None  # generated images are several
    assert angle.high is not None
    kind = "acute" if angle.high < RIGHT else "obtuse" if angle.low > RIGHT else "right, as far as these images tell"
    obtuse = float((shape.at_latent > RIGHT).double().mean())
    return judged(
        GENERATED,
        (
            "The angle at the latent is not a right angle.",
            f"{angle} degrees in the mean, {kind}; {obtuse:.0%} of images are obtuse; true noise for a latent {angle.noise}",
            not angle.low <= RIGHT <= angle.high,
        ),
        ("A latent is nearer to its noise than other noise is.", f"L2 {side}; other noise {side.noise}", below(side)),
    )
