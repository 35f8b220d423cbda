"""Top-k correlation across any number of images: the products of all pairs of a window's values, summed."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from ...errors import ArgumentError
from .._checks import Batch, blocks, check_at_least, check_batch, wide
from ..correlation import MIN_IMAGES, WORKING_BYTES, _check_top_k, _chunks, _mean_top_k, _tiles
from ._sums import ROUNDING, accumulate, add_sums, centred, check_fits

__all__ = ["TopKCorrelation"]


class TopKCorrelation(Metric):  # type: ignore[misc]
    """`top_k_correlation` of all batches, in float64. To be read beside `correlation_floor` of the number of images seen.

    Memory is 8 V^2 bytes per window of V = C * patch^2 values: 1.1 MiB for 3 channels of 16 x 16, 288 MiB for 256 x 256.

    A value whose standard deviation is below a millionth of its root mean square about `pivot` is a constant: its r is 0.

    Args:
        k: As `top_k_correlation`.
        patch: As `top_k_correlation`.
        pivot: A number near the mean of the values, the same on all processes.
        **options: Those of every torchmetrics `Metric`.

    Raises:
        ArgumentError: From `update`, batches that differ in [C, H, W] or that `top_k_correlation` would refuse, but for their
            number of images; from `compute`, fewer than 32 images in all.

    >>> from unsample.diagnostics import top_k_correlation, true_noise
    >>> x, found = true_noise((70, 1, 8, 8)).double(), TopKCorrelation()
    >>> for batch in x.split(40):
    ...     found.update(batch)
    >>> abs(float(found.compute()) - top_k_correlation(x)) < 1e-12
    True
    """

    full_state_update = False
    count: Tensor
    shapes: Tensor
    totals: Tensor
    products: Tensor

    def __init__(self, k: int = 20, patch: int = 8, *, pivot: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        check_at_least(patch, 1, "patch")
        self.k, self.patch, self.pivot = k, patch, pivot
        add_sums(self, "count", "shapes", "totals", "products")

    def update(self, x: Batch) -> None:
        """Add a batch [B, C, H, W] of one image or more."""
        check_batch(x)
        sides = min(self.patch, x.shape[2]), min(self.patch, x.shape[3])
        variables = x.shape[1] * math.prod(sides)
        _check_top_k(MIN_IMAGES, variables, self.k)
        check_one_shape(self, x)
        tiles = _tiles(x.detach(), sides)
        windows = math.prod(tiles.shape[:2])
        check_fits(self.products, (windows, variables, variables))
        if self.products.ndim == 0:
            self.totals = self.totals.new_zeros(windows, variables)
            self.products = self.products.new_zeros(windows, variables, variables)
        done = 0
        for chunk in _chunks(tiles, matrices=0):
            z = wide(chunk).to(self.device) - self.pivot
            part = slice(done, done := done + len(z))
            self.totals[part] += z.sum(1)
            self.products[part].baddbmm_(z.mT, z)  # the largest sums there are: in place
        accumulate(self, count=len(x), shapes=len(x) * torch.tensor(x.shape[1:]))

    def compute(self) -> Float[Tensor, ""]:
        """The mean over windows of the mean of the k largest |r|."""
        windows, variables = self.totals.shape if self.totals.ndim else (0, 0)
        _check_top_k(int(self.count), variables, self.k)
        parts = []
        for part in blocks(windows, 4 * variables**2, WORKING_BYTES // 8):
            products, totals = self.products[part], self.totals[part]
            least = ROUNDING * products.diagonal(dim1=1, dim2=2)
            parts.append(_mean_top_k(centred(products, totals, totals, self.count), self.k, least))
        return torch.cat(parts).mean()


def check_one_shape(metric: Metric, x: Batch) -> None:
    """Raise unless images have the shape of those that `metric` has seen (`shapes` is the sum of theirs)."""
    shape = torch.tensor(x.shape[1:]).to(metric.shapes)
    if metric.count > 0 and not torch.equal(metric.shapes, metric.count * shape):
        seen = tuple(int(side) for side in metric.shapes / metric.count)
        raise ArgumentError(f"x: expected images {seen} as before, given {tuple(x.shape[1:])}; use a new metric for others")
