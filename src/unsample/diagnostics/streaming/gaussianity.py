"""Moments of any number of images, pooled or per coordinate: sums of powers."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from ...errors import ArgumentError
from .._checks import blocks, check_finite, wide
from ..gaussianity import _power_sums
from ._sums import accumulate, add_sums, check_images_seen, varies

__all__ = ["CoordinateKL", "PooledMoments"]

Values = Float[Tensor, "..."]
Items = Float[Tensor, "batch *item"]


class PooledMoments(Metric):  # type: ignore[misc]
    """`moments` and `kl_to_normal` of all values of all batches: "mean", "std", "kurtosis" and "kl".

    Args:
        pivot: A number near the mean of the values, the same on all processes. The kurtosis needs it first: a mean of 100
            standard deviations costs it eight digits of sixteen.
        **options: Those of every torchmetrics `Metric`.

    Raises:
        ArgumentError: A batch that `moments` would refuse, or no batch at all.

    >>> found = PooledMoments()
    >>> for batch in ([-1.0, 1.0, -1.0], [1.0]):
    ...     found.update(torch.tensor(batch))
    >>> {name: float(value) for name, value in found.compute().items()}
    {'mean': 0.0, 'std': 1.0, 'kurtosis': -2.0, 'kl': 0.0}
    """

    full_state_update = False
    powers: Tensor

    def __init__(self, *, pivot: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.pivot = pivot
        add_sums(self, "powers")

    def update(self, x: Values) -> None:
        """Add values of any shape."""
        check_finite(x, "x")
        flat = x.detach().reshape(x.shape[0] if x.ndim else 1, -1)
        tables = (_power_sums(wide(flat[part]) - self.pivot) for part in blocks(*flat.shape))
        accumulate(self, powers=torch.from_numpy(sum(table.sum(0) for table in tables)))

    def compute(self) -> dict[str, Tensor]:
        """The four moments, scalars; a constant has no kurtosis (NaN) and an infinite divergence."""
        if self.powers.ndim == 0:
            raise ArgumentError("expected at least one value, given none; update with a batch first")
        count, total, squares, *_ = self.powers
        m, second, third, fourth = self.powers[1:] / count
        variance = (second - m**2).where(varies(squares, total, count), 0)
        mean = self.pivot + m
        about_mean = fourth - 4 * m * third + 6 * m**2 * second - 3 * m**4
        kurtosis = about_mean / variance.where(variance > 0, torch.nan) ** 2 - 3
        return {"mean": mean, "std": variance.sqrt(), "kurtosis": kurtosis, "kl": _kl(mean, variance)}


class CoordinateKL(Metric):  # type: ignore[misc]
    """`kl_per_coordinate` of all batches. Memory is 16 bytes per coordinate.

    Args:
        pivot: A number near the mean of the values, the same on all processes.
        **options: Those of every torchmetrics `Metric`.

    Raises:
        ArgumentError: From `update`, items of differing shapes, without a dimension or not finite; from `compute`, fewer than
            two images in all.

    >>> found = CoordinateKL()
    >>> for batch in ([[-1.0, 1.0]], [[1.0, 3.0]]):
    ...     found.update(torch.tensor(batch))
    >>> found.compute().tolist()
    [0.0, 2.0]
    """

    full_state_update = False
    count: Tensor
    totals: Tensor
    squares: Tensor

    def __init__(self, *, pivot: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.pivot = pivot
        add_sums(self, "count", "totals", "squares")

    def update(self, x: Items) -> None:
        """Add items [B, ...], one or more."""
        check_finite(x, "x")
        if x.ndim < 2:
            raise ArgumentError(f"x: expected items [B, ...], given shape {tuple(x.shape)}; add a batch with x[None]")
        for part in blocks(len(x), x[0].numel()):
            d = wide(x[part]) - self.pivot
            accumulate(self, count=len(d), totals=d.sum(0), squares=(d * d).sum(0))

    def compute(self) -> Float[Tensor, "*item"]:
        """[...] in nats; infinite for a constant coordinate."""
        check_images_seen(self.count, 2)
        m = self.totals / self.count
        variance = (self.squares / self.count - m**2).where(varies(self.squares, self.totals, self.count), 0)
        return _kl(self.pivot + m, variance)


def _kl(mean: Tensor, variance: Tensor) -> Tensor:
    return (variance + mean**2 - 1 - variance.log()) / 2
