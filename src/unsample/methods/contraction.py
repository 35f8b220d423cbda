"""Fixed points with as many evaluations as each move needs, known before the walk.

For the best denoiser of any data, d eps / dx = (1 - (a/s)^2 Cov[x0 | x]) / s, so no eigenvalue of f' (docs/theory.md, eq. 5)
exceeds q = 1 - 1/r, r = S_dst / S_src, and plain areas attain it (eq. 7). The first moves of a walk contract slowly, the many
others fast, and which is which follows from the levels alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.denoiser import Denoiser
from ..core.grid import Step
from ..core.stepper import Moved, Stepper
from ..errors import ArgumentError
from .fixed_point import Mixing, Update, at_least, per_item, solve


def contraction(step: Step) -> float:
    """The share q = 1 - 1/r of the error that one fixed-point iteration of a move up leaves in plain areas.

    On the straight path of a flow model, where velocities are iterated, r = sigma_dst / sigma_src.

    >>> from unsample import Level
    >>> contraction(Step(Level(1, 0, 0.8, 0.2), Level(2, 9, 0.8, 0.4)))
    0.5
    """
    src, dst = step.src, step.dst
    if dst.sigma == 0:
        return 0.0
    return 1.0 - (src.sigma / dst.sigma if dst.is_flow else src.ratio / dst.ratio)


@dataclass(frozen=True)
class ContractionAware(Stepper):
    """Fixed point whose number of iterations follows from the levels of each move; ours.

    n iterations leave q^n of the DDIM guess's error in plain areas; n is the least that leaves no more than `tolerance`, and
    at most `maximum`. A move out of a clean level without noise has q = 1 and gets `maximum`: it improves what can be improved
    there, and its residual shows the rest. Items whose residual has fallen to `tolerance` times that of the guess stay
    where they are. The residual is that before the last update.

    Attributes:
        tolerance: Share of the DDIM guess's error that may be left.
        maximum: Most iterations a move may have.
        window: Earlier iterates mixed with the last, as `Anderson` does; 0 for the plain fixed point.

    >>> from unsample import Grid, Schedule
    >>> grid = Grid.of(Schedule.from_betas(Schedule.linear_betas()), 50)
    >>> method = ContractionAware()
    >>> [method.iterations(step) for step in grid.up()][:6], method.evaluations_on(grid.up(1))
    ([10, 10, 4, 3, 3, 2], 159)
    """

    tolerance: float = 0.05
    maximum: int = 10
    window: int = 0

    def __post_init__(self) -> None:
        at_least(1, maximum=self.maximum)
        at_least(0, window=self.window)
        if not 0 < self.tolerance < 1:
            raise ArgumentError(f"tolerance must lie between 0 and 1, given {self.tolerance}")

    def evaluations(self, moves: int) -> int:
        """At most so many: the moves' levels decide. `evaluations_on` gives the exact number."""
        return moves * (1 + self.maximum)

    def evaluations_on(self, steps: Iterable[Step]) -> int:
        """Network evaluations per item of a walk along these moves."""
        return sum(1 + self.iterations(step) if step.is_up else 1 for step in steps)

    def iterations(self, step: Step) -> int:
        """Iterations of this move, after the DDIM guess."""
        q = contraction(step)
        if q <= 0:
            return 1
        return min(self.maximum, math.ceil(math.log(self.tolerance) / math.log(q))) if q < 1 else self.maximum

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: object = ()) -> Moved:
        """1 + iterations(step) evaluations up, one down."""
        mixing: Update | None = Mixing(self.window, 1e-6) if self.window else None
        target: Tensor | None = None

        def update(eps: Tensor, answer: Tensor, residual: Tensor) -> Tensor:
            nonlocal target
            target = self.tolerance * residual if target is None else target
            better = answer if mixing is None else mixing(eps, answer, residual)
            return torch.where(per_item(residual > target, eps), better, eps)

        return solve(denoiser, x, step, self.iterations(step), update)
