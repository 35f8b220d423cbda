"""Whether a latent's values follow the normal curve: the Shapiro-Wilk test of every image, and quantiles of all values.

The test is of the shape of the curve, whatever its mean and spread, and takes an image's values as independent: those of a
latent that copies its image are not, and a rejection may mean no more than that. Quantiles show what is wrong, and where.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ArgumentError
from ._checks import PerImage, blocks, check_at_least, check_finite, check_fraction, flat_items
from .intervals import Interval, proportion
from .null import Null

Items = Float[Tensor, "batch *item"]
Array = npt.NDArray[np.floating]
Values = Float[Tensor, "..."]
Quantiles = Float[Tensor, " points"]

FEWEST, MOST = 12, 5000
"""Values of one image for which the approximations of AS R94 used here hold."""

# Royston 1995: polynomials in 1 / sqrt(n) of the last two weights, in log(n) of the mean and log std of log(1 - W).
LAST = (0.0, 0.221157, -0.147981, -2.07119, 4.434685, -2.706056)
SECOND = (0.0, 0.042981, -0.293762, -1.752461, 5.682633, -3.582633)
MEAN = (-1.5861, -0.31082, -0.083751, 0.0038915)
LOG_STD = (-0.4803, -0.082676, 0.0030302)


@dataclass(frozen=True, eq=False)
class ShapiroWilk:
    """The test's statistic `w` of each image, 1 for perfectly normal values, and its `p`-value, small for others.

    >>> ShapiroWilk(w=torch.tensor([0.99]), p=torch.tensor([0.5])).p.tolist()
    [0.5]
    """

    w: PerImage
    p: PerImage


def shapiro_wilk(x: Items) -> ShapiroWilk:
    """The Shapiro-Wilk test of normality of the values of each image, all images at once.

    Of images with more than 5,000 values, 5,000 at random places are tested, the same places in every image and call: few of
    them are neighbours, which lessens their correlation. A constant has no W (NaN), and p = 0: noise is never constant.

    Args:
        x: [B, ...], at least 12 values an image.

    Returns:
        `.w` and `.p`, [B] float64 on the CPU.

    Raises:
        ArgumentError: Fewer than 12 values an image, or values that are not finite.

    Source: Royston 1995, "Remark AS R94", Applied Statistics 44.

    >>> from unsample.diagnostics import true_noise
    >>> test = shapiro_wilk(torch.stack([true_noise((64,)), true_noise((64,)).exp()]))
    >>> (test.p > 0.05).tolist()
    [True, False]
    """
    check_finite(x, "x")
    flat = flat_items(x)
    if flat.shape[1] < FEWEST:
        raise ArgumentError(f"x: expected at least {FEWEST} values an image, given {flat.shape[1]}; test larger images")
    places, weights = _places(flat.shape[1]), _weights(min(flat.shape[1], MOST))
    w = torch.cat([_w(_array(flat[part][:, places]), weights) for part in blocks(len(flat), flat.shape[1])])
    return ShapiroWilk(w, _p_value(w, len(weights)))


def normality_rejection(x: Items, level: float = 0.05) -> Interval:
    """Fraction of images whose values `shapiro_wilk` rejects at `level`, with its exact 95 % interval (Clopper-Pearson).

    On true noise the expected fraction is `level` (measured at 0.05: 0.047 to 0.052 for up to 3,072 values an image, 0.043 for
    5,000, where the approximation is less good); `rejection_null` gives how far from it a number of images may be.

    Args:
        x: [B, ...], at least 12 values an image.
        level: Of the test, in (0, 1).

    Raises:
        ArgumentError: As `shapiro_wilk`, or a level out of range.

    >>> from unsample.diagnostics import true_noise
    >>> print(normality_rejection(true_noise((20, 3, 8, 8)).exp()))
    1 [0.8316, 1]
    """
    check_fraction(level, "level", 0.05)
    rejected = shapiro_wilk(x).p < level
    return proportion(int(rejected.sum()), len(rejected))


def rejection_null(images: int, level: float = 0.05) -> Null:
    """The exact distribution of `normality_rejection` on true noise: binomial, over the number of images.

    Raises:
        ArgumentError: Fewer than one image, or a level out of range.

    >>> rejection_null(100)
    Null(mean=0.05, std=0.021794494717703367, low=0.01, high=0.1)
    """
    check_at_least(images, 1, "images")
    check_fraction(level, "level", 0.05)
    from scipy.stats import binom  # a second, which `import unsample` should not cost

    low, high = (float(end) / images for end in binom.ppf([0.025, 0.975], images, level))
    return Null(level, math.sqrt(level * (1 - level) / images), low, high)


@dataclass(frozen=True, eq=False)
class QuantileQuantile:
    """Quantiles of values beside those of N(0, 1), at probabilities (i - 1/2) / points.

    Attributes:
        normal: [points] float64, quantiles of N(0, 1).
        values: Those of the values: equal to `normal` up to chance for noise; a slope is a spread, a bend a shape.
        null_std: Standard deviation of `values` on as much true noise, for large numbers: sqrt(p (1 - p) / n) / density.

    >>> quantiles = quantile_quantile(torch.tensor([-3.0, 0.0, 3.0]), points=3)
    >>> quantiles.values.tolist(), quantiles.normal.round(decimals=3).tolist(), quantiles.null_std.round(decimals=2).tolist()
    ([-3.0, 0.0, 3.0], [-0.967, 0.0, 0.967], [0.86, 0.72, 0.86])
    """

    normal: Quantiles
    values: Quantiles
    null_std: Quantiles


def quantile_quantile(x: Values, points: int = 101) -> QuantileQuantile:
    """Quantiles of all values of `x`, of any shape, beside those of N(0, 1) at p = (i - 1/2) / points, i = 1 to points.

    Between the i-th and the next of n sorted values, which are the quantiles at (i - 1/2) / n and (i + 1/2) / n, the quantile
    is linear. Takes the memory of one copy of `x`.

    Args:
        x: Any shape.
        points: At least 2.

    Returns:
        `.normal`, `.values` and `.null_std`, the last for independent values; float64 on the CPU.

    Raises:
        ArgumentError: Fewer than two points, or values that are not finite.

    >>> from unsample.diagnostics import true_noise
    >>> quantiles = quantile_quantile(true_noise((64, 3, 16, 16)))
    >>> bool(((quantiles.values - quantiles.normal).abs() < 4 * quantiles.null_std).all())
    True
    """
    check_finite(x, "x")
    check_at_least(points, 2, "points")
    p = (torch.arange(points, dtype=torch.float64, device="cpu") + 0.5) / points
    normal = torch.special.ndtri(p)
    density = torch.exp(-normal.square() / 2) / math.sqrt(2 * math.pi)
    return QuantileQuantile(normal, _quantiles(x, p), (p * (1 - p) / x.numel()).sqrt() / density)


def _places(values: int) -> slice | Tensor:
    """Which of an image's values are tested."""
    if values <= MOST:
        return slice(None)
    return torch.randperm(values, generator=torch.Generator("cpu").manual_seed(0), device="cpu")[:MOST]


