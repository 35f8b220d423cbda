"""Pictures that are inverted first, on the way to something else, with one counter for the way up and what follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..core.batching import OnStep
from ..core.corrections import Corrected
from ..core.grid import Grid
from ..core.model import Model
from ..core.starts import Start
from ..core.stepper import Stepper
from ..core.trajectory import Trajectory
from . import invert as inversion

__all__ = ["Way"]


@dataclass(frozen=True)
class Way:
    """An inversion, and how much comes after it.

    Attributes:
        method: How a move up is made.
        start: Where the walk starts.
        grid: The levels to visit.
        after: Item moves that follow the inversion.
        on_step: Called after each move with (item moves done, item moves in all).
    """

    method: Stepper | Corrected
    start: Start
    grid: Grid
    after: int
    on_step: OnStep | None

    def up(self, model: Model, pixels: Tensor, **settings: Any) -> tuple[Trajectory, OnStep | None]:
        """The inversion, of pixels (batch, channels, height, width), and what counts the moves that follow."""
        moves = len(pixels) * self.method.moves(self.grid, self.start.index(self.grid), self.grid.steps)
        where: dict[str, Any] = {"method": self.method, "start": self.start, "grid": self.grid}
        there = inversion.invert(model, pixels, on_step=self._counted(0, moves), **where, **settings)
        return there, self._counted(moves, moves)

    def _counted(self, before: int, up: int) -> OnStep | None:
        report = self.on_step
        return report and (lambda done, _total: report(before + done, up + self.after))
