"""E5: where the latent lies: how far sampling keeps from the line between noise and latent (Figure 3 of the paper).

A state enters by the three dot products of `line_products`, so no trajectory is kept. The paper scales each state's distances
to [0, 1]; the absolute ones, which its reviewers asked for, stand beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field

import torch
from torch import Tensor

from ... import pictures as plotting
from ...core.ddim import DDIM
from ...core.walk import walk
from ...diagnostics import Interval, Null, bootstrap, line_position, line_products, nulls, products_to_distances, true_noise
from ...pictures import Curve, Drawing, Panel
from ...runs.html import Table
from .findings import Claim, Figure, Findings, judged, line
from .lab import DDIM_LATENT, GENERATED, Lab, Pictures
from .verdicts import exceeds, within

POINTS = 25
"""Of the line at which distances are drawn, both ends among them; as many as in the paper."""

TURN = (0.5, 0.7)
"""Where on its way the paper sees a path turn."""

PASSED = QUARTER, HALF = 0.25, 0.5
"""Places on the line; past the second a state is nearer to the latent than to the noise."""

NOISE = "true noise"
ALONG, WAY = "position on the line (0 noise, 1 latent)", "way from noise (0) to image (1)"


@dataclass(frozen=True)
class Line:
    """Distances of the states of sampling from points of the line from noise to latent.

    Attributes:
        count: Images.
        steps: N of the grid, up and down.
        forward: Steps of the forward start to compare with.
    """

    count: int
    steps: int
    forward: int

    def run(self, lab: Lab) -> Findings:
        """A heatmap for each latent, absolute and scaled, and the way of the nearest point."""
        pictures = lab.generated(self.count, self.steps)
        latents = lab.latents(pictures, self.steps, self.forward)
        latents[NOISE] = true_noise(pictures.source.shape, seed=lab.seed)
        products = self._products(lab, pictures, latents)
        paths = {name: _Path(products[name], pictures.source, latent) for name, latent in latents.items()}
        return Findings(
            f"{self.count} images sampled by DDIM in {self.steps} steps and inverted on the same grid ({self.steps} "
            f"evaluations; the forward start takes {self.forward} fewer). L2 over all values of a state. 95 % bootstrap "
            "intervals over images. A position is that of the nearest point of the line, 0 at the noise and 1 at the latent; "
            "medians over images, since it has no bound where a latent is close to its noise. The null is true noise, which "
            "knows nothing of the image, in place of the latent.",
            {"The way to the image and the line": self._table(paths)},
            self._figures(paths),
            self._claims(paths, _ends_of_noise(lab, pictures)),
            {name: path.to_dict() for name, path in paths.items()},
        )

    def _products(self, lab: Lab, pictures: Pictures, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """[B, steps + 1, 3] for each latent, from noise to image."""
        model, noise = lab.model, pictures.source

        def compute(rows: slice) -> dict[str, Tensor]:
            x = first = noise[rows].to(model.device)
            ends = {name: latent[rows].to(model.device) for name, latent in latents.items()}
            products = {name: [line_products(x, first, end)] for name, end in ends.items()}
            for moved in walk(model.denoiser(), x, model.grid(self.steps).down(), DDIM()):
                for name, end in ends.items():
                    products[name].append(line_products(moved.x, first, end))
            return {name: torch.stack(states, dim=1) for name, states in products.items()}

        return lab.streamed("line", pictures, compute, steps=self.steps, forward=self.forward)

    def _table(self, paths: Mapping[str, _Path]) -> Table:
        passed = ("a quarter passed", "half passed", "images that pass half")
        rows = [
            (name, *map(_percent, map(path.passes, PASSED)), f"{path.share:.0%}", str(path.end), f"{path.end_by_length:.3f}")
            for name, path in paths.items()
        ]
        return Table(("line to", *passed, "position of the image", "by length alone"), tuple(rows))

    def _figures(self, paths: Mapping[str, _Path]) -> tuple[Figure, ...]:
        return (
            Figure(
                "distances",
                "L2 distance, mean over images, of the states of sampling (rows, noise at the bottom) from the points of "
                "the line from noise to latent (columns). Right: the same for true noise in place of a latent.",
                _heatmaps({name: path.distances for name, path in paths.items()}, "L2 distance"),
            ),
            Figure(
                "scaled",
                "The same, each row from its least (0) to its largest (1), as in the paper: what is dark is nearest. The path "
                "bends away from the noise for true noise, too: the bend alone says nothing of a latent.",
                _heatmaps({name: _scaled(path.distances) for name, path in paths.items()}, "distance, by row"),
            ),
            Figure(
                "position",
                "Where on the line the point nearest to a state lies, median over images. Above 0.5 a state is nearer to the "
                "latent than to the noise.",
                plotting.curves(Panel("", [path.curve(name) for name, path in paths.items()], WAY, ALONG, marks=False)),
            ),
        )

    def _claims(self, paths: Mapping[str, _Path], noise: Null) -> tuple[Claim, ...]:
        usual, null = paths[DDIM_LATENT], paths[NOISE]
        turn = usual.passes(HALF)
        return judged(
            GENERATED,
            (
                f"Sampling turns towards the latent at {TURN[0] * 100:.0f} to {TURN[1] * 100:.0f} % of its way.",
                f"half of the images are nearer to the latent than to the noise from {_percent(turn)} of the way on, "
                f"{usual.share:.0%} at some time; with true noise for a latent {null.share:.0%}. A quarter of the line is "
                f"passed at {_percent(usual.passes(QUARTER))}, with true noise at {_percent(null.passes(QUARTER))}",
                within(turn, *TURN),
            ),
            (
                "... and ends nearer to the latent than to the noise.",
                f"the image's position on the line {usual.end} (0.5 is halfway; {usual.end_by_length:.3f} if the latent "
                f"differed from noise in its length alone); noise {noise.mean:.3f} [{noise.low:.3f}, {noise.high:.3f}]",
                exceeds(usual.end, max(noise.high, HALF)),
            ),
        )


@dataclass(frozen=True, eq=False)
class _Path:
    """The states of sampling beside a line: `line_products` of each state, [B, states, 3], and the line's ends."""

    products: Tensor = field(repr=False)
    noise: Tensor = field(repr=False)
    latent: Tensor = field(repr=False)

    @property
    def position(self) -> Tensor:
        """[B, states]: where the nearest point lies."""
        return self.products[..., 1] / self.products[..., 2]

    @property
    def distances(self) -> Tensor:
        """[states, points], means over images."""
        flat = products_to_distances(self.products.flatten(0, 1), POINTS)
        return flat.reshape(*self.products.shape[:2], POINTS).mean(0)

    def passes(self, place: float) -> Interval:
        """The part of the way at which half of the images have passed a place on the line; infinite if they never do.

        To pass 0.5 is to be nearer to the latent than to the noise.
        """
        past = self.position > place
        first = past.double().argmax(1).double() / (past.shape[1] - 1)
        return bootstrap(torch.where(past.any(1), first, math.inf), "median")

    @property
    def share(self) -> float:
        """Of images that pass 0.5 at all."""
        return float((self.position > HALF).any(1).double().mean())

    @property
    def end(self) -> Interval:
        """Position of the image, median over images."""
        return bootstrap(self.position[:, -1], "median")

    @property
    def end_by_length(self) -> float:
        """Median of 1/2 + (|n|^2 - |l|^2) / (2 |l - n|^2), the position of an image at right angles to l - n."""
        noise, latent = (x.double().flatten(1).square().sum(1) for x in (self.noise, self.latent))
        return bootstrap(0.5 + (noise - latent) / (2 * self.products[:, 0, 2]), "median").estimate

    def curve(self, name: str) -> Curve:
        """Position over the way, with its intervals."""
        medians = [bootstrap(column, "median") for column in self.position.unbind(1)]
        return line(name, torch.linspace(0, 1, len(medians), device="cpu").tolist(), medians)

    def to_dict(self) -> dict[str, object]:
        """For the metrics."""
        curve = self.curve("")
        return {
            **{f"passes {place:g}": list(astuple(self.passes(place))) for place in PASSED},
            "share that passes 0.5": self.share,
            "end": list(astuple(self.end)),
            "end by length": self.end_by_length,
            "position": curve.y,
            "position low": curve.low,
            "position high": curve.high,
            "distances": self.distances.tolist(),
        }


def _ends_of_noise(lab: Lab, pictures: Pictures) -> Null:
    """The median position of the images on lines from their noise to true noise."""
    noise = pictures.source
    image = lab.encoded(pictures).to(noise)
    return nulls(lambda x: {"end": float(line_position(image, noise, x).median())}, noise.shape, seed=lab.seed)["end"]


def _scaled(distances: Tensor) -> Tensor:
    low, high = distances.amin(1, keepdim=True), distances.amax(1, keepdim=True)
    return (distances - low) / (high - low)


def _heatmaps(panels: Mapping[str, Tensor], colours: str) -> Drawing:
    edge, states = 0.5 / (POINTS - 1), next(iter(panels.values())).shape[0]
    half = 0.5 / (states - 1)
    return plotting.heatmaps(panels, ALONG, WAY, extent=(-edge, 1 + edge, -half, 1 + half), colours=colours)


def _percent(turn: Interval) -> str:
    """A part of the way in words."""
    part, low, high = (f"{end:.0%}" if math.isfinite(end) else "never" for end in astuple(turn))
    return part if part == low == high else f"{part} [{low}, {high}]"
