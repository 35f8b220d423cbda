"""Ways of editing at equal cost: each has as many steps as the network evaluations of plain DDIM allow, up and down together.

Ways that look closer at each move get fewer moves. Other comparisons hold the way up alone equal; an edit pays for both, and
with guidance for the way down twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ArgumentError
from ..grid import Grid
from ..methods import inversion_of, parse_method, sampler_of
from ..model import Model
from ..results import title
from ..starts import parse_start
from ..steppers import evaluations_on

__all__ = ["MIN_MOVES", "EditWay", "budget_of", "evaluations_of", "ways_at_equal_cost"]

MIN_MOVES = 2
"""Fewest moves up that are an inversion."""


@dataclass(frozen=True)
class EditWay:
    """One way of editing.

    Attributes:
        method: As on the command line: `ddim`, `fixed-point:iterations=3`.
        forward: Its start, as on the command line: `0`, `2`, `4%`.
        steps: N of the grid, up and down.
        title: For people.
        spacing: Of the grid; None is the model's own.
    """

    method: str
    forward: str
    steps: int
    title: str
    spacing: str | None = None


def budget_of(model: Model, steps: int, guidance: float) -> int:
    """Network evaluations per image of an edit by plain DDIM of `steps` moves.

    Raises:
        ArgumentError: A number of steps that the model has no grid of.
    """
    return evaluations_of(model, "ddim", "0", model.grid(steps), guidance)


def evaluations_of(model: Model, method: str, forward: str, grid: Grid, guidance: float) -> int:
    """Network evaluations per image of an edit, up and down; of a start that tries several, the first alone.

    An upper bound where a reversible method remembers its last answer: bdia and o-belm need a move less.

    Raises:
        ArgumentError: A method or start that is none, or one that leaves no move.
    """
    parsed = parse_method(method)
    moves = list(grid.up(parse_start(forward).index(grid)))
    if not moves:
        raise ArgumentError(f"forward start {forward} leaves no move of {grid.steps}; use a smaller one")
    each = 1 if guidance == 1 or model.distilled else 2
    return evaluations_on(parsed, moves) + each * evaluations_on(sampler_of(parsed), list(grid.up()))


def ways_at_equal_cost(
    model: Model, methods: Iterable[str], forwards: Iterable[str], steps: int, guidance: float, spacing: str | None = None
) -> tuple[EditWay, ...]:
    """A way for each method and start, with as many steps as `budget_of` allows.

    A method whose path is forward diffusion alone has no start and is listed once.

    Raises:
        ArgumentError: A method, start or spacing that is none, or too few evaluations for one of them.
    """
    budget, ways = budget_of(model, steps, guidance), []
    model.grid(steps, spacing)  # refuses what is no spacing
    for method in dict.fromkeys(methods):
        starts = inversion_of(parse_method(method)) is not None
        for forward in dict.fromkeys(forwards if starts else ["0"]):
            parse_start(forward)
            most = _steps(model, method, forward, budget, guidance, spacing)
            called = title(forward) if starts else "forward diffusion alone"
            ways.append(EditWay(method, forward, most, f"{method}, {called}", spacing))
    return tuple(ways)


def _steps(model: Model, method: str, forward: str, budget: int, guidance: float, spacing: str | None) -> int:
    most = 0
    for steps in range(1, min(budget, len(model.schedule)) + 1):
        try:
            grid = model.grid(steps, spacing)
            cost = evaluations_of(model, method, forward, grid, guidance)
            moves = steps - parse_start(forward).index(grid)
        except ArgumentError:  # a start longer than this grid, or a number of steps that no grid has
            continue
        if moves >= MIN_MOVES and cost <= budget:
            most = steps
    if not most:
        raise ArgumentError(f"{budget} evaluations, up and down, are too few for {method} from {forward}; raise --steps")
    return most
