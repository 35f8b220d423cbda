"""How alike two sets of the same items are, beside chance: the same statistic where the pairs are broken up."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from ...diagnostics import Interval, Null, Row, alignment_null, bootstrap
from ...errors import ArgumentError
from .paired import Array, r_together, without_each_group

__all__ = ["above_chance", "of_items", "of_sets", "settled", "without_groups"]


def without_groups(statistic: Callable[[Tensor, Tensor], float], a: Tensor, b: Tensor) -> Array:
    """A statistic of all pairs, then of those without each of ten groups; pair i is in group i mod 10."""
    return np.array([statistic(a, b), *(statistic(a[kept], b[kept]) for kept in without_each_group(len(a)))])


def of_sets(name: str, statistic: Callable[[Tensor, Tensor], float], a: Tensor, b: Tensor) -> Row:
    """A statistic of two sets, 1 at most, with a jackknife interval and chance as its null; NaN with the reason if refused.

    >>> from unsample.diagnostics import linear_cka, true_noise
    >>> a, b = true_noise((40, 4)), true_noise((40, 4), draw=1)
    >>> of_sets("CKA", linear_cka, a, b).is_noise, of_sets("CKA", linear_cka, a, a + b).is_noise
    (True, False)
    """
    try:
        found = r_together([without_groups(statistic, a, b)], lambda values: values)
        null = alignment_null(statistic, a, b)
    except ArgumentError as error:
        return Row(name, math.nan, note=str(error))
    return Row(name, found.estimate, found.low, min(found.high, 1.0), null, "null: pairs broken up")


def of_items(name: str, statistic: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Row:
    """The mean of a statistic of each pair, with a bootstrap interval and chance as its null.

    >>> from unsample.diagnostics import feature_cosine, true_noise
    >>> of_items("cosine", feature_cosine, true_noise((40, 8)), true_noise((40, 8), draw=1)).is_noise
    True
    """
    found = bootstrap(statistic(a, b))
    null = alignment_null(lambda x, y: float(statistic(x, y).mean()), a, b)
    return Row(name, found.estimate, found.low, found.high, null, "null: pairs broken up")


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


def settled(early: tuple[Array, Null], late: tuple[Array, Null]) -> Interval:
    """The ratio of two alignments above chance, each `without_groups` of the same items and its null."""

    def ratio(first: Array, second: Array) -> Array:
        one, other = ((x - null.mean) / (1 - null.mean) for x, (_, null) in ((first, early), (second, late)))
        return np.asarray(one / other)

    return r_together([early[0], late[0]], ratio)
