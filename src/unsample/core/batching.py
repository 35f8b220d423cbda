"""Batches of items: their slices, what is given once or per item, and the progress through all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from ..errors import ArgumentError, counted
from .model import Condition, Negative

OnStep = Callable[[int, int], object]
"""Called with (item moves done, item moves in all)."""


def batches(count: int, size: int | None) -> Iterator[slice]:
    """Slices of at most `size` that cover `count` items, the last one shorter."""
    if size is not None and size < 1:
        raise ArgumentError(f"expected a batch size of at least 1, given {size}")
    size = size or count
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


def broadcast_conditions(condition: Condition | Sequence[Condition], count: int) -> list[Condition] | None:
    """One condition per item, None for those without; None when there is none at all."""
    if condition is None:
        return None
    if isinstance(condition, (str, int)):
        return [condition] * count
    if len(condition) != count:
        raise ArgumentError(
            f"expected one condition, or one per item: {counted(count, 'item')}, {counted(len(condition), 'condition')}"
        )
    return None if all(one is None for one in condition) else list(condition)


def negative_of(negative: Condition | Sequence[Condition] | Mapping[int, Tensor], count: int, rows: slice) -> Negative:
    """What guidance moves the items `rows` of `count` away from."""
    if not isinstance(negative, Mapping):
        every = broadcast_conditions(negative, count)
        return every and every[rows]
    for level, embeddings in negative.items():
        if len(embeddings) != count:
            raise ArgumentError(
                f"expected one embedding per item: {counted(count, 'item')}, {len(embeddings)} at level {level}"
            )
    return {level: embeddings[rows] for level, embeddings in negative.items()}


def counter(on_step: OnStep | None, total: int) -> Callable[[int], None]:
    """A function that adds up moves and reports the sum to `on_step`."""
    done = 0

    def report(moves: int) -> None:
        nonlocal done
        done += moves
        if on_step is not None:
            on_step(done, total)

    return report
