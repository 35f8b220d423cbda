"""Frechet distance between two sets of features of any size: their counts, sums and products."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from ...errors import ArgumentError
from .._checks import blocks, check_finite, wide
from ..frechet import frechet_distance
from ._sums import accumulate, add_sums, centred, check_fits, check_images_seen

__all__ = ["FrechetDistance"]

Left = Float[Tensor, "left_items *item"]
Right = Float[Tensor, "right_items *item"]


class FrechetDistance(Metric):  # type: ignore[misc]
    """The value of `frechet` on all batches of two sets `a` and `b`.

    Memory is 16 D^2 bytes: 64 MiB for the 2048 features of Inception. For few items of many values, `frechet` itself needs
    less. Compare values of equal numbers of items only, beside `frechet_null`.

    Args:
        pivot: A number near the mean of the features, the same on all processes.
        **options: Those of every torchmetrics `Metric`.

    Raises:
        ArgumentError: From `update`, items of differing sizes, none at all, or values that are not finite; from `compute`,
            fewer than two items in a set.

    >>> found = FrechetDistance()
    >>> found.update(a=torch.tensor([[0.0], [2.0]]), b=torch.tensor([[4.0]]))
    >>> found.update(b=torch.tensor([[6.0]]))
    >>> round(float(found.compute()), 6)
    16.0
    """

    full_state_update = False

    def __init__(self, *, pivot: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.pivot = pivot
        add_sums(self, *(f"{name}_{side}" for side in "ab" for name in ("count", "total", "products")))

    def update(self, a: Left | None = None, b: Right | None = None) -> None:
        """Add items [N, ...] to one set or both; what follows the first dimension is flattened."""
        given = {side: x for side, x in (("a", a), ("b", b)) if x is not None}
        if not given:
            raise ArgumentError("expected items of a, b or both, given neither; name the set: update(a=features)")
        for side, x in given.items():
            check_finite(x, side)
            for other in "ab":
                check_fits(getattr(self, f"total_{other}"), (x[0].numel(),))
        for side, x in given.items():
            rows = x.reshape(len(x), -1)
            for part in blocks(*rows.shape):
                z = wide(rows[part]).to(self.device) - self.pivot
                accumulate(self, **{f"count_{side}": len(z)})
                accumulate(self, **{f"total_{side}": z.sum(0), f"products_{side}": z.mT @ z})

    def compute(self) -> Float[Tensor, ""]:
        """The distance, in squared units of the features."""
        moments = []
        for side in "ab":
            count, total, products = (getattr(self, f"{name}_{side}") for name in ("count", "total", "products"))
            check_images_seen(count, 2)
            moments += [total / count, centred(products, total, total, count) / (count - 1)]
        return torch.tensor(frechet_distance(*moments), dtype=torch.float64)
