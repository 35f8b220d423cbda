"""Moments of any number of images, pooled, per coordinate or inside an area, from sums of powers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import ArgumentError
from .._checks import Batch, Mask, blocks, check_finite, flat_items
from ..gaussianity import divergence, power_sums
from ..regions import AreaSums, area_sums
from ._sums import AboutPivot, Sums, check_images_seen, varies

Values = Float[Tensor, "..."]
Items = Float[Tensor, "batch *item"]


class PooledMoments(AboutPivot):
    """`moments` and `kl_to_normal` of all values of all batches: "mean", "std", "kurtosis" and "kl".

    The kurtosis needs `pivot` first: a mean of 100 standard deviations costs it eight digits of sixteen.

    >>> metric = PooledMoments()
    >>> for batch in ([-1.0, 1.0, -1.0], [1.0]):
    ...     metric.update(torch.tensor(batch))
    >>> {name: float(value) for name, value in metric.compute().items()}
    {'mean': 0.0, 'std': 1.0, 'kurtosis': -2.0, 'kl': 0.0}
    """

    names = ("powers",)

    def update(self, x: Values) -> None:
        """Add values of any shape."""
        check_finite(x, "x")
        flat = flat_items(x)
        tables = (power_sums(self.shifted(flat[part])) for part in blocks(*flat.shape))
        self.add(powers=torch.from_numpy(sum(table.sum(0) for table in tables)))

    def compute(self) -> dict[str, Tensor]:
        """The four moments, scalars; a constant has no kurtosis (NaN) and an infinite divergence."""
        self.check_started("powers")
        count, total, squares, *_ = self.powers
        m, second, third, fourth = self.powers[1:] / count
        variance = (second - m**2).where(varies(squares, total, count), 0)
        mean = self.pivot + m
        about_mean = fourth - 4 * m * third + 6 * m**2 * second - 3 * m**4
        kurtosis = about_mean / variance.where(variance > 0, torch.nan) ** 2 - 3
        return {"mean": mean, "std": variance.sqrt(), "kurtosis": kurtosis, "kl": divergence(mean, variance, torch.log)}


class CoordinateKL(AboutPivot):
    """`kl_per_coordinate` of all batches. Memory is 16 bytes per coordinate.

    >>> metric = CoordinateKL()
    >>> for batch in ([[-1.0, 1.0]], [[1.0, 3.0]]):
    ...     metric.update(torch.tensor(batch))
    >>> metric.compute().tolist()
    [0.0, 2.0]
    """

    names = ("count", "totals", "squares")

    def update(self, x: Items) -> None:
        """Add items [B, ...], one or more."""
        check_finite(x, "x")
        if x.ndim < 2:
            raise ArgumentError(f"x: expected items [B, ...], given shape {tuple(x.shape)}; add a batch with x[None]")
        for part in blocks(len(x), x[0].numel()):
            d = self.shifted(x[part])
            self.add(count=len(d), totals=d.sum(0), squares=(d * d).sum(0))

    def compute(self) -> Float[Tensor, "*item"]:
        """[...] in nats; infinite for a constant coordinate."""
        check_images_seen(self.count, 2)
        m = self.totals / self.count
        variance = (self.squares / self.count - m**2).where(varies(self.squares, self.totals, self.count), 0)
        value: Tensor = divergence(self.pivot + m, variance, torch.log)
        return value


class AreaMoments(Sums):
    """The "mean", "std" and "lag1" of `area_sums` over all batches; NaN if the area is empty.

    >>> metric = AreaMoments()
    >>> for batch in torch.tensor([1.0, 1.0, -1.0, -1.0]).expand(3, 1, 4, 4).split(2):
    ...     metric.update(batch)
    >>> {name: round(float(value), 3) for name, value in metric.compute().items()}
    {'mean': 0.0, 'std': 1.0, 'lag1': 0.667}
    """

    names = ("totals",)

    def update(self, x: Batch, mask: Mask | None = None) -> None:
        """Add a batch [B, C, H, W], inside its mask Bool[B, H, W]; all pixels if None."""
        columns = area_sums(x, mask).table.T
        self.add(totals=torch.tensor([column.sum() for column in columns], dtype=torch.float64, device="cpu"))

    def compute(self) -> dict[str, Tensor]:
        """Each statistic of the area of all images together, as a scalar."""
        self.check_started("totals")
        sums = AreaSums(*self.totals.cpu().numpy()[:, None])
        return {name: torch.tensor(getattr(sums, name), dtype=torch.float64, device="cpu") for name in ("mean", "std", "lag1")}
