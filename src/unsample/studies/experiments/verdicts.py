"""Whether a claim holds, does not hold, or cannot be told, from intervals; and intervals in words."""

from __future__ import annotations

import math

from ...diagnostics import Interval, Null, Row

Verdict = bool | None
"""Holds, does not hold, or (None) cannot be told from these images."""


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
