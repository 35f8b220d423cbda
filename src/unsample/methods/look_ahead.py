"""Undoing DDIM by looking ahead: one evaluation a move, at the state where the last moves would lead.

DDIM sampling is undone exactly by the u = transfer(x, e) with e = eps(u, dst) (docs/theory.md, eq. 5). `fixed_point` iterates
that from what the network says of x; here the first guess is so good that one evaluation does. The guess is where the last
direction leads, bent as the direction itself was bending.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, zeros_like

from ..core.ddim import DDIM
from ..core.denoiser import Denoiser
from ..core.grid import Step
from ..core.stepper import Moved, Stepper
from ..errors import ArgumentError, UnknownNameError
from .flow import Direction, direction_at, moved_along

First = Literal["source", "zero"]


@dataclass(frozen=True)
class LookAhead(Stepper):
    """u' = u + dtau w(u + dtau guess, dst), the guess on the line through the last two directions: ours, after Uni-Inv.

    In u = x / (alpha + sigma), tau = sigma / (alpha + sigma), w = eps - x0, as the methods in `flow`, on any model. The line
    is followed where the move multiplies S = sigma / alpha by no more than `ratio`; where it multiplies it by more the last
    direction alone is the guess, which is Uni-Inv. One evaluation a move, and one to begin with. Down it is DDIM.

    As a method for the path it is of first order, like the DDIM it undoes. What DDIM, on the same grid, then misses of the
    state it started from falls with the third power of the step; after Uni-Inv with the second, after DDIM inversion with the
    first.

    Attributes:
        ratio: 2 means the moves whose implicit equation contracts by 1 - 1/r = 1/2 or better (docs/theory.md); 1 means none.

    >>> LookAhead().evaluations(10)
    11
    """

    ratio: float = 2.0

    def __post_init__(self) -> None:
        if not self.ratio >= 1:
            raise ArgumentError(f"expected a ratio from 1 on, given {self.ratio}")

    def evaluations(self, moves: int) -> int:
        """One a move up, and one at the source of the first."""
        return moves + (moves > 0)

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: tuple[Direction, ...] = ()) -> Moved:
        """One evaluation at the target; the memory is the last two directions, newest first."""
        if not step.is_up:
            return DDIM().step(denoiser, x, step)
        last, *older = state or ((step.src.tau, direction_at(denoiser, x, step.src)),)
        guess = last[1]
        if older and last[0] != older[0][0] and step.dst.ratio <= self.ratio * step.src.ratio:
            bend = (step.dst.tau - last[0]) / (last[0] - older[0][0])
            guess = guess + bend * (guess - older[0][1])
        direction = direction_at(denoiser, moved_along(x, guess, step).x, step.dst)
        return moved_along(x, direction, step, ((step.dst.tau, direction), last))


@dataclass(frozen=True)
class UniInv(Stepper):
    """Euler's way down, undone by one look at where the last move's direction would lead (Uni-Inv, Jiao et al. 2026).

    u' = u + dtau w(u + dtau w_last, dst): an explicit guess at the implicit step that undoes DDIM. One evaluation a move. Down
    it is DDIM.

    Attributes:
        first: The first move looks along the direction at the `source`, one evaluation more, or along none (`zero`).

    >>> UniInv().evaluations(10), UniInv(first="zero").evaluations(10)
    (11, 10)
    """

    first: First = "source"

    def __post_init__(self) -> None:
        if self.first not in get_args(First):
            raise UnknownNameError("first direction", self.first, get_args(First))

    def evaluations(self, moves: int) -> int:
        """One a move up, and one if the first looks along its direction at the source."""
        return moves + (moves > 0 and self.first == "source")

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: tuple[Direction, ...] = ()) -> Moved:
        """`LookAhead` that never follows a line; the memory is its."""
        if not state and self.first == "zero":
            state = ((step.src.tau, zeros_like(x)),)
        return LookAhead(ratio=1.0).step(denoiser, x, step, state)
