"""Triangles of image, noise and latent, and distances to the line between the two, over any number of images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from ...errors import ArgumentError
from .._checks import Batch, check_at_least
from ..geometry import likeliest, line_distances, triangle
from ._sums import accumulate, add_sums, check_images_seen, mean_and_error

__all__ = ["LineDistances", "Triangles"]


class LineDistances(Metric):  # type: ignore[misc]
    """`line_distances` of all states of a path, averaged over the images of all batches.

    Args:
        points: As `line_distances`.
        **options: Those of every torchmetrics `Metric`.

    Raises:
        ArgumentError: No states, another number of them than before, or states that `line_distances` would refuse.

    >>> noise, latent = torch.zeros(1, 1, 1, 2), torch.tensor([[[[2.0, 0.0]]]])
    >>> found = LineDistances(points=3)
    >>> found.update([noise, torch.ones(1, 1, 1, 2)], noise, latent)
    >>> found.update([noise, 3 * torch.ones(1, 1, 1, 2)], noise, latent)
    >>> found.compute()["mean"].round(decimals=3).tolist()
    [[0.0, 1.0, 2.0], [2.828, 2.303, 2.288]]
    """

    full_state_update = False
    count: Tensor
    totals: Tensor
    squares: Tensor

    def __init__(self, points: int = 25, **options: Any) -> None:
        super().__init__(**options)
        check_at_least(points, 2, "points")
        self.points = points
        add_sums(self, "count", "totals", "squares")

    def update(self, states: Iterable[Tensor], noise: Batch, latent: Batch) -> None:
        """Add the states of the paths of a batch: a few [B, C, H, W] in order, or one [states, B, C, H, W]."""
        sums = []
        for state in states:
            distances = line_distances(state, noise, latent, self.points)
            sums.append(torch.stack([distances.sum(0), distances.square().sum(0)]))
        if not sums:
            raise ArgumentError("states: expected at least one, given none; keep those of the path")
        totals, squares = torch.stack(sums, dim=1)
        accumulate(self, count=len(noise), totals=totals, squares=squares)

    def compute(self) -> dict[str, Tensor]:
        """[states, points] each of the "mean" and its standard "error" over images, and the "count" of images."""
        check_images_seen(self.count, 1)
        mean, error = mean_and_error(self.count, self.totals, self.squares)
        return {"mean": mean, "error": error, "count": self.count}


class Triangles(Metric):  # type: ignore[misc]
    """Angles and sides of `triangle`, averaged over the images of all batches, and `most_probable_triangle`.

    Items without a triangle (two of their points are equal) are left out, as `most_probable_triangle` does.

    Args:
        bins: As `most_probable_triangle`.
        **options: Those of every torchmetrics `Metric`.

    Raises:
        ArgumentError: `bins` below 1, points that `triangle` would refuse, or not one item with a triangle.

    >>> image, noise = torch.zeros(2, 1, 1, 2), torch.tensor([1.0, 0.0]).expand(2, 1, 1, 2)
    >>> found = Triangles()
    >>> found.update(image, noise, noise.flip(3))
    >>> found.compute()["angles"].round(decimals=6).tolist(), found.compute()["most_probable"].tolist()
    ([90.0, 45.0, 45.0], [90.0, 45.0, 45.0])
    """

    full_state_update = False
    count: Tensor
    totals: Tensor
    squares: Tensor
    histograms: Tensor

    def __init__(self, bins: int = 180, **options: Any) -> None:
        super().__init__(**options)
        check_at_least(bins, 1, "bins")
        self.bins = bins
        add_sums(self, "count", "totals", "squares", "histograms")

    def update(self, image: Batch, noise: Batch, latent: Batch) -> None:
        """Add the points of a batch, [B, C, H, W] each."""
        found = triangle(image, noise, latent)
        sides = torch.stack([found.noise_latent, found.image_latent, found.image_noise], dim=1)
        table = torch.cat([found.angles, sides], dim=1)
        table = table[~table.isnan().any(dim=1)]
        index = (table[:, :3] / (180 / self.bins) + 0.5).floor().long()
        histograms = torch.stack([column.bincount(minlength=self.bins + 1) for column in index.T])
        sums = {"totals": table.sum(0), "squares": table.square().sum(0), "histograms": histograms}
        accumulate(self, count=len(table), **sums)

    def compute(self) -> dict[str, Tensor]:
        """[3] each of the mean "angles" at image, noise and latent in degrees and of the mean "sides" opposite to them.

        With their standard errors over items, "angles_error" and "sides_error", the "most_probable" angles, and the "count" of
        items with a triangle.
        """
        check_images_seen(self.count, 1)
        mean, error = mean_and_error(self.count, self.totals, self.squares)
        averages = {"angles": mean[:3], "angles_error": error[:3], "sides": mean[3:], "sides_error": error[3:]}
        return {
            **averages,
            "most_probable": torch.tensor(likeliest(self.histograms), dtype=torch.float64),
            "count": self.count,
        }
