"""E4: do latents show the image? Pictures of latents and of |latent - noise| (Figure 5 of the paper), and a number for them.

The number is a correlation over the pixels of an item between a map of its latent and a map of its image, averaged over items.
Its null pairs latents with other items' images: what all latents and all images share, such as their edges, is in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from ... import pictures as plotting
from ...diagnostics import Null, bootstrap, excess_variance, plain_area, plain_mask
from ...diagnostics.row import Row
from ...runs.html import Table
from .findings import Figure, Findings, Judged, judged
from .lab import DDIM_LATENT, Lab, Pictures
from .verdicts import apart, below, lower, row_of

Batch = Float[Tensor, "batch channels height width"]
Map = Float[Tensor, "batch height width"]
Values = dict[str, Tensor]
Found = dict[tuple[str, str], Row]

CONTOURS, PLAIN = "abs(latent - noise) and contours", "local variance and plain areas"
LATENT, FORWARD, NOISE = DDIM_LATENT, "forward-start latent", "noise"
PAIRINGS, FEWEST = 32, 8
"""Random pairings that make the null; the fewest items of which a correlation is given."""

BRIGHT = 0.995
"""The quantile of the distances that is drawn black."""


@dataclass(frozen=True)
class Patterns:
    """DDIM latents with and without a forward start, beside their images.

    Attributes:
        count: Images of each set, over which the numbers are taken.
        steps: N of the grid, up and down.
        repair: Steps of the forward start; the paper replaces 2 of 50.
        shown: How many items are drawn: those with the largest plain areas.
    """

    count: int
    steps: int
    repair: int
    shown: int

    def run(self, lab: Lab) -> Findings:
        """Pictures, and how far they show the image, for each set of images."""
        figures: list[Figure] = []
        measured: dict[str, Found] = {}
        for pictures in lab.sets(self.count, self.steps):
            values = self._values(lab, pictures)
            measured[pictures.name] = _measured(pictures.shown, values)
            figures.append(self._figure(pictures, values))
        return Findings(
            self._setting(),
            {"Latents beside their images": _table(measured)},
            tuple(figures),
            tuple(claim for name, rows in measured.items() for claim in judged(name, *self._claims(rows))),
            {name: {f"{of}: {what}": row.to_dict() for (what, of), row in rows.items()} for name, rows in measured.items()},
        )

    def _setting(self) -> str:
        return (
            f"{self.count} images inverted by DDIM in {self.steps} steps, with and without the first {self.repair} replaced "
            "by forward diffusion, whose noise is fresh. r is the correlation over the pixels of an item between a map of its "
            "latent and a map of its image, averaged over items, with a 95 % bootstrap interval over items; 'other images' is "
            "the same with each latent beside another item's image, and where 95 % of such pairings fall. Contours are the "
            "magnitude of the image's gradient; the local variance of a latent is over 5 x 5 pixels and all channels. An "
            "image is made of its noise, which therefore has an r of its own to compare with. The noise of a forward start is "
            "fresh, so its distance from the first noise is no sign of structure in the latent."
        )

    def _values(self, lab: Lab, pictures: Pictures) -> Values:
        """Latents, and noise if it is known."""
        latents = lab.latents(pictures, self.steps, self.repair, LATENT, FORWARD)
        return latents if pictures.noise is None else {NOISE: pictures.noise, **latents}

    def _figure(self, pictures: Pictures, values: Values) -> Figure:
        """Rows of pictures, with the distance from noise where it is known, else with the local variance."""
        items = most_plain(pictures.shown, self.shown)
        chosen = {name: x[items] for name, x in values.items()}
        rows = [plotting.PictureRow("image", pictures.shown[items])]
        noun = pictures.name if pictures.noise is None else f"{pictures.name} images"
        which = f"Of {len(pictures)} {noun} the {len(items)} with the largest plain areas, largest first"
        if NOISE in chosen:
            caption = f"{which}. Maps of |latent - noise| have one scale, from 0 (white) to {{top:.2f}} or more (black)."
            return Figure(f"patterns-{pictures.name}", *_distance_rows(rows, chosen, caption))
        rows += [row for name in (LATENT, FORWARD) for row in (_latent(name, chosen), _variance(name, chosen))]
        caption = f"{which}. Local variance: blue, too little noise; white, that of noise; red, too much."
        return Figure(f"patterns-{pictures.name}", caption, plotting.picture_rows(rows), shows_data=True)

    def _claims(self, rows: Found) -> list[Judged]:
        usual, repaired = rows[PLAIN, LATENT], rows[PLAIN, FORWARD]
        numbers, shows = f"r {usual}; other images {usual.noise}", below(usual)
        claims: list[Judged] = []
        if (PLAIN, NOISE) in rows:
            noise, error = rows[PLAIN, NOISE], rows[CONTOURS, LATENT]
            numbers, shows = f"{numbers}; the noise itself {noise}", lower(usual, noise) if shows else shows
            words = f"r {error}, the error being larger {'at' if error.value > 0 else 'away from'} contours"
            sentence = "Image contours are visible in abs(latent - noise)."
            claims.append((sentence, f"{words}; other images {error.noise}", apart(error)))
        return [
            *claims,
            ("DDIM latents show the image: their local variance is lower where it is plain.", numbers, shows),
            (
                f"... and no longer after a forward start of {self.repair} steps.",
                f"r {usual} becomes {repaired}; other images {repaired.noise}",
                repaired.is_noise,
            ),
        ]


def most_plain(images: Batch, count: int) -> list[int]:
    """The items with the largest plain areas, largest first; of equal ones the earlier.

    >>> most_plain(torch.stack([torch.eye(4)[None], torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)]), 2)
    [1, 2]
    """
    area = plain_mask(images).double().mean((1, 2))
    return [int(i) for i in area.argsort(descending=True, stable=True)[:count]]


def _distance_rows(rows: list[plotting.PictureRow], chosen: Values, caption: str) -> tuple[str, plotting.Drawing]:
    distance = {name: (chosen[name] - chosen[NOISE]).abs().mean(1, keepdim=True) for name in (LATENT, FORWARD)}
    top = float(torch.cat(list(distance.values())).quantile(BRIGHT))
    rows.append(_latent(NOISE, chosen))
    for name, values in distance.items():
        rows += [_latent(name, chosen), plotting.PictureRow("|latent - noise|", values, "map", top)]
    return caption.format(top=top), plotting.picture_rows(rows)


def _latent(name: str, chosen: Values) -> plotting.PictureRow:
    return plotting.PictureRow(name, chosen[name], "latent")


def _variance(name: str, chosen: Values) -> plotting.PictureRow:
    return plotting.PictureRow("its local variance", excess_variance(chosen[name])[:, None], "excess", 1.0)


def _measured(images: Batch, values: Values) -> Found:
    """(Statistic, of what) -> how far a map of the latents follows a map of the images."""
    measured: Found = {}
    plain = plain_area(images, values[LATENT]).double()
    for name, x in values.items():
        measured[PLAIN, name] = alignment(PLAIN, excess_variance(x), plain)
        if NOISE in values and name != NOISE:
            contours = _contours(images, (x.shape[2], x.shape[3]))
            measured[CONTOURS, name] = alignment(CONTOURS, (x - values[NOISE]).abs().mean(1), contours)
    return measured


def _contours(images: Batch, size: tuple[int, int]) -> Float[Tensor, "batch latent_height latent_width"]:
    """Magnitude of the images' gradient, over channels, at the latents' resolution."""
    down, across = torch.gradient(images, dim=(2, 3))
    return interpolate(torch.hypot(down, across).mean(1, keepdim=True), size=size, mode="area")[:, 0]


def alignment(name: str, latent: Map, image: Map) -> Row:
    """Mean over items of the correlation over pixels of two maps; its null pairs each with another item.

    Items with a constant map (an image without plain pixels, or with no others) have no correlation and are left out.

    >>> from unsample.diagnostics import true_noise
    >>> map_ = true_noise((16, 8, 8))
    >>> row = alignment("itself", map_, 2 * map_ + 1)
    >>> round(row.value, 3), row.is_noise
    (1.0, False)
    """
    a, b = latent.double().cpu().flatten(1), image.double().cpu().flatten(1)
    varied = (a.amax(1) > a.amin(1)) & (b.amax(1) > b.amin(1))
    a, b = _standardised(a[varied]), _standardised(b[varied])
    if len(a) < FEWEST:
        return Row(name, math.nan, note=f"needs at least {FEWEST} items whose maps vary, given {len(a)}")
    null = Null.from_values([float((a[one] * b[other]).sum(1).mean()) for one, other in _strangers(len(a))])
    return row_of(name, bootstrap((a * b).sum(1)), null, f"{len(a)} items")


def _strangers(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairings of each of `count` items with another: each with the next in a random order, the last with the first."""
    generator = torch.Generator("cpu").manual_seed(0)
    for _ in range(PAIRINGS):
        order = torch.randperm(count, generator=generator, device="cpu")
        yield order, order.roll(1)


def _standardised(x: Float[Tensor, "batch pixels"]) -> Float[Tensor, "batch pixels"]:
    """Mean 0 and norm 1, so that a sum of products is a correlation."""
    centred = x - x.mean(1, keepdim=True)
    return centred / centred.square().sum(1, keepdim=True).sqrt()


def _table(measured: dict[str, Found]) -> Table:
    rows = [
        (images, what, of, str(row), row.noise, row.note)
        for images, rows in measured.items()
        for (what, of), row in sorted(rows.items(), key=lambda each: each[0][0], reverse=True)
    ]
    return Table(("images", "correlation of", "in", "r", "other images", ""), tuple(rows))
