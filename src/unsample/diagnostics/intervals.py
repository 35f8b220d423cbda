"""Confidence intervals over images: bootstrap, delete-a-group jackknife and fractions.

The image is the unit that is resampled, never the pixel: pixels of one image are not independent. Statistics of pooled
pixels are functions of sums over images, so only those sums are resampled (`bootstrap_sums`). Bootstrap intervals are plain
percentile intervals (Efron and Tibshirani 1993, ch. 13): about 2 points too optimistic at 20 images, worse below 10, and of
fewer than `FEWEST_IMAGES` no more than the least and the largest: tables show none of so few.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import ArgumentError, UnknownNameError
from ._checks import BLOCK, Array, blocks, check_at_least, check_fraction

FEWEST_IMAGES = 6
"""From as many on, the range from the least to the largest covers a median 95 times in 100: 1 - 2 ** (1 - n)."""


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its confidence interval.

    >>> print(Interval(0.5, 0.4, 0.65))
    0.5 [0.4, 0.65]
    """

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True, eq=False)
class Pooled:
    """A statistic of all values of all images, kept as what it needs of each image.

    Attributes:
        sums: [B, K] float64, K sums per image.
        statistic: From totals over images [..., K] to values [...].

    >>> mean = Pooled(np.array([[2.0, 1.0], [6.0, 2.0]]), lambda total: total[..., 0] / total[..., 1])
    >>> round(mean.value, 3)
    2.667
    >>> print(mean.interval())
    2.667 [2, 3]
    """

    sums: Array
    statistic: Callable[[Array], Array]

    @property
    def value(self) -> float:
        """The statistic of all images together, NaN where it has none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(self.statistic(self.sums.sum(axis=0)[None])[0])

    def interval(self, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
        """`value` with its bootstrap interval over images (`bootstrap_sums`)."""
        return bootstrap_sums(self.sums, self.statistic, level=level, draws=draws, seed=seed)


def bootstrap(
    values: Tensor | npt.ArrayLike,
    statistic: Literal["mean", "median"] = "mean",
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of the mean or median of one value per image.

    Args:
        values: [B], B >= 2. Infinite values are taken (the PSNR of identical images), NaN is not.
        statistic: What is estimated.
        level: Coverage aimed at, in (0, 1).
        draws: Number of resamples.
        seed: The same seed gives the same interval.

    Raises:
        ArgumentError: Fewer than two values, more than one dimension, a NaN, or an option out of range.

    >>> print(bootstrap([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]))
    4.5 [2.875, 6]
    """
    array = _table(values, ndim=1)
    statistics: dict[str, Callable[[Array], Array]] = {"mean": _mean_of_rows, "median": _median_of_rows}
    if statistic not in statistics:
        raise UnknownNameError("statistic", statistic, statistics)
    function = statistics[statistic]
    resampled = [function(array[index]) for index in _indices(len(array), draws, seed)]
    return _interval(float(function(array[None])[0]), np.concatenate(resampled), level)


def bootstrap_sums(
    sums: Tensor | npt.ArrayLike,
    statistic: Callable[[Array], Array],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a statistic that depends on the images only through sums over them.

    Args:
        sums: [B, K], K sums per image (counts, sums, sums of squares ...), B >= 2.
        statistic: From totals [..., K] to values [...]; NaN where it has none (an area without pixels). Draws whose
            value is NaN are left out, so the interval is then conditional on the statistic existing.
        level: Coverage aimed at, in (0, 1).
        draws: Number of resamples.
        seed: The same seed gives the same interval.

    Raises:
        ArgumentError: Fewer than two images, not two dimensions, a NaN, or an option out of range.

    >>> sums = [[2.0, 1.0], [6.0, 3.0], [4.0, 2.0]]  # total and count: each image has mean 2
    >>> print(bootstrap_sums(sums, lambda total: total[..., 0] / total[..., 1]))
    2 [2, 2]
    """
    table = _table(sums, ndim=2)
    totals = np.concatenate([_counts(index) @ table for index in _indices(len(table), draws, seed)])
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = statistic(totals)
    return _interval(Pooled(table, statistic).value, resampled, level)


def jackknife_error(replicates: Sequence[float]) -> float:
    """Standard error from a statistic's values without each of G groups of images in turn; it has G - 1 degrees of freedom.

    Source: Kott 2001, "The delete-a-group jackknife", J. Official Statistics 17.

    >>> round(jackknife_error([1.0, 2.0, 3.0]), 4)
    1.1547
    """
    spread = torch.tensor(replicates, dtype=torch.float64, device="cpu").var(correction=0).item()
    return math.sqrt((len(replicates) - 1) * spread)


def proportion(hits: int, count: int, method: Literal["exact", "wilson"] = "exact") -> Interval:
    """A fraction of independent images with its 95 % interval by `scipy.stats`.

    Args:
        hits: Images that count.
        count: All images.
        method: `exact` is Clopper and Pearson's, which covers 95 % or more, `wilson` the score interval, which covers 95 %
            on average. Both stay inside [0, 1] and have a width at 0 and 1.

    >>> print(proportion(1, 20))
    0.05 [0.001265, 0.2487]
    >>> print(proportion(1, 20, "wilson"))
    0.05 [0.008881, 0.2361]
    """
    from scipy.stats import binomtest  # a second, which `import unsample` should not cost

    ends = binomtest(hits, count).proportion_ci(0.95, method)
    return Interval(hits / count, float(ends.low), float(ends.high))


def ratio(total: Array) -> Array:
    """The first of two totals over the second: the statistic of a mean from a sum and a number."""
    return np.asarray(total[..., 0] / total[..., 1])


def _table(values: Tensor | npt.ArrayLike, ndim: int) -> Array:
    raw = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    array = np.asarray(raw, dtype=np.float64)
    if array.ndim != ndim or len(array) < 2:
        raise ArgumentError(
            f"bootstrap: expected {ndim} dimension(s) and at least 2 images, given shape {array.shape}; "
            "an interval over images needs several"
        )
    if np.isnan(array).any():
        raise ArgumentError(
            f"bootstrap: expected numbers, given {np.isnan(array).sum()} NaN; leave out images without a value"
        )
    return array


def _indices(images: int, draws: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    check_at_least(draws, 1, "draws")
    rng = np.random.default_rng(seed)
    for block in blocks(draws, images, BLOCK):
        yield rng.integers(images, size=(block.stop - block.start, images))


def _counts(index: npt.NDArray[np.int64]) -> Array:
    """How often each image was drawn, [draws, B]: a resampled sum is then one matrix product."""
    rows, images = index.shape
    flat = index + images * np.arange(rows)[:, None]
    return np.bincount(flat.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def _mean_of_rows(rows: Array) -> Array:
    return np.asarray(rows.mean(axis=-1), dtype=np.float64)


def _median_of_rows(rows: Array) -> Array:
    return np.asarray(np.median(rows, axis=-1), dtype=np.float64)


def _interval(estimate: float, resampled: Array, level: float) -> Interval:
    check_fraction(level, "level", 0.95)
    resampled = resampled[~np.isnan(resampled)]
    if len(resampled) == 0:
        return Interval(estimate, math.nan, math.nan)
    tail = (1 - level) / 2
    # An order statistic, not an interpolation: between two infinite values an interpolation is NaN.
    low, high = np.quantile(resampled, [tail, 1 - tail], method="inverted_cdf")
    return Interval(estimate, float(low), float(high))
