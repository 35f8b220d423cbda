"""Reversible methods: a walk down from the memory of a walk up returns to its start, up to rounding.

Each has a second tensor and a move that can be solved for what it replaced, with the network asked about what is there both ways:
no equation is left to iterate. The memory, `Moved.state`, is a tuple of tensors with one row per item:

- `EDICT`: (y,), a twin of x at the same level.
- `BDIA`, `OBELM`: (x', alpha', sigma'), the neighbouring state that x came from and its level's scales, one number per item
  in float64.

To turn around, anywhere, hand `moved.state` to the next walk: `walk(denoiser, moved.x, grid.down(i), method, state=moved.state)`.
For `BDIA` and `OBELM` the first move after the turn leads to the remembered neighbour and is a look-up; then each move takes
the neighbour on the far side. Without a memory the first move is DDIM's, asked at the source, so that a walk down from noise is a
sampler. Exact here means undone, not accurate: the latent is no whiter for it (docs/theory.md), and a forward start composes.

Rounding errors are not damped on both ways: the docstrings say by how much they may grow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import ArgumentError
from ..grid import Step
from ..schedule import Level
from ..transfer import transfer
from .base import Moved

__all__ = ["BDIA", "EDICT", "OBELM", "Tensors"]

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class EDICT:
    """Two coupled states, each moved along the eps of the other and then mixed (Wallace et al. 2023, eq. 14 and 15).

    Two evaluations a move, both told the noisier of the two levels, so never the clean one. x and its twin y change roles
    from move to move. Up, mixing is undone and pulls the two apart by 1/p^2 a move, rounding errors included; p = 0.93 is the
    paper's choice for 50 moves, and p = 0.93 ** (50 / N) keeps that for N.

    Attributes:
        p: Weight of mixing, in (0, 1]; 1 is no mixing.

    >>> EDICT(), EDICT.reversible
    (EDICT(p=0.93), True)
    """

    p: float = 0.93
    reversible: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise ArgumentError(f"expected a mixing weight p in (0, 1], given {self.p}")

    @property
    def order(self) -> int:
        """First order, both ways."""
        return 1

    def evaluations(self, moves: int) -> int:
        """Two a move."""
        return 2 * moves

    def init(self, x: Tensor) -> Tensors:
        """The twin starts equal to x."""
        return (x,)

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: Tensors) -> Moved:
        """Up undoes down line by line, in reverse order."""
        swapped = max(step.src.index, step.dst.index) % 2 == 1
        first, second = (state[0], x) if swapped else (x, state[0])
        eps: tuple[Tensor, Tensor]
        if step.is_up:
            second = (second - (1 - self.p) * first) / self.p
            first = (first - (1 - self.p) * second) / self.p
            of_first = denoiser(first, step.dst)
            second = transfer(second, of_first, step)
            of_second = denoiser(second, step.dst)
            first = transfer(first, of_second, step)
        else:
            of_second = denoiser(second, step.src)
            first = transfer(first, of_second, step)
            of_first = denoiser(first, step.src)
            second = transfer(second, of_first, step)
            first = self.p * first + (1 - self.p) * second
            second = self.p * second + (1 - self.p) * first
        eps = (of_first, of_second)
        if swapped:
            return Moved(step, second, eps[0], (first,))
        return Moved(step, first, eps[1], (second,))


@dataclass(frozen=True)
class BDIA:
    """Bidirectional integration: x_next = x_before / g + D(to next) - D(to before) / g, D being DDIM's moves from x.

    One evaluation a move, at x (Zhang et al. 2024, "Exact diffusion inversion via bidirectional integration approximation"). Down, g = gamma
    multiplies: x_{i-1} = g x_{i+1} + D(i to i-1) - g D(i to i+1). Up, the same equation is solved for x_{i+1} and divides by g,
    so every rounding error grows by 1/g a move: g = 0.5 multiplies it by 2^N. Only g = 1, the default, is for inversion.

    Attributes:
        gamma: g, in (0, 1].

    >>> BDIA(), BDIA(gamma=0.5).order
    (BDIA(gamma=1.0), 1)
    """

    gamma: float = 1.0
    reversible: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1:
            raise ArgumentError(f"expected gamma in (0, 1], given {self.gamma}")

    @property
    def order(self) -> int:
        """Second order on evenly changing steps for gamma 1; first order otherwise."""
        return 2 if self.gamma == 1 else 1

    def evaluations(self, moves: int) -> int:
        """One a move."""
        return moves

    def init(self, x: Tensor) -> Tensors:
        """No neighbour yet."""
        return ()

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: Tensors) -> Moved:
        """The look-up of a turn costs no evaluation."""
        if turned := _known(x, step, state):
            return turned
        eps = denoiser(x, step.src)
        if step.src.ratio == step.dst.ratio:
            return Moved(step, transfer(x, eps, step), eps, state)
        moved = transfer(x, eps, step)
        if state:
            before, level = state[0], _level(state)
            gap = before - transfer(x, eps, Step(step.src, level))
            moved = moved + (gap / self.gamma if step.is_up else gap * self.gamma)
        return Moved(step, moved, eps, _pair(x, step.src))


@dataclass(frozen=True)
class OBELM:
    """O-BELM: the two-step explicit formula of smallest error that can be run both ways (Wang et al. 2024, eq. 18).

    One evaluation a move, at x: with h = S_dst - S_src and g = S_src - S_before, for x over alpha,
    x_dst = x + (h/g)^2 (x_before - x) + h (g + h) / g eps. Differences between neighbours swing with (h/g)^2: over a walk up by
    (h_last / h_first)^2, which is where its first move's error and rounding errors go on grids with tiny first steps, and a
    reason for a forward start.

    >>> OBELM().order, OBELM().evaluations(10)
    (2, 10)
    """

    reversible: ClassVar[bool] = True

    @property
    def order(self) -> int:
        """Second order, both ways."""
        return 2

    def evaluations(self, moves: int) -> int:
        """One a move."""
        return moves

    def init(self, x: Tensor) -> Tensors:
        """No neighbour yet."""
        return ()

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: Tensors) -> Moved:
        """As `transfer`, eps' = (h/g^2) (x_before - x) + (1 + h/g) eps; the look-up of a turn costs no evaluation."""
        if turned := _known(x, step, state):
            return turned
        eps, src = denoiser(x, step.src), step.src
        if src.ratio == step.dst.ratio:
            return Moved(step, transfer(x, eps, step), eps, state)
        if state:
            before, level = state[0], _level(state)
            h, g = step.dst.ratio - src.ratio, src.ratio - level.ratio
            eps = h / g**2 * (before / level.alpha - x / src.alpha) + (1 + h / g) * eps
        return Moved(step, transfer(x, eps, step), eps, _pair(x, src))


def _pair(x: Tensor, level: Level) -> Tensors:
    """The memory of state `x` at `level`; CPU rows, so that reading them waits for no device."""
    rows = (torch.full((len(x),), scale, dtype=torch.float64) for scale in (level.alpha, level.sigma))
    return (x, *rows)


def _level(state: Tensors) -> Level:
    """The level of a remembered neighbour; only its scales are known."""
    return Level(-1, -1, float(state[1][0]), float(state[2][0]))


def _known(x: Tensor, step: Step, state: Tensors) -> Moved | None:
    """The move of a turn, to the remembered neighbour; None if the walk goes on.

    A move between levels of equal S leads nowhere: it leaves the memory alone and is no turn.
    """
    if not state or step.src.ratio == step.dst.ratio:
        return None
    level = _level(state)
    if (level.alpha, level.sigma) != (step.dst.alpha, step.dst.sigma):
        return None
    eps = (state[0] / step.dst.alpha - x / step.src.alpha) / (step.dst.ratio - step.src.ratio)
    return Moved(step, state[0], eps, _pair(x, step.src))
