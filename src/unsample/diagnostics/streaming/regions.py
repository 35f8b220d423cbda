"""Spread and correlation of latents inside an area, over any number of images: the totals of `AreaSums`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from ...errors import ArgumentError
from .._checks import Batch, Mask
from ..regions import AreaSums, area_sums
from ._sums import accumulate, add_sums

__all__ = ["AreaMoments"]


class AreaMoments(Metric):  # type: ignore[misc]
    """The "mean", "std" and "lag1" of `area_sums` over all batches; NaN if the area is empty.

    Args:
        **options: Those of every torchmetrics `Metric`.

    Raises:
        ArgumentError: A batch or mask that `area_sums` would refuse, or no batch at all.

    >>> found = AreaMoments()
    >>> for batch in torch.tensor([1.0, 1.0, -1.0, -1.0]).expand(3, 1, 4, 4).split(2):
    ...     found.update(batch)
    >>> {name: round(float(value), 3) for name, value in found.compute().items()}
    {'mean': 0.0, 'std': 1.0, 'lag1': 0.667}
    """

    full_state_update = False
    totals: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        add_sums(self, "totals")

    def update(self, x: Batch, mask: Mask | None = None) -> None:
        """Add a batch [B, C, H, W], inside its mask Bool[B, H, W]; all pixels if None."""
        sums = area_sums(x, mask)
        columns = (sums.count, sums.total, sums.squares, sums.pairs, sums.pair_total, sums.products)
        accumulate(self, totals=torch.tensor([column.sum() for column in columns], dtype=torch.float64))

    def compute(self) -> dict[str, Tensor]:
        """The three numbers, scalars."""
        if self.totals.ndim == 0:
            raise ArgumentError("expected at least one image, given none; update with a batch first")
        sums = AreaSums(*self.totals.cpu().numpy()[:, None])
        values = {"mean": sums.mean, "std": sums.std, "lag1": sums.lag1}
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
