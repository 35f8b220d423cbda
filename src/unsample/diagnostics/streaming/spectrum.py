"""Spectrum and autocorrelation of any number of images, from the sums that their pure functions are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from .._checks import Batch, check_at_least
from ..spectrum import Autocorrelation, RadialSpectrum, _chi_square_interval, autocorrelation_sums, spectrum_sums
from ._sums import accumulate, add_sums, check_images_seen, mean_and_error
from .correlation import check_one_shape

__all__ = ["LagCorrelation", "SpectralPower"]


class SpectralPower(Metric):  # type: ignore[misc]
    """`radial_spectrum` of all batches: [bins] each of "frequencies", "power", its "error" and its null.

    "error" is the standard error of "power" over images. "null_std" is that of "power" on white noise of unit variance, which
    lies between "null_low" and "null_high" 95 times in 100.

    Args:
        **options: Those of every torchmetrics `Metric`.

    Raises:
        ArgumentError: Batches that differ in [C, H, W] or that `radial_spectrum` would refuse, or no batch at all.

    >>> found = SpectralPower()
    >>> for batch in torch.ones(3, 3, 4, 8).split(2):
    ...     found.update(batch)
    >>> found.compute()["power"].tolist(), found.compute()["frequencies"].tolist()
    ([32.0, 0.0, 0.0], [0.0, 0.25, 0.5])
    """

    full_state_update = False
    count: Tensor
    shapes: Tensor
    totals: Tensor
    squares: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        add_sums(self, "count", "shapes", "totals", "squares")

    def update(self, x: Batch) -> None:
        """Add a batch [B, C, H, W]."""
        power = spectrum_sums(x)
        check_one_shape(self, x)
        shapes = len(x) * torch.tensor(x.shape[1:])
        accumulate(self, count=len(x), shapes=shapes, totals=power.sum(0), squares=power.square().sum(0))

    def compute(self) -> dict[str, Tensor]:
        """Six rows of [bins], on the CPU."""
        check_images_seen(self.count, 1)
        count, shapes = self.count.cpu(), self.shapes.cpu()
        power, error = mean_and_error(count, self.totals.cpu(), self.squares.cpu())
        channels, height, width = (int(side) for side in shapes / count)
        one = RadialSpectrum(power[None], (channels, height, width))
        freedom = one.freedom * count
        low, high = _chi_square_interval(freedom, 0.95)
        null = {"null_std": (2 / freedom).sqrt(), "null_low": low, "null_high": high}
        return {"frequencies": one.frequencies, "power": power, "error": error, **null}


class LagCorrelation(Metric):  # type: ignore[misc]
    """`autocorrelation` of all batches: maps "value" and "null_std" of [2 reach_y + 1, 2 reach_x + 1] lags.

    Args:
        reach: As `autocorrelation`. Images may differ in size if their maps do not.
        **options: Those of every torchmetrics `Metric`.

    Raises:
        ArgumentError: Maps of differing sizes, a batch that `autocorrelation` would refuse, or no batch at all.

    >>> found = LagCorrelation()
    >>> for batch in torch.tensor([1.0, 1.0, -1.0, -1.0]).expand(3, 1, 4, 4).split(2):
    ...     found.update(batch)
    >>> found.compute()["value"][2].round(decimals=3).tolist()
    [-1.0, 0.333, 1.0, 0.333, -1.0]
    """

    full_state_update = False
    count: Tensor
    totals: Tensor

    def __init__(self, reach: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        if reach is not None:
            check_at_least(reach, 1, "reach")
        self.reach = reach
        add_sums(self, "count", "totals")

    def update(self, x: Batch) -> None:
        """Add a batch [B, C, H, W]."""
        accumulate(self, count=len(x), totals=autocorrelation_sums(x, self.reach).sum(0))

    def compute(self) -> dict[str, Tensor]:
        """The two maps."""
        check_images_seen(self.count, 1)
        found = Autocorrelation(self.totals)
        return {"value": found.value, "null_std": found.null_std}
