"""Diagnostics of more images than memory holds: each is kept as sums over images, to which batches are added.

One torchmetrics `Metric` per statistic. Its value is that of the pure function on all images at once, to float64 rounding,
whatever the batches, their order and the processes they came from; its memory does not grow with the images.

>>> import torch
>>> metric = TopKCorrelation()
>>> for latents in torch.randn(96, 3, 8, 8).split(40):  # also on several processes: `compute` adds theirs up
...     metric.update(latents)
>>> 0 < float(metric.compute()) < 1
True

Call `update`, not the metric itself: that also computes a value of each batch. Two metrics with the same options become one
with `merge_state`. Sums live on the CPU or where `metric.to(device)` puts them. This module is not imported by
`unsample.diagnostics`, because torchmetrics takes seconds to import.

Every metric takes torchmetrics' own options, and those of products and powers take a `pivot`: a number near the mean of the
values, the same on all processes, about which they are summed (0 by default, right for latents and images in [-1, 1]).

`update` raises an ArgumentError for what the pure function would refuse but for its number of images, and for a batch of
another shape than those before; then it adds nothing. `compute` raises one when too few images were given.

`DiagnosisSums` is all of `diagnose` so, with the intervals and the values on true noise.
"""

from __future__ import annotations

from .alignment import FrechetDistance, LinearCKA, LineDistances, Triangles
from .diagnosis import DiagnosisSums
from .gaussianity import AreaMoments, CoordinateKL, PooledMoments
from .spectrum import LagCorrelation, SpectralPower, TopKCorrelation

__all__ = [
    "AreaMoments",
    "CoordinateKL",
    "DiagnosisSums",
    "FrechetDistance",
    "LagCorrelation",
    "LineDistances",
    "LinearCKA",
    "PooledMoments",
    "SpectralPower",
    "TopKCorrelation",
    "Triangles",
]
