"""Undoing DDIM by looking ahead: one evaluation a move, at the state where the last moves would lead.

DDIM sampling is undone exactly by the u = transfer(x, e) with e = eps(u, dst) (docs/theory.md, eq. 5). `implicit` iterates
that from what the network says of x; here the first guess is so good that one evaluation does. The guess is where the last
direction leads, bent as the direction itself was bending.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..denoiser import Denoiser
from ..errors import ArgumentError
from ..grid import Step
from .base import Moved
from .ddim import DDIM
from .flow import Direction, ask, moved_along

__all__ = ["LookAhead"]


@dataclass(frozen=True)
class LookAhead:
    """u' = u + dtau w(u + dtau w_guess, dst), w_guess = w_last + c (w_last - w_before): ours, after Uni-Inv, which has c = 0.

    In u = x / (alpha + sigma), tau = sigma / (alpha + sigma), w = eps - x0, as the methods in `flow`, on any model. c is the
    length of the move over that of the last one, which extrapolates a straight line, but no more than `limit`: with few steps
    the directions bend too much to be followed all the way. One evaluation a move, and one to begin with. Down it is DDIM.

    As a method for the path it is of first order, like the DDIM it undoes. What DDIM, on the same grid, then misses of the
    state it started from falls with the third power of the step if the limit allows, and with the second if not; after DDIM
    inversion, with the first.

    Attributes:
        limit: At most so much of the last bend, from 0 on. More pays with many steps, less with few.

    >>> LookAhead().evaluations(10)
    11
    """

    limit: float = 0.5

    def __post_init__(self) -> None:
        if not self.limit >= 0:
            raise ArgumentError(f"expected a limit from 0 on, given {self.limit}")

    @property
    def order(self) -> int:
        """First order, both ways."""
        return 1

    def evaluations(self, moves: int) -> int:
        """One a move up, and one at the source of the first."""
        return moves + (moves > 0)

    def init(self, x: Tensor) -> tuple[Direction, ...]:
        """Nothing remembered yet."""
        return ()

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: tuple[Direction, ...]) -> Moved:
        """One evaluation at the target; the memory is the last two directions, newest first."""
        if not step.is_up:
            return DDIM().step(denoiser, x, step)
        last, *older = state or ((step.src.tau, ask(denoiser, x, step.src)),)
        guess = last[1]
        if older and step.dst.tau != last[0] != older[0][0]:
            bend = (step.dst.tau - last[0]) / (last[0] - older[0][0])
            guess = guess + min(bend, self.limit) * (guess - older[0][1])
        direction = ask(denoiser, moved_along(x, guess, step).x, step.dst)
        return moved_along(x, direction, step, ((step.dst.tau, direction), last))
