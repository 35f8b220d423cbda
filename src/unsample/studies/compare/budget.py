"""Equal cost: the most steps that a budget of network evaluations allows, for each method from each start.

`unsample compare` counts the evaluations on the way up, the editing benchmark those of both ways; the search is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from ...core.grid import Grid, Step
from ...core.starts import Start
from ...errors import ArgumentError
from ...methods.registry import parse_method
from ...methods.starts import parse_start
from ...runs.report import title

Made = TypeVar("Made")

MIN_MOVES = 2
"""Fewest moves up that are an inversion; a method that cannot afford them is too expensive."""


@dataclass(frozen=True)
class Candidate:
    """A method, a start and as many steps as a budget allows.

    Attributes:
        method: As on the command line: `ddim`, `ddim:eval_at=source`, `fixed-point:iterations=3`.
        forward: Its start, as on the command line: `0`, `2`, `4%`, `2@next`.
        steps: N of the grid, up and down; 0 if the budget is too small for the method.
        title: Its name in tables and pictures.
        spacing: Of the grid; None is the model's own.
        label: The condition of all photos, as on the command line; None is none.
        guidance: Both ways; other than 1 it costs two evaluations each.
    """

    method: str
    forward: str
    steps: int
    title: str
    spacing: str | None = None
    label: str | None = None
    guidance: float = 1.0


def methods_and_starts(methods: Iterable[str], forwards: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Method, start and title of each combination; a method that is forward diffusion alone has no start and comes once.

    One that is written in two ways, as 2 and 02, comes once, too.

    Raises:
        UnknownNameError: An unknown method.
        ArgumentError: A method or start that cannot be read.

    >>> list(methods_and_starts(["edit-friendly"], ["1", "2"]))
    [('edit-friendly', '0', 'edit-friendly, forward diffusion alone')]
    """
    starts = list(_distinct(forwards, parse_start).values())
    for made, method in _distinct(methods, parse_method).items():
        has_start = made.inversion is not None
        for forward in starts if has_start else ["0"]:
            yield method, forward, f"{method}, {title(forward) if has_start else 'forward diffusion alone'}"


def _distinct(texts: Iterable[str], parse: Callable[[str], Made]) -> dict[Made, str]:
    """What texts mean, and the first that means it."""
    found: dict[Made, str] = {}
    for text in texts:
        found.setdefault(parse(text), text)
    return found


def most_steps(
    start: Start, grid: Callable[[int], Grid], cost: Callable[[Grid, list[Step]], int], budget: int, limit: int
) -> int:
    """The largest number of steps, up to `limit`, that costs no more than `budget`; 0 if none does.

    Every number is tried until the moves alone exceed the budget, because cost need not rise with the steps: methods may count
    by level, some numbers have no grid, and leading timesteps of more than half the trained ones end at a lower noise level.

    Args:
        start: Of the way up.
        grid: From a number of steps to their grid.
        cost: From a grid and the moves up that the start leaves to network evaluations.
        budget: The most evaluations.
        limit: The most steps to try.
    """
    most = 0
    for steps in range(1, limit + 1):
        moves = moves_left(start, grid, steps)
        if len(moves) > budget:
            break
        if len(moves) >= MIN_MOVES and cost(grid(steps), moves) <= budget:
            most = steps
    return most


def moves_left(start: Start, grid: Callable[[int], Grid], steps: int) -> list[Step]:
    """The moves up that a start leaves; none if it is longer than the grid, or no grid has so many steps."""
    try:
        return list(grid(steps).up(start.level(grid(steps))))
    except ArgumentError:
        return []
