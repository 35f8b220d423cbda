"""The scatter of a statistic of totals over many images: totals are normal, by the central limit theorem, and are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .._checks import Array

Statistic = Callable[[Array], Array]
"""From totals [..., K] to values [...]."""

DRAWS = 2000
"""Of totals, for an interval."""


def drawn(centre: Array, totals: Array, products: Array, images: int, statistic: Statistic, seed: int) -> Array:
    """The statistic of totals drawn about `centre`, with the covariance that those of so many images have."""
    covariance = products - np.outer(totals, totals) / images
    if not np.isfinite(covariance).all():
        return np.full(1, math.nan)
    sizes, axes = np.linalg.eigh(covariance)
    noise = np.random.default_rng(seed).standard_normal((DRAWS, len(totals))) * np.sqrt(np.maximum(sizes, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(statistic(centre + noise @ axes.T))


def ends(values: Array) -> tuple[float, float] | tuple[None, None]:
    """Where 95 of 100 values lie; nowhere if there are none."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None, None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
