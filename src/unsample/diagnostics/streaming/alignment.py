"""Two or three sets of points compared over any number of items: features (CKA, Frechet distance), image, noise and latent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import ArgumentError
from .._checks import Batch, blocks, check_at_least, check_finite
from ..alignment import flat_pair
from ..frechet import frechet_distance
from ..geometry import angle_bins, likeliest, line_distances, triangle
from ._sums import AboutPivot, Averages, centred, check_images_seen, varies

Left = Float[Tensor, "items *left"]
Right = Float[Tensor, "right_items *right"]
Items = Float[Tensor, "left_items *item"]
Others = Float[Tensor, "right_items *item"]


class LinearCKA(AboutPivot):
    """`linear_cka` of all batches. Memory is 8 (D1^2 + D2^2 + D1 D2) bytes: 96 MiB for 2048 values on both sides.

    >>> a, metric = torch.eye(4)[:, :3], LinearCKA()
    >>> for batch in a.split(3):
    ...     metric.update(batch, batch[:, :1])
    >>> round(float(metric.compute()), 4)
    0.6383
    """

    names = ("count", "total_a", "total_b", "aa", "bb", "ab")

    def update(self, a: Left, b: Right) -> None:
        """Add features [N, ...] of the same items on both sides, flattened behind the first dimension."""
        left, right = flat_pair(a, b, least=1)
        for part in blocks(len(left), left.shape[1] + right.shape[1]):
            x, y = self.shifted(left[part]), self.shifted(right[part])
            products = {"aa": x.mT @ x, "bb": y.mT @ y, "ab": x.mT @ y}
            self.add(count=len(x), total_a=x.sum(0), total_b=y.sum(0), **products)

    def compute(self) -> Float[Tensor, ""]:
        """In [0, 1]; NaN if one side is the same for all items."""
        check_images_seen(self.count, 2)
        total = {"a": self.total_a, "b": self.total_b}
        kept = {side: varies(getattr(self, 2 * side).diagonal(), total[side], self.count) for side in "ab"}

        def norm(left: str, right: str) -> Tensor:
            products = centred(getattr(self, left + right), total[left], total[right], self.count)
            size: Tensor = products[kept[left]][:, kept[right]].norm()
            return size

        # 0 / 0 where a side is constant: its norm is that of no values, exactly 0.
        return norm("a", "b") ** 2 / (norm("a", "a") * norm("b", "b"))


class FrechetDistance(AboutPivot):
    """The value of `frechet` on all batches of two sets `a` and `b`.

    Memory is 16 D^2 bytes: 64 MiB for the 2048 features of Inception. For few items of many values, `frechet` itself needs
    less. Compare values of equal numbers of items only, beside `frechet_null`.

    >>> metric = FrechetDistance()
    >>> metric.update(a=torch.tensor([[0.0], [2.0]]), b=torch.tensor([[4.0]]))
    >>> metric.update(b=torch.tensor([[6.0]]))
    >>> round(float(metric.compute()), 6)
    16.0
    """

    names = ("count_a", "total_a", "products_a", "count_b", "total_b", "products_b")

    def update(self, a: Items | None = None, b: Others | None = None) -> None:
        """Add items [N, ...] to one set or both; what follows the first dimension is flattened."""
        given = {side: x for side, x in (("a", a), ("b", b)) if x is not None}
        if not given:
            raise ArgumentError("expected items of a, b or both, given neither; name the set: update(a=features)")
        for side, x in given.items():
            check_finite(x, side)
            for name in ("total_a", "total_b"):
                self.check_fits(name, (x[0].numel(),))
        for side, x in given.items():
            rows = x.reshape(len(x), -1)
            for part in blocks(*rows.shape):
                z = self.shifted(rows[part])
                sums = {"count": torch.tensor(len(z), device="cpu"), "total": z.sum(0), "products": z.mT @ z}
                self.add(**{f"{name}_{side}": value for name, value in sums.items()})

    def compute(self) -> Float[Tensor, ""]:
        """The distance, in squared units of the features."""
        moments = []
        for side in "ab":
            count, total, products = (getattr(self, f"{name}_{side}") for name in ("count", "total", "products"))
            check_images_seen(count, 2)
            moments += [total / count, centred(products, total, total, count) / (count - 1)]
        return torch.tensor(frechet_distance(*moments), dtype=torch.float64, device="cpu")


class LineDistances(Averages):
    """`line_distances` to `points` points of all states of a path, averaged over the images of all batches.

    >>> noise, latent = torch.zeros(1, 1, 1, 2), torch.tensor([[[[2.0, 0.0]]]])
    >>> metric = LineDistances(points=3)
    >>> metric.update([noise, torch.ones(1, 1, 1, 2)], noise, latent)
    >>> metric.update([noise, 3 * torch.ones(1, 1, 1, 2)], noise, latent)
    >>> metric.compute()["mean"].round(decimals=3).tolist()
    [[0.0, 1.0, 2.0], [2.828, 2.303, 2.288]]
    """

    def __init__(self, points: int = 25, **options: Any) -> None:
        super().__init__(**options)
        check_at_least(points, 2, "points")
        self.points = points

    def update(self, states: Iterable[Tensor], noise: Batch, latent: Batch) -> None:
        """Add the states of the paths of a batch: a few [B, C, H, W] in order, or one [states, B, C, H, W]."""
        sums = []
        for state in states:
            distances = line_distances(state, noise, latent, self.points)
            sums.append(torch.stack([distances.sum(0), distances.square().sum(0)]))
        if not sums:
            raise ArgumentError("states: expected at least one, given none; keep those of the path")
        totals, squares = torch.stack(sums, dim=1)
        self.add(count=len(noise), totals=totals, squares=squares)

    def compute(self) -> dict[str, Tensor]:
        """[states, points] each of the "mean" and its standard "error" over images, and the "count" of images."""
        mean, error = self.average()
        return {"mean": mean, "error": error, "count": self.count}


class Triangles(Averages):
    """Angles and sides of `triangle`, averaged over all images, and the angles of `most_probable_triangle` with `bins`.

    Items without a triangle (two of their points are equal) are left out, as `most_probable_triangle` does.

    >>> image, noise = torch.zeros(2, 1, 1, 2), torch.tensor([1.0, 0.0]).expand(2, 1, 1, 2)
    >>> metric = Triangles()
    >>> metric.update(image, noise, noise.flip(3))
    >>> metric.compute()["angles"].round(decimals=6).tolist(), metric.compute()["most_probable"].tolist()
    ([90.0, 45.0, 45.0], [90.0, 45.0, 45.0])
    """

    names = (*Averages.names, "histograms")

    def __init__(self, bins: int = 180, **options: Any) -> None:
        super().__init__(**options)
        check_at_least(bins, 1, "bins")
        self.bins = bins

    def update(self, image: Batch, noise: Batch, latent: Batch) -> None:
        """Add the points of a batch, [B, C, H, W] each."""
        each = triangle(image, noise, latent)
        sides = torch.stack([each.noise_latent, each.image_latent, each.image_noise], dim=1)
        table = torch.cat([each.angles, sides], dim=1)
        table = table[~table.isnan().any(dim=1)]
        histograms = angle_bins(table[:, :3], self.bins)
        self.add(count=len(table), totals=table.sum(0), squares=table.square().sum(0), histograms=histograms)

    def compute(self) -> dict[str, Tensor]:
        """[3] each of the mean "angles" at image, noise and latent in degrees and of the mean "sides" opposite to them.

        With their standard errors over items, "angles_error" and "sides_error", the "most_probable" angles, and the "count" of
        items with a triangle.
        """
        mean, error = self.average()
        most_probable = torch.tensor(likeliest(self.histograms), dtype=torch.float64, device="cpu")
        averages = {"angles": mean[:3], "angles_error": error[:3], "sides": mean[3:], "sides_error": error[3:]}
        return {**averages, "most_probable": most_probable, "count": self.count}
