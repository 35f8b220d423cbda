"""Correlation of pixels of any number of images: across images (top-k), over lags and over frequencies."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import Batch, blocks, check_at_least, check_batch
from ..correlation import MIN_IMAGES, WORKING_BYTES, check_top_k, chunks, mean_top_k, tiled
from ..spectrum import Autocorrelation, RadialSpectrum, autocorrelation_sums, spectrum_sums
from ._sums import ROUNDING, AboutPivot, Averages, Sums, centred, check_images_seen


class TopKCorrelation(AboutPivot):
    """`top_k_correlation` of all batches, in float64. To be read beside `correlation_floor` of the number of images seen.

    Memory is 8 V^2 bytes per window of V = C * patch^2 values: 1.1 MiB for 3 channels of 16 x 16, 288 MiB for 256 x 256.

    >>> from unsample.diagnostics import top_k_correlation, true_noise
    >>> x, metric = true_noise((70, 1, 8, 8)).double(), TopKCorrelation()
    >>> for batch in x.split(40):
    ...     metric.update(batch)
    >>> abs(float(metric.compute()) - top_k_correlation(x)) < 1e-12
    True
    """

    names = ("count", "shapes", "totals", "products")
    totals: Tensor
    products: Tensor

    def __init__(self, k: int = 20, patch: int = 8, **options: Any) -> None:
        super().__init__(**options)
        check_at_least(patch, 1, "patch")
        self.k, self.patch = k, patch

    def update(self, x: Batch) -> None:
        """Add a batch [B, C, H, W] of one image or more."""
        check_batch(x)
        sides = min(self.patch, x.shape[2]), min(self.patch, x.shape[3])
        variables = x.shape[1] * math.prod(sides)
        check_top_k(MIN_IMAGES, variables, self.k)
        self.check_image_shape(x)
        tiles = tiled(x.detach(), sides)
        windows = math.prod(tiles.shape[:2])
        self.check_fits("products", (windows, variables, variables))
        if self.products.ndim == 0:
            self.totals = self.totals.new_zeros(windows, variables)
            self.products = self.products.new_zeros(windows, variables, variables)
        done = 0
        for chunk in chunks(tiles, matrices=0):
            z = self.shifted(chunk)
            part = slice(done, done := done + len(z))
            self.totals[part] += z.sum(1)
            self.products[part].baddbmm_(z.mT, z)  # the largest sums there are: in place
        self.add(count=len(x), shapes=len(x) * torch.tensor(x.shape[1:], device="cpu"))

    def compute(self) -> Float[Tensor, ""]:
        """The mean over windows of the mean of the k largest |r|; a constant value has r = 0."""
        windows, variables = self.totals.shape if self.totals.ndim else (0, 0)
        check_top_k(int(self.count), variables, self.k)
        parts = []
        for part in blocks(windows, 4 * variables**2, WORKING_BYTES // 8):
            products, totals = self.products[part], self.totals[part]
            least = ROUNDING * products.diagonal(dim1=1, dim2=2)
            parts.append(mean_top_k(centred(products, totals, totals, self.count), self.k, least))
        return torch.cat(parts).mean()


class SpectralPower(Averages):
    """`radial_spectrum` of all batches: [bins] each of "frequencies", "power", its "error" and its null.

    "error" is the standard error of "power" over images. "null_std" is that of "power" on white noise of unit variance, which
    lies between "null_low" and "null_high" 95 times in 100.

    >>> metric = SpectralPower()
    >>> for batch in torch.ones(3, 3, 4, 8).split(2):
    ...     metric.update(batch)
    >>> metric.compute()["power"].tolist(), metric.compute()["frequencies"].tolist()
    ([32.0, 0.0, 0.0], [0.0, 0.25, 0.5])
    """

    names = (*Averages.names, "shapes")

    def update(self, x: Batch) -> None:
        """Add a batch [B, C, H, W]."""
        power = spectrum_sums(x)
        self.check_image_shape(x)
        shapes = len(x) * torch.tensor(x.shape[1:], device="cpu")
        self.add(count=len(x), shapes=shapes, totals=power.sum(0), squares=power.square().sum(0))

    def compute(self) -> dict[str, Tensor]:
        """Six rows of [bins], on the CPU."""
        power, error = (row.cpu() for row in self.average())
        channels, height, width = (int(side) for side in self.shapes / self.count)
        null = RadialSpectrum(power.expand(int(self.count), -1), (channels, height, width))
        low, high = null.null_interval()
        ends = {"null_std": null.null_std, "null_low": low, "null_high": high}
        return {"frequencies": null.frequencies, "power": power, "error": error, **ends}


class LagCorrelation(Sums):
    """`autocorrelation` of all batches: maps "value" and "null_std" of [2 reach_y + 1, 2 reach_x + 1] lags.

    Images may differ in size if their maps do not.

    >>> metric = LagCorrelation()
    >>> for batch in torch.tensor([1.0, 1.0, -1.0, -1.0]).expand(3, 1, 4, 4).split(2):
    ...     metric.update(batch)
    >>> metric.compute()["value"][2].round(decimals=3).tolist()
    [-1.0, 0.333, 1.0, 0.333, -1.0]
    """

    names = ("count", "totals")

    def __init__(self, reach: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        if reach is not None:
            check_at_least(reach, 1, "reach")
        self.reach = reach

    def update(self, x: Batch) -> None:
        """Add a batch [B, C, H, W]."""
        self.add(count=len(x), totals=autocorrelation_sums(x, self.reach).sum(0))

    def compute(self) -> dict[str, Tensor]:
        """Both maps, float64."""
        check_images_seen(self.count, 1)
        maps = Autocorrelation(self.totals)
        return {"value": maps.value, "null_std": maps.null_std}
