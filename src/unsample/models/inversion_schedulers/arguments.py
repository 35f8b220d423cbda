"""What `set_timesteps` is given: levels in the order of sampling, and arguments that only other schedulers take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor

from ...errors import ArgumentError


def refuse_others(others: Mapping[str, Any], instead: str) -> None:
    """Arguments of `set_timesteps` that other schedulers take; None is none."""
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise ArgumentError(f"set_timesteps does not take {', '.join(given)} here: give {instead}")


def rising(
    what: str, given: Iterable[float] | Tensor, count: int | None, allowed: Callable[[float], bool], within: str
) -> list[float]:
    """`given`, which falls as samplers visit it, the other way round.

    Raises:
        ArgumentError: It does not fall, is not all `allowed`, that is `within` in words, or not of `count` values.
    """
    falling = [float(value) for value in given]
    falls = falling and all(a > b for a, b in pairwise(falling)) and all(allowed(value) for value in falling)
    if not falls or count not in (None, len(falling)):
        raise ArgumentError(f"expected {count or 'some'} {what} that fall within {within}, given {falling}")
    return falling[::-1]