def _weights(n: int) -> Float[Tensor, " {n}"]:
    """Royston's approximate weights of sorted values, of unit norm and antisymmetric."""
    normal = torch.special.ndtri((torch.arange(1, n + 1, dtype=torch.float64, device="cpu") - 0.375) / (n + 0.25))
    scaled = normal / normal.norm()
    last, second = (float(scaled[-i]) + _polynomial(c, 1 / math.sqrt(n)) for i, c in ((1, LAST), (2, SECOND)))
    inner = normal[2:-2] / normal[2:-2].norm() * math.sqrt(1 - 2 * last**2 - 2 * second**2)
    outer = torch.tensor([second, last], dtype=torch.float32, device="cpu").double()
    return torch.cat([-outer.flip(0), inner, outer])


def _polynomial(coefficients: tuple[float, ...], x: float) -> float:
    return sum(c * x**k for k, c in enumerate(coefficients))


def _w(rows: Array, weights: Float[Tensor, " values"]) -> PerImage:
    """Squared correlation of each row's sorted values with the weights; NaN for a constant row."""
    rows.sort(axis=1)
    values = torch.from_numpy(rows).double()
    centred = values - values.mean(1, keepdim=True)
    w = (centred @ weights).square() / centred.square().sum(1)
    return torch.where(values[:, 0] == values[:, -1], math.nan, w.clamp_max(1))


def _p_value(w: PerImage, n: int) -> PerImage:
    """log(1 - W) is close to normal; 0 where there is no W."""
    log_n = math.log(n)
    z = (torch.log1p(-w) - _polynomial(MEAN, log_n)) / math.exp(_polynomial(LOG_STD, log_n))
    p: PerImage = torch.special.ndtr(-z)
    return p.nan_to_num(nan=0.0)


def _quantiles(x: Values, p: Quantiles) -> Quantiles:
    values = _array(x).reshape(-1)
    values.sort()
    place = np.clip(p.numpy() * len(values) - 0.5, 0, len(values) - 1)
    below = place.astype(np.int64)
    low, high = (values[i].astype(np.float64) for i in (below, np.minimum(below + 1, len(values) - 1)))
    return torch.from_numpy(low + (place - below) * (high - low))


def _array(x: Values) -> Array:
    """A copy to sort in place: numpy sorts ten times as fast as torch, which keeps the places, too."""
    single = x.detach() if x.dtype in (torch.float32, torch.float64) else x.detach().float()
    return np.array(single.cpu().numpy())
