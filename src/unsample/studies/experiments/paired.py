"""Intervals of paired comparisons.

Two ways of inverting one photograph share most of their scatter, so their difference is known far better than either: a
function of several statistics is resampled over the same images for all of them. Alignments of two sets are read beside
chance, the same statistic where the pairs are broken up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...diagnostics import Interval, Null, Row, alignment_null, bootstrap, psnr
from ...diagnostics.correlation import MIN_IMAGES, top_k_correlation
from ...diagnostics.intervals import Pooled, bootstrap_sums
from ...diagnostics.null import student_reach
from ...errors import ArgumentError
from .verdicts import row_of

Array = npt.NDArray[np.float64]

GROUPS = 10
"""Of the jackknife of correlations: image i is in group i mod 10, as in `diagnose`."""

PSNR_CAP = 60.0
"""In dB: reconstructions above it count as equal, since rounding to 8 bits alone leaves no more than 58.9 dB."""


def bootstrapped(parts: Sequence[Pooled], value: Callable[..., Array], seed: int = 0) -> Interval:
    """`value(statistic, statistic, ...)` of pooled statistics of the same images, bootstrapped over images.

    >>> mean = Pooled(np.array([[1.0, 1.0], [5.0, 1.0], [6.0, 1.0]]), lambda total: total[..., 0] / total[..., 1])
    >>> print(bootstrapped([mean, mean], lambda a, b: a - b))
    0 [0, 0]
    """
    ends = np.cumsum([part.sums.shape[1] for part in parts])[:-1]

    def statistic(total: Array) -> Array:
        pieces = np.split(total, ends, axis=-1)
        return value(*(part.statistic(piece) for part, piece in zip(parts, pieces, strict=True)))

    return bootstrap_sums(np.concatenate([part.sums for part in parts], axis=1), statistic, seed=seed)


def jackknifed(parts: Sequence[Array], value: Callable[..., Array] = lambda x: x) -> Interval:
    """`value(x, x, ...)` of statistics that each stand with every group of the same images left out; Student's interval."""
    with np.errstate(divide="ignore", invalid="ignore"):
        whole, *without = value(*parts).tolist()
    reach = student_reach(GROUPS - 1) * math.sqrt((GROUPS - 1) * float(np.var(without)))
    return Interval(whole, whole - reach, whole + reach)


def without_each_group(count: int) -> list[Tensor]:
    """For each of ten groups, which of `count` items are not in it; item i is in group i mod 10."""
    group = torch.arange(count, device="cpu") % GROUPS
    return [group != left_out for left_out in range(GROUPS)]


def left_out(statistic: Callable[..., float], *sets: Tensor) -> Array:
    """A statistic of whole sets, then of those without each of their ten groups; item i is in group i mod 10."""
    kept = zip(*([x[group] for group in without_each_group(len(x))] for x in sets), strict=True)
    return np.array([statistic(*parts) for parts in (sets, *kept)])


def correlations(latent: Tensor) -> Array:
    """Top-20 patch correlation of all images, then of those without each of ten groups; NaN of too few images.

    Args:
        latent: Shape (count, channels, height, width).
    """
    return left_out(lambda x: top_k_correlation(x) if len(x) >= MIN_IMAGES else math.nan, latent)


def capped_psnr(images: Tensor, back: Tensor) -> Tensor:
    """PSNR of each image in dB, at most 60."""
    return psnr(images, back).clamp(max=PSNR_CAP)


def change_of_psnr(images: Tensor, ours: Tensor, theirs: Tensor) -> Interval:
    """Mean over images of the PSNR in dB of `ours` less that of `theirs`, both at most 60 dB, bootstrapped over images."""
    return bootstrap(capped_psnr(images, ours) - capped_psnr(images, theirs))


def gap_closed(ours: Tensor, worst: Tensor, best: Tensor) -> Interval:
    """The share of the way from one mean to another that a third has gone, of values of the same images, [B] each."""
    sums = torch.stack([ours, worst, best], dim=1)
    return bootstrap_sums(sums, lambda t: (t[..., 0] - t[..., 1]) / (t[..., 2] - t[..., 1]))


def alignment_of_sets(name: str, statistic: Callable[[Tensor, Tensor], float], a: Tensor, b: Tensor) -> Row:
    """A statistic of two sets, 1 at most, with a jackknife interval and chance as its null; NaN with the reason if refused.

    >>> from unsample.diagnostics import linear_cka, true_noise
    >>> a, b = true_noise((40, 4)), true_noise((40, 4), draw=1)
    >>> [alignment_of_sets("CKA", linear_cka, a, x).is_noise for x in (b, a + b)]
    [True, False]
    """
    try:
        interval = jackknifed([left_out(statistic, a, b)])
        null = alignment_null(statistic, a, b)
    except ArgumentError as error:
        return Row(name, math.nan, note=str(error))
    return Row(name, interval.estimate, interval.low, min(interval.high, 1.0), null, "null: pairs broken up")


def alignment_of_items(name: str, statistic: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Row:
    """The mean of a statistic of each pair, with a bootstrap interval and chance as its null.

    >>> from unsample.diagnostics import feature_cosine, true_noise
    >>> alignment_of_items("cosine", feature_cosine, true_noise((40, 8)), true_noise((40, 8), draw=1)).is_noise
    True
    """
    null = alignment_null(lambda x, y: float(statistic(x, y).mean()), a, b)
    return row_of(name, bootstrap(statistic(a, b)), null, "null: pairs broken up")


def above_chance(row: Row) -> Row:
    """A statistic whose best is 1, as its share of the way there from chance.

    >>> above_chance(Row("CKA", 0.8, 0.7, 0.9, Null(0.6, 0.1, 0.4, 0.8))).value
    0.5
    """
    if row.null is None or row.low is None or row.high is None:
        return Row(row.name, math.nan, note=row.note)
    chance = row.null.mean
    value, low, high = ((x - chance) / (1 - chance) for x in (row.value, row.low, row.high))
    return Row(row.name, round(value, 12), low, high)


def alignment_ratio(early: tuple[Array, Null], late: tuple[Array, Null]) -> Interval:
    """The ratio of two alignments above chance, each `left_out` of the same items and its null."""

    def ratio(first: Array, second: Array) -> Array:
        one, other = ((x - null.mean) / (1 - null.mean) for x, (_, null) in ((first, early), (second, late)))
        return np.asarray(one / other)

    return jackknifed([early[0], late[0]], ratio)
