"""Reversible methods: a walk down from the memory of a walk up returns to its start, up to rounding.

Each keeps a second tensor and can solve its move for what the move replaced, asking the network only about what is still
there: no equation is left to iterate. The memory, `Moved.state`, is a tuple of tensors with one row per item:

- `EDICT`: (y,), a twin of x at the same level.
- `BDIA`, `OBELM`: (x', alpha', sigma'), the neighbouring state that x came from, and the scales of its level as float64.

A walk turns around at any level, up or down, when the next one is given that memory:
`walk(denoiser, moved.x, grid.down(i), method, state=moved.state)`. `BDIA` and `OBELM` then look the first move up. A walk
without memory is that of any method: `EDICT` starts with two equal twins, the others with a move of DDIM asked at the source.

Exact means undone, not accurate: the latent is no whiter for it, and a forward start composes. It needs the memory: sampling
from the latent alone is a reconstruction like any other, and a poor one for `BDIA` and `OBELM` with few moves on a trained
network, where on the way up their errors swing from move to move without dying out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.denoiser import Denoiser
from ..core.grid import Step
from ..core.prediction import to_eps, to_velocity
from ..core.schedule import Level
from ..core.stepper import Moved
from ..core.transfer import transfer
from ..errors import ArgumentError

__all__ = ["BDIA", "EDICT", "OBELM", "Tensors"]

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class EDICT:
    """Two coupled states, each moved along the eps of the other and then mixed (Wallace et al. 2023).

    Two evaluations a move, both told the noisier of the two levels, so never the clean one. The twins change roles from move
    to move. Down, mixing keeps them together; up, it is undone and drives them apart by 1/p^2 a move. p = 0.93 is the paper's
    choice for 50 moves; for N moves take 0.93 ** (50 / N): with 0.93 and N = 200, latents are hundreds of times too large.

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
        return Moved(step, second, of_first, (first,)) if swapped else Moved(step, first, of_second, (second,))


@dataclass(frozen=True)
class BDIA:
    """Bidirectional integration: x_{i-1} = gamma x_{i+1} + D(i to i-1) - gamma D(i to i+1), with DDIM's moves D from x_i.

    One evaluation a move, at x_i (Zhang et al. 2024). Up, the equation is solved for x_{i+1}, which divides by gamma: the
    method's own error and rounding grow by 1/gamma a move, 2^N for gamma = 0.5. Only gamma = 1 is stable up.

    Attributes:
        gamma: In (0, 1].

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
        """Second order for gamma = 1, first order below."""
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
    """O-BELM, the most accurate of the two-step formulas that can be run both ways (Wang et al. 2024).

    One evaluation a move, at x. With h = S_dst - S_src and g = S_src - S_before, for x over alpha:
    x_dst = x + (h/g)^2 (x_before - x) + h (g + h) / g eps; solved for x_before it is the same formula. On a flow model,
    whose last S is without bound, it is that for x in t, with the velocity.

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
            if src.is_flow:
                h, g = step.dst.sigma - src.sigma, src.sigma - level.sigma
                velocity = h / g**2 * (before - x) + (1 + h / g) * to_velocity(eps, x, src)
                eps = to_eps(velocity, x, src, "flow")
            else:
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
