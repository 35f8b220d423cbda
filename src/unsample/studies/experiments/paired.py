"""Intervals of comparisons: a function of several statistics of the same images, all taken again of the same images.

Two ways of inverting one photograph share most of their scatter, so that their difference is known far better than either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...diagnostics import Interval, bootstrap, psnr
from ...diagnostics.correlation import MIN_IMAGES, top_k_correlation
from ...diagnostics.intervals import Pooled, bootstrap_sums
from ...diagnostics.null import student_reach

__all__ = [
    "GROUPS",
    "PSNR_CAP",
    "Array",
    "both",
    "capped_psnr",
    "change_of_psnr",
    "correlations",
    "exceeds",
    "falls_short",
    "percent",
    "r_together",
    "signed",
    "together",
    "without_each_group",
]

Array = npt.NDArray[np.float64]

GROUPS = 10
"""Of the jackknife of correlations: image i is in group i mod 10, as in `diagnose`."""

PSNR_CAP = 60.0
"""In dB: reconstructions above it count as equal, since rounding to 8 bits alone leaves no more than 58.9 dB."""


def together(parts: Sequence[Pooled], value: Callable[..., Array], seed: int = 0) -> Interval:
    """`value(statistic, statistic, ...)` of pooled statistics of the same images, bootstrapped over images.

    >>> mean = Pooled(np.array([[1.0, 1.0], [5.0, 1.0], [6.0, 1.0]]), lambda total: total[..., 0] / total[..., 1])
    >>> print(together([mean, mean], lambda a, b: a - b))
    0 [0, 0]
    """
    ends = np.cumsum([part.sums.shape[1] for part in parts])[:-1]

    def statistic(total: Array) -> Array:
        pieces = np.split(total, ends, axis=-1)
        return value(*(part.statistic(piece) for part, piece in zip(parts, pieces, strict=True)))

    return bootstrap_sums(np.concatenate([part.sums for part in parts], axis=1), statistic, seed=seed)


def correlations(latent: Tensor) -> Array:
    """Top-20 patch correlation of all images, then of those without each of ten groups; NaN of too few images.

    Args:
        latent: Shape (count, channels, height, width).
    """
    every = [latent, *(latent[kept] for kept in without_each_group(len(latent)))]
    return np.array([top_k_correlation(x) if len(x) >= MIN_IMAGES else math.nan for x in every])


def without_each_group(count: int) -> list[Tensor]:
    """For each of ten groups, which of `count` items are not in it; item i is in group i mod 10."""
    group = torch.arange(count) % GROUPS
    return [group != left_out for left_out in range(GROUPS)]


def r_together(parts: Sequence[Array], value: Callable[..., Array]) -> Interval:
    """`value(r, r, ...)` of the `correlations` of latents of the same images: a jackknife over groups, Student's interval."""
    with np.errstate(divide="ignore", invalid="ignore"):
        whole, *without = value(*parts).tolist()
    reach = student_reach(GROUPS - 1) * math.sqrt((GROUPS - 1) * float(np.var(without)))
    return Interval(whole, whole - reach, whole + reach)


def change_of_psnr(images: Tensor, ours: Tensor, theirs: Tensor) -> Interval:
    """Mean over images of the PSNR in dB of `ours` less that of `theirs`, both at most 60 dB, bootstrapped over images."""
    return bootstrap(capped_psnr(images, ours) - capped_psnr(images, theirs))


def capped_psnr(images: Tensor, back: Tensor) -> Tensor:
    """PSNR of each image in dB, at most 60."""
    return psnr(images, back).clamp(max=PSNR_CAP)


def signed(found: Interval, unit: str = "") -> str:
    """A change with its interval.

    >>> signed(Interval(-1.5, -2.0, 0.25), " dB")
    '-1.50 dB [-2.00, +0.25]'
    """
    if math.isnan(found.low):
        return "-" if math.isnan(found.estimate) else f"{found.estimate:+.2f}{unit}"
    return f"{found.estimate:+.2f}{unit} [{found.low:+.2f}, {found.high:+.2f}]"


def percent(found: Interval) -> str:
    """A share with its interval.

    >>> percent(Interval(0.774, 0.75, 0.8))
    '77 % [75, 80]'
    """
    if math.isnan(found.low):
        return "-" if math.isnan(found.estimate) else f"{100 * found.estimate:.0f} %"
    return f"{100 * found.estimate:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def exceeds(found: Interval, bound: float) -> bool | None:
    """Whether a value lies above a bound; None where its interval reaches across, or has no ends.

    >>> exceeds(Interval(2.0, 1.5, 2.5), 1.0), exceeds(Interval(2.0, 1.5, 2.5), 2.1)
    (True, None)
    """
    return True if found.low > bound else False if found.high < bound else None


def falls_short(found: Interval, bound: float) -> bool | None:
    """Whether a value lies below a bound; None where its interval reaches across, or has no ends.

    >>> falls_short(Interval(2.0, 1.5, 2.5), 3.0), falls_short(Interval(2.0, 1.5, 2.5), 2.1)
    (True, None)
    """
    above = exceeds(found, bound)
    return None if above is None else not above


def both(first: bool | None, second: bool | None) -> bool | None:
    """Whether both hold; None where one cannot be told and the other is not refuted.

    >>> both(True, None), both(False, None), both(True, True)
    (None, False, True)
    """
    return False if False in (first, second) else None if None in (first, second) else True
