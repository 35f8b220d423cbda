"""Whether a claim holds, does not hold, or cannot be told, from intervals; and the intervals of paired comparisons.

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

Array = npt.NDArray[np.float64]

Verdict = bool | None
"""Holds, does not hold, or (None) cannot be told from these images."""

GROUPS = 10
"""Of the jackknife of correlations: image i is in group i mod 10, as in `diagnose`."""

PSNR_CAP = 60.0
"""In dB: reconstructions above it count as equal, since rounding to 8 bits alone leaves no more than 58.9 dB."""


def exceeds(interval: Interval, bound: float) -> Verdict:
    """Whether a value lies above a bound; None where its interval reaches across, or has no ends.

    >>> exceeds(Interval(2.0, 1.5, 2.5), 1.0), exceeds(Interval(2.0, 1.5, 2.5), 2.1)
    (True, None)
    """
    return True if interval.low > bound else False if interval.high < bound else None


def falls_short(interval: Interval, bound: float) -> Verdict:
    """Whether a value lies below a bound; None where its interval reaches across, or has no ends.

    >>> falls_short(Interval(2.0, 1.5, 2.5), 3.0), falls_short(Interval(2.0, 1.5, 2.5), 2.1)
    (True, None)
    """
    verdict = exceeds(interval, bound)
    return None if verdict is None else not verdict


def within(value: Interval, low: float, high: float) -> Verdict:
    """Whether a value lies between two bounds or on one; None where its interval reaches across either, or has no ends.

    >>> value = Interval(2.0, 1.5, 2.5)
    >>> within(value, 1.5, 3), within(value, 2, 3), within(value, 3, 4)
    (True, None, False)
    """
    return True if low <= value.low and value.high <= high else False if value.high < low or value.low > high else None


def both(*verdicts: Verdict) -> Verdict:
    """Whether all hold; None where one cannot be told and none is refuted.

    >>> both(True, None), both(False, None), both(True, True)
    (None, False, True)
    """
    return False if False in verdicts else None if None in verdicts else True


def above(row: Row) -> Verdict:
    """Whether the whole interval lies above what true noise takes; None where only the value does, or there is no interval.

    >>> noise = Null(0.0, 0.5, -1.0, 1.0)
    >>> [above(Row("r", value, value - 1, value + 1, noise)) for value in (3.0, 1.5, 0.5)]
    [True, None, False]
    """
    if row.low is None or row.null is None:
        return None
    return True if row.low > row.null.high else None if row.value > row.null.high else False


def below(row: Row) -> Verdict:
    """Whether the whole interval lies below what true noise takes; None where only the value does, or there is no interval."""
    if row.high is None or row.null is None:
        return None
    return True if row.high < row.null.low else None if row.value < row.null.low else False


def apart(row: Row) -> Verdict:
    """Whether the whole interval lies outside what true noise takes, on either side; None where only the value does.

    >>> noise = Null(0.0, 0.5, -1.0, 1.0)
    >>> [apart(Row("r", value, value - 1, value + 1, noise)) for value in (-3.0, -1.5, 0.5)]
    [True, None, False]
    """
    return True if above(row) or below(row) else False if row.is_noise and above(row) is False else None


def at_floor(row: Row) -> Verdict:
    """Whether the value is no higher than 95 % of true noise: its scatter is smaller than the interval over images."""
    return None if row.null is None or math.isnan(row.value) else row.value <= row.null.high


def lower(row: Row, other: Row) -> Verdict:
    """Whether one value lies below another by intervals that do not meet; None if they do, or there are none.

    >>> a, b, c = (Row("", value, value - 1, value + 1) for value in (0.0, 1.0, 3.0))
    >>> lower(a, c), lower(a, b), lower(c, a)
    (True, None, False)
    """
    if row.low is None or row.high is None or other.low is None or other.high is None:
        return None
    return True if row.high < other.low else False if other.high < row.low else None


def nearer(after: Row, before: Row, to: float) -> Verdict:
    """Whether all of one interval is nearer to a number than all of another; None where they share a distance.

    >>> far, near = Row("std", 0.55, 0.5, 0.6), Row("std", 1.25, 1.2, 1.3)
    >>> nearer(near, far, to=1), nearer(far, near, to=1), nearer(near, near, to=1)
    (True, False, None)
    """
    spans = [_distances(row, to) for row in (before, after)]
    if spans[0] is None or spans[1] is None:
        return None
    (least, most), (nearest, farthest) = spans[0], spans[1]
    return True if farthest < least else False if nearest > most else None


def _distances(row: Row, to: float) -> tuple[float, float] | None:
    """From a number to the nearest and to the farthest value of the interval."""
    if row.low is None or row.high is None or math.isnan(row.low):
        return None
    ends = abs(row.low - to), abs(row.high - to)
    return 0.0 if row.low <= to <= row.high else min(ends), max(ends)


def row_of(name: str, interval: Interval, null: Null | None = None, note: str = "") -> Row:
    """An interval as a row of a table, beside its value on true noise."""
    return Row(name, interval.estimate, interval.low, interval.high, null, note)


def beside_noise(name: str, *rows: Row) -> str:
    """What a diagnostic is, or what it becomes, and what it is on true noise.

    >>> usual, repaired = Row("std", 0.5, 0.4, 0.6), Row("std", 0.9, 0.8, 1.0, Null(1.0, 0.01, 0.98, 1.02))
    >>> beside_noise("std", usual, repaired)
    'std 0.500 [0.400, 0.600] becomes 0.900 [0.800, 1.000]; noise 1.000 [0.980, 1.020]'
    """
    return f"{name} {' becomes '.join(map(str, rows))}; noise {rows[-1].noise}"


def signed(interval: Interval, unit: str = "") -> str:
    """A change with its interval.

    >>> signed(Interval(-1.5, -2.0, 0.25), " dB")
    '-1.50 dB [-2.00, +0.25]'
    """
    if math.isnan(interval.low):
        return "-" if math.isnan(interval.estimate) else f"{interval.estimate:+.2f}{unit}"
    return f"{interval.estimate:+.2f}{unit} [{interval.low:+.2f}, {interval.high:+.2f}]"


def percent(interval: Interval) -> str:
    """A share with its interval.

    >>> percent(Interval(0.774, 0.75, 0.8))
    '77 % [75, 80]'
    """
    if math.isnan(interval.low):
        return "-" if math.isnan(interval.estimate) else f"{100 * interval.estimate:.0f} %"
    return f"{100 * interval.estimate:.0f} % [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


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
