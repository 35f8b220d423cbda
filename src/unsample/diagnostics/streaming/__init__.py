"""Diagnostics of more images than memory holds: each is kept as sums over images, to which batches are added.

One torchmetrics `Metric` per statistic. Its value is that of the pure function on all images at once, to float64 rounding,
whatever the batches, their order and the processes they came from; its memory does not grow with the images.

>>> import torch
>>> found = TopKCorrelation()
>>> for latents in torch.randn(96, 3, 8, 8).split(40):  # also on several processes: `compute` adds theirs up
...     found.update(latents)
>>> 0 < float(found.compute()) < 1
True

Call `update`, not the metric itself: that also computes a value of each batch. Two metrics with the same options become one
with `merge_state`. Sums live on the CPU or where `metric.to(device)` puts them. This module is not imported by
`unsample.diagnostics`, because torchmetrics takes seconds to import.
"""

from __future__ import annotations

from .alignment import LinearCKA
from .correlation import TopKCorrelation
from .frechet import FrechetDistance
from .gaussianity import CoordinateKL, PooledMoments
from .geometry import LineDistances, Triangles
from .regions import AreaMoments
from .spectrum import LagCorrelation, SpectralPower

__all__ = [
    "AreaMoments",
    "CoordinateKL",
    "FrechetDistance",
    "LagCorrelation",
    "LineDistances",
    "LinearCKA",
    "PooledMoments",
    "SpectralPower",
    "TopKCorrelation",
    "Triangles",
]
