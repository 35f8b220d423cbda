"""Where an inversion starts.

The paper's repair is not a method but a start: the first moves, the ones that spoil the latent, are replaced by forward
diffusion to a noise level, x = alpha x0 + sigma noise (docs/theory.md, eq. 6). It composes with every method, because a
method only sees the moves that follow. What it does depends on its level alone, which may lie between two of the grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Protocol, runtime_checkable

from torch import Tensor

from ..errors import ArgumentError
from .grid import Grid
from .rng import ItemNoise
from .schedule import FlowSchedule, Level, Schedule
from .specs import Checked

PAPER_STEPS = 50
"""The number of moves, in leading spacing, that a share is one of, as in the paper: 4 % is the level of two of 50."""

Climb = Callable[[int], Tensor]
"""k -> the clean states, walked up to level k by the method."""


@runtime_checkable
class Start(Protocol):
    """Places clean states on a grid."""

    def level(self, grid: Grid) -> Level:
        """The level the walk starts from: one of the grid's, or one between two of them with the index of the lower one."""

    def place(
        self, x0: Tensor, grid: Grid, noise: ItemNoise, *, images: Tensor | None = None, climb: Climb | None = None
    ) -> Tensor:
        """The state at that level. `images` are the pixels behind `x0`; `climb(k)` walks `x0` up to level k by the method."""


@dataclass(frozen=True)
class FromImage:
    """Start at the clean end: the usual inversion."""

    def level(self, grid: Grid) -> Level:
        """The clean end."""
        return grid[0]

    def place(
        self, x0: Tensor, grid: Grid, noise: ItemNoise, *, images: Tensor | None = None, climb: Climb | None = None
    ) -> Tensor:
        """The clean states themselves."""
        return x0


@dataclass(frozen=True)
class ForwardNoise(Checked):
    """Replace the first moves by forward diffusion with fresh noise, one draw per item.

    Give exactly one of `steps`, `fraction`, `sigma`.

    Attributes:
        steps: How many moves of this grid; 0 is the usual inversion, N is noise all the way.
        fraction: The level that this share of 50 moves leads to, whatever the number of moves: timestep
            (fraction - 1/50) * trained, from 0 on (the paper: 0.04, two moves of 50); 0 is the image and 1 the noisy end. On a
            flow model it is the level with the sigma/alpha that DDPM's linear table has at that share of it. On a grid made by
            hand it is a share of its moves, rounded up.
        sigma: Start from the first level of the grid whose sigma is at least this.
        at_next_level: Noise to the next level of the grid but step on as if at this one: an off-by-one of published code, for
            comparison.

    >>> from unsample import Schedule
    >>> fine, coarse = (Grid.of(Schedule.from_betas(Schedule.linear_betas()), steps) for steps in (50, 10))
    >>> [start.level(fine).t for start in (ForwardNoise(steps=3), ForwardNoise(fraction=0.04), ForwardNoise(sigma=0.1))]
    [40, 20, 40]
    >>> [start.level(coarse).t for start in (ForwardNoise(steps=3), ForwardNoise(fraction=0.04), ForwardNoise(sigma=0.1))]
    [200, 20, 100]
    """

    steps: int | None = None
    fraction: float | None = None
    sigma: float | None = None
    at_next_level: bool = False

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if value is not None and value is not False}
        return f"ForwardNoise({', '.join(f'{name}={value}' for name, value in shown.items())})"

    def __post_init__(self) -> None:
        given = [value for value in (self.steps, self.fraction, self.sigma) if value is not None]
        if len(given) != 1:
            raise ArgumentError("ForwardNoise takes exactly one of steps, fraction and sigma; for example steps=2")
        if self.steps is not None and self.steps < 0:
            raise ArgumentError(f"a forward start takes a whole number of steps from 0 on, given {self.steps}")
        if self.fraction is not None and not 0 <= self.fraction <= 1:
            raise ArgumentError(f"the fraction of a forward start lies in 0..1, given {self.fraction}")
        if self.sigma is not None and self.sigma < 0:
            raise ArgumentError(f"the sigma of a forward start is a number from 0 on, given {self.sigma}")

    def level(self, grid: Grid) -> Level:
        """The level on this grid, or between two of its levels.

        Raises:
            ArgumentError: There is none.
        """
        level: Level | None
        if self.fraction is not None:
            level = _share(self.fraction, grid)
        elif self.sigma is not None:
            level = next((level for level in grid.levels if level.sigma >= self.sigma), None)
        else:
            level = next((level for level in grid.levels if level.index == self.steps), None)
        if level is None or level.index + self.at_next_level > grid.steps:
            raise ArgumentError(f"{self} asks for a level beyond a grid of {grid.steps} steps; use a smaller start")
        return level

    def place(
        self, x0: Tensor, grid: Grid, noise: ItemNoise, *, images: Tensor | None = None, climb: Climb | None = None
    ) -> Tensor:
        """Alpha x0 + sigma noise; x0 itself at the clean end."""
        level = self.level(grid)
        if level is grid[0]:
            return x0
        if self.at_next_level:
            level = grid[level.index + 1]
        return level.alpha * x0 + level.sigma * noise.draw(x0.shape, dtype=x0.dtype, device=x0.device)


def _share(fraction: float, grid: Grid) -> Level:
    """The level that a share of `PAPER_STEPS` moves in leading spacing leads to; 0 is the image and 1 the noisy end.

    Of a grid made by hand: of its moves, rounded up.
    """
    if fraction in (0, 1):
        return grid[int(fraction) * grid.steps]
    if grid.schedule is None:
        return grid[ceil(round(fraction * grid.steps, 9))]  # a share like 0.07 of 100 is 7 but for rounding
    moves = max(0.0, fraction * PAPER_STEPS - 1)  # the first leads to timestep 0
    if not isinstance(grid.schedule, FlowSchedule):
        return grid.at(min(round(moves * _spaced(len(grid.schedule))) + grid.offset, len(grid.schedule) - 1))
    table = Schedule.from_betas(Schedule.linear_betas())  # of DDPM (Ho et al. 2020), with which the paper's model was trained
    tau = table.level(round(moves * _spaced(len(table)))).tau
    return grid.at(tau * len(grid.schedule))


def _spaced(trained: int) -> float:
    """Timesteps from one to the next of `PAPER_STEPS` in leading spacing, which cuts them to whole ones where it can."""
    return trained // PAPER_STEPS or trained / PAPER_STEPS
