"""Fixed points with as many evaluations as each move needs, known before the walk.

For the best denoiser of any data, d eps / dx = (1 - (a/s)^2 Cov[x0 | x]) / s, so no eigenvalue of f' (docs/theory.md, eq. 5)
exceeds q = 1 - 1/r, r = S_dst / S_src, and plain areas attain it. The first moves of a walk contract slowly, the many others
fast, and two levels tell which is which. Where the other end of the spectrum is 0, as for Gaussian data, Chebyshev's
semi-iteration (Golub and Varga 1961) turns the factor q into q / (1 + sqrt(1 - q))^2 at the same cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import ArgumentError
from ..grid import Step
from .base import Moved
from .implicit import at_least, per_item, solve

__all__ = ["ContractionAware", "contraction"]


def contraction(step: Step) -> float:
    """q = 1 - 1/r, the share of the error that one fixed-point iteration of a move up leaves in plain areas.

    >>> from unsample import Level
    >>> contraction(Step(Level(1, 0, 0.8, 0.2), Level(2, 9, 0.8, 0.4)))
    0.5
    """
    return 1.0 - step.src.ratio / step.dst.ratio if step.dst.ratio > 0 else 0.0


@dataclass(frozen=True)
class ContractionAware:
    """Fixed point whose number of iterations follows from the levels of each move; ours.

    Plain iteration leaves q^n of the error, Chebyshev's 1 / cosh(n arccosh(2/q - 1)); n is the least that leaves no more than
    `tolerance`, and at most `maximum`. A move out of a clean level without noise has q = 1 and gets `maximum`: it improves
    what can be improved there, and its residual tells of the rest. Items whose residual has fallen to `tolerance` times that
    of the DDIM guess stay where they are. The residual reported is that before the last update.

    Attributes:
        tolerance: Share of the DDIM guess's error that may be left.
        maximum: Most iterations a move may have.
        accelerate: Chebyshev's semi-iteration; plain iteration otherwise. It presumes eigenvalues of f' between -1/r and 1,
            which strong guidance can leave.

    >>> from unsample import Grid, Schedule
    >>> grid = Grid.of(Schedule.from_betas(Schedule.linear_betas()), 50)
    >>> method = ContractionAware()
    >>> [method.iterations(step) for step in grid.up()][:6], method.evaluations_on(grid.up(1))
    ([10, 5, 3, 2, 2, 2], 145)
    """

    tolerance: float = 0.05
    maximum: int = 10
    accelerate: bool = True

    def __post_init__(self) -> None:
        at_least(1, maximum=self.maximum)
        if not 0 < self.tolerance < 1:
            raise ArgumentError(f"tolerance must lie between 0 and 1, given {self.tolerance}")

    @property
    def order(self) -> int:
        """First order: the equation solved is backward Euler."""
        return 1

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
        rate = math.acosh(2 / q - 1) if self.accelerate else -math.log(q)
        needed = math.acosh(1 / self.tolerance) if self.accelerate else -math.log(self.tolerance)
        return min(self.maximum, math.ceil(needed / rate)) if rate > 0 else self.maximum

    def init(self, x: Tensor) -> None:
        """No memory."""

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: None = None) -> Moved:
        """1 + iterations(step) evaluations up, one down."""
        count = self.iterations(step)
        q = self._spectrum(contraction(step), count) if self.accelerate else 0.0
        before: Tensor | None = None
        target: Tensor | None = None
        omega = 1.0

        def update(eps: Tensor, answer: Tensor, residual: Tensor) -> Tensor:
            nonlocal before, target, omega
            target = self.tolerance * residual if target is None else target
            relaxed = eps + 2 / (2 - q) * (answer - eps)
            moved = relaxed if before is None else before + omega * (relaxed - before)
            omega = 1 / (1 - (omega / 4 if before is not None else 0.5) * (q / (2 - q)) ** 2)
            before = eps
            return torch.where(per_item(residual > target, eps), moved, eps)

        return solve(denoiser, x, step, count, update)

    def _spectrum(self, q: float, count: int) -> float:
        """The upper end Chebyshev is told: where q is out of reach of `count` iterations, what they do reach."""
        return min(q, 2 / (1 + math.cosh(math.acosh(1 / self.tolerance) / count)))
