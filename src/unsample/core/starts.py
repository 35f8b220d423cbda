"""Where an inversion starts.

The paper's repair is not a method but a start: the first k moves, the ones that spoil the latent, are replaced by forward
diffusion, x_k = alpha_k x0 + sigma_k noise (docs/theory.md, eq. 6). It composes with every method, because a method only
ever sees the moves that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from ..errors import ArgumentError
from .grid import Grid
from .rng import ItemNoise

__all__ = ["Climb", "ForwardNoise", "FromImage", "Start"]

Climb = Callable[[int], Tensor]
"""k -> the clean states, walked up to level k by the method."""


@runtime_checkable
class Start(Protocol):
    """Places clean states on a grid."""

    def index(self, grid: Grid) -> int:
        """The level the walk starts from."""

    def place(
        self, x0: Tensor, grid: Grid, noise: ItemNoise, *, images: Tensor | None = None, climb: Climb | None = None
    ) -> Tensor:
        """The state at that level. `images` are the pixels behind `x0`; `climb(k)` walks `x0` up to level k by the method."""


@dataclass(frozen=True)
class FromImage:
    """Start at the clean end: the usual inversion."""

    def index(self, grid: Grid) -> int:
        """The clean end, 0."""
        return 0

    def place(
        self, x0: Tensor, grid: Grid, noise: ItemNoise, *, images: Tensor | None = None, climb: Climb | None = None
    ) -> Tensor:
        """The clean states themselves."""
        return x0


@dataclass(frozen=True)
class ForwardNoise:
    """Replace the first k moves by forward diffusion with fresh noise, one draw per item.

    Give exactly one of `steps`, `fraction`, `sigma`.

    Attributes:
        steps: k itself; 0 is the usual inversion, N is noise all the way.
        fraction: k as a share of the grid's moves, rounded, at least 1 (the paper: 0.04, that is 2 of 50).
        sigma: Start from the first level whose sigma is at least this.
        at_next_level: Noise to level k + 1 but step on as if at level k: an off-by-one of published code, for comparison.

    >>> from unsample import Schedule
    >>> grid = Grid.of(Schedule.from_betas(Schedule.linear_betas()), 50)
    >>> [start.index(grid) for start in (ForwardNoise(steps=3), ForwardNoise(fraction=0.04), ForwardNoise(sigma=0.1))]
    [3, 2, 3]
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
        if self.steps is not None and (not isinstance(self.steps, int) or self.steps < 0):
            raise ArgumentError(
                f"a forward start takes a whole number of steps from 0 on, given {self.steps!r}; "
                "us.AutoStart() finds the number for each image"
            )
        if self.fraction is not None and not 0 <= self.fraction <= 1:
            raise ArgumentError(f"the fraction of a forward start lies in 0..1, given {self.fraction}")
        if self.sigma is not None and not 0 <= self.sigma < float("inf"):
            raise ArgumentError(f"the sigma of a forward start is a number from 0 on, given {self.sigma}")

    def index(self, grid: Grid) -> int:
        """The k of this grid."""
        if self.steps is not None:
            k = self.steps
        elif self.fraction is not None:
            k = max(1, round(self.fraction * grid.steps)) if self.fraction > 0 else 0
        else:
            k = next((level.index for level in grid.levels if level.sigma >= (self.sigma or 0)), grid.steps + 1)
        if k > grid.steps - self.at_next_level:
            raise ArgumentError(f"{self} asks for level {k} of a grid of {grid.steps} steps; use a smaller start")
        return k

    def place(
        self, x0: Tensor, grid: Grid, noise: ItemNoise, *, images: Tensor | None = None, climb: Climb | None = None
    ) -> Tensor:
        """alpha_k x0 + sigma_k noise; x0 itself for k = 0."""
        k = self.index(grid)
        if k == 0:
            return x0
        level = grid[k + self.at_next_level]
        return level.alpha * x0 + level.sigma * noise.draw(x0.shape, dtype=x0.dtype, device=x0.device)
